"""train/retrain/config.py: every mistake in retrain.toml is told with what to write instead."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

import framebank
from framebank.features.errors import UsageError
from framebank.train.retrain import config
from framebank.train.retrain.config import read_config

WHOLE = 'registry = "r"\ncache = "c"\nquestions = ["q.jsonl"]\n'


def read(tmp_path: Path, text: str) -> config.RetrainConfig:
    path = tmp_path / "retrain.toml"
    path.write_text(text)
    return read_config(str(path))


def test_defaults_and_all_tables(tmp_path: Path) -> None:
    plain = read(tmp_path, WHOLE)
    assert plain.start == "warm" and plain.held.share == 0.1 and plain.promote.margin == 0.01
    text = WHOLE + "[held]\nshare = 0.2\n[promote]\nmargin = 0\n[model]\ndense_units = 8\n"
    other = read(tmp_path, text + "[train]\nepochs = 3\n")
    assert (other.held.share, other.promote.margin) == (0.2, 0.0)
    assert (other.model.dense_units, other.train.epochs) == (8, 3)
    assert plain.digest() != other.digest()


def test_paths_are_taken_from_the_configs_folder(tmp_path: Path) -> None:
    found = read(tmp_path, WHOLE.replace('"c"', '"gs://b/c"') + 'work = "/w"\nmapping = "m"')
    assert (found.registry, found.mapping) == (f"{tmp_path}/r", f"{tmp_path}/m")
    assert found.questions == (f"{tmp_path}/q.jsonl",)
    assert (found.cache, found.work) == ("gs://b/c", "/w")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of/mine")
    text = WHOLE.replace('"r"', '"~/r"').replace('"q.jsonl"', '"~/q.jsonl", "./~q"')
    found = read(tmp_path, text + 'work = "~"\nembeddings = "~/w.vec"\nmapping = "gs://b/~/m"')
    assert (found.registry, found.work) == ("/home/of/mine/r", "/home/of/mine")
    assert found.questions == ("/home/of/mine/q.jsonl", f"{tmp_path}/./~q")
    assert (found.embeddings, found.mapping) == ("/home/of/mine/w.vec", "gs://b/~/m")


def test_the_docstrings_example_is_one(tmp_path: Path) -> None:
    lines = [line[4:] for line in str(config.__doc__).splitlines() if line[:4] == "    "]
    assert read(tmp_path, "\n".join(lines)).questions == ("gs://my-bucket/questions.jsonl",)


def test_the_file_to_begin_with_has_every_key_and_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert framebank.main(["retrain", "--init"]) == 0
    assert "retrain --config retrain.toml --dry-run" in capsys.readouterr().err
    text = (tmp_path / "retrain.toml").read_text()
    plain = read(tmp_path, WHOLE)
    begun = dataclasses.replace(
        read_config("retrain.toml"), registry=plain.registry, cache=plain.cache
    )
    assert dataclasses.replace(begun, questions=plain.questions) == plain
    # What the comments say is what holds without them, and no key is left out.
    whole = re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)
    given = tomllib.loads(whole)
    kinds = (config.HeldConfig, config.PromoteConfig, config.ModelConfig, config.TrainConfig)
    for table, kind in zip(("held", "promote", "model", "train"), kinds, strict=True):
        assert list(given[table]) == [field.name for field in dataclasses.fields(kind)]
    assert list(given) == [field.name for field in dataclasses.fields(config.RetrainConfig)]
    told = read(tmp_path, whole)
    named = dataclasses.replace(told.train, group_by=None)
    assert (told.held, told.promote, told.model, named) == (
        *(plain.held, plain.promote, plain.model, plain.train),
    )
    assert (told.start, told.baselines, told.work) == ("warm", False, f"{tmp_path}/work")
    assert max(map(len, text.splitlines())) <= 100
    assert framebank.main(["retrain", "--init", "retrain.toml"]) == 2  # another one is kept
    assert "there is such a file already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("registry = ", "is not valid TOML"),
        ('registry = "r"', "the key cache is missing"),
        (WHOLE + 'mapings = "m"', r"unknown key[\s\S]*mapings[\s\S]*did you mean mapping"),
        (WHOLE + "[train]\nepoch = 3", r"train\.epoch\b[\s\S]*did you mean train\.epochs"),
        (WHOLE + "[train]\nepochs = 1.5", r"train\.epochs[\s\S]*1\.5[\s\S]*a whole number"),
        (WHOLE + "[train]\nepochs = true", r"train\.epochs[\s\S]*True[\s\S]*a whole number"),
        (WHOLE + "[train]\nepochs = 0", r"train\.epochs must be above 0"),
        (WHOLE + "[train]\nlearning_rate = -1", r"train\.learning_rate must be above 0"),
        (WHOLE + 'format = "msvd"', r"format[\s\S]*'msvd'[\s\S]*msvd-qa"),
        (WHOLE + '[model]\nkind = "question_only"', r"model\.kind[\s\S]*lstm \| attention"),
        (WHOLE + 'work = ""', r"work[\s\S]*not empty"),
        (WHOLE.replace('"q.jsonl"', '"q\\u0000"'), r"questions[\s\S]*q\\x00[\s\S]*not empty"),
        (WHOLE + "train = 3", r"train[\s\S]*a table: \[train\]"),
        (WHOLE + 'start = "cold"', r"start[\s\S]*'cold'[\s\S]*warm \| fresh"),
        (WHOLE + "[held]\nshare = 2", r"held\.share[\s\S]*0\.01 to 0\.5"),
        (WHOLE + "[promote]\nmargin = nan", r"promote\.margin[\s\S]*nan"),
        (WHOLE.replace('["q.jsonl"]', '"q.jsonl"'), r"questions[\s\S]*a list of texts"),
        (WHOLE.replace('["q.jsonl"]', "[]"), r"questions[\s\S]*at least one"),
        (WHOLE + 'work = "gs://b/work"', r"work[\s\S]*a folder on this machine"),
        (WHOLE + "baselines = 1", r"baselines[\s\S]*true or false"),
        (WHOLE + "[train]\nseed = 4294967296", r"train\.seed must be[\s\S]*4294967296"),
        (WHOLE + "[train]\nweight_decay = nan", r"train\.weight_decay must be[\s\S]*nan"),
        (WHOLE + "[train]\nclip_norm = inf", r"train\.clip_norm must be[\s\S]*inf"),
        (WHOLE + "[train]\ncheckpoint_every_s = nan", r"train\.checkpoint_every_s must"),
        (WHOLE + "[train]\nval_share = 1", r"train\.val_share must be between 0 and 1, 1 itself"),
        (WHOLE + "[model]\ndropout = 1", r"model\.dropout must be between 0 and 1, 1 itself"),
        (WHOLE + "[model]\nframe_dropout = -0.1", r"model\.frame_dropout must be"),
        (WHOLE + "[model]\nclip_sigma = inf", r"model\.clip_sigma must be[\s\S]*inf"),
        (WHOLE + f"[promote]\nmargin = 1{'0' * 400}", r"margin[\s\S]*a number of 401 digits"),
        (WHOLE + "[held]\nshare = nan", r"held\.share[\s\S]*nan[\s\S]*0\.01 to 0\.5"),
        (WHOLE + '[train]\nmemory_bytes = "2 GB"', r"train\.memory_bytes[\s\S]*512 MiB"),
        (WHOLE + 'cache = "d"', r'gives a key[\s\S]*cache = "d" in line 4[\s\S]*keep one'),
        (WHOLE + "[train]\nseed = 1\n[train]\nseed = 1", r"twice[\s\S]*\[train\] in line 6"),
        (WHOLE + '[train]\nseed = 1\n"seed" = 2\n\n', r'twice[\s\S]*"seed" = 2 in line 6'),
    ],
)
def test_mistakes(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as told:
        read(tmp_path, text)
    assert re.search(said, str(told.value)) and "retrain.toml" in str(told.value)


def test_a_config_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such config"):
        read_config(str(tmp_path / "none.toml"))


def test_word_vectors_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file[\s\S]*none\.txt[\s\S]*embeddings"):
        read(tmp_path, WHOLE + 'embeddings = "none.txt"').digest()
