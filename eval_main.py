"""Score a network or a prediction file.

python eval_main.py --flagfile=configs/hg_s2.flags
python eval_main.py --predictions=preds.mat --ground_truth=detections_our_format.mat
"""

import os
import sys

from absl import app, flags

from pipelines import command

FILES = ("predictions", "ground_truth", "output")
flags.DEFINE_string("predictions", "", "file to score without a network: .mat, .h5, .npy, .json")
flags.DEFINE_string("ground_truth", "", "its truth: annotation file or record set folder")
flags.DEFINE_string("output", "", "folder for the results of --predictions: results.json, curve.*")


def main(arguments: list[str]) -> int:
    """Evaluate what the flags say: table, results.json, predictions.* or curve.*."""
    command.no_leftovers(arguments)
    files = [flags.FLAGS[name].value for name in FILES]
    return command.answer(lambda: _score(*files) if any(files) else _evaluate())


def _score(*files: str) -> int:
    # No GPU: scoring runs beside a training that has all of its memory.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    from pipelines import score

    score.run(*files, split=flags.FLAGS.split if "split" in flags.FLAGS else "validation")
    return 0


def _evaluate() -> int:
    from pipelines import config, evaluate

    evaluate.run(config.from_flags())
    return 0


def _define_flags() -> None:
    """Define the flags of networks too, unless only files are named: their import takes seconds."""
    others = flags.FLAGS(sys.argv, known_only=True)[1:]
    if others or not flags.FLAGS.predictions:
        from pipelines import config

        config.define_flags()


if __name__ == "__main__":
    _define_flags()
    sys.exit(app.run(main))
