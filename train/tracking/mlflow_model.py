"""A model folder as MLflow's own loader takes it, and a registry's version in MLflow's registry.

    model = mlflow.pyfunc.load_model("models:/actions/1")
    model.predict(pandas.DataFrame({"features": [features.tolist()], "question": ["what is it?"]}))

`features` are the rows of one clip, float[n, d] as the cache has them, unpadded; `question` may
lack where a model is asked nothing, and `choices` are the candidates of one that chooses. Out comes
a row for each: `answer`, its `probability` (of a count the `number` that was rounded), and
`answers`, the likeliest `top` (a parameter, 5 without it). A model of segments gives the labels of
the video.

What is stored is the folder as `framebank train` wrote it and the name of this module, which
MLflow imports to load it: no pickle, so no code in the file. Who loads it has Framebank installed.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from framebank import __version__
from framebank.features.errors import FramebankError, JobError, UsageError
from framebank.features.stores import json_text, storage
from framebank.train.tracking.facts import figures, lineage, model_files
from framebank.train.tracking.mlflow_settings import MODEL, PREFIX, experiment, quiet_mlflow

TOP = 5
_BATCH = 64  # clips that are asked at once
_DATA = "framebank_model"


def write_model(folder: Path, target: Path) -> None:
    """Write what MLflow's loader takes into the new folder `target`, of the model in `folder`."""
    quiet_mlflow()
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    def columns(*told: tuple[Any, str, bool]) -> Schema:
        return Schema([ColSpec(kind, name, required=needed) for kind, name, needed in told])

    head = json_text.read_object(str(folder / "vocabulary.json")).get("head", "open")
    asked: list[tuple[Any, str, bool]] = [(Array(Array(DataType.double)), "features", True)]
    if head not in ("label", "segments"):
        asked.append((DataType.string, "question", True))
    if head in ("open", "choice"):
        asked.append((Array(DataType.string), "choices", head == "choice"))
    signature = ModelSignature(
        inputs=columns(*asked),
        params=ParamSchema([ParamSpec("top", DataType.long, TOP)]),
    )
    made = json_text.read_object(str(folder / "lineage.json"))
    # An example would be made up, and MLflow would ask the model about it.
    warnings.filterwarnings("ignore", message=".*An input example was not provided")
    with tempfile.TemporaryDirectory(prefix="framebank-") as temporary:
        data = Path(temporary, _DATA)
        data.mkdir()
        for path in model_files(folder):
            shutil.copyfile(path, data / path.name)
        mlflow.pyfunc.save_model(
            str(target),
            loader_module=__name__,
            data_path=str(data),
            pip_requirements=[f"framebank[train]=={__version__}"],
            signature=signature,
            metadata=lineage(made),
        )


def _load_pyfunc(path: str) -> AskedModel:
    """Return the model in a folder that `write_model` stored; MLflow calls this by its name."""
    return AskedModel(path)


class AskedModel:
    """A model that answers a table; raises FramebankError for what is not as it says above."""

    def __init__(self, path: str) -> None:
        from framebank.features.asking.trained_model import load_model

        self._model = load_model(path)

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Return a DataFrame with a row for each of `data`, a DataFrame or a list of dicts."""
        import pandas

        rows = data.to_dict("records") if hasattr(data, "to_dict") else list(data)
        top = int((params or {}).get("top", TOP))
        told = [answer for start in range(0, len(rows), _BATCH)
                for answer in self._answers(rows[start : start + _BATCH], top)]  # fmt: skip
        return pandas.DataFrame(told, index=getattr(data, "index", None))

    def _answers(self, rows: Sequence[Mapping[str, Any]], top: int) -> Iterator[dict[str, Any]]:
        from framebank.features.asking.heads import OPEN
        from framebank.features.asking.segmenting import video_shares
        from framebank.features.asking.trained_model import pad_clips
        from framebank.features.questions.question import SEGMENTS, Question

        model, head = self._model, self._model.head
        clips = [_rows_of(row) for row in rows]
        texts = [str(row.get("question") or "") for row in rows]
        choices = [_texts(row.get("choices")) for row in rows]
        if head.kind == SEGMENTS:
            shares = [video_shares(model.ask_video(clip)) for clip in clips]
        else:
            asked = [text.encode("utf-8", "replace") for text in texts]
            try:
                found = model.predict(pad_clips(clips), asked, choices if any(choices) else None)
            except ValueError as err:
                raise UsageError("the model cannot be asked so", got=err) from err
            if head.kind == OPEN:
                pairs = zip(texts, choices, strict=True)
                offers = [Question("", "", text, choices=tuple(its)) for text, its in pairs]
                found = head.restrict(found, offers)
            shares = list(found)
        for scores, its in zip(shares, choices, strict=True):
            best = head.best(scores, top=top, choices=its)
            yield {**best[0], "answers": best}


def _rows_of(row: Mapping[str, Any]) -> np.ndarray:
    """Return the features float32[n, d] of a row; raises UsageError."""
    expected = "the column features: for each clip its rows of numbers, as the cache has them"
    try:
        clip = np.array([np.asarray(its, np.float32) for its in row["features"]])
    except (KeyError, TypeError, ValueError) as err:
        raise UsageError("a clip cannot be read", got=err, expected=expected) from err
    if clip.ndim != 2 or not clip.size or not np.isfinite(clip).all():
        got = f"an array of the shape {clip.shape}"
        raise UsageError("a clip cannot be read", got=got, expected=expected)
    return clip


def _texts(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple | np.ndarray) else []


def publish(folder: str, version: str, *, uri: str, name: str) -> dict[str, Any]:
    """Bring a model `folder`, of a registry's `version`, into the MLflow registry at `uri` as a new
    version of `name`; return what that is. Raises UsageError, JobError.

    It belongs to the run that trained it where that server has it, else to one that is made.
    """
    quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="framebank-") as temporary:
        local, target = Path(temporary, "folder"), Path(temporary, MODEL)
        _copy(folder, local)
        write_model(local, target)
        facts = lineage(json_text.read_object(str(local / "lineage.json")))
        try:
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            run = _run_of(client, local, version)
            place = f"published/{version}"
            client.log_artifacts(run, str(target), place)
            _tell_figures(client, run, local)
            if not _is_registered(client, name):
                client.create_registered_model(name)
            made = client.create_model_version(
                name,
                source=f"{client.get_run(run).info.artifact_uri}/{place}",
                run_id=run,
                tags={f"{PREFIX}{key}": value[:500] for key, value in facts.items()}
                | {f"{PREFIX}version": version},
            )
        except (MlflowException, OSError) as err:
            raise JobError(
                f"MLflow at {uri} did not take the model",
                got=str(err).strip().split("\n", 1)[0][:300],
                todo="check --mlflow and --name, and that the server is up",
            ) from err
    return {"name": name, "number": str(made.version), "version": version, "run": run, "uri": uri,
            "load": f"models:/{name}/{made.version}"}  # fmt: skip


def _copy(folder: str, local: Path) -> None:
    """Copy the files of a model's folder, of a bucket maybe."""
    local.mkdir()
    for file in storage.list_files(folder):
        leaf = file.path.rsplit("/", 1)[-1]
        (local / leaf).write_bytes(storage.read_bytes(file.path))


def _run_of(client: Any, local: Path, version: str) -> str:
    from mlflow.exceptions import MlflowException

    from framebank.train.tracking.trackers import TRACKED

    try:
        known = json_text.read_object(str(local / TRACKED))["mlflow"]["run"]
        return str(client.get_run(known).info.run_id)
    except (FramebankError, KeyError, TypeError, OSError, MlflowException):
        made = client.create_run(experiment(client), run_name=version)
        client.set_terminated(made.info.run_id, "FINISHED")
        return str(made.info.run_id)


def _tell_figures(client: Any, run: str, local: Path) -> None:
    verdict = local / "verdict.json"
    its = json_text.read_object(str(verdict)) if verdict.exists() else {}
    for key, value in figures(its.get("figures") or {}).items():
        client.log_metric(run, f"held/{key}", value)


def _is_registered(client: Any, name: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as err:
        if err.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True
