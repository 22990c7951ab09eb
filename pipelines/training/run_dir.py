"""A run's folder: its configuration, its network and its checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os

import tensorflow as tf

from pipelines import checkpoint_files, checkpoints, devices
from pipelines import config as configuration
from pipelines.config import Config
from pipelines.data import preprocessing, tfrecords
from pipelines.io import check_writable, read_whole, temporary_folder, write_atomically
from pipelines.training import run_lock

FLAGS_FILE = "flags.txt"
VALIDATED_FILE = "validated.json"


def check_same_run(config: Config, info: tfrecords.DatasetInfo) -> None:
    """Check that the workdir is empty or holds a run of this configuration.

    Raises:
      ValueError: naming each flag that differs, or the other record set.
    """
    path = os.path.join(config.workdir, FLAGS_FILE)
    if not tf.io.gfile.exists(path):
        if checkpoint_files.complete(os.path.join(config.workdir, "checkpoints")):
            raise FileNotFoundError(
                f"{path} is missing, which says how the checkpoints in {config.workdir} were "
                "trained; restore it, or choose another --workdir (--init_from starts it from "
                "these weights)"
            )
    else:
        differences = configuration.differences(_read_flags(path), config)
        if differences:
            raise ValueError(
                f"{config.workdir} holds a run of another configuration, as its {FLAGS_FILE} tells "
                f"({'; '.join(differences)}); use its flags to resume it, or another --workdir"
            )
        checkpoints.check_data(config.workdir, info)


def _read_flags(path: str) -> str:
    """The text of flags.txt; ValueError where it is not one."""
    try:
        text = read_whole(path).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text ({error}); restore it") from error
    if "\0" in text:
        raise ValueError(f"{path} is damaged: it holds zeros; restore it")
    if not any(line.startswith("--") for line in text.splitlines()):
        raise ValueError(f"{path} holds no flags; restore it, or choose another --workdir")
    return text


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
    with temporary_folder() as folder:
        yield dataclasses.replace(config, workdir=folder, max_checkpoints=1)


@contextlib.contextmanager
def locked(config: Config, strategy: tf.distribute.Strategy):
    """Keep other trainings out of ``workdir``; the chief does.

    Raises ValueError where one runs there, OSError where a folder of the run cannot be written.
    """
    if not devices.is_chief(strategy):
        yield
        return
    for name in ("", "checkpoints", "best", "logs"):
        check_writable(os.path.join(config.workdir, name))
    with run_lock.hold(config.workdir):
        yield


def missed_validation(config: Config, strategy: tf.distribute.Strategy, step: int) -> bool:
    """Whether the run was killed between saving ``step`` and the end of its validation.

    Alike on all workers: the chief's folder decides.
    """
    last = last_validation(config.workdir)
    return bool(devices.gather(strategy, [last])[0, 0] < step)


def last_validation(workdir: str) -> int:
    """Step of the last complete validation, or -1: one too many does no harm."""
    try:
        step = json.loads(read_whole(os.path.join(workdir, VALIDATED_FILE)))["step"]
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return -1
    return step if isinstance(step, int) and -1 <= step < 2**31 else -1


def note_validation(workdir: str, step: int) -> None:
    """Note that the validation of ``step`` is complete."""
    write_atomically(os.path.join(workdir, VALIDATED_FILE), json.dumps({"step": step}).encode())


def checkpoint_manager(checkpoint: tf.train.Checkpoint, config: Config):
    """What saves into ``workdir``/checkpoints and knows the checkpoints that are there."""
    folder = os.path.join(config.workdir, "checkpoints")
    checkpoint_files.remove_leftovers(folder)
    checkpoints.remove_all_but_best(config.workdir)
    checkpoint_files.remove_old(folder, config.max_checkpoints)
    there = checkpoint_files.complete(folder)
    if there:
        # Without times, of which only the order counts, the manager would keep these for ever.
        times = [float(number + 1) for number in range(len(there))]
        listed = tf.compat.v1.train.generate_checkpoint_state_proto(
            folder, there[-1], there, all_model_checkpoint_timestamps=times
        )
        write_atomically(os.path.join(folder, "checkpoint"), str(listed).encode())
    return checkpoint_files.manager(checkpoint, folder, config.max_checkpoints)


def save(manager: tf.train.CheckpointManager, config: Config, step: int) -> str:
    """Save the state; returns the prefix of the chief's checkpoint."""
    name = os.path.basename(checkpoint_files.save(manager, step))
    return os.path.join(config.workdir, "checkpoints", name)
