"""Score a trained network: python eval_main.py --flagfile=configs/hg_s2.flags."""

import sys

from absl import app

from pipelines import command, config, evaluate


def main(arguments: list[str]) -> int:
    """Evaluate what the flags say: table, results.json, predictions.{mat,h5,json,png}."""
    command.no_leftovers(arguments)
    return command.answer(lambda: evaluate.run(config.from_flags()) and 0)


if __name__ == "__main__":
    config.define_flags()
    sys.exit(app.run(main))
