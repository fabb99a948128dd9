"""The clips that infra/examples/questions.csv asks about: short films of things that move.

    python infra/examples/make_clips.py clips

Makes 80 films of two to four seconds in half a minute: things are loaded and unloaded, go left and
right, open and close. The same films every time, so that the answers in questions.csv hold.
"""

from __future__ import annotations

import sys
from pathlib import Path

from framebank.train.demo.clips import plan_clips, write_clip

CLIPS = 80


def main(folder: Path, count: int = CLIPS) -> None:
    """Write the first `count` clips into `folder`; what is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for plan in plan_clips(count):
        write_clip(plan, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "clips"))
