"""From a request's fields to its answers: what is asked, about which clip, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import fastapi
import numpy as np
import pydantic

from framebank.features.asking.heads import COUNT
from framebank.features.asking.one_clip import Asked, ask_about_video, check_question, tell
from framebank.features.browsing.http_errors import Refusal, as_refusal, bad_request, error_body
from framebank.features.errors import CacheError, FramebankError, UsageError
from framebank.features.questions.known_sets import LABELS, PLAIN
from framebank.features.questions.parsing import VIDEO_COLUMNS, make_question, text
from framebank.features.questions.question import LABEL, SEGMENTS, Question
from framebank.features.stores import storage
from framebank.features.stores.temporary import LiveFolder
from framebank.features.video import VideoRef
from framebank.train.serve import uploads
from framebank.train.serve.asker import Asker, Scores
from framebank.train.serve.clips import CacheInUse, Clip, Decoding, allowed_ref, pictures_of
from framebank.train.serve.explaining import explain
from framebank.train.serve.limits import BODY_BYTES, Limits
from framebank.train.serve.models import ModelInUse
from framebank.train.serve.schemas import AskBody


@dataclasses.dataclass
class Request:
    """What was asked; `path` is where a clip that was sent lies until the request ends."""

    video_id: str | None = None
    uri: str | None = None
    path: str | None = None
    name: str = ""
    questions: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    top: int = 5
    count: int = 12


@dataclasses.dataclass(frozen=True)
class Service:
    """All that answering takes, beside the model."""

    limits: Limits
    folder: LiveFolder
    asker: Asker
    decoding: Decoding
    cache: CacheInUse | None
    roots: Sequence[str]
    numbers: itertools.count[int] = dataclasses.field(default_factory=itertools.count)

    # What a request says

    @contextlib.asynccontextmanager
    async def read(
        self, request: fastapi.Request, body: type[pydantic.BaseModel] = AskBody
    ) -> AsyncIterator[Request]:
        """Yield what a request asks; the clip that came with it is there until the end of the
        block. Raises Refusal, pydantic.ValidationError."""
        kind, options = uploads.kind_of(request)
        if kind == uploads.JSON:
            fields = await uploads.read_json(request, BODY_BYTES)
            yield self._checked(_of_json(body.model_validate(fields)))
            return
        path = os.path.join(self.folder.path, f"upload-{next(self.numbers)}")
        most = self.limits.upload_bytes
        async with uploads.received_form(request, options, path, most_bytes=most) as form:
            yield self._checked(_of_form(form, body))

    def _checked(self, asked: Request) -> Request:
        named = [one for one in (asked.video_id, asked.uri, asked.path) if one is not None]
        if len(named) != 1:
            got = f"{len(named)} of them"
            expected = "a file field `clip`, or a uri, or a video_id of the cache"
            raise bad_request("a request is about one clip", got=got, expected=expected)
        if len(asked.questions) > self.limits.questions:
            count, most = len(asked.questions), f"{self.limits.questions} at most"
            raise bad_request("too many questions at once", got=count, expected=most)
        return asked

    def check_questions(self, asked: Request, model: ModelInUse) -> None:
        """Raise UsageError for what the model cannot be asked, before a clip is decoded for it."""
        for question in asked.questions or ("",):
            check_question(
                question, asked.choices, model.model.head, model=model.name, choice="choices"
            )

    # The clip

    async def clip(self, asked: Request, model: ModelInUse, *, pictures: bool = False) -> Clip:
        """Return the clip of a request; raises FramebankError, VideoRejected."""
        if asked.video_id is not None:
            return await self._cached(asked.video_id, model, pictures=pictures)
        if asked.uri is not None:
            ref = await asyncio.to_thread(allowed_ref, asked.uri, self.roots)
            about = {"name": asked.uri.rpartition("/")[2]}
        else:
            assert asked.path is not None
            ref = VideoRef("", asked.path, *_version(asked.path))
            about = {"name": asked.name}
        return await self.decoding.clip(ref, model, about, pictures=pictures)

    async def _cached(self, video_id: str, model: ModelInUse, *, pictures: bool) -> Clip:
        cache = self._cache()
        record = await asyncio.to_thread(cache.read, video_id, model)
        about = {
            "video_id": record.video_id,
            "frames": len(record.features),
            "duration_s": record.source.duration_s,
        }
        shown = await self._source_pictures(record.video_id, model) if pictures else None
        return Clip(record, about, pictures_of(shown, record))

    async def _source_pictures(self, video_id: str, model: ModelInUse) -> Any:
        """Return the frames of the video that a cached one was made of, None where it is gone."""
        assert self.cache is not None
        uri, sha256 = await asyncio.to_thread(self.cache.source, video_id)
        try:
            found = await asyncio.to_thread(storage.find, uri) if uri else None
        except FramebankError:
            return None
        if found is None:
            return None
        ref = VideoRef("", uri, found.size_bytes, found.generation)
        shown = await self.decoding.pictures(ref, model)
        return shown if shown is not None and shown.content_sha256 == sha256 else None

    def _cache(self) -> CacheInUse:
        if self.cache is None:
            what = "this server has no cache"
            raise Refusal(404, "no_cache", what, todo="send the clip, or start with --cache")
        return self.cache

    # What is answered

    async def answer(self, asked: Request, model: ModelInUse, clip: Clip) -> dict[str, Any]:
        """Return what `/v1/ask` answers to questions that were checked; raises FramebankError."""
        questions = asked.questions or ("",)
        head = model.model.head
        if head.kind == SEGMENTS:
            found = await asyncio.to_thread(
                ask_about_video, model.model, clip.record, top=asked.top
            )
            rows = [_row("", found[0], [], []) | {"segments": found[1]}]
        else:
            features = clip.record.features.astype(np.float32)
            about = [Asked(features, question, asked.choices) for question in questions]
            scores = await self._scores(model, about)
            rows = await asyncio.to_thread(
                lambda: [
                    _told_row(model, one, its, asked.top)
                    for one, its in zip(about, scores, strict=True)
                ]
            )
        return {"model": model_words(model), "video": clip.about, "answers": rows}

    async def _scores(self, model: ModelInUse, asked: Sequence[Asked]) -> list[Scores]:
        outcomes = self.asker.ask(model.model, asked)
        return [await asyncio.wrap_future(one) for one in outcomes]

    async def explained(self, asked: Request, model: ModelInUse) -> dict[str, Any]:
        """Return what `/v1/explain` answers; raises FramebankError, VideoRejected."""
        if model.model.head.kind == SEGMENTS:
            raise bad_request("a model of segments says itself where in the clip it looks")
        if len(asked.questions) > 1:
            raise bad_request("one question at a time", got=f"{len(asked.questions)} questions")
        question = asked.questions[0] if asked.questions else ""
        self.check_questions(asked, model)
        clip = await self.clip(asked, model, pictures=True)
        found = await explain(self.asker, model, clip, question, asked.choices)
        return {"model": model_words(model), "video": clip.about, **found}

    async def neighbours(self, asked: Request, model: ModelInUse) -> dict[str, Any]:
        """Return what `/v1/neighbours` answers; raises FramebankError, VideoRejected."""
        cache = self._cache()
        if asked.video_id is not None:
            found = await asyncio.to_thread(cache.find, asked.video_id)
            return await asyncio.to_thread(cache.views.neighbours, found, asked.count)
        await asyncio.to_thread(cache.check_spec, model)
        clip = await self.clip(asked, model)
        return await asyncio.to_thread(cache.views.like, clip.record, asked.count)

    async def score(self, rows: Sequence[Mapping[str, Any]], model: ModelInUse) -> dict[str, Any]:
        """Return the rows of `/v1/score`, each with its answer or its error."""
        cache = self._cache()
        if len(rows) > self.limits.rows:
            got, expected = len(rows), f"{self.limits.rows} at most"
            raise bad_request("too many rows at once", got=got, expected=expected)
        read = await asyncio.to_thread(_read_rows, rows, cache, model)
        wanted = [one for one in read if isinstance(one, _ScoreRow)]
        if model.model.head.kind == SEGMENTS:
            told = [await asyncio.to_thread(_segments, one, model) for one in wanted]
        else:
            asked = [Asked(one.features, one.text, one.question.choices) for one in wanted]
            outcomes = [asyncio.wrap_future(one) for one in self.asker.ask(model.model, asked)]
            scores = await asyncio.gather(*outcomes, return_exceptions=True)
            told = [_scored(one, its, model) for one, its in zip(wanted, scores, strict=True)]
        answers = iter(told)
        found = [next(answers) if isinstance(one, _ScoreRow) else one for one in read]
        return {
            "model": model_words(model),
            "rows": [{**row, **one} for row, one in zip(rows, found, strict=True)],
        }


def model_words(model: ModelInUse) -> dict[str, Any]:
    """Return what every answer says of the model that gave it."""
    random = {"random_weights": True} if model.lineage.random_weights else {}
    return {"name": model.name, "version": model.version, **random}


def _version(path: str) -> tuple[int, str]:
    status = os.stat(path)
    return status.st_size, str(status.st_mtime_ns)


def _of_json(body: Any) -> Request:
    questions = list(getattr(body, "questions", None) or [])
    if (one := getattr(body, "question", None)) is not None:
        questions.insert(0, one)
    choices = getattr(body, "choices", [])
    return Request(
        video_id=body.video_id,
        uri=body.uri,
        questions=tuple(map(text, questions)),
        choices=tuple(map(text, choices)),
        top=getattr(body, "top", 5),
        count=getattr(body, "count", 12),
    )


_LISTS = {"question": "questions", "questions": "questions", "choice": "choices"}


def _of_form(form: uploads.Form, body: type[pydantic.BaseModel]) -> Request:
    """Return what a form asks, whose fields are those of the JSON body."""
    fields: dict[str, Any] = {}
    for name, values in form.fields.items():
        name = _LISTS.get(name, name)
        if name in ("questions", "choices"):
            fields[name] = [*fields.get(name, []), *values]
        elif name in ("top", "count") and values[0].isdecimal():
            fields[name] = int(values[0])
        elif len(values) > 1:
            raise bad_request(f"the form has {name} several times")
        else:
            fields[name] = values[0]
    asked = _of_json(body.model_validate(fields))
    asked.path, asked.name = form.path, form.name
    return asked


def _row(
    question: str, answers: list[dict[str, Any]], unknown: list[str], warnings: list[str]
) -> dict[str, Any]:
    return {
        "question": question,
        "answers": answers,
        "unknown_words": unknown,
        "warnings": warnings,
    }


def _told_row(model: ModelInUse, asked: Asked, scores: Scores, top: int) -> dict[str, Any]:
    told = tell(model.model, asked, scores, top=top)
    return _row(asked.question, told.answers, told.unknown_words, told.warnings)


@dataclasses.dataclass(frozen=True)
class _ScoreRow:
    question: Question
    video_id: str
    record: Any

    @property
    def features(self) -> Any:
        return self.record.features

    @property
    def text(self) -> str:
        return self.question.question


def _read_rows(
    rows: Sequence[Mapping[str, Any]], cache: CacheInUse, model: ModelInUse
) -> list[_ScoreRow | dict[str, Any]]:
    """Return each row with its video, or its error. A video is read once."""
    records: dict[str, Any] = {}
    found: list[_ScoreRow | dict[str, Any]] = []
    for number, row in enumerate(rows, 1):
        try:
            question = _question(row, number, model)
            video_id = cache.find(question.video_id)
            if video_id not in records:
                records[video_id] = cache.read(video_id, model)
            found.append(_ScoreRow(question, video_id, records[video_id]))
        except CacheError:
            raise
        except FramebankError as error:
            found.append(_error(error))
    return found


def _question(row: Mapping[str, Any], number: int, model: ModelInUse) -> Question:
    """Return a row as `score` reads it; raises UsageError."""
    head = model.model.head
    fields = {str(name).strip().lower(): value for name, value in row.items()}
    if head.kind == SEGMENTS:
        fields = {name: value for name, value in fields.items() if name in VIDEO_COLUMNS}
    named = LABELS if head.kind in (LABEL, SEGMENTS) else PLAIN
    question = make_question("rows", f"row {number}", fields, set_name=named)
    if head.kind != SEGMENTS and not head.fits(question.head):
        got, expected = f"a question for {question.head}", f"one for {head.kind}"
        raise UsageError("the model answers questions of another kind", got=got, expected=expected)
    return question


def _scored(row: _ScoreRow, scores: Scores | BaseException, model: ModelInUse) -> dict[str, Any]:
    if isinstance(scores, Exception):
        return _error(scores)
    assert not isinstance(scores, BaseException)
    head, question = model.model.head, row.question
    its = head.restrict(scores[None], [question])[0]
    (best,) = head.best(its, top=1, choices=question.choices)
    confidence = None if head.kind == COUNT else best["probability"]
    return {"video_id": row.video_id, "answer": best["answer"], "confidence": confidence}


def _segments(row: _ScoreRow, model: ModelInUse) -> dict[str, Any]:
    labels, segments = ask_about_video(model.model, row.record, top=1)
    told = {"answer": labels[0]["answer"], "confidence": labels[0]["probability"]}
    return {"video_id": row.video_id, **told, "segments": segments}


def _error(error: Exception) -> dict[str, Any]:
    return error_body(as_refusal(error), "/v1/score")
