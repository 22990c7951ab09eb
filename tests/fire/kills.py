"""python -m tests.fire.kills: kill commands at random instants, run them again, compare.

Each command runs once uninterrupted. Then, in a folder of its own, it is killed with SIGKILL, once
or several times, started again until it is finished, and must have left what the uninterrupted one
did. A kill comes after a random time, as a file appears or changes, or right before or after one of
the operations on files that Python does. Some kill the whole process group, others the command
alone: its workers must then end by themselves.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import itertools
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing

from tests.fire import commands
from tests.fire.commands import COMMANDS, Command
from tests.fire.killed import FILES
from tests.helpers import outcomes
from tests.helpers.processes import ROOT

LIMIT = 600  # seconds that a command may take
ALONE = 60  # seconds that workers may outlive their command
AT_ONCE = 2  # commands


class Whole(typing.NamedTuple):
    """What an uninterrupted command left, its seconds, and its number of operations on files."""

    outcome: dict
    seconds: float
    operations: int


class Kill(typing.NamedTuple):
    """When to kill, one of three kinds, and whether the whole process group.

    After ``seconds``; so long after a path that fits the pattern ``moment`` appeared or changed;
    or at an ``operation``, such as ("17", "before").
    """

    seconds: float = 0.0
    moment: str = ""
    operation: tuple[str, str] = ()
    group: bool = False

    def __str__(self) -> str:
        if self.operation:
            return f"{self.operation[1]} operation {self.operation[0]} on files"
        whom = "its group" if self.group else "it alone"
        return f"{self.seconds:.2f} s after {self.moment or 'its start'}, {whom}"


class Trial(typing.NamedTuple):
    """The kills of one command in one folder, and what was wrong in the end, or ""."""

    name: str
    kills: list[Kill]
    problem: str


def draw(command: Command, whole: Whole, chance: random.Random) -> Kill:
    kind, group = chance.choice(command.kinds), chance.random() < 0.5
    if kind == "seconds":
        return Kill(chance.uniform(0, whole.seconds), group=group)
    if kind == "moment":
        delay = chance.choice([0.0, chance.uniform(0, command.window)])
        return Kill(delay, chance.choice(command.moments), group=group)
    number = chance.randint(1, whole.operations)
    return Kill(operation=(str(number), chance.choice(["before", "after"])))


def start(command: Command, folder: pathlib.Path, operation: tuple = ()) -> subprocess.Popen:
    """Start the command in ``folder``/work; its words go to ``folder``/log."""
    wrapped = ("-m", "tests.fire.killed", FILES, *operation) if operation else ()
    (folder / "tmp").mkdir(exist_ok=True)  # for what killed libraries leave there
    environment = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, *wrapped, *command.words],
            cwd=folder / "work",
            env={**os.environ, **environment, "TMPDIR": str(folder / "tmp")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def kill_when_due(process: subprocess.Popen, kill: Kill, folder: pathlib.Path) -> None:
    """Wait for the kill's instant, unless the command ends before it, and for its end."""
    began, before, due = time.monotonic(), files(folder), None
    if not kill.moment and not kill.operation:
        due = began + kill.seconds
    while process.poll() is None:
        now = time.monotonic()
        if due and now >= due:
            (os.killpg if kill.group else os.kill)(process.pid, signal.SIGKILL)
            break
        if kill.moment and not due:
            after = files(folder)
            changed = (path for path in after if after[path] != before.get(path))
            if any(re.fullmatch(kill.moment, path) for path in changed):
                due = now + kill.seconds
            before = after
        if now - began > LIMIT:
            os.killpg(process.pid, signal.SIGKILL)
            raise TimeoutError(f"not finished in {LIMIT} s")
        time.sleep(0.01)
    process.wait()


def files(folder: pathlib.Path) -> dict[str, int]:
    """Path in ``folder`` -> when it changed, ns."""
    found, waiting = {}, [str(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except FileNotFoundError:  # removed meanwhile, as is usual here
            continue
        for entry in entries:
            try:
                found[os.path.relpath(entry.path, folder)] = entry.stat().st_mtime_ns
                waiting += [entry.path] if entry.is_dir() else []
            except FileNotFoundError:
                continue
    return found


def check_group_ends(group: int) -> None:
    """Raise TimeoutError where processes of a killed command live on."""
    end = time.monotonic() + ALONE
    while True:
        table = subprocess.run(
            ["ps", "-A", "-o", "pgid=", "-o", "stat=", "-o", "args="],
            capture_output=True,
            text=True,
            check=True,
        )
        rows = [line.split(None, 2) for line in table.stdout.splitlines()]
        alive = [row[2] for row in rows if int(row[0]) == group and row[1][0] != "Z"]
        if not alive:
            return
        if time.monotonic() > end:
            os.killpg(group, signal.SIGKILL)
            raise TimeoutError(f"still there {ALONE} s after the kill: {alive[0][:200]}")
        time.sleep(0.1)


def tried(name: str, command: Command, whole: Whole, folder: pathlib.Path, seed: str) -> Trial:
    """Kill the command a few times, let it finish, compare."""
    chance, kills, code = random.Random(seed), [], -signal.SIGKILL
    commands.prepare(command, folder / "work")
    try:
        for _ in range(chance.randint(1, command.kills)):
            kill, before = draw(command, whole, chance), printed(folder)
            process = start(command, folder, kill.operation)
            kill_when_due(process, kill, folder / "work")
            check_group_ends(process.pid)
            code = process.returncode
            if code != -signal.SIGKILL:
                break  # it ended before
            kills.append(kill)
        while code == -signal.SIGKILL:
            before = printed(folder)
            process = start(command, folder)
            code = process.wait(LIMIT)
        # Not the last words of killed commands and of their workers.
        words = printed(folder)[len(before) :].decode(errors="replace")
        problem = difference(command, whole, folder, code, words)
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if not problem:
        shutil.rmtree(folder)
    return Trial(name, kills, problem)


def printed(folder: pathlib.Path) -> bytes:
    log = folder / "log"
    return log.read_bytes() if log.exists() else b""


def difference(command: Command, whole: Whole, folder: pathlib.Path, code: int, words: str) -> str:
    """What is wrong with what a finished command printed and left in ``folder``, or ""."""
    if code:
        return f"exit code {code}: {(words.strip().splitlines() or [''])[-1]}"
    if "Traceback" in words:
        return "a traceback"
    left = outcomes.leftovers(folder / "work")
    if left:
        return f"leftovers: {', '.join(left)}"
    parts = outcomes.differences(command.outcome(folder / "work"), whole.outcome)
    return f"not as uninterrupted: {', '.join(parts)}" if parts else ""


def uninterrupted(command: Command, folder: pathlib.Path) -> Whole:
    """Run the command once; its folder stays."""
    commands.prepare(command, folder / "work")
    began = time.monotonic()
    code = start(command, folder, ("0", "before")).wait(LIMIT)
    seconds, log = time.monotonic() - began, (folder / "log").read_text()
    if code:
        raise RuntimeError(f"{' '.join(command.words)} fails without a kill:\n{log}")
    operations = int(re.findall(r"(\d+) calls$", log, re.M)[-1])
    return Whole(command.outcome(folder / "work"), seconds, operations)


def measure(names: list[str], inputs: commands.Inputs, base: pathlib.Path, pool) -> dict:
    """Name -> (command, what it leaves uninterrupted); a training leaves the network first."""
    functions = {function.__name__: function for function in COMMANDS}
    made = {name: functions[name](inputs) for name in names}
    wholes = {}
    if not commands.WITHOUT_NETWORK.issuperset(names):
        training = uninterrupted(commands.training(inputs), base / "training")
        shutil.copytree(base / "training" / "work" / "run", inputs.run)
        wholes = {name: training for name in names if name in ("training", "validation")}
    rest = [name for name in names if name not in wholes]
    wholes.update(zip(rest, pool.map(lambda name: uninterrupted(made[name], base / name), rest)))
    for name, whole in wholes.items():
        print(f"{name}: {whole.seconds:.1f} s, {whole.operations} operations", flush=True)
    return {name: (made[name], wholes[name]) for name in names}


def deck(names: list[str], seed: int):
    """Names without end, each as often as ``COMMANDS`` says."""
    chance = random.Random(seed)
    cards = [f.__name__ for f, count in COMMANDS.items() for _ in range(count)]
    while True:
        yield from (name for name in chance.sample(cards, len(cards)) if name in names)


def show(trial: Trial) -> None:
    for kill in trial.kills:
        print(f"{trial.name}, {kill}: {trial.problem or 'survived'}", flush=True)
    if trial.problem and not trial.kills:
        print(f"{trial.name}, not killed: {trial.problem}", flush=True)


def run(wanted: int, seed: int, minutes: float, names: list[str], base: pathlib.Path) -> bool:
    """Whether all of ``wanted`` kills, or of as many as the time allowed, were survived."""
    began, trials, pending, order = time.monotonic(), [], set(), deck(names, seed)
    numbers, inputs = itertools.count(1), commands.Inputs(base / "inputs")
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        prepared = measure(names, inputs, base, pool)
        while True:
            enough = sum(len(trial.kills) for trial in trials) >= wanted
            late = time.monotonic() - began > 60 * minutes
            while len(pending) < AT_ONCE and not enough and not late:
                name, number = next(order), next(numbers)
                folder, own = base / f"{number}-{name}", f"{seed} {number}"
                pending.add(pool.submit(tried, name, *prepared[name], folder, own))
            if not pending:
                break
            done, pending = concurrent.futures.wait(pending, return_when="FIRST_COMPLETED")
            for future in done:
                trials.append(future.result())
                show(trials[-1])
    return summarize(trials, time.monotonic() - began)


def summarize(trials: list[Trial], seconds: float) -> bool:
    total, survived = collections.Counter(), collections.Counter()
    for trial in trials:
        total[trial.name] += len(trial.kills)
        survived[trial.name] += 0 if trial.problem else len(trial.kills)
    for name in total:
        print(f"{name}: {survived[name]} of {total[name]}")
    every = total.total() if hasattr(total, "total") else sum(total.values())
    rate = every / seconds * 60
    print(f"kills survived: {sum(survived.values())} of {every}, {rate:.1f} per minute")
    return not any(trial.problem for trial in trials)


def main(words: list[str] | None = None) -> int:
    every = [function.__name__ for function in COMMANDS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20, help="no new kills after these")
    parser.add_argument("--commands", default=",".join(every), help="comma-separated")
    given = parser.parse_args(words)
    base = pathlib.Path(tempfile.mkdtemp(prefix="kills-"))
    whole = run(given.kills, given.seed, given.minutes, given.commands.split(","), base)
    if whole:
        shutil.rmtree(base)
    else:
        print(f"what was left of the failed ones: {base}")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
