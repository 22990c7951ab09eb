"""One training per folder: two would overwrite each other's checkpoints, and both end well."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator

import tensorflow as tf

from pipelines.io import is_alive, read_whole, write_atomically

LOCK_FILE = "training.lock"

# A process on another machine cannot be looked up: it is taken for dead after so many seconds
# without renewing its lock, which it does this often.
STALE = 180.0
RENEW = 30.0


@contextlib.contextmanager
def hold(folder: str) -> Iterator[None]:
    """Hold the lock of a run's folder.

    A lock whose process is gone, as after SIGKILL or a power cut, is taken over.

    Raises:
      ValueError: another training holds it; names its machine, its process and the remedy.
    """
    path, ours = os.path.join(folder, LOCK_FILE), _this_process()
    created = not tf.io.gfile.exists(folder)
    holder = _read(path)
    if holder and not _is_held_by(path, ours) and _is_alive(holder):
        raise ValueError(
            f"{folder} belongs to a training that runs already: process {holder['pid']} on "
            f"{holder['host']}; stop it, choose another --workdir, or delete {path} if that "
            f"process no longer exists (on another machine that is noticed after {STALE:.0f} s)"
        )
    _write(path, ours)
    if not _is_held_by(path, ours):
        raise ValueError(f"{folder}: another training has just started there; {path} names it")
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, ours, ended), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        ended.set()
        renewal.join()
        if _is_held_by(path, ours):
            tf.io.gfile.remove(path)
        if created and tf.io.gfile.isdir(folder) and not tf.io.gfile.listdir(folder):
            tf.io.gfile.rmtree(folder)  # nothing came of the training


def _this_process() -> dict:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}


def _started(pid: int) -> str:
    """When a process of this machine started, "" where that is not known.

    A number that was given to another process since then must not look alive.
    """
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _is_alive(holder: dict) -> bool:
    if holder["host"] != socket.gethostname():
        return time.time() - holder["renewed"] < STALE
    return is_alive(holder["pid"]) and _started(holder["pid"]) == holder["started"]


def _read(path: str) -> dict:
    """The lock's content; {} without a lock, or where a power cut left something else there."""
    kinds = {"host": str, "pid": int, "started": str, "renewed": float}
    try:
        holder = json.loads(read_whole(path))
        whole = all(isinstance(holder[key], kind) for key, kind in kinds.items())
        return holder if whole and 0 < holder["pid"] < 2**31 else {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def _is_held_by(path: str, process: dict) -> bool:
    return process.items() <= _read(path).items()


def _write(path: str, holder: dict) -> None:
    write_atomically(path, json.dumps({**holder, "renewed": time.time()}).encode())


def _renew(path: str, ours: dict, ended: threading.Event) -> None:
    while not ended.wait(RENEW):
        with contextlib.suppress(OSError):  # a full disk is for the next checkpoint to report
            _write(path, ours)
