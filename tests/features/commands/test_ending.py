"""What commands say beside their result: how much of it, how long it took, what comes next."""

from __future__ import annotations

import argparse
import logging
import types

import pytest

import framebank
from framebank.features import terminal
from framebank.features.commands import ending
from framebank.features.errors import FramebankError, UsageError
from framebank.features.progress import Bar
from framebank.features.terminal import say, size_text, time_text


def test_versions_are_told_with_what_framebank_works_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (["--version"], ["-V"]):
        assert framebank.main(words) == 0
        assert capsys.readouterr().out == f"framebank {framebank.__version__}\n"
    for words in (["-V", "--verbose"], ["--verbose", "--version"]):
        assert framebank.main(words) == 0
        said = capsys.readouterr().out.splitlines()
        assert len(said) == 2 and "TensorFlow 2." in said[1] and "Apache Beam 2." in said[1]
        assert "libavcodec" in said[1]


def test_the_end_names_the_time_and_the_next_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args, plain = argparse.Namespace(cache="c d"), types.SimpleNamespace()
    leads = types.SimpleNamespace(next_command=lambda args: f"framebank train --cache {args.cache}")
    ending.say_end(leads, args, 192.4)
    ending.say_end(plain, args, 3700.0)
    ending.say_end(plain, args, 0.2)  # a look at something
    with terminal.telling("quiet"):
        ending.say_end(leads, args, 192.4)
    monkeypatch.setenv(ending.STEP, "1")
    ending.say_end(leads, args, 192.4)
    assert capsys.readouterr().err.splitlines() == [
        "framebank: 3 min 12 s. Next: framebank train --cache c d",
        "framebank: 1 h 2 min.",
    ]


def test_quiet_leaves_warnings_and_verbose_tells_more(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("framebank.pipelines.anything")

    def tell(how: str | None) -> list[str]:
        args = argparse.Namespace() if how is None else argparse.Namespace(verbosity=how)
        with ending.telling(args), Bar("x", total=1) as bar:
            say("a remark")
            say("WARNING: look at it")
            bar.update(1, "all", now=True)
            log.info("a shard")
        return capsys.readouterr().err.splitlines()

    assert tell("quiet") == ["framebank: WARNING: look at it"]
    assert tell(None) == ["framebank: a remark", "framebank: WARNING: look at it", "x: all"]
    assert tell("verbose")[2:] == [*tell(None), "framebank: a shard"]
    assert not (terminal.is_quiet() or terminal.is_verbose())


def test_verbose_shows_what_an_error_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FramebankError), ending.telling(argparse.Namespace(verbosity="verbose")):
        try:
            raise ValueError("deep down")
        except ValueError as err:
            raise UsageError("not so") from err
    assert "ValueError: deep down" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (5.0, "5 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (7199, "2 h 0 min"),
    ],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_sizes_for_people_are_in_one_unit() -> None:
    sizes = (0, 1023, 1024, 3.5 * 2**20, 2**30, 2**42)
    told = ["0 bytes", "1023 bytes", "1.0 KiB", "3.5 MiB", "1.0 GiB", "4.0 TiB"]
    assert [size_text(size) for size in sizes] == told
