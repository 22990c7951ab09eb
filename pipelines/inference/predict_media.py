"""Predict folders, lists, videos and cameras: pictures with skeletons, and predictions.json.

Everything flows: pictures are read ahead by threads, the network takes full batches, threads draw
and write; how many there are does not change how much memory that takes.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
import tqdm

from pipelines.data import image_io
from pipelines.inference import boxes as people_boxes
from pipelines.inference import media
from pipelines.inference.one_euro import OneEuro
from pipelines.inference.predictor import Crop, Pose, Predictor
from pipelines.inference.writers import Film, Results, drawn_paths, write_jpeg
from pipelines.visualization import draw

_WORKERS = min(8, os.cpu_count() or 1)
_SHORTEST = 360  # px, the shorter side of drawn pictures

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
      annotations: COCO annotation file that names the images of ``boxes``.
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
    annotations: str = ""
    category: int = 1
    least_score: float = 0.3
    draw: bool = True
    heatmaps: bool = False
    smooth: bool = False
    upright: bool = False
    show_above: float = 0.1
    longest: int = 1600


@dataclasses.dataclass(frozen=True)
class Input:
    """A file or camera to predict: its path, its name in the results, where the drawn one goes."""

    path: str
    name: str
    place: str


@dataclasses.dataclass(frozen=True)
class Seen:
    """A picture that was read: all that later steps need of it.

    Attributes:
      given: what was read.
      name: in the results; a video's frames have their number.
      size: (width, height) px; (0, 0) where it could not be read.
      shown: [h, w, 3] uint8 RGB to draw on, or None.
      crops: its people.
      problems: sentences.
      turned: an EXIF orientation was ignored.
      image_id: COCO's, or 0 for any.
    """

    given: Input
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


class Run:
    """One run over any number of inputs: its options, its results and what went wrong."""

    def __init__(
        self,
        predictor: Predictor,
        options: Options,
        boxes: people_boxes.Boxes | None,
        results: Results,
    ):
        """Start without anything; ``boxes`` is None where whole pictures are people."""
        self.predictor, self.options, self.boxes = predictor, options, boxes
        self.results = results
        self.problems: collections.Counter = collections.Counter()
        self.turned = self.alone = 0

    def problem(self, name: str, reason: str) -> None:
        """Name a bad input at once, and count it."""
        tqdm.tqdm.write(f"bad: {name}: {reason}", file=sys.stderr)
        self.problems[name] += 1

    def see(self, given: Input, image: np.ndarray, frame: int | None = None) -> Seen:
        """Cut the people out of a picture; boxes that cannot be used become problems."""
        height, width = image.shape[:2]
        wanted = [None] if self.boxes is None else self.boxes.of(given.path, frame)
        crops, problems = [], []
        for box in wanted:
            try:
                crops.append(self.predictor.crop(image, box))
            except ValueError as error:
                problems.append(str(error))
        shown = fitted(image, self.options.longest) if self.options.draw else None
        image_id = self.boxes.ids.get(given.path, 0) if self.boxes else 0
        name = given.name if frame is None else f"{given.name}#{frame}"
        people, texts = tuple(crops), tuple(problems)
        return Seen(given, name, (width, height), shown, people, texts, image_id=image_id)

    def read(self, given: Input) -> Seen:
        """Read one picture; whatever is wrong with it becomes its problem."""
        try:
            image, turned = image_io.read(given.path, self.options.upright)
            return dataclasses.replace(self.see(given, image), turned=turned)
        except (OSError, ValueError) as error:
            return Seen(given, given.path, problems=(str(error),))

    def note(self, seen: Seen, poses: list[Pose]) -> None:
        """Add a picture's results, or count its problems."""
        for reason in seen.problems:
            self.problem(seen.name, reason)
        if seen.size != (0, 0):
            self.results.add(seen.name, seen.size, poses, seen.image_id)
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

    def pictures(self, inputs: list[Input]) -> None:
        """Predict picture files."""
        seen = ahead(self.read, inputs, self.predictor.largest + _WORKERS)
        done = ahead(self.write, self.stream(seen), _WORKERS)
        for one, poses in tqdm.tqdm(done, total=len(inputs), unit=" images", smoothing=0.05):
            self.note(one, poses)

    def write(self, found: tuple[Seen, list[Pose]]) -> tuple[Seen, list[Pose]]:
        """Draw a picture and write it."""
        seen, poses, drawn = self.paint(found)
        if drawn is not None:
            write_jpeg(seen.given.place, drawn)
        return seen, poses

    def video(self, given: Input) -> None:
        """Predict a video or a camera."""
        try:
            film = media.open_video(given.path)
        except (OSError, ValueError) as error:
            return self.problem(given.path, str(error))
        frames = film.frames()

        def read(number: int) -> Seen | None:
            image = next(frames, None)
            return None if image is None else self.see(given, image, number)

        # One thread: frames come in order, and decode while the network runs.
        seen = ahead(read, itertools.count(), self.predictor.largest, workers=1)
        found = self.stream(itertools.takewhile(lambda one: one is not None, seen))
        found = smoothed(found, film.rate) if self.options.smooth else found
        bar = tqdm.tqdm(total=film.count or None, unit=" images", smoothing=0.05)
        with Film(given.place, film.rate) as writer, bar:
            for one, poses, drawn in ahead(self.paint, found, _WORKERS):
                self.note(one, poses)
                if drawn is not None:
                    writer.add(drawn)
                bar.update()
        if not film.seen:
            self.problem(given.path, "holds no frame that can be read")
        elif film.ended_early:
            self.problem(
                given.path, f"ends early: {film.seen} of {film.count} frames could be read"
            )


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


def fitted(image: np.ndarray, longest: int) -> np.ndarray:
    """Picture to draw on: at most ``longest`` px long, small ones enlarged so that marks fit."""
    zoom = min(longest / max(image.shape[:2]), max(1.0, _SHORTEST / min(image.shape[:2])))
    if zoom == 1.0:
        return image
    size = [max(1, round(length * zoom)) for length in image.shape[1::-1]]
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, size, interpolation=how)


def run(checkpoint: str, inputs: list[str], listed: list[str], options: Options) -> int:
    """Predict what is asked for, write it, say what was wrong.

    Args:
      checkpoint: a run, its best/ or a checkpoint.
      inputs: see ``media.expand``.
      listed: lines of standard input.
      options: see there.

    Returns:
      Exit code: 0, 1 when an input, a box or a name in the file of boxes could not be used, or 130
      after Ctrl-C; what was predicted until then is written.

    Raises FileNotFoundError, ValueError, OSError: nothing can be predicted, or not written.
    """
    pairs, others = media.expand(inputs, listed, options.output)
    found = _inputs(pairs, options.output)
    boxes, unknown = None, []
    if options.boxes:
        file = people_boxes.read(
            options.boxes, options.annotations, options.category, options.least_score
        )
        boxes, unknown = people_boxes.match(file, [one.path for one in found])
        if not boxes.people:
            raise ValueError(f"no name in {options.boxes} is an input: {_few(unknown)}")
    predictor = Predictor.load(checkpoint, heatmaps=options.heatmaps)
    print(WHOLE if boxes is None else _about(boxes))
    first_id = max(boxes.ids.values(), default=0) + 1 if boxes else 1
    try:
        with Results(options.output, predictor.skeleton, options.category, first_id) as results:
            work = Run(predictor, options, boxes, results)
            if unknown:
                work.problem(
                    options.boxes, f"names {len(unknown)} that are no input: {_few(unknown)}"
                )
            _all(work, found)
    except KeyboardInterrupt:
        print("interrupted: what was predicted so far is written", file=sys.stderr)
        return 130
    _report(work, others)
    return int(bool(work.problems))


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _inputs(pairs: list[tuple[str, str]], output: str) -> list[Input]:
    targets = drawn_paths(output, [name for _, name in pairs])
    taken = {os.path.abspath(path) for path, _ in pairs}
    clash = [place for place in targets if os.path.abspath(place) in taken]
    if clash:
        raise ValueError(f"--output={output} would overwrite the input {clash[0]}; choose another")
    counts = collections.Counter(name for _, name in pairs)
    return [
        Input(path, name if counts[name] == 1 else path, place)
        for (path, name), place in zip(pairs, targets)
    ]


def _all(work: Run, inputs: list[Input]) -> None:
    stills = [one for one in inputs if not media.is_video(one.path)]
    if stills:
        work.pictures(stills)
    for one in inputs:
        if media.is_video(one.path):
            work.video(one)


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
        names = _few(list(work.problems))
        print(f"error: {len(work.problems):,} had problems: {names}", file=sys.stderr)
    print(f"{results.people:,} people in {results.images:,} images -> {output}/predictions.json")
