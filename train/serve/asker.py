"""Questions of many requests, asked in one call of the model.

While one call computes, the questions that come wait, and all of them are the next call. So nobody
waits for others to come, and the busier it is, the larger the calls.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.one_clip import Asked, padded_groups, score_questions
from framebank.features.asking.trained_model import TrainedModel
from framebank.features.errors import FramebankError, JobError

_MOST_AT_ONCE = 512  # questions that are looked at together

Scores = NDArray[np.float32]


class _Waiting(NamedTuple):
    model: TrainedModel
    asked: Asked
    outcome: Future[Scores]


class Asker:
    """A thread that asks models; any thread may give it questions."""

    def __init__(self, note: Callable[[int], None] = lambda questions: None) -> None:
        """`note` is told how many questions each call has."""
        self._note = note
        self._todo: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="asker", daemon=True)
        self._thread.start()

    def ask(self, model: TrainedModel, asked: Sequence[Asked]) -> list[Future[Scores]]:
        """Have questions asked; each outcome has float32[a] (`TrainedModel.predict`), or a
        FramebankError."""
        waiting = [_Waiting(model, one, Future()) for one in asked]
        for one in waiting:
            self._todo.put(one)
        return [one.outcome for one in waiting]

    def close(self) -> None:
        """End after what is waiting."""
        self._todo.put(None)
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while (first := self._todo.get()) is not None:
            together, is_last = [first], False
            with contextlib.suppress(queue.Empty):
                while len(together) < _MOST_AT_ONCE and not is_last:
                    more = self._todo.get_nowait()
                    is_last = more is None
                    together += [more] if more is not None else []
            wanted = [one for one in together if one.outcome.set_running_or_notify_cancel()]
            for model in {id(one.model): one.model for one in wanted}.values():
                self._ask([one for one in wanted if one.model is model])
            if is_last:
                return

    def _ask(self, together: list[_Waiting]) -> None:
        """Ask all of one model; of a clip of another width nobody else hears."""
        for width in {one.asked.features.shape[-1] for one in together}:
            alike = [one for one in together if one.asked.features.shape[-1] == width]
            groups = padded_groups(
                [len(one.asked.features) for one in alike],
                [one.asked.characters for one in alike],
                width=width,
            )
            for group in groups:
                self._call([alike[place] for place in group])

    def _call(self, group: list[_Waiting]) -> None:
        """Ask a group at once; where that fails each half alone, for one may be to blame."""
        try:
            self._note(len(group))
            scores = score_questions(group[0].model, [one.asked for one in group])
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            if len(group) > 1:
                half = len(group) // 2
                self._call(group[:half])
                self._call(group[half:])
                return
            group[0].outcome.set_exception(_told(error))
            return
        for one, its in zip(group, scores, strict=True):
            one.outcome.set_result(its)


def _told(error: Exception) -> Exception:
    if isinstance(error, FramebankError):
        return error
    got = f"{type(error).__name__}: {error}".split("\n", 1)[0][:300]
    failed = JobError("the model did not answer", got=got, todo="ask another question")
    failed.__cause__ = error
    return failed
