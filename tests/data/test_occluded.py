"""What each published rule for occluded joints teaches: the gradient of the loss at their maps."""

import numpy as np
import pytest
import tensorflow as tf

from hourglass import loss
from pipelines.data import targets
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED

SIZE, SIDE = 64, 16
# Input px of heatmap px (5, 8), (9, 4) and (3, 3): a visible, an occluded and a missing joint.
POINTS = tf.constant([[[21.5, 33.5], [37.5, 17.5], [13.5, 13.5]]])
STATE = tf.constant([[LABELLED, OCCLUDED, MISSING]], tf.int32)
VISIBLE, HIDDEN, ABSENT = range(3)


def gradient(rule, answer=0.3):
    """[16, 16, 3] of two stacks' loss where the network answers ``answer`` everywhere."""
    target, weight = targets.targets(POINTS, STATE, size=SIZE, sigma=1.0, occluded=rule)
    heatmaps = tf.Variable(tf.fill([1, SIDE, SIDE, 3], answer))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loss.per_stack([heatmaps, heatmaps], target, weight, 1))
    return tape.gradient(total, heatmaps)[0].numpy()


def gaussian(x, y):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2)


# Two stacks, the square's 2, divided by all elements of the batch.
FACTOR = 2 * 2 / (SIDE * SIDE * 3)


@pytest.mark.parametrize("rule", targets.OCCLUDED)
def test_visible_joints_learn_their_gaussian_and_missing_ones_nothing(rule):
    found = gradient(rule)
    np.testing.assert_allclose(found[..., VISIBLE], FACTOR * (0.3 - gaussian(5, 8)), atol=1e-7)
    assert not found[..., ABSENT].any()


def test_train_pulls_an_occluded_joint_towards_its_gaussian():
    found = gradient("train")[..., HIDDEN]
    np.testing.assert_allclose(found, FACTOR * (0.3 - gaussian(9, 4)), atol=1e-7)
    # Descent raises the map at the joint and lowers it elsewhere.
    assert found[4, 9] < 0 and np.unravel_index(found.argmin(), found.shape) == (4, 9)
    assert found[12, 1] > 0


def test_ignore_teaches_nothing_about_an_occluded_joint():
    assert not gradient("ignore")[..., HIDDEN].any()


def test_zero_pulls_an_occluded_joint_towards_an_empty_map():
    np.testing.assert_allclose(gradient("zero")[..., HIDDEN], FACTOR * 0.3, atol=1e-7)
    # Also where the network had found the joint.
    right = gradient("zero", answer=1.0)[..., HIDDEN]
    assert (right > 0).all()


def test_descent_ends_at_what_the_rule_says():
    """Steps of half the curvature's inverse: the map of an occluded joint after plain descent."""
    ends = {"train": gaussian(9, 4), "ignore": np.full((SIDE, SIDE), 0.3), "zero": 0.0}
    for rule, end in ends.items():
        moved = 0.3 - gradient(rule)[..., HIDDEN] / FACTOR
        np.testing.assert_allclose(moved, end * np.ones((SIDE, SIDE)), atol=1e-6, err_msg=rule)
