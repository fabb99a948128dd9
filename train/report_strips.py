"""Frames of source videos for a report, decoded in a process that may die of a damaged clip.

python -m train.report_strips CLIP INDEX...     prints the strip's data: address
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from features import storage

if TYPE_CHECKING:
    from features.cache import Cache

_FRAMES = 8
_TIMEOUT_S = 30


def make_strips(cache: Cache, video_ids: set[str]) -> dict[str, str]:
    """Return data: addresses of JPEGs with up to 8 of each video's sampled frames side by side.

    A video that is gone, has changed its size, lies in a bucket or cannot be decoded has none.
    """
    columns = cache.table(columns=["video_id", "uri", "size_bytes"]).to_pydict()
    strips = {}
    rows = zip(columns["video_id"], columns["uri"], columns["size_bytes"], strict=True)
    for video_id, uri, size_bytes in rows:
        if video_id not in video_ids or not uri or not storage.is_local(uri):
            continue
        path = Path(storage.local_path(uri))
        if not path.is_file() or path.stat().st_size != size_bytes:
            continue
        index = cache[video_id].frame_index
        places = np.linspace(0, len(index) - 1, min(_FRAMES, len(index))).round().astype(int)
        strip = _decode(path, index[places].tolist())
        if strip:
            strips[video_id] = strip
    return strips


def _decode(path: Path, frames: list[int]) -> str | None:
    root = str(Path(__file__).resolve().parent.parent)
    words = [sys.executable, "-m", "train.report_strips", str(path), *map(str, frames)]
    try:
        done = subprocess.run(words, capture_output=True, timeout=_TIMEOUT_S, cwd=root)
    except subprocess.TimeoutExpired:
        return None
    text = done.stdout.decode("ascii", "replace").strip()
    return text if done.returncode == 0 and text.startswith("data:image/jpeg;base64,") else None


if __name__ == "__main__":
    from train.demo_figures import frame_strip

    print(frame_strip(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]]))
