"""framebank/api.py: its functions take the words of the commands, and fail as they do."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import framebank as fb
from framebank import api, cli
from tests import ROOT
from tests.made import forked
from tests.made.made_cache import make_cache

COMMANDS = [name for name in cli.COMMANDS if name in fb.__all__]
# What a command prints is returned; how much it says is for who reads it.
_NOT_TAKEN = {"help", "json", "all", "quiet", "verbose", "config", "init"}


@pytest.fixture
def cache(tmp_path: Path) -> str:
    make_cache(str(tmp_path / "cache"))
    return str(tmp_path / "cache")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_function_takes_the_words_and_defaults_of_its_command(name: str) -> None:
    words = {api.word_of(action): action for action in cli.command_parser(name)._actions}
    taken = dict(inspect.signature(getattr(fb, name)).parameters)
    assert (taken.pop("beam_options", None) is not None) == cli.COMMANDS[name].takes_beam_options
    assert set(taken) == set(words) - (_NOT_TAKEN - set(taken))  # retrain takes a config
    for word, parameter in taken.items():
        action = words[word]
        assert action.required == (parameter.default is parameter.empty), word
        if not action.required:
            empty = not action.default and not parameter.default
            assert parameter.default == action.default or empty, word


def test_everything_public_is_there_and_told_of() -> None:
    assert {"extract", "plan", "train", "evaluate", "score", "ask", "retrain"} <= set(COMMANDS)
    assert sorted(fb.__all__) == fb.__all__ and set(fb.__all__) <= set(dir(fb))
    for name in fb.__all__:
        assert inspect.getdoc(getattr(fb, name)), name
        assert f"fb.{name}" in (fb.__doc__ or "") or name not in COMMANDS
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = fb.nothing_of_ours  # type: ignore[attr-defined]


def test_importing_it_is_light() -> None:
    heavy = "{'tensorflow', 'keras', 'apache_beam', 'pyarrow', 'numpy', 'av'}"
    code = f"import sys, framebank; dir(framebank); print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("first", ["", "import framebank.train.model.config"])
def test_train_is_a_function_and_a_package(first: str) -> None:
    code = (
        f"import framebank as fb\n{first}\n"
        "try: fb.train(cache='/nowhere', questions='q.csv', model='/tmp/never')\n"
        "except fb.UsageError as err: print(err.what)\n"
        "import framebank.train.judging\n"
        "assert callable(fb.train) and fb.train.judging.__doc__"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "there is no cache at /nowhere\n"


def test_a_mistake_is_an_error_of_ours_that_names_the_near_word(tmp_path: Path) -> None:
    given = {"cache": str(tmp_path), "questions": "q.csv", "model": str(tmp_path / "m")}
    for words, told in (
        ({**given, "epoch": 3}, r"train: .*'epoch' \(did you mean epochs\?\)"),
        ({"cache": "c"}, "train: missing a required argument: 'questions'"),
        ({**given, "labels": "q.csv"}, "train: labels and questions are one: give either"),
        ({"cache": "/nowhere", "labels": "q.csv", "model": "m"}, "no cache at /nowhere"),
        ({**given, "epochs": "many"}, "train: argument --epochs: invalid int value: 'many'"),
        ({**given, "model_kind": "gru"}, "train: argument --model-kind: invalid choice"),
        ({**given, "no_baselines": "yes"}, "no_baselines is True or False, not 'yes'"),
        ({**given, "learning_rate": float("nan")}, "is no number that can be used"),
    ):
        with pytest.raises(fb.UsageError, match=told):
            fb.train(**words)
    with pytest.raises(fb.UsageError, match="the following arguments are required: INPUT"):
        fb.extract([], cache=tmp_path / "cache")
    pytest.importorskip("apache_beam")
    with pytest.raises(fb.UsageError, match=r"did you mean --runner\?"):
        fb.extract("clips", cache=tmp_path / "cache", runer="PrismRunner")


def test_a_path_that_lost_a_slash_of_a_bucket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fb.UsageError, match="text, such as 's3://BUCKET/NAME'"):
        fb.export(Path("s3://bucket/cache"), tmp_path / "out", to="npz")


def test_what_is_returned_is_not_printed(cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = fb.verify(Path(cache))
    assert report.faults == [] and report.records == 5
    assert capsys.readouterr().out == ""


_INTERRUPTED = """
import os, pathlib, signal, sys, threading, time
import apache_beam, keras, tensorflow  # an import that is cut off is broken for good
import framebank as fb
from framebank.train.demo.clips import plan_clips, write_clip
folder = pathlib.Path(sys.argv[1])
for plan in plan_clips(40)[:12]:
    write_clip(plan, folder)
def decoders():
    return any(path.read_text() for path in pathlib.Path("/proc/self/task").glob("*/children"))
def stop():  # while clips are decoded
    while not (folder / "cache" / "spec.json").exists() or not decoders():
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=stop, daemon=True).start()
words = {"cache": folder / "cache", "backbone": "mobilenet_v2", "weights": "random:0"}
try:
    fb.extract([str(path) for path in folder.glob("*.mp4")], **words)
except KeyboardInterrupt:
    print("interrupted")
print(fb.extract([str(path) for path in folder.glob("*.mp4")], **words)["quarantined"])
"""


def test_ctrl_c_ends_what_is_done_and_not_the_process(tmp_path: Path) -> None:
    pytest.importorskip("apache_beam")
    done = forked.run("-c", _INTERRUPTED, tmp_path)
    assert (done.returncode, done.stdout) == (0, "interrupted\n0\n"), done.stderr
    assert len(fb.open_cache(str(tmp_path / "cache"))) == 12


_IN_THREADS = """
import pathlib, sys, tempfile, threading
import framebank as fb
from framebank.train.demo.clips import plan_clips, write_clip
folder, before = pathlib.Path(sys.argv[1]), tempfile.gettempdir()
write_clip(plan_clips(40)[0], folder)
words = {"backbone": "mobilenet_v2", "weights": "random:0", "sample": "uniform=1"}
def extract(cache):
    fb.extract(folder.glob("*.mp4"), cache=folder / cache, **words)
threads = [threading.Thread(target=extract, args=(cache,)) for cache in "ab"]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print([len(fb.open_cache(folder / cache)) for cache in "ab"], tempfile.gettempdir() == before)
"""


def test_two_threads_extract_one_after_the_other(tmp_path: Path) -> None:
    pytest.importorskip("apache_beam")
    done = forked.run("-c", _IN_THREADS, tmp_path)
    assert (done.returncode, done.stdout) == (0, "[1, 1] True\n"), done.stderr


def test_a_clip_that_cannot_be_used_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(fb.FramebankError, match="missing at open") as caught:
        fb.extract_features(tmp_path / "none.mp4", backbone="mobilenet_v2", weights="random:0")
    assert (caught.value.stage, caught.value.error_class) == ("open", "missing")  # type: ignore[attr-defined]


def test_a_word_that_looks_like_an_option_is_none(tmp_path: Path) -> None:
    (tmp_path / "-x.csv").write_text("video_id,question,answer\na,what?,b\n")
    found = fb.questions([str(tmp_path / "-x.csv")], seed=3)
    assert found["refused"] == 0 and found["files"][0]["path"].endswith("-x.csv")
    assert fb.questions(tmp_path.glob("*.csv"))["refused"] == 0
    with pytest.raises(fb.UsageError, match="-nothing"):
        fb.questions("-nothing.csv")
