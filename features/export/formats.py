"""How other libraries' files hold the features of videos, as infra/docs says: a table `FORMATS`.

YouTube-8M keeps a feature as a byte q, which its readers take for q * 4/255 + 4/512 - 2
(Dequantize of its starter code, max_quantized_value 2 and min_quantized_value -2). Features outside
-1.99 to 2.01 become the nearest end of that; its own are whitened, those of a network are not.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from framebank.features.cache.record import FeatureRecord
from framebank.features.cache.tf_example import Value, encode_example, encode_sequence_example
from framebank.features.cache.tfrecord import frame_record
from framebank.features.errors import UsageError
from framebank.features.video import catalog_text

YT8M_MIN, YT8M_MAX = -2.0, 2.0
_ARRAYS = ("features", "pts_ms", "frame_index")  # of a video
_SPANS = "span_ms"  # where a row is of several frames
_FEATURES = "tensorflow_datasets.core.features"


class Format(NamedTuple):
    """`file` names the `number`-th of `count` files; `write` fills it, from the `first` video."""

    file: str
    write: Callable[[BinaryIO, Iterable[FeatureRecord], int], None]

    def name(self, number: int, count: int) -> str:
        return self.file.format(f"{number:05d}-of-{count:05d}")


def _joined(videos: Sequence[FeatureRecord]) -> tuple[list[str], dict[str, Any]]:
    """Return the ids of videos and their arrays, one after the other; `starts` says where."""
    ids = [catalog_text(video.video_id) for video in videos]
    starts = np.cumsum([0, *(len(video.features) for video in videos)], dtype=np.int64)
    names = _arrays(videos[0]) if videos else _ARRAYS
    rows = {name: np.concatenate([getattr(one, name) for one in videos]) for name in names}
    return ids, {"starts": starts} | rows


def _arrays(video: FeatureRecord) -> tuple[str, ...]:
    return _ARRAYS if video.span_ms is None else (*_ARRAYS, _SPANS)


def _write_npz(stream: BinaryIO, records: Iterable[FeatureRecord], first: int) -> None:
    ids, arrays = _joined(list(records))
    np.savez(stream, video_ids=np.array(ids), **arrays)


def _write_parquet(stream: BinaryIO, records: Iterable[FeatureRecord], first: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    videos = list(records)
    ids, arrays = _joined(videos)
    columns = {"video_id": pa.array(ids), "key": pa.array([video.key for video in videos])}
    for name in (name for name in arrays if name != "starts"):
        rows = pa.array(arrays[name].ravel())
        if arrays[name].ndim == 2:
            rows = pa.FixedSizeListArray.from_arrays(rows, arrays[name].shape[1])
        columns[name] = pa.ListArray.from_arrays(arrays["starts"].astype(np.int32), rows)
    pq.write_table(pa.table(columns), stream, compression="zstd", write_page_checksum=True)


def _write_webdataset(stream: BinaryIO, records: Iterable[FeatureRecord], first: int) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, video in enumerate(records, first):
            about = {"video_id": catalog_text(video.video_id), "key": video.key}
            _add(tar, f"{number:09d}.json", json.dumps(about).encode())
            for name in _arrays(video):
                array = io.BytesIO()
                np.save(array, getattr(video, name), allow_pickle=False)
                _add(tar, f"{number:09d}.{name}.npy", array.getvalue())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # of no time and no user: the same bytes from everybody
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _write_tfds(stream: BinaryIO, records: Iterable[FeatureRecord], first: int) -> None:
    for video in records:
        features = video.features.astype(video.features.dtype.newbyteorder("<"))
        fields: dict[str, Value] = {
            "video_id": [catalog_text(video.video_id).encode()],
            "features": [features.tobytes()],
            "pts_ms": video.pts_ms,
            "frame_index": video.frame_index,
        }
        stream.write(_framed(encode_example(fields), video))


def _write_yt8m(stream: BinaryIO, records: Iterable[FeatureRecord], first: int) -> None:
    for video in records:
        rgb = [[row.tobytes()] for row in quantise(video.features)]
        context = {"id": [catalog_text(video.video_id).encode()]}
        stream.write(_framed(encode_sequence_example(context, {"rgb": rgb}), video))


def quantise(features: NDArray[Any]) -> NDArray[np.uint8]:
    """Return uint8[n, d]: the bytes that YouTube-8M's Dequantize takes for the nearest values."""
    span = YT8M_MAX - YT8M_MIN
    steps = (features.astype(np.float32) - (span / 512 + YT8M_MIN)) / (span / 255)
    return np.clip(np.rint(steps), 0, 255).astype(np.uint8)


def count_outside(features: NDArray[Any]) -> int:
    """Return how many features are further from what YouTube-8M's bytes mean than half a step."""
    span = YT8M_MAX - YT8M_MIN
    low = span / 512 + YT8M_MIN - span / 510
    return int(((features < low) | (features > low + span + span / 255)).sum())


def _framed(payload: bytes, video: FeatureRecord) -> bytes:
    try:
        return frame_record(payload)
    except ValueError as err:
        todo = "export to webdataset, whose files may be larger"
        what = f"{video.video_id!r} is too long for a TFRecord"
        raise UsageError(what, got=err, todo=todo) from err


def tfds_files(
    summary: Mapping[str, Any], *, width: int | None, lengths: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Return what TensorFlow Datasets wants beside the records, by the name of the file."""

    def tensor(dtype: str, *shape: int, encoding: str = "none") -> dict[str, Any]:
        about = {"dtype": dtype, "encoding": encoding}
        shaped = about | {"shape": {"dimensions": [str(size) for size in shape]}}
        return {"pythonClassName": f"{_FEATURES}.tensor_feature.Tensor", "tensor": shaped}

    dtype = "float16" if summary["spec"]["dtype"] == "float16" else "float32"
    features = {
        "features": tensor(dtype, -1, width or 0, encoding="bytes"),
        "frame_index": tensor("int64", -1),
        "pts_ms": tensor("int64", -1),
        "video_id": {"pythonClassName": f"{_FEATURES}.text_feature.Text", "text": {}},
    }
    split = {
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "name": "train",
        "numBytes": str(summary["bytes"]),
        "shardLengths": [str(length) for length in lengths],
    }
    return {
        "features.json": {
            "featuresDict": {"features": features},
            "pythonClassName": f"{_FEATURES}.features_dict.FeaturesDict",
        },
        "dataset_info.json": {
            "description": f"Features of video frames: {json.dumps(summary['spec'])}",
            "fileFormat": "tfrecord",
            "name": "framebank",
            "splits": [split],
            "version": "1.0.0",
        },
    }


FORMATS = {
    "npz": Format("videos-{}.npz", _write_npz),
    "parquet": Format("videos-{}.parquet", _write_parquet),
    "webdataset": Format("videos-{}.tar", _write_webdataset),
    "tfds": Format("framebank-train.tfrecord-{}", _write_tfds),
    "yt8m": Format("videos-{}.tfrecord", _write_yt8m),
}
