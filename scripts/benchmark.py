"""How fast each part is, beside what the machine can do and beside PyTorch.

    python scripts/benchmark.py --all --json > benchmark.json

measures the table of figures to reach, at the settings where each is defined.

    python scripts/benchmark.py --flagfile=configs/demo.flags --parts=input,train

measures parts of one configuration: input (records -> decoded batches), augment (crops -> network
input and targets), train (the step on a fixed batch), infer (pictures -> heatmaps), convert
(photographs -> records), end_to_end (the training loop on records), predict (picture files ->
predictions.json, beside reading them and then predicting ready crops).

    python scripts/benchmark.py --stored=362:2,256:1.5

measures the input pipeline on records of each SIDE:CONTEXT, on one core, and says what share of the
augmented pictures is then black or enlarged.

Everything that is compared takes turns, in processes of their own. Without --records, photographs
are drawn and converted first. Tables go to standard output; with --json they go to standard error.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import dataclasses
import json
import tempfile
import time

import rich.console
from absl import flags

from pipelines import cli, config
from pipelines.benchmark import comparison, environment, report, rounds, stored, workload

_FLAGS = flags.FLAGS


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _given() -> set[str]:
    """Names of the flags that the user set."""
    return {name for name in _FLAGS if _FLAGS[name].present}


def _groups(settings: config.Config, folder: str, joints: int) -> list[comparison.Group]:
    if _FLAGS.stored:
        return [stored.group(settings, folder, stored.geometries(_FLAGS.stored), joints)]
    if _FLAGS.all:
        return comparison.everything(settings, _given(), joints)
    kinds = (_FLAGS.peers, _FLAGS.ceilings)
    return comparison.chosen(_FLAGS.parts, settings, joints, *kinds)


def _lines(measured: list, joints: int) -> list[dict]:
    """Rows of the table of figures, or with --parts of all comparisons that these allow."""
    found = {group.name: (group, results) for group, results in measured}
    if _FLAGS.stored or not _FLAGS.all:
        group, results = measured[0]
        return [report.line(row, group, results, True) for row in comparison.pairs(group)]
    defined = {group.name: comparison.as_defined(group, joints) for group, _ in measured}
    return [report.line(r, *found[r.group], defined[r.group]) for r in comparison.ROWS]


def run(settings: config.Config) -> None:
    """Measure what the flags ask for and print it."""
    import tensorflow as tf  # at the top it would come before hourglass, which has it start quietly

    gpus = tf.config.list_physical_devices("GPU")
    # Reading records here would take all of their memory from the processes that measure.
    tf.config.set_visible_devices([], "GPU")
    about = environment.describe([gpu.name for gpu in gpus])
    pace = rounds.Pace(_FLAGS.repeats, _FLAGS.seconds, _FLAGS.benchmark_steps, _FLAGS.limit)
    start = time.perf_counter()
    given = settings.records if "records" in _given() else ""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        _say("preparing photographs and records")
        info = workload.prepare(folder, given, _FLAGS.people)
        settings = dataclasses.replace(settings, records=info.folder)
        measured = []
        for group in _groups(settings, folder, len(info.skeleton)):
            _say(f"{group.name}: {report.settings(group)}")
            measured.append((group, rounds.measure(group.tasks, folder, pace, _say)))
        sizes = stored.geometries(_FLAGS.stored)
        kept = stored.lines(sizes, *measured[0], settings.size) if sizes else []
    about["seconds"] = round(time.perf_counter() - start, 1)
    _print(about, measured, _lines(measured, len(info.skeleton)), kept)


def _print(about: dict, measured: list, lines: list[dict], kept: list[dict]) -> None:
    width = None if sys.stdout.isatty() else 180
    console = rich.console.Console(stderr=_FLAGS.json, width=width, soft_wrap=False)
    report.show(console, measured)
    if lines:
        console.print(report.figures(lines))
    if kept:
        console.print(stored.table(kept))
    machine = f"{about['cores']} cores of {about['cpu']}, {', '.join(about['instructions'])}"
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    console.print(f"{about['date']}, commit {about['commit']}, {machine}; {versions}")
    console.print(f"{about['seconds']} s in all; load at the start {about['load_at_start']:.1f}")
    if _FLAGS.json:
        found = {**report.as_json(about, measured, lines), "stored": kept}
        json.dump(found, sys.stdout, indent=1)
        print()


def main() -> None:
    """Benchmark what the flags say."""
    run(config.from_flags())


def _define_flags() -> None:
    flags.DEFINE_bool("all", False, "measure the table of figures to reach")
    flags.DEFINE_list("parts", list(comparison.PARTS), "which parts, without --all")
    flags.DEFINE_list(
        "stored", [], "instead: the input pipeline on records of each SIDE:CONTEXT, such as 256:1.5"
    )
    flags.DEFINE_bool("peers", True, "measure PyTorch, too, where it is installed")
    flags.DEFINE_bool("ceilings", True, "measure what the machine can do, too")
    flags.DEFINE_bool("json", False, "JSON to standard output; tables go to standard error")
    flags.DEFINE_integer("repeats", 3, "measurements of each part", lower_bound=1)
    flags.DEFINE_float("seconds", 3.0, "length of a measurement", lower_bound=0.0)
    flags.DEFINE_integer("benchmark_steps", 0, "steps per measurement; 0 = --seconds", 0)
    flags.DEFINE_integer("people", 512, "photographs to draw and convert", lower_bound=6)
    flags.DEFINE_float("limit", 240.0, "seconds after which a part is given up", lower_bound=1.0)
    flags.register_validator(
        "parts",
        lambda parts: parts and set(parts) <= set(comparison.PARTS),
        message=f"must be some of {','.join(comparison.PARTS)}",
    )


if __name__ == "__main__":
    with cli.group("Benchmark"):
        _define_flags()
    config.define_flags()
    cli.run(main)
