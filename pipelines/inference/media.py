"""Users' picture files, videos and cameras, by name."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Iterator

import cv2
import numpy as np
import tensorflow as tf

from pipelines.data.image_io import MAX_PIXELS, turned

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# Degrees that a video's metadata turns it by, clockwise -> EXIF's name for the same.
_ORIENTATIONS = {0: 1, 90: 6, 180: 3, 270: 8}
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


class Frame(typing.NamedTuple):
    """Where a frame is in its video.

    Attributes:
      file: the video's name in the results.
      number: 0-based, of all of the video's frames.
      time: seconds after the first frame.
    """

    file: str
    number: int
    time: float


@dataclasses.dataclass
class Video:
    """An opened video or camera.

    Attributes:
      rate: frames per second.
      count: frames according to the file; 0 for a camera, or if unknown.
      seen: frames read or skipped so far.
      header: (width, height, orientation) of the stored frames, as ``image_io.header`` has them.
    """

    rate: float
    count: int
    seen: int
    header: tuple[int, int, int]
    _capture: cv2.VideoCapture

    def frames(self, upright: bool = True, every: int = 1) -> Iterator[np.ndarray]:
        """Frames [H, W, 3] uint8 RGB, turned as players show them; closes at the end.

        Args:
          upright: False for frames as they are stored.
          every: 2 for the frames 0, 2, 4 ... The others are grabbed only: FFmpeg has to decode
            them, but they are not converted.
        """
        orientation = self.header[2] if upright else 1
        try:
            while True:
                ok, frame = self._capture.read()
                if not ok:
                    return
                self.seen += 1
                yield turned(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), orientation)
                self.seen += sum(self._capture.grab() for _ in range(every - 1))
        finally:
            self._capture.release()

    @property
    def ended_early(self) -> bool:
        """Whether more than 2 % of the frames are missing, and more than 2.

        Some containers only estimate their number of frames.
        """
        return self.count - self.seen > max(2, 0.02 * self.count)


def open_video(source: str) -> Video:
    """Open a video file, or a camera by its number.

    Raises FileNotFoundError if there is no file, ValueError if it cannot be read as a video.
    """
    camera = is_camera(source)
    if not camera and not os.path.isfile(source):
        raise FileNotFoundError(f"no file at {source}; check the path (videos must be local)")
    capture = cv2.VideoCapture(int(source) if camera else source)
    if not capture.isOpened():
        if camera:
            raise ValueError(f"camera {source} does not respond; check that it is connected")
        raise ValueError("not readable as a video; convert it to a format that FFmpeg reads")
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # ``frames`` turns; backends differ in this
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if width * height > MAX_PIXELS:
        raise ValueError(f"frames of more than {MAX_PIXELS // 10**6} megapixels; make it smaller")
    rate = capture.get(cv2.CAP_PROP_FPS)
    count = 0 if camera else max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    degrees = round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
    header = (int(width), int(height), _ORIENTATIONS.get(degrees, 1))
    return Video(rate if 0 < rate < 1000 else 30.0, count, 0, header, capture)


def is_camera(source: str) -> bool:
    """Whether an input is a camera: a number that is not the name of a file."""
    return source.isdigit() and not os.path.exists(source)


def is_video(source: str) -> bool:
    """Whether an input is read as a video: a camera, or a file with a video's extension."""
    return source.lower().endswith(VIDEOS) or is_camera(source)


def expand(inputs: list[str], listed: list[str], without: str = "") -> tuple[list[tuple], int]:
    """Expand inputs to files and cameras.

    Args:
      inputs: files, folders (all pictures in them and their subfolders, sorted by name), patterns
        with * ? [ (the shell's rules), camera numbers, or "-" for ``listed``.
      listed: lines of standard input.
      without: folder to skip: the output's.

    Returns:
      Pairs of a path and the name under which its result is written, in order, each path once; and
      the number of files in folders that are not pictures by their extensions.

    Raises FileNotFoundError for a pattern or folder without pictures and if no input exists (a
    single missing one is reported when it is read), ValueError without inputs.
    """
    names, others = {}, 0  # path -> name
    for source in [line for word in inputs for line in (listed if word == "-" else [word])]:
        if _is_folder(source):
            pairs, other = _in_folder(source, without)
            others += other
        elif any(sign in source for sign in "*?[") and not _exists(source):
            pairs = _matching(source, without)
        else:
            pairs = [(source, os.path.basename(source))]
        names.update({path: name for path, name in pairs if path not in names})
    if not names:
        raise ValueError("no input: give pictures, folders, a video, a camera, or - for a list")
    if not any(is_camera(path) or _exists(path) for path in names):
        missing = ", ".join([*names][:5]) + (", ..." if len(names) > 5 else "")
        raise FileNotFoundError(
            f"there is no file or folder {missing}; an input is a path relative to {os.getcwd()}, "
            "or a pattern in quotes: check the spelling"
        )
    return list(names.items()), others


# Local names need not be UTF-8, but TensorFlow's are: one such file would cost all of its folder.


def _is_folder(path: str) -> bool:
    return (tf.io.gfile if "://" in path else os.path).isdir(path)


def _exists(path: str) -> bool:
    return (tf.io.gfile if "://" in path else os.path).exists(path)


def _walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    if "://" in folder:
        return tf.io.gfile.walk(folder)
    return os.walk(folder, onerror=_raise, followlinks=True)


def _raise(error: OSError) -> None:
    raise error


def _matching(pattern: str, without: str) -> list[tuple[str, str]]:
    pairs = []
    for path in sorted(tf.io.gfile.glob(pattern)):
        inside = _is_folder(path)
        pairs += _in_folder(path, without)[0] if inside else [(path, os.path.basename(path))]
    if not pairs:
        raise FileNotFoundError(f"nothing matches {pattern}; check the pattern")
    return pairs


def _in_folder(folder: str, without: str) -> tuple[list[tuple[str, str]], int]:
    pairs, others = [], 0
    for parent, folders, names in _walk(folder):
        if without and os.path.abspath(parent) == os.path.abspath(without):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = os.path.join(parent, name)
            if name.lower().endswith(PICTURES):
                pairs.append((path, os.path.relpath(path, folder)))
            else:
                others += 1
    if not pairs:
        raise FileNotFoundError(f"no pictures in {folder}: looked for {', '.join(PICTURES)}")
    return pairs, others
