"""Whole files, local or remote (gs://): one appears complete or not at all."""

from __future__ import annotations

import os

import tensorflow as tf


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
        if tf.io.gfile.exists(partial):
            tf.io.gfile.remove(partial)
        raise OSError(f"cannot write {path}: {error.message}; choose another path") from error


def read_whole(path: str) -> bytes:
    """Return the file's bytes; FileNotFoundError or OSError, with the path, if it cannot."""
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        raise FileNotFoundError(f"no file at {path}; check the path")
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    except tf.errors.OpError as error:
        raise OSError(f"cannot read {path}: {error.message}") from error
