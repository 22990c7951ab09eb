"""tf.data: records -> batches of uint8 crops with static shapes; no float work on the host.

The place in the data is arithmetic, not iterator state: example i of the endless training
sequence is example i % N of epoch i // N, and every epoch has its own seeded order. A resumed run
skips what was consumed before decoding it.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from pipelines import records

NOBODY = -1

# Batches that lie ready on each device.
AHEAD = tf.distribute.InputOptions(experimental_per_replica_buffer_size=2)


def _deterministic(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


def _epoch(shards: list[str], seed: int, epoch: tf.Tensor, buffer: int) -> tf.data.Dataset:
    """Serialized records of one epoch in the order that (seed, epoch) gives."""
    order = tf.random.experimental.stateless_shuffle(shards, tf.stack([seed, epoch]))
    serialized = tf.data.Dataset.from_tensor_slices(order).interleave(
        tf.data.TFRecordDataset,
        cycle_length=min(len(shards), 16),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return serialized.shuffle(buffer, seed=seed + epoch * 1_000_003, reshuffle_each_iteration=False)


def training(
    info: records.DatasetInfo, *, batch: int, seed: int, start: int = 0, buffer: int = 0
) -> tf.data.Dataset:
    """Endless training batches from example ``start`` of the sequence on.

    Args:
      info: the record set; its "train" split is read.
      batch: global batch; batches run across the ends of epochs, so no sample is ever dropped.
      seed: of the order.
      start: examples consumed before.
      buffer: records (still compressed) held for shuffling; 0 holds them all: a full shuffle.

    Returns:
      Dataset of dicts as ``records.decode`` gives, batched, with "index" [B] int64, each
      example's place in the sequence.

    Raises:
      ValueError: an empty split.
    """
    people = info.count("train")
    shards, buffer = info.shards("train"), buffer or people
    seed64, first = tf.constant(seed, tf.int64), start // people

    def epoch_from(epoch: tf.Tensor) -> tf.data.Dataset:
        done = tf.where(epoch == first, tf.constant(start % people, tf.int64), 0)
        return _epoch(shards, seed64, epoch, buffer).skip(done)

    serialized = tf.data.Dataset.range(first, tf.int64.max).flat_map(epoch_from)
    decoded = serialized.map(_decoder(info, ("id", "row")), num_parallel_calls=tf.data.AUTOTUNE)
    indexed = tf.data.Dataset.zip((decoded, tf.data.Dataset.range(start, tf.int64.max)))
    named = indexed.map(lambda example, index: {**example, "index": index})
    return _deterministic(named.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE))


def _decoder(info: records.DatasetInfo, unused: tuple[str, ...]):
    joints, canvas = len(info.skeleton), info.geometry.canvas

    def decode(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        example = records.decode(serialized, joints=joints, canvas=canvas)
        return {key: value for key, value in example.items() if key not in unused}

    return decode


def _serialized(info: records.DatasetInfo, split: str, every: int = 1) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(info.shards(split)).shard(every, 0)


def evaluation(
    info: records.DatasetInfo, split: str, *, batch: int, every: int = 1
) -> tf.data.Dataset:
    """Pixels of each person of a split exactly once, in the order of ``facts``, in full batches.

    The last batch is filled up with copies of the first person, whose "index" is -1.

    Args:
      info: the record set.
      split: "train", "validation" or "test".
      batch: people per batch over all replicas.
      every: take only every n-th person.

    Returns:
      Dataset of dicts: image, center, side as ``records.decode`` gives, batched, and "index" [B]
      int64, the person's place in ``facts``.

    Raises:
      ValueError: an empty split.
    """
    people = -(-info.count(split) // every)
    padding = -people % batch
    serialized = _serialized(info, split, every)
    serialized = serialized.concatenate(serialized.take(1).repeat(padding))
    decode = _decoder(info, ("id", "row", "crop_to_image", "joints", "state", "head_size"))
    decoded = serialized.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    places = tf.data.Dataset.range(people).concatenate(
        tf.data.Dataset.from_tensors(tf.constant(NOBODY, tf.int64)).repeat(padding)
    )
    indexed = tf.data.Dataset.zip((decoded, places))
    named = indexed.map(lambda example, index: {**example, "index": index})
    return _deterministic(named.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE))


def facts(info: records.DatasetInfo, split: str, every: int = 1) -> dict[str, np.ndarray]:
    """Everything but the pixels of a split's people, for the host: as ``records.decode``, stacked.

    Raises:
      ValueError: an empty split.
    """
    people = info.count(split)
    decode = _decoder(info, ("image",))
    stacked = _serialized(info, split, every).map(decode).batch(people)
    return next(stacked.as_numpy_iterator())
