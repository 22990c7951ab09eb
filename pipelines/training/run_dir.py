"""A run's folder: whose it is, what it was started with, where it is saved."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile

import tensorflow as tf

from pipelines import checkpoints, devices
from pipelines import config as configuration
from pipelines.config import Config
from pipelines.data import preprocessing, tfrecords
from pipelines.io import read_whole, write_atomically

FLAGS_FILE = "flags.txt"


def refuse_other_run(config: Config, info: tfrecords.DatasetInfo) -> None:
    """Refuse a folder that holds another configuration's run.

    Raises:
      ValueError: naming each flag that differs, or the other record set.
    """
    path = os.path.join(config.workdir, FLAGS_FILE)
    if tf.io.gfile.exists(path):
        wrong = configuration.differences(read_whole(path).decode(), config)
        if wrong:
            raise ValueError(
                f"{config.workdir} holds a run of another configuration ({'; '.join(wrong)}); "
                "use its flags to resume it, or another --workdir"
            )
        checkpoints.check_data(config.workdir, info)


def input_mean(config: Config) -> tuple[float, ...]:
    """RGB mean [3] that this run's weights expect: its own, else that of --init_from's."""
    own = os.path.join(config.workdir, checkpoints.NETWORK_FILE)
    if tf.io.gfile.exists(own):
        return checkpoints.read_expected(config.workdir)[0]
    if config.init_from:
        return checkpoints.read_expected(checkpoints.split_path(config.init_from)[0])[0]
    return preprocessing.MEAN


def claim(config: Config, info: tfrecords.DatasetInfo, mean=preprocessing.MEAN) -> str:
    """Make the run's folder ours; returns the flagfile's text, now in ``workdir``/flags.txt."""
    text = configuration.to_flagfile(config)
    arguments = configuration.build_arguments(config, info.skeleton)
    checkpoints.write_network(config.workdir, arguments, info, mean)
    write_atomically(os.path.join(config.workdir, FLAGS_FILE), text.encode())
    return text


@contextlib.contextmanager
def own_outputs(config: Config, strategy: tf.distribute.Strategy):
    """Yield the Config with the folder that this process writes to: the chief's is ``workdir``.

    Another worker must save whenever the chief does, for batch norm's averages are means over all
    of them: into a temporary folder, which is deleted.
    """
    if devices.is_chief(strategy):
        yield config
        return
    with tempfile.TemporaryDirectory(prefix="worker-") as folder:
        yield dataclasses.replace(config, workdir=folder, max_checkpoints=1)


def save(manager: tf.train.CheckpointManager, config: Config, step: int) -> str:
    """Save the state; returns the prefix that the chief saved it under."""
    name = os.path.basename(manager.save(checkpoint_number=step))
    return os.path.join(config.workdir, "checkpoints", name)
