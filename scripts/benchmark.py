"""Speed of each part, compared with the machine's limits, PyTorch and other engines.

    python scripts/benchmark.py --all --json > benchmark.json

measures the table of figures to reach, each at the settings it is defined for.

    python scripts/benchmark.py --flagfile=configs/demo.flags --parts=input,train

measures parts of one configuration: input (records -> decoded batches), augment (crops -> network
input and targets), train (the step on a fixed batch), infer (pictures -> heatmaps), convert
(photographs -> records), end_to_end (the training loop on records), predict (picture files ->
predictions.json, compared with first reading all files and then predicting all crops), person (one
of docs/street.jpg -> joints, by the network in pretrained/, whatever the configuration).

    python scripts/benchmark.py --stored=362:2,256:1.5

measures the input pipeline on records of each SIDE:CONTEXT, on one core, and prints which fraction
of the augmented pictures is then black or enlarged.

Everything that is compared takes turns, each in its own process. Without --records, photographs are
drawn and converted first. Tables go to standard output; with --json they go to standard error.
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


def _print_progress(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _given() -> set[str]:
    """Names of the flags that the user set."""
    return {name for name in _FLAGS if _FLAGS[name].present}


def _groups(settings: config.Config, folder: str, joints: int) -> list[comparison.Group]:
    if _FLAGS.stored:
        return [stored.group(settings, folder, stored.geometries(_FLAGS.stored), joints)]
    if _FLAGS.all:
        return comparison.everything(settings, _given(), joints)
    return comparison.chosen(_FLAGS.parts, settings, joints, _FLAGS.peers, _FLAGS.ceilings)


def _lines(measured: list, joints: int) -> list[dict]:
    """Rows of the table of figures, or with --parts of all possible comparisons."""
    by_name = {group.name: (group, results) for group, results in measured}
    if _FLAGS.stored or not _FLAGS.all:
        group, results = measured[0]
        return [report.line(row, group, results, True) for row in comparison.pairs(group)]
    defined = {group.name: comparison.as_defined(group, joints) for group, _ in measured}
    return [report.line(r, *by_name[r.group], defined[r.group]) for r in comparison.ROWS]


def run(settings: config.Config) -> None:
    """Measure the requested parts and print the results."""
    import tensorflow as tf  # at the top it would come before hourglass, which silences its start

    gpus = tf.config.list_physical_devices("GPU")
    # Reading records here would reserve the memory that the measuring processes need.
    tf.config.set_visible_devices([], "GPU")
    about = environment.describe([gpu.name for gpu in gpus])
    timing = rounds.Timing(_FLAGS.repeats, _FLAGS.seconds, _FLAGS.benchmark_steps, _FLAGS.limit)
    start = time.perf_counter()
    given = settings.records if "records" in _given() else ""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        _print_progress("preparing photographs and records")
        info = workload.prepare(folder, given, _FLAGS.people)
        settings = dataclasses.replace(settings, records=info.folder)
        measured = []
        for group in _groups(settings, folder, len(info.skeleton)):
            _print_progress(f"{group.name}: {report.settings(group)}")
            measured.append((group, rounds.measure(group.tasks, folder, timing, _print_progress)))
        sizes = stored.geometries(_FLAGS.stored)
        stored_lines = stored.lines(sizes, *measured[0], settings.size) if sizes else []
    about["seconds"] = round(time.perf_counter() - start, 1)
    _print(about, measured, _lines(measured, len(info.skeleton)), stored_lines)


def _print(about: dict, measured: list, lines: list[dict], stored_lines: list[dict]) -> None:
    width = None if sys.stdout.isatty() else 180
    console = rich.console.Console(stderr=_FLAGS.json, width=width, soft_wrap=False)
    report.show(console, measured)
    if lines:
        console.print(report.figures(lines))
    if stored_lines:
        console.print(stored.table(stored_lines))
    machine = f"{about['cores']} cores of {about['cpu']}, {', '.join(about['instructions'])}"
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    console.print(f"{about['date']}, commit {about['commit']}, {machine}; {versions}")
    console.print(f"{about['seconds']} s in all; load at the start {about['load_at_start']:.1f}")
    if _FLAGS.json:
        data = {**report.as_json(about, measured, lines), "stored": stored_lines}
        json.dump(data, sys.stdout, indent=1)
        print()


def main() -> None:
    """Run the benchmark with the flags' settings."""
    run(config.from_flags())


def _define_flags() -> None:
    flags.DEFINE_bool("all", False, "measure the table of figures to reach")
    flags.DEFINE_list("parts", list(comparison.PARTS), "parts to measure, without --all")
    flags.DEFINE_list(
        "stored",
        [],
        "measure the input pipeline on records of each SIDE:CONTEXT, such as 256:1.5, instead",
    )
    flags.DEFINE_bool(
        "peers", True, "also measure PyTorch, OpenVINO, ONNX Runtime, MediaPipe, where installed"
    )
    flags.DEFINE_bool("ceilings", True, "also measure the machine's limits")
    flags.DEFINE_bool("json", False, "JSON to standard output; tables go to standard error")
    flags.DEFINE_integer("repeats", 3, "measurements of each part", lower_bound=1)
    flags.DEFINE_float("seconds", 3.0, "length of a measurement", lower_bound=0.0)
    flags.DEFINE_integer("benchmark_steps", 0, "steps per measurement; 0 = --seconds", 0)
    flags.DEFINE_integer("people", 512, "photographs to draw and convert", lower_bound=6)
    flags.DEFINE_float("limit", 240.0, "seconds to wait for a part's answer", lower_bound=1.0)
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
