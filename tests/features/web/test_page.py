"""The page in headless Chromium, on a desk and on a phone: asking, filtering, neighbours, the map.

`framebank serve` serves it, a process of its own with a model and a cache of real clips. Each test
fails on any message of the console, any request to elsewhere, anything wider than the screen; axe
looks at each view.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.clips.plain_clips import write_clip
from tests.features.web.made_site import BROKEN, HOSTILE, PLAIN, make_site_cache
from tests.made.chromium import find_chromium
from tests.made.made_model import ANSWERS, make_model
from tests.made.served import WIDTH, served_spec, serving

playwright_api = pytest.importorskip("playwright.sync_api")
axe_api = pytest.importorskip("axe_playwright_python.sync_playwright")
pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium on PATH")

expect = playwright_api.expect
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
_WAIT_MS = 60_000
expect.set_options(timeout=_WAIT_MS)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, spec = tmp_path_factory.mktemp("site"), served_spec()
    cache = make_site_cache(folder, spec, width=WIDTH)
    model = make_model(folder / "model", spec, width=WIDTH)
    words = ["--model", model, "--cache", cache, "--decoders", "2", "--rate", "1000"]
    with serving(*words) as server:
        yield server.address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("upload") / "truck <i>.mp4", size=(96, 64))


@pytest.fixture
def expected() -> list[str]:
    """Ask for this to let the console say something: it notes each status that is an error."""
    return []


on_a_desk = pytest.mark.parametrize("page", [DESK], ids=["desk"], indirect=True)


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def page(
    request: pytest.FixtureRequest, browser: Any, address: str, expected: list[str]
) -> Iterator[Any]:
    """Yield a page that is open at no view yet; the phone's is dark."""
    context = browser.new_context(
        base_url=address, viewport=request.param, bypass_csp=True, reduced_motion="reduce",
        color_scheme="light" if request.param is DESK else "dark",
    )  # fmt: skip
    context.set_default_timeout(_WAIT_MS)
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(f"a dialog: {dialog.message}"))
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    yield page
    context.close()
    assert [fault for fault in faults if not any(one in fault for one in expected)] == []
    own = urlsplit(address).netloc
    other = [one for one in asked if urlsplit(one).netloc != own]
    assert [one for one in other if not one.startswith(("data:", "blob:"))] == []


def check(page: Any) -> None:
    """Fail on what axe finds, and where the page is wider than its screen."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    results = axe_api.Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def upload(page: Any, clip: Path, question: str) -> None:
    page.goto("/#/ask")
    page.locator("#clip-file").set_input_files(clip)
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")


def test_upload_and_ask(page: Any, clip: Path) -> None:
    upload(page, clip, "what is the <b>zebra</b> doing?")
    expect(page.locator(".headline")).to_contain_text(re.compile("|".join(ANSWERS)))
    bars = page.locator(".answers li")
    expect(bars).to_have_count(len(ANSWERS))
    expect(bars.first).to_contain_text(" %")
    expect(page.locator(".result .note").first).to_contain_text("does not know")
    page.locator(".weights").scroll_into_view_if_needed()
    frames = page.locator(".weighed .frame")
    expect(frames).to_have_count(4)
    expect(frames.last.locator("img")).to_have_js_property("complete", True)
    expect(frames.last.locator(".bar")).to_be_visible()
    times = page.get_by_role("button", name=re.compile("Show the clip at"))
    times.nth(1).click()
    assert page.evaluate("document.querySelector('video').currentTime") > 0
    check(page)

    page.reload()  # what was asked is still there, in this browser alone
    entry = page.locator(".entry")
    expect(entry).to_contain_text("truck <i>.mp4")
    page.get_by_role("button", name="Clear").click()
    expect(entry).to_have_count(0)
    assert page.evaluate("localStorage.length") == 0


@on_a_desk
def test_a_clip_that_cannot_be_used_is_said_in_words(
    page: Any, tmp_path: Path, expected: list[str]
) -> None:
    expected.append("status of 422")
    bad = tmp_path / "<i>bad.mp4"
    bad.write_bytes(b"\0" * 2000)
    upload(page, bad, "what?")
    expect(page.get_by_role("alert")).to_contain_text("cannot be used: not_a_video")
    check(page)


@on_a_desk
def test_answers_are_text_and_nothing_else(page: Any, clip: Path) -> None:
    rows = [("<b>loading</b>", 0.96), ("\u202ewalking", 0.0396), ("standing", 0.0004)]
    said = {
        "question": "what?",
        "answers": [{"answer": answer, "probability": share} for answer, share in rows],
        "unknown_words": ["<i>zebra</i>"],
        "warnings": ["WARNING: the model cannot give <u>this</u>"],
    }
    page.route("**/v1/ask", lambda route: route.fulfill(json={"answers": [said]}))
    weights = [
        {"index": row, "time_s": row / 2, "weight": one} for row, one in enumerate((0.31, -0.04))
    ]
    told = {"answer": rows[0][0], "frames": weights, "pictures": ["javascript:alert(1)", None]}
    page.route("**/v1/explain", lambda route: route.fulfill(json=told))
    upload(page, clip, "what?")
    expect(page.locator(".headline")).to_have_text("<b>loading</b>96 %")
    expect(page.locator(".answers")).to_have_text(
        "<b>loading</b>96 %\\u202ewalking4 %standing< 0.1 %"
    )
    expect(page.get_by_text("does not know this word: <i>zebra</i>")).to_be_visible()
    expect(page.get_by_text("The model cannot give <u>this</u>")).to_be_visible()
    frames = page.locator(".weighed .frame")
    expect(frames.nth(0)).to_have_class("frame best")
    expect(frames.nth(0)).to_contain_text("no picture0 s−31 %")
    expect(frames.nth(1)).to_contain_text("0.5 s+4 %")


@on_a_desk
def test_a_clip_of_the_cache_is_asked_about_by_keyboard_alone(page: Any) -> None:
    page.goto("/#/ask")
    page.get_by_role("link", name="Skip to the content").focus()
    page.keyboard.press("Enter")
    press(page, "Tab", until="Choose a file")
    press(page, "Tab", until="or pick one of the cache")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Search by name")).to_be_focused()  # a moment after it opens
    page.keyboard.type("street/a1")
    expect(page.locator(".offer")).to_have_count(1)
    press(page, "Tab", until=PLAIN[1])
    page.keyboard.press("Enter")
    expect(page.locator(".chosen-name")).to_contain_text(PLAIN[1])
    press(page, "Tab", until="Question")
    page.keyboard.type("what?")
    page.keyboard.press("Enter")
    expect(page.locator(".headline")).to_be_visible()
    expect(page.locator("#live")).not_to_be_empty()


@on_a_desk
def test_a_model_that_is_asked_nothing(page: Any, clip: Path) -> None:
    about = page.request.get("/api/about").json()
    about["model"] |= {"asks": False, "head": "segments"}
    page.route("**/api/about", lambda route: route.fulfill(json=about))
    said = {
        "answers": [{"answers": [{"answer": "run", "probability": 0.7}]}],
        "segments": [{"start_s": 1.5, "end_s": 62.25, "label": "<u>run</u>", "score": 0.7}],
    }
    page.route("**/v1/classify", lambda route: route.fulfill(json=said))
    page.goto("/#/ask")
    expect(page.get_by_label("Question")).to_have_count(0)
    page.locator("#clip-file").set_input_files(clip)
    page.get_by_role("button", name="Classify").click()
    expect(page.locator(".headline")).to_contain_text("run70 %")
    expect(page.get_by_role("row").nth(1)).to_have_text("1.5 s1:02.3<u>run</u>0.70")
    check(page)


@on_a_desk
def test_a_server_that_wants_its_token_is_told_it(page: Any, expected: list[str]) -> None:
    expected.append("status of 401")
    page.route("**/api/about", lambda route: route.fulfill(status=401, json={}))
    page.goto("/")
    page.get_by_label("The server's token").fill("secret")
    check(page)
    with page.expect_request("**/login?token=secret"):
        page.keyboard.press("Enter")


def press(page: Any, key: str, *, until: str) -> None:
    """Press a key until what has the focus is called `until`, and can be seen to have it."""
    name = (
        "(one => one.labels?.[0]?.textContent || one.ariaLabel || one.textContent)"
        "(document.activeElement)"
    )
    for _ in range(12):
        page.keyboard.press(key)
        if until in page.evaluate(name):
            style = "getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(style) != "none", f"nobody sees that {until} has the focus"
            return
    raise AssertionError(f"{until} is not reached")


def test_filters_are_in_the_address(page: Any) -> None:
    page.goto("/#/clips")
    total = page.locator(".total")
    expect(total).to_have_text("9 clips")
    expect(page.locator(".poster.loaded")).not_to_have_count(0)
    check(page)
    page.get_by_role("button", name="Add a filter").click()
    page.get_by_label("Column").select_option("frames")
    page.get_by_label("How").select_option(">")
    page.get_by_label("Value").fill("0")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(total).to_have_text("8 clips found")
    page.get_by_label("Search by name").fill("street/")
    expect(total).to_have_text("3 clips found")
    page.get_by_label("Sort by").select_option("video_id")
    page.get_by_role("button", name="smallest first").click()
    expect(page.locator(".clip-name").first).to_contain_text("a2.mp4")
    check(page)
    page.reload()  # a bookmark
    expect(page.locator(".clip-name").first).to_contain_text("a2.mp4")
    page.get_by_role("button", name="Remove the filter").click()
    page.get_by_label("Search by name").fill("")
    expect(total).to_have_text("9 clips")
    page.go_back()
    expect(total).to_have_text("3 clips found")


@on_a_desk
def test_a_filter_that_means_nothing_is_said_in_words(page: Any, expected: list[str]) -> None:
    expected.append("status of 422")
    page.goto("/#/clips?where=labl%3Dx")
    expect(page.get_by_role("alert")).to_contain_text("label")
    check(page)


def test_a_clip_and_its_neighbours(page: Any) -> None:
    page.goto("/#/clips")
    page.get_by_role("link", name=re.compile("a0.mp4")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(PLAIN[0])
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.locator(".frames img:not(.pending)")).to_have_count(4)
    page.locator(".neighbours").scroll_into_view_if_needed()
    near = page.locator(".neighbours .clip-card")
    expect(near).to_have_count(7)
    expect(near.first).to_contain_text("a1.mp4")
    # The poster shows one of the four frames of the sheet.
    sheet = near.first.locator(".poster-frame img")
    expect(sheet).to_have_attribute("style", re.compile("width: 400%"))
    check(page)
    near.first.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(PLAIN[1])
    page.get_by_role("link", name="Ask about this clip").click()
    expect(page.locator(".chosen-name")).to_contain_text(PLAIN[1])


@on_a_desk
def test_names_are_text_and_nothing_else(page: Any) -> None:
    for name in HOSTILE:
        page.goto("/#/clips")
        told = name.replace("\u202e", "\\u202e")
        page.get_by_role("link", name=told).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(told)
        assert page.locator("img[src=x], h1 b").count() == 0


def test_the_map_is_walked_by_keys_and_there_as_a_table(page: Any) -> None:
    page.goto("/#/map")
    canvas = page.locator("canvas")
    expect(page.get_by_text("8 clips · PCA")).to_be_visible()
    expect(page.get_by_role("button", name="unloading")).to_be_visible()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".map-card")).to_be_visible()
    seen = set()
    for key in ("ArrowLeft", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
        seen.add(page.locator(".map-card .clip-name").inner_text())
    assert len(seen) > 1
    page.get_by_text("The same as a table").click()
    expect(page.locator(".map-table tbody tr")).to_have_count(8)
    check(page)
    canvas.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(".mp4")


def test_the_quarantine(page: Any) -> None:
    page.goto("/#/quarantine")
    expect(page.locator(".total")).to_have_text("1 clip in quarantine")
    check(page)
    page.get_by_role("link", name=BROKEN).click()
    expect(page.get_by_role("heading", level=2).first).to_contain_text("In quarantine")
    check(page)


def test_duplicates_runs_and_spec(page: Any) -> None:
    page.goto("/#/duplicates")
    pair = page.locator(".pair").first
    expect(pair).to_contain_text("a0.mp4")
    expect(pair).to_contain_text("a1.mp4")
    check(page)
    page.get_by_role("navigation").get_by_role("link", name="Runs").click()
    expect(page.get_by_text("uniform=4")).to_be_visible()
    check(page)
