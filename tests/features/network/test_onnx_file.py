"""ONNX networks: values against NumPy, either layout, data beside the file, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framebank.features.errors import UsageError
from framebank.features.extraction.one_clip import build_network, feature_width
from framebank.features.network.weights import localise_weights, publish_weights
from tests.features.network.test_own_files import (  # noqa: F401
    SIDE,
    build,
    check_any_batch,
    choose,
    own_cache,
    pictures,
)

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
KERNEL = np.random.default_rng(1).normal(0, 0.2, (5, 3, 3, 3)).astype(np.float32)


def small(
    *,
    batch: int | str = "n",
    last: bool = False,
    side: int | str = SIDE,
    nodes: list[Any] | None = None,
    outputs: tuple[str, ...] = ("y",),
    kind: int = 1,
) -> Any:
    """A convolution over [n, 3, h, w] (`last`: of transposed [n, h, w, 3]), then ReLU; output y."""
    from onnx import helper

    shape = [batch, side, side, 3] if last else [batch, 3, side, side]
    given = helper.make_tensor_value_info("x", kind, shape)
    steps = [helper.make_node("Cast", ["x"], ["f"], to=1)]
    steps += [helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2])] if last else []
    steps += [
        helper.make_node("Conv", ["t" if last else "f", "k"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["y"], perm=[0, 2, 3, 1] if last else [0, 1, 2, 3]),
    ]
    graph = helper.make_graph(
        steps if nodes is None else nodes,
        "small",
        [given],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [onnx.numpy_helper.from_array(KERNEL, "k")],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.evil", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


def save(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def by_hand(images: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(images / 255.0, (3, 3), axis=(1, 2))
    return np.maximum(np.einsum("nhwcij,dcij->nhwd", windows, KERNEL), 0).mean(axis=(1, 2))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_values_layouts_and_batches(tmp_path: Path, last: bool, batch: int | str) -> None:
    path = save(small(batch=batch, last=last), tmp_path / "a.onnx")
    features = check_any_batch(path, preprocess="scale_0_1")
    np.testing.assert_allclose(features, by_hand(pictures()), atol=1e-5)
    spec, _ = choose(path, preprocess="scale_0_1")
    assert (spec.backbone, spec.layer, spec.input_size) == ("onnx:small", "output", SIDE)


def test_pictures_of_any_size(tmp_path: Path) -> None:
    path = save(small(side="s"), tmp_path / "a.onnx")
    with pytest.raises(UsageError, match="--input-size N"):
        choose(path, preprocess="scale_0_1")
    network = build(path, preprocess="scale_0_1", input_size=12)
    images = pictures(20, 12)
    np.testing.assert_allclose(network(images), by_hand(images), atol=1e-5)


def test_any_tensor_by_its_name_and_bytes_as_they_are(tmp_path: Path) -> None:
    path = save(
        small(kind=onnx.TensorProto.UINT8), tmp_path / "a.onnx"
    )  # uint8: nothing to declare
    assert choose(path)[0].preprocessing == "none"
    with pytest.raises(UsageError, match="it takes pixels from 0 to 255"):
        choose(path, preprocess="clip")
    raw = build(path, layer="c")(pictures())
    assert raw.min() < 0 and raw.shape == (20, 5)
    # Within, pictures may lie another way than at the door.
    last = save(small(kind=onnx.TensorProto.UINT8, last=True), tmp_path / "last.onnx")
    assert build(last, layer="c")(pictures()).tobytes() == raw.tobytes()
    with pytest.raises(UsageError, match="no tensor 'yy'"):
        build(path, layer="yy")
    two = save(small(outputs=("r", "y")), tmp_path / "two.onnx")
    with pytest.raises(UsageError, match="2 outputs: r, y"):
        build(two, preprocess="none")
    assert build(two, preprocess="none", layer="r").feature_dim == 5
    with pytest.raises(UsageError, match="not in bfloat16"):
        build(two, preprocess="none", layer="r", precision="bfloat16")


def outside(model: Any, location: str) -> Any:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", "0"), ("length", str(KERNEL.nbytes))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return model


def test_data_beside_the_file_travels_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "a.onnx.data").write_bytes(KERNEL.tobytes())
    path = save(outside(small(), "a.onnx.data"), folder / "a.onnx")
    spec, weights = choose(path, preprocess="scale_0_1")
    shutil.copytree(folder, tmp_path / "moved")
    assert choose(tmp_path / "moved" / "a.onnx", preprocess="scale_0_1")[0] == spec
    published = publish_weights(weights, str(tmp_path / "cache"))
    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "cache-home")
    network = build_network(spec, localise_weights(published), batch_size=20)
    np.testing.assert_allclose(network(pictures()), by_hand(pictures()), atol=1e-5)
    (tmp_path / "moved" / "a.onnx.data").write_bytes((KERNEL + 1).tobytes())
    assert choose(tmp_path / "moved" / "a.onnx", preprocess="scale_0_1")[0] != spec


@pytest.mark.parametrize(
    "where",
    ["/etc/passwd", "../secret", "sub/../../secret", "link", "model.onnx", "gone", "a\0b", "*/m/*"],
)
def test_data_elsewhere_is_not_opened(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(KERNEL.tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "*" / "m").mkdir(parents=True)
    for name in ("model.onnx", "*/m/*"):
        (folder / name).write_bytes(KERNEL.tobytes())
    path = save(outside(small(), where), folder / "a.onnx")
    with pytest.raises(UsageError, match="external data at"):
        choose(path, preprocess="none")
    # In a branch of the graph too.
    branch = outside(small(), where).graph
    from onnx import helper

    model = small()
    model.graph.node.append(
        helper.make_node("If", ["cond"], ["z"], then_branch=branch, else_branch=branch)
    )
    with pytest.raises(UsageError, match="external data at"):
        choose(save(model, folder / "b.onnx"), preprocess="none")
    # And where a function has it for a value that nobody gives.
    model = small()
    model.functions.add(domain="own", name="F").attribute_proto.add(
        name="k", type=onnx.AttributeProto.TENSOR, t=branch.initializer[0]
    )
    with pytest.raises(UsageError, match="external data at"):
        choose(save(model, folder / "c.onnx"), preprocess="none")


def test_operators_of_others_and_what_looks_across_the_batch(tmp_path: Path) -> None:
    from onnx import helper

    evil = small(nodes=[helper.make_node("Run", ["x"], ["y"], domain="com.evil")])
    context = small(nodes=[helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")])
    body = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "body", [], [])
    endless = small(nodes=[helper.make_node("Loop", ["", "c"], ["y"], body=body)])
    for model in (evil, context, endless):
        with pytest.raises(UsageError, match="no custom ones"):
            build(save(model, tmp_path / "a.onnx"), preprocess="none")
    shift = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    with pytest.raises(UsageError, match="with what else is in the batch"):
        build(save(small(nodes=shift), tmp_path / "b.onnx"), preprocess="none")
    scaled = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Div", ["x", "m"], ["y"]),
    ]
    with pytest.raises(UsageError, match="with what else is in the batch"):
        build(save(small(nodes=scaled), tmp_path / "s.onnx"), preprocess="none")
    noise = [
        helper.make_node("RandomNormalLike", ["x"], ["e"], dtype=1),
        helper.make_node("Add", ["x", "e"], ["y"]),
    ]
    with pytest.raises(UsageError, match="from one time to the next"):
        build(save(small(nodes=noise), tmp_path / "c.onnx"), preprocess="none")
    flat = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[0, 1, 2, 3], keepdims=0)]
    with pytest.raises(UsageError, match="an output of float32"):
        build(save(small(nodes=flat), tmp_path / "d.onnx"), preprocess="none")
    broken = [helper.make_node("Conv", ["x", "nowhere"], ["y"])]
    with pytest.raises(UsageError, match="onnxruntime: "):
        build(save(small(nodes=broken), tmp_path / "e.onnx"), preprocess="none")


def test_functions_end_and_hide_nothing(tmp_path: Path) -> None:
    from onnx import helper

    def calling(*named: tuple[str, str, list[str]]) -> Path:
        """A model of which each function (domain, name) calls others, one after the other."""
        model = small(nodes=[helper.make_node("F1", ["x"], ["y"], domain="own")])
        model.opset_import.add(domain="own", version=1)
        for domain, name, called in named:
            steps = [
                helper.make_node(one, [f"v{at}"], [f"v{at + 1}"], domain="own" * (one[0] == "F"))
                for at, one in enumerate(called)
            ]
            function = helper.make_function(
                domain, name, ["v0"], [f"v{len(called)}"], steps, model.opset_import
            )
            model.functions.append(function)
        return save(model, tmp_path / "a.onnx")

    good = calling(("own", "F1", ["F2", "F2"]), ("own", "F2", ["Relu"]))
    assert build(good, preprocess="none").feature_dim == 3
    circle = calling(("own", "F1", ["F2"]), ("own", "F2", ["F1"]))
    with pytest.raises(UsageError, match="calls itself"):
        build(circle, preprocess="none")
    doubling = [("own", f"F{at}", [f"F{at + 1}"] * 2) for at in range(1, 30)]
    with pytest.raises(UsageError, match="nested too deeply"):
        build(calling(*doubling, ("own", "F30", ["Relu"])), preprocess="none")
    with pytest.raises(UsageError, match="no loop"):  # the name of a function does not hide it
        build(calling(("own", "F1", ["Loop"]), ("", "Loop", ["Relu"])), preprocess="none")


def test_what_is_no_network_of_images_is_told(tmp_path: Path) -> None:
    for data in (b"", b"nothing of the kind", small().SerializeToString()[:200]):
        (tmp_path / "a.onnx").write_bytes(data)
        with pytest.raises(UsageError, match="not used as a backbone"):
            choose(tmp_path / "a.onnx", preprocess="none")
    model = small()
    model.graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info("ids", 7, ["n", 8]))
    with pytest.raises(UsageError, match="2 inputs"):
        choose(save(model, tmp_path / "b.onnx"), preprocess="none")
    spec, weights = choose(save(small(), tmp_path / "c.onnx"), preprocess="none")
    (tmp_path / "c.onnx").write_bytes(b"other")
    with pytest.raises(UsageError, match="changed while it was in use"):
        feature_width(spec, weights)
