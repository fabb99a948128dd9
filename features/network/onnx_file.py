"""An ONNX network from a file, computed by onnxruntime on the processor.

A file can hold no code, but it can name some: operators of other domains than ONNX's own, which an
application would have to bring, and data anywhere on the disk. Both are refused before onnxruntime
sees the file; `own_files` has laid the data of the file's own folder beside it.
"""

from __future__ import annotations

import graphlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import needing
from framebank.features.network.backbones import near_matches
from framebank.features.network.own_files import (
    ONNX_FILE,
    OUTPUT,
    check_beside,
    external_data,
    map_axes,
    onnx_messages,
    parse_onnx,
    refused,
)

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
# What hands a part of the graph, in a file, to something else, and what may never end.
_BARRED = ("EPContext", "PyOp", "PythonOp", "ExternalCustomOp", "Loop")
_MOST_CALLS = 10_000  # of functions by one function: each call is written out
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


def load_onnx(
    path: Path, layer: str, source: str, *, threads: int = 0
) -> tuple[Callable[[NDArray[Any]], NDArray[np.float32]], int | None]:
    """Return a function from the network's input [b, ...] to float32[b, d], and the batch that the
    file is fixed to (None: any).

    `path` is a file, or a folder with model.onnx and its data. `layer` is an output or any tensor
    of the graph by name. Tokens [b, n, d] are averaged, and maps over h and w, in the layout of the
    input. Raises UsageError, which names `source`.
    """
    with needing("an ONNX backbone", extra="onnx"):
        import onnxruntime
    file = path / ONNX_FILE if path.is_dir() else path
    model = parse_onnx(source, file.read_bytes())
    _check_operators(model, source)
    check_beside(source, file.parent, external_data(model))
    chosen = _choose(model, layer, source)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoders work too
    target: Any = model.SerializeToString()
    if external_data(model):  # found beside the file
        file = file.with_name(f"chosen-{ONNX_FILE}")
        file.write_bytes(target)
        target = str(file)
    try:
        session = onnxruntime.InferenceSession(
            target,
            sess_options=options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # which prints
        )
    except Exception as err:
        raise refused(source, f"onnxruntime: {_line(err)}", "what onnxruntime loads") from err
    given = next(one for one in session.get_inputs())
    first = len(given.shape) == 4 and given.shape[1] == 3 and given.shape[3] != 3
    kind = _TYPES[given.type]

    def call(images: NDArray[Any]) -> NDArray[np.float32]:
        try:
            (output,) = session.run([chosen], {given.name: images.astype(kind)})
        except Exception as err:
            raise refused(source, f"onnxruntime: {_line(err)}", "a network that runs") from err
        return _pooled(np.asarray(output), len(images), first, source)

    return call, given.shape[0] if isinstance(given.shape[0], int) else None


def _check_operators(model: Any, source: str) -> None:
    """Raise UsageError unless a model is put together of ONNX's own operators, and written out with
    all its functions is of a size that ends."""
    import onnx

    calls: dict[Any, list[Any]] = {(one.domain, one.name): [] for one in model.functions}
    for part in (*model.functions, model.graph):
        for node in onnx_messages(part, onnx.NodeProto):
            name, function = (node.domain, node.op_type), node.domain not in _DOMAINS
            if (function and name not in calls) or (not function and name[1] in _BARRED):
                got = f"the operator {node.domain}.{node.op_type}"[:200]
                raise refused(source, got, "operators of ONNX itself, no custom ones, no loop")
            if part is not model.graph and name in calls:
                calls[part.domain, part.name].append(name)
    sizes: dict[Any, int] = {}
    try:
        for name in graphlib.TopologicalSorter(calls).static_order():
            sizes[name] = 1 + sum(sizes[called] for called in calls[name])
    except graphlib.CycleError as err:
        raise refused(
            source, "a function that calls itself", "functions without recursion"
        ) from err
    if max(sizes.values(), default=0) > _MOST_CALLS:
        raise refused(source, "functions nested too deeply", f"{_MOST_CALLS:,} of them")


def _choose(model: Any, layer: str, source: str) -> str:
    """Return the name of the tensor that `layer` means, having made it the model's only output."""
    outputs = [value.name for value in model.graph.output]
    if layer == OUTPUT and OUTPUT not in outputs:
        if len(outputs) != 1:
            got = f"{len(outputs)} outputs: {', '.join(outputs)[:200]}"
            raise refused(source, got, "one", todo="choose one with --layer NAME")
        layer = outputs[0]
    made = [name for node in model.graph.node for name in node.output if name]
    if layer not in (*outputs, *made):
        todo = near_matches(layer, [*outputs, *made])
        raise refused(source, f"no tensor {layer!r}", "one of the graph's by name", todo=todo)
    del model.graph.output[:]
    model.graph.output.add().name = layer  # onnxruntime finds type and shape itself
    return layer


def _pooled(output: NDArray[Any], count: int, first: bool, source: str) -> NDArray[np.float32]:
    if output.ndim not in (2, 3, 4) or len(output) != count or output.dtype.kind != "f":
        got = f"an output of {output.dtype}{list(output.shape)} for {count} images"
        expected = "float[b, d], [b, n, d] or a map [b, h, w, d]"
        raise refused(source, got, expected, todo="choose another with --layer NAME")
    if output.ndim > 2:
        axes = (1,) if output.ndim == 3 else map_axes(output.shape, first=first)
        output = output.mean(axis=axes, dtype=np.float32)
    return np.ascontiguousarray(output, np.float32)


def _line(err: Exception) -> str:
    return " ".join(str(err).split())[:300]
