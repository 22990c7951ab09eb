"""What all workers of a training must agree on."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from pipelines import config as configuration
from pipelines import devices
from pipelines.config import Config
from pipelines.data import tfrecords


def agree_on_run(strategy, config: Config, info: tfrecords.DatasetInfo) -> None:
    """Check that all workers have the same flags and records, apart from the paths.

    Raises:
      ValueError: naming the first worker whose flags or records differ from the chief's.
    """
    flags = configuration.to_flagfile(dataclasses.replace(config, workdir="", records=""))
    checksums = [zlib.crc32(text.encode()) for text in (flags, info.to_json())]
    table = devices.gather(strategy, checksums)
    for (worker, column), differs in np.ndenumerate(table != table[0]):
        if differs:
            raise ValueError(
                f"the {('flags', 'records')[column]} of worker {worker} differ from worker 0's; "
                "start all workers with the same command, on copies of the same records"
            )


def agree_on_step(strategy, step: int) -> None:
    """Wait for all workers and check that they are at the same step.

    Raises:
      ValueError: naming each worker's step.
    """
    steps = devices.gather(strategy, [step])[:, 0].tolist()
    if len(set(steps)) > 1:
        raise ValueError(
            f"the workers start from steps {steps}: they must read the same checkpoints; give a "
            "--workdir that all machines share, such as gs:// or a network disk"
        )


def agree_on_steps(strategy, count: int, signals: list[int]) -> tuple[int, int]:
    """The next call's steps and the signal a worker received, or 0: the same on all workers."""
    table = devices.gather(strategy, [count, signals[0] if signals else 0])
    return int(table[:, 0].min()), int(table[:, 1].max())
