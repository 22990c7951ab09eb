"""The one reader of pictures: photographs of annotations and users' own files alike.

A picture may be anything: its header is checked before a pixel is decoded. Pillow decodes JPEG and
PNG, because it raises for a file that ends too early; OpenCV decodes CMYK, 16 bits and the rest.
"""

from __future__ import annotations

import io
import os
import stat
import typing
import warnings

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.io import read_whole

MAX_BYTES = 256_000_000
MAX_PIXELS = 100_000_000

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
_ORIENTATION = 0x0112  # EXIF tag
_ORIENTED = ("JPEG", "MPO", "PNG", "WEBP")  # TIFF's own is always applied, by both libraries
_PILLOWS = ("JPEG", "MPO", "PNG")  # in the modes that it decodes as OpenCV does:
_PLAIN = ("RGB", "L", "P", "1")

# The size is checked here, from the header; Pillow would warn from 89 megapixels on.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# A broken EXIF block is ignored, as viewers do.
warnings.filterwarnings("ignore", message="Corrupt EXIF data", category=UserWarning)


def read(path: str, upright: bool = False) -> tuple[np.ndarray, int]:
    """Read a picture, whatever its file format and colour space.

    CMYK, palettes, grey and 16 bits become 8-bit RGB; transparent parts become black, as is
    everything beyond a photograph.

    Args:
      path: the file, local or gs://.
      upright: turn it as its EXIF orientation says. Otherwise that is ignored, as in HRNet's and
        pytorch-pose's loaders: boxes and joints refer to the stored pixel grid.

    Returns:
      [H, W, 3] uint8 RGB; and the file's EXIF orientation, 1 to 8; 1: none.

    Raises:
      FileNotFoundError, OSError: it cannot be read.
      ValueError: with a reason for counting: a fifo, device or socket, empty, not a picture,
        truncated, animated, of 32-bit numbers, over 256 MB, or over 100 megapixels.
    """
    _check_file(path)
    data = read_whole(path)
    if not data:
        raise ValueError("photograph empty")
    image = _opened(io.BytesIO(data))
    _check(image)
    orientation = _orientation(image)
    return turned(_pixels(image, data), orientation if upright else 1), orientation


def header(path: str) -> tuple[int, int, int]:
    """Read a picture's width and height as stored, px, and its EXIF orientation, 1 to 8; 1: none.

    TIFFs are taken as their own orientation shows them, with 1.

    Raises FileNotFoundError, OSError or ValueError, as ``read`` does.
    """
    _check_file(path)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            image = _opened(file)
            return image.width, image.height, _orientation(image)
    except tf.errors.OpError as error:
        raise OSError(f"cannot read {path}: {error.message}") from error


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, 3] or [W, H, 3] of a stored picture as viewers show it by its EXIF orientation."""
    image = image.swapaxes(0, 1) if orientation >= 5 else image
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def _orientation(image: Image.Image) -> int:
    if image.format not in _ORIENTED:
        return 1
    try:
        # PNG's own method decodes all of the picture first.
        found = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # Pillow raises several types on a broken EXIF block.
        return 1
    return int(found) if found in range(1, 9) else 1


def _check_file(path: str) -> None:
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        raise FileNotFoundError(f"no file at {path}; check the path")
    # To open a fifo waits for a writer, and a device may never end.
    if "://" not in path and not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("photograph a fifo, device or socket, not a regular file")
    try:
        if tf.io.gfile.stat(path).length > MAX_BYTES:
            raise ValueError(f"photograph over {MAX_BYTES // 10**6} MB")
    except tf.errors.OpError as error:
        raise OSError(f"cannot read {path}: {error.message}") from error


def _opened(file: typing.BinaryIO) -> Image.Image:
    try:
        return Image.open(file, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(_too_large()) from error
    except Exception as error:  # Pillow raises a dozen types on broken headers.
        kinds = ", ".join(_FORMATS)
        raise ValueError(f"photograph not a picture of a known kind ({kinds})") from error


def _too_large() -> str:
    return f"photograph over {MAX_PIXELS // 10**6} megapixels; make it smaller"


def _check(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(_too_large())
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ValueError("photograph with several pictures in one file; save one of them")
    if image.mode in ("I", "F"):
        raise ValueError("photograph of 32-bit numbers; save it with 8 bits per channel")


def _pixels(image: Image.Image, data: bytes) -> np.ndarray:
    try:
        if image.format in _PILLOWS:
            image.load()  # raises for a truncated file, which OpenCV would fill with grey
        if image.format == "GIF" or image.has_transparency_data:
            return _on_black(image.convert("RGBA"))
        if image.format in _PILLOWS and image.mode in _PLAIN:
            return np.array(image.convert("RGB"))
    except Exception as error:
        reason = "truncated" if "truncated" in str(error) else "not decodable"
        raise ValueError(f"photograph {reason}") from error
    return _decoded(data)


def _on_black(image: Image.Image) -> np.ndarray:
    rgba = np.asarray(image)
    return np.rint(rgba[..., :3] * (rgba[..., 3:] / np.float32(255))).astype(np.uint8)


def _decoded(data: bytes) -> np.ndarray:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError("photograph not decodable") from error
    if image is None:
        raise ValueError("photograph not decodable")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
