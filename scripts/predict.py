"""Find the joints of people in pictures and videos, and draw them.

python scripts/predict.py --checkpoint=runs/demo INPUT...

INPUT: pictures, folders (with all folders in them), patterns, a video, a camera's number, or - for
a list on standard input.
"""

from __future__ import annotations

import dataclasses
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import flags

from pipelines import cli

FLAGS = flags.FLAGS
with cli.group("Network"):
    flags.DEFINE_string("checkpoint", "runs/demo", "folder of a run, its best/, or one checkpoint")
with cli.group("People and pictures"):
    flags.DEFINE_string(
        "boxes",
        "",
        'the people: CSV lines file,x,y,w,h, JSON {"file": [[x, y, w, h]]}, COCO detections or '
        "annotations; default: each whole picture is one person",
    )
    flags.DEFINE_string("annotations", "", "COCO file that says which images --boxes means by ids")
    flags.DEFINE_integer("category", 1, "COCO category_id of people", lower_bound=0)
    flags.DEFINE_float("least_score", 0.3, "detections of a lower score are left out")
    flags.DEFINE_bool("upright", False, "turn pictures as their EXIF orientation says")
    flags.DEFINE_bool(
        "smooth", False, "videos: calmer joints by a One Euro filter, also in the JSON"
    )
with cli.group("What is written"):
    flags.DEFINE_string("output", "predictions", "folder for pictures, videos and predictions.json")
    flags.DEFINE_bool("draw", True, "write pictures and videos, not only predictions.json")
    flags.DEFINE_bool("heatmaps", False, "a panel of the heatmaps beside each picture")
    flags.DEFINE_float("show_above", 0.1, "joints of less confidence are not drawn")
    flags.DEFINE_integer("longest", 1600, "longer side of drawn pictures, px", lower_bound=16)


def main(inputs: list[str]) -> int:
    """Predict every input."""
    from pipelines.inference import predict_media  # TensorFlow takes seconds, which --help need not

    names = [field.name for field in dataclasses.fields(predict_media.Options)]
    options = predict_media.Options(**{name: FLAGS[name].value for name in names})
    listed = [line.rstrip("\n") for line in sys.stdin if line.strip()] if "-" in inputs else []
    return predict_media.run(FLAGS.checkpoint, inputs, listed, options)


if __name__ == "__main__":
    cli.run(main, words="INPUT...")
