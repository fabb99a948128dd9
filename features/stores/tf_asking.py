"""Asks a service through tensorflow-io, and again while it does not answer.

tensorflow-io says of any trouble at s3:// and of most at az:// that the file does not exist: a
refused connection, a 503, a forbidden bucket. So whatever is missing there counts as missing only
when the service itself answers a plain request. How long is tried is `features.stores.retrying`'s.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from framebank.features.errors import FramebankError, JobError, UsageError
from framebank.features.stores.retrying import CONNECT_TIMEOUT_S, Patience, patience_of

T = TypeVar("T")
_FORBIDDEN = ("403", "401", "denied")
_FORMS = {"s3": "s3://BUCKET/NAME", "az": "az://ACCOUNT/CONTAINER/NAME"}


class NoAnswer(Exception):
    """The service is not there or ails; `code` is the HTTP status, None where nothing came."""

    def __init__(self, reason: object, code: int | None = None) -> None:
        super().__init__(str(reason))
        self.code = code


def ask(path: str, doing: str, work: Callable[[], T]) -> T:
    """Return what `work` gets from the service of `path`, asked again while it does not answer.

    Raises FileNotFoundError for what is not there, UsageError, JobError.
    """
    from google.api_core import exceptions as api
    from google.api_core import retry

    check_form(path)
    service = _service(path)
    patience = patience_of(service)
    again = retry.Retry(
        predicate=patience.attempt(path, retryable=lambda err: isinstance(err, NoAnswer)),
        initial=0.5,
        maximum=patience.longest_pause_s(),
        timeout=patience.limit_s,
    )
    try:
        return again(lambda: _once(path, doing, work, service, patience))()
    except api.RetryError as err:
        raise _silent(path, doing, err.cause or err) from err
    except NoAnswer as err:
        raise _silent(path, doing, err) from err


def check_form(path: str) -> None:
    """Raise UsageError for an s3:// or az:// address without its bucket or container."""
    scheme, _, rest = path.partition("://")
    if scheme in _FORMS:
        needed = _FORMS[scheme].count("/") - 2
        if "" in [*rest.split("/"), ""][:needed]:
            raise UsageError("not the address of an object", got=path, expected=_FORMS[scheme])


def _silent(path: str, doing: str, err: BaseException) -> JobError:
    todo = "check the network and the address, then run the command again"
    return JobError(f"cannot {doing} {path}", got=str(err)[:300], todo=todo)


def _once(path: str, doing: str, work: Callable[[], T], service: str, patience: Patience) -> T:
    import tensorflow as tf

    if not patience.was_reached and not path.startswith("http"):
        _check_alive(path, service)  # tensorflow-io's clients would try for a minute
    try:
        result = work()
    except tf.errors.NotFoundError as err:
        if any(word in err.message for word in _FORBIDDEN):
            raise _refused(path, doing, err.message) from err
        if not path.startswith("http"):
            _check_alive(path, service)
        patience.reached()
        if path.startswith("s3:"):
            _warn_of_credentials(path.split("/")[2])
        raise FileNotFoundError(path) from err
    except (tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError) as err:
        raise _refused(path, doing, err.message) from err
    except tf.errors.OpError as err:
        if any(word in err.message for word in _FORBIDDEN):
            raise _refused(path, doing, err.message) from err
        raise NoAnswer((err.message.splitlines() or [type(err).__name__])[0][:300]) from err
    except RuntimeError as err:  # of the Azure client, when it gives up
        raise NoAnswer(err) from err
    finally:
        _end_without_destructors(os.getpid())
    patience.reached()
    return result


def _refused(path: str, doing: str, got: str) -> FramebankError:
    todo = "check the credentials, and that they may list and get the bucket's objects"
    return UsageError(f"cannot {doing} {path}", got=got.splitlines()[0][:300], todo=todo)


def _service(path: str) -> str:
    """Return the address whose answer shows that the service of `path` lives."""
    scheme, _, rest = path.partition("://")
    first = rest.partition("/")[0]
    if scheme == "s3":
        endpoint = s3_endpoint()
        return (
            f"{endpoint.rstrip('/')}/{first}" if endpoint else f"https://{first}.s3.amazonaws.com"
        )
    if scheme == "az":
        if os.environ.get("TF_AZURE_USE_DEV_STORAGE"):
            return f"http://127.0.0.1:10000/{first}"
        return f"https://{first}.blob.core.windows.net"
    return f"{scheme}://{urlsplit(path).netloc}"


def s3_endpoint() -> str | None:
    """Return the server that takes Amazon's place, where one does."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _check_alive(path: str, service: str) -> None:
    """Raise NoAnswer unless the service answers anything of sense, UsageError for no bucket.

    The request has no signature: that it is refused is an answer.
    """
    request = urllib.request.Request(service, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S).close()
    except urllib.error.HTTPError as err:
        if err.code >= 500 or err.code == 429:
            raise NoAnswer(f"status {err.code}", err.code) from err
        if err.code == 404 and path.startswith("s3:"):
            got, todo = "no such bucket", "check the name"
            raise UsageError(f"cannot read {path}", got=got, todo=todo) from err
    except (OSError, ValueError) as err:  # ValueError: an endpoint that is no address
        raise NoAnswer(getattr(err, "reason", None) or err) from err


@functools.cache
def _warn_of_credentials(bucket: str) -> None:
    """Say it once when the bucket cannot be listed: tensorflow-io tells nobody of a 403."""
    import tensorflow as tf

    try:
        tf.io.gfile.listdir(f"s3://{bucket}/")
    except tf.errors.OpError:
        text = "cannot be listed with these credentials, or holds nothing: files may seem missing"
        print(f"framebank: s3://{bucket} {text}", file=sys.stderr, flush=True)


@functools.cache
def _end_without_destructors(pid: int) -> None:
    """Let this process end by _exit once Python has cleaned up.

    The AWS client inside tensorflow-io aborts in its static destructors ("pure virtual method
    called", status 134), after everything of ours is done. The last handler registered comes first.
    """
    libc: Any = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc, musl has none
        libc.on_exit(libc._exit, None)
