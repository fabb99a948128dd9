"""Writes the locks of the images: every package with its version and the SHA-256 of its wheel.

    .venv/bin/python infra/docker/lock.py            # on linux/amd64, with the images' Python
    .venv/bin/python infra/docker/lock.py server     # one of them

The Dockerfiles give a lock to `pip install --require-hashes`, so an image has these very bytes,
whatever an index serves on the day. The versions are those of the environment that runs this, which
the tests ran in; what only an image has (CUDA) is the newest. The wheels are those of linux/amd64,
as Dataflow's and GPU machines are: elsewhere build with `docker build --platform linux/amd64`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGES = ("worker-cpu", "worker-gpu", "trainer", "server")


def pip(*words: str) -> str:
    command = [sys.executable, "-m", "pip", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def lock(name: str, tested: str) -> str:
    """Return the lock of what `NAME.txt` asks for, as pip resolves it now under the constraints
    in the file `tested`."""
    words = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    files = ["--requirement", str(HERE / f"{name}.txt"), "--constraint", tested]
    report = json.loads(pip(*words, *files))
    found = {}
    for one in report["install"]:
        named, digest = one["metadata"], one["download_info"]["archive_info"]["hashes"]["sha256"]
        pin = f"{named['name']}=={named['version']}"
        found[pin.lower()] = f"{pin} \\\n    --hash=sha256:{digest}\n"
    head = f"# What {name}.txt comes to, with the hashes of the wheels: written by lock.py.\n"
    head += f"#   pip install --require-hashes --requirement infra/docker/{name}.lock\n"
    return head + "".join(text for _, text in sorted(found.items()))


if __name__ == "__main__":
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as tested:
        tested.write(pip("freeze", "--exclude-editable"))
        tested.flush()
        for image in sys.argv[1:] or IMAGES:
            (HERE / f"{image}.lock").write_text(lock(image, tested.name))
