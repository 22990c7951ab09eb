"""Our own parts, each as the commands run it; see ``pipelines.benchmark.Part``.

Every function takes (settings: fields of a Config, folder: filled by ``workload.prepare``).
"""

from __future__ import annotations

import os
import tempfile

import tensorflow as tf

from hourglass import bn_folding, model
from pipelines import devices
from pipelines.benchmark import Part, counting, workload
from pipelines.config import Config, build_arguments
from pipelines.data import augmentation, input_pipeline, tfrecords
from pipelines.inference import compiled as prediction
from pipelines.training import train, train_step
from pipelines.training.state import create_train_state

# Batches per step of parts that are much faster than a training step.
BATCHES = 20


def _traces(**functions) -> dict:
    return {
        "traces": {name: f.experimental_get_tracing_count() for name, f in functions.items()},
    }


def _until_done(result: tf.Tensor) -> None:
    result.numpy()


def _batches(config: Config, info: tfrecords.DatasetInfo) -> tf.data.Dataset:
    cached = input_pipeline.fits(info, config.cache_gb)
    return input_pipeline.training(info, batch=config.global_batch_size, seed=0, cached=cached)


def _augmented(config: Config, info: tfrecords.DatasetInfo, batch: dict, index: tf.Tensor):
    """A number that depends on the whole network input and targets of the batch."""
    options = train.step_options(config, info.skeleton).batch
    made = augmentation.augment_batch({**batch, "index": index}, options)
    return tf.reduce_sum(made.images) + tf.reduce_sum(made.targets)


def _reading(config: Config, info: tfrecords.DatasetInfo, use) -> Part:
    """Batches read one after the other; ``use`` makes a number of each."""
    iterator = iter(_batches(config, info))

    @tf.function
    def take(iterator, batches: tf.Tensor) -> tf.Tensor:
        total = 0.0
        for _ in tf.range(batches):
            total += use(next(iterator))
        return total

    return Part(
        lambda steps: _until_done(take(iterator, tf.constant(BATCHES * steps))),
        BATCHES * config.global_batch_size,
        lead_in=1,
        details=lambda: _traces(take=take),
    )


def read(settings: dict, folder: str) -> Part:
    """Records -> decoded uint8 batches."""
    config = Config(**settings)
    info = tfrecords.read_info(config.records)
    return _reading(config, info, lambda batch: tf.cast(batch["index"][0], tf.float32))


def augment_crops(settings: dict, folder: str) -> Part:
    """Crops -> network input and targets on the device, for one batch repeatedly."""
    config = Config(**settings)
    info = tfrecords.read_info(config.records)
    batch = next(iter(_batches(config, info)))

    @tf.function
    def loop(batches: tf.Tensor) -> tf.Tensor:
        total = 0.0
        for step in tf.range(batches):
            index = batch["index"] + tf.cast(step, tf.int64) * config.global_batch_size
            total += _augmented(config, info, batch, index)
        return total

    return Part(
        lambda steps: _until_done(loop(tf.constant(BATCHES * steps))),
        BATCHES * config.global_batch_size,
        details=lambda: _traces(loop=loop),
    )


def read_and_augment(settings: dict, folder: str) -> Part:
    """Records -> network input and targets: what a data loader delivers."""
    config = Config(**settings)
    info = tfrecords.read_info(config.records)
    return _reading(config, info, lambda batch: _augmented(config, info, batch, batch["index"]))


def train_steps(config: Config, info: tfrecords.DatasetInfo, strategy):
    """The training loop as in ``train_main.py``, with fresh weights, and its network."""
    state = create_train_state(
        strategy,
        {**build_arguments(config, info.skeleton), "remat": config.remat},
        lambda step: tf.constant(1e-4),
        optimizer_name=config.optimizer,
        weight_decay=config.weight_decay,
        averaged=bool(config.ema_decay),
    )
    options = train.step_options(config, info.skeleton)
    return train_step.make_train_steps(state, options), state.network


def _gpu_peaks() -> dict:
    """{"gpu_peak_mb": [MB per GPU]}, used, not reserved, by TensorFlow; {} without a GPU."""
    names = [gpu.name.rpartition("device:")[2] for gpu in tf.config.list_logical_devices("GPU")]
    peaks = [tf.config.experimental.get_memory_info(name)["peak"] / 2**20 for name in names]
    return {"gpu_peak_mb": [round(peak) for peak in peaks]} if peaks else {}


def _training(config: Config, info, strategy, iterator) -> Part:
    run, network = train_steps(config, info, strategy)
    flop = 2 * counting.TRAINING * counting.forward_macs(network)
    return Part(
        lambda steps: float(run(iterator, tf.constant(steps))["wait"]),
        config.global_batch_size,
        details=lambda: {**_traces(train_steps=run), "flop_per_image": flop, **_gpu_peaks()},
    )


def step(settings: dict, folder: str) -> Part:
    """The training step including augmentation, on one batch repeatedly."""
    config = Config(**settings)
    info = tfrecords.read_info(config.records)
    strategy = devices.make_strategy(config.strategy, config.logical_devices)
    same = tf.data.Dataset.from_tensors(next(iter(_batches(config, info)))).repeat()
    iterator = iter(strategy.experimental_distribute_dataset(same, input_pipeline.PREFETCH))
    return _training(config, info, strategy, iterator)


def batches_of(config: Config, info: tfrecords.DatasetInfo, strategy):
    """Iterator of the batches that ``train_main.py`` trains on."""
    cached = input_pipeline.fits(info, config.cache_gb)
    return input_pipeline.distributed(
        strategy, info, batch=config.global_batch_size, seed=config.seed, cached=cached
    )


def end_to_end(settings: dict, folder: str) -> Part:
    """The training loop on records."""
    config = Config(**settings)
    info = tfrecords.read_info(config.records)
    strategy = devices.make_strategy(config.strategy, config.logical_devices)
    return _training(config, info, strategy, batches_of(config, info, strategy))


def inference(settings: dict, folder: str) -> Part:
    """Normalised pictures -> the last stack's heatmaps in host memory, one call per batch."""
    config = Config(**settings)
    info = tfrecords.read_info(config.records)
    network = bn_folding.fold(model.build(**build_arguments(config, info.skeleton)))
    traced = []

    def step(images: tf.Tensor) -> tuple[tf.Tensor]:
        traced.append(images.shape)
        return network(images, training=False)

    forward = prediction.Compiled(step, (config.global_batch_size,))
    shape = [config.global_batch_size, config.size, config.size, 3]
    images = tf.random.stateless_uniform(shape, [0, 0], -0.45, 0.55)

    def run(steps: int) -> None:
        for _ in range(steps):
            forward(images)[-1].numpy()

    flop = 2 * counting.forward_macs(network)

    def details() -> dict:
        return {"traces": {"forward": len(traced)}, "flop_per_image": flop}

    return Part(run, config.global_batch_size, details=details)


def conversion(settings: dict, folder: str) -> Part:
    """Photographs -> shards and dataset.json: the whole converter."""
    people = len(workload.photographs(folder).people)

    def run(steps: int) -> None:
        for _ in range(steps):
            with tempfile.TemporaryDirectory(dir=folder) as target:
                workload.convert_into(folder, os.path.join(target, "records"))

    return Part(run, people)
