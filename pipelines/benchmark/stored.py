"""The cost of ``--side`` and ``--context`` of the records, in cores and in augmented pictures."""

from __future__ import annotations

import dataclasses
import os

import rich.table
import tensorflow as tf

from hourglass import affine
from pipelines.benchmark import Task, workload
from pipelines.benchmark.comparison import Group, Tasks
from pipelines.config import Config
from pipelines.data import augmentation, cropping, tfrecords

AUGMENTATIONS = ("newell", "pytorch_pose", "upright", "gentle")
DRAWS = 1000
_GRID = 64  # side of the input on which black pixels are counted, px


def geometries(texts: list[str]) -> list[cropping.Geometry]:
    """Parse "SIDE:CONTEXT", such as "256:1.5"; ValueError for anything else."""
    parsed = []
    for text in texts:
        side, colon, context = text.partition(":")
        if not colon or not side.isdigit() or not context:
            raise ValueError(f"--stored: {text!r} must be SIDE:CONTEXT, such as 256:1.5")
        parsed.append(cropping.Geometry(float(context), int(side)))
    return parsed


def _name(geometry: cropping.Geometry) -> str:
    return f"--side={geometry.side} --context={geometry.context:g}"


def group(config: Config, folder: str, chosen: list[cropping.Geometry], joints: int) -> Group:
    """The input pipeline on one core, on records of each geometry, which this writes."""
    tasks: list[Task] = []
    for geometry in chosen:
        target = os.path.join(folder, f"records-{geometry.side}-{geometry.context}")
        info, _ = workload.convert_into(folder, target, geometry)
        settings = dataclasses.replace(config, records=info.folder)
        tasks += Tasks(settings, joints).training(_name(geometry), "read", 1)
    return Group("stored crops, one core", config, tasks)


def _scales_and_matrices(name: str, window: float, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws for a crop of side 1 in the middle of a window: scales, matrices window to input."""
    index = tf.range(count, dtype=tf.int64)
    draws = augmentation.draw(augmentation.AUGMENTATIONS[name], 0, index, count)
    batch = {"center": tf.fill([count, 2], (window - 1) / 2), "side": tf.ones([count])}
    return draws["scale"], augmentation.crop_to_input(batch, _GRID, draws)


def padding(name: str, context: float, count: int = DRAWS) -> float:
    """Fraction of the input's pixels outside the stored square, over ``count`` draws.

    They are black although the photograph may continue there.
    """
    _, matrix = _scales_and_matrices(name, context, count)
    row = tf.range(_GRID, dtype=tf.float32)
    points = tf.reshape(tf.stack(tf.meshgrid(row, row), -1), [1, -1, 2])
    source = affine.apply(affine.invert(matrix), points)
    outside = (source < -0.5) | (source > context - 0.5)
    return float(tf.reduce_mean(tf.cast(tf.reduce_any(outside, -1), tf.float32)))


def enlarged(name: str, side: int, size: int) -> float:
    """Fraction of an augmentation's draws in which stored pixels are enlarged in the input."""
    scales, _ = _scales_and_matrices(name, 2.0, DRAWS)
    # 362 px is 256 times the square root of 2, rounded.
    return float(tf.reduce_mean(tf.cast(scales * side < 0.999 * size, tf.float32)))


def lines(chosen: list[cropping.Geometry], measured: Group, results: dict, size: int) -> list[dict]:
    """For each geometry its cost, and the fractions "padding" and "enlarged" by augmentation."""
    rows = []
    for geometry, task in zip(chosen, measured.tasks):
        info, result = tfrecords.read_info(task.settings["records"]), results[task.name]
        rate = result.get("median")
        rows.append(
            {
                "flags": task.name,
                "canvas": geometry.canvas,
                "kb": info.size("train") / info.count("train") / 1000,
                "images_per_second": rate,
                "cores_per_1000": 1000 / rate if rate else None,
                "padding": {name: padding(name, geometry.context) for name in AUGMENTATIONS},
                "enlarged": {name: enlarged(name, geometry.side, size) for name in AUGMENTATIONS},
            }
        )
    return rows


def table(rows: list[dict]) -> rich.table.Table:
    """``lines`` as a table; an augmentation's cell is "padding / enlarged"."""
    shown = [f"{name}: black / enlarged" for name in AUGMENTATIONS]
    columns = ["flags", "canvas px", "KB", "images/s", "cores per 1,000 images/s", *shown]
    result = rich.table.Table(*columns)
    for row in rows:
        rate, cores = row["images_per_second"], row["cores_per_1000"]
        cells = [
            f"{100 * row['padding'][name]:.1f} % / {100 * row['enlarged'][name]:.0f} %"
            for name in AUGMENTATIONS
        ]
        speed = [f"{rate:,.0f}", f"{cores:.2f}"] if rate else ["not measured", ""]
        result.add_row(row["flags"], str(row["canvas"]), f"{row['kb']:.0f}", *speed, *cells)
    return result
