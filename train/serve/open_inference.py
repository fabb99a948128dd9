"""The open inference protocol (KServe's version 2, over HTTP with JSON) for the model on features.

    POST /v2/models/NAME/infer
    {"inputs": [{"name": "features", "shape": [1, 8, 2048], "datatype": "FP32", "data": [...]},
                {"name": "question", "shape": [1], "datatype": "BYTES", "data": ["what is it?"]}]}

`features` are padded at the end with rows of zeros. A model of labels or segments takes no
question; one that chooses takes `choice`, BYTES[b, c]. `probabilities` FP32[b, a] come in the order
of the metadata's answers, of a count `number` FP32[b], and `answer` is BYTES[b].
https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.heads import CHOICE, COUNT, OPEN
from framebank.features.asking.one_clip import Asked
from framebank.features.browsing.http_errors import Refusal, bad_request
from framebank.features.questions.question import SEGMENTS, Question
from framebank.train.serve.asker import Asker
from framebank.train.serve.models import ModelInUse

MOST_CLIPS = 256  # of one request
MOST_CHOICES = 100
_TYPES = {"FP32": np.float32, "FP64": np.float64, "FP16": np.float16}


def metadata(model: ModelInUse) -> dict[str, Any]:
    """Return what the protocol says of a model; its answers are in `parameters`."""
    head = model.model.head
    inputs = [{"name": "features", "datatype": "FP32", "shape": [-1, -1, -1]}]
    if head.asks:
        inputs.append({"name": "question", "datatype": "BYTES", "shape": [-1]})
    if head.kind == CHOICE:
        inputs.append({"name": "choice", "datatype": "BYTES", "shape": [-1, -1]})
    shape = [-1, -1, head.width] if head.kind == SEGMENTS else [-1, len(head.answers) or -1]
    outputs = [{"name": "probabilities", "datatype": "FP32", "shape": shape}]
    if head.kind == COUNT:
        outputs = [{"name": "number", "datatype": "FP32", "shape": [-1]}]
    if head.kind != SEGMENTS:
        outputs.append({"name": "answer", "datatype": "BYTES", "shape": [-1]})
    return {
        "name": model.name,
        "versions": [model.version or "1"],
        "platform": "framebank",
        "inputs": inputs,
        "outputs": outputs,
        "parameters": {"head": head.kind, "answers": list(head.answers)},
    }


def check_name(model: ModelInUse, name: str, version: str | None = None) -> None:
    """Raise Refusal for a model, or a version, that is not the one here."""
    here = model.version or "1"
    if name != model.name or version not in (None, here):
        got = f"{name} {version or ''}".strip()
        expected = f"{model.name} {here}"
        raise Refusal(404, "no_such_model", "there is no such model", got=got, expected=expected)


async def infer(asker: Asker, model: ModelInUse, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer an inference request; raises Refusal, FramebankError."""
    features, questions, choices = _inputs(model, body)
    outputs = await _outputs(asker, model, features, questions, choices)
    wanted = _wanted(body)
    if strange := wanted - {one["name"] for one in outputs}:
        raise bad_request("there is no such output", got=", ".join(sorted(strange)))
    answer = {
        "model_name": model.name,
        "model_version": model.version or "1",
        "outputs": [one for one in outputs if not wanted or one["name"] in wanted],
    }
    return answer if body.get("id") is None else answer | {"id": str(body["id"])}


async def _outputs(
    asker: Asker,
    model: ModelInUse,
    features: Sequence[NDArray[np.float32]],
    questions: Sequence[str],
    choices: Sequence[tuple[str, ...]],
) -> list[dict[str, Any]]:
    head = model.model.head
    if head.kind == SEGMENTS:
        rows = [await asyncio.to_thread(model.model.ask_video, one) for one in features]
        longest = max(map(len, rows))
        padded = [np.pad(one, ((0, longest - len(one)), (0, 0))) for one in rows]
        return [_floats("probabilities", np.stack(padded))]
    asked = [Asked(*one) for one in zip(features, questions, choices, strict=True)]
    outcomes = asker.ask(model.model, asked)
    scores = [await asyncio.wrap_future(one) for one in outcomes]
    told = []
    for place, (one, its) in enumerate(zip(asked, scores, strict=True)):
        if head.kind == OPEN:
            scores[place] = its = head.restrict(its[None], [Question("", "", one.question)])[0]
        told.append(head.best(its, top=1, choices=one.choices)[0]["answer"])
    if head.kind == COUNT:
        first = _floats("number", np.array([its[0] for its in scores], np.float32))
    else:
        first = _floats("probabilities", _padded(scores))
    answers = {"name": "answer", "datatype": "BYTES", "shape": [len(told)], "data": told}
    return [first, answers]


def _padded(scores: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    widest = max(map(len, scores))
    return np.stack([np.pad(its, (0, widest - len(its))) for its in scores])


def _floats(name: str, values: NDArray[np.float32]) -> dict[str, Any]:
    shape = list(values.shape)
    return {"name": name, "datatype": "FP32", "shape": shape, "data": values.ravel().tolist()}


def _wanted(body: Mapping[str, Any]) -> set[str]:
    listed = body.get("outputs") or []
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise bad_request("outputs are no list of objects")
    return {str(one.get("name")) for one in listed}


def _inputs(
    model: ModelInUse, body: Mapping[str, Any]
) -> tuple[list[NDArray[np.float32]], list[str], list[tuple[str, ...]]]:
    listed = body.get("inputs")
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise bad_request("inputs are no list of objects", expected="as in the model's metadata")
    given = {str(one.get("name")): one for one in listed}
    wanted = {one["name"] for one in metadata(model)["inputs"]}
    if len(given) < len(listed) or given.keys() != wanted:
        got, expected = ", ".join(sorted(given)), ", ".join(sorted(wanted))
        raise bad_request("the inputs are not those of the model", got=got, expected=expected)
    features = _features(given["features"])
    head = model.model.head
    width = model.clips.feature_dim
    if features.shape[2] != width:
        got, expected = f"features of width {features.shape[2]}", f"width {width}"
        raise bad_request("the features are not those of the model", got=got, expected=expected)
    questions = [""] * len(features)
    if head.asks:
        questions = _texts(given["question"], [len(features)]).tolist()
    choices: list[tuple[str, ...]] = [()] * len(features)
    if head.kind == CHOICE:
        table = _texts(given["choice"], [len(features), -1])
        if not 2 <= table.shape[1] <= MOST_CHOICES:
            got = f"{table.shape[1]} candidates"
            raise bad_request("the model chooses among candidates", got=got, expected="2 to 100")
        choices = [tuple(row) for row in table.tolist()]
    return [_unpadded(one) for one in features], questions, choices


def _unpadded(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a clip without the rows of zeros at its end; one of nothing but zeros keeps one."""
    held = np.flatnonzero(features.any(axis=1))
    return features[: held[-1] + 1 if len(held) else 1]


def _features(tensor: Mapping[str, Any]) -> NDArray[np.float32]:
    kind = _TYPES.get(str(tensor.get("datatype")))
    if kind is None:
        expected = " | ".join(_TYPES)
        raise bad_request(
            "features of no known type", got=tensor.get("datatype"), expected=expected
        )
    shape = _shape(tensor, 3)
    try:
        values = np.asarray(tensor.get("data"), kind).astype(np.float32).reshape(shape)
    except (ValueError, TypeError, OverflowError) as err:
        raise bad_request("features that do not fit their shape", got=err, expected=shape) from err
    if not np.isfinite(values).all():
        raise bad_request("features that are not finite")
    return values


def _texts(tensor: Mapping[str, Any], shape: list[int]) -> NDArray[Any]:
    stated = _shape(tensor, len(shape))
    fits = all(want in (-1, got) for want, got in zip(shape, stated, strict=True))
    flat = _flat(tensor.get("data"))
    if tensor.get("datatype") != "BYTES" or not fits or len(flat) != int(np.prod(stated)):
        what = f"{tensor.get('name')} is no BYTES of the shape that fits the features"
        raise bad_request(what, got=f"{tensor.get('datatype')}{stated}", expected=shape)
    return np.array(flat, object).reshape(stated)


def _flat(data: Any) -> list[str]:
    if isinstance(data, str):
        return [data]
    if not isinstance(data, list):
        raise bad_request("BYTES that are no texts")
    return [text for one in data for text in _flat(one)]


def _shape(tensor: Mapping[str, Any], rank: int) -> list[int]:
    shape = tensor.get("shape")
    sound = isinstance(shape, list) and len(shape) == rank
    if not sound or not all(type(size) is int and 0 < size < 2**31 for size in shape or ()):
        what = f"{tensor.get('name')} has no shape of {rank} sizes"
        raise bad_request(what, got=shape)
    assert isinstance(shape, list)
    if shape[0] > MOST_CLIPS:
        raise bad_request("too many clips at once", got=shape[0], expected=f"{MOST_CLIPS} at most")
    return shape
