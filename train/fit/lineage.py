"""Where a model comes from: cache, questions, config, versions. Enough to make it again."""

from __future__ import annotations

import datetime
import platform
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import framebank
from framebank.train.data.joining import JoinedQuestions

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

FORMAT = 1


def run_making(cache: Cache, joined: JoinedQuestions, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a run's result; an unfinished run goes on only under an equal one."""
    return {
        "format": FORMAT,
        "cache_fingerprint": cache.fingerprint,
        "cache_videos": len(cache),
        "cache_digest": joined.cache_digest,
        "questions_sha256": list(joined.file_hashes),
        "config": dict(config),
    }


def make_lineage(
    cache: Cache, making: Mapping[str, Any], *, questions: Mapping[str, int], files: list[str]
) -> dict[str, Any]:
    """Return the fields of lineage.json; `questions` counts those of each split."""
    runs = cache.table(columns=["video_id", "run_id"]).column("run_id").unique().to_pylist()
    hashes = list(making["questions_sha256"])
    return {
        "format": FORMAT,
        "fingerprint": cache.fingerprint,
        "spec": cache.spec.to_json(),
        "random_weights": cache.spec.random_weights,
        "cache": str(cache.path),
        "cache_videos": len(cache),
        "runs": sorted(runs),
        "questions_files": files,
        "questions_sha256": hashes[0] if len(hashes) == 1 else hashes,
        "questions": dict(questions),
        "seed": making["config"]["train"]["seed"],
        "making": dict(making),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    import keras
    import numpy as np
    import tensorflow as tf

    return {
        "framebank": framebank.__version__,
        "python": platform.python_version(),
        "platform": sys.platform,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
