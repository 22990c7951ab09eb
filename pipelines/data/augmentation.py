"""From stored crops to augmented network input and targets, on the device, inside the step.

One affine draw per example moves pixels and joints alike, so they cannot part. Evaluation takes
the same path without a draw.

A transform is a line of ``DRAWS`` and, if it changes pixels rather than where they lie, one of
``PIXELS``; how strong it is stands in the fields of ``Augmentation``. docs/extending.md adds one.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from typing import NamedTuple

import tensorflow as tf

from hourglass import affine
from pipelines.data import preprocessing, targets


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How strong each transform is; the defaults change nothing.

    Attributes:
      scale_limits: the crop's side is multiplied by a draw within these limits.
      scale_spread: standard deviation of the draw before it is limited.
      scale_is_power: True: 2^(spread N); False: 1 + spread N. N is a standard normal.
      rotation_probability: that the picture turns, by clip(30 N, -60, 60) degrees.
      color_spread: each channel is multiplied by U(1 - spread, 1 + spread).
      mirror_probability: of a left-right mirror.
    """

    scale_limits: tuple[float, float] = (1.0, 1.0)
    scale_spread: float = 0.0
    scale_is_power: bool = False
    rotation_probability: float = 0.0
    color_spread: float = 0.0
    mirror_probability: float = 0.0


AUGMENTATIONS = {
    # princeton-vl/pose-hg-train: src/opts.lua (scale 0.25, rotate 30) and src/util/pose.lua.
    "newell": Augmentation(
        scale_limits=(2**-0.5, 2**0.5),
        scale_spread=0.25,
        scale_is_power=True,
        rotation_probability=0.4,
        color_spread=0.4,
        mirror_probability=0.5,
    ),
    # bearpaw/pytorch-pose: pose/datasets/mpii.py.
    "pytorch_pose": Augmentation(
        scale_limits=(0.75, 1.25),
        scale_spread=0.25,
        rotation_probability=0.6,
        color_spread=0.2,
        mirror_probability=0.5,
    ),
    # Ours, for people who stand upright in test pictures too, as the synthetic ones mostly do.
    "upright": Augmentation(
        scale_limits=(0.75, 1.25), scale_spread=0.25, color_spread=0.2, mirror_probability=0.5
    ),
    # Ours, for networks too small to learn people of all sizes as well as of one.
    "gentle": Augmentation(
        scale_limits=(0.85, 1.15), scale_spread=0.1, color_spread=0.2, mirror_probability=0.5
    ),
    "none": Augmentation(),
}


class Random(NamedTuple):
    """Random numbers of the examples of one step, on one replica.

    Each is a function of (seed, step, position in the global batch, name) alone. Every replica
    draws the whole step's table and takes its own rows, so that the numbers of an example depend
    neither on the number of replicas nor on which other transforms there are.

    Attributes:
      seed: of the run, from 0 up to 2^31.
      index: [b] int64, the examples' indices in the run's endless sequence of examples.
      global_batch_size: examples per step over all replicas.
    """

    seed: int
    index: tf.Tensor
    global_batch_size: int

    def normal(self, name: str, *shape: int) -> tf.Tensor:
        """[b, *shape] float32, standard normal; ``name`` is the transform's, used only once."""
        return self._rows(tf.random.stateless_normal, name, shape)

    def uniform(self, name: str, *shape: int) -> tf.Tensor:
        """[b, *shape] float32 in [0, 1); ``name`` is the transform's, used only once."""
        return self._rows(tf.random.stateless_uniform, name, shape)

    def _rows(self, sample, name: str, shape: tuple[int, ...]) -> tf.Tensor:
        step = self.index[0] // self.global_batch_size
        named = (self.seed << 32) | zlib.crc32(name.encode())
        seed = tf.stack([tf.constant(named, tf.int64), step])
        table = sample([self.global_batch_size, *shape], seed)
        return tf.gather(table, self.index % self.global_batch_size)


def _draw_scale(strength: Augmentation, random: Random) -> tf.Tensor:
    spread = strength.scale_spread * random.normal("scale")
    scale = 2.0**spread if strength.scale_is_power else 1.0 + spread
    return tf.clip_by_value(scale, *strength.scale_limits)


def _draw_angle(strength: Augmentation, random: Random) -> tf.Tensor:
    degrees = tf.clip_by_value(30.0 * random.normal("angle"), -60.0, 60.0)
    turns = random.uniform("whether it turns") < strength.rotation_probability
    return tf.where(turns, degrees * (math.pi / 180.0), 0.0)


def _draw_mirror(strength: Augmentation, random: Random) -> tf.Tensor:
    return random.uniform("mirror") < strength.mirror_probability


def _draw_color(strength: Augmentation, random: Random) -> tf.Tensor:
    return 1.0 + strength.color_spread * (2.0 * random.uniform("color", 3) - 1.0)


# What is drawn for each example, each from a seed of its own.
DRAWS = {
    "scale": _draw_scale,  # [b] float32, factor of the crop's side
    "angle": _draw_angle,  # [b] float32, radians
    "mirror": _draw_mirror,  # [b] bool
    "color": _draw_color,  # [b, 3] float32, factor of each channel
}


def _change_color(pixels: tf.Tensor, color: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(pixels * color[:, None, None, :], 0.0, 1.0)


# Those that change pixels: function(pixels [B, H, W, 3] float32 in [0, 1], draw) -> the same.
PIXELS = {"color": _change_color}


def change_pixels(pixels: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
    """[B, H, W, 3] float32 in [0, 1] after every transform of ``PIXELS``, in its order."""
    for name, change in PIXELS.items():
        pixels = change(pixels, draws[name])
    return pixels


def draw(
    strength: Augmentation, seed: int, index: tf.Tensor, global_batch_size: int
) -> dict[str, tf.Tensor]:
    """What each transform of ``DRAWS`` does to each example; see there and ``Random``."""
    random = Random(seed, index, global_batch_size)
    return {name: function(strength, random) for name, function in DRAWS.items()}


def crop_to_input(batch: dict, size: int, draws: dict[str, tf.Tensor]) -> tf.Tensor:
    """[B, 2, 3] float32 map from stored crops to the scaled, turned and mirrored input."""
    side = batch["side"] * draws["scale"]
    matrix = affine.window_to_input(batch["center"], side, size, draws["angle"])
    mirrored = draws["mirror"][:, None, None]
    return tf.where(mirrored, affine.compose(matrix, affine.mirror(size)), matrix)


def images(
    batch: dict, size: int, draws: dict[str, tf.Tensor], mean=preprocessing.MEAN
) -> tuple[tf.Tensor, tf.Tensor]:
    """Augmented network input and how it was cut out; see ``preprocessing.images``.

    Args:
      batch: with image, center and side of stored crops.
      size: side of the input, px.
      draws: of ``draw``.
      mean: RGB [3], subtracted from pictures in [0, 1].

    Returns:
      Pictures [B, size, size, 3] float32 and crop_to_input [B, 2, 3] float32.
    """
    matrix = crop_to_input(batch, size, draws)
    of_pixels = {name: draws[name] for name in PIXELS}
    pictures = preprocessing.warp_and_normalize(
        batch["image"], matrix, size, mean=mean, change=change_pixels, draws=of_pixels
    )
    return pictures, matrix


@dataclasses.dataclass(frozen=True)
class BatchOptions:
    """How stored crops become a training batch.

    Attributes:
      augmentation: key of ``AUGMENTATIONS``.
      seed: of the run.
      global_batch_size: examples per step over all replicas.
      size: side of the network input, px.
      mirror: [J] permutation, ``Skeleton.mirror``.
      sigma: of the target Gaussians, heatmap px.
      occluded: one of ``targets.OCCLUDED``.
      round_centers: Gaussians on whole pixels.
      mean: RGB [3], subtracted from pictures in [0, 1].
    """

    augmentation: str
    seed: int
    global_batch_size: int
    size: int
    mirror: tuple[int, ...]
    sigma: float = 1.0
    occluded: str = "train"
    round_centers: bool = False
    mean: tuple[float, ...] = preprocessing.MEAN

    def with_batch_size(self, global_batch_size: int) -> BatchOptions:
        """The same for batches of another size."""
        return dataclasses.replace(self, global_batch_size=global_batch_size)

    def draw(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """What is drawn for the examples ``index`` [b] int64; see ``draw``."""
        strength = AUGMENTATIONS[self.augmentation]
        return draw(strength, self.seed, index, self.global_batch_size)


class AugmentedBatch(NamedTuple):
    """A replica's share of a training batch.

    Attributes:
      images: [b, size, size, 3] float32 normalised.
      targets: [b, size / 4, size / 4, J] float32 heatmaps.
      weights: [b, J] float32, 0 for what does not count in the loss.
      joints: [b, J, 2] float32 input px.
      crop_to_input: [b, 2, 3] float32.
    """

    images: tf.Tensor
    targets: tf.Tensor
    weights: tf.Tensor
    joints: tf.Tensor
    crop_to_input: tf.Tensor


def augment_batch(batch: dict, options: BatchOptions) -> AugmentedBatch:
    """Training input and targets of stored crops, as ``input_pipeline.training`` gives them."""
    draws = options.draw(batch["index"])
    pictures, matrix = images(batch, options.size, draws, options.mean)
    joints, state = targets.joints(batch, matrix, options.mirror, draws["mirror"])
    heatmaps, weights = targets.targets(
        joints,
        state,
        size=options.size,
        sigma=options.sigma,
        occluded=options.occluded,
        rounded=options.round_centers,
    )
    return AugmentedBatch(pictures, heatmaps, weights, joints, matrix)
