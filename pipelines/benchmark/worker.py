"""The process of one part: python -m pipelines.benchmark.worker, started by ``rounds``.

It reads lines of JSON on standard input and answers each with one on standard output: first the
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

    Not getrusage, whose peak includes that of the process that started this one, except on macOS,
    which has nothing else: there both are the peak.
    """
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(field))
    return int(line.split()[1]) / 1024


def _limit(cores: int) -> None:
    if cores and not hasattr(os, "sched_setaffinity"):
        raise OSError(f"only Linux can restrict a process to {cores} core(s); measure other parts")
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def find(place: str) -> Callable[..., Part]:
    """Import the function at "module.function"."""
    module, function = place.split(".")
    return getattr(importlib.import_module(f"pipelines.benchmark.{module}"), function)


def measure(part: Part, steps: int) -> dict:
    """Seconds that the steps took; buffers that filled while others were measured are used up."""
    if part.lead_in:
        part.run(part.lead_in)
    start = time.perf_counter()
    waited = part.run(steps)
    return {"seconds": time.perf_counter() - start, "waited": waited, "steps": steps}


def serve(questions, answer) -> None:
    """Answer the questions; the first answer says what a step is, the last one what it took."""
    order = json.loads(questions.readline())
    task = Task(**order["task"])
    _limit(task.cores)
    build = find(task.place)
    for package in task.needs:
        importlib.import_module(package)
    started = resident("VmRSS")
    part = build(task.settings, order["folder"], **task.arguments)
    part.run(1)  # tracing, compiling and the first touch of memory do not count
    answer({"work": part.work, "unit": part.unit})
    for line in questions:
        steps = json.loads(line)
        if steps is None:
            break
        answer(measure(part, steps))
    peak = resident("VmHWM") - started
    answer({**part.facts(), "peak_mb": round(peak, 1), "started_mb": round(started, 1)})


def main() -> None:
    """Serve; whatever goes wrong is an answer, too."""
    # Libraries print what they like; only answers go to the pipe.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: dict) -> None:
        print(json.dumps(value), file=pipe, flush=True)

    try:
        serve(sys.stdin, answer)
    except Exception as error:
        words = " ".join(str(error).split())
        answer({"failed": f"{type(error).__name__}: {words[:300]}"})
        raise


if __name__ == "__main__":
    main()
