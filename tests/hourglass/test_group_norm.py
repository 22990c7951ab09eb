"""The group-normalised network: as large as published, and blind to batch and replicas."""

import numpy as np
import pytest
import tensorflow as tf

from hourglass import loss, model
from pipelines import checkpoints, devices
from tests.helpers.published import PUBLISHED, SMALL, _count, _expected, _images

# 16 channels at a lowest grid of 2 px: groups of several numbers everywhere.
GROUPED = {**SMALL, "channels": 16, "norm": "group"}


@pytest.fixture(scope="module")
def grouped():
    return model.build(**GROUPED)


def norms(network):
    return [n for n in network.layers if isinstance(n, tf.keras.layers.GroupNormalization)]


@pytest.mark.parametrize(("stem", "stacks", "millions"), PUBLISHED[1:2])
def test_as_many_weights_as_with_batch_norm_and_no_statistics(stem, stacks, millions):
    network = model.build(joints=16, stacks=stacks, stem=stem, norm="group")
    assert _count(network.trainable_variables) == _expected(stem, stacks)
    assert round(_count(network.trainable_variables) / 1e6, 3) == millions
    assert network.non_trainable_variables == []
    assert {norm.groups for norm in norms(network)} == {32}
    assert not [n for n in network.layers if isinstance(n, tf.keras.layers.BatchNormalization)]


@pytest.mark.parametrize("channels", [8, 20, 128])
def test_groups_divide_the_channels_and_hold_two_at_least(channels):
    network = model.build(joints=2, stacks=1, channels=channels, depth=1, size=8, norm="group")
    for norm in norms(network):
        width = norm.input_shape[-1]
        assert width % norm.groups == 0 and width // norm.groups >= 2, norm.name
        more = 2 * norm.groups
        assert norm.groups == 32 or width % more or width < 2 * more, norm.name


def test_a_layer_normalises_each_example_by_group():
    """Against NumPy: mean 0 and variance 1 over the grid and the channels of a group."""
    network = model.build(joints=2, stacks=1, channels=16, depth=1, size=8, norm="group")
    norm = norms(network)[0]
    x = np.random.default_rng(0).normal(3, 2, [2, 4, 4, norm.input_shape[-1]]).astype(np.float32)
    groups = x.reshape(2, 4, 4, norm.groups, -1)
    mean = groups.mean((1, 2, 4), keepdims=True)
    spread = np.sqrt(groups.var((1, 2, 4), keepdims=True) + 1e-5)
    np.testing.assert_allclose(norm(x), ((groups - mean) / spread).reshape(x.shape), atol=1e-5)


def test_an_example_is_judged_alone_also_in_training(grouped):
    images = _images(3)
    together = grouped(images, training=True)
    # Groups of few numbers enlarge the rounding of sums taken in another order.
    for maps, alone in zip(together, grouped(images[1:2], training=True)):
        np.testing.assert_allclose(maps[1:2], alone, atol=5e-5)
    for maps, frozen in zip(together, grouped(images, training=False)):
        np.testing.assert_allclose(maps, frozen, atol=5e-5)
    batch = model.build(**{**GROUPED, "norm": "batch"})
    other = batch(images, training=True)[0][1:2] - batch(images[1:2], training=True)[0]
    assert np.abs(other).max() > 0.01  # which is what this test would see


def gradients_of(strategy, images, target):
    """Gradients summed over the replicas, each of which sees its share of the four examples."""
    with strategy.scope():
        network = model.build(**{**GROUPED, "stacks": 1, "depth": 1, "size": 16})
    replicas = strategy.num_replicas_in_sync

    @tf.function
    def step(context_images, context_target):
        with tf.GradientTape() as tape:
            maps = network(context_images, training=True)
            weight = tf.ones([len(context_images), 3])
            total = tf.reduce_sum(loss.per_stack(maps, context_target, weight, 4))
        gradients = tape.gradient(total, network.trainable_variables)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)

    shares = [
        strategy.experimental_distribute_values_from_function(
            lambda context, whole=whole: tf.split(whole, replicas)[context.replica_id_in_sync_group]
        )
        for whole in (images, target)
    ]
    summed = strategy.run(step, shares)
    return [strategy.experimental_local_results(g)[0].numpy() for g in summed]


@pytest.mark.slow
@pytest.mark.fire
def test_two_replicas_have_the_gradients_of_one(two_replicas):
    """Without synchronising anything; the batch-normalised network needs --sync_bn for this."""
    images = _images(4, size=16)
    target = tf.random.stateless_uniform([4, 4, 4, 3], [2, 2])
    one = gradients_of(devices.make_strategy("one"), images, target)
    two = gradients_of(two_replicas, images, target)
    largest = max(np.abs(gradient).max() for gradient in one)
    assert largest > 1e-3
    for ours, theirs in zip(one, two):
        # A convolution of two pictures rounds otherwise than one of four: a ReLU may flip.
        np.testing.assert_allclose(theirs, ours, atol=3e-3 * largest)


def test_bfloat16_normalises_in_float32(grouped):
    network = model.build(**GROUPED, precision="mixed_bfloat16")
    assert {norm.compute_dtype for norm in norms(network)} == {"float32"}
    for ours, exact in zip(network(_images()), grouped(_images())):
        assert ours.dtype == tf.float32
        difference = np.abs(ours - exact)
        assert 0 < difference.max() < 0.1 * np.abs(exact).max()


def test_weights_of_the_other_norm_are_rejected(grouped, tmp_path):
    batch = model.build(**{**GROUPED, "norm": "batch"})
    prefix = checkpoints.state(tf.Variable(0), batch, None, None).save(str(tmp_path / "ckpt"))
    with pytest.raises(ValueError, match="another network: stem_gn"):
        checkpoints.start_from(prefix, grouped, set())
