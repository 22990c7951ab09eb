"""Output of predictions: predictions.json, .csv and images.json, drawn pictures, and videos."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
import tensorflow as tf

from hourglass import quiet
from hourglass.skeleton import Skeleton
from pipelines.inference import coco_results, media
from pipelines.inference.predictor import Pose
from pipelines.io import write_atomically

_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90]
_NAMES = ("predictions.json", "images.json", "predictions.csv")
_PEOPLE, _IMAGES, _TABLE = range(3)
_DECIMALS = 3  # of px and confidence

# VP8 in WebM plays in every browser; of what OpenCV's wheels can encode only VP9 does, too, and
# takes three times as long. H.264 is not in them.
FILM = ".webm"
_CODEC = "VP80"
_NO_TAG = "OpenCV: FFMPEG: tag "  # printed for every WebM, which has no such tags


class Results:
    """predictions.json, .csv and images.json, written as pictures arrive; they appear at the end.

    The first is in COCO's keypoint-results format, with a "track_id" for people in videos. The
    second has a row for each of its people. The third is an annotation file without annotations:
    pictures, joint names and limbs, which COCO's tools require.
    """

    def __init__(self, folder: str, skeleton: Skeleton, category: dict, first_id: int = 1):
        """Open all under temporary names.

        Args:
          folder: to write to.
          skeleton: of the poses.
          category: COCO's "id" and "name".
          first_id: first free image id.
        """
        self._paths = [os.path.join(folder, name) for name in _NAMES]
        self._files = [tf.io.gfile.GFile(path + ".partial", "w") for path in self._paths]
        self._skeleton, self._category, self._next = skeleton, category, first_id
        self._separators = ["\n", "\n"]
        self.people = self.images = 0
        try:
            tf.io.gfile.makedirs(folder)
        except tf.errors.OpError as error:
            raise OSError(f"cannot write to {folder}: {error.message}; choose another") from error
        self._write(_PEOPLE, "[")
        self._write(_IMAGES, '{"images": [')
        joints = [f"{j}_{what}" for j in skeleton.joints for what in ("x", "y", "confidence")]
        self._write(_TABLE, _line(["file", "frame", "time", "person", *joints]))

    def __enter__(self) -> Results:
        """Return itself."""
        return self

    def add(
        self,
        name: str,
        size: tuple[int, int],
        poses: list[Pose],
        image_id: int | str | None = None,
        frame: media.Frame | None = None,
        persons: Sequence[int] | None = None,
    ) -> None:
        """Add a picture and its people.

        Args:
          name: of the picture in the results.
          size: (width, height) px.
          poses: its people.
          image_id: None for the next free one.
          frame: where it is in its video; None for a picture file.
          persons: numbers of its people in the video; None for 1, 2, ... without a meaning in other
            pictures, which only the CSV has.
        """
        if image_id is None:
            image_id, self._next = self._next, self._next + 1
        width, height = size
        image = {"id": image_id, "file_name": name, "width": width, "height": height}
        self._append(_IMAGES, image)
        for person, pose in zip(persons or itertools.count(1), poses):
            track = {} if persons is None else {"track_id": person}
            self._append(_PEOPLE, {**self._entry(pose, image_id, name), **track})
            self._write(_TABLE, _line(_cells(name, frame, person, pose)))
        self.images, self.people = self.images + 1, self.people + len(poses)

    def _append(self, index: int, entry: dict) -> None:
        self._write(index, self._separators[index] + json.dumps(entry, allow_nan=False))
        self._separators[index] = ",\n"

    def _write(self, index: int, text: str) -> None:
        try:
            self._files[index].write(text)
        except tf.errors.OpError as error:
            raise OSError(f"cannot write {self._paths[index]}: {error.message}") from error

    def _entry(self, pose: Pose, image_id: int | str, name: str) -> dict:
        category = self._category["id"]
        entry = coco_results.entry(image_id, category, pose.joints, pose.confidence, _DECIMALS)
        box = None if pose.box is None else [float(value) for value in pose.box]
        return {**entry, "score": round(entry["score"], 4), "file_name": name, "box": box}

    def __exit__(self, error, *_) -> None:
        """Rename all files; after an error other than Ctrl-C, remove them."""
        try:
            if error in (None, KeyboardInterrupt):
                self._finish()
        except tf.errors.OpError as problem:
            raise OSError(f"cannot write {self._paths[0]}: {problem.message}") from problem
        finally:
            for path, file in zip(self._paths, self._files):
                with contextlib.suppress(tf.errors.OpError):  # no space for what is still buffered
                    file.close()
                with contextlib.suppress(tf.errors.OpError):  # there is none, or it was renamed
                    tf.io.gfile.remove(path + ".partial")

    def _finish(self) -> None:
        category = {
            **self._category,
            "keypoints": list(self._skeleton.joints),
            "skeleton": [[a + 1, b + 1] for a, b in self._skeleton.limbs],
        }
        self._write(_PEOPLE, "\n]\n")
        self._write(_IMAGES, f'\n], "annotations": [], "categories": {json.dumps([category])}}}\n')
        for file in self._files:
            file.close()
        for path in self._paths:
            tf.io.gfile.rename(path + ".partial", path, overwrite=True)


def _cells(name: str, frame: media.Frame | None, person: int, pose: Pose) -> list:
    """A person's row; numbers that are not finite are empty, which readers take as missing."""
    place = (name, "", "") if frame is None else (frame.file, frame.number, round(frame.time, 6))
    numbers = np.column_stack([pose.joints, pose.confidence]).ravel().round(_DECIMALS).tolist()
    return [*place, person, *(number if math.isfinite(number) else "" for number in numbers)]


def _line(cells: Iterable) -> str:
    """A line of CSV, ended as RFC 4180 asks: only so a carriage return in a name is quoted.

    Spreadsheets run texts that begin like a formula, and names of files come from strangers: "./"
    in front names the same file.
    """
    text = io.StringIO()
    formula = ("=", "+", "-", "@", "\t", "\r")
    safe = (f"./{c}" if isinstance(c, str) and c.startswith(formula) else c for c in cells)
    csv.writer(text).writerow(safe)
    return text.getvalue()


def write_jpeg(path: str, rgb: np.ndarray) -> None:
    """Write [H, W, 3] uint8 RGB, whole or not at all; OSError if it cannot."""
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), _JPEG)
    if not done:
        height, width = rgb.shape[:2]
        raise OSError(f"cannot write {path}: no JPEG has {width} x {height} px; lower --longest")
    write_atomically(path, data.tobytes())


class Film:
    """A .webm that appears when it is finished; where it cannot be written, ``problem`` says why.

    Attributes:
      problem: a sentence, or "". Later frames are then ignored: predictions go on without a film.
    """

    def __init__(self, path: str, rate: float):
        """Nothing is opened before the first frame; ``rate`` in frames per second."""
        self.problem = ""
        self._path, self._rate, self._writer, self._size = path, rate, None, (0, 0)
        self._frames = 0
        self._partial = os.path.splitext(path)[0] + ".partial" + FILM

    def __enter__(self) -> Film:
        """Return itself."""
        return self

    def add(self, rgb: np.ndarray) -> None:
        """Append a frame, [H, W, 3] uint8; one of another size than the first is resized."""
        if self._writer is None and not self.problem:
            self._open(rgb.shape[1], rgb.shape[0])
        if self.problem:
            return
        frame = np.ascontiguousarray(rgb[..., ::-1])
        if rgb.shape[1::-1] != self._size:  # OpenCV would drop it silently
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(frame)
        self._frames += 1

    def _open(self, width: int, height: int) -> None:
        if "://" in self._path:
            self.problem = f"cannot write the video {self._path}; choose a local --output"
            return
        self._size = width, height
        try:
            os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
        except OSError as error:
            self.problem = f"cannot write the video {self._path}: {error.strerror}"
            return
        code = cv2.VideoWriter_fourcc(*_CODEC)
        with quiet.stderr_through(["grep", "-avF", _NO_TAG]):
            self._writer = cv2.VideoWriter(self._partial, code, self._rate, self._size)
        if not self._writer.isOpened():
            self.problem = f"OpenCV cannot write {self._path} as VP8; choose another --output"

    def __exit__(self, *_) -> None:
        """Finish the file, also after an error: an incomplete video is worth having."""
        if self._writer is None:
            return
        self._writer.release()
        if not _holds(self._partial, self._frames):  # OpenCV does not report a full disk
            self.problem = f"cannot write {self._path} whole, as on a full disk; make space"
        try:
            if not self.problem:
                os.replace(self._partial, self._path)
        except OSError as error:
            self.problem = f"cannot write the video {self._path}: {error.strerror}"
        if os.path.exists(self._partial):
            os.remove(self._partial)


def _holds(path: str, frames: int) -> bool:
    """Whether the last of so many frames can be read; what a file claims was written before."""
    capture = cv2.VideoCapture(path)
    found = frames > 0 and capture.set(cv2.CAP_PROP_POS_FRAMES, frames - 1) and capture.grab()
    capture.release()
    return found


def drawn_paths(output: str, names: list[str]) -> list[str]:
    """Unique paths of drawn pictures and videos in ``output``, one for each input."""
    taken, paths = set(), []
    for name in names:
        stem, kind = os.path.splitext(name)
        stem = f"camera{name}" if media.is_camera(name) else stem
        kind = FILM if media.is_video(name) else ".jpg"
        numbered = (f"{stem}{suffix}{kind}" for suffix in _suffixes())
        path = next(path for path in numbered if path not in taken)
        taken.add(path)
        paths.append(os.path.join(output, path))
    return paths


def _suffixes() -> Iterator[str]:
    return itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
