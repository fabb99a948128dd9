"""One worker of `framebank train --local-workers N`, started and looked after by its parent."""

from __future__ import annotations

import argparse
import sys
import threading

from framebank.features import terminal
from framebank.features.errors import FramebankError
from framebank.features.stores import json_text
from framebank.features.tensorflow_import import quiet_google
from framebank.train.fit import command
from framebank.train.workers.local_workers import end_with_input


def main() -> int:
    """Be one worker: the options are JSON in the first argument."""
    quiet_google()
    threading.Thread(target=end_with_input, daemon=True).start()
    args = argparse.Namespace(**json_text.parse(sys.argv[1]))
    with terminal.guarded():
        try:
            return command.run(args, [])
        except FramebankError as error:
            print(f"framebank: {error}", file=sys.stderr, flush=True)
            return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
