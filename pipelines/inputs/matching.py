"""Which files a folder or a glob gives: suffixes, walking, patterns."""

from __future__ import annotations

import glob
import itertools
import operator
import os
import re
from collections.abc import Callable, Iterator


def suffix_of(path: str) -> str:
    """Return the suffix in lower case with its dot, or "" where there is none."""
    dot = path.rfind(".")
    start = path.rfind("/") + 1
    if dot <= start or not path[start:dot].strip("."):  # ".mp4" is a name, and so is "..mp4"
        return ""
    return path[dot:].lower()


def walk(
    root: str, cache: str | None, unlisted: Callable[[str, OSError], None]
) -> Iterator[os.DirEntry[str]]:
    """Yield what lies under a folder and is no folder, by name; each real folder once.

    Links to folders are followed after everything else, unless they lead to where the walk comes
    from or has been. A folder that cannot be listed goes to `unlisted`, and costs no other.
    """
    home = os.path.realpath(root)
    seen: set[tuple[int, int]] = set()
    pending = [root]
    links: list[str] = []
    while pending or links:
        folder = pending.pop() if pending else links.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=operator.attrgetter("name"))
        except OSError as err:
            if not isinstance(err, FileNotFoundError):  # gone since its name was read: not there
                unlisted(folder, err)
            continue
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


def unlisted_by(pattern: str) -> Iterator[tuple[str, OSError]]:
    """Yield the folders in which a local glob looks for names, and that cannot be listed.

    The library passes over them without a word.
    """
    parents = [os.path.dirname(pattern)]
    while glob.has_magic(parents[-1]):
        parents.append(os.path.dirname(parents[-1]))
    for parent in parents:
        for folder in glob.glob(parent) if glob.has_magic(parent) else [parent or "."]:
            try:
                if os.path.isdir(folder):
                    os.scandir(folder).close()
            except OSError as err:
                yield folder, err


def fixed_part(pattern: str) -> str:
    """Return the folder of a glob before its first wildcard."""
    parts = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.split("/")[:-1])
    return "".join(f"{part}/" for part in parts)


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
