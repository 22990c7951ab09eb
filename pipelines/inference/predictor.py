"""Joints of people in pictures.

from pipelines.inference.predictor import Predictor

predictor = Predictor.load()  # the network that comes with the project, or the folder of a run
poses = predictor(["photograph.jpg"], [[(x, y, width, height)]])
"""

from __future__ import annotations

import collections
import dataclasses
import math
import sys
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
import tensorflow as tf

from hourglass import bn_folding
from hourglass.skeleton import Skeleton
from pipelines import checkpoints
from pipelines.data import cropping, image_io
from pipelines.data.annotations import Person
from pipelines.inference import boxes as people_boxes
from pipelines.inference import compiled, openvino_engine, recut
from pipelines.inference.options import InferenceOptions, for_weights

# px; such a window takes 48 MB. Larger people (crop sides above 2,000 px at the default context,
# 0.02 % of MPII's) are downscaled by an integer factor first.
WIDEST = 4096

# px, the longer side of what is kept of a picture to cut its person again: at most 4.3 MB.
KEPT = 1200

# Times that a person without a box is cut again, at most.
RECUTS = 2

# What computes the network -> function of the folded network to a Keras model that does it.
ENGINES = {"tensorflow": lambda network: network, "openvino": openvino_engine.engine}

_PRETRAINED_NOTE = (
    "network: pretrained/people, which comes with the project (pretrained/README.md says what it "
    "can do); for another name the folder of a run"
)


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
      kept: the picture to cut the person from again, [h, w, 3] uint8 RGB, and its kept_to_image
        [2, 3] float64; None where the place is given.
    """

    square: np.ndarray
    center: np.ndarray
    side: float
    crop_to_image: np.ndarray
    box: tuple | None
    kept: tuple[np.ndarray, np.ndarray] | None = None


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
        recuts: int = RECUTS,
    ):
        """Nothing is compiled yet: the first pictures take seconds.

        Args:
          network: from ``hourglass.model.build``, or folded.
          skeleton: its joints.
          geometry: of the crops in the training records.
          options: see ``InferenceOptions``.
          batch_size: largest batch of the network, people.
          heatmaps: return them with each pose.
          recuts: how often, at most, a person without a box is cut again around the joints that
            were found, and predicted again; the surest of these predictions is returned.

        Raises ValueError as ``compiled.make_predict``.
        """
        self.skeleton, self.geometry, self.batch_size = skeleton, geometry, batch_size
        self.recuts = recuts
        self._predict = compiled.make_predict(
            network, skeleton.mirror, options, batch_size=batch_size, heatmaps=heatmaps
        )

    @classmethod
    def load(
        cls,
        path: str = checkpoints.PRETRAINED,
        options: InferenceOptions | None = None,
        *,
        batch_size: int = 32,
        heatmaps: bool = False,
        recuts: int = RECUTS,
        engine: str = "tensorflow",
    ) -> Predictor:
        """Load a trained network, and say so where it is the one that comes with the project.

        Args:
          path: folder of a run, its best/, or one checkpoint.
          options: None for evaluation's: averaged with the mirrored picture, with the decoder and
            mean that the weights expect. For others of the same weights:
            ``options.for_weights(checkpoints.read_expected(folder), flip=False)``.
          batch_size: see the constructor, as for ``heatmaps`` and ``recuts``.
          heatmaps: return them with each pose.
          recuts: of people without a box.
          engine: one of ``ENGINES``; OpenVINO's uses the CPU alone, in bf16 where the processor has
            that.

        Raises FileNotFoundError or ValueError if there is no checkpoint, or it is damaged; OSError
        if the engine's package is not installed.
        """
        if path == checkpoints.PRETRAINED:
            print(_PRETRAINED_NOTE, file=sys.stderr)
        folder, _ = checkpoints.split_path(path)
        options = options or for_weights(checkpoints.read_expected(folder))
        network, skeleton, *_ = checkpoints.load_network(path)
        return cls(
            ENGINES[engine](bn_folding.fold(network)),
            skeleton,
            checkpoints.read_geometry(folder),
            options,
            batch_size=batch_size,
            heatmaps=heatmaps,
            recuts=recuts,
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
            for an image or for all: the whole picture is the person, who is looked for from there
            in up to ``recuts`` further cuts.
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
        small = _downscaled(array, math.ceil(self.geometry.context * person.side / WIDEST))
        crop = self._cut(*small, person, people_boxes.numbers(box))
        if box is not None or not self.recuts:
            return crop
        # A copy: a view would keep all of the picture.
        kept, kept_to_image = _downscaled(array, math.ceil(max(array.shape[:2]) / KEPT))
        return dataclasses.replace(crop, kept=(kept.copy(), kept_to_image))

    def _cut(self, small: np.ndarray, small_to_image: np.ndarray, person: Person, box) -> Crop:
        """Crop a person, in image px, from a picture that was downscaled."""
        center, factor = cropping.to_crop(person.center, small_to_image), small_to_image[0, 0]
        person = dataclasses.replace(person, center=center, side=person.side / factor)
        square, crop_to_small = cropping.crop(small, person, self.geometry)
        shift = small_to_image[:, :2] @ crop_to_small[:, 2] + small_to_image[:, 2]
        return Crop(
            square,
            cropping.to_crop(person.center, crop_to_small),
            person.side / crop_to_small[0, 0],
            np.column_stack([factor * crop_to_small[:, :2], shift]),
            box,
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
        poses = self._once(crops)
        last = {k: poses[k] for k, crop in enumerate(crops) if crop.kept}
        for _ in range(self.recuts):
            again = {k: self._recut(crops[k].kept, pose) for k, pose in last.items()}
            again = {k: crop for k, crop in again.items() if crop}
            last = dict(zip(again, self._once([*again.values()])))
            for k, pose in last.items():
                poses[k] = max(poses[k], pose, key=lambda pose: pose.confidence.mean())
        return poses

    def _recut(self, kept: tuple[np.ndarray, np.ndarray], pose: Pose) -> Crop | None:
        square = recut.square(pose.joints, pose.confidence, pose.center, pose.side)
        if square is None:
            return None
        height, width = (length * kept[1][0, 0] for length in kept[0].shape[:2])
        whole = people_boxes.person(None, width, height)
        person = dataclasses.replace(whole, center=square[0], side=square[1])
        return self._cut(*kept, person, None)

    def _once(self, crops: list[Crop]) -> list[Pose]:
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
