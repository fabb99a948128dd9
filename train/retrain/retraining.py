"""One retraining: look for news, train, judge against the model in use, promote or keep aside.

The model in use changes by one compare-and-swap at the very end. Whatever a killed run leaves,
half-written versions, work folders, a verdict that nobody acted on, the next run puts in order.

News is measured against every version of the registry, also one kept aside or rolled back from:
what was judged once is not trained again every night. Where catalogs or question files differ the
questions are joined with the cache: an extraction that found no clip leaves a catalog.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from framebank import __version__
from framebank.features.asking.trained_model import (
    NotFiniteError,
    check_weights,
    load_model,
    read_head,
)
from framebank.features.cache import catalog, layout
from framebank.features.cache.reader import Cache, open_cache, open_spec
from framebank.features.errors import JobError, UsageError
from framebank.features.questions.files import file_hashes
from framebank.features.questions.question import SEGMENTS, Question, head_kind
from framebank.features.questions.seen_videos import SEEN, Seen, content_hashes, read_seen
from framebank.features.questions.splits import SplitRule
from framebank.features.stores import disk, storage
from framebank.features.stores.temporary import live_folder
from framebank.train.data.joining import JoinedQuestions, join_cache, remarks, videos_digest
from framebank.train.data.splits import part_questions
from framebank.train.model.config import PROBE
from framebank.train.retrain.config import RetrainConfig
from framebank.train.retrain.promotion import Decision, judge
from framebank.train.retrain.registry import (
    BASIS,
    Current,
    Registry,
    damaged,
    new_version,
    write_json,
)
from framebank.train.workers.run import Run


@dataclasses.dataclass(frozen=True)
class Basis:
    """What a model is made from. `catalogs` maps runs of the cache to the size of their catalog;
    `videos` is a hash of the videos and feature keys that the questions are about ("": not known
    yet); `questions` are the SHA-256 of the question files and the mapping."""

    fingerprint: str
    catalogs: dict[str, int]
    questions: tuple[str, ...]
    config: str
    videos: str = ""

    @classmethod
    def from_json(cls, fields: dict[str, Any], *, path: str) -> Basis:
        """Raises CacheError naming `path`."""
        try:
            found = cls(**fields | {"questions": tuple(fields["questions"])})
            dict(found.catalogs)
        except (KeyError, TypeError, ValueError) as err:
            raise damaged(path, err) from err
        return found

    def looks_like(self, other: Basis) -> bool:
        """Return whether both are of the same files."""
        return dataclasses.replace(self, videos="") == dataclasses.replace(other, videos="")

    def is_made_of(self, other: Basis) -> bool:
        """Return whether both give the same model, though a catalog may have been added."""
        bare = dataclasses.replace(other, catalogs={})
        return dataclasses.replace(self, catalogs={}) == bare

    def news(self, older: Basis | None) -> list[str]:
        """Return what is new against `older`, for people."""
        if older is None:
            return ["no model is in use yet"]
        said = []
        runs = sum(older.catalogs.get(run) != size for run, size in self.catalogs.items())
        if runs:
            said.append(f"{runs} catalogs of the cache")
        files = len(set(self.questions) - set(older.questions))
        if files or len(self.questions) != len(older.questions):
            said.append(f"{files} question files of {len(self.questions)}")
        if self.config != older.config:
            said.append("the config")
        return said or ["what the model in use was made from is not all there any more"]


def look(config: RetrainConfig, *, fingerprint: str) -> Basis:
    """Return what is there now, from the names of catalogs and the bytes of question files."""
    folder = layout.catalog_folder(config.cache)
    sizes = {file.path.rsplit("/", 1)[-1]: file.size_bytes for file in storage.iter_files(folder)}
    known = {path.rsplit("/", 1)[-1] for path in catalog.catalog_files(config.cache)}
    return Basis(
        fingerprint=fingerprint,
        catalogs={name: sizes[name] for name in sorted(known)},
        questions=tuple(file_hashes(config.files)),
        config=config.digest(),
    )


@dataclasses.dataclass(frozen=True)
class Result:
    """How a retraining ended; `event` is "nothing new", "promoted", "kept aside", or after a dry
    run "something new"."""

    event: str
    version: str | None
    reason: str
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Retraining:
    """What all its steps share; `current` is as it was at the start."""

    config: RetrainConfig
    registry: Registry
    current: Current
    run: Run


@dataclasses.dataclass(frozen=True)
class _News:
    """What there is to train on that no version was made from; `said` tells what is new."""

    basis: Basis
    cache: Cache
    joined: JoinedQuestions
    said: str


def retrain(config: RetrainConfig, run: Run, *, dry_run: bool = False) -> Result:
    """Retrain if there is anything new, and with `dry_run` write nothing; raises FramebankError,
    TrainingStopped."""
    registry = Registry(config.registry)
    if not dry_run:
        for version in registry.finish_interrupted():
            run.say(f"finished what a run that was ended had left to do with {version}")
        for version in registry.remove_leftovers():
            run.say(f"removed {version}, which a run that was ended had half written")
    its = _Retraining(config, registry, registry.current(), run)
    news = _look_for_news(its)
    if isinstance(news, Result):
        return news
    for remark in remarks(news.joined):
        run.say(remark)
    if dry_run:
        return Result("something new", its.current.version, news.said)
    run.say(f"new: {news.said}")
    registry.check_writable()
    with _work_folder(config) as work:
        return _train_and_judge(its, news, work)


def _look_for_news(its: _Retraining) -> _News | Result:
    config, registry, current = its.config, its.registry, its.current
    fingerprint = open_spec(config.cache).fingerprint
    files = registry.files()
    registry.check_in_use(current, files)
    bases = {
        version: Basis.from_json(
            registry.read_json(version, BASIS), path=storage.join(registry.folder(version), BASIS)
        )
        for version in registry.versions(files)
    }
    _check_features(current, bases, fingerprint)
    basis = look(config, fingerprint=fingerprint)
    for version, other in bases.items():
        if basis.looks_like(other):
            return _nothing_new(current, version)
    cache = open_cache(config.cache)
    joined = join_cache(
        config.files,
        cache,
        max_unmatched_ratio=config.train.max_unmatched_ratio,
    )
    basis = dataclasses.replace(basis, videos=videos_digest(cache, joined.frames))
    for version, other in bases.items():
        if basis.is_made_of(other):
            return _nothing_new(current, version)
    said = ", ".join(basis.news(bases.get(current.version or "")))
    return _News(basis, cache, joined, said)


def _check_features(current: Current, bases: Mapping[str, Basis], fingerprint: str) -> None:
    if current.version is None:
        return
    made = bases[current.version].fingerprint
    if made != fingerprint:
        raise UsageError(
            "the features of the cache are made in another way than those of the model in use",
            got=f"fingerprint {fingerprint}",
            expected=f"{made}, as the version {current.version} was trained on",
            todo="give another registry: the two cannot be compared on the same features",
        )


def _check_head(questions: Sequence[Question], in_use: str) -> None:
    asked, given = head_kind(questions), read_head(in_use).kind
    if asked != given:
        raise UsageError(
            "the questions want another kind of answer than the model in use gives",
            got=f"questions of the kind {asked}",
            expected=f"{given}, as {in_use} answers",
            todo="give another registry: the two have no measure in common",
        )


def _nothing_new(current: Current, version: str) -> Result:
    state = "in use" if current.version == version else "not in use"
    return Result("nothing new", current.version, f"{version}, {state}, was made from just this")


def _train_and_judge(its: _Retraining, news: _News, work: Path) -> Result:
    config, run, version = its.config, its.run, its.current.version
    in_use = None if version is None else its.registry.folder(version)
    cache, rule = news.cache, SplitRule(group_by=config.train.group_by)
    questions = rule.grouped(news.joined.questions)
    learnt, held = part_questions(questions, share=config.held.share)
    if not learnt:
        raise UsageError("there is nothing to train on", got="all videos are held")
    warm = None
    if in_use is not None:
        _check_head(questions, in_use)
        warm = in_use if _is_sound(its, in_use) and config.start == "warm" else None
    candidate = train_candidate(its, news, news.joined.only(learnt), work, warm=warm)
    contents = content_hashes(cache, {question.video_id for question in questions})
    known = read_seen(str(candidate)) | (read_seen(in_use) if in_use else Seen())
    judged = [q for q in held if not known.has(q.video_id, contents, group=q.group)]
    figures = {
        "held_questions": len(judged),
        "held_videos": len({q.video_id for q in judged}),
        "excluded_videos": len({q.video_id for q in held} - {q.video_id for q in judged}),
    }
    if figures["excluded_videos"]:
        run.say(f"{figures['excluded_videos']} held videos are left out: a model has seen them")
    floor = candidate
    formula = bool(judged) and judged[0].head != SEGMENTS and not cache.spec.holds_pictures
    if formula and config.model.kind != PROBE:
        run.say("fitting the probe, which a model must not be worse than")
        quiet = dataclasses.replace(its, run=Run(run.stop))  # what it says is not of the model
        floor = _train(quiet, news, news.joined.only(learnt), work / "probe", kind=PROBE)
    decision = judge(
        config, str(candidate), in_use, cache, judged,
        learnt=learnt, floor=str(floor), stop=run.stop,
    )  # fmt: skip
    shutil.rmtree(work / "probe", ignore_errors=True)
    decision = dataclasses.replace(decision, figures=decision.figures | figures)
    write_json(str(candidate / BASIS), dataclasses.asdict(news.basis))
    return _hand_in(its, candidate, decision)


def _is_sound(its: _Retraining, in_use: str) -> bool:
    """Return whether the model in use can be asked; raises UsageError for a damaged one.

    One whose weights are not finite answers nothing: any model that does takes its place.
    """
    try:
        if its.config.start == "fresh":  # a warm start loads it at once anyway
            load_model(in_use)
        else:
            check_weights(in_use)
    except NotFiniteError as err:
        its.run.say(f"WARNING: {err.what}; the new model is compared with none")
        return False
    return True


@contextlib.contextmanager
def _work_folder(config: RetrainConfig) -> Iterator[Path]:
    """Give a folder to train in: `work`, held against other runs, or a temporary one, in which all
    temporary files of this process, TensorFlow's too, lie meanwhile."""
    with live_folder("framebank-retrain-") as temporary, contextlib.ExitStack() as held:
        before, tempfile.tempdir = tempfile.tempdir, temporary.path
        folder = Path(temporary.path)
        try:
            if config.work is not None:
                folder = Path(storage.local_path(config.work))
                todo = "wait for it, or give each its own key work"
                busy = JobError(f"another retraining is at work in {folder}", todo=todo)
                with storage.explained(str(folder), "write"):
                    held.enter_context(disk.locked(folder / ".lock", otherwise=busy))
            yield folder
        finally:
            tempfile.tempdir = before


def train_candidate(
    its: _Retraining, news: _News, learnt: JoinedQuestions, work: Path, *, warm: str | None
) -> Path:
    """Train in `work`, from where a killed run of the same making was; return the model's folder.

    `learnt` are no held questions; what the model has seen it keeps.
    """
    from framebank.features.tensorflow_import import import_tensorflow

    import_tensorflow()
    its.run.stop.listen()
    from framebank.train.fit.model_folder import ModelFolder

    making = json.dumps([dataclasses.asdict(news.basis), warm, __version__])
    made_before = work / "making.json"
    resumes = made_before.exists() and made_before.read_text() == making
    folder = ModelFolder(str(work / "candidate"))
    without_list = folder.finished and not (folder.path / SEEN).exists()  # of an older version
    if not resumes or without_list:
        for path in (folder.path, work / "probe"):
            shutil.rmtree(path, ignore_errors=True)
        storage.write_atomic(str(made_before), making.encode())
    return _train(its, news, learnt, folder.path, warm=warm, baselines=its.config.baselines)


def _train(
    its: _Retraining,
    news: _News,
    learnt: JoinedQuestions,
    path: Path,
    *,
    kind: str | None = None,
    warm: str | None = None,
    baselines: bool = False,
) -> Path:
    """Train a model in `path`, of the config's kind or another; return its folder."""
    from framebank.train.fit.model_folder import ModelFolder
    from framebank.train.fit.training import train_model
    from framebank.train.fit.training_data import TrainJob

    config, folder = its.config, ModelFolder(str(path))
    job = TrainJob(
        questions=learnt,
        model=dataclasses.replace(config.model, kind=kind or config.model.kind),
        train=config.train,
        with_baselines=baselines,
        warm_start=warm,
        language=config.language,
        embeddings=config.embeddings,
    )
    train_model(job, news.cache, folder, its.run)
    return folder.path


def _hand_in(its: _Retraining, candidate: Path, decision: Decision) -> Result:
    """Bring the candidate into the registry with its verdict, and do what that says."""
    version = new_version()
    verdict = {
        "better": decision.better,
        "reason": decision.reason,
        "against": its.current.version,
        "against_number": its.current.number,
        "figures": decision.figures,
    }
    its.registry.publish(version, candidate, verdict)
    promoted, reason = its.registry.settle(version)
    its.run.track.tell(
        {"held": decision.figures},
        {"registry": its.registry.path, "version": version, "against": its.current.version,
         "event": "promoted" if promoted else "kept aside", "reason": reason},
    )  # fmt: skip
    its.run.track.end()  # before the folder that it takes files of is gone
    shutil.rmtree(candidate, ignore_errors=True)
    return Result("promoted" if promoted else "kept aside", version, reason, decision.figures)
