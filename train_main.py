"""Train a stacked hourglass network: python train_main.py --flagfile=configs/hg_s2.flags."""

from pipelines import command, config, train


def main() -> int:
    """Train what the flags say; the same command resumes."""
    return train.run(config.from_flags())


if __name__ == "__main__":
    config.define_flags()
    command.run(main)
