"""Reading annotation files, and values in them, that may be missing, broken, huge or hostile."""

from __future__ import annotations

import gzip
import io
import json
import pathlib
import struct
import zlib

import numpy as np
import scipy.io
import tensorflow as tf

from pipelines.data.annotations import MAX_PX
from pipelines.io import check_regular

# The largest published annotation file (COCO's) is half of this; MPII's are under 50 MB.
LIMIT = 1 << 30

_MAT_COMPRESSED = 15


def read_bytes(path: str, limit: int | None = None) -> bytes:
    """Whole file, local or gs://, decompressed if its first bytes are gzip's.

    Args:
      path: the file.
      limit: largest size accepted, bytes after decompression; LIMIT when not given.

    Raises FileNotFoundError when it is missing or a folder; OSError when it cannot be read;
    ValueError when it is empty, larger than ``limit`` or broken gzip.
    """
    limit = LIMIT if limit is None else limit
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        raise FileNotFoundError(f"there is no annotation file {path}; check the path")
    check_regular(path)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            data = file.read(limit + 1)
    except tf.errors.OpError as error:
        raise OSError(f"cannot read {path}: {error.message}") from error
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(data, path, limit)
    if not data:
        raise ValueError(f"{path} is empty; fetch or write it again")
    if len(data) > limit:
        raise ValueError(f"{path} holds more than {limit} bytes: too large for annotations")
    return data


def _gunzip(data: bytes, path: str, limit: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is broken gzip ({error}); fetch it again") from error


def parse_json(data: bytes, path: str) -> object:
    """Parse JSON; ValueError naming ``path`` and the position when it is not JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON: {error}") from error


def parse_mat(data: bytes, path: str, **options) -> dict:
    """Parse a MATLAB 5-7.2 file without running anything in it.

    Args:
      data: the file's bytes.
      path: its name, for errors.
      **options: keyword arguments of ``scipy.io.loadmat``.

    Returns variable name -> value. Raises ValueError when it is another kind of file, is broken, or
    would unpack to more than LIMIT bytes.
    """
    if data.startswith(b"MATLAB 7.3"):
        raise ValueError(f"{path} is a MATLAB 7.3 file; save it again in MATLAB with -v7")
    if not data.startswith(b"MATLAB 5.0"):
        raise ValueError(f"{path} is not a MATLAB 5 file (.mat)")
    # scipy raises a dozen unrelated types on broken files.
    try:
        if _unpacked_size(data) > LIMIT:
            raise ValueError(f"it unpacks to more than {LIMIT} bytes")
        return scipy.io.loadmat(io.BytesIO(data), **options)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a MATLAB file: {error}") from error


def _unpacked_size(data: bytes) -> int:
    order = "<" if data[126:128] == b"IM" else ">"
    offset, total = 128, 0
    while offset + 8 <= len(data) and total <= LIMIT:
        kind, size = struct.unpack_from(order + "II", data, offset)
        body = data[offset + 8 : offset + 8 + size]
        total += _inflated_size(body) if kind == _MAT_COMPRESSED else size
        offset += 8 + size
    return total


def _inflated_size(body: bytes) -> int:
    inflate, size = zlib.decompressobj(), 0
    while body and size <= LIMIT:
        size += len(inflate.decompress(body, 1 << 20))
        body = inflate.unconsumed_tail
    return size


def file_name(image: object, where: str) -> str:
    """Return the photograph's name; ValueError, beginning with ``where``, for anything else."""
    if not isinstance(image, str) or not image or "\0" in image:
        raise ValueError(f"{where}: the photograph must be a file name, not {short(image)}")
    return image


def image_path(image: object, where: str) -> str:
    """Return the photograph's name when it is one that stays inside the images folder.

    Raises ValueError, beginning with ``where``, for anything else: "../x.jpg", an absolute path.
    """
    windows = pathlib.PureWindowsPath(file_name(image, where))
    if windows.drive or windows.root or ".." in windows.parts:
        raise ValueError(
            f"{where}: the photograph {image!r} must lie in the images folder "
            "(no absolute path, no ..)"
        )
    return image


def is_empty(value: object) -> bool:
    """Whether an annotation's value is empty: None, "", "[]", or without entries."""
    if value is None or isinstance(value, str):
        return value in (None, "", "[]")
    return hasattr(value, "__len__") and len(value) == 0


def numbers(
    entry: dict, key: str, shape: tuple[int, ...], where: str, optional: bool = False
) -> np.ndarray | None:
    """Return entry[key] as float64 of that shape; None where optional and empty or not there.

    Raises ValueError, beginning with ``where``, for another shape or values that are not finite or
    beyond ``MAX_PX``.
    """
    value = entry.get(key)
    if optional and is_empty(value):
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None or array.shape != shape or not (np.abs(array) <= MAX_PX).all():
        what = f"{' x '.join(map(str, shape))} finite numbers" if shape else "a finite number"
        raise ValueError(
            f'{where}: "{key}" must be {what}, not {short(value)} (the limit is {MAX_PX:g})'
        )
    return array


def short(value: object) -> str:
    """``repr`` of a value, of at most 80 characters."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
