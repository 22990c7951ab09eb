import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from hourglass import loss

BOTH = pytest.mark.parametrize("run", [lambda f: f, tf.function], ids=["eager", "graph"])
FEW = hypothesis.settings(max_examples=20, deadline=None, derandomize=True)


def _random(seed, batch=4, stacks=2):
    draw = np.random.default_rng(seed)
    shape = [batch, 3, 3, 2]
    predicted = [tf.constant(draw.normal(size=shape), tf.float32) for _ in range(stacks)]
    target = tf.constant(draw.uniform(size=shape), tf.float32)
    return predicted, target, tf.constant(draw.integers(0, 2, [batch, 2]), tf.float32)


@BOTH
def test_the_loss_by_hand(run):
    # One person, 1 x 2 px, two joints: [y, x, j].
    target = tf.constant([[[[0.0, 1.0], [0.0, 0.0]]]])
    first = tf.constant([[[[1.0, 1.0], [2.0, 3.0]]]])  # errors 1, 0, 2, 3 -> squares 1, 0, 4, 9
    second = tf.constant([[[[0.5, 1.0], [0.0, 0.0]]]])  # squares 0.25, 0, 0, 0
    losses = run(loss.per_stack)([first, second], target, tf.constant([[1.0, 1.0]]), 1)
    np.testing.assert_array_equal(losses, [14 / 4, 0.25 / 4])
    assert losses.dtype == tf.float32


@BOTH
def test_a_weight_of_0_silences_one_joint_and_leaves_the_divisor(run):
    target = tf.constant([[[[0.0, 1.0], [0.0, 0.0]]]])
    first = tf.constant([[[[1.0, 1.0], [2.0, 3.0]]]])
    per_stack = run(lambda weight: loss.per_stack([first], target, weight, 1))
    np.testing.assert_array_equal(per_stack(tf.constant([[1.0, 0.0]])), [(1 + 4) / 4])
    np.testing.assert_array_equal(per_stack(tf.constant([[0.0, 1.0]])), [(0 + 9) / 4])
    np.testing.assert_array_equal(per_stack(tf.constant([[0.5, 2.0]])), [(2.5 + 18) / 4])
    np.testing.assert_array_equal(per_stack(tf.zeros([1, 2])), [0])


def test_a_joint_weighs_the_same_whatever_else_is_missing():
    (predicted, *_), target, _ = _random(0)
    alone, all_but, everything = np.zeros([4, 2]), np.ones([4, 2]), np.ones([4, 2])
    alone[2, 1], all_but[2, 1] = 1, 0
    one, rest, whole = (
        loss.per_stack([predicted], target, tf.constant(weight, tf.float32), 4)[0].numpy()
        for weight in (alone, all_but, everything)
    )
    np.testing.assert_allclose(one + rest, whole, rtol=1e-6)


def test_a_silenced_joint_has_no_gradient():
    predicted, target, _ = _random(1)
    weight = tf.constant([[1.0, 0.0]] * 4)
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        total = tf.reduce_sum(loss.per_stack(predicted, target, weight, 4))
    for gradient, stack in zip(tape.gradient(total, predicted), predicted):
        np.testing.assert_array_equal(gradient[..., 1], np.zeros([4, 3, 3]))
        want = 2 * (stack - target)[..., 0] / (4 * 3 * 3 * 2)
        np.testing.assert_allclose(gradient[..., 0], want, rtol=1e-6)


def test_with_all_weights_1_it_is_the_mean_squared_error():
    predicted, target, _ = _random(2, stacks=3)
    losses = loss.per_stack(predicted, target, tf.ones([4, 2]), 4)
    want = [np.mean((p.numpy() - target.numpy()) ** 2) for p in predicted]
    np.testing.assert_allclose(losses, want, rtol=1e-6)


@BOTH
@pytest.mark.parametrize("cuts", [[2], [1, 2, 3], [3]])
def test_replicas_add_up_to_the_whole_batch(run, cuts):
    # Also replicas of different size, as at the end of an epoch.
    predicted, target, weight = _random(3)
    per_stack = run(lambda p, t, w: loss.per_stack(p, t, w, 4))
    edges = list(zip([0, *cuts], [*cuts, 4]))
    parts = [per_stack([p[a:b] for p in predicted], target[a:b], weight[a:b]) for a, b in edges]
    np.testing.assert_allclose(sum(parts), per_stack(predicted, target, weight), rtol=1e-6)


@FEW
@hypothesis.given(st.integers(0, 2**32 - 1), st.permutations(range(4)))
def test_the_order_of_the_examples_does_not_matter(seed, order):
    predicted, target, weight = _random(seed)
    want = loss.per_stack(predicted, target, weight, 4)
    moved = [tf.gather(values, order) for values in (*predicted, target, weight)]
    np.testing.assert_allclose(loss.per_stack(moved[:2], *moved[2:], 4), want, rtol=1e-5)


def test_half_precision_predictions_are_compared_in_float32():
    predicted = tf.cast(tf.fill([1, 64, 64, 16], 1.0), tf.bfloat16)
    target = tf.fill([1, 64, 64, 16], 1.001)  # bfloat16 cannot tell this from 1
    losses = loss.per_stack([predicted], target, tf.ones([1, 16]), 1)
    np.testing.assert_allclose(losses, [1e-6], rtol=1e-3)
