"""Tasks measured in alternation: in each round every process takes its turn, alone."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from pipelines import cli
from pipelines.benchmark import Task

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Several processes take turns on one GPU: none may reserve all of its memory.
_SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}

# Between turns, so that the last one's prefetching ends and its threads go idle, s.
PAUSE = 0.3


@dataclasses.dataclass(frozen=True)
class Timing:
    """Rounds and lengths of a measurement.

    Attributes:
      repeats: number of rounds.
      seconds: length of a turn; at least one step is taken.
      steps: number of steps of a turn; 0 = as ``seconds`` allows.
      limit: seconds to wait for a process's answer.
    """

    repeats: int
    seconds: float
    steps: int
    limit: float


class Failed(Exception):
    """A part cannot be measured; the message is the reason."""


class Worker:
    """The process of a task."""

    def __init__(self, task: Task, folder: str):
        """Start it; the part is built while other processes start."""
        self.task, self.log_file = task, tempfile.TemporaryFile()
        pages = cli.HUGE_PAGES if task.huge_pages else {}
        self.process = subprocess.Popen(
            [task.python or sys.executable, "-m", "pipelines.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log_file,
            env={**pages, **_SHARED_GPU, **os.environ, "PYTHONPATH": ROOT, **task.environment},
            bufsize=0,
            start_new_session=True,
        )
        self._send({"task": dataclasses.asdict(task), "folder": folder})

    def _send(self, question) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died; answer() raises the reason
            self.process.stdin.write(json.dumps(question).encode() + b"\n")

    def answer(self, limit: float) -> dict:
        """Its next answer; raises Failed if it fails, dies or takes longer than ``limit`` s."""
        ready, _, _ = select.select([self.process.stdout], [], [], limit)
        if not ready:
            raise Failed(f"no answer within {limit:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"its process died: {self._last_line()}")
        answer = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def ask(self, question, limit: float) -> dict:
        """Send a number of steps, or None for the details, and wait for the answer."""
        self._send(question)
        return self.answer(limit)

    def log(self) -> str:
        """What the process has printed so far, except for its answers."""
        self.log_file.seek(0)
        return self.log_file.read().decode(errors="replace")

    def _last_line(self) -> str:
        lines = self.log().strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.wait()}"

    def close(self) -> None:
        """End it and all processes it started."""
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.log_file.close()


def _missing(task: Task) -> str:
    for package in () if task.python else task.needs:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    return ""


def ask(task: Task, folder: str, limit: float) -> tuple[dict, str]:
    """Details of a task's part after one step, or {"failed": reason}; and its process's log.

    ``limit``: seconds to wait for an answer.
    """
    if _missing(task):
        return {"failed": _missing(task)}, ""
    worker = Worker(task, folder)
    try:
        worker.answer(limit)
        return worker.ask(None, limit), worker.log()
    except Failed as error:
        return {"failed": str(error)}, worker.log()
    finally:
        worker.close()


def measure(
    tasks: list[Task], folder: str, timing: Timing, progress=lambda text: None
) -> dict[str, dict]:
    """Measure tasks in alternation.

    Args:
      tasks: those to be compared.
      folder: filled by ``workload.prepare``.
      timing: rounds and lengths.
      progress: function(text) that prints progress.

    Returns:
      task name -> {"failed": reason}, or {"work", "unit", "steps" per turn, "seconds" [repeats],
      "rates" [repeats] in units/s, "median", "spread" (range of the rates over their median),
      "waited" (fraction of the time, or None), "peak_mb" (above "started_mb", used by imports),
      and the part's details}.
    """
    results = {task.name: {"failed": _missing(task)} for task in tasks if _missing(task)}
    with contextlib.ExitStack() as stack:
        workers = {}
        for task in tasks:
            if task.name not in results:
                workers[task.name] = Worker(task, folder)
                stack.callback(workers[task.name].close)
        progress(f"starting {', '.join(workers)}")
        turns = {name: {} for name in workers}

        def each(phase, names) -> None:
            """Run a phase of every worker that has not failed."""
            for name in names:
                if name not in results:
                    try:
                        phase(workers[name], turns[name])
                    except Failed as error:
                        results[name] = {"failed": str(error)}
                        workers[name].close()

        each(lambda worker, turn: turn.update(worker.answer(timing.limit)), workers)
        each(lambda worker, turn: _choose_steps(worker, turn, timing), workers)
        for number in range(timing.repeats):
            progress(f"round {number + 1} of {timing.repeats}")
            # Back and forth, so that a machine that slows down affects all of them equally.
            order = list(workers) if number % 2 == 0 else list(workers)[::-1]
            each(lambda worker, turn: _take_turn(worker, turn, timing), order)
        each(lambda worker, turn: turn.update(worker.ask(None, timing.limit)), workers)
    results.update({name: _summary(turns[name]) for name in workers if name not in results})
    return {task.name: results[task.name] for task in tasks}


def _choose_steps(worker: Worker, turn: dict, timing: Timing) -> None:
    """Time one step, alone, to choose the number that fills a turn."""
    seconds = worker.ask(1, timing.limit)["seconds"]
    turn["steps"] = timing.steps or max(1, round(timing.seconds / seconds))
    turn["answers"] = []
    time.sleep(PAUSE)


def _take_turn(worker: Worker, turn: dict, timing: Timing) -> None:
    turn["answers"].append(worker.ask(turn["steps"], timing.limit))
    time.sleep(PAUSE)


def _summary(turn: dict) -> dict:
    answers = turn.pop("answers")
    seconds = [answer["seconds"] for answer in answers]
    rates = [turn["work"] * turn["steps"] / second for second in seconds]
    waits = [answer["waited"] for answer in answers]
    median = statistics.median(rates)
    return {
        **turn,
        "seconds": seconds,
        "rates": rates,
        "median": median,
        "spread": (max(rates) - min(rates)) / median,
        "waited": None if None in waits else sum(waits) / sum(seconds),
    }
