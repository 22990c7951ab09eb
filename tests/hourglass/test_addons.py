"""Our formulas in place of tensorflow-addons, compared with it; alone they are tested with
their users, test_optimizer.py and test_decode.py."""

import numpy as np
import pytest
import tensorflow as tf

from hourglass import addons, optimizer

# Where it is not installed, the formulas are what the other tests test.
needs_addons = pytest.mark.skipif(not addons.PRESENT, reason="tensorflow-addons is not installed")
BOTH = pytest.mark.parametrize("run", [lambda f: f, tf.function], ids=["eager", "graph"])


def theirs():
    import tensorflow_addons

    return tensorflow_addons


def trained(kind, run, decayed: bool) -> list[np.ndarray]:
    """Weights and slots after 30 steps of kernels of several sizes."""
    draw = np.random.default_rng(1)
    names = ["a/kernel", "a/bias", "b/kernel"]
    variables = [tf.Variable(draw.normal(size=[7, 3]), name=n, dtype=tf.float32) for n in names]
    rate = tf.Variable(0.01)
    opt = kind(
        weight_decay=lambda: rate * 0.5, learning_rate=lambda: rate.read_value(), epsilon=1e-8
    )
    optimizer.create_slots(opt, variables)
    options = {"decay_var_list": optimizer.decayed(variables)} if decayed else {}

    @run
    def step(now):
        opt.apply_gradients(zip(tf.unstack(now), variables), **options)

    for k in range(30):
        rate.assign(0.01 / (1 + k))
        step(tf.constant(draw.normal(size=[3, 7, 3]), tf.float32))
    return [v.numpy() for v in (*variables, *opt.variables())]


@needs_addons
@BOTH
@pytest.mark.parametrize("decayed", [True, False])
def test_adamw_is_theirs_bit_for_bit(run, decayed):
    ours, want = (trained(k, run, decayed) for k in (addons.AdamW, theirs().optimizers.AdamW))
    for a, b in zip(ours, want):
        np.testing.assert_array_equal(a, b)


@needs_addons
def test_adamw_has_their_names_in_checkpoints(tmp_path):
    def names(kind):
        opt = kind(weight_decay=lambda: 0.1, learning_rate=lambda: 0.1)
        optimizer.create_slots(opt, [tf.Variable([1.0], name="conv/kernel")])
        saved = tf.train.Checkpoint(optimizer=opt).write(str(tmp_path / "checkpoint"))
        return [v.name for v in opt.variables()], tf.train.list_variables(saved)

    assert names(addons.AdamW) == names(theirs().optimizers.AdamW)


@needs_addons
@pytest.mark.parametrize(("size", "sigma"), [(3, 0.5), (11, 2.0), (17, 3.0)])
def test_blur_is_theirs_bit_for_bit(size, sigma):
    # Theirs is always a graph, which rounds the Gaussian's sum otherwise.
    maps = tf.constant(np.random.default_rng(2).normal(size=[2, 20, 13, 5]), tf.float32)
    want = theirs().image.gaussian_filter2d(maps, size, sigma, padding="CONSTANT")
    np.testing.assert_array_equal(tf.function(addons.gaussian_filter)(maps, size, sigma), want)


def test_the_blur_by_hand():
    # One pixel's blur is the Gaussian itself; beyond the border there is nothing.
    maps = np.zeros([1, 9, 9, 2], np.float32)
    maps[0, 4, 4, 0] = maps[0, 0, 0, 1] = 1.0
    blurred = addons.gaussian_filter(tf.constant(maps), 5, 1.5).numpy()
    line = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.5**2))
    line /= line.sum()
    np.testing.assert_allclose(blurred[0, 2:7, 2:7, 0], line[:, None] * line, rtol=1e-5)
    np.testing.assert_allclose(blurred[0, :3, :3, 1], np.outer(line[2:], line[2:]), rtol=1e-5)
    assert blurred.sum(axis=(0, 1, 2))[0] == pytest.approx(1.0, rel=1e-5)
