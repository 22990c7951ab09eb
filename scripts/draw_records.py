"""Draw the true joints of people in records: python scripts/draw_records.py --records=data/mpii.

The pictures are made from the records like the input of evaluation, so joints in the right
positions show that photographs, matrices and joints agree.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
from absl import flags

from hourglass import affine
from pipelines import cli
from pipelines.data import input_pipeline, preprocessing, tfrecords
from pipelines.data.annotations import MISSING, SPLITS
from pipelines.io import check_file_writable
from pipelines.visualization import draw

FLAGS = flags.FLAGS
with cli.group("People"):
    flags.DEFINE_string("records", "data/records", "folder written by scripts/make_tfrecords.py")
    flags.DEFINE_enum("split", "validation", SPLITS, "split to draw")
    flags.DEFINE_integer("count", 12, "number of people, evenly spaced", lower_bound=1)
with cli.group("Picture"):
    flags.DEFINE_integer("size", 256, "side of each person's picture, px", lower_bound=32)
    flags.DEFINE_string("output", "", "PNG to write; default: truth.png in --records")


def truth_grid(info: tfrecords.DatasetInfo, split: str, count: int, size: int) -> np.ndarray:
    """One RGB picture [H, W, 3] uint8 of ``count`` evenly spaced people and their true joints."""
    every = max(1, info.count(split) // count)
    truth = {key: value[:count] for key, value in input_pipeline.labels(info, split, every).items()}
    shown = len(truth["row"])
    batch = next(iter(input_pipeline.evaluation(info, split, batch=shown, every=every)))
    pixels = affine.warp(batch["image"], preprocessing.crop_to_input(batch, size), size)
    pixels = np.rint(pixels).astype(np.uint8)
    joints = affine.apply(preprocessing.crop_to_input(batch, size), truth["joints"]).numpy()
    labelled = truth["state"] != MISSING
    colored = np.where(labelled[..., None], joints, np.nan)
    errors = np.where(labelled, 0.0, np.nan)
    title = f"{info.name} {split}: {shown} of {info.count(split)} people, true joints"
    return draw.people_grid(
        pixels, joints, truth["state"], colored, info.skeleton, errors, title=title
    )


def main() -> None:
    """Draw, write, print the path."""
    output = FLAGS.output or os.path.join(FLAGS.records, "truth.png")
    check_file_writable(output)
    info = tfrecords.read_info(FLAGS.records)
    draw.write_png(output, truth_grid(info, FLAGS.split, FLAGS.count, FLAGS.size))
    print(output)


if __name__ == "__main__":
    cli.run(main)
