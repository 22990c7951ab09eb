"""Predict folders, lists, videos and cameras: pictures with skeletons, and predictions.json.

Everything is streamed: threads read pictures ahead, the network takes full batches, threads draw
and write; memory does not grow with the number of pictures.
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
from pipelines.inference.media_options import MediaOptions
from pipelines.inference.one_euro import OneEuro
from pipelines.inference.predictor import Crop, Pose, Predictor
from pipelines.inference.writers import Film, Results, drawn_paths, write_jpeg
from pipelines.visualization import draw

_WORKERS = min(8, os.cpu_count() or 1)
_SHORTEST = 360  # px, the shorter side of drawn pictures

WITHOUT_BOXES = (
    "no --boxes: each whole picture is one person. This works best with the person centred and "
    "about three quarters of the picture's height; otherwise give boxes."
)


@dataclasses.dataclass(frozen=True)
class Input:
    """A file or camera to predict.

    Attributes:
      path: of the file, or the camera's number.
      name: in the results.
      drawn_path: of the picture or video with skeletons.
    """

    path: str
    name: str
    drawn_path: str


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture or frame that was read: everything that later steps need.

    Attributes:
      source: the input that it comes from.
      name: in the results; with the frame's number for videos.
      size: (width, height) px; (0, 0) if it could not be read.
      canvas: [h, w, 3] uint8 RGB to draw on, or None.
      crops: its people.
      problems: messages.
      turned: whether an EXIF orientation was ignored.
      image_id: COCO's, or 0 for the next free one.
    """

    source: Input
    name: str
    size: tuple[int, int] = (0, 0)
    canvas: np.ndarray | None = None
    crops: tuple[Crop, ...] = ()
    problems: tuple[str, ...] = ()
    turned: bool = False
    image_id: int = 0


Predicted = tuple[Picture, list[Pose]]


def ahead(function: Callable, items: Iterable, count: int, workers: int = _WORKERS) -> Iterator:
    """Results of ``function`` in order of the items; threads compute at most ``count`` ahead."""
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
    """One run over any number of inputs: its options, its results and its problems."""

    def __init__(
        self,
        predictor: Predictor,
        options: MediaOptions,
        boxes: people_boxes.Boxes | None,
        results: Results,
    ):
        """Start without results; ``boxes`` is None if each whole picture is one person."""
        self.predictor, self.options, self.boxes = predictor, options, boxes
        self.results = results
        self.problems: collections.Counter = collections.Counter()
        self.turned = self.without_box = 0

    def problem(self, name: str, reason: str) -> None:
        """Print a problem of an input at once, and count it."""
        tqdm.tqdm.write(f"bad: {name}: {reason}", file=sys.stderr)
        self.problems[name] += 1

    def crop(self, source: Input, image: np.ndarray, frame: int | None = None) -> Picture:
        """Crop the people of a picture; invalid boxes become problems."""
        height, width = image.shape[:2]
        boxes = [None] if self.boxes is None else self.boxes.of(source.path, frame)
        crops, problems = [], []
        for box in boxes:
            try:
                crops.append(self.predictor.crop(image, box))
            except ValueError as error:
                problems.append(str(error))
        return Picture(
            source,
            name=source.name if frame is None else f"{source.name}#{frame}",
            size=(width, height),
            canvas=resized(image, self.options.longest) if self.options.draw else None,
            crops=tuple(crops),
            problems=tuple(problems),
            image_id=self.boxes.ids.get(source.path, 0) if self.boxes else 0,
        )

    def read(self, source: Input) -> Picture:
        """Read one picture; an error becomes its problem."""
        try:
            image, turned = image_io.read(source.path, self.options.upright)
            return dataclasses.replace(self.crop(source, image), turned=turned)
        except (OSError, ValueError) as error:
            return Picture(source, source.path, problems=(str(error),))

    def record(self, picture: Picture, poses: list[Pose]) -> None:
        """Add a picture's results, or count its problems."""
        for reason in picture.problems:
            self.problem(picture.name, reason)
        if picture.size != (0, 0):
            self.results.add(picture.name, picture.size, poses, picture.image_id)
            self.turned += picture.turned
            self.without_box += not poses and not picture.problems

    def draw(self, predicted: Predicted) -> tuple[Picture, list[Pose], np.ndarray | None]:
        """Draw a picture's people; the returned picture and poses have dropped their pixels."""
        picture, poses = predicted
        drawn = None
        if picture.canvas is not None:
            zoom = picture.canvas.shape[0] / picture.size[1]
            arguments = (poses, self.predictor.skeleton, zoom, self.options.show_above)
            drawn = draw.poses(picture.canvas, *arguments, panel=self.options.heatmaps)
        light = [dataclasses.replace(pose, heatmaps=None) for pose in poses]
        return dataclasses.replace(picture, canvas=None, crops=()), light, drawn

    def predict(self, pictures: Iterable[Picture]) -> Iterator[Predicted]:
        """Poses of pictures, in batches; crops are freed when they are predicted."""
        return self.predictor.stream(
            (dataclasses.replace(picture, crops=()), [*picture.crops]) for picture in pictures
        )

    def pictures(self, inputs: list[Input]) -> None:
        """Predict picture files."""
        pictures = ahead(self.read, inputs, self.predictor.batch_size + _WORKERS)
        written = ahead(self.write, self.predict(pictures), _WORKERS)
        for picture, poses in tqdm.tqdm(written, total=len(inputs), unit=" images", smoothing=0.05):
            self.record(picture, poses)

    def write(self, predicted: Predicted) -> Predicted:
        """Draw a picture and write it."""
        picture, poses, drawn = self.draw(predicted)
        if drawn is not None:
            write_jpeg(picture.source.drawn_path, drawn)
        return picture, poses

    def video(self, source: Input) -> None:
        """Predict a video or a camera."""
        try:
            film = media.open_video(source.path)
        except (OSError, ValueError) as error:
            return self.problem(source.path, str(error))
        frames = film.frames()

        def read(number: int) -> Picture | None:
            image = next(frames, None)
            return None if image is None else self.crop(source, image, number)

        # One thread: frames come in order, and decode while the network runs.
        pictures = ahead(read, itertools.count(), self.predictor.batch_size, workers=1)
        predicted = self.predict(itertools.takewhile(lambda frame: frame is not None, pictures))
        predicted = smoothed(predicted, film.rate) if self.options.smooth else predicted
        bar = tqdm.tqdm(total=film.count or None, unit=" images", smoothing=0.05)
        with Film(source.drawn_path, film.rate) as writer, bar:
            for picture, poses, drawn in ahead(self.draw, predicted, _WORKERS):
                self.record(picture, poses)
                if drawn is not None:
                    writer.add(drawn)
                bar.update()
        if not film.seen:
            self.problem(source.path, "contains no readable frame")
        elif film.ended_early:
            self.problem(
                source.path, f"ends early: {film.seen} of {film.count} frames could be read"
            )


def smoothed(predicted: Iterable[Predicted], rate: float) -> Iterator[Predicted]:
    """Poses smoothed by the One Euro filter; person k of a frame is person k of the one before."""
    filters: list[OneEuro] = []
    for picture, poses in predicted:
        if len(filters) != len(poses):
            filters = [OneEuro(rate) for _ in poses]
        pairs = zip(filters, poses)
        yield (
            picture,
            [dataclasses.replace(p, joints=euro(p.joints, p.side)) for euro, p in pairs],
        )


def resized(image: np.ndarray, longest: int) -> np.ndarray:
    """Picture to draw on: at most ``longest`` px; small ones are enlarged so that marks fit."""
    zoom = min(longest / max(image.shape[:2]), max(1.0, _SHORTEST / min(image.shape[:2])))
    if zoom == 1.0:
        return image
    size = [max(1, round(length * zoom)) for length in image.shape[1::-1]]
    interpolation = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, size, interpolation=interpolation)


def run(inputs: list[str], listed: list[str], options: MediaOptions) -> int:
    """Predict the inputs, write the results, print the problems.

    Args:
      inputs: see ``media.expand``.
      listed: lines of standard input.
      options: see ``MediaOptions``.

    Returns:
      Exit code: 0, 1 if an input, a box or a name in the file of boxes could not be used, or 130
      after Ctrl-C; what was predicted until then is written.

    Raises FileNotFoundError, ValueError, OSError: nothing can be predicted or written.
    """
    pairs, others = media.expand(inputs, listed, options.output)
    sources = _inputs(pairs, options.output)
    boxes, unknown = None, []
    if options.boxes:
        file = people_boxes.read(
            options.boxes, options.annotations, options.category, options.least_score
        )
        boxes, unknown = people_boxes.match(file, [source.path for source in sources])
        if not boxes.people:
            raise ValueError(f"no name in {options.boxes} matches an input: {_few(unknown)}")
    predictor = Predictor.load(options.checkpoint, heatmaps=options.heatmaps)
    print(WITHOUT_BOXES if boxes is None else _describe(boxes))
    first_id = max(boxes.ids.values(), default=0) + 1 if boxes else 1
    try:
        with Results(options.output, predictor.skeleton, options.category, first_id) as results:
            work = Run(predictor, options, boxes, results)
            if unknown:
                work.problem(options.boxes, f"{len(unknown)} names match no input: {_few(unknown)}")
            _predict_all(work, sources)
    except KeyboardInterrupt:
        print("interrupted: what was predicted so far is written", file=sys.stderr)
        return 130
    _report(work, others)
    return int(bool(work.problems))


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _inputs(pairs: list[tuple[str, str]], output: str) -> list[Input]:
    targets = drawn_paths(output, [name for _, name in pairs])
    originals = {os.path.abspath(path) for path, _ in pairs}
    clashes = [target for target in targets if os.path.abspath(target) in originals]
    if clashes:
        raise ValueError(
            f"--output={output} would overwrite the input {clashes[0]}; choose another"
        )
    counts = collections.Counter(name for _, name in pairs)
    return [
        Input(path, name if counts[name] == 1 else path, target)
        for (path, name), target in zip(pairs, targets)
    ]


def _predict_all(work: Run, inputs: list[Input]) -> None:
    stills = [source for source in inputs if not media.is_video(source.path)]
    if stills:
        work.pictures(stills)
    for source in inputs:
        if media.is_video(source.path):
            work.video(source)


def _describe(boxes: people_boxes.Boxes) -> str:
    count = sum(map(len, boxes.people.values()))
    left = "".join(f"; left out: {n:,} {reason}" for reason, n in boxes.left_out.items())
    return f"{count:,} boxes for {len(boxes.people):,} inputs{left}"


def _report(work: Run, others: int) -> None:
    results, output = work.results, work.options.output
    if others:
        print(f"{others:,} files in the folders do not have a picture's extension")
    if work.turned:
        print(
            f"{work.turned:,} pictures have an EXIF orientation, which is ignored as in training: "
            "--upright rotates them"
        )
    if work.without_box:
        print(f"{work.without_box:,} pictures have no boxes and thus no people")
    if work.problems:
        names = _few(list(work.problems))
        print(f"error: {len(work.problems):,} had problems: {names}", file=sys.stderr)
    print(f"{results.people:,} people in {results.images:,} images -> {output}/predictions.json")
