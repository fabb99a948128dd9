"""The model in use, and the engine of its spec: loaded, watched, changed while requests go on.

Of a registry the version in use is looked up every few seconds, so that a promotion and a rollback
are taken up. What cannot be loaded is told, and the model stays. A request keeps the model that it
began with; an engine that no model needs any more ends after the last request that does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator

import numpy as np

from framebank.features.asking.command import find_weights
from framebank.features.asking.trained_model import (
    Lineage,
    TrainedModel,
    check_weights,
    load_model,
    read_lineage,
)
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.errors import FramebankError, UsageError
from framebank.features.extraction import one_clip
from framebank.features.extraction.engine import Engine
from framebank.features.extraction.live import LiveEngine
from framebank.features.network.picture_coder import PictureCoder
from framebank.features.spec import FeatureSpec, SpecChoice
from framebank.features.stores import storage
from framebank.train.retrain.registry import Registry
from framebank.train.serve.metrics import MeasuredNetwork, Metrics

PICTURE_SIDE = 160  # of the frames that an explanation shows
POLL_S = 2.0
_TRY_AGAIN_S = 30.0  # what could not be loaded
_BATCH = 8  # frames; a step of the network on a processor
_log = logging.getLogger(__name__)


def engine_key(spec: FeatureSpec) -> Hashable:
    """Return all of a spec on which an engine depends: models of one key share it."""
    sampled = (spec.sample, spec.max_frames, spec.resize, spec.clip_length, spec.clip_stride)
    return (one_clip.computing(spec), sampled)


class ClipEngine:
    """The engine of a spec, with pictures of the frames as a second network."""

    def __init__(
        self, lineage: Lineage, policy: DecoderPolicy, metrics: Metrics, *, weights: str | None
    ) -> None:
        """Raises UsageError where the weights are not found."""
        spec = self.spec = lineage.spec
        source = find_weights(lineage, given=weights)
        network = one_clip.build_network(
            spec, one_clip.find_weights(source, spec), batch_size=_BATCH
        )
        self.feature_dim = network.feature_dim
        self.has_pictures = spec.clip_length == 1
        also = []
        if self.has_pictures:
            resize = spec.resize if spec.resize in ("stretch", "crop") else "stretch"
            choice = SpecChoice(
                spec.sample, f"pixels:{PICTURE_SIDE}", resize=resize, max_frames=spec.max_frames
            )
            coder = PictureCoder(PICTURE_SIDE, "jpeg", batch_size=_BATCH)
            also = [(coder, one_clip.make_spec(choice)[0])]
        frames = (spec.clip_length,) if spec.clip_length > 1 else ()
        network(np.zeros((1, *frames, spec.input_size, spec.input_size, 3), np.uint8))  # wakes it
        measured = MeasuredNetwork(network, metrics)
        self.live = LiveEngine(lambda: Engine(measured, spec, policy, also=also))
        self._users, self._is_retired = 0, False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Keep the engine from ending meanwhile."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
            self._end_if_unused()

    def retire(self) -> None:
        """End the engine after the last of its users."""
        self._is_retired = True
        self._end_if_unused()

    def _end_if_unused(self) -> None:
        with self._lock:
            ends = self._is_retired and not self._users
            self._is_retired &= not ends
        if ends:
            threading.Thread(target=self.live.close, daemon=True).start()


@dataclasses.dataclass(frozen=True, eq=False)
class ModelInUse:
    """A model as requests use it; `version` is "" for one that is no version of a registry."""

    name: str
    version: str
    folder: str
    lineage: Lineage
    model: TrainedModel
    clips: ClipEngine


class Models:
    """The model at `path`, or of the registry at `path` the one in use, from `load` to `close`."""

    def __init__(
        self,
        path: str,
        policy: DecoderPolicy,
        metrics: Metrics,
        *,
        name: str | None = None,
        weights: str | None = None,
        say: Callable[[str], None],
    ) -> None:
        self.path, self._policy, self._metrics = path, policy, metrics
        self.name = name or path.rstrip("/").rpartition("/")[2] or "framebank"
        self._weights, self._say = weights, say
        self._registry = _registry(path)
        self._now: ModelInUse | None = None
        self._lock = threading.Lock()
        # A version, and when it is tried again.
        self._failed: tuple[str | None, float] = (None, 0.0)
        self._ended = threading.Event()
        self._watcher: threading.Thread | None = None

    def load(self) -> ModelInUse:
        """Load the model, and watch the registry from now on; takes seconds. Raises UsageError for
        what is no model, FramebankError."""
        if self._registry is None:
            return self._take(self._read("", self.path))
        version = self._registry.current().version
        if version is None:
            todo = "run `framebank retrain`, or `framebank models promote VERSION`"
            raise UsageError(f"no model is in use in the registry {self.path}", todo=todo)
        taken = self._take(self._read(version, self._registry.folder(version)))
        self._watcher = threading.Thread(target=self._watch, name="registry", daemon=True)
        self._watcher.start()
        return taken

    @property
    def now(self) -> ModelInUse:
        assert self._now is not None
        return self._now

    @contextlib.contextmanager
    def using(self) -> Iterator[ModelInUse]:
        """Yield the model in use, which stays usable until the end of the block."""
        with contextlib.ExitStack() as stack:
            with self._lock:
                taken = self.now
                stack.enter_context(taken.clips.used())
            yield taken

    def close(self) -> None:
        """Watch no more, and end the engine."""
        self._ended.set()
        if self._watcher is not None:
            self._watcher.join(timeout=60)
        if self._now is not None:
            self._now.clips.live.close()

    def _read(self, version: str, folder: str) -> ModelInUse:
        lineage = read_lineage(folder)
        check_weights(folder)
        model = load_model(folder, keep=True)
        clips = self._now.clips if self._now is not None else None
        if clips is None or engine_key(clips.spec) != engine_key(lineage.spec):
            clips = ClipEngine(lineage, self._policy, self._metrics, weights=self._weights)
        return ModelInUse(self.name, version, folder, lineage, model, clips)

    def _take(self, found: ModelInUse) -> ModelInUse:
        with self._lock:
            before, self._now = self._now, found
        self._metrics.take_up(found.name, found.version)
        if before is not None and before.clips is not found.clips:
            before.clips.retire()
        return found

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            self.look()

    def look(self) -> None:
        """Take up the version that the registry has in use now, if it is another one."""
        assert self._registry is not None
        version = None
        try:
            version = self._registry.current().version
            failed, again_s = self._failed
            if version in (None, self.now.version):
                return
            if version == failed and time.monotonic() < again_s:
                return
            assert version is not None
            self._take(self._read(version, self._registry.folder(version)))
        except Exception as error:  # noqa: BLE001 - the model that is there goes on
            what = error.what if isinstance(error, FramebankError) else repr(error)
            if (version or "") != self._failed[0]:
                self._say(f"WARNING: {version or 'what is in use'} cannot be taken up: {what}")
            self._failed = (version or "", time.monotonic() + _TRY_AGAIN_S)
            self._metrics.model_changes.labels("failed").inc()
            return
        self._failed = (None, 0.0)
        self._metrics.model_changes.labels("taken").inc()
        self._say(f"{version} is in use now")


def _registry(path: str) -> Registry | None:
    """Return the registry at `path`, None where a model's folder is there."""
    if storage.exists(storage.join(path, "model.keras")):
        return None
    registry = Registry(path)
    if registry.current().version is None and not storage.folder_exists(registry.path):
        return None  # `read_lineage` says what is wrong with it
    has_models = storage.folder_exists(storage.join(path, "models"))
    return registry if has_models or registry.current().number else None
