"""Training on cached features: the model, its input, the loop, judging. No Beam, no decoding.

The package is the function `framebank.train(cache=…, questions=…, model=…)` as well, which is
described by `help(framebank.api.train)`.
"""

from __future__ import annotations

import inspect
import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    """A package that is a function of its parent's too."""

    def __call__(self, *args: Any, **words: Any) -> dict[str, Any]:
        from framebank import api

        return api.train(*args, **words)

    @property
    def __signature__(self) -> inspect.Signature:
        from framebank import api

        return inspect.signature(api.train)


sys.modules[__name__].__class__ = _Callable
