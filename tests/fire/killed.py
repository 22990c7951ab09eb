"""python -m tests.fire.killed WHERE CALL WHEN SCRIPT WORDS...: run it, and kill it at one instant.

WHERE: "module:attribute" of functions of ours or TensorFlow's, comma-separated. At the CALL-th call
of any of them the process gets SIGKILL, WHEN "before" or "after" it. With CALL 0 it is never
killed, and their number is printed at the end.
"""

import importlib
import itertools
import os
import runpy
import signal
import sys

# All that Python does to files; TensorFlow's own savers do the rest in C++.
FILES = ",".join(
    [
        *(f"tensorflow:io.gfile.{name}" for name in ("rename", "remove", "rmtree", "makedirs")),
        *(f"tensorflow:io.gfile.GFile.{name}" for name in ("write", "close")),
        "tensorflow:train.CheckpointManager.save",
        *(f"os:{name}" for name in ("rename", "replace", "remove", "fsync")),
    ]
)


def deadly(function, numbers, call: int, when: str):
    """``function``; the call that draws the number ``call`` is the last thing this process does."""

    def run(*arguments, **options):
        number = next(numbers)
        if number == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if number == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return run


def replace(where: str, numbers, call: int, when: str) -> None:
    module, _, attribute = where.partition(":")
    *path, name = attribute.split(".")
    owner = importlib.import_module(module)
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, name, deadly(getattr(owner, name), numbers, call, when))


def main(where: str, call: str, when: str, script: str, *words: str) -> None:
    os.environ.setdefault("GLIBC_TUNABLES", "")  # a training would start itself again without this
    importlib.import_module("hourglass")  # before TensorFlow, which then starts quietly
    numbers = itertools.count(1)
    for each in where.split(","):
        replace(each, numbers, int(call), when)
    sys.argv = [script, *words]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        print(f"{next(numbers) - 1} calls", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
