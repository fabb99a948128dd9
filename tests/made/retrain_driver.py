"""`framebank retrain` whose training and judging take no time: for tests of all the rest of it.

    python -m tests.made.retrain_driver CONFIG MODEL WAIT_S [worse]

MODEL is copied where a trained model would lie; it counts as better than the one in use unless
`worse` is said. Registry, news, work folder, verdict and promotion are the real ones.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from framebank import cli
from framebank.features.questions.seen_videos import SEEN
from framebank.train.data.splits import seen_by
from framebank.train.retrain import retraining
from framebank.train.retrain.promotion import Decision


def main(words: list[str]) -> int:
    """Retrain as the words say; return the exit status."""
    config, model, wait_s, *worse = words

    def train(*given: Any, **options: Any) -> Path:
        folder = Path(given[3], "candidate")
        shutil.copytree(model, folder, dirs_exist_ok=True)
        (folder / SEEN).write_bytes(seen_by(given[2].questions, {}).to_bytes())
        time.sleep(float(wait_s))
        return folder

    def judge(*given: Any, **options: Any) -> Decision:
        return Decision(not worse, "worse" if worse else "better", {"accuracy": 0.5})

    retraining.train_candidate = train
    retraining.judge = judge
    return cli.main(["retrain", "--config", config])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
