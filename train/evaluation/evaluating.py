"""One evaluation: a trained model, beside what must be beaten, on questions that are fair to ask.

It is judged on the test split, or on all that it has not seen (`features.questions.splits`). A
model without a list of what it has seen, which older versions saved, is judged on a split as its
training would make it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framebank.features.asking.trained_model import load_model, read_head, read_lineage
from framebank.features.errors import UsageError
from framebank.features.questions.files import QuestionFiles, file_hashes
from framebank.features.questions.question import HEADS, SEGMENTS, Question
from framebank.features.questions.seen_videos import NO_LIST, content_hashes, find_seen
from framebank.features.questions.splits import SplitRule
from framebank.features.stores import json_text, storage
from framebank.features.terminal import few
from framebank.train.data.joining import JoinedQuestions, join_cache, remarks
from framebank.train.data.splits import SPLITS, Splits, splits_of
from framebank.train.data.windows import Timeline, beyond_ends
from framebank.train.evaluation import figures as evaluation
from framebank.train.evaluation.about import about_model
from framebank.train.evaluation.answers import Answers, ask_all
from framebank.train.evaluation.detecting import find_all
from framebank.train.evaluation.leaks import find_leaks
from framebank.train.fit.model_folder import ModelFolder
from framebank.train.judging import baselines
from framebank.train.judging.detections import BASELINE, Found, commonest, judge_found
from framebank.train.judging.row_probe import PROBES, cached_rows, find_by_formula
from framebank.train.model.config import ModelConfig, TrainConfig
from framebank.train.model.heads import Head
from framebank.train.workers.run import Run

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache
    from framebank.train.fit.training_data import TrainJob

_NO_TRAINING = "the files hold no training questions: the model is compared with no baseline"


@dataclasses.dataclass(frozen=True)
class EvaluateJob:
    """What to judge; `split` None is what `choose_asked` takes."""

    model: str
    questions: QuestionFiles
    out: Path
    split: str | None = None
    with_baselines: bool = True
    max_unmatched_ratio: float = 0.2


@dataclasses.dataclass(frozen=True)
class Judged:
    """`figures` are what evaluation.json holds."""

    figures: dict[str, Any]
    answers: Answers


@dataclasses.dataclass(frozen=True)
class Detected:
    """What was `found` in the videos of the `questions`, and when the rows of each are; `figures`
    are what evaluation.json holds."""

    figures: dict[str, Any]
    questions: Sequence[Question]
    found: Sequence[Found]
    times: Sequence[Timeline]


def evaluate(job: EvaluateJob, cache: Cache, run: Run) -> Judged | Detected:
    """Judge the model; raises FramebankError, TrainingStopped (trained baselines go on later)."""
    _check_spec(job.model, cache)
    made = Making.read(job.model)
    as_trained = made.has_files(file_hashes(job.questions))
    joined = join_cache(
        job.questions,
        cache,
        max_unmatched_ratio=job.max_unmatched_ratio,
        to_train=as_trained,
    )
    chosen = choose_asked(joined, cache, made, split=job.split)
    asked, seed = chosen.questions, made.train.seed
    notes = [*remarks(joined), *chosen.remarks]
    for note in (*notes, chosen.flatters):
        if note:
            run.say(note)
    model = load_model(job.model)
    judged: Judged | Detected
    if model.head.kind == SEGMENTS:
        run.say(f"looking through {len(asked)} videos of the split {chosen.name}")
        found, times = find_all(model, cache, asked, run)
        names = [question.video_id for question in asked]
        late = beyond_ends(asked, dict(zip(names, times, strict=True)))
        notes += late
        for note in late:
            run.say(note)
        figures = _judge_segments(job, made, cache, joined, chosen, run, found, times)
        judged = Detected(figures, asked, found, times)
    else:
        run.say(f"asking {len(asked)} questions of the split {chosen.name}")
        answers = ask_all(model, cache, asked, seed=seed, run=run)
        said = _baselines(job, made, cache, joined, chosen, run)
        durations = cache.table(columns=["video_id", "source_duration_s"]).to_pylist()
        durations_s = {row["video_id"]: row["source_duration_s"] or 0.0 for row in durations}
        figures = evaluation.judge(answers, durations_s=durations_s, seed=seed)
        figures["baselines"] = evaluation.beside(said, answers, seed=seed)
        judged = Judged(figures, answers)
    run.say("looking for videos on both sides of the split")
    whole = {
        "model": job.model,
        "split": chosen.name,
        "flatters": chosen.flatters,
        "seen_videos": None if chosen.seen is None else sorted(chosen.seen),
        "epoch_chosen_on": made.chosen_on,
        "questions_files": list(job.questions.paths),
        "questions_sha256": list(joined.file_hashes),
        "videos": len({question.video_id for question in asked}),
        "made": about_model(job.model, cache),
        "random_weights": cache.spec.random_weights,
        "weights": str(cache.spec.weights),
        "notes": notes,
        **judged.figures,
        "leaks": find_leaks(cache, chosen.splits.sides(), seed=seed, say=run.say),
    }
    return dataclasses.replace(judged, figures=whole)


def _judge_segments(
    job: EvaluateJob,
    made: Making,
    cache: Cache,
    joined: JoinedQuestions,
    chosen: Asked,
    run: Run,
    found: Sequence[Found],
    times: Sequence[Timeline],
) -> dict[str, Any]:
    """Return the figures of what was found, and of what stands beside the model."""
    asked, splits = chosen.questions, chosen.splits
    said = {"model": found}
    if splits.train:
        lengths_s = [float(one.edges_s[-1]) for one in times]
        said["majority"] = commonest(splits.train, lengths_s, found)
    if splits.train and job.with_baselines:
        stored = baselines.read_judged(job.model, asked) if made.is_of(joined) else {}
        kept = {name: stored[name] for name in (BASELINE, *PROBES) if stored.get(name)}
        said |= {name: [Found.from_json(one) for one in its] for name, its in kept.items()}
        if not set(PROBES) <= set(said):
            val = splits.of(splits.stopped_on)
            head = Head.of(splits.train, size=made.model.answers)
            read = cached_rows(cache, run.stop)
            said |= find_by_formula(read, splits.train, val, asked, head, seed=made.train.seed)
        if BASELINE not in said and made.model.kind != BASELINE:
            work = _baseline_work(job, made, joined, chosen, run)
            path = _train_baseline(work, BASELINE, job, cache, run)
            said[BASELINE], _ = find_all(load_model(path), cache, asked, run)
    figures = judge_found(asked, said, seed=made.train.seed)
    ours = figures.pop("model")
    return {"head": SEGMENTS, "measure": HEADS[SEGMENTS], **ours, "baselines": figures}


@dataclasses.dataclass(frozen=True)
class Asked:
    """The split `name` of `splits` is judged. `unseen` says that `splits` were made by what the
    model has seen, as no training of the files makes them; `flatters` tells what it knew of the
    split, "" where nothing. `seen` are the videos of all questions that it has seen, None where it
    keeps no list."""

    splits: Splits
    name: str
    remarks: tuple[str, ...]
    seen: tuple[str, ...] | None
    unseen: bool
    flatters: str = ""

    @property
    def questions(self) -> list[Question]:
        return self.splits.of(self.name)


def choose_asked(
    joined: JoinedQuestions, cache: Cache, made: Making, *, split: str | None
) -> Asked:
    """Return what is asked; `split` None is what the model has not seen, else test.

    Raises UsageError, CacheError.
    """
    rule = SplitRule(group_by=made.train.group_by)
    questions, same_files = rule.grouped(joined.questions), made.is_of(joined)
    # Trained from these files, whatever has come into the cache since.
    as_trained = made.has_files(joined.file_hashes)
    listed = find_seen(made.folder)
    videos = {question.video_id: question.group for question in questions}
    contents = {} if listed is None else content_hashes(cache, set(videos))
    seen = None
    if listed is not None:
        seen = tuple(v for v, group in videos.items() if listed.has(v, contents, group=group))
    splits = splits_of(
        questions,
        seed=made.train.seed,
        val_share=made.train.val_share,
        group_by=made.train.group_by,
        seen=listed,
        contents={} if as_trained else contents,
        judges=split is None,
    )
    no_training = () if splits.train else (_NO_TRAINING,)
    if seen is not None and splits.changed:  # test are the questions about videos not seen
        if not splits.test:
            raise UsageError(
                "the model has seen every video of these questions",
                got=f"{len(videos)} videos: {few(seen)}",
                todo="give questions about other videos, or --split to judge it on these all the "
                "same",
            )
        told = (
            f"the model is judged on {len(videos) - len(seen)} of {len(videos)} videos, all that "
            "it has not seen" + (f"; it has seen {few(seen)}" if seen else "")
        )
        return Asked(splits, "test", (told, *no_training), seen, unseen=True)
    name = split or splits.judged_on
    if not splits.of(name):
        counts = ", ".join(f"{len(splits.of(one))} of {one}" for one in SPLITS)
        raise UsageError(f"there is no question of the split {name}", got=counts)
    remarks = no_training or splits.remarks
    if seen:
        told = f"the model has seen {len(seen)} of the {len(videos)} videos: {few(seen)}"
        remarks = (*remarks, told)
    elif seen is None and not same_files:
        remarks = (*remarks, f"NOTE: {NO_LIST}: what it knows of these cannot be told")
    asked = Asked(splits, name, remarks, seen, unseen=seen is not None and not same_files)
    knew = _knew(asked, same_files=same_files, chosen_on=made.chosen_on)
    return dataclasses.replace(asked, flatters=f"{knew}, so the figures flatter" if knew else "")


def _knew(asked: Asked, *, same_files: bool, chosen_on: str) -> str:
    """Return what the model knew of the questions that are asked, "" where nothing."""
    known = frozenset(asked.seen or ())
    about = [question.video_id for question in asked.questions if question.video_id in known]
    named = f" ({few(tuple(dict.fromkeys(about)))})" if about else ""
    if same_files and asked.name == "train":
        return f"the model learnt from these questions{named}"
    if same_files and asked.name == chosen_on:
        return f"the model's best epoch was chosen by these questions{named}"
    if about:
        return (
            f"{len(about)} of these {len(asked.questions)} questions are about videos that the "
            f"model has seen{named}"
        )
    if asked.name == "train" and asked.seen is None:
        return "the baselines learnt from these questions, and maybe the model did"
    return ""


def _check_spec(model_dir: str, cache: Cache) -> None:
    fingerprint = read_lineage(model_dir).spec.fingerprint
    if fingerprint != cache.fingerprint:
        raise UsageError(
            "the model learnt from features of another making than those of the cache",
            got=cache.fingerprint,
            expected=fingerprint,
            todo="give the cache that the model was trained on, or one with its spec",
        )


@dataclasses.dataclass(frozen=True)
class Making:
    """What the model in `folder` was made from, and under which budget."""

    folder: str
    file_hashes: list[str] | None  # of the question files
    cache_digest: str | None
    model: ModelConfig
    train: TrainConfig
    language: str | None
    embeddings: str | None  # where the file of word vectors was
    chosen_on: str  # the split that chose the best epoch

    @classmethod
    def read(cls, model_dir: str) -> Making:
        lineage = json_text.read_object(storage.join(model_dir, "lineage.json"))
        fields = lineage.get("making") or {}
        config = fields.get("config") or {}
        try:
            model = ModelConfig(**_known(ModelConfig, config.get("model") or {}))
            train = TrainConfig(**_known(TrainConfig, config.get("train") or {}))
        except (UsageError, TypeError) as err:
            said = err.what if isinstance(err, UsageError) else err
            raise UsageError(
                f"the model in {model_dir} was made in a way that this version no longer knows",
                got=said,
                todo="train it again with --overwrite",
            ) from err
        return cls(
            model_dir,
            fields.get("questions_sha256"),
            fields.get("cache_digest"),
            model,
            train,
            config.get("language"),
            lineage.get("embeddings_file"),
            "val" if (lineage.get("questions") or {"val": 1}).get("val") else "train",
        )

    def has_files(self, hashes: Sequence[str]) -> bool:
        """Return whether it was trained from question files of just these hashes."""
        return self.file_hashes == list(hashes)

    def is_of(self, joined: JoinedQuestions) -> bool:
        """Return whether it was trained from these questions and this cache."""
        return self.has_files(joined.file_hashes) and self.cache_digest == joined.cache_digest


def _baselines(
    job: EvaluateJob,
    made: Making,
    cache: Cache,
    joined: JoinedQuestions,
    chosen: Asked,
    run: Run,
) -> dict[str, baselines.Said]:
    """Return what each baseline says to the questions that are asked.

    Those that are trained come from the model's folder, where they were trained under its budget
    and judged on the same questions; else they are trained now, in folders below `job.out`.
    """
    asked, splits = chosen.questions, chosen.splits
    if not splits.train:
        return {}
    said = baselines.count_answers(splits.train, asked)
    if not job.with_baselines:
        return said
    stored = baselines.read_judged(job.model, asked) if made.is_of(joined) else {}
    work = _baseline_work(job, made, joined, chosen, run)
    for kind in baselines.trained_of(read_head(job.model), pictures=cache.spec.holds_pictures):
        if stored.get(kind):
            said[kind] = stored[kind]
            continue
        path = _train_baseline(work, kind, job, cache, run)
        said[kind] = ask_all(load_model(path), cache, asked, run=run).chosen()
    return said


def _baseline_work(
    job: EvaluateJob, made: Making, joined: JoinedQuestions, chosen: Asked, run: Run
) -> TrainJob:
    """Return what trains a baseline under the model's budget, on the splits that are judged by."""
    from framebank.train.fit.training_data import TrainJob

    splits = chosen.splits
    vectors = made.embeddings
    if vectors is not None and not storage.exists(vectors):
        run.say(f"NOTE: {vectors} is gone: the trained baselines start without word vectors")
        vectors = None

    learnt: QuestionFiles | JoinedQuestions = job.questions
    if chosen.unseen:  # the files' own splits are not those of this evaluation
        learnt = joined.only([*splits.train, *splits.val])
    elif made.has_files(joined.file_hashes):
        learnt = joined
    return TrainJob(
        questions=learnt,
        model=made.model,
        with_baselines=False,
        train=dataclasses.replace(made.train, max_unmatched_ratio=job.max_unmatched_ratio),
        language=made.language,
        embeddings=vectors,
    )


def _train_baseline(work: TrainJob, kind: str, job: EvaluateJob, cache: Cache, run: Run) -> str:
    """Train a baseline in a folder below `job.out`; return the folder."""
    from framebank.train.fit.training import train_model

    path = str(job.out / "baselines" / kind)
    run.say(f"training {kind} under the model's budget in {path}")
    alike = dataclasses.replace(work, model=dataclasses.replace(work.model, kind=kind))
    train_model(alike, cache, ModelFolder(path), Run(run.stop))  # its remarks are not of the model
    return path


def _known(kind: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in fields.items() if name in names}
