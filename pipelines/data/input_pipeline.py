"""tf.data: records -> batches of uint8 crops with static shapes; no float work on the host.

The position in the data is arithmetic, not iterator state: example i of the endless training
sequence is example i % N of epoch i // N, and every epoch has its own seeded order. A resumed run
skips the consumed records without decoding them.

Several workers share the global batches of that one sequence: each decodes only its own rows of
every batch. It reads the other records too, still compressed, and drops them: if each worker had
its own shards, the order of the examples would depend on the number of workers.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from pipelines.data import tfrecords

PADDING = -1  # index of examples that pad a batch

# Batches prefetched to each device.
PREFETCH = tf.distribute.InputOptions(experimental_per_replica_buffer_size=2)

# AutoGraph would convert the source of every function that a mapped one calls, a tenth of a second
# each; nothing here needs it.
_as_written = tf.autograph.experimental.do_not_convert


def _deterministic(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


def _interleave(shards: tf.Tensor, of_shard, block: int = 1) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(shards).interleave(
        of_shard,
        cycle_length=min(shards.shape[0], 16),
        block_length=block,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _streamed(info: tfrecords.DatasetInfo):
    """Two functions: shard index -> dataset of its elements, and element -> serialized record."""
    paths = tf.constant(info.shards("train"))
    return lambda shard: tf.data.TFRecordDataset(paths[shard]), lambda record: record


@_as_written
def _cached(info: tfrecords.DatasetInfo):
    """As ``_streamed``, but all records are read now and kept; elements are record indices."""
    people, paths = info.count("train"), tf.constant(info.shards("train"))
    # Shards in order, although several are read in parallel.
    whole = _interleave(paths, tf.data.TFRecordDataset, block=people).batch(people)
    try:
        serialized = next(iter(_deterministic(whole)))
    except tf.errors.DataLossError:
        tfrecords.check_shards(info, "train")
        raise
    counts = [shard["people"] for shard in info.splits["train"]["shards"]]
    starts = tf.constant(np.cumsum([0, *counts]), tf.int64)
    return (
        lambda shard: tf.data.Dataset.range(starts[shard], starts[shard + 1]),
        lambda index: tf.gather(serialized, index),
    )


def fits(info: tfrecords.DatasetInfo, cache_gb: float) -> bool:
    """Whether the training records take at most ``cache_gb`` GB of 10^9 bytes.

    Raises ValueError for an empty split.
    """
    return info.size("train") / 1e9 <= cache_gb


def describe_cache(info: tfrecords.DatasetInfo, cache_gb: float) -> str:
    """One line to print: the size of the training records, and how often they are read."""
    each = f"read in every epoch, --cache_gb={cache_gb:g}"
    reading = "read once, kept in memory" if fits(info, cache_gb) else each
    return f"training records of {info.size('train') / 1e9:.3g} GB: {reading}"


def _epoch(of_shard, shards: int, seed: int, epoch: tf.Tensor, buffer: int) -> tf.data.Dataset:
    """Elements of all shards for one epoch, in the order derived from (seed, epoch)."""
    order = tf.random.experimental.stateless_shuffle(tf.range(shards), tf.stack([seed, epoch]))
    elements = _interleave(order, of_shard)
    return elements.shuffle(buffer, seed=seed + epoch * 1_000_003, reshuffle_each_iteration=False)


@_as_written
def training(
    info: tfrecords.DatasetInfo,
    *,
    batch: int,
    seed: int,
    start: int = 0,
    buffer: int = 0,
    cached: bool = False,
    replicas: int = 1,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Endless training batches from example ``start`` of the sequence on.

    Args:
      info: the record set; its "train" split is read.
      batch: global batch size; batches span the ends of epochs, so no example is dropped.
      seed: of the order.
      start: examples consumed before.
      buffer: size of every worker's shuffle buffer, records (still compressed); 0: all records, a
        full shuffle.
      cached: read the files once, now, and keep all records, still compressed; the examples are
        the same.
      replicas: number of equal pieces that each global batch is divided into.
      worker: index of the worker that takes these pieces: worker 0 the first ones, and so on.
      workers: number of workers; they share the replicas equally.

    Returns:
      Endless dataset of pieces, B = batch / replicas: dicts of ``tfrecords.decode``, batched, with
      "index" [B] int64, each example's position in the sequence.

    Raises:
      ValueError: an empty split, or with ``cached`` a damaged shard.
    """
    people = info.count("train")
    shards, buffer = len(info.shards("train")), buffer or people
    of_shard, record_of = (_cached if cached else _streamed)(info)
    seed64, first = tf.constant(seed, tf.int64), start // people

    def epoch_from(epoch: tf.Tensor) -> tf.data.Dataset:
        done = tf.where(epoch == first, tf.constant(start % people, tf.int64), 0)
        return _epoch(of_shard, shards, seed64, epoch, buffer).skip(done)

    elements = tf.data.Dataset.range(first, tf.int64.max).flat_map(epoch_from)
    indexed = tf.data.Dataset.zip((elements, tf.data.Dataset.range(start, tf.int64.max)))
    if workers > 1:
        indexed = indexed.filter(lambda _, index: index % batch * workers // batch == worker)
    decode = _decoder(info, ("id", "row"))
    decoded = indexed.map(
        lambda element, index: {**decode(record_of(element)), "index": index},
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    pieces = decoded.batch(batch // replicas, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    # Unless the data is known to be endless, workers synchronise before every step.
    endless = tf.data.experimental.assert_cardinality(tf.data.experimental.INFINITE_CARDINALITY)
    return _deterministic(pieces.apply(endless))


def distributed(
    strategy: tf.distribute.Strategy,
    info: tfrecords.DatasetInfo,
    *,
    batch: int,
    seed: int,
    start: int = 0,
    buffer: int = 0,
    cached: bool = False,
):
    """``training`` under a strategy: an iterator of every replica's piece."""

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return training(
            info,
            batch=batch,
            seed=seed,
            start=start,
            buffer=buffer,
            cached=cached,
            replicas=context.num_replicas_in_sync,
            worker=context.input_pipeline_id,
            workers=context.num_input_pipelines,
        )

    return iter(strategy.distribute_datasets_from_function(of_worker, PREFETCH))


def _decoder(info: tfrecords.DatasetInfo, unused: tuple[str, ...]):
    joints, canvas = len(info.skeleton), info.geometry.canvas

    def decode(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        example = tfrecords.decode(serialized, joints=joints, canvas=canvas)
        return {key: value for key, value in example.items() if key not in unused}

    return decode


def _serialized(info: tfrecords.DatasetInfo, split: str, every: int = 1) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(info.shards(split)).shard(every, 0)


@_as_written
def evaluation(
    info: tfrecords.DatasetInfo, split: str, *, batch: int, every: int = 1
) -> tf.data.Dataset:
    """Pixels of each person of a split exactly once, in the order of ``labels``, in full batches.

    The last batch is padded with copies of the first person with "index" -1.

    Args:
      info: the record set.
      split: "train", "validation" or "test".
      batch: people per batch over all replicas.
      every: take only every n-th person.

    Returns:
      Dataset of dicts: image, center, side of ``tfrecords.decode``, batched, and "index" [B] int64,
      the person's index in ``labels``.

    Raises:
      ValueError: an empty split.
    """
    people = -(-info.count(split) // every)
    padding = -people % batch
    serialized = _serialized(info, split, every)
    serialized = serialized.concatenate(serialized.take(1).repeat(padding))
    decode = _decoder(info, ("id", "row", "crop_to_image", "joints", "state", "head_size"))
    decoded = serialized.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    indices = tf.data.Dataset.range(people).concatenate(
        tf.data.Dataset.from_tensors(tf.constant(PADDING, tf.int64)).repeat(padding)
    )
    indexed = tf.data.Dataset.zip((decoded, indices))
    named = indexed.map(lambda example, index: {**example, "index": index})
    return _deterministic(named.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE))


@_as_written
def chosen(
    info: tfrecords.DatasetInfo, split: str, indices: np.ndarray, *, batch: int
) -> tf.data.Dataset:
    """Whole records of a few people of a split; no other picture is decoded.

    Args:
      info: the record set.
      split: "train", "validation" or "test".
      indices: [n] of the people in ``labels``; their order and repetitions do not matter.
      batch: people per batch; the last one may be smaller.

    Returns:
      Dataset of dicts of ``tfrecords.decode``, batched, ascending by "index" [B] int64, the
      person's index.

    Raises:
      ValueError: an empty split.
    """
    wanted = np.zeros(info.count(split), bool)
    wanted[indices] = True
    decode, mask = _decoder(info, ()), tf.constant(wanted)
    few = _serialized(info, split).enumerate().filter(lambda index, _: mask[index])
    decoded = few.map(lambda index, record: {**decode(record), "index": index})
    return _deterministic(decoded.batch(batch).prefetch(1))


@_as_written
def labels(info: tfrecords.DatasetInfo, split: str, every: int = 1) -> dict[str, np.ndarray]:
    """Everything but the pixels of a split's people, as arrays: ``tfrecords.decode``, stacked.

    Raises:
      ValueError: an empty split.
    """
    people = info.count(split)
    decode = _decoder(info, ("image",))
    stacked = _serialized(info, split, every).map(decode).batch(people)
    return next(stacked.as_numpy_iterator())
