"""What a run trains on: its job, questions in their splits, vocabularies, features, statistics."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from framebank.features.asking.segmenting import WINDOW
from framebank.features.errors import UsageError
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.question import LABEL, SEGMENTS, Question
from framebank.features.questions.word_cutting import cut_questions, cutter_version
from framebank.train.data.batches import Features, QuestionTable, cached_features
from framebank.train.data.epoch_order import plan_epoch
from framebank.train.data.joining import JoinedQuestions
from framebank.train.data.shard_files import ShardFiles, Staging
from framebank.train.data.splits import SPLITS, Splits, splits_to_train
from framebank.train.data.windows import Timeline, Windows, beyond_ends
from framebank.train.model.config import AUTO, IMAGE_QA, PICTURE_KINDS, ModelConfig, TrainConfig
from framebank.train.model.frames import FrameStatistics, frame_statistics
from framebank.train.model.heads import COUNT, OPEN, Head
from framebank.train.model.text import START_WORD, text_layer, without_spaces, word_numbers
from framebank.train.word_vectors.embeddings import WordVectors, find_vectors
from framebank.train.word_vectors.files import file_sha256
from framebank.train.workers.replicas import Workers
from framebank.train.workers.run import Run

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

# Frames of each lane that mean and variance are taken from: 16 lanes have them to half a percent,
# and training need not wait until the whole of a large cache was read.
STATISTICS_FRAMES = 4096
_WHAT = {"ask": "questions", "classify": "labels", "detect": "segments"}
_COLUMNS = {
    "ask": "video_id, question, answer",
    "classify": "video_id, label",
    "detect": "video_id, start_s, end_s, label",
}


@dataclasses.dataclass(frozen=True)
class TrainJob:
    """What to train from, and how."""

    questions: QuestionFiles | JoinedQuestions  # files, or what some of them came to
    model: ModelConfig
    train: TrainConfig
    with_baselines: bool = True
    tensorboard: str | None = None
    staging: Staging = Staging()  # noqa: RUF009 - frozen
    warm_start: str | None = None  # a model folder, whose weights the model starts from
    language: str | None = None  # of features.questions.word_cutting, if words are to be cut
    embeddings: str | None = None  # a file of word vectors, which the embedding starts from
    task: str | None = None  # of TASKS, if the files must be for it

    def config(self) -> dict[str, Any]:
        """Return the part of the config that the result depends on."""
        asked = self.questions
        given = {
            "format": (asked.files if isinstance(asked, JoinedQuestions) else asked).set_name,
            "warm_start": self.warm_start,
            "language": self.language,
            "cut_by": self.language and cutter_version(self.language),
            "embeddings": self.embeddings and file_sha256(self.embeddings),
        }
        return {
            "model": self.model.lasting(),
            "train": self.train.lasting(),
            "with_baselines": self.with_baselines,
        } | {name: value for name, value in given.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Material:
    """All that the fits share."""

    splits: Splits
    head: Head
    text: keras.layers.TextVectorization | None  # None where nothing is asked
    statistics: FrameStatistics
    features: Features  # of segments those of windows
    tables: dict[str, QuestionTable]
    learnt: QuestionTable  # the training rows whose answer is in the vocabulary
    words: list[str]  # of `text`, by number
    vectors: WordVectors | None = None
    videos: Videos | None = None  # where segments are to be found
    pictures: bool = False  # whose rows are those of a cache of pixels


@dataclasses.dataclass(frozen=True)
class Videos:
    """Whole videos, whose windows are trained on."""

    features: Features
    times: dict[str, Timeline]


def gather(
    job: TrainJob,
    cache: Cache,
    joined: JoinedQuestions,
    workers: Workers,
    run: Run,
    *,
    files: ShardFiles,
) -> Material:
    """Put together what is trained on; raises FramebankError, TrainingStopped."""
    config, language, say = job.train, job.language, run.say
    splits = splits_to_train(joined.questions, config)
    for remark in splits.remarks:
        say(remark)
    head = Head.of(splits.train, size=job.model.answers)
    task = {LABEL: "classify", SEGMENTS: "detect"}.get(head.kind, "ask")
    if job.task not in (None, task):
        raise UsageError(
            f"the files are not for --task {job.task}",
            got=_WHAT[task],
            expected=f"columns {_COLUMNS[job.task]}",
            todo="leave --task out: the files tell it",
        )
    _check_kind(job.model.kind, head, cache)
    if job.model.kind == IMAGE_QA and head.kind != OPEN:
        raise UsageError(
            f"--model-kind {IMAGE_QA} answers open questions about pictures",
            got=f"files of the kind {head.kind}",
            expected="questions with answers in words",
            todo="leave --model-kind out",
        )
    if len(head.answers) == 1 and head.kind != SEGMENTS:
        say(
            f"NOTE: all training questions have one answer, {head.answers[0]!r}: "
            "the model can say nothing else"
        )
    asked = [question.question for question in splits.train if head.asks]
    choices = [choice for question in splits.train for choice in question.choices]
    if asked and language is None and without_spaces(asked):
        say(
            "NOTE: the questions are written without spaces and are read letter by letter; "
            "--language zh, ja or ko would cut them into words"
        )
    text = None
    if head.asks:
        text = text_layer(asked, choices=choices, max_words=job.model.words, language=language)

    def numbers(asked: Any) -> Any:
        if text is None:
            return np.full((len(asked), 1), START_WORD)
        return word_numbers(text, cut_questions(asked.numpy().tolist(), language))

    features = cached_features(
        cache,
        joined.frames,
        files=files,
        share=workers.share,
        keep_bytes=config.memory_bytes,
        shuffle_bytes=config.shuffle_bytes,
    )
    parts = {name: splits.of(name) for name in SPLITS}
    knows = head.knows(head.truth(splits.train))
    known = [question for question, known in zip(splits.train, knows, strict=True) if known]
    videos = windows = None
    if head.kind == SEGMENTS:
        videos = Videos(features, read_times(features, cache, workers, run))
        for remark in beyond_ends(joined.questions, videos.times):
            say(remark)
        share, room = workers.share, config.shuffle_bytes
        windows = Windows(features, window=WINDOW, share=share, shuffle_bytes=room)

    def table(questions: list[Question]) -> QuestionTable:
        if windows is None or videos is None:
            return QuestionTable.of(questions, head, text=numbers)
        return windows.table(questions, videos.times, head, word=START_WORD)

    tables = {
        name: table(questions)
        for name, questions in (parts | {"learnt": known}).items()
        if questions
    }
    learnt = tables.pop("learnt")
    vectors = None
    words = [] if text is None else [str(word) for word in text.get_vocabulary()]
    if job.embeddings is not None and not head.asks:
        raise UsageError(
            "word vectors are for questions", got=_WHAT[task], todo="leave --embeddings out"
        )
    if job.embeddings is not None:
        counted = np.bincount(tables["train"].words.ravel(), minlength=len(words))
        vectors = find_vectors(job.embeddings, words, asked=counted, say=say)
    statistics = sample_statistics(features, {q.video_id for q in splits.train}, workers, run)
    what = "videos" if head.kind == SEGMENTS else _WHAT[task]
    say(
        f"{len(known)} {what} to learn from, {len(parts['val'])} to choose the epoch by, "
        f"{len(parts['test'])} to judge; {_describe(head)}, {len(joined.frames)} videos"
    )
    if windows is not None:
        features = windows.features
    return Material(
        splits, head, text, statistics, features, tables, learnt, words, vectors, videos,
        pictures=cache.spec.holds_pictures,
    )  # fmt: skip


def _check_kind(kind: str, head: Head, cache: Cache) -> None:
    """Raise UsageError where a kind of model is not for the cache or for what is asked."""
    pictures = cache.spec.holds_pictures
    if pictures and head.kind == SEGMENTS:
        raise UsageError(
            "segments are found in features",
            got=f"a cache of --backbone {cache.spec.backbone}",
            todo="give a cache of any other backbone",
        )
    if (kind in PICTURE_KINDS) != pictures and not (pictures and kind in (AUTO, "question_only")):
        holds = "pictures" if pictures else "features"
        raise UsageError(
            f"--model-kind {kind} does not read {holds}",
            got=f"a cache of --backbone {cache.spec.backbone}",
            expected=" | ".join(PICTURE_KINDS) if pictures else "a cache of --backbone pixels",
            todo="leave --model-kind out, or give another cache",
        )
    if kind == "vote" and not head.answers:
        raise UsageError(
            "--model-kind vote has frames vote for one answer of a list",
            got=f"files of the kind {head.kind}",
            expected="labels, or questions with answers in words",
            todo="leave --model-kind out",
        )


def _describe(head: Head) -> str:
    if head.kind == COUNT:
        return f"counts from {head.low} to {head.high}"
    if head.answers:
        return f"{len(head.answers)} {'answers' if head.asks else 'classes'}"
    return "answers to choose from"


def read_times(features: Features, cache: Cache, workers: Workers, run: Run) -> dict[str, Timeline]:
    """Return when the rows of each video are; each worker reads the videos of its lanes."""
    stored, share = features.stored, features.share
    replica = stored.replica(stored.lane, replicas=share.replicas)
    ends = np.cumsum(stored.frames)
    times = np.zeros(int(stored.frames.sum()))
    ours = (replica >= share.first) & (replica < share.first + share.local)
    features.clips.announce(np.flatnonzero(ours))
    for number in np.flatnonzero(ours).tolist():
        run.stop.check()
        times[ends[number] - stored.frames[number] : ends[number]] = features.clips.times(number)
    table = cache.done(["video_id", "source_duration_s"], features.numbers).to_pydict()
    lasts = dict(zip(table["video_id"], table["source_duration_s"], strict=True))
    parts = np.split(workers.sum(times).astype(np.int64), ends[:-1])
    return {
        video_id: Timeline(parts[number], lasts[video_id] or 0.0)
        for video_id, number in features.numbers.items()
    }


def sample_statistics(
    features: Features, video_ids: set[str], workers: Workers, run: Run
) -> FrameStatistics:
    """Return mean and variance over the first STATISTICS_FRAMES of each lane's `video_ids`.

    Each worker reads its own lanes; merged lane by lane they are the same for any number of them.
    """
    stored, share, width = features.stored, features.share, features.width
    numbers = np.array(sorted(features.numbers[video_id] for video_id in video_ids), np.int64)
    replica = stored.replica(np.arange(stored.lanes), replicas=share.replicas)
    sums = np.zeros((stored.lanes, 1 + 2 * width))
    for lane, videos in enumerate(plan_epoch(stored, numbers, batch_size=1).reading):
        if not share.first <= replica[lane] < share.first + share.local or not len(videos):
            continue
        before = np.cumsum(stored.frames[videos]) - stored.frames[videos]
        clips = []
        for number in videos[before < STATISTICS_FRAMES].tolist():
            run.stop.check()
            clips.append(features.clips.read(number))
        part = frame_statistics(clips, width)
        sums[lane] = np.concatenate([[part.count], part.mean, part.squares])
    total = frame_statistics([], width)
    for row in workers.sum(sums):
        total = total.merge(FrameStatistics(int(row[0]), row[1 : 1 + width], row[1 + width :]))
    return total
