"""The site of the documentation builds without a warning, holds what it should and asks nobody."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from framebank import cli
from framebank.features.errors import ERROR_CLASSES
from tests import ROOT

DOCS = ROOT / "infra" / "docs"
# What a page asks for by itself; links that people follow are `a`.
ASKED = re.compile(
    r'<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)="((?:https?:)?//[^"]+)'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocstrings")
    out = tmp_path_factory.mktemp("site") / "site"
    words = ["build", "--strict", "--config-file", "infra/mkdocs.yml", "--site-dir", str(out)]
    # Addresses that nobody listens on: whoever fetches something while it builds fails.
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "HTTP_PROXY": "http://127.0.0.1:9"}
    env |= {"HTTPS_PROXY": env["HTTP_PROXY"]}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", *words],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def test_every_command_class_and_function_is_in_the_reference(site: Path) -> None:
    for name in cli.COMMANDS:
        page = (site / "reference" / "commands" / f"{name}.html").read_text()
        options = [
            text
            for action in cli.command_parser(name)._actions
            for text in action.option_strings
            if text not in ("-h", "--help")
        ]
        assert [option for option in options if option not in page] == []
    errors = (site / "reference" / "errors.html").read_text()
    assert [name for name in ERROR_CLASSES if f"<code>{name}</code>" not in errors] == []
    python = (site / "reference" / "python.html").read_text()
    assert 'id="framebank.api.extract"' in python and "<!-- from" not in errors


def test_no_page_asks_for_anything_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 60
    assert {str(page): found for page in pages if (found := ASKED.findall(page.read_text()))} == {}
    styles = [path.read_text() for path in site.rglob("*.css")]
    assert styles and not any(re.search(r"url\(['\"]?(?:https?:)?//", text) for text in styles)


def test_every_page_of_the_docs_is_in_the_navigation(site: Path) -> None:
    text = (ROOT / "infra" / "mkdocs.yml").read_text()
    pages = [str(path.relative_to(DOCS)) for path in sorted(DOCS.rglob("*.md"))]
    assert [page for page in pages if page not in text] == []
    assert not (site / "generated.py").exists()


def test_places_in_the_repository_that_the_docs_name_are_there() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))):
        named = re.findall(
            r"`((?:infra|tests|features|pipelines|train)/[\w./-]+)`", page.read_text()
        )
        lost = [name for name in named if not list(ROOT.glob(f"{name}*"))]  # decisions: by number
        assert not lost, f"{page}: {lost}"
