"""Train a stacked hourglass network: python train_main.py --flagfile=configs/hg_s2.flags."""

from pipelines import command


def main() -> int:
    """Train what the flags say; the same command resumes."""
    from pipelines import config, train

    return train.run(config.from_flags())


if __name__ == "__main__":
    command.use_huge_pages()
    from pipelines import config  # it takes seconds, which should not be spent twice

    config.define_flags()
    command.run(main)
