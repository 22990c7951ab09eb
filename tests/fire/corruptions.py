"""Damage every kind of file that the product reads, and judge what the commands do.

    python -m tests.fire.corruptions --count=300 --seed=0
    python -m tests.fire.corruptions --seed=0 --number=17 -v    # one of them again

A command that reads a damaged file must end in one sentence that names it, or with exit code 0 and
what it would have done without the damage, or with what it says is left out. Anything else is a
failure: a traceback, a hang, death by a signal, too much memory, a silent difference.

Every command runs in a fork of this process, which has imported TensorFlow and runs no operation.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import typing

from tests.fire import corpus, damages
from tests.fire.corpus import CHECKSUM, COMMANDS, JSON, SUBJECTS, Subject
from tests.helpers import forked
from tests.helpers.processes import ROOT

SECONDS, GIGABYTES = 120.0, 2.0
SENTENCE, ANNOUNCED, HARMLESS = "sentence", "announced", "harmless"
VALUE, FAILED = "value", "FAILED"
VERDICTS = {
    SENTENCE: "answered in a sentence",
    ANNOUNCED: "left out, and said",
    HARMLESS: "same result",
    VALUE: "another valid value",
    FAILED: "failed",
}

# Damages of JSON that leave JSON.
_VALUES = {"value", "value again", "value once more", "removed", "doubled", "deep"}
_VALUES |= {"flipped", "repeated"}


class Done(typing.NamedTuple):
    """What a command did: exit code, or minus a signal, or None for a hang; seconds of CPU."""

    code: int | None
    text: str
    outcome: object
    gigabytes: float
    seconds: float


class Case(typing.NamedTuple):
    """One corruption: what was damaged, the damage's name, and in words."""

    number: int
    subject: Subject
    damage: str
    words: str


# ---- processes


def child(folder: pathlib.Path, command: corpus.Command, log: pathlib.Path) -> None:
    """Become the command; its outcome goes to a file beside its log. Never returns."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    code = 1
    try:
        script, *words = command.words
        code = forked.run([str(ROOT / script), *words])
        if code == 0:
            sys.stdout.flush()
            log.with_suffix(".json").write_text(json.dumps(command.outcome(), sort_keys=True))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def cpu_seconds(process: int) -> float:
    """Seconds of a processor that a process has taken; 0 where it has ended."""
    try:
        words = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


class Pulse:
    """Whether a process still works, on a machine that may be busy."""

    def __init__(self, process: int):
        self._process, self._used, self._since = process, 0.0, time.monotonic()

    def hangs(self) -> bool:
        """Whether it has taken too much of a processor, or nearly nothing for as long."""
        used, now = cpu_seconds(self._process), time.monotonic()
        if used >= self._used + 1.0:
            self._used, self._since = used, now
        return used > SECONDS or now - self._since > SECONDS


def memory(process: int) -> float:
    """GB that a process takes now; 0 where it has ended."""
    try:
        pages = int(pathlib.Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def run_all(jobs: typing.Iterable[tuple], most: int) -> typing.Iterator[tuple[object, Done]]:
    """Run jobs, (key, folder, command, log), at most ``most`` at a time; yield key and result."""
    running: dict[int, tuple] = {}
    jobs = iter(jobs)
    while True:
        while len(running) < most:
            job = next(jobs, None)
            if job is None:
                break
            process = os.fork()
            if not process:
                child(*job[1:])
            running[process] = (job, Pulse(process))
        if not running:
            return
        time.sleep(0.02)
        for process, (job, pulse) in list(running.items()):
            done = _finished(process, pulse, job[3])
            if done:
                del running[process]
                yield job[0], done


def _finished(process: int, pulse: Pulse, log: pathlib.Path) -> Done | None:
    ended, status, usage = os.wait4(process, os.WNOHANG)
    late, eats = pulse.hangs(), memory(process) > 2 * GIGABYTES
    if not ended and not late and not eats:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # its worker processes, too
    if not ended:
        _, status, usage = os.wait4(process, 0)
    code = None if late and not ended else os.waitstatus_to_exitcode(status)
    outcome = log.with_suffix(".json")
    return Done(
        code,
        log.read_text(errors="replace"),
        json.loads(outcome.read_text()) if outcome.exists() else None,
        usage.ru_maxrss / 1e6,
        usage.ru_utime + usage.ru_stime,
    )


def prepare(folder: pathlib.Path) -> None:
    """Make the worlds, each part in a process of its own."""
    for name, parts in corpus.WORLDS.items():
        (folder / name).mkdir()
        for part in parts:
            process = os.fork()
            if not process:
                os.setsid()
                output = os.open(folder / "preparation.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(output, 1)
                os.dup2(output, 2)
                os.chdir(folder / name)
                code = 1
                try:
                    part()
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            if code not in (0, -signal.SIGKILL):
                raise RuntimeError((folder / "preparation.log").read_text())


# ---- cases


def subjects(brief: bool) -> dict[str, list[Subject]]:
    """Kind -> its subjects, of those that can be tried here; ``brief``: without training."""
    without = {*(() if corpus.TORCH else ("import",)), *(("train",) if brief else ())}
    by_kind = collections.defaultdict(list)
    for subject in SUBJECTS:
        if subject.command not in without:
            by_kind[subject.kind].append(subject)
    return dict(by_kind)


def make_case(
    number: int, options: argparse.Namespace, worlds: pathlib.Path, folder: pathlib.Path
) -> Case:
    """Copy a world into ``folder`` and damage one file of it; all follows from number and seed."""
    by_kind, seed = subjects(options.brief), options.seed
    kind = sorted(by_kind)[number % len(by_kind)]
    draw = random.Random(f"{seed} {number}")
    subject = draw.choice(by_kind[kind])
    shutil.copytree(worlds / subject.world, folder, symlinks=True)
    (path,) = folder.glob(subject.path)
    table = damages.JSON if subject.noticed == JSON else damages.BYTES
    name = draw.choice([name for name in table if name not in subject.without])
    return Case(number, subject, name, table[name](path, draw))


def judge(case: Case, done: Done, whole: Done | None) -> tuple[str, str]:
    """Verdict, and why; ``whole`` is what the command does without damage."""
    if done.code is None:
        return FAILED, f"hangs ({SECONDS:.0f} s)"
    if "Traceback (most recent call last)" in done.text:
        return FAILED, f"traceback: {done.text.splitlines()[-1][:200]}"
    if done.gigabytes > GIGABYTES:
        return FAILED, f"takes {done.gigabytes:.1f} GB"
    if done.code < 0:
        return FAILED, f"died by {signal.Signals(-done.code).name}"
    name = os.path.basename(case.subject.path).rstrip("*")
    names = (name, *case.subject.names)
    if done.code:
        return _judge_error(done.text, names)
    if done.outcome == whole.outcome:
        return HARMLESS, ""
    news = set(done.text.splitlines()) - set(whole.text.splitlines())
    ids = done.outcome.get("ids", "") if isinstance(done.outcome, dict) else ""
    if any(name in text for text in (*news, json.dumps(ids)) for name in names):
        return ANNOUNCED, ""
    return (FAILED, "silently different") if _is_noticeable(case) else (VALUE, "")


def _judge_error(text: str, names: tuple[str, ...]) -> tuple[str, str]:
    errors = [line for line in text.splitlines() if re.match("(error|make_tfrecords): ", line)]
    if len(errors) != 1:
        return FAILED, f"{len(errors)} sentences: {text[-300:]!r}"
    bad = [line for line in text.splitlines() if line.startswith("bad: ")]  # what cost one input
    named = any(name in line for line in (*errors, *bad) for name in names)
    return (SENTENCE if named else FAILED), errors[0]


def _is_noticeable(case: Case) -> bool:
    noticed = case.subject.noticed
    if noticed == CHECKSUM or case.damage in damages.WHOLE:
        return True
    return noticed == JSON and case.damage not in _VALUES


# ---- all of it


def corrupt(numbers: list[int], options: argparse.Namespace, folder: pathlib.Path) -> list[tuple]:
    """Return (case, result, verdict, why) of each number that the time was enough for."""
    most, end = options.processes, time.monotonic() + 60 * options.minutes
    worlds, cases, results = folder / "worlds", {}, {}
    worlds.mkdir()
    prepare(worlds)

    def jobs():
        for number in itertools.takewhile(lambda _: time.monotonic() < end, numbers):
            place = folder / str(number)
            cases[number] = make_case(number, options, worlds, place)
            command = COMMANDS[cases[number].subject.command]
            yield number, place, command, folder / f"{number}.log"

    for number, done in run_all(jobs(), most):
        results[number] = done
        shutil.rmtree(folder / str(number))
    numbers = sorted(results)
    whole = _undamaged([cases[n].subject for n in numbers if results[n].code == 0], most, folder)
    return [
        (cases[n], results[n], *judge(cases[n], results[n], whole.get(cases[n].subject.command)))
        for n in numbers
    ]


def _undamaged(needed: list[Subject], most: int, folder: pathlib.Path) -> dict[str, Done]:
    def jobs():
        for name, world in {subject.command: subject.world for subject in needed}.items():
            shutil.copytree(folder / "worlds" / world, folder / name, symlinks=True)
            yield name, folder / name, COMMANDS[name], folder / f"{name}.log"

    whole = dict(run_all(jobs(), most))
    for name, done in whole.items():
        if done.code or done.outcome is None:
            raise RuntimeError(f"undamaged, {name} ends with {done.code}: {done.text}")
    return whole


def table(results: list[tuple]) -> str:
    """Verdicts by kind of file."""
    counts = collections.defaultdict(collections.Counter)
    for case, _, verdict, _ in results:
        counts[case.subject.kind][verdict] += 1
        counts["all"][verdict] += 1
    rows = [["", "corruptions", *VERDICTS.values()]]
    for kind in (*sorted(set(counts) - {"all"}), "all"):
        row = counts[kind]
        rows.append([kind, str(sum(row.values())), *(str(row[v]) for v in VERDICTS)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(word.ljust(w) for word, w in zip(row, widths)) for row in rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="corruptions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first of them")
    parser.add_argument("--number", type=int, help="only this one")
    parser.add_argument("--brief", action="store_true", help="nothing that trains, for the suite")
    parser.add_argument("--minutes", type=float, default=60, help="start none after that")
    parser.add_argument("--processes", type=int, default=2, help="commands at a time")
    parser.add_argument("-v", "--verbose", action="store_true", help="print all, with output")
    return parser.parse_args()


def main() -> int:
    options = parse()
    # TensorFlow looks for a GPU with its first operation; a script must not start itself again.
    os.environ.update(CUDA_VISIBLE_DEVICES="-1", GLIBC_TUNABLES="", PYTHONPATH=str(ROOT))
    for name in ("rich.table", "matplotlib.figure", *(f"pipelines.{n}" for n in forked.MODULES)):
        importlib.import_module(name)
    if corpus.TORCH:
        importlib.import_module("torch")
    numbers = [*range(options.first, options.first + options.count)]
    numbers = numbers if options.number is None else [options.number]
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="corruptions-") as folder:
        results = corrupt(numbers, options, pathlib.Path(folder))
    for case, done, verdict, why in results:
        if verdict == FAILED or options.verbose:
            print(
                f"{verdict}: --seed={options.seed} --number={case.number}: {case.subject.path} of "
                f"`{case.subject.command}`, {case.damage} ({case.words}): {why}; "
                f"{done.seconds:.1f} s of CPU, {done.gigabytes:.1f} GB"
            )
        if options.verbose:
            print(done.text)
    failed = sum(verdict == FAILED for *_, verdict, _ in results)
    print(table(results))
    without = "" if corpus.TORCH else "; PyTorch is not installed: its files were not tried"
    print(
        f"{len(results) - failed} of {len(results)} corruptions answered, {failed} failed, "
        f"in {time.monotonic() - start:.0f} s ({sum(os.times()[:4]):.0f} s of CPU){without}"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
