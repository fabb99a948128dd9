"""No clip gets the class `internal`: a fault of our own code is ours to mend.

`conftest.py` fails every test of this project in which a clip gets it; here are the real ones.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from framebank.features.decoders.child import rejection_of
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.errors import ERROR_CLASSES, REMEDIES, internal_rejection
from framebank.features.extraction.engine import Engine
from framebank.features.video import VideoRef
from tests import ROOT
from tests.clips.plain_clips import FakeNetwork
from tests.features.extraction.test_engine import SPEC, ref_of

SHARED = ROOT.parent / "shared" / "data" / "clips"
ERRORS_PAGE = ROOT / "infra" / "docs" / "reference" / "errors.md"


def refs_of(folder: Path, *, of_each: int) -> list[VideoRef]:
    """Return the files of a folder and those below it, some of each."""
    found = []
    for one in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        files = sorted(path for path in one.iterdir() if path.is_file())[:of_each]
        found += [dataclasses.replace(ref_of(path), video_id=str(path)) for path in files]
    return found


@pytest.mark.skipif(not SHARED.exists(), reason="no real clips beside this checkout")
def test_no_real_clip_meets_a_fault_of_ours(no_clip_is_internal: None) -> None:
    spec = dataclasses.replace(SPEC, sample="uniform=4")
    engine = Engine(FakeNetwork(batch_size=32), spec, DecoderPolicy(timeout_s=60))
    refs = refs_of(SHARED, of_each=15)
    try:
        found = {r.ref.video_id: getattr(r, "error_class", "done") for r in engine.run(refs)}
    finally:
        engine.close()
    assert len(found) == len(refs) > 40
    assert not {"internal", "crash", "hang"} & set(found.values()), found
    assert list(found.values()).count("done") > len(refs) / 2


def test_the_place_of_a_fault_is_ours_and_the_last() -> None:
    try:
        dataclasses.replace("no dataclass")  # type: ignore[type-var]
    except TypeError as error:
        verdict = internal_rejection("decode", error)
    assert "at tests/features/decoding/test_own_faults.py:" in verdict.message
    try:
        ref_of(None)  # type: ignore[arg-type]
    except AttributeError as error:
        verdict = internal_rejection("decode", error)
    assert "at tests/features/extraction/test_engine.py:" in verdict.message
    assert verdict.error_class == "internal" and "please report this" in verdict.message


@pytest.fixture(autouse=True)
def _made_here(expects_internal: list[str]) -> None:
    """Verdicts are made by hand in this module; those of clips are asserted on."""


def test_what_is_no_fault_of_ours_has_a_class_of_its_own() -> None:
    assert rejection_of(MemoryError()).error_class == "too_large"
    assert rejection_of(OSError(5, "Input/output error")).error_class == "unreadable"
    assert rejection_of(IndexError("x")).error_class == "internal"


def test_what_can_be_done_is_said_of_classes_that_there_are() -> None:
    assert REMEDIES.keys() < ERROR_CLASSES.keys()
    named = set(re.findall(r"\*\*`(\w+)`\*\*", ERRORS_PAGE.read_text()))
    assert named and named < ERROR_CLASSES.keys()
