"""Networks of one's own: what `--backbone PATH` may be, and what the file says of itself.

A `.keras` file, an `.onnx` file (with the files of its external data beside it) or the folder of a
KerasHub preset. Of several files one archive is made, without times, so that the same bytes give
the same SHA-256 wherever they lie and whatever the folder is called. Nothing is loaded or run here,
neither TensorFlow nor onnxruntime is imported, and every path that a file names stays in its own
folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from framebank.features.errors import FramebankError, UsageError, needing
from framebank.features.network.preprocessing import NAMES, affine
from framebank.features.stores import disk, json_text

KERAS, ONNX, PRESET = "keras", "onnx", "keras_hub"
SUFFIXES = (".keras", ".onnx", ".zip")  # .zip: as this module packs several files
FORMS = "a .keras file | an .onnx file | the folder of a KerasHub preset"
OUTPUT = "output"  # the layer that stands for what the network gives by itself
ONNX_FILE = "model.onnx"  # in the archive
PRESET_CONFIG, CONVERTER = "config.json", "image_converter.json"
_PRESET_FILES = re.compile(
    r"config\.json|image_converter\.json|model\.weights\.(h5|json)|model_[0-9]+\.weights\.h5"
)
_MOST_CONFIG = 1 << 26  # bytes of a JSON that describes a network
_LOWEST, _HIGHEST = 8, 4096  # pixels of a side
_MOST_PIXELS = 8 * _HIGHEST**2  # of a batch that a file fixes
_OWN_SCALES = ("Rescaling", "Normalization")
_WHOLE = ("uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


@dataclasses.dataclass(frozen=True)
class OwnNetwork:
    """What the bytes of a file say of the network in it.

    `name` is the kind and what the file calls it ("keras:efficientnetb0"); it goes into the spec as
    the backbone. `input_size` and `preprocessing` are None where the file does not state them.
    `channels_first`: it takes [b, c, h, w] (NCHW). `takes_bytes`: it takes whole numbers, which
    nothing but pixels from 0 to 255 can be.
    """

    name: str
    input_size: int | None
    channels_first: bool
    preprocessing: str | None
    takes_bytes: bool

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]


def is_own(backbone: str) -> bool:
    """Return whether a spec's backbone is a network from a file, not one of the table."""
    return backbone.partition(":")[0] in (KERAS, ONNX, PRESET) and ":" in backbone


def is_own_path(text: str) -> bool:
    """Return whether `--backbone TEXT` names a file or folder, not a row of the table."""
    return text.endswith(SUFFIXES) or "/" in text or os.path.isdir(text)


def refused(path: object, got: object, expected: str, *, todo: str | None = None) -> UsageError:
    """Return what is said of a file that is not used as a network."""
    return UsageError(f"{path} is not used as a backbone", got=got, expected=expected, todo=todo)


@contextlib.contextmanager
def loading(path: object) -> Iterator[None]:
    """Say of whatever fails inside that `path` cannot be used, in one line."""
    try:
        yield
    except (FramebankError, ModuleNotFoundError):
        raise
    except Exception as err:
        lines = [line.strip() for line in str(err).splitlines() if line.strip()]
        got = f"it does not load: {type(err).__name__}: {(lines or [''])[0][:300]}"
        raise refused(path, got, "a network that the libraries here load and run") from err


def pack(path: Path, folder: Path) -> Path:
    """Return the one file that holds the network at `path`: itself, or an archive made in `folder`.

    Raises UsageError for what is no network, OSError.
    """
    if path.is_dir():
        names = sorted(name for name in os.listdir(path) if _PRESET_FILES.fullmatch(name))
        if PRESET_CONFIG not in names or not any(name.endswith(".h5") for name in names):
            expected = f"{PRESET_CONFIG} and model.weights.h5, as save_to_preset writes them"
            raise refused(path, f"a folder with {names or 'neither'}", expected)
        return _packed(((name, path / name) for name in names), folder)
    if path.suffix != ".onnx":
        return path
    data = external_data(parse_onnx(path, path.read_bytes()))
    check_beside(path, path.parent, data)
    if not data:
        return path
    return _packed([(ONNX_FILE, path), *((name, path.parent / name) for name in data)], folder)


def _packed(files: Iterable[tuple[str, Path]], folder: Path) -> Path:
    part = folder / f"own-{os.getpid()}.zip"
    with disk.replacing(part) as new, zipfile.ZipFile(new, "w", zipfile.ZIP_STORED) as archive:
        for name, path in sorted(files):
            info = zipfile.ZipInfo(name)  # of 1980, readable by all: neither is the network's
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            with _open_plain(path) as source, archive.open(info, "w", force_zip64=True) as target:
                while block := source.read(1 << 20):
                    target.write(block)
    packed = folder / f"{disk.file_hash(part)}.zip"
    os.replace(part, packed)
    return packed


def _open_plain(path: Path) -> Any:
    """Open a plain file that is no link; raises UsageError."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as err:
        raise refused(path, err.strerror, "a plain file, no link") from err
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise refused(path, "no plain file", "a plain file")
    return os.fdopen(number, "rb")


def check_beside(source: object, folder: Path, names: Iterable[str]) -> None:
    """Raise UsageError, which names `source`, unless all are plain files in or below `folder`: no
    path leads out of it, by its words or by a link."""
    root = os.path.realpath(folder)
    for name in names:
        told = f"external data at {name!r:.200}"
        if not name or "\0" in name or os.path.isabs(name) or ".." in Path(name).parts:
            raise refused(source, told, "files in the folder of the network")
        path = folder / name
        if not os.path.realpath(path).startswith(root + os.sep):
            raise refused(source, told, "files in the folder of the network")
        # onnxruntime takes names with a star for places in memory.
        if name == ONNX_FILE or "*" in name or not path.is_file() or path.is_symlink():
            raise refused(source, f"{told}, no plain file", "plain files beside it")


def unpack(path: Path, folder: str) -> Path:
    """Return the network's own path: `path`, or what an archive of `pack` holds, put into `folder`.

    Raises UsageError for an archive with other names than `pack` gives.
    """
    if path.suffix != ".zip":
        return path
    with _opened(path) as archive:
        for info in archive.infolist():
            target = os.path.realpath(os.path.join(folder, info.filename))
            plain = info.compress_type == zipfile.ZIP_STORED and not info.is_dir()
            if not plain or not target.startswith(os.path.realpath(folder) + os.sep):
                raise refused(path, f"{info.filename!r} in it", "an archive that Framebank made")
            archive.extract(info, folder)
    return Path(folder)


def describe(path: Path, source: str) -> OwnNetwork:
    """Return what the file says of itself; `path` is a .keras file, an .onnx file or an archive of
    `pack`, made of `source`. Raises UsageError for what cannot be a network of images."""
    try:
        if path.suffix == ".onnx":
            return _describe_onnx(source, path.read_bytes())
        with _opened(path) as archive:
            if path.suffix == ".keras":
                return _describe_keras(source, archive)
            if ONNX_FILE in archive.namelist():
                return _describe_onnx(source, archive.read(ONNX_FILE))
            return _describe_preset(source, archive)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as err:
        got = f"{type(err).__name__}: {str(err)[:200]}"
        raise refused(source, f"a description that cannot be read ({got})", FORMS) from err


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as err:
        raise refused(path, f"no zip file ({err})", FORMS) from err


def read_json(path: object, archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    """Return a JSON object of an archive; raises UsageError for none, or a huge one."""
    if name not in archive.namelist() or archive.getinfo(name).file_size > _MOST_CONFIG:
        raise refused(path, f"a file without {name}, or with a huge one", FORMS)
    try:
        return json_text.parse_object(archive.read(name))
    except (ValueError, RuntimeError, zipfile.BadZipFile) as err:
        raise refused(path, f"{name}: {err}", "JSON") from err


def _name(kind: str, given: object) -> str:
    """Return the backbone's name in the spec; the file's own words may hold anything."""
    return f"{kind}:{re.sub(r'[^A-Za-z0-9_.-]', '_', str(given))[:64] or 'network'}"


def _shaped(
    source: str, shape: list[Any], *, name: str, scales: str | None, takes_bytes: bool = False
) -> OwnNetwork:
    """Return the network that takes `shape`, of four: batch, and three in either layout."""
    sides = [one if isinstance(one, int) and one > 0 else None for one in shape]
    first = len(sides) == 4 and sides[1] == 3 and sides[3] != 3
    height, width = sides[2:4] if first else [*sides, None, None, None][1:3]
    if len(sides) != 4 or sides[1 if first else 3] != 3 or height != width:
        expected = "square RGB images [b, h, w, 3] or [b, 3, h, w], of a stated layout"
        raise refused(source, f"an input of shape {shape}", expected)
    if height is not None:
        check_size(height)
    if (sides[0] or 1) * (height or 1) ** 2 > _MOST_PIXELS:
        raise refused(source, f"a fixed batch of {sides[0]}", f"{_MOST_PIXELS:,} pixels at most")
    return OwnNetwork(name, height, first, "none" if takes_bytes else scales, takes_bytes)


def check_size(size: int) -> None:
    """Raise UsageError for a side that no network of images has."""
    if not _LOWEST <= size <= _HIGHEST:
        raise UsageError("the input size is out of range", got=size, expected="8 to 4096 pixels")


def _describe_keras(source: str, archive: zipfile.ZipFile) -> OwnNetwork:
    config = read_json(source, archive, "config.json")
    inner = config["config"]
    layers = list(inner.get("layers") or [])
    inputs = [one["config"] for one in layers if one["class_name"] == "InputLayer"]
    if len(inputs) != 1:
        raise refused(source, f"{config.get('class_name')} with {len(inputs)} inputs", "one input")
    shape = inputs[0].get("batch_shape") or inputs[0]["batch_input_shape"]
    kind = str(inputs[0].get("dtype") or "float32")
    if kind not in (*_WHOLE, "float32", "float16", "bfloat16", "float64"):
        expected = "an input of floats, or of whole numbers up to 255"
        raise refused(source, f"an input of {kind:.100}", expected)
    scales, name = "none" if _begins_with_scales(layers) else None, _name(KERAS, inner.get("name"))
    return _shaped(source, shape, name=name, scales=scales, takes_bytes=kind in _WHOLE)


def _begins_with_scales(layers: list[Any]) -> bool:
    """Return whether the first layer after the input scales pixels (EfficientNet's, ConvNeXt's)."""
    after = [one for one in layers if one["class_name"] != "InputLayer"][:1]
    while after and after[0]["class_name"] in ("Sequential", "Functional"):
        inner = after[0]["config"].get("layers") or []
        after = [one for one in inner if one["class_name"] != "InputLayer"][:1]
    return bool(after) and after[0]["class_name"] in _OWN_SCALES


def _describe_preset(source: str, archive: zipfile.ZipFile) -> OwnNetwork:
    config = read_json(source, archive, PRESET_CONFIG)
    if "registered_name" not in config:
        raise refused(source, "no preset of KerasHub's own format", "what save_to_preset writes")
    tower = config["config"].get("vision_encoder", config)
    name = _name(PRESET, config["class_name"])
    if "image_shape" not in tower["config"]:
        raise refused(source, f"{name.partition(':')[2]} without image_shape", "an image network")
    shape = [None, *tower["config"]["image_shape"]]
    scales = None
    if CONVERTER in archive.namelist():
        scales = _scales(read_json(source, archive, CONVERTER)["config"])
    return _shaped(source, shape, name=name, scales=scales)


def _scales(config: dict[str, Any]) -> str:
    """Return the preprocessing that an image converter of KerasHub does."""

    def three(value: Any, default: float) -> list[float]:
        numbers = value if isinstance(value, list) else [default if value is None else value] * 3
        if len(numbers) != 3:
            raise ValueError(f"{len(numbers)} numbers for three channels")
        return [float(one) for one in numbers]

    return affine(three(config.get("scale"), 1.0), three(config.get("offset"), 0.0))


def parse_onnx(path: object, data: bytes) -> Any:
    """Return the `onnx.ModelProto`; raises UsageError."""
    with needing("an ONNX backbone", extra="onnx"):
        import onnx
        from google.protobuf.message import DecodeError
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError) as err:
        raise refused(path, f"no ONNX model ({err})", FORMS) from err
    if not model.graph.node:
        raise refused(path, "an ONNX model without a node", "an ONNX model")
    return model


def _describe_onnx(source: str, data: bytes) -> OwnNetwork:
    model = parse_onnx(source, data)
    made = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in made]
    if len(inputs) != 1:
        got = f"{len(inputs)} inputs ({', '.join(one.name for one in inputs)[:200]})"
        raise refused(source, got, "one input, the image", todo="export the image tower alone")
    kind = inputs[0].type.tensor_type
    shape = [side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim]
    import onnx

    if kind.elem_type not in (
        onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.UINT8
    ):  # fmt: skip
        got = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise refused(source, f"an input of {got}", "an input of FLOAT, FLOAT16 or UINT8")
    takes_bytes = kind.elem_type == onnx.TensorProto.UINT8
    name = _name(ONNX, model.graph.name)
    return _shaped(source, shape, name=name, scales=None, takes_bytes=takes_bytes)


def onnx_messages(model: Any, kind: type) -> Iterator[Any]:
    """Yield every message of `kind` in a model, wherever it stands: in its graphs, in graphs of
    nodes, in its functions and in the values that these take where none is given."""
    import onnx

    todo = [model]
    while todo:
        message = todo.pop()
        if isinstance(message, kind):
            yield message
        if not isinstance(message, onnx.TensorProto):  # which holds no more, but many bytes
            for _, value in message.ListFields():
                several = value if isinstance(value, Sequence) else [value]
                todo += [one for one in several if hasattr(one, "ListFields")]


def external_data(model: Any) -> list[str]:
    """Return the files that a model keeps tensors in, beside itself."""
    import onnx

    found = {
        entry.value
        for tensor in onnx_messages(model, onnx.TensorProto)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return sorted(found)


def map_axes(shape: Sequence[int | None], *, first: bool) -> tuple[int, int]:
    """Return where h and w stand in a map of four: at the two sides that are equal, as pictures are
    square (a file may change its layout on the way); else as in the input, `first` if [b, c, h, w].
    """
    if (shape[1] == shape[2]) != (shape[2] == shape[3]):
        first = shape[2] == shape[3]
    return (2, 3) if first else (1, 2)


def declared(
    own: OwnNetwork, *, path: str, preprocess: str | None, input_size: int | None
) -> tuple[int, str]:
    """Return input size and preprocessing: what the file states, else what was declared.

    A declared preprocessing holds against the file's. Raises UsageError where one is missing, or
    the file states another size.
    """
    if input_size is not None:
        check_size(input_size)
    size, scales = own.input_size or input_size, preprocess or own.preprocessing
    if size is None:
        raise refused(path, "a network that takes images of any size", "one", todo="--input-size N")
    if input_size not in (None, size):
        raise refused(path, f"--input-size {input_size}", f"{size}, which the file states")
    if own.takes_bytes and scales != "none":
        raise refused(path, f"--preprocess {scales}", "none: it takes pixels from 0 to 255")
    if scales is None:
        raise UsageError(
            "the preprocessing of this network is not known",
            got=f"{path}, which does not state it",
            expected=" | ".join(NAMES),
            todo="declare what it was trained with: --preprocess NAME (none: pixels 0 to 255)",
        )
    return size, scales
