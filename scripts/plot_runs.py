"""Draw validation curves: python scripts/plot_runs.py runs/a runs/b --output=curves.png.

One colour per run; the averaged weights as a line, the raw ones thin and dashed. The picture's kind
follows the name: .png, .svg or .pdf.
"""

import io
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import flags
from matplotlib.figure import Figure

from pipelines import cli
from pipelines.io import write_atomically
from pipelines.training import event_files

KINDS = ("png", "svg", "pdf")
STYLES = {"averaged": ("-", 1.8), "raw": ("--", 0.9)}

FLAGS = flags.FLAGS
with cli.group("Curves"):
    flags.DEFINE_string("measure", "PCKh@0.5", "measure, as in results.json")
    flags.DEFINE_string("column", "mean14", "joint group or mean")
    flags.DEFINE_string("output", "curves.png", f"picture to write: .{', .'.join(KINDS)}")


def picture(curves: dict[str, dict], label: str, kind: str) -> bytes:
    """A picture file of validation curves.

    Args:
      curves: run -> what ``event_files.read_validation`` returned.
      label: of the vertical axis.
      kind: one of ``KINDS``.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel=label)
    for number, (run, kinds) in enumerate(curves.items()):
        color = f"C{number % 10}"
        for weights, (steps, percent) in kinds.items():
            line, width = STYLES[weights]
            text = f"{run}, {weights}: best {percent.max():.2f}, last {percent[-1]:.2f}"
            axes.plot(
                steps,
                percent,
                line,
                color=color,
                linewidth=width,
                marker=".",
                label=text,
            )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    data = io.BytesIO()
    figure.savefig(data, format=kind, dpi=120)
    return data.getvalue()


def draw(runs: list[str], output: str, measure: str, column: str) -> None:
    """Read, draw, write, and print each run's best and last value.

    Raises FileNotFoundError or ValueError for runs without the curve, or another kind of picture.
    """
    kind = os.path.splitext(output)[1][1:].lower()
    if kind not in KINDS:
        raise ValueError(f"--output={output} must end in .{', .'.join(KINDS)}")
    if not runs:
        raise ValueError("name one run or more, such as runs/hg_s2")
    curves = {run.rstrip("/"): event_files.read_validation(run, measure, column) for run in runs}
    write_atomically(output, picture(curves, f"validation {measure}, {column}, %", kind))
    for run, kinds in curves.items():
        for weights, (steps, percent) in kinds.items():
            best = percent.argmax()
            print(
                f"{run}, {weights}: best {percent[best]:.2f} at step {steps[best]}, "
                f"last {percent[-1]:.2f} at step {steps[-1]}"
            )
    print(output)


def main(runs: list[str]) -> None:
    """Draw what the flags say."""
    draw(runs, FLAGS.output, FLAGS.measure, FLAGS.column)


if __name__ == "__main__":
    cli.run(main, words="RUN...")
