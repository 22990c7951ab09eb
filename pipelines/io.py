"""Whole files, local or remote (gs://): one appears complete or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator

import tensorflow as tf

_PROBE = ".writable.partial"


def write_atomically(path: str, data: bytes) -> None:
    """Write ``data`` to a temporary file next to ``path`` and rename it; folders are created.

    Raises OSError with the path and the reason; ``path`` is then unchanged.
    """
    partial = path + ".partial"
    try:
        tf.io.gfile.makedirs(os.path.dirname(path) or ".")
        with tf.io.gfile.GFile(partial, "wb") as file:
            file.write(data)
        tf.io.gfile.rename(partial, path, overwrite=True)
    except tf.errors.OpError as error:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(partial)
        raise OSError(f"cannot write {path}: {error.message}; choose another path") from error


def read_whole(path: str) -> bytes:
    """Return the file's bytes; FileNotFoundError or OSError, with the path, if it cannot."""
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        raise FileNotFoundError(f"no file at {path}; check the path")
    check_regular(path)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    except tf.errors.OpError as error:
        raise OSError(f"cannot read {path}: {error.message}") from error


def check_writable(folder: str) -> None:
    """Try to write into ``folder``, so that no long work ends at a folder that cannot be written.

    Nothing is created: where the folder does not exist, the one that it would be created in is
    tried. Raises OSError with the folder and the reason.
    """
    there = folder or "."
    # Object stores have no folders: anything can be written below a bucket.
    while "://" not in there and not os.path.lexists(there):
        there = os.path.dirname(there.rstrip("/")) or "."
    probe = os.path.join(there, _PROBE)
    try:
        with tf.io.gfile.GFile(probe, "wb") as file:
            file.write(b"tried")
        with contextlib.suppress(tf.errors.NotFoundError):  # another process tries it, too
            tf.io.gfile.remove(probe)
    except tf.errors.OpError as error:
        raise OSError(
            f"cannot write to {folder or there}: {error.message}; choose another path"
        ) from error


def check_file_writable(path: str) -> None:
    """``check_writable`` of the folder of ``path``, which must not be a folder itself."""
    if tf.io.gfile.isdir(path):
        raise IsADirectoryError(f"cannot write {path}: it is a folder; name a file")
    check_writable(os.path.dirname(path))


@contextlib.contextmanager
def temporary_folder() -> Iterator[str]:
    """Yield an empty folder of this machine that is removed at the end.

    Those of killed processes, which could not remove theirs, are removed first.
    """
    start = f"hourglass-{socket.gethostname()}-"
    for name in os.listdir(tempfile.gettempdir()):
        match = re.fullmatch(re.escape(start) + r"(\d+)-.*", name)
        if match and not is_alive(int(match[1])):
            shutil.rmtree(os.path.join(tempfile.gettempdir(), name), ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{start}{os.getpid()}-") as folder:
        yield folder


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has the number ``pid``, whoever started it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def check_regular(path: str) -> None:
    """Raise OSError for anything but a file: opening a fifo waits, and a device may never end."""
    if "://" not in path and not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is a folder, fifo, device or socket, not a file; give a file")
