"""python -m tests.fire.killed CONFIG WHERE CALL WHEN: train, and be killed at one exact instant.

CONFIG: JSON of a Config. WHERE: "module:attribute" of a function of ours or TensorFlow's; at its
CALL-th call this process gets SIGKILL, WHEN "before" or "after" it.
"""

import importlib
import json
import os
import signal
import sys

from pipelines.config import Config
from pipelines.training import train


def deadly(function, call: int, when: str):
    """``function``, whose ``call``-th call is the last thing that this process does."""
    calls = 0

    def run(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return run


def main(config: str, where: str, call: str, when: str) -> None:
    module, _, attribute = where.partition(":")
    *path, name = attribute.split(".")
    owner = importlib.import_module(module)
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, name, deadly(getattr(owner, name), int(call), when))
    sys.exit(train.run(Config(**json.loads(config))))


if __name__ == "__main__":
    main(*sys.argv[1:])
