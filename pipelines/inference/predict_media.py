"""Predicting pictures, videos and cameras: read, cropped, predicted, drawn and written.

Everything is streamed: threads read pictures ahead, the network takes full batches, threads draw
and write; memory does not grow with the number of pictures.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
import tensorflow as tf
import tqdm

from pipelines.data import image_io, picture_sizes
from pipelines.data.picture_sizes import Fit
from pipelines.inference import boxes as people_boxes
from pipelines.inference import media
from pipelines.inference.media_options import MediaOptions
from pipelines.inference.one_euro import OneEuro
from pipelines.inference.predictor import Crop, Pose, Predictor
from pipelines.inference.tracking import Tracker
from pipelines.inference.writers import Film, Results, write_jpeg
from pipelines.visualization import draw

_WORKERS = min(8, os.cpu_count() or 1)
_SHORTEST = 360  # px, the shorter side of drawn pictures

# What a box, picture or frame may raise: it costs that one, not the whole prediction.
_OF_ONE = (OSError, ValueError, MemoryError, cv2.error, tf.errors.OpError)


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
      turned: whether it was turned by its EXIF orientation; None without one.
      image_id: COCO's, or None for the next free one.
      frame: where it is in its video; None for a picture file.
      persons: numbers of its people in the video, in the order of their poses; None for a picture
        file.
    """

    source: Input
    name: str
    size: tuple[int, int] = (0, 0)
    canvas: np.ndarray | None = None
    crops: tuple[Crop, ...] = ()
    problems: tuple[str, ...] = ()
    turned: bool | None = None
    image_id: int | str | None = None
    frame: media.Frame | None = None
    persons: tuple[int, ...] | None = None


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
        fits: dict[str, Fit] | None = None,
    ):
        """Start without results.

        Args:
          predictor: the network.
          options: of the command.
          boxes: by input path; None if each whole picture is one person.
          results: to be written to.
          fits: picture's path -> its real size compared with the annotated one.
        """
        self.predictor, self.options, self.boxes = predictor, options, boxes
        self.results, self.fits = results, fits or {}
        self.problems: collections.Counter = collections.Counter()
        self.turned: collections.Counter = collections.Counter()  # ("picture", True) and so on
        self.without_box = 0

    def problem(self, name: str, sentence: str) -> None:
        """Print a problem of the input ``name`` at once, and count it."""
        tqdm.tqdm.write(f"bad: {sentence}", file=sys.stderr)
        self.problems[name] += 1

    def upright(self, fit: Fit | None) -> bool:
        """Whether to turn a picture or video; ValueError if it does not have its annotated size."""
        if fit and fit.kind == picture_sizes.DIFFERENT:
            raise ValueError(f"{fit}, so its boxes do not fit: correct one of the two")
        decided = fit and fit.upright is not None
        return fit.upright if decided else self.options.upright

    def crop(self, source: Input, image: np.ndarray, frame: media.Frame | None = None) -> Picture:
        """Crop the people of a picture; invalid boxes become problems."""
        height, width = image.shape[:2]
        number = frame and frame.number
        whole = [people_boxes.Entry(None, "the whole picture")]
        entries = whole if self.boxes is None else self.boxes.of(source.path, number)
        crops, problems = [], []
        for box, where in entries:
            try:
                crops.append(self.predictor.crop(image, box))
            except _OF_ONE as error:
                problems.append(f"{where}: {_sentence(error)}")
        return Picture(
            source,
            name=_name(source, number),
            size=(width, height),
            canvas=resized(image, self.options.longest) if self.options.draw else None,
            crops=tuple(crops),
            problems=tuple(problems),
            image_id=self.boxes.id_of(source.path, number) if self.boxes else None,
            frame=frame,
        )

    def read(self, source: Input) -> Picture:
        """Read one picture; an error becomes its problem."""
        try:
            upright = self.upright(self.fits.get(source.path))
            image, orientation = image_io.read(source.path, upright)
            turned = None if orientation == 1 else upright
            return dataclasses.replace(self.crop(source, image), turned=turned)
        except _OF_ONE as error:
            return Picture(source, source.path, problems=(_sentence(error),))

    def record(self, picture: Picture, poses: list[Pose]) -> None:
        """Add a picture's results, or count its problems."""
        for reason in picture.problems:
            self.problem(picture.name, f"{picture.name}: {reason}")
        if picture.size != (0, 0):
            named = (picture.name, picture.size, poses, picture.image_id)
            self.results.add(*named, picture.frame, picture.persons)
            self.turned["picture", picture.turned] += 1
            self.without_box += not poses and not picture.problems

    def draw(self, predicted: Predicted) -> tuple[Picture, list[Pose], np.ndarray | None]:
        """Draw a picture's people; the returned picture and poses have dropped their pixels."""
        (picture, poses), drawn = predicted, None
        light = dataclasses.replace(picture, canvas=None, crops=())
        if picture.canvas is not None:
            zoom = picture.canvas.shape[0] / picture.size[1]
            arguments = (poses, self.predictor.skeleton, zoom, self.options.show_above)
            try:
                drawn = draw.poses(picture.canvas, *arguments, panel=self.options.heatmaps)
            except _OF_ONE as error:
                light = _with_problem(light, f"not drawn: {_sentence(error)}")
        return light, [dataclasses.replace(pose, heatmaps=None) for pose in poses], drawn

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
        try:
            if drawn is not None:
                write_jpeg(picture.source.drawn_path, drawn)
        except _OF_ONE as error:
            picture = _with_problem(picture, f"predicted, not drawn: {_sentence(error)}")
        return picture, poses

    def video(self, source: Input) -> None:
        """Predict a video or a camera."""
        try:
            film = media.open_video(source.path)
            upright = self.upright(self.fit_of_video(source, film))
        except _OF_ONE as error:
            return self.problem(source.path, f"{source.path}: {_sentence(error)}")
        self.turned["video", None if film.header[2] == 1 else upright] += 1
        every, rate = self.options.every, film.rate / self.options.every
        predicted = numbered(self.predict(self.frames(source, film, upright)), rate)
        predicted = smoothed(predicted, rate) if self.options.smooth else predicted
        bar = tqdm.tqdm(total=-(-film.count // every) or None, unit=" images", smoothing=0.05)
        with Film(source.drawn_path, rate) as writer, bar:
            # Closed first: no thread may write to a film that is finished.
            with contextlib.closing(self.filmed(predicted, writer)) as written:
                for picture, poses in written:
                    self.record(picture, poses)
                    bar.update()
        self._check_end(source, film, writer)

    def filmed(self, predicted: Iterable[Predicted], writer: Film) -> Iterator[Predicted]:
        """Draw frames and add them to a film: one thread encodes while the network runs."""

        def add(drawn: tuple[Picture, list[Pose], np.ndarray | None]) -> Predicted:
            picture, poses, image = drawn
            if image is not None:
                writer.add(image)
            return picture, poses

        return ahead(add, ahead(self.draw, predicted, _WORKERS), _WORKERS, workers=1)

    def frames(self, source: Input, film: media.Video, upright: bool) -> Iterator[Picture]:
        """A video's frames, cropped; an error becomes the problem of its frame."""
        images = film.frames(upright, self.options.every)

        def read(number: int) -> Picture | None:
            try:
                image = next(images, None)
                place = media.Frame(source.name, number, number / film.rate)
                return None if image is None else self.crop(source, image, place)
            except _OF_ONE as error:
                return Picture(source, _name(source, number), problems=(_sentence(error),))

        # One thread: frames come in order, and decode while the network runs.
        numbers = itertools.count(0, self.options.every)
        pictures = ahead(read, numbers, self.predictor.batch_size, workers=1)
        return itertools.takewhile(lambda picture: picture is not None, pictures)

    def fit_of_video(self, source: Input, film: media.Video) -> Fit | None:
        """Compare a video's size with the annotated one, or the first annotated of its frames."""
        names = self.boxes.of_video(source.path) if self.boxes else []
        sizes = [self.boxes.sizes[name] for name in names if name in self.boxes.sizes]
        if not sizes:
            return None
        name, corners = source.path, self.boxes.corners(names)
        fits = picture_sizes.compare_headers({name: film.header}, {name: sizes[0]}, {name: corners})
        return fits[name]

    def _check_end(self, source: Input, film: media.Video, writer: Film) -> None:
        reason = writer.problem and f"predicted, not drawn: {writer.problem}"
        if not film.seen:
            reason = "contains no readable frame"
        elif film.ended_early:
            reason = f"ends early: {film.seen} of {film.count} frames could be read"
        if reason:
            self.problem(source.path, f"{source.path}: {reason}")
        if self.boxes:
            self._check_boxes(source.path, film.seen)

    def _check_boxes(self, path: str, seen: int) -> None:
        every = self.options.every
        skipped, absent = self.boxes.unread(path, seen, every)
        if skipped:
            print(f"{path}: boxes of frames that --every={every} leaves out: {skipped}")
        if absent:
            frames = f"frames 0 to {seen - 1} were read, there are boxes of later ones: {absent}"
            self.problem(path, f"{path}: {frames}")


def _sentence(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, UnicodeError):
        return "its name is not UTF-8; rename it"
    return " ".join(str(error).split())


def _name(source: Input, frame: int | None) -> str:
    return source.name if frame is None else f"{source.name}#{frame}"


def _with_problem(picture: Picture, reason: str) -> Picture:
    return dataclasses.replace(picture, problems=(*picture.problems, reason))


def numbered(predicted: Iterable[Predicted], rate: float) -> Iterator[Predicted]:
    """Frames with their ``persons``; ``rate`` in frames per second."""
    tracker = Tracker(rate)
    for picture, poses in predicted:
        boxes = np.reshape([_box(pose) for pose in poses], (-1, 4))
        yield dataclasses.replace(picture, persons=tracker(boxes)), poses


def _box(pose: Pose) -> tuple[float, ...]:
    """(x, y, w, h) image px: as given, or the person's crop."""
    return pose.box or (*(pose.center + 0.5 - pose.side / 2), pose.side, pose.side)


def smoothed(predicted: Iterable[Predicted], rate: float) -> Iterator[Predicted]:
    """Poses smoothed by the One Euro filter, each person's alone; after an absence it restarts."""
    filters: dict[int, OneEuro] = {}
    for picture, poses in predicted:
        filters = {person: filters.get(person) or OneEuro(rate) for person in picture.persons}
        pairs = zip(filters.values(), poses)
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
