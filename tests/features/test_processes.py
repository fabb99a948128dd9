"""Processes of ours: their commands, and one that ends with its parent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from framebank.features import processes


def test_as_a_program_it_needs_nothing_but_python(tmp_path: Path) -> None:
    command = [sys.executable, "-SEP", processes.__file__, str(os.getpid()), "echo", "started"]
    assert subprocess.check_output(command, cwd=tmp_path, env={}).strip() == b"started"


def test_a_program_of_ours_takes_no_module_of_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "framebank.py").write_text("raise SystemExit('not this one')")
    command = processes.program("framebank.features.decoders.sandbox", "print(main.__module__)")
    said = subprocess.check_output(command, cwd=tmp_path)
    assert said.strip() == b"framebank.features.decoders.sandbox"
