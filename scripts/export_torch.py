"""Write a run's weights for PyTorch: --checkpoint=runs/hg_s2 --layout=anibali --output=hg2.pth.

The file has the layout of that project's training script: pytorch_pose a dict with "state_dict" of
"module." names, anibali a plain state_dict, princeton a dict with "state_dict" of "model.module."
names. Needs PyTorch (`make torch`).
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import flags

from pipelines import cli
from pipelines.export.pytorch import files
from pipelines.export.pytorch.layouts import LAYOUTS

FLAGS = flags.FLAGS
with cli.group("Network"):
    flags.DEFINE_string("checkpoint", None, "run or checkpoint", required=True)
    flags.DEFINE_enum("weights", "best", ("best", "averaged", "raw"), "kind of weights")
with cli.group("File"):
    flags.DEFINE_enum("layout", None, LAYOUTS, "implementation that will read it", required=True)
    flags.DEFINE_string("output", None, "file to write", required=True)


def main() -> None:
    """Export, print the number of tensors."""
    count = files.export_run(FLAGS.checkpoint, FLAGS.layout, FLAGS.output, FLAGS.weights)
    print(f"{count} tensors as {FLAGS.layout} -> {FLAGS.output}")


if __name__ == "__main__":
    cli.run(main)
