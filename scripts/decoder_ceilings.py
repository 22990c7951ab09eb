"""The score of a perfect network: python scripts/decoder_ceilings.py --annotations=FILE.

The true joints are rendered as heatmaps, decoded and scored, with each of our decoders and those of
the reference implementations. Needs no photographs and no network.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import rich.console
from absl import flags

from pipelines import cli
from pipelines.data.annotations import SPLITS
from pipelines.data.readers import mpii
from pipelines.evaluation import decoder_bounds

FLAGS = flags.FLAGS
with cli.group("People"):
    flags.DEFINE_string(
        "annotations", None, "MPII annotations in any of the published formats", required=True
    )
    flags.DEFINE_enum("split", "validation", SPLITS, "split to score")


def main() -> None:
    """Measure and print."""
    annotated = mpii.read(FLAGS.annotations)
    people = [person for person in annotated.people if person.split == FLAGS.split]
    rows = decoder_bounds.measure(people, annotated.skeleton)
    title = f"oracle ceilings, mean14, {len(people)} {FLAGS.split} people"
    width = None if sys.stdout.isatty() else 120
    rich.console.Console(width=width).print(decoder_bounds.table(rows, title))


if __name__ == "__main__":
    cli.run(main)
