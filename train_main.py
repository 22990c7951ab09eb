"""Train a stacked hourglass network: python train_main.py --flagfile=configs/hg_s2.flags."""

import sys

from absl import app

from pipelines import command, config, train


def main(arguments: list[str]) -> int:
    """Train what the flags say; the same command resumes."""
    command.no_leftovers(arguments)
    return command.answer(lambda: train.run(config.from_flags()))


if __name__ == "__main__":
    config.define_flags()
    sys.exit(app.run(main))
