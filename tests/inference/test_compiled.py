"""Compiled prediction: the same joints as the plain path, one trace per length of batch."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from hourglass import bn_folding, model
from hourglass.skeleton import MPII
from pipelines import devices
from pipelines.data import input_pipeline
from pipelines.inference import compiled, forward
from pipelines.inference.options import InferenceOptions
from tests.helpers.networks import far_from_identity

SIZE, CANVAS = 32, 48
ARGUMENTS = {"joints": len(MPII), "stacks": 2, "channels": 16, "depth": 1, "size": SIZE}
PLAIN = InferenceOptions(flip=False)


@pytest.fixture(scope="module")
def plain():
    return far_from_identity(model.build(**ARGUMENTS))


@pytest.fixture(scope="module")
def fast(plain):
    return bn_folding.fold(plain)


def _crops(count):
    """image [B, CANVAS, CANVAS, 3] uint8, center [B, 2] and side [B] float32 crop px."""
    draw = np.random.default_rng(3)
    image = draw.integers(0, 256, [count, CANVAS, CANVAS, 3], np.uint8)
    center = draw.uniform(20, 28, [count, 2]).astype(np.float32)
    return image, center, draw.uniform(30, 60, count).astype(np.float32)


def _first(crops, count):
    return tuple(part[:count] for part in crops)


def _plain_joints(network, crops, options):
    batch = dict(zip(("image", "center", "side"), map(tf.constant, crops)))
    return forward.predict_joints(network, batch, MPII.mirror, options)


@pytest.mark.parametrize("options", [PLAIN, InferenceOptions(decoder="subpixel")])
def test_within_a_twentieth_of_a_pixel_of_the_plain_path(plain, fast, options):
    crops = _crops(8)
    joints, confidence = compiled.make_predict(fast, MPII.mirror, options)(*crops)
    expected, peaks = _plain_joints(plain, crops, options)
    assert joints.shape == (8, len(MPII), 2) and np.ptp(joints) > SIZE / 2
    np.testing.assert_allclose(joints, expected, atol=0.05)
    np.testing.assert_allclose(confidence, peaks, rtol=1e-4)


def test_any_number_of_crops_gives_what_each_gives_alone(fast):
    crops, predict = _crops(9), compiled.make_predict(fast, MPII.mirror, PLAIN, batch_size=4)
    alone = [predict(*(part[i : i + 1] for part in crops)) for i in range(9)]
    for count in range(1, 10):
        joints, confidence = predict(*_first(crops, count))
        np.testing.assert_allclose(joints, np.concatenate([j for j, _ in alone[:count]]), atol=1e-3)
        peaks = np.concatenate([c for _, c in alone[:count]])
        np.testing.assert_allclose(confidence, peaks, rtol=1e-4)


def test_no_crop_gives_no_joints(fast):
    joints, confidence = compiled.make_predict(fast, MPII.mirror, PLAIN)(*_crops(0))
    assert joints.shape == (0, len(MPII), 2) and confidence.shape == (0, len(MPII))


def test_heatmaps_come_too_where_they_are_asked_for(plain, fast):
    crops = _crops(3)
    *_, maps = compiled.make_predict(fast, MPII.mirror, PLAIN, heatmaps=True)(*crops)
    batch = dict(zip(("image", "center", "side"), map(tf.constant, crops)))
    expected, _ = forward.predict_scales(plain, batch, MPII.mirror, PLAIN)
    np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())


def _counting():
    """A function of batches that notes the lengths for which it was traced."""
    traced = []

    def step(x, y):
        traced.append(x.shape[0])
        return (x + y[:, None],)

    return compiled.Compiled(step, compiled.lengths_up_to(6)), traced


def test_one_trace_per_length():
    add, traced = _counting()
    draw = np.random.default_rng(0)
    for count in [*range(0, 15), *range(14, -1, -1)]:
        x, y = draw.normal(size=[count, 2]), draw.normal(size=[count])
        (result,) = add(x, y)
        np.testing.assert_array_equal(result, x + y[:, None])
    assert sorted(traced) == [1, 2, 4, 6]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_folded_network_is_traced_once_per_length_and_static(precision):
    network = bn_folding.fold(model.build(**ARGUMENTS, precision=precision))
    predict = compiled.make_predict(network, MPII.mirror, PLAIN, batch_size=2)
    traced = []

    def noting(image, center, side):
        results = predict.step(image, center, side)
        traced.append([image.shape, *(result.shape for result in results)])
        return results

    noted = dataclasses.replace(predict, step=noting)
    for count in (1, 2, 3, 5, 2, 1):
        noted(*_crops(count))
    assert traced == [[(n, CANVAS, CANVAS, 3), (n, 16, 2), (n, 16)] for n in (1, 2)]


@pytest.mark.parametrize(
    ("largest", "lengths"), [(1, (1,)), (2, (1, 2)), (8, (1, 2, 4, 8)), (9, (1, 2, 4, 8, 9))]
)
def test_lengths_are_powers_of_two_and_the_largest(largest, lengths):
    assert compiled.lengths_up_to(largest) == lengths


def test_works_inside_a_function_of_the_callers(fast):
    predict, crops = compiled.make_predict(fast, MPII.mirror, PLAIN, batch_size=4), _crops(3)
    inside = tf.function(lambda *parts: predict(*parts))(*map(tf.constant, crops))
    for ours, theirs in zip(inside, predict(*crops)):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.8)])
def test_crops_give_what_evaluation_gives(plain, fast, info, scales):
    options = InferenceOptions(decoder="subpixel", scales=scales)
    batch = next(iter(input_pipeline.evaluation(info, "validation", batch=5)))
    strategy = devices.make_strategy("one")
    index, expected, peaks = forward.make_predict(strategy, plain, MPII.mirror, options)(batch)
    np.testing.assert_array_equal(index, batch["index"])
    predict = compiled.make_predict(fast, MPII.mirror, options, batch_size=8)
    joints, confidence = predict(batch["image"], batch["center"], batch["side"])
    # A crop's side here is up to 64 px, twice the network's input.
    np.testing.assert_allclose(joints, expected, atol=0.05)
    np.testing.assert_allclose(confidence, peaks, rtol=1e-3)


def test_bfloat16_predicts_nearly_the_same_heights(plain):
    half = model.build(**ARGUMENTS, precision="mixed_bfloat16")
    half.set_weights(plain.get_weights())
    crops = _crops(5)
    _, peaks = compiled.make_predict(bn_folding.fold(half), MPII.mirror, PLAIN)(*crops)
    _, expected = _plain_joints(plain, crops, PLAIN)
    np.testing.assert_allclose(peaks, expected, atol=0.02 * np.abs(expected).max())
    assert (peaks != expected).numpy().any()


def test_a_mirror_test_needs_the_networks_joints_and_a_batch_one_example(fast):
    with pytest.raises(
        ValueError, match="mirrored prediction of 16 joints .* not 2: pass Skeleton.mirror"
    ):
        compiled.make_predict(fast, (1, 0), InferenceOptions())
    with pytest.raises(ValueError, match="at least 1 example, not 0"):
        compiled.make_predict(fast, MPII.mirror, PLAIN, batch_size=0)
