"""Import PyTorch weights as a run's folder: --input=hg_s2_b1.pth.tar --output=runs/imported.

Reads checkpoints of bearpaw/pytorch-pose, anibali/pytorch-stacked-hourglass (hg1, hg2, hg8) and
princeton-vl/pytorch_stacked_hourglass. Then, for example:

    python eval_main.py --checkpoint=runs/imported --workdir=runs/imported
    python train_main.py --init_from=runs/imported --stem=pytorch_pose --workdir=runs/fine

Needs PyTorch (`make torch`); nothing in the file is executed.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import flags

from hourglass import skeleton
from pipelines import cli
from pipelines.export.pytorch import files

FLAGS = flags.FLAGS
SKELETONS = {"mpii": skeleton.MPII, "lsp": skeleton.LSP}
with cli.group("Files"):
    flags.DEFINE_string("input", None, "PyTorch checkpoint file", required=True)
    flags.DEFINE_string("output", None, "folder of the new run; must not exist", required=True)
with cli.group("Not in the file"):
    flags.DEFINE_enum("skeleton", "mpii", SKELETONS, "joints of the heatmaps")
    flags.DEFINE_integer("size", 256, "side of the network input, px")


def main() -> None:
    """Import, print the architecture."""
    joints = SKELETONS[FLAGS.skeleton]
    imported = files.import_run(FLAGS.input, FLAGS.output, joints, FLAGS.size)
    network = " ".join(f"--{k}={imported[k]}" for k in "stacks blocks channels depth stem".split())
    print(f"{FLAGS.input}: layout {imported['layout']}, {network}, {imported['joints']} joints")
    print(f"-> {FLAGS.output}")


if __name__ == "__main__":
    cli.run(main)
