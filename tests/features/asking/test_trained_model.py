"""A model's folder as `score` and `ask` see it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from framebank.features.asking import trained_model
from framebank.features.asking.trained_model import (
    NotFiniteError,
    check_weights,
    load_model,
    load_network,
    pad_clips,
    read_lineage,
)
from framebank.features.errors import JobError, UsageError
from tests.made.made_cache import SPEC
from tests.made.made_model import ANSWERS, make_model, spoil_weights


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("made") / "model", SPEC, width=8)


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_lineage_and_answers_come_back(model: Path) -> None:
    lineage = read_lineage(str(model))
    assert lineage.spec == SPEC and lineage.random_weights
    loaded = load_model(str(model))
    clips = [np.ones((2, 8), np.float16), np.full((5, 8), 2, np.float16)]
    together = loaded.predict(pad_clips(clips), [b"what?", "哪里?".encode()])
    assert loaded.head.answers == ANSWERS and together.shape == (2, 3)
    assert together.sum(axis=1) == pytest.approx(1)
    alone = loaded.predict(pad_clips(clips[:1]), [b"what?"])
    assert together[0] == pytest.approx(alone[0], abs=1e-6)  # padding changes no answer


def test_a_model_that_was_kept_answers_with_the_same_bytes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    clips = pad_clips([np.ones((2, 8), np.float16), np.full((5, 8), 2, np.float16)])
    questions = [b"what?", "哪里?".encode()]
    first = load_model(str(model), keep=True)
    network = trained_model.load_network
    monkeypatch.setattr(trained_model, "load_network", None)  # which reads the file by Keras
    again = load_model(str(model), keep=True)
    assert again.predict(clips, questions).tobytes() == first.predict(clips, questions).tobytes()
    assert again.unknown_words("what zzz") == first.unknown_words("what zzz")
    monkeypatch.setattr(trained_model, "load_network", network)
    other = json.loads((model / "vocabulary.json").read_text())
    (model / "vocabulary.json").write_text(json.dumps(other | {"answers": ["one"]}))
    with pytest.raises(UsageError, match="vocabulary"):  # of other files nothing was kept
        load_model(str(model), keep=True)


@pytest.mark.parametrize("name", ["model.keras", "vocabulary.json", "lineage.json"])
def test_a_folder_without_one_of_its_files_is_no_model(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(UsageError, match=rf"not a trained model\n.*{name}"):
        read_lineage(str(model))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"answers": []}', '{"answers": 3}'])
def test_a_damaged_vocabulary_is_told(model: Path, text: str) -> None:
    (model / "vocabulary.json").write_text(text)
    with pytest.raises(UsageError, match=r"vocabulary\.json cannot be used"):
        load_model(str(model))


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04 no zip either"])
def test_a_damaged_model_is_told(model: Path, data: bytes) -> None:
    (model / "model.keras").write_bytes(data)
    with pytest.raises(UsageError, match=r"model\.keras cannot be used"):
        load_model(str(model))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(model: Path, value: float) -> None:
    check_weights(str(model))
    spoil_weights(model, value)
    for look in (load_model, load_network, check_weights):
        with pytest.raises(NotFiniteError, match=r"weights that are not finite[\s\S]*1 of its"):
            look(str(model))


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04 no zip either"])
def test_a_damaged_model_is_told_without_tensorflow(model: Path, data: bytes) -> None:
    (model / "model.keras").write_bytes(data)
    with pytest.raises(UsageError, match=r"model\.keras cannot be used"):
        check_weights(str(model))


def test_a_model_tells_the_words_that_it_knows(model: Path) -> None:
    loaded = load_model(str(model))
    asked = ["zzz qqq", "what is qqq?", "WHAT!", "???", "", "\ud800"]
    assert loaded.knows(asked) == [False, True, True, False, False, False]
    assert loaded.knows([]) == []
    assert loaded.unknown_words("what is the qqq, Zzz (colour)?") == ["qqq", "Zzz"]


@pytest.mark.parametrize("within", ["[NaN, 3]", '["a", "b"]', "[1]", "3", "[0, 1e999]"])
def test_a_range_of_counts_that_is_none_is_told(model: Path, within: str) -> None:
    (model / "vocabulary.json").write_text(f'{{"head": "count", "range": {within}}}')
    with pytest.raises(UsageError, match=r"vocabulary\.json cannot be used"):
        load_model(str(model))


def test_half_a_model_and_a_vocabulary_of_another_are_told(model: Path) -> None:
    whole = (model / "model.keras").read_bytes()
    (model / "model.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"no whole zip file"):
        load_model(str(model))
    (model / "model.keras").write_bytes(whole)
    (model / "vocabulary.json").write_text('{"answers": ["a", "b"]}')
    with pytest.raises(UsageError, match=r"2 answers, open, for a model of 3 outputs"):
        load_model(str(model))


def test_a_full_disk_is_not_called_a_damaged_model(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(JobError, match=r"No space left[\s\S]*TMPDIR"):
        load_model(str(model))


def test_a_lineage_that_contradicts_itself_is_told(model: Path) -> None:
    fields = json.loads((model / "lineage.json").read_text())
    trained = [{"seed": float("nan"), "val_share": 0.1}, {"seed": 0, "val_share": float("nan")}]
    wrong = [{"fingerprint": "0"}, *({"making": {"config": {"train": one}}} for one in trained)]
    for text in ("", "[]", "{}", *(json.dumps(fields | one) for one in wrong)):
        (model / "lineage.json").write_text(text)
        with pytest.raises(UsageError, match=r"lineage\.json cannot be used"):
            read_lineage(str(model))
