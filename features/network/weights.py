"""Where a backbone's weights come from: `imagenet`, a file, or `random:SEED`.

Nothing here imports TensorFlow or Keras; `features/network/weight_files.py` reads the values.
FRAMEBANK_WEIGHTS_URL replaces the address of the ImageNet files by a mirror's (the file's name is
added to it); a right file that Keras has fetched before (~/.keras/models) is used as it is.

Random weights are a recipe, not a library's initializer, so that one seed gives the same values on
every machine and with every version (law, held by a golden test): the values of a weight depend
only on backbone, seed, the layer's name, and the weight's name and shape. Kernels are uniform in
±sqrt(6 / fan_in) (He et al. 2015, arXiv:1502.01852, eq. 10, so that activations keep their scale
through ReLU layers), gamma and variance are 1, everything else is 0. The uniform bits are those of
Philox4x64-10 (Salmon et al., SC 2011), whose raw stream NumPy guarantees (NEP 19).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.client
import importlib.util
import math
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import FramebankError, UsageError
from framebank.features.network import hdf5_trial
from framebank.features.network.backbones import Backbone, find_backbone
from framebank.features.network.own_files import FORMS as OWN_FORMS
from framebank.features.network.own_files import SUFFIXES as OWN_SUFFIXES
from framebank.features.network.own_files import is_own, is_own_path, pack
from framebank.features.spec import INT8
from framebank.features.stores import disk, kept, storage

RANDOM_RECIPE = "framebank-random-weights-1"
NONE = "none"  # what pixels are made with
CAFFE_SUFFIXES = (".caffemodel", "sport1m_iter_1900000")  # the latter has no suffix, as published
SUFFIXES = (".h5", ".keras", *CAFFE_SUFFIXES)
KERNELS: dict[str, tuple[str, ...]] = {  # layers with kernels → what they hold, but for the bias
    "Conv2D": ("kernel",),
    "Conv3D": ("kernel",),
    "Dense": ("kernel",),
    "DepthwiseConv2D": ("depthwise_kernel",),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel"),
}
_CHUNK = 1 << 20  # values made at a time: bounds memory for VGG's 103 million
MIRROR_VARIABLE = "FRAMEBANK_WEIGHTS_URL"
TIMEOUT_S = 20.0  # for connecting and for each read; not for the whole file
FORMS = "imagenet | a .weights.h5, .h5, .keras or .caffemodel file, local or gs:// | random:SEED"


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights that exist: a file whose bytes have this hash, or a seed.

    `name` is "imagenet", "file" or "random:SEED" and goes into the spec with `sha256`, which is the
    hash of the file or, for random weights, of the recipe, backbone and seed. `source` is what the
    user typed, so that another machine can resolve it again and compare `sha256`.
    """

    name: str
    sha256: str
    source: str
    local_path: str | None = None
    seed: int | None = None

    @property
    def is_random(self) -> bool:
        return self.seed is not None

    @property
    def kept_at(self) -> str | None:
        """Return the path that names them another time: of what was packed from several files the
        user's own, as the archive may be tidied away."""
        if self.local_path and self.local_path.endswith(".zip") and storage.is_local(self.source):
            return os.path.abspath(storage.local_path(self.source))
        return self.local_path

    def unchanged(self, what: str) -> Path:
        """Return the file's path on this machine; raises UsageError, which calls it `what`, where
        its bytes are not those that were hashed."""
        path = Path(self.local_path or "")
        if disk.file_hash(path) != self.sha256:
            raise UsageError(
                f"{what} changed while it was in use",
                got=f"{path} with another SHA-256",
                expected=self.sha256,
            )
        return path


def resolve_weights(text: str, *, backbone: str) -> Weights:
    """Return the weights that `text` names for `backbone`, fetched to this machine if need be.

    Of a network from a file that is the file, the folder or the archive that holds it. A file has
    been read to its end once by then, in a process of its own. Raises UsageError for a form that
    does not exist, a file that is missing, unreadable or damaged, and ImageNet weights that cannot
    be fetched or whose hash is wrong.
    """
    if is_own(backbone) or is_own_path(backbone):
        return _own(text)
    row = find_backbone(backbone)
    if row.is_pixels:
        if text not in ("imagenet", NONE):  # the first is what stands where none are given
            raise UsageError("pixels have no weights", got=text, todo="leave --weights out")
        return Weights(NONE, disk.bytes_sha256(b""), NONE)
    if text == "imagenet":
        path = fetch_imagenet(row)
        return Weights("imagenet", disk.file_hash(path), text, local_path=str(path))
    if text == "random" or text.startswith("random:"):
        return _random(text, row)
    return _file(text)


def publish_weights(weights: Weights, cache: str) -> Weights:
    """Put a local weight file into the cache, where workers elsewhere find it; return it as such.

    It lies at CACHE/weights/<sha256><suffix> and is written once. Random weights, files that come
    from a bucket and the graph of int8, which lies there already, are returned as they are. Raises
    JobError, UsageError.
    """
    if weights.name == INT8 or weights.local_path is None or not storage.is_local(weights.source):
        return weights
    path = Path(weights.local_path)
    target = storage.join(cache, "weights", weights.sha256 + path.suffix)
    if not storage.exists(target):
        with storage.open_read(str(path)) as file:
            blocks = iter(lambda: file.read(1 << 20), b"")
            storage.write_atomic(target, blocks, create_only=True)
    return dataclasses.replace(weights, source=target)


def localise_weights(weights: Weights) -> Weights:
    """Return the weights with a `local_path` that holds on this machine, its SHA-256 checked.

    Workers that start together fetch a file once. Raises UsageError where it cannot be had, or is
    not the one that the submitter had.
    """
    if weights.is_random or weights.name == NONE:
        return weights
    for path in (weights.local_path, weights.source):
        if path and storage.is_local(path) and _holds(Path(path), weights.sha256):
            return dataclasses.replace(weights, local_path=path)
    if storage.is_local(weights.source):
        raise UsageError(
            "the weights are not on this worker",
            got=f"no file {weights.local_path} with SHA-256 {weights.sha256}",
            expected="the file that the job was submitted with",
            todo="keep the cache in a bucket, which carries them, or put the file at that path",
        )
    staged = stage_checked(weights.source, weights.sha256)
    return dataclasses.replace(weights, local_path=str(staged))


def _random(text: str, backbone: Backbone) -> Weights:
    digits = text.partition(":")[2]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise UsageError(
            "random weights need a seed",
            got=repr(text),
            expected="random:SEED with a whole number from 0, such as random:0",
            todo="random weights are for trying things out; features made with them say so",
        )
    seed = int(digits)
    recipe = f"{RANDOM_RECIPE}\0{backbone.name}\0{seed}"
    return Weights(f"random:{seed}", hashlib.sha256(recipe.encode()).hexdigest(), text, seed=seed)


def _own(text: str) -> Weights:
    """Return a network from a file or a local folder, as one file whose bytes alone count."""
    path = stage_object(text) if "://" in text else Path(os.path.expanduser(text))
    try:
        if not path.is_dir():
            _check_readable(path, text, suffixes=OWN_SUFFIXES, forms=OWN_FORMS, what="backbone")
        path = pack(path, cache_folder() / "own")
        digest = disk.file_hash(path)
    except OSError as err:
        got = f"{text}: {err.strerror}"
        raise UsageError("the backbone cannot be read", got=got, expected=OWN_FORMS) from err
    if path.suffix != ".onnx":
        _try_once(path, digest, text)
    return Weights("file", digest, text, local_path=str(path.absolute()))


def _file(text: str) -> Weights:
    path = stage_object(text) if "://" in text else Path(os.path.expanduser(text))
    try:
        _check_readable(path, text)
        digest = disk.file_hash(path)
    except OSError as err:
        raise UsageError(
            "the weight file cannot be read", got=f"{text}: {err.strerror}", expected=FORMS
        ) from err
    _try_once(path, digest, text)
    return Weights("file", digest, text, local_path=str(path.absolute()))


@functools.lru_cache(maxsize=16)  # `ask` names its file more than once
def _try_once(path: Path, sha256: str, text: str) -> None:
    """Raise UsageError for a file whose HDF5 this process should not open; the same bytes are tried
    once on a machine."""
    reader = version("h5py") if importlib.util.find_spec("h5py") else None
    sources = [Path(hdf5_trial.__file__)]
    key = kept.key_of("hdf5", sha256, path.suffix, reader, sources=sources)
    if kept.load(key) is not None:
        return
    if fault := hdf5_trial.find_fault(path):
        raise UsageError(
            "the weight file is damaged",
            got=f"{text}: {fault}",
            expected="a file that can be read to its end",
            todo=f"save or fetch it again; this one has SHA-256 {sha256}",
        )
    if disk.file_hash(path) == sha256:  # still
        kept.keep(key, "sound", {})


def _check_readable(
    path: Path,
    text: str,
    *,
    suffixes: tuple[str, ...] = SUFFIXES,
    forms: str = FORMS,
    what: str = "weights",
) -> None:
    """Raise UsageError unless `path` is a plain file with one of the suffixes."""
    if path.is_file() and text.endswith(suffixes):
        return
    if path.is_file():
        got = f"{text}, whose suffix is {path.suffix or 'missing'}"
    elif path.exists():
        got = f"{text}, which is no plain file"
    else:
        got = f"{text}, which does not exist"
    todo = "without a weight file, --weights random:0 lets you try everything else"
    raise UsageError(
        f"no such {what}", got=got, expected=forms, todo=todo if what == "weights" else None
    )


def cache_folder() -> Path:
    """Return the folder where fetched weights are kept (not made here)."""
    return kept.home() / "weights"


def fetch_imagenet(backbone: Backbone, *, timeout_s: float = TIMEOUT_S) -> Path:
    """Return a local file with the ImageNet weights of `backbone`, its hash checked.

    Raises UsageError that says what was tried and offers PATH or random:0.
    """
    if not backbone.weights_path:
        raise UsageError(
            f"{backbone.name} has no ImageNet weights",
            got="--weights imagenet",
            expected=FORMS.partition(" | ")[2],
            todo="give the published Sports-1M file, of Caffe or Keras, with --weights PATH, or "
            "try things out with --weights random:0",
        )
    if backbone.weights_md5 is None:
        raise UsageError(
            f"Keras publishes no hash of its ImageNet weights for {backbone.name}",
            got="--weights imagenet",
            expected="a file that can be checked",
            todo=f"fetch {backbone.weights_url} yourself and give --weights PATH",
        )
    target = cache_folder() / backbone.weights_file
    keras_home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    for path in (target, keras_home / "models" / backbone.weights_file):
        if _holds(path, backbone.weights_md5, "md5"):
            return path
    url = _url(backbone)
    fetched = functools.partial(urllib.request.urlopen, url, timeout=timeout_s)
    try:
        _keep(fetched, target, "md5", backbone.weights_md5)
    except (_WrongHashError, OSError, ValueError, http.client.HTTPException) as err:
        raise UsageError(
            f"the ImageNet weights of {backbone.name} could not be fetched",
            got=f"{url}: {_reason(err, timeout_s)}",
            expected=f"{backbone.weights_file} with MD5 {backbone.weights_md5}",
            todo="give a file with --weights PATH, a mirror with "
            f"{MIRROR_VARIABLE}=http(s)://..., or try things out with --weights random:0",
        ) from err
    return target


def _reason(err: Exception, timeout_s: float) -> str:
    if isinstance(err, _WrongHashError):
        return f"{err.size_bytes} bytes came with MD5 {err.found}, but Keras publishes {err.wanted}"
    if isinstance(err, urllib.error.HTTPError):
        return f"the server answered {err.code} {err.reason}"
    if isinstance(err, urllib.error.URLError):
        return f"no connection ({err.reason})"
    if isinstance(err, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    folder = isinstance(err, OSError) and err.filename
    more = " (XDG_CACHE_HOME names another folder to keep weights in)" if folder else ""
    return (str(err) or type(err).__name__) + more


def stage_object(uri: str) -> Path:
    """Return a local copy, named by its content, of a weight file in a bucket; UsageError."""
    try:
        data = storage.read_bytes(uri)
    except FramebankError as err:
        raise UsageError(
            "the weight file cannot be read from its bucket",
            got=f"{uri}: {err.what}",
            todo=err.todo,
        ) from err
    name = f"{disk.bytes_sha256(data)[:16]}-{uri.rsplit('/', 1)[-1]}"
    target = cache_folder() / "staged" / name
    try:
        if not target.exists():
            with storage.replacing(target) as part:
                part.write_bytes(data)
    except OSError as err:
        raise _not_kept(target, err) from err
    return target


def stage_checked(uri: str, sha256: str) -> Path:
    """Return a local copy of a weight file in a bucket, whose bytes have this SHA-256.

    The first of the processes that ask for it fetches it, the others wait.
    Raises UsageError when it is not there, not readable, or another file.
    """
    folder = cache_folder() / "staged"
    target = folder / (sha256 + Path(uri).suffix)
    try:
        with disk.locked(folder / f".{sha256}.lock"):
            if not _holds(target, sha256):
                disk.remove_leftovers(target)
                _keep(functools.partial(storage.open_read, uri), target, "sha256", sha256)
    except OSError as err:
        raise _not_kept(target, err) from err
    except _WrongHashError as err:
        raise UsageError(
            "the weight file is not the one that the job was submitted with",
            got=f"{uri} with SHA-256 {err.found}",
            expected=f"SHA-256 {sha256}",
            todo="put the file back, or start the job anew",
        ) from err
    return target


class _WrongHashError(Exception):
    def __init__(self, found: str, wanted: str, size_bytes: int) -> None:
        self.found, self.wanted, self.size_bytes = found, wanted, size_bytes


def _keep(
    opened: Callable[[], AbstractContextManager[Any]], target: Path, algorithm: str, digest: str
) -> None:
    """Keep what `opened` gives as `target`, whole or not at all; raises _WrongHashError."""
    with storage.replacing(target) as part:
        with opened() as source, part.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        found = disk.file_hash(part, algorithm)
        if found != digest:
            raise _WrongHashError(found, digest, part.stat().st_size)


def _url(backbone: Backbone) -> str:
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror:
        return backbone.weights_url
    if urllib.parse.urlsplit(mirror).scheme not in ("http", "https"):
        raise UsageError(
            f"{MIRROR_VARIABLE} is no web address", got=repr(mirror), expected="http(s)://..."
        )
    return f"{mirror.rstrip('/')}/{backbone.weights_file}"


def _holds(path: Path, digest: str, algorithm: str = "sha256") -> bool:
    try:
        return path.is_file() and disk.file_hash(path, algorithm) == digest
    except OSError:
        return False


def _not_kept(target: Path, err: OSError) -> UsageError:
    return UsageError(
        "the weight file cannot be kept on this machine",
        got=f"{target}: {err.strerror}",
        todo="set XDG_CACHE_HOME to a folder that can be written and has room",
    )


def random_array(
    backbone: Backbone, seed: int, *, layer: str, weight: str, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return float32[shape]: the values of one weight under `random:SEED`."""
    if weight in ("gamma", "moving_variance"):
        return np.ones(shape, np.float32)
    if not weight.endswith("kernel"):
        return np.zeros(shape, np.float32)
    fan_in = math.prod(shape[:2] if weight == "depthwise_kernel" else shape[:-1])
    limit = np.float32(backbone.random_gain * math.sqrt(6.0 / fan_in))
    text = "\0".join((RANDOM_RECIPE, backbone.name, str(seed), layer, weight))
    key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], "<u8").astype(np.uint64)
    bits = np.random.Philox(key=key)
    values = np.empty(math.prod(shape), np.float32)
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        raw = bits.random_raw((len(part) + 1) // 2).astype("<u8").view("<u4")[: len(part)]
        # 24 bits fill a float32 exactly, so nothing up to the product by `limit` is rounded.
        part[:] = ((raw >> np.uint32(8)).astype(np.float32) * np.float32(2**-23) - 1) * limit
    return values.reshape(shape)


def weight_names(layer: Any) -> tuple[str, ...]:
    """Return what the weights of a Keras layer are, in order; our names, whatever Keras calls them.

    Raises ValueError for a class that the random recipe does not know.
    """
    kind = type(layer).__name__
    if kind == "BatchNormalization":
        affine = (("gamma", layer.scale), ("beta", layer.center))
        return (*(name for name, used in affine if used), "moving_mean", "moving_variance")
    if kind in KERNELS:
        return (*KERNELS[kind], "bias") if layer.use_bias else KERNELS[kind]
    if layer.weights:
        raise ValueError(f"no recipe for random weights of a {kind}")
    return ()


def random_layers(
    seed: int, *, backbone: Backbone, layers: Mapping[str, Any]
) -> dict[str, list[NDArray[np.float32]]]:
    """Return the values of each layer's weights under `random:SEED`, as `layer.weights` goes."""
    return {
        name: [
            random_array(backbone, seed, layer=name, weight=weight, shape=tuple(variable.shape))
            for weight, variable in zip(weight_names(layer), layer.weights, strict=True)
        ]
        for name, layer in layers.items()
    }
