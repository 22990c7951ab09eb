"""Batch norm's statistics taken anew from training people: what a validation score stands on.

Evaluation normalises by moving averages of the last batches' statistics. While the learning rate
is high, weights move so far within those batches that the averages describe another network:
validation collapses although the training loss shows nothing, and recovers as the rate falls.
BUILD_NOTES.md has the measured case. Averaged weights have no statistics of their own at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from hourglass import model
from pipelines import devices
from pipelines.data import augmentation, input_pipeline, preprocessing, tfrecords


def make(
    strategy: tf.distribute.Strategy,
    network: tf.keras.Model,
    info: tfrecords.DatasetInfo,
    *,
    people: int,
    batch: int,
    recipe: str,
    seed: int,
    mean=preprocessing.MEAN,
):
    """A context within which the network's statistics are those of its present weights.

    They are means over augmented training people, taken evenly from the whole split, the same ones
    each time (Wu and Johnson 2021, arXiv 2105.07576, section 3). Afterwards the moving averages
    are what they were, bit for bit, so that validating changes nothing in the training.

    Args:
      strategy: under which the network was created.
      network: from ``hourglass.model.build``.
      info: the record set; its "train" split is read.
      people: how many at most; 0 leaves the moving averages.
      batch: people per step over all replicas.
      recipe: of the augmentation, a key of ``augmentation.AUGMENTATIONS``.
      seed: of the augmentation.
      mean: RGB [3], subtracted from pictures in [0, 1].

    Returns:
      function() -> context manager. Its value says how stale the moving averages were: the largest
      distance of a moving mean from the mean, in standard deviations; None where nothing is done.

    Raises:
      ValueError: an empty training split.
    """
    layers = model.batch_norms(network)
    if not people or not layers:
        return contextlib.nullcontext
    variables = [layer.moving_mean for layer in layers]
    variables += [layer.moving_variance for layer in layers]
    dataset, batch = _evenly(info, strategy, people, batch)
    of_batch = _make_of_batch(
        strategy, network, augmentation.AUGMENTATIONS[recipe], seed, batch, mean
    )

    @contextlib.contextmanager
    def renewed() -> Iterator[float]:
        before = [[copy.numpy() for copy in _copies(variable)] for variable in variables]
        shares = strategy.experimental_distribute_dataset(dataset)
        found = np.mean([of_batch(share).numpy().astype(np.float64) for share in shares], 0)
        center, spread = found[0], np.maximum(found[1] - found[0] ** 2, 0.0)
        stale = np.concatenate([values[0] for values in before[: len(layers)]])
        _assign(variables, [[part] for part in _split(np.concatenate([center, spread]), before)])
        try:
            yield float(np.max(np.abs(stale - center) / np.sqrt(spread + layers[0].epsilon)))
        finally:
            _assign(variables, before)

    return renewed


def _evenly(info, strategy, people: int, batch: int) -> tuple[tf.data.Dataset, int]:
    """Full batches of at most ``people`` people from the whole training split, and their size."""
    every = -(-info.count("train") // people)
    found = -(-info.count("train") // every)
    batch = devices.round_up(min(batch, found), strategy)
    dataset = input_pipeline.evaluation(info, "train", batch=batch, every=every)
    return dataset.take(max(1, found // batch)), batch


def _make_of_batch(strategy, network, recipe: augmentation.Recipe, seed: int, batch: int, mean):
    """A function from a batch to [2, C]: mean and mean square of each norm's input channels."""

    def of_replica(share: dict) -> tf.Tensor:
        draws = augmentation.draw(recipe, seed, share["index"], batch)
        images, _ = preprocessing.images(share, network.input_shape[1], draws, mean)
        means, spreads = zip(*model.moments(network, images))
        squares = [spread + average**2 for average, spread in zip(means, spreads)]
        return tf.stack([tf.concat(means, 0), tf.concat(squares, 0)])

    @tf.function
    def of_batch(share: dict) -> tf.Tensor:
        return strategy.reduce("MEAN", strategy.run(of_replica, (share,)), axis=None)

    return of_batch


def _copies(variable) -> tuple:
    """A variable's values on all replicas, which need not agree."""
    return getattr(variable, "values", (variable,))


def _split(flat: np.ndarray, like: list) -> list[np.ndarray]:
    return np.split(flat, np.cumsum([len(values[0]) for values in like])[:-1])


def _assign(variables: list, values: list) -> None:
    for variable, kept in zip(variables, values):
        copies = _copies(variable)
        for copy, value in zip(copies, kept * (len(copies) // len(kept))):
            copy.assign(value)
