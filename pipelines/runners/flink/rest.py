"""What Framebank asks of a Flink cluster over its REST API: what it is, and to end a job.

https://nightlies.apache.org/flink/flink-docs-release-1.20/docs/ops/rest_api/
"""

from __future__ import annotations

import dataclasses
import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from framebank.features.errors import UsageError
from framebank.features.stores import json_text
from framebank.pipelines.jobs.environments import is_here

_ASK_S = 4.0
_POLL_S = 0.5
_EXPECTED = "the address of the job manager's REST port, such as http://HOST:8081"
_NO_ANSWER = (OSError, http.client.HTTPException, ValueError, KeyError, TypeError)
ENDED = ("CANCELED", "FINISHED", "FAILED")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A session cluster; `url` has no slash at its end, `version` is such as "1.20.5"."""

    url: str
    version: str
    hosts: tuple[str, ...]  # of each task manager
    slots: int
    free_slots: int

    @property
    def here(self) -> bool:
        """Whether all its task managers are on this machine."""
        return all(map(is_here, set(self.hosts)))

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])


def ask_cluster(master: str) -> Cluster:
    """Return what a cluster says of itself; raises UsageError within seconds when it says nothing.

    `master` is --flink_master: [http[s]://]HOST:PORT.
    """
    url = master if "://" in master else f"http://{master}"
    url = url.rstrip("/")
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        like = "[local], HOST:PORT or http://HOST:PORT"
        raise UsageError("--flink_master is no address", got=master, expected=like)
    try:
        overview = _call(url, "/v1/overview")
        managers = _call(url, "/v1/taskmanagers")["taskmanagers"]
        return Cluster(
            url=url,
            version=str(overview["flink-version"]),
            hosts=tuple(map(_host, managers)),
            slots=int(overview["slots-total"]),
            free_slots=int(overview["slots-available"]),
        )
    except (urllib.error.HTTPError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"what answers at --flink_master {master} is no Flink cluster",
            got=f"something else than Flink's REST API ({error})",
            expected=_EXPECTED,
            todo="correct the address",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UsageError(
            f"no Flink cluster answers at --flink_master {master}",
            got=str(reason) or type(reason).__name__,
            expected=_EXPECTED,
            todo="start the cluster, or correct the address",
        ) from error


def _host(manager: dict[str, Any]) -> str:
    """Return a task manager's host, of pekko.tcp://flink@HOST:PORT/user/rpc/taskmanager_0."""
    match = re.search(r"@\[?([^\]/]+?)\]?:\d+/", str(manager["path"]))
    return match[1] if match else "localhost"  # one inside the job manager has no address


def _call(url: str, path: str, *, method: str = "GET") -> Any:
    """Return the JSON that a call answers; an empty answer is None."""
    host = urllib.parse.urlsplit(url).hostname or ""
    proxies: dict[str, str] | None = {} if host in ("localhost", "127.0.0.1", "::1") else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    request = urllib.request.Request(url + path, method=method)
    with opener.open(request, timeout=_ASK_S) as answer:
        text = answer.read()
    return json_text.parse(text) if text.strip() else None


def check_nobody_writes(url: str, tag: str, *, place: str) -> None:
    """Raise UsageError while a job that outlived its command is at work on the same `place`, for
    which `tag` stands in the names of our jobs."""
    try:
        jobs = _call(url, "/v1/jobs/overview")["jobs"]
    except _NO_ANSWER:
        return  # that the cluster answers was checked before; it has told no job
    for job in jobs:
        if f"-{tag}-" in job["name"] and job["state"] not in ENDED:
            raise UsageError(
                f"a job of an earlier command is still writing to {place}",
                got=f"Flink job {job['jid']}, {job['state']}",
                todo=f"wait for its end, or cancel it at {url}; then run the same command again",
            )


def find_job(url: str, name: str) -> tuple[str, str] | None:
    """Return (id, state) of the newest job of that name, None where there is none."""
    jobs = [job for job in _call(url, "/v1/jobs/overview")["jobs"] if job["name"] == name]
    newest = max(jobs, key=lambda job: job["start-time"], default=None)
    return None if newest is None else (newest["jid"], newest["state"])


def cancel_job(url: str, name: str, *, wait_s: float) -> tuple[bool, str]:
    """Cancel the job of that name and wait until it has ended; return whether, and what to say.

    Says what to do by hand where the cluster does not answer or takes longer than `wait_s`.
    """
    job_id = None
    try:
        found = find_job(url, name)
        if found is None:
            return True, f"no job {name} had reached the cluster"
        job_id, state = found
        if state not in ENDED:
            _call(url, f"/v1/jobs/{job_id}?mode=cancel", method="PATCH")
        deadline_s = time.monotonic() + wait_s
        while state not in ENDED and time.monotonic() <= deadline_s:
            time.sleep(_POLL_S)
            state = str(_call(url, f"/v1/jobs/{job_id}")["state"])
        if state in ENDED:
            return True, f"Flink job {job_id} is {state}"
        problem = f"it is still {state} after {wait_s:.0f} s"
    except _NO_ANSWER as error:
        problem = f"{url} does not answer ({getattr(error, 'reason', None) or error})"
    what = f"job {job_id}" if job_id else f"the job named {name}"
    return False, f"{what} may still run on the cluster: {problem}. Cancel it at {url}"


def last_exception(url: str, name: str) -> str:
    """Return the text of what the job of that name failed with; "" where nothing is known."""
    try:
        found = find_job(url, name)
        answer = _call(url, f"/v1/jobs/{found[0]}/exceptions") if found else {}
        return str(answer.get("root-exception") or "")
    except _NO_ANSWER:
        return ""
