"""How decoders are run."""

from __future__ import annotations

import dataclasses

from framebank.features.decoding.container import DecodeLimits

_TIMEOUT_BYTES = 10 * 2**20  # a clip's time grows by the base limit for each 10 MiB


@dataclasses.dataclass(frozen=True)
class DecoderPolicy:
    """How decoders are run; nothing in here changes a feature.

    `decoders`: processes of one pool; None: as many as the machine that decodes has cores, and
    memory for. `timeout_s`: a decoder silent for that long hangs; one clip may take that long plus
    as much again for each 10 MiB of file. `memory_bytes` is the address space of one decoder
    process (None: its share of the machine's), `queue_bytes` what decoded frames may take while
    they wait for the network. `check` is how much is decoded (`DecodeRequest`); a film is cut
    into shares from `cut_pixels` to decode on, which take two seconds: each decoder of them plans
    the whole film, and so reads all of its packets.
    """

    decoders: int | None = None
    timeout_s: float = 60.0
    memory_bytes: int | None = None
    queue_bytes: int = 64 * 2**20
    allow_partial: bool = False
    strict: bool = False
    check: str = "whole"
    cut_pixels: int = 2**29
    limits: DecodeLimits = dataclasses.field(default_factory=DecodeLimits)

    def time_limit_s(self, size_bytes: int) -> float:
        return self.timeout_s * (1 + max(0, size_bytes) / _TIMEOUT_BYTES)

    @property
    def cuts_films(self) -> bool:
        """Tell whether a clip may be decoded by several decoders: only what is not checked wholly,
        for else each picture follows from the one before."""
        return self.check == "sampled" and not self.allow_partial
