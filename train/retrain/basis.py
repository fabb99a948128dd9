"""Is there anything to retrain on? What a model was made from, and what is there now.

`framebank retrain --help` tells what is news. It is measured against every version of the registry,
also one that was kept aside or rolled back from: what was judged once is not trained again every
night. The names of the catalogs and the hashes of the question files are known at once. Where they
differ the questions are joined with the cache: an extraction that found no clip leaves a catalog.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from framebank.features.cache import catalog, layout
from framebank.features.errors import UsageError
from framebank.features.stores import storage
from framebank.features.stores.hashing import file_hash
from framebank.train.retrain.config import RetrainConfig
from framebank.train.retrain.registry import damaged


@dataclasses.dataclass(frozen=True)
class Basis:
    """What a model is made from. `catalogs` maps runs of the cache to the size of their catalog;
    `videos` is a hash of the videos and feature keys that the questions are about ("": not known
    yet); `questions` are the SHA-256 of the question files and the mapping."""

    fingerprint: str
    catalogs: dict[str, int]
    questions: tuple[str, ...]
    config: str
    videos: str = ""

    @classmethod
    def from_json(cls, fields: dict[str, Any], *, path: str) -> Basis:
        """Raises CacheError naming `path`."""
        try:
            found = cls(**fields | {"questions": tuple(fields["questions"])})
            dict(found.catalogs)
        except (KeyError, TypeError, ValueError) as err:
            raise damaged(path, err) from err
        return found

    def looks_like(self, other: Basis) -> bool:
        """Return whether both are of the same files."""
        return dataclasses.replace(self, videos="") == dataclasses.replace(other, videos="")

    def is_made_of(self, other: Basis) -> bool:
        """Return whether both give the same model, though a catalog may have been added."""
        bare = dataclasses.replace(other, catalogs={})
        return dataclasses.replace(self, catalogs={}) == bare

    def news(self, older: Basis | None) -> list[str]:
        """Return what is new against `older`, for people."""
        if older is None:
            return ["no model is in use yet"]
        said = []
        runs = sum(older.catalogs.get(run) != size for run, size in self.catalogs.items())
        if runs:
            said.append(f"{runs} catalogs of the cache")
        files = len(set(self.questions) - set(older.questions))
        if files or len(self.questions) != len(older.questions):
            said.append(f"{files} question files of {len(self.questions)}")
        if self.config != older.config:
            said.append("the config")
        return said or ["what the model in use was made from is not all there any more"]


def look(config: RetrainConfig, *, fingerprint: str) -> Basis:
    """Return what is there now, from the names of catalogs and the bytes of question files."""
    folder = layout.catalog_folder(config.cache)
    sizes = {file.path.rsplit("/", 1)[-1]: file.size_bytes for file in storage.iter_files(folder)}
    known = {path.rsplit("/", 1)[-1] for path in catalog.catalog_files(config.cache)}
    read = [_hash(path, "questions") for path in config.questions]
    if config.mapping is not None:
        read.append(_hash(config.mapping, "mapping"))
    return Basis(
        fingerprint=fingerprint,
        catalogs={name: sizes[name] for name in sorted(known)},
        questions=tuple(read),
        config=config.digest(),
    )


def _hash(path: str, key: str) -> str:
    try:
        with storage.open_read(path) as file:
            return file_hash(file)
    except storage.FileMissingError as err:
        raise UsageError("no such file", got=path, todo=f"check the key {key}") from err
