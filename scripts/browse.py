"""Browse people in one HTML page: python scripts/browse.py --records=data/demo.

With --predictions=runs/demo/predictions.json the worst come first, with predicted and true joints
and every joint's error. The page opens from disk in any browser, without a network.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import flags

from pipelines import cli
from pipelines.data.annotations import SPLITS
from pipelines.evaluation import people_page

FLAGS = flags.FLAGS
with cli.group("People"):
    flags.DEFINE_string("records", "data/records", "folder written by scripts/make_tfrecords.py")
    flags.DEFINE_enum("split", "validation", SPLITS, "split to show")
    flags.DEFINE_string("predictions", "", "predictions.json, .h5 or .mat of eval_main.py")
with cli.group("Page"):
    flags.DEFINE_integer("max_people", 200, "maximum number of people", lower_bound=1)
    flags.DEFINE_integer(
        "size", 256, "side of a thumbnail, px; also the resolution of its enlargement", 32, 1024
    )
    flags.DEFINE_float("megabytes", 50.0, "maximum size of the page", lower_bound=0.0)
    flags.DEFINE_string(
        "output", "", "HTML file; default: people.html next to --predictions, or in --records"
    )


def main() -> None:
    """Write the page."""
    folder = os.path.dirname(FLAGS.predictions) if FLAGS.predictions else FLAGS.records
    people_page.run(
        FLAGS.records,
        FLAGS.output or os.path.join(folder, "people.html"),
        split=FLAGS.split,
        predictions_file=FLAGS.predictions,
        max_people=FLAGS.max_people,
        size=FLAGS.size,
        megabytes=FLAGS.megabytes,
    )


if __name__ == "__main__":
    cli.run(main)
