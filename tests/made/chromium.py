"""A headless Chromium by its DevTools protocol over a pipe, for tests that look at a page.

Nothing but the browser is needed: commands and events are JSON documents ended by a zero byte, on
the file descriptors 3 and 4 of the browser (`--remote-debugging-pipe`).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
_ANSWER_S = 60.0
# Puts the pipes where Chromium looks for them, and becomes it.
_EXEC = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)

# What is wrong with the page as it is shown; an empty list where nothing is.
FAULTS = """(async () => {
  await Promise.all([...document.images].map(image => image.decode().catch(() => 0)));
  const wide = document.documentElement.scrollWidth > innerWidth ? ['the page scrolls'] : [];
  const out = [...document.querySelectorAll('main *')].filter(one => !one.closest('.scroll')
    && one.getBoundingClientRect().right > innerWidth + 1).map(one => 'out: ' + one.outerHTML);
  const blank = [...document.images].filter(one => !one.naturalWidth)
    .map(one => 'blank: ' + one.alt);
  const flat = [...document.querySelectorAll('svg')].filter(one => {
    const box = one.getBBox(); return !box.width; }).map(() => 'an empty plot');
  const small = [...document.querySelectorAll('main *')].filter(one => {
    if (![...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())) return 0;
    const plot = one.closest('svg');
    const scale = plot ? plot.getBoundingClientRect().width / plot.viewBox.baseVal.width : 1;
    return parseFloat(getComputedStyle(one).fontSize) * scale < 13.99;
  }).map(one => 'small: ' + one.outerHTML);
  return [...wide, ...out, ...blank, ...flat, ...small].map(text => text.slice(0, 120));
})()"""


def find_chromium() -> str | None:
    """Return the browser on PATH, None where there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab: `requests` are the addresses that it asked for, `problems` what its console says."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._read, self._number, self._session = b"", 0, ""
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._events: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def show(self, address: str, *, width: int, height: int = 844, dark: bool = False) -> None:
        """Open `address` on a screen of `width` x `height` (a phone's, where it is narrow)."""
        phone = width < 600
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self._call("Page.navigate", url=address)
        limit_s = time.monotonic() + _ANSWER_S
        while "Page.loadEventFired" not in self._events:
            self._next(limit_s)

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression in the page, promises awaited."""
        found = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def violations(self) -> list[str]:
        """Return what axe finds wrong with the page for who cannot see it, or see it well."""
        axe = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
        told = "its.map(one => one.id + ': ' + one.nodes[0].html.slice(0, 120))"
        script = f"{axe}; axe.run().then(({{violations: its}}) => {told})"
        return list(self.evaluate(script))

    def picture(self, path: Path) -> None:
        """Write a PNG of the whole page."""
        found = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        limit_s = time.monotonic() + _ANSWER_S
        while True:
            answer = self._next(limit_s)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _next(self, limit_s: float) -> dict[str, Any]:
        """Return the next message; what it says of requests and problems is noted."""
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], max(0.0, limit_s - time.monotonic()))
            data = os.read(self._from, 1 << 20) if ready else b""
            if not data:
                raise AssertionError("Chromium ended or does not answer")
            self._read += data
        line, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        method, params = message.get("method", ""), message.get("params", {})
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded":
            self.problems.append(params["entry"]["text"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.problems.append(json.dumps(params)[:500])
        return message


def _pipe() -> tuple[int, int]:
    """Return a pipe's ends with numbers that are not in the way of 3 and 4."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


@contextlib.contextmanager
def open_page(browser: str) -> Iterator[Page]:
    """Start the browser with a profile of its own, and end it."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        their_in, to_browser = _pipe()
        from_browser, their_out = _pipe()
        words = [
            sys.executable, "-c", _EXEC, str(their_in), str(their_out), browser,
            "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
            "--disable-component-update", "--disable-background-networking",
            f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        child = subprocess.Popen(
            words,
            pass_fds=(their_in, their_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(their_in)
        os.close(their_out)
        try:
            yield Page(to_browser, from_browser)
        finally:
            os.close(to_browser)  # Chromium ends with its pipe
            os.close(from_browser)
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
