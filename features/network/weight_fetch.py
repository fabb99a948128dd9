"""Brings weights to this machine: Keras's published ImageNet files, and files in a bucket.

The base address can be replaced by a mirror's with FRAMEBANK_WEIGHTS_URL (the file's name is added
to it). Files land in ~/.cache/framebank/weights (XDG_CACHE_HOME is honoured) under a temporary name
and are renamed when their hash is right, so workers that start together do not disturb each other;
a right file that Keras has fetched before (~/.keras/models) is used as it is.
"""

from __future__ import annotations

import functools
import http.client
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from framebank.features.errors import FramebankError, UsageError
from framebank.features.network.backbones import Backbone
from framebank.features.stores import disk, hashing, storage

MIRROR_VARIABLE = "FRAMEBANK_WEIGHTS_URL"
TIMEOUT_S = 20.0  # for connecting and for each read; not for the whole file


def cache_folder() -> Path:
    """Return the folder where fetched weights are kept (not made here)."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "framebank" / "weights"


def fetch_imagenet(backbone: Backbone, *, timeout_s: float = TIMEOUT_S) -> Path:
    """Return a local file with the ImageNet weights of `backbone`, its hash checked.

    Raises UsageError that says what was tried and offers PATH or random:0.
    """
    if backbone.weights_md5 is None:
        raise UsageError(
            f"Keras publishes no hash of its ImageNet weights for {backbone.name}",
            got="--weights imagenet",
            expected="a file that can be checked",
            todo=f"fetch {backbone.weights_url} yourself and give --weights PATH",
        )
    target = cache_folder() / backbone.weights_file
    keras_home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    for path in (target, keras_home / "models" / backbone.weights_file):
        if _digest(path, "md5") == backbone.weights_md5:
            return path
    url = _url(backbone)
    try:
        fetched = functools.partial(urllib.request.urlopen, url, timeout=timeout_s)
        _keep(fetched, target, "md5", backbone.weights_md5)
    except _WrongHashError as err:
        came = f"{err.size_bytes} bytes came with MD5 {err.found}"
        reason = f"{came}, but Keras publishes {backbone.weights_md5}"
        raise _not_fetched(backbone, url, reason) from err
    except urllib.error.HTTPError as err:
        raise _not_fetched(backbone, url, f"the server answered {err.code} {err.reason}") from err
    except urllib.error.URLError as err:
        raise _not_fetched(backbone, url, f"no connection ({err.reason})") from err
    except TimeoutError as err:
        raise _not_fetched(backbone, url, f"no answer within {timeout_s:g} s") from err
    except (OSError, ValueError, http.client.HTTPException) as err:
        reason = str(err) or type(err).__name__
        if isinstance(err, OSError) and err.filename:
            reason += " (XDG_CACHE_HOME names another folder to keep weights in)"
        raise _not_fetched(backbone, url, reason) from err
    return target


def stage_object(uri: str) -> Path:
    """Return a local copy of a weight file in a bucket, named by its content.

    Raises UsageError when it does not exist or cannot be read.
    """
    try:
        data = storage.read_bytes(uri)
    except FramebankError as err:
        raise UsageError(
            "the weight file cannot be read from its bucket",
            got=f"{uri}: {err.what}",
            todo=err.todo,
        ) from err
    name = f"{hashing.bytes_sha256(data)[:16]}-{uri.rsplit('/', 1)[-1]}"
    target = cache_folder() / "staged" / name
    try:
        if not target.exists():
            with storage.replacing(target) as part:
                part.write_bytes(data)
    except OSError as err:
        raise _not_kept(target, err) from err
    return target


def stage_checked(uri: str, sha256: str) -> Path:
    """Return a local copy of a weight file in a bucket, whose bytes have this SHA-256.

    The first of the processes that ask for it fetches it, the others wait.
    Raises UsageError when it is not there, not readable, or another file.
    """
    folder = cache_folder() / "staged"
    target = folder / (sha256 + Path(uri).suffix)
    try:
        with disk.locked(folder / f".{sha256}.lock"):
            if _digest(target, "sha256") != sha256:
                disk.remove_leftovers(target)
                _keep(functools.partial(storage.open_read, uri), target, "sha256", sha256)
    except OSError as err:
        raise _not_kept(target, err) from err
    except _WrongHashError as err:
        raise UsageError(
            "the weight file is not the one that the job was submitted with",
            got=f"{uri} with SHA-256 {err.found}",
            expected=f"SHA-256 {sha256}",
            todo="put the file back, or start the job anew",
        ) from err
    return target


class _WrongHashError(Exception):
    """What came is not what was asked for."""

    def __init__(self, found: str, size_bytes: int) -> None:
        self.found, self.size_bytes = found, size_bytes


def _keep(
    opened: Callable[[], AbstractContextManager[Any]], target: Path, algorithm: str, digest: str
) -> None:
    """Keep what `opened` gives as `target`, whole or not at all; raises _WrongHashError."""
    with storage.replacing(target) as part:
        with opened() as source, part.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        found = hashing.file_hash(part, algorithm)
        if found != digest:
            raise _WrongHashError(found, part.stat().st_size)


def _url(backbone: Backbone) -> str:
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror:
        return backbone.weights_url
    if urllib.parse.urlsplit(mirror).scheme not in ("http", "https"):
        raise UsageError(
            f"{MIRROR_VARIABLE} is no web address", got=repr(mirror), expected="http(s)://..."
        )
    return f"{mirror.rstrip('/')}/{backbone.weights_file}"


def _digest(path: Path, algorithm: str) -> str | None:
    try:
        return hashing.file_hash(path, algorithm)
    except OSError:
        return None


def _not_kept(target: Path, err: OSError) -> UsageError:
    return UsageError(
        "the weight file cannot be kept on this machine",
        got=f"{target}: {err.strerror}",
        todo="set XDG_CACHE_HOME to a folder that can be written and has room",
    )


def _not_fetched(backbone: Backbone, url: str, reason: str) -> UsageError:
    return UsageError(
        f"the ImageNet weights of {backbone.name} could not be fetched",
        got=f"{url}: {reason}",
        expected=f"{backbone.weights_file} with MD5 {backbone.weights_md5}",
        todo="give a file with --weights PATH, a mirror with "
        f"{MIRROR_VARIABLE}=http(s)://..., or try things out with --weights random:0",
    )
