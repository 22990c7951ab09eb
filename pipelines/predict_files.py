"""Predict folders, lists, videos and cameras: pictures with skeletons, and predictions.json.

Everything flows: pictures are read ahead by threads, the network takes full batches, threads draw
and write; how many there are does not change how much memory that takes.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
import tensorflow as tf
import tqdm

from hourglass.skeleton import Skeleton
from pipelines import boxes as people_boxes
from pipelines import draw, pictures
from pipelines.files import write_atomically
from pipelines.predict import Crop, Pose, Predictor
from pipelines.smooth import OneEuro

_WORKERS = min(8, os.cpu_count() or 1)
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90]

WHOLE = (
    "no --boxes: each whole picture is taken as one person. That is best with the person centred, "
    "head to feet about three quarters of the height; otherwise give boxes."
)


@dataclasses.dataclass(frozen=True)
class Options:
    """How pictures are read and what is written.

    Attributes:
      output: folder to write to.
      boxes: file, or "" for whole pictures; ``boxes.read`` says which kinds.
      images: COCO annotation file that names the images of ``boxes``.
      category: COCO category of people.
      least_score: of detections.
      draw: write pictures, not only predictions.json.
      heatmaps: a panel of heatmaps right of each picture.
      smooth: One Euro filter on videos.
      upright: turn pictures as their EXIF orientation says.
      show_above: joints of less confidence are not drawn; predictions.json has all.
      longest: px, the longer side of drawn pictures; larger ones are shrunk.
    """

    output: str
    boxes: str = ""
    images: str = ""
    category: int = 1
    least_score: float = 0.3
    draw: bool = True
    heatmaps: bool = False
    smooth: bool = False
    upright: bool = False
    show_above: float = 0.1
    longest: int = 1600


@dataclasses.dataclass(frozen=True)
class Seen:
    """A picture that was read: all that later steps need of it.

    Attributes:
      name: as in images.json.
      size: (width, height) px; (0, 0) where it could not be read.
      shown: [h, w, 3] uint8 RGB to draw on, or None.
      crops: its people.
      problems: sentences.
      turned: an EXIF orientation was ignored.
      image_id: COCO's, or 0 for any.
    """

    name: str
    size: tuple[int, int] = (0, 0)
    shown: np.ndarray | None = None
    crops: tuple[Crop, ...] = ()
    problems: tuple[str, ...] = ()
    turned: bool = False
    image_id: int = 0


def ahead(function: Callable, items: Iterable, count: int, workers: int = _WORKERS) -> Iterator:
    """Results of ``function`` in the items' order, computed by threads at most ``count`` ahead."""
    pool, queue = concurrent.futures.ThreadPoolExecutor(workers), collections.deque()
    try:
        for item in items:
            queue.append(pool.submit(function, item))
            if len(queue) > count:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class Results:
    """predictions.json and images.json, written while pictures come; they appear at the end.

    The first is in COCO's keypoint-results format. The second is an annotation file without
    annotations: pictures, joint names and limbs, which tools of that format ask for.
    """

    def __init__(self, folder: str, skeleton: Skeleton, category: int, first_id: int):
        """Open both beside their places; ``first_id`` is the first free image id."""
        tf.io.gfile.makedirs(folder)
        self._paths = [os.path.join(folder, n) for n in ("predictions.json", "images.json")]
        self._files = [tf.io.gfile.GFile(path + ".partial", "w") for path in self._paths]
        self._skeleton, self._category, self._next = skeleton, category, first_id
        self._starts = ["[\n", '{"images": [\n']
        self.people = self.images = 0

    def add(self, seen: Seen, poses: list[Pose]) -> None:
        """Add a picture and its people."""
        image_id = seen.image_id or self._next
        self._next += not seen.image_id
        image = {"id": image_id, "file_name": seen.name}
        self._append(1, {**image, "width": seen.size[0], "height": seen.size[1]})
        for pose in poses:
            self._append(0, self._entry(pose, image_id, seen.name))
        self.images, self.people = self.images + 1, self.people + len(poses)

    def _append(self, which: int, entry: dict) -> None:
        self._files[which].write(self._starts[which] + json.dumps(entry, allow_nan=False))
        self._starts[which] = ",\n"

    def _entry(self, pose: Pose, image_id: int, name: str) -> dict:
        numbers = np.column_stack([pose.joints, pose.confidence])
        numbers = np.where(np.isfinite(numbers), numbers, 0.0)
        return {
            "image_id": image_id,
            "category_id": self._category,
            "keypoints": numbers.ravel().round(3).tolist(),
            "score": round(float(numbers[:, 2].mean()), 4),
            "file_name": name,
            "box": None if pose.box is None else [float(value) for value in pose.box],
        }

    def close(self) -> None:
        """Finish both files and put them in place."""
        person = {
            "id": self._category,
            "name": "person",
            "keypoints": list(self._skeleton.joints),
            "skeleton": [[a + 1, b + 1] for a, b in self._skeleton.limbs],
        }
        ends = ["]\n", f'], "annotations": [], "categories": {json.dumps([person])}}}\n']
        empty = ["[", '{"images": [']
        for path, file, start, none, end in zip(
            self._paths, self._files, self._starts, empty, ends
        ):
            file.write((none if start != ",\n" else "\n") + end)
            file.close()
            tf.io.gfile.rename(path + ".partial", path, overwrite=True)


class Run:
    """One run over any number of inputs: its options, its results and what went wrong."""

    def __init__(self, predictor: Predictor, options: Options, boxes: people_boxes.Boxes | None):
        """Open the results; ``boxes`` is None where whole pictures are people."""
        self.predictor, self.options, self.boxes = predictor, options, boxes
        first = max(boxes.ids.values(), default=0) + 1 if boxes else 1
        skeleton = predictor.skeleton
        self.results = Results(options.output, skeleton, options.category, first)
        self.problems: collections.Counter = collections.Counter()
        self.turned = self.alone = 0

    def problem(self, name: str, reason: str) -> None:
        """Name a bad input at once, and count it."""
        tqdm.tqdm.write(f"bad: {name}: {reason}", file=sys.stderr)
        self.problems[name] += 1

    def see(self, path: str, name: str, image: np.ndarray, frame: int = 0) -> Seen:
        """Cut the people out of a picture; boxes that cannot be used become problems."""
        height, width = image.shape[:2]
        given = [None] if self.boxes is None else self.boxes.of(path, frame)
        crops, problems = [], []
        for box in given:
            try:
                crops.append(self.predictor.crop(image, box))
            except ValueError as error:
                problems.append(str(error))
        shown = shrunk(image, self.options.longest) if self.options.draw else None
        image_id = self.boxes.ids.get(path, 0) if self.boxes else 0
        texts, size = tuple(problems), (width, height)
        return Seen(name, size, shown, tuple(crops), texts, image_id=image_id)

    def read(self, pair: tuple[str, str]) -> Seen:
        """Read one picture; whatever is wrong with it becomes its problem."""
        path, name = pair
        try:
            image, turned = pictures.read(path, self.options.upright)
            return dataclasses.replace(self.see(path, name, image), turned=turned)
        except (OSError, ValueError, tf.errors.OpError) as error:
            return Seen(name, problems=(str(error),))

    def note(self, seen: Seen, poses: list[Pose]) -> None:
        """Add a picture's results, or count its problems."""
        for reason in seen.problems:
            self.problem(seen.name, reason)
        if seen.size != (0, 0):
            self.results.add(seen, poses)
            self.turned += seen.turned
            self.alone += not poses and not seen.problems

    def paint(self, found: tuple[Seen, list[Pose]]) -> tuple[Seen, list[Pose], np.ndarray | None]:
        """Draw a picture's people and give up its pixels."""
        seen, poses = found
        drawn = None
        if seen.shown is not None:
            zoom = seen.shown.shape[0] / seen.size[1]
            arguments = (poses, self.predictor.skeleton, zoom, self.options.show_above)
            drawn = draw.poses(seen.shown, *arguments, panel=self.options.heatmaps)
        light = [dataclasses.replace(pose, heatmaps=None) for pose in poses]
        return dataclasses.replace(seen, shown=None, crops=()), light, drawn

    def stream(self, seen: Iterable[Seen]) -> Iterator[tuple[Seen, list[Pose]]]:
        """Poses of pictures, in batches; crops are let go when they are predicted."""
        return self.predictor.stream((dataclasses.replace(s, crops=()), [*s.crops]) for s in seen)

    def pictures(self, pairs: list[tuple[str, str]], places: list[str]) -> None:
        """Predict picture files; ``places`` are where the drawn ones go."""
        target = dict(zip((name for _, name in pairs), places))

        def write(found):
            seen, poses, drawn = self.paint(found)
            if drawn is not None:
                write_jpeg(target[seen.name], drawn)
            return seen, poses

        waiting = self.predictor.largest + _WORKERS
        seen = ahead(self.read, pairs, waiting)
        done = ahead(write, self.stream(seen), _WORKERS)
        for one, poses in tqdm.tqdm(done, total=len(pairs), unit=" images", smoothing=0.05):
            self.note(one, poses)

    def video(self, path: str, place: str) -> None:
        """Predict a video or a camera; Ctrl-C ends a camera."""
        try:
            film = pictures.open_video(path)
        except (OSError, ValueError) as error:
            return self.problem(path, str(error))
        frames, counted = film.frames(), itertools.count()

        def read(number: int) -> Seen | None:
            image = next(frames, None)
            name = f"{os.path.basename(path)}#{number}"
            return None if image is None else self.see(path, name, image, number)

        # One thread: frames come in order, and decode while the network runs.
        seen = ahead(read, counted, self.predictor.largest, workers=1)
        found = self.stream(itertools.takewhile(lambda one: one is not None, seen))
        found = smoothed(found, film.rate) if self.options.smooth else found
        bar = tqdm.tqdm(total=film.count or None, unit=" images", smoothing=0.05)
        with Film(place, film.rate) as writer, bar:
            for one, poses, drawn in ahead(self.paint, found, _WORKERS):
                self.note(one, poses)
                if drawn is not None:
                    writer.add(drawn)
                bar.update()
        if film.ended_early:
            self.problem(path, f"ends early: {film.seen} of {film.count} frames could be read")
        elif not film.seen:
            self.problem(path, "holds no frame that can be read")


def smoothed(found: Iterable, rate: float) -> Iterator:
    """Videos' poses through the One Euro filter; person k of a frame follows person k before."""
    filters: list[OneEuro] = []
    for seen, poses in found:
        if len(filters) != len(poses):
            filters = [OneEuro(rate) for _ in poses]
        pairs = zip(filters, poses)
        yield (
            seen,
            [dataclasses.replace(p, joints=euro(p.joints, p.side)) for euro, p in pairs],
        )


def shrunk(image: np.ndarray, longest: int) -> np.ndarray:
    """Copy of a picture whose longer side has at most ``longest`` px."""
    zoom = min(1.0, longest / max(image.shape[:2]))
    if zoom == 1.0:
        return image
    size = [max(1, round(length * zoom)) for length in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def write_jpeg(path: str, rgb: np.ndarray) -> None:
    """Write [H, W, 3] uint8 RGB, whole or not at all; OSError when it cannot."""
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), _JPEG)
    write_atomically(path, data.tobytes())


class Film:
    """An .mp4 that appears when it is finished."""

    def __init__(self, path: str, rate: float):
        """Open it with the first frame."""
        self._path, self._rate, self._writer = path, rate, None
        self._partial = os.path.splitext(path)[0] + ".partial.mp4"

    def __enter__(self) -> Film:
        """Return itself."""
        return self

    def add(self, rgb: np.ndarray) -> None:
        """Append a frame, [H, W, 3] uint8; OSError when the file cannot be written."""
        height, width = rgb.shape[:2]
        if self._writer is None:
            os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
            code = cv2.VideoWriter_fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(self._partial, code, self._rate, (width, height))
            if not self._writer.isOpened():
                raise OSError(f"cannot write {self._path}; choose a local --output")
        self._writer.write(np.ascontiguousarray(rgb[..., ::-1]))

    def __exit__(self, *_) -> None:
        """Finish what there is: a video that was interrupted is worth having."""
        if self._writer is not None:
            self._writer.release()
            os.replace(self._partial, self._path)


def places(output: str, names: list[str]) -> list[str]:
    """Where drawn pictures and videos go: each input's own place below ``output``."""
    taken, found = set(), []
    for name in names:
        stem, kind = os.path.splitext(name)
        stem = f"camera{name}" if pictures.is_camera(name) else stem
        kind = ".mp4" if pictures.is_video(name) else ".jpg"
        numbered = (f"{stem}{suffix}{kind}" for suffix in _suffixes())
        place = next(place for place in numbered if place not in taken)
        taken.add(place)
        found.append(os.path.join(output, place))
    return found


def _suffixes() -> Iterator[str]:
    return itertools.chain([""], (f"-{number}" for number in itertools.count(2)))


def run(checkpoint: str, inputs: list[str], listed: list[str], options: Options) -> int:
    """Predict what is asked for, write it, say what was wrong.

    Args:
      checkpoint: a run, its best/ or a checkpoint.
      inputs: see ``pictures.expand``.
      listed: lines of standard input.
      options: see there.

    Returns:
      Exit code: 0, 1 when an input, a box or a name in the file of boxes could not be used, or 130
      after Ctrl-C; what was predicted until then is written.

    Raises FileNotFoundError, ValueError, OSError: nothing can be predicted, or not written.
    """
    pairs, others = pictures.expand(inputs, listed, options.output)
    targets = _safe_places(options.output, pairs)
    boxes, unknown = None, []
    if options.boxes:
        read = people_boxes.read(
            options.boxes, options.images, options.category, options.least_score
        )
        boxes, unknown = people_boxes.match(read, [path for path, _ in pairs])
        if not boxes.people:
            raise ValueError(f"none of the names in {options.boxes} is an input, {unknown[:3]}")
    predictor = Predictor.load(checkpoint, heatmaps=options.heatmaps)
    print(WHOLE if boxes is None else _about(boxes))
    work = Run(predictor, options, boxes)
    for name in unknown:
        work.problem(name, f"named in {options.boxes}, but is no input")
    code = _all(work, pairs, targets)
    work.results.close()
    _report(work, others)
    return code or int(bool(work.problems))


def _safe_places(output: str, pairs: list[tuple[str, str]]) -> list[str]:
    targets = places(output, [name for _, name in pairs])
    inputs = {os.path.abspath(path) for path, _ in pairs}
    clash = [place for place in targets if os.path.abspath(place) in inputs]
    if clash:
        raise ValueError(f"--output={output} would overwrite the input {clash[0]}; choose another")
    return targets


def _all(work: Run, pairs: list[tuple[str, str]], targets: list[str]) -> int:
    both = list(zip(pairs, targets))
    stills = [(pair, target) for pair, target in both if not pictures.is_video(pair[0])]
    try:
        if stills:
            work.pictures(*map(list, zip(*stills)))
        for (path, _), target in both:
            if pictures.is_video(path):
                work.video(path, target)
    except KeyboardInterrupt:
        print("interrupted: what was predicted so far is written", file=sys.stderr)
        return 130
    return 0


def _about(boxes: people_boxes.Boxes) -> str:
    count = sum(map(len, boxes.people.values()))
    left = "".join(f"; left out: {n:,} {reason}" for reason, n in boxes.left_out.items())
    return f"{count:,} boxes for {len(boxes.people):,} inputs{left}"


def _report(work: Run, others: int) -> None:
    results, output = work.results, work.options.output
    if others:
        print(f"{others:,} files of the folders are not pictures by their names")
    if work.turned:
        print(
            f"{work.turned:,} pictures carry an EXIF orientation, which is ignored as in training: "
            "--upright turns them"
        )
    if work.alone:
        print(f"{work.alone:,} pictures have no box, hence no people")
    if work.problems:
        names = ", ".join(list(work.problems)[:5]) + (", ..." if len(work.problems) > 5 else "")
        print(f"error: {len(work.problems):,} could not be used: {names}", file=sys.stderr)
    print(f"{results.people:,} people in {results.images:,} images -> {output}/predictions.json")
