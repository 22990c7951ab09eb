"""Batch norm's statistics recomputed from training examples, on which validation scores depend.

Evaluation normalises by moving averages of the last batches' statistics. While the learning rate
is high, weights move so far within those batches that the averages describe another network:
validation collapses although the training loss shows nothing, and recovers as the rate falls.
docs/collapse.md has the measured case. Averaged weights have no statistics of their own at all.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from pipelines import devices
from pipelines.data import augmentation, input_pipeline, tfrecords


def batch_norms(network: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """Layers of any class with a moving mean and variance, always in the same order."""
    names = ("moving_mean", "moving_variance", "epsilon", "axis")
    return [layer for layer in network.submodules if all(hasattr(layer, name) for name in names)]


def make(
    strategy: tf.distribute.Strategy,
    network: tf.keras.Model,
    info: tfrecords.DatasetInfo,
    options: augmentation.BatchOptions,
    *,
    examples: int,
    batch_size: int,
    each_batch: Callable[[], None] = lambda: None,
):
    """A context in which the network's batch norm statistics match its current weights.

    They are means over augmented training examples, taken evenly from the whole split, the same
    ones each time (Wu and Johnson 2021, arXiv 2105.07576, section 3). Afterwards the moving
    averages are what they were, bit for bit, so that validating changes nothing in the training.

    Args:
      strategy: the one under which the network was created.
      network: [B, size, size, 3] -> heatmaps; its batch norms may be of any class.
      info: the record set; its "train" split is read.
      options: of the training batches.
      examples: maximum number; 0 keeps the moving averages.
      batch_size: examples per step over all replicas.
      each_batch: called before each batch; what it raises ends the context, as before it.

    Returns:
      function() -> context manager. Its value is the staleness of the moving averages: the largest
      distance of a moving mean from the mean, in standard deviations; None if there is nothing to
      recompute.

    Raises:
      ValueError: an empty training split, or statistics that cannot be recomputed.
    """
    layers = batch_norms(network)
    if not examples:
        return contextlib.nullcontext
    _check_all_recomputable(network)
    if not layers:
        return contextlib.nullcontext
    variables = [layer.moving_mean for layer in layers]
    variables += [layer.moving_variance for layer in layers]
    dataset, batch_size = _evenly(info, strategy, examples, batch_size)
    options = options.with_batch_size(batch_size)
    statistics = _make_statistics(strategy, network, options)

    @contextlib.contextmanager
    def recomputed() -> Iterator[float]:
        before = [[copy.numpy() for copy in _copies(variable)] for variable in variables]
        try:
            shares = strategy.experimental_distribute_dataset(dataset)
            sums = []
            for share in shares:
                each_batch()
                sums.append(statistics(share).numpy().astype(np.float64))
            means, squares = np.mean(sums, 0)
            variances = np.maximum(squares - means**2, 0.0)
            _assign(variables, [[v] for v in _split(np.concatenate([means, variances]), before)])
            moving = np.concatenate([values[0] for values in before[: len(layers)]])
            yield float(np.max(np.abs(moving - means) / np.sqrt(variances + layers[0].epsilon)))
        finally:
            _assign(variables, before)

    return recomputed


def unknown_statistics(network: tf.keras.Model) -> list[str]:
    """Names of the statistics that ``make`` cannot recompute."""
    layers = batch_norms(network)
    known = {id(v) for layer in layers for v in (layer.moving_mean, layer.moving_variance)}
    statistics = [v for v in network.variables if not v.trainable and v.dtype.is_floating]
    return [v.name for v in statistics if id(v) not in known]


def _check_all_recomputable(network: tf.keras.Model) -> None:
    unknown = unknown_statistics(network)
    if unknown:
        raise ValueError(
            f"{', '.join(unknown[:4])}: not trainable, and cannot be recomputed for validation, "
            "because the layer lacks Keras batch norm's attributes moving_mean, moving_variance, "
            "epsilon and axis; add them, or set --precise_bn_examples=0 to validate with these "
            "statistics as they are"
        )


def _evenly(info, strategy, examples: int, batch_size: int) -> tuple[tf.data.Dataset, int]:
    """Full batches of at most ``examples`` from the whole training split, and their size."""
    every = -(-info.count("train") // examples)
    taken = -(-info.count("train") // every)
    batch_size = devices.round_up(min(batch_size, taken), strategy)
    dataset = input_pipeline.evaluation(info, "train", batch=batch_size, every=every)
    return dataset.take(max(1, taken // batch_size)), batch_size


def _make_statistics(strategy, network, options: augmentation.BatchOptions):
    """A function from a batch to [2, C]: mean and mean square of each norm's input channels."""
    layers = batch_norms(network)
    seen: dict[tuple, tuple] = {}

    def of_replica(share: dict) -> tf.Tensor:
        images, _ = augmentation.images(
            share, options.size, options.draw(share["index"]), options.mean
        )
        network(images, training=True)
        means, variances = zip(*(seen[_replica(), id(layer)] for layer in layers))
        squares = [variance + mean**2 for mean, variance in zip(means, variances)]
        return tf.stack([tf.concat(means, 0), tf.concat(squares, 0)])

    @tf.function(autograph=False)
    def statistics(share: dict) -> tf.Tensor:
        # Around all replicas: synchronised norms are traced one replica after the other.
        with _recording(layers, seen):
            shares = strategy.run(of_replica, (share,))
        return strategy.reduce("MEAN", shares, axis=None)

    return statistics


@contextlib.contextmanager
def _recording(layers: list, seen: dict) -> Iterator[None]:
    """Make calls of ``layers`` record (mean [C], variance [C]) of their input in ``seen``."""
    for layer in layers:
        layer.call = functools.partial(_record_and_call, layer, seen)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call  # back to the class's method


def _record_and_call(layer, seen: dict, x: tf.Tensor, *arguments, **options):
    (channels,) = np.atleast_1d(layer.axis) % len(x.shape)
    others = [axis for axis in range(len(x.shape)) if axis != channels]
    seen[_replica(), id(layer)] = tf.nn.moments(tf.cast(x, tf.float32), others)
    return type(layer).call(layer, x, *arguments, **options)


def _replica() -> int:
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return int(tf.get_static_value(tf.convert_to_tensor(replica)))


def _copies(variable) -> tuple:
    """A variable's values on all replicas, which need not agree."""
    return getattr(variable, "values", (variable,))


def _split(flat: np.ndarray, like: list) -> list[np.ndarray]:
    return np.split(flat, np.cumsum([len(values[0]) for values in like])[:-1])


def _assign(variables: list, values: list) -> None:
    for variable, saved in zip(variables, values):
        copies = _copies(variable)
        for copy, value in zip(copies, saved * (len(copies) // len(saved))):
            copy.assign(value)
