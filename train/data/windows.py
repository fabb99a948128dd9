"""Long videos as windows: clips of their own, so that all that trains on clips trains on them.

A video of n rows becomes windows that overlap by half (`features.asking.segmenting`), each a row
of a `QuestionTable` whose `answer` int32[w] is the class of every row of the window, OUTSIDE where
the window is shorter than others. The classes come from the times of rows, which a cache keeps in
its records.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking import heads
from framebank.features.asking.segmenting import row_classes, row_edges, window_starts
from framebank.features.questions.question import SEGMENTS, Question
from framebank.train.data.batches import Clips, Features, QuestionTable, Share
from framebank.train.data.epoch_order import Ints, Stored
from framebank.train.model.heads import OUTSIDE, Head

if TYPE_CHECKING:
    from framebank.features.cache.record import FeatureRecord

_HELD_BYTES = 2**28  # of videos that were read last


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The rows of one video: when they are, int64[n] in milliseconds, and how long the video is."""

    pts_ms: NDArray[np.int64]
    duration_s: float

    @classmethod
    def of(cls, record: FeatureRecord) -> Timeline:
        """Return that of a video as its cache has it."""
        return cls(record.pts_ms, record.source.duration_s)

    @property
    def edges_s(self) -> NDArray[np.float64]:
        """Return float64[n + 1]: where in seconds each row begins, and the last one ends."""
        return row_edges(self.pts_ms, self.duration_s)

    def classes(self, question: Question, head: heads.Head) -> NDArray[np.int32]:
        """Return int32[n], the class of each row; the last class is that nothing happens."""
        numbers = {label: number for number, label in enumerate(head.answers)}
        nothing = len(head.answers)
        return row_classes(
            self.pts_ms, question.segments, numbers, nothing=nothing, unknown=OUTSIDE
        )


def beyond_ends(questions: Sequence[Question], times: Mapping[str, Timeline]) -> list[str]:
    """Return a remark where segments begin when their video has ended."""
    lasts_s = {q.video_id: float(times[q.video_id].edges_s[-1]) for q in questions}
    late = [(q.video_id, one) for q in questions for one in q.segments
            if one[0] >= lasts_s[q.video_id]]  # fmt: skip
    if not late:
        return []
    name, (start_s, _, label) = late[0]
    return [
        f"WARNING: {len(late)} of {sum(len(q.segments) for q in questions)} segments begin after "
        f"the end of their video and cannot be found (such as {label!r} at {start_s:g} s of "
        f"{name}, whose rows end at {lasts_s[name]:g} s): are they in seconds?"
    ]


class _WindowClips:
    """Windows by number, of videos of which the last are held: a window's neighbours come soon."""

    def __init__(self, clips: Clips, video: Ints, starts: Ints, ends: Ints) -> None:
        self._clips, self._video, self._starts, self._ends = clips, video, starts, ends
        self._held: collections.OrderedDict[int, NDArray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def read(self, number: int) -> NDArray:
        video = int(self._video[number])
        with self._lock:
            if video not in self._held:
                self._held[video] = self._clips.read(video)
                while len(self._held) > 1 and self._size() > _HELD_BYTES:
                    self._held.popitem(last=False)
            self._held.move_to_end(video)
            return self._held[video][self._starts[number] : self._ends[number]]

    def _size(self) -> int:
        return sum(clip.nbytes for clip in self._held.values())

    def times(self, number: int) -> NDArray[np.int64]:
        video = int(self._video[number])
        return self._clips.times(video)[self._starts[number] : self._ends[number]]

    def announce(self, numbers: NDArray[np.int64]) -> None:
        self._clips.announce(np.array(list(dict.fromkeys(self._video[numbers].tolist())), np.int64))


class Windows:
    """All windows of the videos of `features`, as features of their own."""

    def __init__(
        self, features: Features, *, window: int, share: Share, shuffle_bytes: int
    ) -> None:
        self.window = window
        self._parts: dict[str, list[tuple[str, int, int]]] = {}
        video, starts, ends, names = [], [], [], []
        for video_id, number in features.numbers.items():
            rows = int(features.stored.frames[number])
            for start in window_starts(rows, window):
                names.append(f"{video_id}#{start}")
                video.append(number)
                starts.append(start)
                ends.append(min(start + window, rows))
                part = (names[-1], starts[-1], ends[-1])
                self._parts.setdefault(video_id, []).append(part)
        of = np.array(video, np.int64)
        first, last = np.array(starts, np.int64), np.array(ends, np.int64)
        stored = Stored.dealt(features.stored.shard[of], last - first, replicas=share.replicas)
        self.features = Features(
            names,
            stored,
            _WindowClips(features.clips, of, first, last),
            width=features.width,
            dtype=features.dtype,
            share=share,
            shuffle_bytes=shuffle_bytes,
        )

    def table(
        self, questions: Sequence[Question], times: Mapping[str, Timeline], head: Head, *, word: int
    ) -> QuestionTable:
        """Return a row for each window of the videos of `questions`; `word` stands for its words,
        as nothing is asked."""
        rows, answers = [], []
        for question in questions:
            classes = times[question.video_id].classes(question, head)
            for name, start, end in self._parts[question.video_id]:
                rows.append(Question(name, name, "", "", head=SEGMENTS, group=question.source))
                answers.append(np.full(self.window, OUTSIDE, np.int32))
                answers[-1][: end - start] = classes[start:end]
        words = np.full((len(rows), 1), word, np.int32)
        return QuestionTable(rows, words, np.array(answers, np.int32).reshape(-1, self.window))
