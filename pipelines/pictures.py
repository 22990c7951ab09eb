"""Pictures, videos and cameras of users, which may be anything: read within bounds, or refused."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterator

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from pipelines.convert import MAX_BYTES, MAX_PIXELS, read_photograph

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
_ORIENTATION = 0x0112  # EXIF tag

# The size is checked here, from the header; Pillow would warn from 89 megapixels on.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read(path: str, upright: bool = False) -> tuple[np.ndarray, bool]:
    """Read a user's picture.

    Its header is looked at before a pixel is decoded. Pixels come from the decoder that wrote the
    training records. CMYK, palettes, grey and 16 bits become 8-bit RGB; transparent parts become
    black, as is everything beyond a photograph.

    Args:
      path: the file, local or gs://.
      upright: turn it as its EXIF orientation says. Otherwise this is ignored, as in training:
        boxes and joints refer to the stored pixel grid.

    Returns:
      [H, W, 3] uint8 RGB; and whether there is an EXIF orientation that was ignored.

    Raises:
      FileNotFoundError, OSError: it cannot be read.
      ValueError: empty, not a picture, cut off, animated, of 32-bit numbers, over 256 MB, or over
        100 megapixels.
    """
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        raise FileNotFoundError(f"no file at {path}; check the path")
    try:
        size = tf.io.gfile.stat(path).length
        if not size:
            raise ValueError("empty file")
        if size > MAX_BYTES:
            raise ValueError(f"{size:,} bytes, more than {MAX_BYTES:,}; make it smaller")
        with tf.io.gfile.GFile(path, "rb") as file, _opened(file) as image:
            _refuse(image)
            turned = image.format in ("JPEG", "MPO") and image.getexif().get(_ORIENTATION, 1) != 1
            if image.format == "GIF" or image.has_transparency_data:
                return _on_black(image, upright), False
    except tf.errors.OpError as error:
        raise OSError(f"cannot read {path}: {error.message}") from error
    return read_photograph(path, upright), turned and not upright


def _opened(file) -> Image.Image:
    try:
        return Image.open(file, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"more than {MAX_PIXELS // 10**6} megapixels; make it smaller") from error
    except Exception as error:  # Pillow raises a dozen types on broken headers.
        raise ValueError(f"not a picture of a known kind: {', '.join(_FORMATS)}") from error


def _refuse(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{width} x {height} px are more than {MAX_PIXELS // 10**6} megapixels; make it smaller"
        )
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ValueError(f"{image.n_frames} pictures in one {image.format} file; save one of them")
    if image.mode in ("I", "F"):
        raise ValueError("32-bit numbers instead of colours; save it with 8 bits per channel")


def _on_black(image: Image.Image, upright: bool) -> np.ndarray:
    try:
        rgba = np.asarray((ImageOps.exif_transpose(image) if upright else image).convert("RGBA"))
    except Exception as error:
        raise ValueError(f"not decodable: {error}") from error
    return np.rint(rgba[..., :3] * (rgba[..., 3:] / np.float32(255))).astype(np.uint8)


@dataclasses.dataclass
class Video:
    """An opened video or camera.

    Attributes:
      rate: frames per second.
      count: frames that the file claims; 0 for a camera, or where it does not say.
      seen: frames read so far.
    """

    rate: float
    count: int
    seen: int
    _capture: cv2.VideoCapture

    def frames(self) -> Iterator[np.ndarray]:
        """Frames [H, W, 3] uint8 RGB, turned upright as players show them; then closes."""
        try:
            while True:
                ok, frame = self._capture.read()
                if not ok:
                    return
                self.seen += 1
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            self._capture.release()

    @property
    def ended_early(self) -> bool:
        """Whether more than 2 % of the claimed frames are missing, and more than 2.

        Some containers only estimate their count.
        """
        return self.count - self.seen > max(2, 0.02 * self.count)


def open_video(source: str) -> Video:
    """Open a video file, or a camera by its number.

    Raises FileNotFoundError when there is none, ValueError when it cannot be read as a video.
    """
    camera = is_camera(source)
    if not camera and not os.path.isfile(source):
        raise FileNotFoundError(f"no file at {source}; check the path (videos must be local)")
    capture = cv2.VideoCapture(int(source) if camera else source)
    if not capture.isOpened():
        what = f"camera {source} does not answer" if camera else "not readable as a video"
        raise ValueError(f"{what}; is it connected, is it a kind that OpenCV's FFmpeg reads?")
    if capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT) > MAX_PIXELS:
        raise ValueError(f"frames of more than {MAX_PIXELS // 10**6} megapixels; make it smaller")
    rate = capture.get(cv2.CAP_PROP_FPS)
    count = 0 if camera else max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    return Video(rate if 0 < rate < 1000 else 30.0, count, 0, capture)


def is_camera(source: str) -> bool:
    """Whether an input means a camera: a number that is no file."""
    return source.isdigit() and not os.path.exists(source)


def is_video(source: str) -> bool:
    """Whether an input is read as a video: by its name, or a camera."""
    return source.lower().endswith(VIDEOS) or is_camera(source)


def expand(inputs: list[str], listed: list[str], without: str = "") -> tuple[list[tuple], int]:
    """Find the files that inputs mean.

    Args:
      inputs: files, folders (all pictures in them and in their folders, in the order of their
        names), patterns with * ? [ (the shell's rules), camera numbers, or "-" for ``listed``.
      listed: lines of standard input.
      without: folder whose files are not taken: the output's.

    Returns:
      Pairs of a path and the name under which its result is written, in order, each path once; and
      how many files of the folders are not pictures by their names.

    Raises FileNotFoundError for a pattern or folder without pictures and where no input exists (one
    that is missing among others is found out when it is read), ValueError without inputs.
    """
    found, others = {}, 0
    for source in [one for given in inputs for one in (listed if given == "-" else [given])]:
        if tf.io.gfile.isdir(source):
            pairs, strange = _in_folder(source, without)
            others += strange
        elif any(sign in source for sign in "*?[") and not tf.io.gfile.exists(source):
            pairs = _matching(source, without)
        else:
            pairs = [(source, os.path.basename(source))]
        found.update({path: name for path, name in pairs if path not in found})
    if not found:
        raise ValueError("no input: name pictures, folders, a video, a camera, or - for a list")
    if not any(is_camera(path) or tf.io.gfile.exists(path) for path in found):
        absent = ", ".join([*found][:5]) + (", ..." if len(found) > 5 else "")
        raise FileNotFoundError(
            f"there is no file or folder {absent}; an input is a path as seen from {os.getcwd()}, "
            "or a pattern in quotes: check the spelling"
        )
    return list(found.items()), others


def _matching(pattern: str, without: str) -> list[tuple[str, str]]:
    pairs = []
    for path in sorted(tf.io.gfile.glob(pattern)):
        inside = tf.io.gfile.isdir(path)
        pairs += _in_folder(path, without)[0] if inside else [(path, os.path.basename(path))]
    if not pairs:
        raise FileNotFoundError(f"nothing matches {pattern}; check the pattern")
    return pairs


def _in_folder(folder: str, without: str) -> tuple[list[tuple[str, str]], int]:
    pairs, strange = [], 0
    for place, folders, names in tf.io.gfile.walk(folder):
        if without and os.path.abspath(place) == os.path.abspath(without):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = os.path.join(place, name)
            if name.lower().endswith(PICTURES):
                pairs.append((path, os.path.relpath(path, folder)))
            else:
                strange += 1
    if not pairs:
        raise FileNotFoundError(f"no pictures in {folder}: looked for {', '.join(PICTURES)}")
    return pairs, strange
