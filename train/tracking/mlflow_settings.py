"""What of MLflow both runs and models need: how quiet it is, and where what is ours lies there."""

from __future__ import annotations

import os
from typing import Any

# A server that is gone is tried again by us; by MLflow's own rule it would be seven times, two
# minutes each.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
MODEL = "model"  # the artifact that holds it
PREFIX = "framebank."  # of our tags


def quiet_mlflow() -> None:
    """Set what MLflow reads when it is imported; what the user has set stays."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def experiment(client: Any) -> str:
    """Return the id of the experiment that runs belong to; makes it where there is none."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "framebank"
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))
