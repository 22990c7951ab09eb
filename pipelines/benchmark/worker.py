"""The process of one part: python -m pipelines.benchmark.worker, started by ``rounds``.

It reads lines of JSON from standard input and answers each with one on standard output: first the
task, then numbers of steps to take, then null.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable

from pipelines.benchmark import Part, Task


def resident(field: str) -> float:
    """MB of this process's memory: "VmRSS" now, "VmHWM" at its peak.

    getrusage's peak includes that of the parent process; it is used only on macOS, which offers
    nothing else: there both are the peak.
    """
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(field))
    return int(line.split()[1]) / 1024


def _limit(cores: int) -> None:
    if cores and not hasattr(os, "sched_setaffinity"):
        raise OSError(f"only Linux can restrict a process to {cores} core(s); choose other parts")
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def import_function(path: str) -> Callable[..., Part]:
    """The function at "module.function" of this package."""
    module, name = path.split(".")
    return getattr(importlib.import_module(f"pipelines.benchmark.{module}"), name)


def measure(part: Part, steps: int) -> dict:
    """Time the steps, after a lead-in that uses up buffers filled between turns."""
    if part.lead_in:
        part.run(part.lead_in)
    start = time.perf_counter()
    waited = part.run(steps)
    return {"seconds": time.perf_counter() - start, "waited": waited, "steps": steps}


def serve(questions, answer) -> None:
    """Answer the questions; the first answer is a step's work, the last one the part's details."""
    first = json.loads(questions.readline())
    task = Task(**first["task"])
    _limit(task.cores)
    build = import_function(task.function)
    for package in task.needs:
        importlib.import_module(package)
    started = resident("VmRSS")
    part = build(task.settings, first["folder"], **task.arguments)
    part.run(1)  # tracing, compiling and the first touch of memory do not count
    answer({"work": part.work, "unit": part.unit})
    for line in questions:
        steps = json.loads(line)
        if steps is None:
            break
        answer(measure(part, steps))
    peak = resident("VmHWM") - started
    answer({**part.details(), "peak_mb": round(peak, 1), "started_mb": round(started, 1)})


def main() -> None:
    """Serve; errors are answers, too."""
    # Libraries print to standard output, too; only answers may go to the pipe.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: dict) -> None:
        print(json.dumps(value), file=pipe, flush=True)

    try:
        serve(sys.stdin, answer)
    except Exception as error:
        message = " ".join(str(error).split())
        answer({"failed": f"{type(error).__name__}: {message[:300]}"})
        raise


if __name__ == "__main__":
    main()
