"""Draw validation curves: python scripts/plot_runs.py runs/a runs/b --output=curves.png.

One colour per run; averaged weights as a solid line, raw ones thin and dashed. The output's suffix,
.png, .svg or .pdf, sets the format.
"""

import io
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import flags
from matplotlib.figure import Figure

from pipelines import cli
from pipelines.io import check_file_writable, write_atomically
from pipelines.training import event_files

FORMATS = ("png", "svg", "pdf")
STYLES = {"averaged": ("-", 1.8), "raw": ("--", 0.9)}

FLAGS = flags.FLAGS
with cli.group("Curves"):
    flags.DEFINE_string("measure", "PCKh@0.5", "measure, as in results.json")
    flags.DEFINE_string("column", "mean14", "joint group or mean")
    flags.DEFINE_string("output", "curves.png", f"picture to write: .{', .'.join(FORMATS)}")


def picture(curves: dict[str, dict], label: str, format: str) -> bytes:
    """A picture file of validation curves.

    Args:
      curves: run -> what ``event_files.read_validation`` returned.
      label: of the vertical axis.
      format: one of ``FORMATS``.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel=label)
    for number, (run, by_weights) in enumerate(curves.items()):
        color = f"C{number % 10}"
        for weights, (steps, percent) in by_weights.items():
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
    figure.savefig(data, format=format, dpi=120)
    return data.getvalue()


def draw(runs: list[str], output: str, measure: str, column: str) -> None:
    """Plot the runs' curves into a file, and print each run's best and last value.

    Raises FileNotFoundError or ValueError for runs without the curve, or another format.
    """
    format = os.path.splitext(output)[1][1:].lower()
    if format not in FORMATS:
        raise ValueError(f"--output={output} must end in .{', .'.join(FORMATS)}")
    if not runs:
        raise ValueError("give one or more runs, such as runs/hg_s2")
    check_file_writable(output)
    curves = {run.rstrip("/"): event_files.read_validation(run, measure, column) for run in runs}
    write_atomically(output, picture(curves, f"validation {measure}, {column}, %", format))
    for run, by_weights in curves.items():
        for weights, (steps, percent) in by_weights.items():
            best = percent.argmax()
            print(
                f"{run}, {weights}: best {percent[best]:.2f} at step {steps[best]}, "
                f"last {percent[-1]:.2f} at step {steps[-1]}"
            )
    print(output)


def main(runs: list[str]) -> None:
    """Plot with the flags' settings."""
    draw(runs, FLAGS.output, FLAGS.measure, FLAGS.column)


if __name__ == "__main__":
    cli.run(main, words="RUN...")
