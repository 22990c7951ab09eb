r"""Export a trained network for other programs.

    python scripts/export.py --checkpoint=runs/demo --records=data/demo --format=tflite \
        --quantize=float16 --output=exports/demo.tflite

Formats: savedmodel (a folder in TensorFlow Serving's layout, with signatures for normalised
pictures and for photographs with boxes), tflite, onnx and openvino (a folder with model.xml and
model.bin), which need `make export-tools`, frozen (a GraphDef), and run (a run's folder with one
set of weights: to predict with, to evaluate, or to start from with --init_from).

--quantize=int8 measures ranges on 200 training people: openvino loses little of the
score, tflite some points.

Each export is loaded in its own runtime and compared with the checkpoint on people of the records;
the table is printed, and written to <output>.json. An export that loses more than 0.2 points of
PCKh (int8: 1.0), or moves joints too far, is deleted.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from pipelines import cli
from pipelines.export import export


def main() -> None:
    """Export and verify a checkpoint."""
    export.run(cli.parsed(export.ExportOptions))


if __name__ == "__main__":
    cli.define(export.ExportOptions)
    cli.run(main)
