"""Which files a folder or a glob gives: suffixes, walking, patterns."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator

from features import storage


def suffix_of(path: str) -> str:
    """Return the suffix in lower case with its dot, or "" where there is none."""
    return os.path.splitext(path)[1].lower()


def walk(root: str, cache: str | None) -> Iterator[os.DirEntry[str]]:
    """Yield what lies under a folder and is no folder, by name; each real folder once.

    Links to folders are followed after everything else, unless they lead to where the walk comes
    from or has been. Raises UsageError for a folder that may not be read.
    """
    home = os.path.realpath(root)
    seen: set[tuple[int, int]] = set()
    pending = [root]
    links: list[str] = []
    while pending or links:
        folder = pending.pop() if pending else links.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as err:
            raise storage.storage_error(folder, err, "list") from err
        below = []
        for entry in entries:
            if not _is_folder(entry):
                yield entry
            elif entry.is_symlink():
                target = os.path.realpath(entry.path)
                if not (home + "/").startswith(target.rstrip("/") + "/"):
                    links.append(entry.path)
            elif cache is None or os.path.realpath(entry.path) != cache:
                below.append(entry.path)
        pending += reversed(below)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def fixed_part(pattern: str) -> str:
    """Return the folder of a glob before its first wildcard."""
    parts = pattern.split("/")
    fixed = []
    for part in parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return "/".join(fixed) + "/" if fixed else ""


def names_suffix(pattern: str) -> bool:
    """Return whether a glob says which suffix it wants (`*.bin`), and so names its files."""
    suffix = os.path.splitext(pattern)[1]
    return len(suffix) > 1 and "/" not in suffix and not set("*?").intersection(suffix)


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a glob over object names (`*` stays within one folder)."""
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", pattern, re.DOTALL)
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    text = ""
    for token in tokens:
        if len(token) > 2 and token.startswith("["):
            inner = token[1:-1].replace("\\", "\\\\")
            text += f"[{'^' + inner[1:] if inner.startswith('!') else inner}]"
        else:
            text += words.get(token) or re.escape(token)
    return re.compile(text, re.DOTALL)
