"""Joints of people in pictures.

from pipelines.inference.predictor import Predictor

predictor = Predictor.load("runs/demo")
poses = predictor(["photograph.jpg"], [[(x, y, width, height)]])
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
import tensorflow as tf

from hourglass import bn_folding
from hourglass.skeleton import Skeleton
from pipelines import checkpoints
from pipelines.data import cropping, image_io
from pipelines.inference import boxes as people_boxes
from pipelines.inference import compiled
from pipelines.inference.options import InferenceOptions, for_weights

# px; such a window takes 48 MB. Larger people (crop sides above 2,000 px at the default context,
# 0.02 % of MPII's) are downscaled by an integer factor first.
WIDEST = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class Pose:
    """One person's joints.

    Attributes:
      joints: [J, 2] float64 image px, 0-based, pixel centres on integers.
      confidence: [J] float32, the heatmaps' peaks: about 1 where the network is certain.
      box: (x, y, w, h) image px, as given; None if the whole picture is the person.
      center: [2] float64 image px, of the person's crop.
      side: image px, of the person's crop.
      heatmaps: [h, w, J] float32 over the crop, if requested.
    """

    joints: np.ndarray
    confidence: np.ndarray
    box: tuple | None
    center: np.ndarray
    side: float
    heatmaps: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Crop:
    """A person's square, cut as the training records are.

    Attributes:
      square: [n, n, 3] uint8 RGB.
      center: [2] float64 crop px.
      side: crop px.
      crop_to_image: [2, 3] float64.
      box: as given.
    """

    square: np.ndarray
    center: np.ndarray
    side: float
    crop_to_image: np.ndarray
    box: tuple | None


class Predictor:
    """A trained network that predicts pictures; thread-safe except for the network itself."""

    def __init__(
        self,
        network: tf.keras.Model,
        skeleton: Skeleton,
        geometry: cropping.Geometry,
        options: InferenceOptions,
        *,
        batch_size: int = 32,
        heatmaps: bool = False,
    ):
        """Nothing is compiled yet: the first pictures take seconds.

        Args:
          network: from ``hourglass.model.build``, or folded.
          skeleton: its joints.
          geometry: of the crops in the training records.
          options: see ``InferenceOptions``.
          batch_size: largest batch of the network, people.
          heatmaps: return them with each pose.

        Raises ValueError as ``compiled.make_predict``.
        """
        self.skeleton, self.geometry, self.batch_size = skeleton, geometry, batch_size
        self._predict = compiled.make_predict(
            network, skeleton.mirror, options, batch_size=batch_size, heatmaps=heatmaps
        )

    @classmethod
    def load(
        cls,
        path: str,
        options: InferenceOptions | None = None,
        *,
        batch_size: int = 32,
        heatmaps: bool = False,
    ) -> Predictor:
        """Load a trained network.

        Args:
          path: folder of a run, its best/, or one checkpoint.
          options: None for evaluation's: averaged with the mirrored picture, with the decoder and
            mean that the weights expect. For others of the same weights:
            ``options.for_weights(checkpoints.read_expected(folder), flip=False)``.
          batch_size: see the constructor, as for ``heatmaps``.
          heatmaps: return them with each pose.

        Raises FileNotFoundError or ValueError if there is no checkpoint, or it is damaged.
        """
        folder, _ = checkpoints.split_path(path)
        options = options or for_weights(checkpoints.read_expected(folder))
        network, skeleton, *_ = checkpoints.load_network(path)
        return cls(
            bn_folding.fold(network),
            skeleton,
            checkpoints.read_geometry(folder),
            options,
            batch_size=batch_size,
            heatmaps=heatmaps,
        )

    def __call__(
        self,
        images: Sequence[str | np.ndarray],
        boxes: Sequence[Sequence[tuple] | None] | None = None,
        *,
        upright: bool = True,
    ) -> list[list[Pose]]:
        """Joints of every person.

        Args:
          images: paths, or [H, W, 3] uint8 RGB arrays.
          boxes: for each image its people's (x, y, w, h) in image px as in COCO, where the first
            pixel spans 0 to 1. Each becomes a crop by the rule of training, ``boxes.person``. None,
            for an image or for all: the whole picture is the person, best when centred and about
            three quarters of its height.
          upright: turn files by their EXIF orientation, as viewers show them; boxes and joints then
            refer to the turned picture.

        Returns:
          For each image a list of Pose, one for each box.

        Raises:
          FileNotFoundError, ValueError: an invalid image or box, named by its number. To go on
            without it, use ``crop`` and ``stream``.
        """
        if isinstance(images, (str, np.ndarray)):
            raise ValueError("images is one image: pass a list of them")
        boxes = [None] * len(images) if boxes is None else boxes
        if len(boxes) != len(images):
            raise ValueError(f"{len(images)} images but boxes for {len(boxes)}: one list for each")
        pairs = enumerate(zip(images, boxes))
        items = ((k, self._crops(k, *pair, upright)) for k, pair in pairs)
        return [poses for _, poses in self.stream(items)]

    def _crops(self, number: int, image, boxes, upright: bool) -> list[Crop]:
        where = name = image if isinstance(image, str) else f"image {number}"
        crops = []
        try:
            pixels = image_io.read(image, upright)[0] if isinstance(image, str) else image
            for k, box in enumerate([None] if boxes is None else boxes):
                where = name if box is None else f"{name}, box {k}"
                crops.append(self.crop(pixels, box))
        except (OSError, ValueError) as error:
            kind = type(error) if isinstance(error, OSError) else ValueError
            raise kind(f"{where}: {error}") from error
        return crops

    def crop(self, image: np.ndarray, box: Sequence[float] | None) -> Crop:
        """Crop a person from [H, W, 3] uint8 RGB; see ``__call__`` for the box.

        Raises ValueError for any other array, or an invalid box.
        """
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
            raise ValueError(
                f"an image must be [H, W, 3] uint8 RGB, not {list(array.shape)} {array.dtype}"
            )
        person = people_boxes.person(box, array.shape[1], array.shape[0])
        factor = math.ceil(self.geometry.context * person.side / WIDEST)
        array, small_to_image = _downscaled(array, factor)
        center = cropping.to_crop(person.center, small_to_image)
        person = dataclasses.replace(person, center=center, side=person.side / factor)
        square, crop_to_small = cropping.crop(array, person, self.geometry)
        shift = small_to_image[:, :2] @ crop_to_small[:, 2] + small_to_image[:, 2]
        return Crop(
            square,
            cropping.to_crop(person.center, crop_to_small),
            person.side / crop_to_small[0, 0],
            np.column_stack([factor * crop_to_small[:, :2], shift]),
            people_boxes.numbers(box),
        )

    def stream(self, items: Iterable[tuple[object, list[Crop]]]) -> Iterator[tuple]:
        """Predict a stream of pictures in full batches, in order and in bounded memory.

        Args:
          items: (key of any type, the picture's crops); a picture may have no crops.

        Yields:
          (key, list of Pose).
        """
        waiting, crops, poses = collections.deque(), [], collections.deque()
        for key, of_picture in items:
            waiting.append((key, len(of_picture)))
            crops.extend(of_picture)
            while len(crops) >= self.batch_size or len(waiting) > 2 * self.batch_size:
                poses.extend(self._poses(crops[: self.batch_size]))
                del crops[: self.batch_size]
                yield from _finished(waiting, poses)
        while crops:
            poses.extend(self._poses(crops[: self.batch_size]))
            del crops[: self.batch_size]
        yield from _finished(waiting, poses)

    def _poses(self, crops: list[Crop]) -> list[Pose]:
        if not crops:
            return []
        canvas = self.geometry.canvas
        squares = np.zeros((len(crops), canvas, canvas, 3), np.uint8)
        for square, crop in zip(squares, crops):
            square[: len(crop.square), : len(crop.square)] = crop.square
        centers = np.stack([crop.center for crop in crops]).astype(np.float32)
        sides = np.array([crop.side for crop in crops], np.float32)
        crop_joints, confidence, *maps = (p.numpy() for p in self._predict(squares, centers, sides))
        crop_to_image = np.stack([crop.crop_to_image for crop in crops])
        joints = cropping.to_image(crop_joints.astype(np.float64), crop_to_image)
        crop_centers = np.stack([crop.center for crop in crops])[:, None]
        center = cropping.to_image(crop_centers, crop_to_image)[:, 0]
        side = [float(crop.side * crop.crop_to_image[0, 0]) for crop in crops]
        heatmaps = maps[0] if maps else [None] * len(crops)
        boxes = [crop.box for crop in crops]
        return [*map(Pose, joints, confidence, boxes, center, side, heatmaps)]


def _downscaled(image: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Image with ``factor`` x ``factor`` px averaged, and its small_to_image [2, 3] float64."""
    shift = 0.5 * factor - 0.5
    small_to_image = np.array([[factor, 0.0, shift], [0.0, factor, shift]])
    if factor == 1:
        return image, small_to_image
    height, width = (max(1, length // factor) for length in image.shape[:2])
    whole = image[: height * factor, : width * factor]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), small_to_image


def _finished(waiting: collections.deque, poses: collections.deque) -> Iterator[tuple]:
    while waiting and waiting[0][1] <= len(poses):
        key, count = waiting.popleft()
        yield key, [poses.popleft() for _ in range(count)]
