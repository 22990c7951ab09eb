"""What a command leaves, for comparing an interrupted run with an uninterrupted one."""

from __future__ import annotations

import json
import pathlib
import re

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipelines import checkpoint_files, checkpoints
from pipelines.export import formats

# Names of files and folders that only an unfinished command may have.
LEFTOVER = re.compile(r".*\.part(ial)?(\..*)?|.*_temp|checkpoint\.tmp.*|.*\.lock")
# TensorBoard's values that depend neither on the clock nor on the steps since a resume, over which
# the first training loss after it is averaged.
_SCORES = ("overview/PCKh", "validation raw/")
_CREATED = re.compile(rb"Created on: [^\0]*")


def leftovers(folder: pathlib.Path) -> list[str]:
    """Names, relative to ``folder``, of what a finished command must not leave."""
    names = [path.relative_to(folder) for path in folder.rglob("*")]
    return sorted(str(name) for name in names if LEFTOVER.fullmatch(name.name))


def of_training(run: pathlib.Path) -> dict:
    """All that a run leaves: weights, best, its note, scores, and the steps of each tag."""
    last = checkpoint_files.latest(f"{run}/checkpoints")
    best = checkpoints.find(f"{run}/best")
    events = EventAccumulator(f"{run}/logs", {"tensors": 0}).Reload()
    tensors = {tag: events.Tensors(tag) for tag in events.Tags()["tensors"]}
    return {
        "last": pathlib.Path(last).name,
        "weights": checkpoints.values(last, "model"),
        "averaged": checkpoints.values(last, "averaged"),
        "best": checkpoints.values(best, "model"),
        "best averaged": checkpoints.values(best, "averaged"),
        "note": checkpoints.read_best(str(run)),
        "checkpoints": sorted(path.name for path in (run / "checkpoints").iterdir()),
        "files of best": sorted(path.name for path in (run / "best").iterdir()),
        "steps": {tag: sorted({one.step for one in each}) for tag, each in tensors.items()},
        "scores": {
            tag: {one.step: tf.make_ndarray(one.tensor_proto).tolist() for one in each}
            for tag, each in tensors.items()
            if tag.startswith(_SCORES)
        },
    }


def of_files(folder: pathlib.Path) -> dict:
    """Path in ``folder`` -> bytes, without the date in .mat files."""
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {str(path.relative_to(folder)): _CREATED.sub(b"", data) for path, data in files.items()}


def of_export(output: pathlib.Path, size: int) -> dict:
    """An export's heatmaps of a fixed picture [size, size, 3], and its JSON without its times."""
    document = json.loads(pathlib.Path(f"{output}.json").read_text())
    for row in document["verification"].values():
        row.pop("milliseconds")
    run = formats.LOAD[document["format"]](
        str(output / "1" if document["format"] == "savedmodel" else output)
    )
    picture = np.random.default_rng(0).uniform(-0.5, 0.5, [1, size, size, 3]).astype(np.float32)
    return {"heatmaps": np.asarray(run(picture)), **document}


def differences(ours: dict, expected: dict) -> list[str]:
    """Names of an outcome's parts that differ."""
    return [key for key in {**expected, **ours} if not _equal(ours.get(key), expected.get(key))]


def _equal(ours, expected) -> bool:
    try:
        np.testing.assert_equal(ours, expected)
    except AssertionError:
        return False
    return True
