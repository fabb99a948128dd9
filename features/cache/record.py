"""The cache record: the features of one video as one tf.train.Example.

Fields, in the order in which they are written (ascending by name), schema version 1:

    capped           int64[1]   1: --max-frames cut rows off
    content_sha256   bytes[1]   64 hex digits over the video's bytes
    decode_errors    int64[1]   errors that the demuxer and decoder reported
    dtype            bytes[1]   "float16", "float32" or "uint8"; of pixels "jpeg" or "png"
    features         bytes[1]   [n, d] row-major, little-endian, of `dtype`; n >= 1
                     bytes[n]   of pixels: a picture each, by itself a file of its form
    frame_index      int64[n]   number of each row's frame in order of presentation, ascending
    key              bytes[1]   32 hex digits: the video's key (VideoRef.key)
    offset           bytes[1]   uint8 only: float32[d], little-endian
    partial          int64[1]   1: the clip is damaged and was kept by --allow-partial
    pts_ms           int64[n]   milliseconds since the first presented frame, ascending
    scale            bytes[1]   uint8 only: float32[d], little-endian, >= 0
    schema_version   int64[1]   1
    shape            int64[2]   n, d; of pixels int64[4]: n, h, w, 3
    source_*         container, codec: bytes[1]; width, height (pixels as shown), frames: int64[1];
                     rate_fps, duration_s: float32[1]
    span_ms          int64[2n]  where a row is of several frames: pts_ms of its first and its last,
                     its own pts_ms being the middle of that, and frame_index the frame shown then
    video_id         bytes[1]   UTF-8

Laws: the same video and spec give the same bytes (no time, run or absolute path is in a record);
every stored feature is finite; float16 is float32 rounded to nearest even; a uint8 feature is
q * scale + offset, with scale = (max - min) / 255 and offset = min of its dimension over the n rows
of this video, so a dimension that is constant is exact (scale 0) and no other is off by more than
scale / 2 (and float32's own rounding). tests/golden/ holds the bytes of one record of each dtype.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.cache.tf_example import Value, decode_example, encode_example
from framebank.features.cache.tfrecord import MOST_PAYLOAD_BYTES, frame_record
from framebank.features.errors import (
    CacheError,
    UsageError,
    VideoRejected,
    internal_rejection,
)
from framebank.features.pictures import Pictures
from framebank.features.spec import DTYPES, PICTURE_DTYPES, SCHEMA_VERSION, FeatureSpec
from framebank.features.video import Extracted, SourceInfo

_BLOCK_ROWS = 256
_OTHER_BYTES = 2**16  # of a record: everything that does not grow with its rows or their width
_PLACE_BYTES = 20  # a row's pts_ms and frame_index, ten bytes each at most
_STORED = {"float16": "<f2", "float32": "<f4"} | dict.fromkeys(("uint8", *PICTURE_DTYPES), "|u1")


@dataclasses.dataclass(frozen=True)
class QuantisationError:
    """How far stored features are from float32, over `values` features.

    Laws: QuantisationError() is that of nothing; a + b is that of both together.
    """

    max_abs: float = 0.0
    mean_abs: float = 0.0
    values: int = 0

    def __add__(self, other: QuantisationError) -> QuantisationError:
        values = self.values + other.values
        total = self.mean_abs * self.values + other.mean_abs * other.values
        return QuantisationError(
            max(self.max_abs, other.max_abs), total / values if values else 0.0, values
        )

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> QuantisationError:
        return cls(float(fields["max_abs"]), float(fields["mean_abs"]), int(fields["values"]))


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureRecord:
    """One video as a reader gets it: n rows, d wide; of pixels a row is a picture, flat."""

    video_id: str
    # [n, d]; what is stored as uint8 comes out as float32, pictures come out as uint8
    features: NDArray[np.float16] | NDArray[np.float32] | NDArray[np.uint8]
    pts_ms: NDArray[np.int64]  # [n]
    frame_index: NDArray[np.int64]  # [n]
    key: str
    dtype: str  # as stored
    partial: bool
    decode_errors: int
    capped: bool
    content_sha256: str
    source: SourceInfo
    span_ms: NDArray[np.int64] | None = None  # [n, 2] first and last frame of a row of several

    @property
    def pictures(self) -> NDArray[np.uint8]:
        """uint8[n, h, w, 3], RGB; raises UsageError for a record of features."""
        if self.dtype not in PICTURE_DTYPES:
            raise UsageError(
                f"{self.video_id!r} has features and no pictures",
                todo="extract with --backbone pixels",
            )
        size = round((self.features.shape[1] / 3) ** 0.5)
        return np.asarray(self.features, np.uint8).reshape(-1, size, size, 3)


def most_rows(dtype: str, width: int) -> int:
    """Return how many rows of `width` features one record may hold, for readers to read it."""
    stored = np.dtype(_STORED[dtype]).itemsize * width
    return (MOST_PAYLOAD_BYTES - _OTHER_BYTES - 8 * width) // (stored + _PLACE_BYTES)


def framed_record(extracted: Extracted, *, spec: FeatureSpec) -> tuple[bytes, QuantisationError]:
    """Return the record in its frame, as it stands in a shard, and its quantisation error.

    Raises VideoRejected whatever is wrong: a video that cannot be stored costs no other.
    """
    try:
        payload, error = encode_record(extracted, spec=spec)
        return frame_record(payload), error
    except VideoRejected:
        raise
    except MemoryError as err:
        text = f"no memory for a record of {len(extracted.features)} rows"
        raise VideoRejected("write", "too_large", text) from err
    except Exception as err:  # a bad record becomes a quarantined one
        raise internal_rejection("write", err) from err


def encode_record(extracted: Extracted, *, spec: FeatureSpec) -> tuple[bytes, QuantisationError]:
    """Return the record's bytes (unframed) and how far its features are from float32.

    Raises VideoRejected at write: bad_features when a value is not finite or too large for the
    dtype, too_large when no reader could read the record. ValueError when arrays do not fit
    together.
    """
    features = extracted.features
    if not isinstance(features, Pictures):
        features = np.asarray(features, np.float32)
        if features.ndim != 2 or not features.size:
            raise ValueError(f"features must be [n, d] with n, d >= 1, got {features.shape}")
    rows = len(features)
    for name in ("pts_ms", "frame_index"):
        if getattr(extracted, name).shape != (rows,):
            raise ValueError(f"{name} has {getattr(extracted, name).shape}, not ({rows},)")
    limit = most_rows(spec.dtype, width := math.prod(features.shape[1:]))
    if rows > limit:
        text = f"{rows} rows of {width} {spec.dtype}; a record holds {limit} of them"
        raise VideoRejected("write", "too_large", text)
    error = QuantisationError()
    if isinstance(features, Pictures):
        fields: dict[str, Value] = {"features": list(features.encoded)}
    else:
        fields = _quantise(features, spec.dtype)
        error = _quantisation_error(features, _dequantise(fields, spec.dtype, features.shape))
    if extracted.span_ms is not None:
        if extracted.span_ms.shape != (rows, 2):
            raise ValueError(f"span_ms has {extracted.span_ms.shape}, not ({rows}, 2)")
        fields["span_ms"] = np.asarray(extracted.span_ms, np.int64).reshape(-1)
    fields |= {
        "video_id": [extracted.ref.video_id.encode("utf-8", "surrogateescape")],
        "key": [extracted.ref.key(spec.fingerprint).encode()],
        "shape": np.array(features.shape, np.int64),
        "dtype": [spec.dtype.encode()],
        "pts_ms": np.asarray(extracted.pts_ms, np.int64),
        "frame_index": np.asarray(extracted.frame_index, np.int64),
        "schema_version": np.array([SCHEMA_VERSION], np.int64),
        "content_sha256": [extracted.content_sha256.encode()],
    }
    for name in ("partial", "decode_errors", "capped"):
        fields[name] = np.array([getattr(extracted, name)], np.int64)
    data = encode_example(fields | _source_fields(extracted.source))
    if len(data) > MOST_PAYLOAD_BYTES:
        text = f"a record of {len(data)} bytes, the limit is {MOST_PAYLOAD_BYTES}"
        raise VideoRejected("write", "too_large", text)
    return data, error


def _source_fields(source: SourceInfo) -> dict[str, Value]:
    fields: dict[str, Value] = {}
    for field in dataclasses.fields(SourceInfo):
        name, value = f"source_{field.name}", getattr(source, field.name)
        if field.type == "str":
            fields[name] = [value.encode("utf-8", "backslashreplace")]
        else:
            dtype: Any = np.float32 if field.type == "float" else np.int64
            fields[name] = np.array([value], dtype)
    return fields


def _quantise(features: NDArray[np.float32], dtype: str) -> dict[str, Value]:
    if not np.isfinite(features).all():
        raise VideoRejected("write", "bad_features", "features that are not finite")
    if dtype != "uint8":
        with np.errstate(over="ignore"):
            stored = features.astype(_STORED[dtype])
        if not np.isfinite(stored).all():
            worst = float(np.abs(features).max())
            message = f"a feature of {worst:.6g} does not fit into {dtype}; use --dtype float32"
            raise VideoRejected("write", "bad_features", message)
        return {"features": [stored.tobytes()]}
    low = features.min(axis=0)
    scale = ((features.max(axis=0).astype(np.float64) - low) / 255).astype(np.float32)
    step = np.where(scale > 0, scale, 1).astype(np.float64)
    stored = np.empty(features.shape, np.uint8)
    for rows in _blocks(len(features)):
        steps = (features[rows].astype(np.float64) - low) / step
        stored[rows] = np.clip(np.rint(steps), 0, 255)
    return {
        "features": [stored.tobytes()],
        "scale": [scale.astype("<f4").tobytes()],
        "offset": [low.astype("<f4").tobytes()],
    }


def _dequantise(
    fields: Mapping[str, Value], dtype: str, shape: tuple[int, ...]
) -> NDArray[np.float16] | NDArray[np.float32]:
    """Return float16[n, d] or float32[n, d] from the fields that `_quantise` gave."""
    stored = np.frombuffer(fields["features"][0], _STORED[dtype]).reshape(shape)
    if dtype != "uint8":
        return stored.astype(dtype)
    scale = np.frombuffer(fields["scale"][0], "<f4").astype(np.float32)
    offset = np.frombuffer(fields["offset"][0], "<f4").astype(np.float32)
    if scale.shape != shape[1:] or offset.shape != shape[1:]:
        raise ValueError(f"scale {scale.shape}, offset {offset.shape} for features {shape}")
    return stored.astype(np.float32) * scale + offset


def _decode_pictures(
    fields: Mapping[str, Value], form: str, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Return uint8[n, h · w · 3]."""
    encoded = fields["features"]
    if isinstance(encoded, np.ndarray) or len(encoded) != shape[0]:
        raise ValueError(f"not {shape[0]} pictures")
    return np.asarray(Pictures(encoded, form, shape[1])).reshape(shape[0], -1)


def _quantisation_error(
    features: NDArray[np.float32], stored: NDArray[np.float16] | NDArray[np.float32]
) -> QuantisationError:
    worst, total = 0.0, 0.0
    for rows in _blocks(len(features)):
        gap = np.abs(stored[rows].astype(np.float64) - features[rows])
        worst, total = max(worst, float(gap.max())), total + float(gap.sum())
    return QuantisationError(worst, total / features.size, features.size)


def _blocks(rows: int) -> Iterator[slice]:
    """Deal rows into blocks: float64 copies of an hour of features would be felt."""
    return (slice(start, start + _BLOCK_ROWS) for start in range(0, rows, _BLOCK_ROWS))


def decode_record(data: bytes, *, where: str = "a record") -> FeatureRecord:
    """Return the record that `encode_record` wrote; `where` names it in messages.

    Raises CacheError for bytes that are no record, another schema version, a missing field or a
    field of the wrong length.
    """
    try:
        fields = decode_example(data)
        version = _integer(fields, "schema_version")
        if version != SCHEMA_VERSION:
            raise CacheError(
                f"{where} was written by another version of Framebank",
                got=f"schema version {version}",
                expected=SCHEMA_VERSION,
                todo="use the version that made it, or extract into a new cache",
            )
        return _build(fields)
    except (KeyError, ValueError, TypeError, IndexError, OverflowError, MemoryError) as err:
        got = f"no field {err}" if isinstance(err, KeyError) else str(err) or type(err).__name__
        raise CacheError(f"{where} is not a record of this cache", got=got) from err


def _integer(fields: Mapping[str, Value], name: str) -> int:
    value = fields[name]
    if not isinstance(value, np.ndarray) or value.shape != (1,):
        raise ValueError(f"{name} is not one number")
    return int(value[0])


def _text(fields: Mapping[str, Value], name: str) -> str:
    value = fields[name]
    if isinstance(value, np.ndarray) or len(value) != 1:
        raise ValueError(f"{name} is not one text")
    return value[0].decode("utf-8", "surrogateescape")


def _build(fields: Mapping[str, Value]) -> FeatureRecord:
    dtype = _text(fields, "dtype")
    if dtype not in (*DTYPES, *PICTURE_DTYPES):
        raise ValueError(f"dtype {dtype!r}")
    shape = tuple(np.asarray(fields["shape"]).tolist())
    pictures = dtype in PICTURE_DTYPES
    square = len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3
    if min(shape, default=0) < 1 or not (square if pictures else len(shape) == 2):
        raise ValueError(f"shape {shape}")
    times: dict[str, NDArray[np.int64]] = {}
    for name in ("pts_ms", "frame_index"):
        times[name] = np.asarray(fields[name], np.int64)
        if times[name].shape != shape[:1]:
            raise ValueError(f"{name} has {times[name].shape[0]} entries for {shape[0]} rows")
    span = fields.get("span_ms")
    return FeatureRecord(
        video_id=_text(fields, "video_id"),
        features=_decode_pictures(fields, dtype, shape)
        if pictures
        else _dequantise(fields, dtype, shape),
        span_ms=None if span is None else np.asarray(span, np.int64).reshape(shape[0], 2),
        key=_text(fields, "key"),
        dtype=dtype,
        partial=bool(_integer(fields, "partial")),
        decode_errors=_integer(fields, "decode_errors"),
        capped=bool(_integer(fields, "capped")),
        content_sha256=_text(fields, "content_sha256"),
        source=_source(fields),
        **times,
    )


def _source(fields: Mapping[str, Value]) -> SourceInfo:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(SourceInfo):
        name = f"source_{field.name}"
        if field.type == "str":
            values[field.name] = _text(fields, name)
        else:
            number = np.asarray(fields[name])[0]
            values[field.name] = float(number) if field.type == "float" else int(number)
    return SourceInfo(**values)
