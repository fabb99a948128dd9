"""The first step of a job: have the workers Framebank, of the version that submits?

The function of this step needs none of our code to be unpickled, and fails while it has an element:
of a worker that fails before its first one Flink learns nothing, waits three minutes for it
(Beam's GrpcDataService), and tries again. So a shuffle must follow, which keeps the steps that
need our code out of the same bundle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from framebank import __version__


def worker_check() -> Callable[[Any], Any]:
    """Return a function that hands its argument on, and fails on a worker that cannot do the job.

    It raises RuntimeError with a text that `beam_options.find_marked` understands.
    """
    submitted = __version__

    def check(element: Any) -> Any:  # nested: it is pickled by value, with no module of ours
        import base64
        import importlib
        import json
        import socket

        fields = {
            "kind": "UsageError",
            "what": f"the worker {socket.gethostname()} has not the Framebank that this job needs",
            "expected": f"framebank {submitted}",
            "todo": "install that where the workers run (infra/docker has images), and start "
            "worker pools anew",
        }
        try:
            framebank = importlib.import_module("framebank")
            importlib.import_module("framebank.pipelines")
            found = framebank.__version__
            fields["got"] = f"framebank {found}"
        except ImportError as error:
            found, fields["got"] = None, f"{type(error).__name__}: {error}"
        if found == submitted:
            return element
        packed = base64.b64encode(json.dumps(fields).encode()).decode()
        raise RuntimeError(f"<framebank-error>{packed}</framebank-error>")

    return check
