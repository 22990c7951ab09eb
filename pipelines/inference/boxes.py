"""Bounding boxes of people: checked, matched to pictures, and turned into crops."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import typing

import numpy as np

from pipelines.data import cropping
from pipelines.data.annotations import BOX_CONTEXT, MAX_PX, MIN_SIDE, Person
from pipelines.data.readers import files

_FRAME = re.compile(r"(.+)#(\d{1,9})")

# Longer side of a box over that of its picture: in the crop of a larger one it would be a spot.
MAX_TIMES = 10


class Entry(typing.NamedTuple):
    """One entry of a file of boxes.

    Attributes:
      box: (x, y, w, h) image px, where pixel 0 spans 0 to 1, as in COCO. A text where the file has
        anything else, for ``problem`` to name; None, the whole picture, never comes from a file.
      where: file and number of the entry.
    """

    box: tuple[float, ...] | str | None
    where: str


@dataclasses.dataclass(frozen=True)
class Boxes:
    """The contents of a file of boxes.

    Attributes:
      people: name of a picture in the file -> its boxes.
      ids: name -> COCO image id, where the file has one.
      sizes: name -> annotated (width, height) px, where the file has it.
      left_out: reason -> number of boxes that are not in ``people``.
      problems: sentences on entries that belong to no picture.
    """

    people: dict[str, list[Entry]] = dataclasses.field(default_factory=dict)
    ids: dict[str, int | str] = dataclasses.field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)

    def of(self, name: str, frame: int | None = None) -> list[Entry]:
        """Boxes of a picture, or of a video's frame ("walk.mp4#12", else those of "walk.mp4")."""
        return self.people.get(_key(name, frame), self.people.get(name, []))

    def id_of(self, name: str, frame: int | None = None) -> int | str | None:
        """COCO image id of a picture or frame, or None; a video's own is not its frames'."""
        return self.ids.get(_key(name, frame))

    def of_video(self, name: str) -> list[str]:
        """Names in ``people`` of a video and of its frames."""
        return [key for key in self.people if key == name or key.startswith(f"{name}#")]

    def unread(self, name: str, seen: int, every: int) -> tuple[int, int]:
        """Boxes given for single frames of a video that were not predicted.

        Args:
          name: of the video.
          seen: frames that it has.
          every: each Nth of them was predicted.

        Returns:
          Numbers of boxes of frames that ``every`` left out, and of frames that it does not have.
        """
        matches = ((_FRAME.fullmatch(key), people) for key, people in self.people.items())
        frames = [(int(m[2]), len(people)) for m, people in matches if m and m[1] == name]
        skipped = sum(count for frame, count in frames if frame < seen and frame % every)
        return skipped, sum(count for frame, count in frames if frame >= seen)

    def corners(self, names: list[str]) -> np.ndarray:
        """[N, 2] float64: lower right corners of the boxes of ``names``, image px."""
        given = [one.box for name in names for one in self.people[name] if numbers(one.box)]
        return np.array([(x + w, y + h) for x, y, w, h in given]).reshape(-1, 2)

    def add(self, name: str, values: object, where: str) -> None:
        """Add an entry; ``values`` should be four numbers."""
        self.people.setdefault(name, []).append(
            Entry(numbers(values) or files.short(values), where)
        )


def _key(name: str, frame: int | None) -> str:
    return name if frame is None else f"{name}#{frame}"


def numbers(values: object) -> tuple[float, ...] | None:
    """Four numbers, or texts of numbers, as floats; None for anything else."""
    if not isinstance(values, (list, tuple, np.ndarray)) or len(values) != 4:
        return None
    if any(isinstance(value, bool) for value in values):
        return None
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None


def problem(box: object, width: int, height: int) -> str:
    """Why a box is invalid in a picture of ``width`` x ``height`` px; "" if it is valid."""
    given = numbers(box)
    if given is None:
        what = box if isinstance(box, str) else files.short(box)
        return f"box {what} is not four numbers x, y, width, height in px"
    text = f"box {tuple(round(value, 2) for value in given)} (x, y, width, height)"
    longer, picture = max(given[2:]), f"the picture of {width} x {height} px"
    if not all(abs(value) <= MAX_PX for value in given):
        return f"{text} is not finite, or beyond {MAX_PX:g}: give four numbers in px"
    if min(given[2:]) <= 0 or longer < MIN_SIDE:
        return f"{text} has no size: width and height must be positive, not corners"
    if cropping.is_outside(given, width, height):
        return f"{text} is outside {picture}"
    if longer > MAX_TIMES * max(width, height):
        return f"{text} is over {MAX_TIMES} times as large as {picture}"
    return ""


def person(box: object, width: int, height: int) -> Person:
    """A person's crop by the rule of training.

    Args:
      box: (x, y, w, h) image px: the crop is centred on it and ``BOX_CONTEXT`` times as wide as its
        longer side. None: the whole picture is the person, and its height is the crop's side.
      width: of the picture, px.
      height: of the picture, px.

    Returns:
      Person without joints; center in image px with pixel centres on integers.

    Raises ValueError for a box with a ``problem``.
    """
    if box is not None and problem(box, width, height):
        raise ValueError(problem(box, width, height))
    if box is None:
        center, side = cropping.square(((width - height) / 2, 0.0, height, height), context=1.0)
    else:
        center, side = cropping.square(box, BOX_CONTEXT)
    return Person(
        id="",
        image="",
        split="test",
        row=0,
        center=center,
        side=side,
        joints=np.zeros((0, 2)),
        state=np.zeros(0, np.uint8),
        head_size=math.nan,
    )


def match(given: Boxes, inputs: list[str]) -> tuple[Boxes, list[str]]:
    """Boxes by input path, and the names in the file that match no input.

    A name in the file matches the input with that path, or with a path that ends in it.

    Raises ValueError for a name that matches several inputs.
    """
    by_base: dict[str, list[str]] = {}
    for path in inputs:
        by_base.setdefault(os.path.basename(path), []).append(path)
    matched, unknown = Boxes(left_out=given.left_out, problems=given.problems), []
    for name, entries in given.people.items():
        stem, number = _split(name, by_base)
        matches = [path for path in by_base.get(os.path.basename(stem), ()) if _ends(path, stem)]
        if len(matches) > 1:
            raise ValueError(
                f"boxes of {name!r} match {' and '.join(matches[:3])}: write more of the path"
            )
        if matches:
            key = matches[0] + number
            matched.people.setdefault(key, []).extend(entries)
            for own, table in ((given.ids, matched.ids), (given.sizes, matched.sizes)):
                table.update({key: own[name]} if name in own else {})
        elif entries:
            unknown.append(name)
    return matched, unknown


def _split(name: str, by_base: dict) -> tuple[str, str]:
    """(file, "#12" or "") of a name that may be a video's frame."""
    frame = _FRAME.fullmatch(name)
    if frame and os.path.basename(name) not in by_base:
        return frame[1], f"#{int(frame[2])}"
    return name, ""


def _ends(path: str, name: str) -> bool:
    path, name = os.path.normpath(path), os.path.normpath(name)
    return path == name or path.endswith(os.sep + name)
