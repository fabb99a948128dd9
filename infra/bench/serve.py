"""How long does `framebank serve` take for many requests at once, and how much memory?

    python infra/bench/serve.py [--requests 200] [--clients 16]
    python infra/bench/serve.py --model DIR --cache CACHE --clips DIR

Without --model it makes one that learnt nothing, of MobileNetV2 with random weights at `uniform=8`,
and a clip of 2 s in 640x360 for each request: what was seen before is not computed again. Then it
starts the server and sends mixed requests from as many threads: two thirds are clips that are sent,
a sixth videos of the cache (where there is one) or uris, the rest bad ones: no video at all, or too
large. Every answer is counted by status.

The last line is JSON: milliseconds of the answered clips (p50, p95, most), what the network itself
took for the frames of one clip (from /metrics), requests a second, and the most memory that the
server held in MiB (VmHWM; decoders are processes of their own). Two minutes on two cores.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import http.client
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common import ROOT, make_apart, say, spread
from score_rate import make_model as make_untrained

FRAMES, WIDTH = 8, 1280
QUESTION = "what does the man do with the ball?"
_BOUNDARY = "framebank-bench"


def make_all(made: Path, count: int) -> None:
    """Write a model, and so many clips."""
    import score_rate
    from clips import NATURAL, RATE_FPS, encode, scene

    from framebank.features.extraction.one_clip import make_spec
    from framebank.features.spec import SpecChoice

    spec, _ = make_spec(SpecChoice(f"uniform={FRAMES}", "mobilenet_v2", weights="random:0"))
    score_rate.WIDTH, score_rate.made_spec = WIDTH, lambda **_: spec  # type: ignore[assignment]
    make_untrained(made / "model")
    (made / "clips").mkdir()
    for seed in range(count):
        frames = scene(2 * RATE_FPS, (640, 360), seed=seed)
        encode(made / "clips" / f"{seed:04d}.mp4", frames, options=NATURAL)


@contextlib.contextmanager
def server(words: list[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start `framebank serve`; yield the process and its port."""
    command = [sys.executable, "-m", "framebank", "serve", "--port", "0", "--rate", "10000", *words]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"at http://[^:]+:(\d+)", line):
                yield process, int(found[1])
                break
        else:
            raise SystemExit(f"the server did not start: {said}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


class Client:
    """Sends requests to the server on a port, and keeps what came of them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.statuses: collections.Counter[str] = collections.Counter()
        self.clips_ms: list[float] = []

    def send(self, kind: str, path: str, body: bytes, content_type: str) -> None:
        start = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("POST", path, body, {"Content-Type": content_type})
            status = connection.getresponse().status
        except OSError as error:
            status = type(error).__name__  # type: ignore[assignment]
        finally:
            connection.close()
        if kind == "clip" and status == 200:
            self.clips_ms.append(1000 * (time.monotonic() - start))
        self.statuses[f"{kind} {status}"] += 1

    def form(self, kind: str, data: bytes) -> None:
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
        body = (head % ("question", "")).encode() + QUESTION.encode() + b"\r\n"
        body += (head % ("clip", '; filename="x.mp4"')).encode() + data
        body += f"\r\n--{_BOUNDARY}--\r\n".encode()
        self.send(kind, "/v1/ask", body, f"multipart/form-data; boundary={_BOUNDARY}")

    def named(self, kind: str, name: str, value: str) -> None:
        body = json.dumps({name: value, "question": QUESTION}).encode()
        self.send(kind, "/v1/ask", body, "application/json")


def jobs(
    client: Client, clips: list[Path], video_ids: list[str], count: int
) -> list[Callable[[], None]]:
    """Return that many requests, mixed by a seed."""
    dice, found = random.Random(0), []
    for number in range(count):
        path, turn = clips[number % len(clips)], number % 6
        if turn < 4:
            found.append(lambda path=path: client.form("clip", path.read_bytes()))  # type: ignore[misc]
        elif turn == 4 and video_ids:
            name = video_ids[number % len(video_ids)]
            found.append(lambda name=name: client.named("cached", "video_id", name))  # type: ignore[misc]
        elif turn == 4:
            found.append(lambda path=path: client.named("uri", "uri", str(path)))  # type: ignore[misc]
        elif number % 4 == 1:
            found.append(lambda: client.form("bad", b"no video at all" * 100))
        else:
            found.append(lambda: client.form("large", bytes(40 << 20)))
    dice.shuffle(found)
    return found


def network_figures(port: int) -> tuple[float, float]:
    """Return frames and seconds of the network so far."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    values = dict(re.findall(r"^(framebank_network_\w+_total) (\S+)", text, flags=re.M))
    return (
        float(values["framebank_network_frames_total"]),
        float(values["framebank_network_seconds_total"]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=200, metavar="N")
    parser.add_argument("--clients", type=int, default=16, metavar="N")
    parser.add_argument("--model", metavar="DIR", help="serve this one (with --clips)")
    parser.add_argument("--cache", metavar="CACHE")
    parser.add_argument("--clips", metavar="DIR", help="send these")
    args = parser.parse_args()
    made = Path(tempfile.mkdtemp(prefix="framebank-bench-"))
    try:
        if args.model is None or args.clips is None:
            make_apart(make_all, made, args.requests)
        folder = Path(args.clips or made / "clips").resolve()
        clips = sorted(path for path in folder.rglob("*") if path.is_file())
        words = ["--model", args.model or str(made / "model"), "--allow", str(folder)]
        words += ["--max-upload", "32", *(["--cache", args.cache] if args.cache else [])]
        video_ids = []
        if args.cache:
            from framebank.features.cache.reader import open_cache

            video_ids = open_cache(args.cache).video_ids
        with server(words) as (process, port):
            client = Client(port)
            client.form("first", clips[0].read_bytes())
            frames, seconds = network_figures(port)
            say(f"{args.requests} requests from {args.clients}")
            start = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(args.clients) as pool:
                todo = jobs(client, clips, video_ids, args.requests)
                for outcome in [pool.submit(one) for one in todo]:
                    outcome.result()
            took_s = time.monotonic() - start
            more_frames, more_seconds = network_figures(port)
            status = Path(f"/proc/{process.pid}/status").read_text()
    finally:
        shutil.rmtree(made, ignore_errors=True)
    (peak_kib,) = re.findall(r"^VmHWM:\s+(\d+)", status, flags=re.M)
    times = sorted(client.clips_ms)
    computed, network_s = more_frames - frames, more_seconds - seconds
    figures = {
        "requests": args.requests,
        "clients": args.clients,
        "seconds": round(took_s, 1),
        "requests_per_s": round(args.requests / took_s, 1),
        "statuses": dict(sorted(client.statuses.items())),
        "clip_ms": spread(times, digits=0) if times else {},
        "clip_ms_p95": round(times[int(0.95 * (len(times) - 1))]) if times else None,
        "network_frames": round(computed),
        "network_busy": round(network_s / took_s, 2),
        "network_ms_of_a_clip": round(1000 * network_s / max(computed, 1) * FRAMES),
        "peak_mib": int(peak_kib) // 1024,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
