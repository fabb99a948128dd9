"""A run with nothing to do waits for nothing: neither TensorFlow nor Beam is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from framebank.features.cache import catalog, layout
from framebank.features.cache.sidecar import CatalogRow
from framebank.features.extraction.one_clip import make_spec
from framebank.features.spec import SpecChoice
from framebank.pipelines.inputs.listing import expand_inputs
from tests import ROOT

_RUN = """
import json, sys
import framebank
status = framebank.main(sys.argv[1:])
print(json.dumps([status, sorted({"tensorflow", "keras", "apache_beam"} & set(sys.modules))]))
"""


def test_a_run_with_nothing_new_imports_neither_tensorflow_nor_beam(tmp_path: Path) -> None:
    clips, cache = tmp_path / "clips", str(tmp_path / "cache")
    clips.mkdir()
    (clips / "a.mp4").touch()
    (clips / "b.mp4").touch()
    words = {"backbone": "mobilenet_v2", "weights": "random:1", "layer": "out_relu"}
    spec, _ = make_spec(SpecChoice(**words))
    rows = [
        CatalogRow(
            ref.video_id, ref.uri, 0, ref.generation, ref.key(spec.fingerprint), "done", 1,
            "20260101T000000000000-0000", "", "shard", fingerprint=spec.fingerprint,
        )
        for ref in expand_inputs([str(clips)], images=False).refs
    ]  # fmt: skip
    layout.write_spec(cache, spec)
    catalog.write_catalog(cache, rows[0].run_id, rows)
    for path in (layout.tfrecord_path(cache, "shard"), layout.sidecar_path(cache, "shard")):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).touch()
    options = [word for name, value in words.items() for word in (f"--{name}", value)]
    found = subprocess.run(
        [sys.executable, "-c", _RUN, "extract", str(clips), "--cache", cache, "--json", *options],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    summary, imported = map(json.loads, found.stdout.splitlines())
    assert summary["already_done"] == summary["inputs"] == 2
    assert imported == [0, []]
