"""Score a network or a prediction file.

python eval_main.py --flagfile=configs/hg_s2.flags
python eval_main.py --predictions=preds.mat --ground_truth=detections_our_format.mat
"""

import os

from absl import flags

from pipelines import cli, config

FLAGS = flags.FLAGS
with cli.group("A prediction file, without a network"):
    flags.DEFINE_string("predictions", "", "file to score: .mat, .h5, .npy, .json")
    flags.DEFINE_string("ground_truth", "", "ground truth: annotation file or record set folder")
    flags.DEFINE_string("output", "", "folder to write results.json and curve.* to")


def main() -> None:
    """Evaluate a network or, like scripts/score_predictions.py, a prediction file."""
    if FLAGS.predictions or FLAGS.ground_truth or FLAGS.output:
        # No GPU: scoring may run next to a training that occupies all GPU memory.
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        from pipelines.evaluation import score_predictions

        score_predictions.run(FLAGS.predictions, FLAGS.ground_truth, FLAGS.output, FLAGS.split)
    else:
        from pipelines.evaluation import evaluate

        evaluate.run(config.from_flags())


if __name__ == "__main__":
    config.define_flags()
    cli.run(main)
