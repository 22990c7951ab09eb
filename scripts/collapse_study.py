"""Why validation collapses: the predecessor's recipe and ours, one choice exchanged at a time.

    python scripts/collapse_study.py

draws synthetic people, trains sixteen small networks one after the other, scores each in four ways
as it trains, and writes curves.png, table.md and each run's scores.json into the output folder. The
same command goes on where it was stopped.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import flags

from pipelines import cli

CONFIGS = os.path.join(os.path.dirname(cli.__file__), "..", "configs", "collapse")

FLAGS = flags.FLAGS
with cli.group("Study"):
    flags.DEFINE_string("output", "runs/collapse", "folder of the runs, the picture and the table")
    flags.DEFINE_string("records", "data/collapse", "record set; drawn where there is none")
    flags.DEFINE_integer("people", 1800, "to draw, a sixth of them for validation", lower_bound=60)
    flags.DEFINE_float(
        "minutes", 60.0, "for all runs together, by this machine's speed", lower_bound=1
    )
    flags.DEFINE_integer("steps", 0, "of each run; 0 = as --minutes allows", lower_bound=0)
    flags.DEFINE_list("runs", "", "names of runs to train, comma-separated; default: all of them")
    flags.DEFINE_string(
        "theirs",
        os.path.join(CONFIGS, "predecessor.flags"),
        "flagfile of the predecessor's recipe; default: configs/collapse/predecessor.flags",
    )
    flags.DEFINE_string(
        "ours",
        os.path.join(CONFIGS, "ours.flags"),
        "flagfile of our recipe; default: configs/collapse/ours.flags",
    )


def main() -> None:
    """Draw, plan, train, and report after each run."""
    from pipelines.config import from_flagfile  # here, because --help needs no TensorFlow
    from pipelines.io import read_whole, write_atomically
    from pipelines.training import collapse, collapse_report

    theirs, ours = (from_flagfile(read_whole(path).decode()) for path in (FLAGS.theirs, FLAGS.ours))
    named = collapse.variants(theirs, ours)
    unknown = [name for name in FLAGS.runs if name not in named]
    if unknown:
        raise ValueError(f"--runs={','.join(unknown)}: there are {', '.join(named)}")
    info = collapse.draw_records(FLAGS.records, FLAGS.people, ours.size)
    steps = FLAGS.steps or collapse.planned_steps(named, info, FLAGS.output, FLAGS.minutes)
    if steps % collapse.EVALUATIONS or steps < 2 * collapse.EVALUATIONS:
        raise ValueError(
            f"--steps={steps} must be a multiple of {collapse.EVALUATIONS}, the evaluations of a "
            f"run, from {2 * collapse.EVALUATIONS} up"
        )
    named = collapse.placed(named, FLAGS.records, FLAGS.output, steps)

    def report() -> None:
        runs = collapse.read_all(named)
        table, picture = collapse_report.table(runs), collapse_report.picture(runs)
        write_atomically(os.path.join(FLAGS.output, "table.md"), table.encode())
        write_atomically(os.path.join(FLAGS.output, "curves.png"), picture)

    chosen = {name: named[name] for name in FLAGS.runs or named}
    collapse.study(chosen, info, report)
    report()
    print(f"{FLAGS.output}/table.md, {FLAGS.output}/curves.png")


if __name__ == "__main__":
    cli.run(main)
