"""Batch norm's statistics from training examples: by hand, on replicas, and in a whole training."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hourglass import model
from hourglass.skeleton import MPII
from pipelines import checkpoints, devices
from pipelines.data import augmentation, input_pipeline, preprocessing
from pipelines.training import precise_bn, train
from tests.helpers.people import tiny

SIZE = 32
OPTIONS = augmentation.BatchOptions("none", 3, 8, SIZE, MPII.mirror)


def build(**options):
    return model.build(
        joints=16, stacks=1, channels=8, depth=1, size=SIZE, **{"seed": 4, **options}
    )


def statistics(network) -> list[np.ndarray]:
    layers = precise_bn.batch_norms(network)
    return [v.numpy() for layer in layers for v in (layer.moving_mean, layer.moving_variance)]


def pictures(info, count):
    batch = next(iter(input_pipeline.evaluation(info, "train", batch=count)))
    return preprocessing.images(batch, SIZE)[0]


def test_statistics_of_several_batches_are_those_of_all_their_pixels(info):
    network, strategy = build(), devices.make_strategy("one")
    first = [layer.name for layer in precise_bn.batch_norms(network)].index("stem_bn")
    recomputed = precise_bn.make(strategy, network, info, OPTIONS, examples=24, batch_size=4)
    of_stem = tf.keras.Model(network.input, network.get_layer("stem_conv").output)
    features = of_stem(pictures(info, 24))
    with recomputed():
        mean, variance = statistics(network)[2 * first : 2 * first + 2]
    np.testing.assert_allclose(mean, np.mean(features, (0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(variance, np.var(features, (0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize("sync_bn", [False, pytest.param(True, marks=pytest.mark.fire)])
def test_two_replicas_have_the_statistics_of_one(info, two_replicas, sync_bn):
    """Without synchronisation, those of one replica with batches of their shares."""
    results = []
    for strategy, batch in ((devices.make_strategy("one"), 8 if sync_bn else 4), (two_replicas, 8)):
        with strategy.scope():
            network = build(sync_bn=sync_bn)
        recomputed = precise_bn.make(
            strategy, network, info, OPTIONS, examples=24, batch_size=batch
        )
        with recomputed():
            results.append(statistics(network))
    for one, two in zip(*results):
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-5)


def test_moving_averages_are_restored_on_every_replica_even_after_an_error(info, two_replicas):
    with two_replicas.scope():
        network = build()
    averages = [layer.moving_mean for layer in precise_bn.batch_norms(network)]
    for variable in averages:
        for k, copy in enumerate(variable.values):
            copy.assign(np.full(copy.shape, 0.1 + k, np.float32))
    recomputed = precise_bn.make(two_replicas, network, info, OPTIONS, examples=24, batch_size=8)
    with pytest.raises(KeyError), recomputed():
        assert all((abs(copy.numpy() - 1.1) > 1e-3).all() for copy in averages[0].values)
        raise KeyError
    for variable in averages:
        values = [copy.numpy() for copy in variable.values]
        np.testing.assert_equal(
            values, [np.full_like(v, np.float32(0.1 + k)) for k, v in enumerate(values)]
        )


def test_staleness_is_reported_and_changes_no_prediction(info):
    network, images = build(), pictures(info, 4)
    strategy = devices.make_strategy("one")
    recomputed = precise_bn.make(strategy, network, info, OPTIONS, examples=24, batch_size=8)
    layer = network.get_layer("stem_bn")
    with recomputed():
        center, spread = layer.moving_mean.numpy(), layer.moving_variance.numpy()
        expected = network(images, training=False)[-1].numpy()
        fresh = [(v, v.numpy()) for v in network.non_trainable_variables]
    for variable, value in fresh:
        variable.assign(value)
    layer.moving_mean.assign(center + 5 * np.sqrt(spread + 1e-5))
    assert np.abs(network(images, training=False)[-1] - expected).max() > 1e-3
    with recomputed() as stale:
        assert stale == pytest.approx(5, rel=1e-3)
        np.testing.assert_allclose(network(images, training=False)[-1], expected, atol=1e-5)


@pytest.mark.parametrize("examples", [1, 5, 13, 24, 1000])
def test_at_most_the_requested_examples_none_twice_from_the_whole_split(info, examples):
    everybody = info.count("train")
    strategy = devices.make_strategy("one")
    dataset, batch = precise_bn._evenly(info, strategy, examples, 4)
    indices = np.concatenate([share["index"] for share in dataset])
    taken = min(examples, everybody)
    assert taken / 2 - batch < len(indices) <= taken and batch <= 4
    every = -(-everybody // taken)
    np.testing.assert_array_equal(indices, np.arange(len(indices)))  # of every ``every``-th
    assert (len(indices) + batch) * every >= everybody


@pytest.mark.parametrize(("norm", "examples"), [("batch", 0), ("group", 24)])
def test_nothing_is_recomputed_without_examples_or_batch_norm(info, norm, examples):
    network = build(norm=norm)
    before = statistics(network)
    recomputed = precise_bn.make(
        devices.make_strategy("one"), network, info, OPTIONS, examples=examples, batch_size=8
    )
    with recomputed() as stale:
        assert stale is None
        np.testing.assert_equal(statistics(network), before)


@pytest.mark.slow
def test_validation_and_best_checkpoint_use_recomputed_statistics(tmp_path, info):
    config = tiny(tmp_path / "run", info, precise_bn_examples=24)
    assert train.run(config) == 0
    events = EventAccumulator(str(pathlib.Path(config.workdir) / "logs")).Reload()
    for weights in ("raw", "averaged"):
        seen = events.Tensors(f"validation {weights}/batch_norm_staleness")
        assert [one.step for one in seen] == [6, 12]
        assert all(float(tf.make_ndarray(one.tensor_proto)) > 0.1 for one in seen)
    best = checkpoints.find(f"{config.workdir}/best")
    same_step = f"{config.workdir}/checkpoints/{pathlib.Path(best).name}"
    kept, passing = (checkpoints.load_network(path, weights="raw")[0] for path in (best, same_step))
    for one, other in zip(kept.trainable_variables, passing.trainable_variables):
        np.testing.assert_array_equal(one, other)
    strategy = devices.make_strategy("one")
    options = train.step_options(config, info.skeleton).batch
    recomputed = precise_bn.make(strategy, passing, info, options, examples=24, batch_size=4)
    assert np.abs(statistics(passing)[0] - statistics(kept)[0]).max() > 0.01
    with recomputed():
        for one, other in zip(statistics(passing), statistics(kept)):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def plain_keras(norm) -> tf.keras.Model:
    """A network of Keras' own layers, with ``norm`` between its two convolutions."""
    images = tf.keras.Input([SIZE, SIZE, 3])
    x = tf.keras.layers.Conv2D(4, 4, 4, name="conv")(images)
    return tf.keras.Model(images, (tf.keras.layers.Conv2D(16, 1)(norm(x)),))


@pytest.mark.parametrize("replicas", [1, 2])
def test_batch_norm_of_any_class_is_recomputed(info, two_replicas, replicas):
    strategy = two_replicas if replicas == 2 else devices.make_strategy("one")
    with strategy.scope():
        network = plain_keras(tf.keras.layers.BatchNormalization(name="norm"))
    features = tf.keras.Model(network.input, network.get_layer("conv").output)(pictures(info, 24))
    recomputed = precise_bn.make(strategy, network, info, OPTIONS, examples=24, batch_size=8)
    with recomputed():
        (norm,) = precise_bn.batch_norms(network)
        np.testing.assert_allclose(norm.moving_mean, np.mean(features, (0, 1, 2)), atol=1e-5)
        np.testing.assert_allclose(norm.moving_variance, np.var(features, (0, 1, 2)), rtol=1e-3)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), np.zeros(4))


class RunningMean(tf.keras.layers.Layer):
    """Subtracts a mean that training moves, under unknown names."""

    def build(self, shape):
        self.running = self.add_weight("running", shape[-1:], trainable=False)

    def call(self, x, training=None):
        return x - self.running


def test_statistics_that_cannot_be_recomputed_are_an_error(info):
    network, strategy = plain_keras(RunningMean(name="own")), devices.make_strategy("one")
    arguments = {"strategy": strategy, "network": network, "info": info, "options": OPTIONS}
    with pytest.raises(ValueError, match="own/running:0: not trainable.*--precise_bn_examples=0"):
        precise_bn.make(**arguments, examples=24, batch_size=8)
    precise_bn.make(**arguments, examples=0, batch_size=8)
