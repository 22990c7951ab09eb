"""Train a stacked hourglass network: python train_main.py --flagfile=configs/hg_s2.flags."""

from pipelines import cli


def main() -> int:
    """Train as the flags specify; the same command resumes."""
    from pipelines import config
    from pipelines.training import train

    return train.run(config.from_flags())


if __name__ == "__main__":
    cli.use_huge_pages()
    from pipelines import config  # slow, so only after the restart

    config.define_flags()
    cli.run(main)
