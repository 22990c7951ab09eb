"""Score a network or a prediction file.

python eval_main.py --flagfile=configs/hg_s2.flags
python eval_main.py --predictions=preds.mat --ground_truth=detections_our_format.mat
"""

import os
import sys

from absl import flags

from pipelines import cli

FILES = ("predictions", "ground_truth", "output")
with cli.group("A prediction file, without a network"):
    flags.DEFINE_string("predictions", "", "file to score: .mat, .h5, .npy, .json")
    flags.DEFINE_string("ground_truth", "", "its truth: annotation file or record set folder")
    flags.DEFINE_string("output", "", "folder to write results.json and curve.* to")


def main() -> None:
    """Evaluate what the flags say: table, results.json, predictions.* or curve.*."""
    files = [flags.FLAGS[name].value for name in FILES]
    _score(*files) if any(files) else _evaluate()


def _score(*files: str) -> None:
    # No GPU: scoring runs beside a training that has all of its memory.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    from pipelines.evaluation import score_predictions

    split = flags.FLAGS.split if "split" in flags.FLAGS else "validation"
    score_predictions.run(*files, split=split)


def _evaluate() -> None:
    from pipelines import config
    from pipelines.evaluation import evaluate

    evaluate.run(config.from_flags())


def _names_only_files() -> bool:
    try:
        others = flags.FLAGS(sys.argv, known_only=True)[1:]
    except flags.Error:
        return False  # command.run says what is wrong
    return bool(flags.FLAGS.predictions) and not others


if __name__ == "__main__":
    if not _names_only_files():
        from pipelines import config  # it takes seconds, which scoring a file need not

        config.define_flags()
    cli.run(main)
