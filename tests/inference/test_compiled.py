"""Compiled prediction: the same joints as the plain path, one trace per length of batch."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from hourglass import bn_folding, heatmap, model
from hourglass.skeleton import MPII
from pipelines import devices
from pipelines.data import input_pipeline
from pipelines.inference import compiled, forward
from tests.helpers.networks import far_from_identity

SIZE = 32


@pytest.fixture(scope="module")
def plain():
    arguments = {"stacks": 2, "channels": 16, "depth": 1, "size": SIZE}
    return far_from_identity(model.build(joints=len(MPII), **arguments))


@pytest.fixture(scope="module")
def fast(plain):
    return bn_folding.fold(plain)


def _images(batch):
    return tf.random.stateless_normal([batch, SIZE, SIZE, 3], [3, 4])


def _plain_joints(network, images, flip, decode):
    maps = forward.heatmaps_of(network, images, flip, MPII.mirror)
    joints, confidence = heatmap.decode(maps, decode)
    return heatmap.to_input(joints, model.STRIDE), confidence


@pytest.mark.parametrize(("flip", "decode"), [(False, "quarter"), (True, "subpixel")])
def test_within_a_twentieth_of_a_pixel_of_the_plain_path(plain, fast, flip, decode):
    images = _images(8)
    predict = compiled.of_images(fast, flip=flip, mirror=MPII.mirror, decode=decode)
    joints, confidence = predict(images)
    want, peaks = _plain_joints(plain, images, flip, decode)
    assert joints.shape == (8, len(MPII), 2) and np.ptp(joints) > SIZE / 2
    np.testing.assert_allclose(joints, want, atol=0.05)
    np.testing.assert_allclose(confidence, peaks, rtol=1e-4)


def test_any_number_of_pictures_gives_what_each_gives_alone(fast):
    images, predict = _images(9), compiled.of_images(fast, largest=4)
    alone = [predict(images[i : i + 1]) for i in range(9)]
    for count in range(1, 10):
        joints, confidence = predict(images[:count])
        np.testing.assert_allclose(joints, np.concatenate([j for j, _ in alone[:count]]), atol=1e-3)
        peaks = np.concatenate([c for _, c in alone[:count]])
        np.testing.assert_allclose(confidence, peaks, rtol=1e-4)


def test_no_picture_gives_no_joints(fast):
    joints, confidence = compiled.of_images(fast)(np.zeros([0, SIZE, SIZE, 3], np.float32))
    assert joints.shape == (0, len(MPII), 2) and confidence.shape == (0, len(MPII))


def _counting():
    """A function of batches that notes the lengths for which it was traced."""
    traced = []

    def step(x, y):
        traced.append(x.shape[0])
        return (x + y[:, None],)

    return compiled.Compiled(step, compiled.lengths_up_to(6)), traced


def test_one_trace_per_length():
    compiled, traced = _counting()
    draw = np.random.default_rng(0)
    for count in [*range(0, 15), *range(14, -1, -1)]:
        x, y = draw.normal(size=[count, 2]), draw.normal(size=[count])
        (found,) = compiled(x, y)
        np.testing.assert_array_equal(found, x + y[:, None])
    assert sorted(traced) == [1, 2, 4, 6]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_folded_network_is_traced_once_per_length_and_static(precision):
    arguments = {"stacks": 2, "channels": 16, "depth": 1, "size": SIZE, "precision": precision}
    predict = compiled.of_images(bn_folding.fold(model.build(joints=16, **arguments)), largest=2)
    traced = []

    def noting(images):
        results = predict.step(images)
        traced.append([images.shape, *(result.shape for result in results)])
        return results

    noted = dataclasses.replace(predict, step=noting)
    for count in (1, 2, 3, 5, 2, 1):
        noted(_images(count))
    assert traced == [[(n, SIZE, SIZE, 3), (n, 16, 2), (n, 16)] for n in (1, 2)]


@pytest.mark.parametrize(
    ("largest", "want"), [(1, (1,)), (2, (1, 2)), (8, (1, 2, 4, 8)), (9, (1, 2, 4, 8, 9))]
)
def test_lengths_are_powers_of_two_and_the_largest(largest, want):
    assert compiled.lengths_up_to(largest) == want


def test_works_inside_a_function_of_the_callers(fast):
    predict = compiled.of_images(fast, largest=4)
    inside = tf.function(lambda images: predict(images))(_images(3))
    for ours, theirs in zip(inside, predict(_images(3))):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.8)])
def test_crops_give_what_evaluation_gives(plain, fast, info, scales):
    how = {"flip": True, "mirror": MPII.mirror, "decode": "subpixel", "scales": scales}
    batch = next(iter(input_pipeline.evaluation(info, "validation", batch=5)))
    strategy = devices.make_strategy("one")
    index, want, peaks = forward.make_predict(strategy, plain, **how)(batch)
    np.testing.assert_array_equal(index, batch["index"])
    predict = compiled.of_crops(fast, largest=8, **how)
    joints, confidence = predict(batch["image"], batch["center"], batch["side"])
    # A crop's side here is up to 64 px, twice the network's input.
    np.testing.assert_allclose(joints, want, atol=0.05)
    np.testing.assert_allclose(confidence, peaks, rtol=1e-3)


def test_bfloat16_finds_nearly_the_same_heights(plain):
    half = model.build(
        joints=16, stacks=2, channels=16, depth=1, size=SIZE, precision="mixed_bfloat16"
    )
    half.set_weights(plain.get_weights())
    images = _images(5)
    _, peaks = compiled.of_images(bn_folding.fold(half))(images)
    _, want = _plain_joints(plain, images, False, "quarter")
    np.testing.assert_allclose(peaks, want, atol=0.02 * np.abs(want).max())
    assert (peaks != want).numpy().any()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros([2, SIZE, SIZE, 3], np.uint8), r"pictures are uint8 .*takes float32"),
        (np.zeros([2, 64, 64, 3], np.float32), r"float32 \[2, 64, 64, 3\]; .*\[B, 32, 32, 3\]"),
        (np.zeros([SIZE, SIZE, 3], np.float32), r"float32 \[32, 32, 3\]; the network takes"),
    ],
)
def test_other_pictures_are_refused(fast, images, message):
    with pytest.raises(ValueError, match=message):
        compiled.of_images(fast)(images)


def test_a_mirror_test_needs_the_pairs_and_a_batch_one_example(fast):
    with pytest.raises(ValueError, match="mirror test of 16 joints .* not 0: pass Skeleton.mirror"):
        compiled.of_images(fast, flip=True)
    with pytest.raises(ValueError, match="1 example or more, not 0"):
        compiled.of_images(fast, largest=0)
