"""Quantising: near to float32, in int8 where it counts, and no value where none was seen."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

ov = pytest.importorskip("openvino")

from framebank.features.extraction import quantising  # noqa: E402
from framebank.features.extraction.quantising import Quantiser  # noqa: E402
from framebank.features.network import int8  # noqa: E402

ops = int8.import_openvino("openvino.opset13")
STEP, SIZE = 4, 12
RANDOM = np.random.default_rng(0)


def images(count: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)


def pixels() -> tuple[Any, Any]:
    """Return a graph's input, and it as float32[n, c=3, h, w] of 0 to 1."""
    given = ops.parameter([STEP, SIZE, SIZE, 3], ov.Type.u8)
    turned = ops.transpose(ops.convert(given, "f32"), np.array([0, 3, 1, 2]))
    return given, ops.multiply(turned, np.float32(1 / 255))


def convolved(value: Any, to: int, *, of: int, kernel: int = 3) -> Any:
    edge = [kernel // 2] * 2
    kernels = weights(to, of, kernel, kernel)
    return ops.convolution(value, kernels, [1, 1], edge, edge, [1, 1])


def model_of(given: Any, value: Any) -> Any:
    return ov.Model([ops.result(value)], [given], "net")


def network() -> Any:
    """Return a model of all that is quantised: branches, a pool, groups, a sum, products."""
    given, value = pixels()
    one = ops.relu(convolved(value, 8, of=3))
    two = ops.relu(ops.add(convolved(value, 4, of=3), weights(1, 4, 1, 1)))
    both = ops.concat([one, two], 1)
    pooled, _ = ops.max_pool(both, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2], "floor").outputs()
    grouped = ops.group_convolution(pooled, weights(12, 1, 1, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
    summed = ops.add(grouped, convolved(pooled, 12, of=12, kernel=1))
    mean = ops.reduce_mean(ops.relu(summed), np.array([2, 3]), False)
    product = ops.relu(ops.matmul(mean, weights(12, 16), False, False))
    return model_of(given, ops.matmul(product, weights(10, 16), False, True))


def quantised(model: Any, frames: np.ndarray) -> Any:
    quantiser = Quantiser(model)
    return quantiser.quantise(quantiser.run(frames))


def test_it_stays_near_to_float32() -> None:
    calibrating, frames = images(32), images(10)
    model = network()
    (expected,) = int8.outputs_of(model, frames)
    (found,) = int8.outputs_of(quantised(model, calibrating), frames)
    assert found.shape == expected.shape == (10, 10)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert np.min((found * expected).sum(axis=1) / lengths) > 0.998
    assert not np.array_equal(found, expected)


def test_what_counts_is_in_int8() -> None:
    model = quantised(network(), images(8))
    kinds: Counter[str] = Counter()
    for one in model.get_ordered_ops():
        kind = one.get_type_name()
        if kind in ("Convolution", "GroupConvolution", "MatMul"):
            scaled = one.input_value(1).get_node()
            rounded = scaled.input_value(0).get_node().input_value(0).get_node()
            assert rounded.get_element_type() == ov.Type.i8
            assert np.abs(rounded.data).max() <= 127
            kinds[kind] += 1
    assert kinds == {"Convolution": 3, "GroupConvolution": 1, "MatMul": 2}
    # pixels, both branches, both sides of the sum, what the products take
    ranges = [one for one in model.get_ordered_ops() if one.get_type_name() == "FakeQuantize"]
    assert len(ranges) == 7
    ends = {one.input_value(0).get_node().get_type_name(): one for one in ranges}
    assert set(ends) == {"Multiply", "Relu", "Subtract", "ReduceMean"}


def test_tensors_that_are_concatenated_share_a_range() -> None:
    given, value = pixels()
    dark, bright = ops.multiply(value, np.float32(0.1)), ops.multiply(value, np.float32(5))
    both = ops.concat([ops.relu(dark), ops.relu(bright)], 1)
    model = quantised(model_of(given, convolved(both, 2, of=6)), images(8))
    ends = {
        float(one.input_value(2).get_node().data.item())
        for one in model.get_ordered_ops()
        if one.get_type_name() == "FakeQuantize"
    }
    assert len(ends) == 1 and ends.pop() == pytest.approx(5, rel=0.01)


@pytest.mark.parametrize(("filled", "source"), [(None, "Relu"), (0.0, "Relu"), (1.0, "Pad")])
def test_zeros_around_a_tensor_are_in_its_range(filled: float | None, source: str) -> None:
    given, value = pixels()
    edge = np.array([0, 0, 1, 1])
    filling = None if filled is None else ops.constant(np.float32(filled))
    padded = ops.pad(ops.relu(value), edge, edge, "constant", filling)
    model = quantised(model_of(given, convolved(padded, 2, of=3)), images(8))
    (found,) = [one for one in model.get_ordered_ops() if one.get_type_name() == "FakeQuantize"]
    assert found.input_value(0).get_node().get_type_name() == source


@pytest.mark.parametrize("kind", ["convolution", "groups", "product", "turned product"])
def test_what_rounding_weights_adds_on_average_is_taken_off(kind: str) -> None:
    """Weights that all round the same way; a channel's sums would be off by a fifth."""
    one = np.full((6, 3), 0.6 / 63, np.float32)  # 63 steps of the first weights
    one[:, 0] = 1
    given, value = pixels()
    if kind == "convolution":
        kernels = one[:, :, np.newaxis, np.newaxis]
        value = ops.convolution(value, kernels, [1, 1], [0, 0], [0, 0], [1, 1])
    elif kind == "groups":
        kernels = np.full((3, 2, 1, 3, 3), 0.6 / 63, np.float32)
        kernels[:, :, :, 0, 0] = 1
        value = ops.group_convolution(value, kernels, [1, 1], [0, 0], [0, 0], [1, 1])
    value = ops.reduce_mean(value, np.array([2, 3]), False)
    if kind == "product":
        value = ops.matmul(value, one.T.copy(), False, False)
    elif kind == "turned product":
        value = ops.matmul(value, one, False, True)
    model = model_of(given, value)
    frames = images(32)
    (expected,) = int8.outputs_of(model, frames)
    (found,) = int8.outputs_of(quantised(model, frames), frames)
    np.testing.assert_allclose(found.mean(axis=0), expected.mean(axis=0), rtol=0.002)


def test_a_range_is_not_set_by_one_frame() -> None:
    values = np.ones(32, np.float32)
    values[5] = 9
    assert quantising._mean_of_largest(values, 4) == 3
    assert quantising._mean_of_largest(values, 1) == 9
    assert quantising._mean_of_largest(values[5:7], 4) == 5  # fewer rows than groups
    clips = np.repeat(np.arange(4, dtype=np.float32), 8)  # as frames come
    assert quantising._mean_of_largest(clips, 4) == 3  # the brightest clip is within
    assert quantising._range(-1.0, 2.0) == (0.0, 2.0)
    low, high = quantising._range(1.0, 2.0)
    assert high == 2 and low == pytest.approx(-128 * 2 / 127)
    assert quantising._range(0.0, 0.0)[1] > 0  # nothing was seen but zeros


def test_of_each_frame_its_own_is_seen() -> None:
    quantiser = Quantiser(network())
    frames = images(7)
    seen, reverse = quantiser.run(frames), quantiser.run(frames[::-1])
    assert seen.features.shape == (7, 10)
    assert {kind for kind, _ in seen.values} == {"min", "max", "mean"}
    for named, values in seen.values.items():
        assert len(values) == 7
        np.testing.assert_array_equal(values, reverse.values[named][::-1])


def test_of_parts_of_frames_all_are_seen() -> None:
    """Some networks cut each frame into windows, which are rows of their own."""
    given, value = pixels()
    rows = ops.reshape(value, np.array([-1, SIZE * SIZE]), False)
    product = ops.reshape(ops.matmul(rows, weights(5, SIZE * SIZE), False, True), [STEP, -1], False)
    quantiser = Quantiser(model_of(given, product))
    frames = images(6) // 2
    frames[-1, :, :, 2] = 255
    seen = quantiser.run(frames)
    (largest,) = [rows for (kind, _), rows in seen.values.items() if kind == "max"]
    (mean,) = [rows for (kind, _), rows in seen.values.items() if kind == "mean"]
    assert seen.features.shape == (6, 15) and len(mean) == 3 * 8
    assert len(largest) == 6 and largest.argmax() == 5  # of what is cut into parts: each frame
    int8.outputs_of(quantiser.quantise(seen), frames)


@pytest.mark.parametrize("where", ["values", "weights", "features"])
def test_values_without_a_range_are_refused(where: str) -> None:
    given, value = pixels()
    infinite = ops.divide(np.float32(1), ops.subtract(value, value))
    kernels = weights(2, 3, 1, 1)
    if where == "weights":
        kernels[1, 2] = np.nan
    taken = infinite if where == "values" else value
    value = ops.convolution(taken, kernels, [1, 1], [0, 0], [0, 0], [1, 1])
    mean = ops.reduce_mean(ops.relu(value), np.array([2, 3]), False)  # which may hide NaN
    if where == "features":
        mean = ops.divide(mean, ops.subtract(mean, mean))
    quantiser = Quantiser(model_of(given, mean))
    with pytest.raises(ValueError, match="not finite"):
        quantiser.quantise(quantiser.run(images(4)))


def test_sums_of_other_things_than_maps_stay_as_they_are() -> None:
    given, _ = pixels()
    whole = ops.convert(given, "i32")
    doubled = ops.convert(ops.add(whole, whole), "f32")
    moved = ops.add(ops.transpose(doubled, np.array([0, 3, 1, 2])), np.float32(1))
    model = quantised(model_of(given, convolved(moved, 2, of=3)), images(8))
    (found,) = [one for one in model.get_ordered_ops() if one.get_type_name() == "FakeQuantize"]
    assert found.input_value(0).get_node().get_type_name() == "Add"
    int8.outputs_of(model, images(8))


def test_a_single_value_for_a_whole_step_has_a_range_too() -> None:
    given, value = pixels()
    mean = ops.reduce_mean(value, np.array([0, 1, 2, 3]), False)
    moved = ops.add(value, ops.reshape(mean, np.array([1, 1, 1, 1]), False))
    model = quantised(model_of(given, convolved(moved, 2, of=3)), images(8))
    int8.outputs_of(model, images(8))


def test_the_same_has_the_same_names() -> None:
    """Whatever else the process made, and so counted, before."""
    names = []
    for _ in range(2):
        model = quantised(network(), images(8))
        names.append([one.get_friendly_name() for one in model.get_ordered_ops()])
        images(3), network()
    assert names[0] == names[1] and len(set(names[0])) == len(names[0])


@pytest.mark.parametrize("weighted", ["none", "computed"])
def test_a_network_without_weights_is_refused(weighted: str) -> None:
    given, value = pixels()
    mean = ops.reduce_mean(value, np.array([2, 3]), False)
    if weighted == "computed":
        mean = ops.matmul(mean, ops.transpose(mean, np.array([1, 0])), False, False)
    with pytest.raises(ValueError, match="no convolution"):
        Quantiser(model_of(given, mean))
