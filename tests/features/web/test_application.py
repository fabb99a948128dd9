"""What the server sends with the page: files, what it has, and the headers that keep others out."""

from __future__ import annotations

import re
from pathlib import Path

import fastapi
import pytest
from fastapi.testclient import TestClient

from framebank.features.web import application
from framebank.features.web.application import mount_pages

STATIC = Path(application.__file__).with_name("static")
ABOUT = {"title": "Clips", "version": "1", "model": None, "cache": {"address": "/c"}}


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = fastapi.FastAPI(docs_url=None, redoc_url=None)

    @app.get("/other")
    def other() -> fastapi.Response:
        return fastapi.Response(headers={"Content-Security-Policy": "sandbox"})

    mount_pages(app, lambda: ABOUT)
    return TestClient(app)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/static/main.js", "javascript"),
        ("/static/web.css", "text/css"),
        ("/static/pages.css", "text/css"),
        ("/favicon.ico", "image/svg+xml"),
        ("/api/about", "application/json"),
    ],
)
def test_parts_of_the_page_are_served_by_their_kind_and_under_the_policy(
    client: TestClient, path: str, kind: str
) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert kind in answer.headers["content-type"]
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_is_asked_for_again_and_its_look_is_that_of_the_reports(
    client: TestClient,
) -> None:
    assert client.head("/").headers["cache-control"] == "no-cache"
    assert client.get("/static/main.js").headers["cache-control"] == "no-cache"
    assert "--paper" in client.get("/static/pages.css").text


def test_about_is_what_the_command_says(client: TestClient) -> None:
    assert client.get("/api/about").json() == ABOUT


@pytest.mark.parametrize(
    "path", ["/static/application.py", "/static/../application.py", "/static/"]
)
def test_nothing_but_the_page_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "content-security-policy" in answer.headers


def test_a_policy_that_an_answer_brings_stays(client: TestClient) -> None:
    assert client.get("/other").headers.get_list("content-security-policy") == ["sandbox"]


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|style=|\son\w+=|<script>", page)
    for path in STATIC.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(
            r"https?://|innerHTML|insertAdjacentHTML|\beval\(|document\.write", text
        )


def test_modules_import_only_what_is_there() -> None:
    for path in STATIC.glob("*.js"):
        for name in re.findall(r'from "\./([\w.]+)"', path.read_text()):
            assert (STATIC / name).is_file(), f"{path.name} imports {name}"


def test_modules_import_names_that_are_there_and_use_them() -> None:
    for path in STATIC.glob("*.js"):
        code = path.read_text()
        for names, other in re.findall(r'import \{([^}]*)\} from "\./([\w.]+)"', code):
            theirs = (STATIC / other).read_text()
            for name in (one.strip() for one in names.split(",") if one.strip()):
                assert len(re.findall(rf"\b{name}\b", code)) > 1, f"{path.name}: {name} is not used"
                made = rf"export (async )?(function|class|const) {name}\b"
                assert re.search(made, theirs), f"{other} has no {name}"
