r"""Export a trained network for other programs.

    python scripts/export.py --checkpoint=runs/demo --records=data/demo --format=tflite \
        --quantize=int8 --output=exports/demo.tflite

Formats: savedmodel (a folder in TensorFlow Serving's layout, with signatures for normalised
pictures and for photographs with boxes), tflite, onnx (needs `make export-tools`) and frozen (a
GraphDef).

Each export is loaded by its own runtime and compared with the checkpoint on people of the records;
the table is printed and stands in <output>.json. One that loses more than 0.2 points of PCKh (int8:
1.0) is not kept.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import flags

from hourglass.heatmap import DECODERS
from pipelines import cli
from pipelines.export import export, formats

FLAGS = flags.FLAGS
with cli.group("Network"):
    flags.DEFINE_string("checkpoint", None, "run or checkpoint", required=True)
    flags.DEFINE_enum("weights", "best", ("best", "averaged", "raw"), "kind of weights")
with cli.group("File"):
    flags.DEFINE_enum("format", None, formats.FORMATS, "kind of file", required=True)
    flags.DEFINE_string("output", None, "file (savedmodel: folder) to write", required=True)
    flags.DEFINE_enum("quantize", "none", formats.QUANTIZE, "numbers of a tflite file")
    flags.DEFINE_bool(
        "with_preprocessing", False, "input is uint8 RGB; scaling and mean are inside"
    )
with cli.group("Joints from heatmaps"):
    flags.DEFINE_bool("flip", True, "mirror-averaged test, in the joints of a SavedModel too")
    flags.DEFINE_enum("decode", "auto", ("auto", *DECODERS), "auto: what the weights expect")
    flags.DEFINE_float("sigma", 1.0, "heatmap px, as trained; only --decode=dark needs it", 0.0)
with cli.group("Verification"):
    flags.DEFINE_string("records", "", "record set whose people verify it, and calibrate int8")
    flags.DEFINE_string("split", "validation", "whose people verify")
    flags.DEFINE_integer("people", 300, "at most so many of them", lower_bound=1)
    flags.DEFINE_bool("accept_loss", False, "keep an export that loses too much; its JSON says so")


def main() -> None:
    """Export what the flags say."""
    fields = export.Request.__dataclass_fields__
    export.run(export.Request(**{name: FLAGS[name].value for name in fields}))


if __name__ == "__main__":
    cli.run(main)
