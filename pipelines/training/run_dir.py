"""A run's folder: its configuration, its network and its checkpoints."""

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


def check_same_run(config: Config, info: tfrecords.DatasetInfo) -> None:
    """Check that the workdir is empty or holds a run of this configuration.

    Raises:
      ValueError: naming each flag that differs, or the other record set.
    """
    path = os.path.join(config.workdir, FLAGS_FILE)
    if tf.io.gfile.exists(path):
        differences = configuration.differences(read_whole(path).decode(), config)
        if differences:
            raise ValueError(
                f"{config.workdir} holds a run of another configuration "
                f"({'; '.join(differences)}); use its flags to resume it, or another --workdir"
            )
        checkpoints.check_data(config.workdir, info)


def input_mean(config: Config) -> tuple[float, ...]:
    """RGB mean [3] that the weights expect: the run's own, else that of --init_from."""
    if tf.io.gfile.exists(os.path.join(config.workdir, checkpoints.NETWORK_FILE)):
        return checkpoints.read_expected(config.workdir)[0]
    if config.init_from:
        return checkpoints.read_expected(checkpoints.split_path(config.init_from)[0])[0]
    return preprocessing.MEAN


def write_run_files(config: Config, info: tfrecords.DatasetInfo, mean=preprocessing.MEAN) -> str:
    """Write the network's description and flags.txt into ``workdir``; returns the latter's text."""
    text = configuration.to_flagfile(config)
    arguments = configuration.build_arguments(config, info.skeleton)
    checkpoints.write_network(config.workdir, arguments, info, mean)
    write_atomically(os.path.join(config.workdir, FLAGS_FILE), text.encode())
    return text


@contextlib.contextmanager
def worker_workdir(config: Config, strategy: tf.distribute.Strategy):
    """Yield the Config with the folder this process writes to: the chief's is ``workdir``.

    The other workers must save whenever the chief does, because batch norm's averages are means
    over all of them: they save into a temporary folder, which is deleted.
    """
    if devices.is_chief(strategy):
        yield config
        return
    with tempfile.TemporaryDirectory(prefix="worker-") as folder:
        yield dataclasses.replace(config, workdir=folder, max_checkpoints=1)


def save(manager: tf.train.CheckpointManager, config: Config, step: int) -> str:
    """Save the state; returns the prefix of the chief's checkpoint."""
    name = os.path.basename(manager.save(checkpoint_number=step))
    return os.path.join(config.workdir, "checkpoints", name)
