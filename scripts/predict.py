"""Predict the joints of people in pictures and videos, and draw them.

python scripts/predict.py street.jpg

takes the network that comes with the project, --checkpoint=runs/demo another.

INPUT: pictures, folders (with their subfolders), patterns, a video, a camera's number, or - for a
list on standard input.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from pipelines import cli
from pipelines.inference.media_options import MediaOptions


def main(inputs: list[str]) -> int:
    """Predict every input."""
    # Slow, for it loads TensorFlow: --help need not wait for it.
    from pipelines.inference import predict_command

    listed = [line.rstrip("\n") for line in sys.stdin if line.strip()] if "-" in inputs else []
    return predict_command.run(inputs, listed, cli.parsed(MediaOptions))


if __name__ == "__main__":
    cli.define(MediaOptions)
    cli.run(main, words="INPUT...")
