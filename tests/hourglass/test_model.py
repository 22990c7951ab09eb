import numpy as np
import pytest
import tensorflow as tf

from hourglass import layers, loss, model
from tests.helpers.published import PUBLISHED, SMALL, _count, _expected, _images, _residual

KINDS = [(stem, block) for stem in model.STEMS for block in model.BLOCKS]


@pytest.fixture(scope="module")
def small():
    return model.build(**SMALL)


@pytest.fixture(scope="module")
def trained():
    """Networks by (stem, block), their batch norms as after some training: all arrays matter."""
    draw = np.random.default_rng(0)
    networks = {(s, b): model.build(**SMALL, stem=s, block=b, seed=5) for s, b in KINDS}
    for variable in (v for network in networks.values() for v in network.variables):
        if any(word in variable.name for word in ("gamma", "moving_variance")):
            variable.assign(draw.uniform(0.5, 1.5, variable.shape))
        if any(word in variable.name for word in ("beta", "moving_mean")):
            variable.assign(draw.normal(0, 0.3, variable.shape))
    return networks


@pytest.mark.parametrize("depth", [1, 3])
def test_width_below_the_first_grid_is_free(depth):
    network = model.build(joints=3, stacks=1, channels=8, low_channels=12, depth=depth, size=64)
    same = model.build(joints=3, stacks=1, channels=8, low_channels=8, depth=depth, size=64)
    assert _count(same.trainable_variables) == _expected("newell", 1, joints=3, c=8, depth=depth)
    # Of 3 * depth + 1 residuals the first skip keeps its width, one goes down and one comes up.
    kept = _residual(8, 8)
    wide = (3 * depth - 2) * _residual(12, 12) + _residual(8, 12) + _residual(12, 8)
    more = wide - 3 * depth * kept
    assert _count(network.trainable_variables) == _count(same.trainable_variables) + more
    assert network(_images(1, 64))[0].shape == (1, 16, 16, 3)
    skips = [layer for layer in network.layers if "skip_0_add" in layer.name]
    assert sorted(layer.output_shape[-1] for layer in skips) == [8] + [12] * (depth - 1)


@pytest.mark.parametrize(("stem", "stacks", "millions"), PUBLISHED)
def test_published_networks_have_their_published_size(stem, stacks, millions):
    expected = _expected(stem, stacks)
    assert round(expected / 1e6, 3) == millions
    network = model.build(joints=16, stacks=stacks, stem=stem)
    assert _count(network.trainable_variables) == expected
    assert [tuple(output.shape) for output in network.outputs] == [(None, 64, 64, 16)] * stacks


@pytest.mark.parametrize(("stem", "block"), KINDS)
def test_parameters_of_small_networks(trained, stem, block):
    variables = trained[stem, block].trainable_variables
    assert _count(variables) == _expected(stem, 2, joints=3, c=8, depth=2, block=block)
    norms = [v for v in variables if "gamma" in v.name or "beta" in v.name]
    moving = trained[stem, block].non_trainable_variables  # mean and variance of each norm
    assert _count(moving) == _count(norms)


@pytest.mark.parametrize(("stem", "block"), [KINDS[0], KINDS[-1]])
def test_parameters_of_deeper_blocks(stem, block):
    settings = {"joints": 14, "blocks": 2, "depth": 1, "stacks": 1, "block": block}
    network = model.build(**settings, channels=16, size=16, stem=stem)
    assert _count(network.trainable_variables) == _expected(stem, c=16, **settings)


def test_the_mobile_network_is_less_than_half_as_large():
    # At full width: hg_s2_mobile.
    network = model.build(joints=16, stacks=2, block="mobile")
    assert _count(network.trainable_variables) == _expected("newell", 2, block="mobile")
    assert _expected("newell", 2, block="mobile") < _expected("newell", 2) / 2


def _by_hand(network, images, stem, block, stacks, depth):
    """The network in plain operations, read off the paper; only the weights are the model's."""
    weights = {v.name.split(":")[0]: v for v in network.variables}

    def conv(x, name, stride=1, pad=0):
        x = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        x = tf.nn.conv2d(x, weights[f"{name}/kernel"], stride, "VALID")
        return x + weights[f"{name}/bias"]

    def norm_relu(x, name):
        mean, variance = weights[f"{name}/moving_mean"], weights[f"{name}/moving_variance"]
        x = (x - mean) / tf.sqrt(variance + 1e-5)
        return tf.maximum(x * weights[f"{name}/gamma"] + weights[f"{name}/beta"], 0.0)

    def residual(x, name):
        y = norm_relu(conv(norm_relu(x, f"{name}_bn1"), f"{name}_conv1"), f"{name}_bn2")
        if block == "mobile":
            kernel = weights[f"{name}_depthwise/depthwise_kernel"]
            y = tf.nn.depthwise_conv2d(y, kernel, [1, 1, 1, 1], "SAME")
        else:
            y = conv(y, f"{name}_conv2", pad=1)
        y = conv(norm_relu(y, f"{name}_bn3"), f"{name}_conv3")
        return y + (conv(x, f"{name}_skip") if f"{name}_skip/kernel" in weights else x)

    def halve(x):
        b, h, w, c = x.shape
        return tf.reduce_max(tf.reshape(x, [b, h // 2, 2, w // 2, 2, c]), [2, 4])

    def hourglass(x, level, name):
        name = f"{name}_{level}"
        low = residual(halve(x), f"{name}_down_0")
        low = hourglass(low, level - 1, name) if level > 1 else residual(low, f"{name}_middle_0")
        low = residual(low, f"{name}_up_0")
        return residual(x, f"{name}_skip_0") + tf.repeat(tf.repeat(low, 2, axis=1), 2, axis=2)

    x = halve(residual(norm_relu(conv(images, "stem_conv", 2, 3), "stem_bn"), "stem_1"))
    x = residual(residual(x, "stem_2"), "stem_3")
    outputs = []
    for stack in range(stacks):
        name = f"stack{stack}"
        y = residual(hourglass(x, depth, f"{name}_hourglass"), f"{name}_head_0")
        y = norm_relu(conv(y, f"{name}_linear"), f"{name}_linear_bn")
        outputs.append(conv(y, f"{name}_heatmaps"))
        if stack < stacks - 1:
            x = x + conv(y, f"{name}_features_back") + conv(outputs[-1], f"{name}_heatmaps_back")
    return outputs


@pytest.mark.parametrize(("stem", "block"), KINDS)
def test_the_network_is_that_of_the_paper(trained, stem, block):
    network, images = trained[stem, block], _images()
    want = _by_hand(network, images, stem, block, stacks=2, depth=2)
    for outputs in (network(images, training=False), tf.function(network)(images)):
        for ours, theirs in zip(outputs, want):
            np.testing.assert_allclose(ours, theirs, atol=2e-5)
            assert np.std(theirs) > 0.01


@pytest.mark.parametrize(("stacks", "depth", "size", "joints"), [(1, 1, 8, 1), (3, 1, 24, 14)])
def test_one_heatmap_tensor_per_stack_at_a_quarter_of_the_input(stacks, depth, size, joints):
    network = model.build(joints=joints, stacks=stacks, depth=depth, size=size, channels=8)
    assert network.input_shape == (None, size, size, 3)
    outputs = network(_images(3, size))
    assert isinstance(outputs, tuple) and len(outputs) == stacks  # [-1] is a stack, also of one
    for output in outputs:
        assert output.shape == (3, size // model.STRIDE, size // model.STRIDE, joints)
        assert output.dtype == tf.float32


def _norms(network):
    kind = tf.keras.layers.BatchNormalization
    return [layer for layer in network.layers if isinstance(layer, kind)]


def test_batch_norm_has_the_defaults_of_the_reference(small):
    # torch: eps 1e-5, momentum 0.1, which Keras writes as 0.9.
    norms = _norms(small)
    # Three per block; blocks: three of the stem, and per stack seven of the hourglass, one head.
    assert len(norms) == 3 * (3 + 2 * 8) + 1 + 2
    for norm in norms:
        assert (norm.epsilon, norm.momentum, norm.synchronized) == (1e-5, 0.9, False)
        starts = (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        assert [set(v.numpy()) for v in starts] == [{1.0}, {0.0}, {0.0}, {1.0}]


def test_momentum_and_epsilon_reach_every_batch_norm():
    network = model.build(**{**SMALL, "stacks": 1}, bn_momentum=0.99, bn_epsilon=1e-3, remat=True)
    norms = [layer for layer in network.submodules if hasattr(layer, "moving_mean")]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.99, 1e-3)}
    for wrong in ({"bn_momentum": 1.0}, {"bn_epsilon": 0.0}):
        with pytest.raises(ValueError, match=f"{[*wrong][0]} must be "):
            model.build(**SMALL, **wrong)


def test_every_batch_norm_is_synchronised_when_asked():
    network = model.build(joints=3, stacks=1, depth=1, size=8, channels=8, sync_bn=True)
    assert {norm.synchronized for norm in _norms(network)} == {True}


def test_training_moves_the_moving_mean_by_a_tenth(trained):
    network, images = trained[KINDS[0]], _images(4)
    convolved = network.get_layer("stem_conv")(network.get_layer("stem_conv_pad")(images))
    before = [layer.moving_mean.numpy() for layer in _norms(network)]
    network(images, training=False)
    after = [layer.moving_mean.numpy() for layer in _norms(network)]
    assert all((a == b).all() for a, b in zip(after, before))
    network(images, training=True)
    after = [layer.moving_mean.numpy() for layer in _norms(network)]
    want = 0.9 * before[0] + 0.1 * np.mean(convolved, axis=(0, 1, 2))
    np.testing.assert_allclose(after[0], want, rtol=1e-4, atol=1e-6)
    assert all((a != b).any() for a, b in zip(after, before))


@pytest.mark.parametrize("block", model.BLOCKS)
def test_weights_start_as_in_torch(block):
    # torch.nn.Conv2d: kernel and bias U(+-1 / sqrt(fan_in)), fan_in = kernel height * width *
    # input channels (one per group of a depthwise convolution).
    network = model.build(joints=16, stacks=1, depth=1, channels=64, size=8, block=block)
    for layer in network.layers:
        if not isinstance(layer, (tf.keras.layers.Conv2D, tf.keras.layers.DepthwiseConv2D)):
            continue
        kernel = layer.get_weights()[0]
        deep = isinstance(layer, tf.keras.layers.DepthwiseConv2D)
        bound = (kernel.shape[0] * kernel.shape[1] * (1 if deep else kernel.shape[2])) ** -0.5
        assert np.abs(kernel).max() <= bound, layer.name
        assert np.abs(kernel).max() > 0.95 * bound, layer.name
        spread = 5 * bound / np.sqrt(3 * kernel.size)  # five standard errors of the mean
        assert abs(kernel.mean()) < spread, layer.name
        np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.1, err_msg=layer.name)
        if deep:
            assert not layer.use_bias  # the batch norm after it has one
            continue
        bias = layer.get_weights()[1]
        assert 0.5 * bound < np.abs(bias).max() <= bound, layer.name
        assert abs(bias.mean()) < bound / 2, layer.name


def _arrays(network):
    return {v.name: v.numpy() for v in network.variables}


def test_the_seed_alone_decides_the_weights(small, trained):
    tf.random.set_seed(99)
    rebuilt, other = _arrays(model.build(**SMALL)), _arrays(trained[KINDS[0]])
    for name, values in _arrays(small).items():
        np.testing.assert_array_equal(rebuilt[name], values)
        if "kernel" in name or "bias" in name:
            assert (other[name] != values).all(), name


def test_no_two_layers_start_equal(small):
    drawn = [v for n, v in _arrays(small).items() if "kernel" in n or "bias" in n]
    starts = [tuple((v.ravel() / np.abs(v).max())[:3]) for v in drawn]
    assert len(set(starts)) == len(starts)


def test_layers_that_two_networks_share_start_equal(small):
    # The seed is the layer's name: more stacks do not change those that were there.
    one, two = _arrays(model.build(**{**SMALL, "stacks": 1})), _arrays(small)
    assert set(one) < set(two)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_mixed_precision_computes_in_bfloat16_and_answers_in_float32(small):
    network = model.build(**SMALL, precision="mixed_bfloat16")
    assert {v.dtype for v in network.variables} == {tf.float32}
    convolutions = [x for x in network.layers if isinstance(x, tf.keras.layers.Conv2D)]
    assert {x.compute_dtype for x in convolutions} == {"bfloat16"}
    images = _images()
    for ours, exact in zip(network(images), small(images)):
        assert ours.dtype == tf.float32
        difference = np.abs(ours - exact)
        assert 0 < difference.max() < 0.1 * np.abs(exact).max()
    assert tf.keras.mixed_precision.global_policy().name == "float32"  # nothing outside changes


@pytest.mark.parametrize(("stem", "block"), KINDS)
def test_every_weight_has_a_gradient(trained, stem, block):
    network = trained[stem, block]
    images, target = _images(4), tf.random.stateless_uniform([4, 8, 8, 3], [2, 2])
    with tf.GradientTape() as tape:
        predicted = network(images, training=True)
        total = tf.reduce_sum(loss.per_stack(predicted, target, tf.ones([4, 3]), 4))
    for variable, gradient in zip(
        network.trainable_variables, tape.gradient(total, network.trainable_variables)
    ):
        assert gradient is not None, variable.name
        assert np.isfinite(gradient).all(), variable.name
        # A batch norm takes away what a bias or a shift before it adds.
        if "kernel" in variable.name:
            assert np.any(gradient != 0, axis=(0, 1)).all(), variable.name


def test_each_stack_learns_from_its_own_loss_and_from_those_after_it(small):
    with tf.GradientTape(persistent=True) as tape:
        first, second = (tf.reduce_sum(maps) for maps in small(_images(), training=False))
    variables = {v.name: v for v in small.trainable_variables}
    of_first, of_second = tape.gradient(first, variables), tape.gradient(second, variables)
    later = {n for n in variables if n.startswith("stack1") or "_back/" in n}
    assert {n for n, gradient in of_first.items() if gradient is None} == later
    # The second stack's loss reaches the first one's heatmaps through the way back.
    assert all(gradient is not None for gradient in of_second.values())


def test_an_example_is_judged_alone_outside_training(small):
    images = _images(3)
    together = small(images, training=False)[-1]
    for i in range(3):
        alone = small(images[i : i + 1], training=False)[-1]
        np.testing.assert_allclose(alone[0], together[i], atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stacks": 0}, "stacks must be 1 or more, not 0"),
        ({"blocks": 0}, "blocks must be 1 or more, not 0"),
        ({"depth": 0}, "depth must be 1 or more, not 0"),
        ({"joints": 0}, "joints must be 1 or more, not 0"),
        ({"channels": 4}, "channels must be a multiple of 4 from 8 up, not 4"),
        ({"channels": 10}, "channels must be a multiple of 4 from 8 up, not 10"),
        ({"size": 40}, r"size must be a multiple of 16 px for depth 2 .*not 40"),
        ({"size": 0}, r"size must be a multiple of 16 px .*not 0"),
        ({"stem": "resnet"}, r"stem 'resnet' is not one of \('newell', 'pytorch_pose'\)"),
        ({"block": "dense"}, r"block 'dense' is not one of \('residual', 'mobile'\)"),
        ({"precision": "float16"}, r"precision 'float16' is not one of .*mixed_float16"),
    ],
)
def test_wrong_arguments_are_rejected(wrong, message):
    with pytest.raises(ValueError, match=message):
        model.build(**{**SMALL, **wrong})


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "function"])
@pytest.mark.parametrize(("kind", "rtol"), [("float32", 1e-5), ("mixed_bfloat16", 2e-2)])
def test_a_wide_1x1_convolution_has_the_gradients_of_keras(wrap, kind, rtol):
    ours = layers.Pointwise(5, 1, dtype=kind)
    theirs = tf.keras.layers.Conv2D(5, 1, dtype=kind)
    images, slope = (tf.random.stateless_normal([2, 6, 6, c], [c, 1]) for c in (7, 5))
    for layer in (theirs, ours):
        layer(images)
    ours.set_weights(theirs.get_weights())

    def run(layer):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=True)
            total = tf.reduce_sum(tf.cast(outputs, tf.float32) * slope)
        return outputs, tape.gradient(total, [images, *layer.trainable_variables])

    (outputs, gradients), (expected_outputs, expected) = wrap(run)(ours), wrap(run)(theirs)
    np.testing.assert_array_equal(outputs, expected_outputs)
    for ours_, theirs_ in zip(gradients, expected):
        scale = np.abs(theirs_).max()
        np.testing.assert_allclose(ours_ / scale, theirs_ / scale, atol=rtol)


def test_the_paper_s_width_takes_it():
    network = model.build(joints=3, stacks=1, depth=1, size=32)
    wide = {layer.name for layer in network.layers if isinstance(layer, layers.Pointwise)}
    assert {"stack0_linear", "stack0_head_0_conv1", "stack0_head_0_conv3"} <= wide
    assert "stack0_heatmaps" not in wide
