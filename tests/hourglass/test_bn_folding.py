"""The folded network gives what the plain one gives, with less in it."""

import numpy as np
import pytest
import tensorflow as tf

from hourglass import bn_folding, model
from tests.helpers.networks import far_from_identity

layers = tf.keras.layers
# 16 channels, so that group norm has groups of several numbers.
SMALL = {"joints": 3, "channels": 16, "depth": 1, "size": 16}
KINDS = {
    "newell": {"stem": "newell", "stacks": 3},
    "one stack": {"stem": "newell", "stacks": 1},
    "pytorch_pose": {"stem": "pytorch_pose", "stacks": 1, "blocks": 2},
    "pytorch_pose, 2 stacks": {"stem": "pytorch_pose", "stacks": 2},
    "mobile": {"block": "mobile", "stacks": 2},
    "group": {"norm": "group", "stacks": 2},
    "mobile group": {"block": "mobile", "norm": "group", "stacks": 1},
    "synchronised, large epsilon": {"sync_bn": True, "stacks": 1, "bn_epsilon": 1e-3},
}


@pytest.fixture(scope="module")
def pairs():
    """(plain, folded) by kind."""
    plain = {n: far_from_identity(model.build(**SMALL, **more)) for n, more in KINDS.items()}
    return {name: (network, bn_folding.fold(network)) for name, network in plain.items()}


def _images(batch=3, size=16):
    return tf.random.stateless_normal([batch, size, size, 3], [0, 1])


def _names(network, kind):
    return {layer.name for layer in network.layers if isinstance(layer, kind)}


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_last_stack_of_the_plain_network(pairs, kind):
    plain, fast = pairs[kind]
    images = _images()
    want = plain(images, training=False)[-1].numpy()
    assert want.std() > 0.05
    for outputs in (fast(images), fast(images, training=True), tf.function(fast)(images)):
        assert isinstance(outputs, tuple) and len(outputs) == 1
        assert outputs[0].dtype == tf.float32
        np.testing.assert_allclose(outputs[0], want, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize("kind", KINDS)
def test_only_norms_after_additions_and_pools_are_left(pairs, kind):
    plain, fast = pairs[kind]
    norms = (layers.BatchNormalization, layers.GroupNormalization)
    if "group" in kind:  # statistics of the picture itself: no constant to fold
        heads = {f"stack{s}_linear_gn" for s in range(KINDS[kind]["stacks"])}
        assert _names(fast, norms) == _names(plain, norms) >= heads
        return
    # A block's first norm follows an addition or a pool, but that of stem_1: stem_conv, ReLU.
    assert _names(fast, norms) == {n for n in _names(plain, norms) if n.endswith("_bn1")}


@pytest.mark.parametrize("kind", ["newell", "group"])
def test_one_way_back_and_one_head(pairs, kind):
    plain, fast = pairs[kind]
    stacks = len(plain.outputs)
    convolutions = _names(plain, layers.Conv2D)
    gone = {f"stack{s}_{n}" for s in range(stacks - 1) for n in ("heatmaps", "heatmaps_back")}
    assert len(gone) == 2 * (stacks - 1)
    assert _names(fast, layers.Conv2D) == convolutions - gone
    assert f"stack{stacks - 2}_features_back" in convolutions - gone
    assert fast.count_params() < plain.count_params()


def test_the_plain_network_stays_and_later_training_does_not_reach_the_folded_one():
    plain = far_from_identity(model.build(**SMALL, stacks=1))
    images, before = _images(), [v.numpy() for v in plain.variables]
    want = plain(images, training=False)[0].numpy()
    fast = bn_folding.fold(plain)
    assert all((v.numpy() == old).all() for v, old in zip(plain.variables, before))
    np.testing.assert_array_equal(plain(images, training=False)[0], want)
    assert not fast.trainable_variables
    for variable in plain.variables:
        variable.assign(variable + 1)
    np.testing.assert_allclose(fast(images)[0], want, atol=1e-4)


def test_bfloat16_stays_near_float32():
    arguments = {**SMALL, "stacks": 2}
    plain = far_from_identity(model.build(**arguments))
    half = model.build(**arguments, precision="mixed_bfloat16")
    half.set_weights(plain.get_weights())
    fast = bn_folding.fold(half)
    assert {n.compute_dtype for n in fast.layers if isinstance(n, layers.Conv2D)} == {"bfloat16"}
    images = _images(8)
    want = plain(images, training=False)[-1].numpy()
    errors = [np.abs(n(images, training=False)[-1] - want) for n in (half, fast)]
    assert 0 < errors[1].max() < 0.1 * np.abs(want).max()
    # Folding rounds no more often than the plain network does.
    assert errors[1].mean() < 1.5 * errors[0].mean()


def _network(outputs, images, weights):
    """A Keras graph with ``weights`` {layer: arrays}, then folded."""
    plain = tf.keras.Model(images, outputs)
    for name, arrays in weights.items():
        plain.get_layer(name).set_weights([np.float32(array) for array in arrays])
    return plain, bn_folding.fold(plain)


# gamma 4, beta 5, mean 1, variance + eps 0.25: 8 (x - 1) + 5.
NORM = [[4.0], [5.0], [1.0], [0.25 - 1e-5]]


def test_a_convolution_and_its_norm_by_hand():
    images = tf.keras.Input([4, 4, 1])
    x = layers.BatchNormalization(epsilon=1e-5, name="norm")(
        layers.Conv2D(1, 1, name="conv")(images)
    )
    _, fast = _network((x,), images, {"conv": [[[[[2.0]]]], [3.0]], "norm": NORM})
    # 8 (2 x + 3 - 1) + 5
    assert [layer.name for layer in fast.layers[1:]] == ["conv"]
    np.testing.assert_allclose(fast.layers[1].kernel, [[[[16.0]]]], rtol=1e-6)
    np.testing.assert_allclose(fast.layers[1].bias, [21.0], rtol=1e-6)


@pytest.mark.parametrize("norm", [{}, {"scale": False}, {"center": False}])
@pytest.mark.parametrize("kind", [layers.Conv2D, layers.Conv2DTranspose])
def test_plain_keras_layers(kind, norm):
    """As in a network of a user's own: as many channels in as out would hide a wrong axis."""
    images = tf.keras.Input([8, 8, 3])
    x = kind(5, 4, 2, "same", name="conv")(images)
    x = layers.BatchNormalization(**norm)(x)
    network = far_from_identity(tf.keras.Model(images, (layers.Conv2D(2, 1)(x),)))
    folded = bn_folding.fold(network)
    assert not _names(folded, layers.BatchNormalization)
    want = network(_images(size=8), training=False)[-1].numpy()
    np.testing.assert_allclose(folded(_images(size=8))[0], want, atol=2e-5 * np.abs(want).max())


def test_two_ways_back_by_hand():
    images = tf.keras.Input([4, 4, 2])
    matrices = {
        "features_back": [[[[[1.0, 2.0], [3.0, 4.0]]]], [1.0, 2.0]],
        "heatmaps": [[[[[5.0], [6.0]]]], [7.0]],
        "heatmaps_back": [[[[[1.0, 10.0]]]], [0.0, 100.0]],
    }
    features = layers.ReLU()(images)
    maps = layers.Conv2D(1, 1, name="heatmaps")(features)
    back = layers.Conv2D(2, 1, name="features_back")(features)
    second = layers.Conv2D(2, 1, name="heatmaps_back")(maps)
    _, fast = _network((layers.Add()([images, back, second]),), images, matrices)
    (one,) = (layer for layer in fast.layers if isinstance(layer, layers.Conv2D))
    # [[1, 2], [3, 4]] + [[5], [6]] [[1, 10]]; [1, 2] + 7 [1, 10] + [0, 100]
    np.testing.assert_array_equal(one.kernel[0, 0], [[6, 52], [9, 64]])
    np.testing.assert_array_equal(one.bias, [8, 172])


def _used_twice(images):
    x = layers.Conv2D(1, 3, padding="same", name="conv")(images)
    return layers.Add()([x, layers.BatchNormalization(epsilon=1e-5, name="norm")(x)])


def _bent_before(images):
    x = layers.Conv2D(1, 3, activation="relu", name="conv")(images)
    return layers.BatchNormalization(epsilon=1e-5, name="norm")(x)


@pytest.mark.parametrize("graph", [_used_twice, _bent_before])
def test_what_cannot_be_folded_stays(graph):
    images = tf.keras.Input([4, 4, 1])
    kernel = np.arange(-4.0, 5).reshape(3, 3, 1, 1)
    plain, fast = _network((graph(images),), images, {"conv": [kernel, [3.0]], "norm": NORM})
    assert _names(fast, layers.BatchNormalization) == {"norm"}
    picture = tf.random.stateless_normal([2, 4, 4, 1], [0, 1])
    np.testing.assert_allclose(fast(picture)[0], plain(picture)[0], rtol=1e-5)
