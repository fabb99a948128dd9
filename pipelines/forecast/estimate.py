"""From some probed clips to all of them: a stratified sample, its totals, and how sure they are.

Clips are sorted by size into strata, and from each the same number is drawn at random (by a fixed
seed: the same input gives the same plan). Few clips are all drawn, and then the totals are exact. A
stratum's total is either its number of clips times the sample's mean, or its bytes times the
sample's ratio to bytes, whichever leaves the smaller residual variance for that quantity (Cochran,
Sampling Techniques, 3rd edition, 1977, ch. 5 and 6). Intervals are percentiles of a bootstrap
within the strata, with the finite population correction: of a stratum that was probed whole nothing
is unsure.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from framebank.features.decoding.probe import Probe
from framebank.features.video import VideoRef

QUANTITIES = ("done", "quarantined", "rows", "pictures", "frames", "duration_s", "decode_s")
MOST_PROBES = 400
_STRATA = 10
_CLIPS_A_STRATUM = 20  # at least; fewer clips make fewer strata
_RESAMPLES = 1000
_SEED = 20_240_229

Values = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Stratum:
    """Clips of similar size, and those of them to probe, in random order (none where too large)."""

    refs: tuple[VideoRef, ...]
    drawn: tuple[VideoRef, ...]

    @property
    def size_bytes(self) -> int:
        return sum(ref.size_bytes for ref in self.refs)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A total with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def plus(self, other: Estimate | float) -> Estimate:
        """Return the sum with another, end by end, or with a number that is certain."""
        more = other if isinstance(other, Estimate) else Estimate(other, other, other)
        return Estimate(self.value + more.value, self.low + more.low, self.high + more.high)

    def times(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What extraction will make of the clips that are left to do.

    `totals` has an Estimate for each of QUANTITIES (`decode_s`: processor seconds). `exact`: every
    clip was probed whole. `classes`: how many of the probed clips would go to quarantine, by class.
    `longest_s` are the processor seconds of the clip that takes longest to decode.
    """

    totals: Mapping[str, Estimate]
    clips: int
    probed: int
    exact: bool
    classes: Mapping[str, int]
    longest_s: float

    def total(self, name: str) -> Estimate:
        """Return a total, that of none where no clip was probed."""
        return self.totals.get(name, Estimate(0.0, 0.0, 0.0))


def draw(
    refs: Sequence[VideoRef],
    *,
    most: int = MOST_PROBES,
    fits: Callable[[VideoRef], bool] = lambda ref: True,
) -> list[Stratum]:
    """Return the strata of `refs`, with about `most` clips drawn; all of them where there are few.

    A clip that does not fit is not drawn: its size will have to do.
    """
    apart: tuple[list[VideoRef], list[VideoRef]] = ([], [])
    for ref in sorted(refs, key=lambda ref: (ref.size_bytes, ref.video_id)):
        apart[fits(ref)].append(ref)
    rest = [Stratum(tuple(apart[False]), ())] if apart[False] else []
    return [*_strata(apart[True], most), *rest]


def _strata(ordered: Sequence[VideoRef], most: int) -> Iterator[Stratum]:
    """Yield strata of clips sorted by size.

    Equal parts of the summed square roots of size: few clips stand among the long ones, and more of
    those are drawn, for they differ most.
    """
    if not ordered:
        return
    count = min(_STRATA, max(1, min(len(ordered), most) // _CLIPS_A_STRATUM))
    weight = np.cumsum(np.sqrt([float(ref.size_bytes) for ref in ordered]))
    inner = np.searchsorted(weight, weight[-1] * np.arange(1, count) / count).tolist()
    parts = itertools.pairwise(sorted({0, *inner, len(ordered)}))
    generator = np.random.default_rng(_SEED)
    left = most
    small_first = sorted(parts, key=lambda part: part[1] - part[0])  # what they leave goes on
    for number, (start, end) in enumerate(small_first):
        clips = tuple(ordered[start:end])
        share = min(len(clips), max(1, left // (len(small_first) - number)))
        left -= share
        chosen = generator.permutation(len(clips))[:share]
        yield Stratum(clips, tuple(clips[place] for place in chosen.tolist()))


def probing_order(strata: Sequence[Stratum]) -> list[VideoRef]:
    """Return the clips to probe so that, wherever one stops, every stratum has its share."""
    rounds: list[tuple[float, int, VideoRef]] = []
    for number, stratum in enumerate(strata):
        size = len(stratum.drawn)
        rounds += [((i + 0.5) / size, number, ref) for i, ref in enumerate(stratum.drawn)]
    return [ref for _, _, ref in sorted(rounds, key=lambda item: item[:2])]


def priced(probes: Mapping[str, Probe]) -> dict[str, Probe]:
    """Return the probes with `decode_s` of all: where none was measured, by the pixels of the clip
    at the price of its codec among those that were (of all codecs, where there is none)."""
    seconds: defaultdict[str, float] = defaultdict(float)
    pixels: defaultdict[str, float] = defaultdict(float)
    for probe in probes.values():
        if probe.decode_s is not None and probe.frames:
            for name in (probe.codec, ""):
                seconds[name] += probe.decode_s
                pixels[name] += probe.frames * max(1, probe.pixels)
    each = {name: seconds[name] / pixels[name] for name in seconds}

    def fill(probe: Probe) -> Probe:
        if probe.decode_s is not None:
            return probe
        price = each.get(probe.codec, each.get("", 0.0))
        return dataclasses.replace(probe, decode_s=price * probe.frames * max(1, probe.pixels))

    return {video_id: fill(probe) for video_id, probe in probes.items()}


def forecast(strata: Sequence[Stratum], probes: Mapping[str, Probe]) -> Forecast:
    """Return the totals over all clips of `strata` from the `probes` (by video_id) there are."""
    values, sizes = [], []
    for stratum in strata:
        found = [ref for ref in stratum.drawn if ref.video_id in probes]
        values.append(np.array([_values(probes[ref.video_id]) for ref in found], float))
        sizes.append(np.array([ref.size_bytes for ref in found], float))
    clips = sum(len(stratum.refs) for stratum in strata)
    probed = sum(map(len, values))
    return Forecast(
        totals=_totals(strata, values, sizes) if probed else {},
        clips=clips,
        probed=probed,
        exact=probed == clips and not any(probe.estimated for probe in probes.values()),
        classes=dict(Counter(p.error_class for p in probes.values() if p.error_class)),
        longest_s=max((probe.decode_s or 0.0 for probe in probes.values()), default=0.0),
    )


def _values(probe: Probe) -> tuple[float, ...]:
    """Return a probe's numbers in the order of QUANTITIES."""
    bad = float(bool(probe.error_class))
    counts = (probe.rows, probe.pictures, probe.frames, probe.duration_s, probe.decode_s or 0.0)
    return (1.0 - bad, bad, *map(float, counts))


def _totals(
    strata: Sequence[Stratum], values: Sequence[Values], sizes: Sequence[Values]
) -> dict[str, Estimate]:
    by_ratio = _ratio_is_better(strata, values, sizes)
    generator = np.random.default_rng(_SEED)
    total = np.zeros(len(QUANTITIES))
    resampled = np.zeros((_RESAMPLES, len(QUANTITIES)))
    unseen_bytes = 0.0
    for stratum, some, size in zip(strata, values, sizes, strict=True):
        if not len(some):
            unseen_bytes += stratum.size_bytes
            continue
        here = _stratum_total(stratum, some[None], size[None], by_ratio)[0]
        total += here
        left = 1 - len(some) / len(stratum.refs)
        if left > 0:
            again = generator.integers(0, len(some), (_RESAMPLES, len(some)))
            drawn = _stratum_total(stratum, some[again], size[again], by_ratio)
            resampled += math.sqrt(left) * (drawn - here)
    seen_bytes = sum(s.size_bytes for s, some in zip(strata, values, strict=True) if len(some))
    grown = 1 + unseen_bytes / max(1, seen_bytes)
    low, high = np.percentile(total + resampled, (2.5, 97.5), axis=0)
    totals = {
        name: Estimate(float(value), max(0.0, float(bottom)), float(top)).times(grown)
        for name, value, bottom, top in zip(QUANTITIES, total, low, high, strict=True)
    }
    return _fitted(totals, strata, values)


def _fitted(
    totals: dict[str, Estimate], strata: Sequence[Stratum], values: Sequence[Values]
) -> dict[str, Estimate]:
    """Let done and quarantined add up to the clips; none seen in a sample is not none at all."""
    clips, probed = sum(len(stratum.refs) for stratum in strata), sum(map(len, values))
    bad = totals["quarantined"]
    share = totals["done"].value + bad.value
    value = min(clips, bad.value * clips / share) if share else 0.0
    high = bad.high if bad.value or probed == clips else 3 * clips / probed  # the rule of three
    bad = Estimate(value, min(value, bad.low), min(clips, max(value, high)))
    good = Estimate(clips - bad.value, clips - bad.high, clips - bad.low)
    return totals | {"quarantined": bad, "done": good}


def _stratum_total(
    stratum: Stratum, some: Values, size: Values, by_ratio: NDArray[np.bool_]
) -> Values:
    """Return float[r, q] totals from r samples: `some` float[r, m, q] of sizes float[r, m]."""
    total = some.sum(axis=1)
    mean = total * (len(stratum.refs) / some.shape[1])
    ratio = total * (stratum.size_bytes / size.sum(axis=1))[:, None]
    return np.where(by_ratio, ratio, mean)


def _ratio_is_better(
    strata: Sequence[Stratum], values: Sequence[Values], sizes: Sequence[Values]
) -> NDArray[np.bool_]:
    """Return bool[q]: whether residuals to bytes vary less than those to the mean."""
    by_mean, by_ratio = np.zeros(len(QUANTITIES)), np.zeros(len(QUANTITIES))
    for stratum, some, size in zip(strata, values, sizes, strict=True):
        if len(some) < 2:
            continue
        weight = len(stratum.refs) ** 2 / len(some)
        by_mean += weight * some.var(axis=0)
        by_ratio += weight * (some - some.sum(axis=0) / size.sum() * size[:, None]).var(axis=0)
    return by_ratio < by_mean
