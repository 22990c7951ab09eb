"""Write pred_keypoints_mpii.mat, MPII's submission file, from predictions of its test set.

Convert the original .mat, evaluate with --split=test, and give both to this command:
--annotations=mpii_human_pose_v1_u12_1.mat --predictions=runs/test/predictions.json.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import flags

from pipelines import cli
from pipelines.evaluation import mpii_submission

FLAGS = flags.FLAGS
with cli.group("Files"):
    flags.DEFINE_string("annotations", None, "the original .mat release", required=True)
    flags.DEFINE_string(
        "predictions", None, "prediction file of an evaluation with --split=test", required=True
    )
    flags.DEFINE_string("output", "pred_keypoints_mpii.mat", "file to write")


def main() -> None:
    """Write the submission, print its numbers of people and photographs."""
    counts = mpii_submission.write(FLAGS.annotations, FLAGS.predictions, FLAGS.output)
    print(f"{counts[1]} people in {counts[0]} photographs -> {FLAGS.output}")


if __name__ == "__main__":
    cli.run(main)
