"""Framebank: decode videos once, keep per-frame features, train and score on the features.

    import framebank as fb

    fb.plan("clips/", sample="fps=2")                        what an extraction will take
    fb.extract("clips/", cache="cache", sample="fps=2")      decode, run the network, keep the rows
    cache = fb.open_cache("cache")                           records, Arrow, tf.data, PyTorch
    fb.questions("questions.jsonl", cache=cache)             what question files hold
    fb.train(cache=cache, questions="questions.jsonl", model="model")
    fb.evaluate(model="model", cache=cache, questions="questions.jsonl")
    fb.score(model="model", cache=cache, questions="questions.jsonl", out="answers")
    fb.ask("clip.mp4", "what is the man doing?", model="model")
    fb.retrain(config="retrain.toml")                        a new model where something is new
    fb.finetune("clips/", labels="labels.csv", out="tuned.weights.h5")
    fb.words("questions.jsonl", out="vectors.bin")           what `train` takes as embeddings
    fb.export("cache", "out", to="webdataset")               as other libraries' files
    fb.ways("clips/", cache_dir="ways", labels="labels.csv")  six ways to classify, compared
    fb.ls("cache", where="duration_s>10")                    rows of the catalog
    fb.like("cache", "clip.mp4")                             which videos are most like one
    fb.verify("cache")                                       read it back, name each fault
    fb.extract_features("clip.mp4", sample="fps=2")          one clip, without a cache

The functions are the commands of `framebank` and take the words of their options, with underscores
for hyphens. Errors are `fb.FramebankError`: what is wrong, and what to do next.
"""

# In a checkout the floors `features/`, `pipelines/` and `train/` lie beside this folder, and are
# its sub-packages all the same; installed, they lie in it (setup.py).

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from framebank.api import (
        ask,
        evaluate,
        export,
        extract,
        finetune,
        like,
        ls,
        plan,
        questions,
        retrain,
        score,
        train,
        verify,
        ways,
        words,
    )
    from framebank.cli import main
    from framebank.features.cache.reader import Cache, open_cache
    from framebank.features.errors import (
        CacheError,
        FramebankError,
        JobError,
        SpecMismatchError,
        UsageError,
    )
    from framebank.features.extraction.one_clip import extract_features

__version__ = "0.1.0"
__all__ = [
    "Cache",
    "CacheError",
    "FramebankError",
    "JobError",
    "SpecMismatchError",
    "UsageError",
    "ask",
    "evaluate",
    "export",
    "extract",
    "extract_features",
    "finetune",
    "like",
    "ls",
    "main",
    "open_cache",
    "plan",
    "questions",
    "retrain",
    "score",
    "train",
    "verify",
    "ways",
    "words",
]

_HERE = os.path.dirname(os.path.abspath(__file__))
HOME = os.path.dirname(_HERE)  # the folder from which `import framebank` works
if not os.path.isdir(os.path.join(_HERE, "features")):
    __path__.append(HOME)

# Whoever imports TensorFlow first, it reads this then. By itself it takes oneDNN on some of Intel's
# processors alone; on others it is faster too, and without it the last bits of a picture's features
# go by what it is computed with (infra/decisions/0002).
if os.uname().machine == "x86_64":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_HOMES = {
    "framebank.features.cache.reader": ("Cache", "open_cache"),
    "framebank.features.errors": (
        *("CacheError", "FramebankError", "JobError", "SpecMismatchError", "UsageError"),
    ),
    "framebank.features.extraction.one_clip": ("extract_features",),
    "framebank.cli": ("main",),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'framebank' has no attribute {name!r}")
    import importlib

    if name == "train":  # the package of that name, which can be called
        return importlib.import_module("framebank.train")
    home = next((home for home, names in _HOMES.items() if name in names), "framebank.api")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
