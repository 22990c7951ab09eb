"""Score a prediction file: --predictions=preds.mat --ground_truth=detections_our_format.mat.

It needs no network and prints PCKh per joint group, all three means with 95 % intervals, visible
and occluded joints separately, and the bias in x and y.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# No GPU: scoring may run next to a training that occupies all GPU memory.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

from absl import flags

from pipelines import cli
from pipelines.data.annotations import SPLITS
from pipelines.evaluation import score_predictions

FLAGS = flags.FLAGS
with cli.group("Files"):
    flags.DEFINE_string("predictions", None, ".mat, .h5, .npy or .json to score", required=True)
    flags.DEFINE_string(
        "ground_truth", None, "ground truth: annotation file or record set folder", required=True
    )
    flags.DEFINE_enum("split", "validation", SPLITS, "split that was predicted")
    flags.DEFINE_string("output", "", "folder for results.json, curve.csv and curve.png")


def main() -> None:
    """Score the file."""
    score_predictions.run(FLAGS.predictions, FLAGS.ground_truth, FLAGS.output, FLAGS.split)


if __name__ == "__main__":
    cli.run(main)
