"""From stored crops to network input and targets, on the device, inside the step.

One affine draw per example moves pixels and joints alike, so they cannot part. Evaluation is the
same road without a draw.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from hourglass import affine, heatmap, quiet
from hourglass.model import STRIDE
from pipelines.people import MISSING
from pipelines.people import OCCLUDED as OCCLUDED_STATE

OCCLUDED = ("train", "ignore", "zero")

# RGB mean of MPII's training crops, subtracted from [0, 1] pictures by both references.
MEAN = (0.4404, 0.4440, 0.4327)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Published augmentation parameters.

    Attributes:
      scale_limit: the crop's side is multiplied by a draw within these limits.
      scale_spread: standard deviation of the draw before it is limited.
      scale_power: True: 2^(spread N); False: 1 + spread N. N is a standard normal.
      rotation: probability that the picture turns, by clip(30 N, -60, 60) degrees.
      color: each channel is multiplied by U(1 - color, 1 + color).
      mirror: probability of a left-right mirror.
    """

    scale_limit: tuple[float, float]
    scale_spread: float
    scale_power: bool
    rotation: float
    color: float
    mirror: float


RECIPES = {
    # princeton-vl/pose-hg-train: src/opts.lua (scale 0.25, rotate 30) and src/util/pose.lua.
    "newell": Recipe((2**-0.5, 2**0.5), 0.25, True, 0.4, 0.4, 0.5),
    # bearpaw/pytorch-pose: pose/datasets/mpii.py.
    "pytorch_pose": Recipe((0.75, 1.25), 0.25, False, 0.6, 0.2, 0.5),
    # Ours, for people who stand upright in test pictures too, as the synthetic ones mostly do.
    "upright": Recipe((0.75, 1.25), 0.25, False, 0.0, 0.2, 0.5),
    # Ours, for networks too small to learn people of all sizes as well as of one.
    "gentle": Recipe((0.85, 1.15), 0.1, False, 0.0, 0.2, 0.5),
    "none": Recipe((1.0, 1.0), 0.0, False, 0.0, 0.0, 0.0),
}


def draw(recipe: Recipe, seed: int, index: tf.Tensor, global_batch: int) -> dict[str, tf.Tensor]:
    """Draw the augmentation of each example from (seed, step, place in the global batch).

    Every replica draws the whole step's table and takes its own rows: the draws of an example do
    not depend on the number of replicas, nor on what was drawn before.

    Args:
      recipe: the published parameters.
      seed: of the run.
      index: [b] int64, the examples' places in the run's endless sequence of examples.
      global_batch: examples per step over all replicas.

    Returns:
      scale [b], angle [b] radians, mirror [b] bool, color [b, 3] float32.
    """
    step, place = index[0] // global_batch, index % global_batch
    # Two seeds: from one, the normal numbers would be a function of the uniform ones.
    seeds = tf.random.experimental.stateless_split(tf.stack([tf.cast(seed, tf.int64), step]), 2)
    normal = tf.gather(tf.random.stateless_normal([global_batch, 2], seeds[0]), place)
    uniform = tf.gather(tf.random.stateless_uniform([global_batch, 5], seeds[1]), place)
    low, high = recipe.scale_limit
    spread = recipe.scale_spread * normal[:, 0]
    scale = 2.0**spread if recipe.scale_power else 1.0 + spread
    angle = tf.clip_by_value(30.0 * normal[:, 1], -60.0, 60.0) * (3.14159265 / 180.0)
    return {
        "scale": tf.clip_by_value(scale, low, high),
        "angle": tf.where(uniform[:, 0] < recipe.rotation, angle, 0.0),
        "mirror": uniform[:, 1] < recipe.mirror,
        "color": 1.0 + recipe.color * (2.0 * uniform[:, 2:] - 1.0),
    }


def crop_to_input(batch: dict, size: int, draws: dict | None = None) -> tf.Tensor:
    """[B, 2, 3] float32 map from stored crops to the network input, with or without a draw."""
    if draws is None:
        return affine.window_to_input(batch["center"], batch["side"], size)
    side = batch["side"] * draws["scale"]
    matrix = affine.window_to_input(batch["center"], side, size, draws["angle"])
    flip = draws["mirror"][:, None, None]
    return tf.where(flip, affine.compose(matrix, affine.mirror(size)), matrix)


def normalize(pixels: tf.Tensor, color: tf.Tensor | None = None, mean=MEAN) -> tf.Tensor:
    """[B, H, W, 3] in [0, 255], uint8 or float32, to float32 in [0, 1] less ``mean`` [3]."""
    image = tf.cast(pixels, tf.float32) * (1.0 / 255.0)
    if color is not None:
        image = tf.clip_by_value(image * color[:, None, None, :], 0.0, 1.0)
    return image - tf.constant(mean, tf.float32)


@tf.function(jit_compile=True)
def _compiled_images(crops: tf.Tensor, matrix: tf.Tensor, color, mean, size: int) -> tf.Tensor:
    return normalize(affine.warp_gathered(crops, matrix, size), color, mean)


def images(
    batch: dict, size: int, draws: dict | None = None, mean=MEAN, compiled: bool = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """Network input and how it was cut out.

    Args:
      batch: with image, center and side of stored crops.
      size: side of the input, px.
      draws: of ``draw``; None for none.
      mean: RGB [3], subtracted from pictures in [0, 1].
      compiled: on CPUs as one loop that XLA compiles for each shape, at a third of the processor
        time; otherwise, and where there is a GPU, as a few kernels.

    Returns:
      Pictures [B, size, size, 3] float32 and crop_to_input [B, 2, 3] float32.
    """
    matrix = crop_to_input(batch, size, draws)
    color = None if draws is None else draws["color"]
    if compiled and not tf.config.list_logical_devices("GPU"):
        quiet.start_xla()
        return _compiled_images(batch["image"], matrix, color, tuple(mean), size), matrix
    return normalize(affine.warp(batch["image"], matrix, size), color, mean), matrix


def _swap_sides(values: tf.Tensor, mirrored: tf.Tensor, mirror: tuple[int, ...]) -> tf.Tensor:
    mirrored = tf.reshape(mirrored, [-1] + [1] * (len(values.shape) - 1))
    return tf.where(mirrored, tf.gather(values, mirror, axis=1), values)


def joints(
    batch: dict, matrix: tf.Tensor, mirror: tuple[int, ...], draws: dict | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Joints [B, J, 2] float32 input px and states [B, J] int32 after ``crop_to_input``."""
    points, state = affine.apply(matrix, batch["joints"]), batch["state"]
    if draws is not None:
        points = _swap_sides(points, draws["mirror"], mirror)
        state = _swap_sides(state, draws["mirror"], mirror)
    return points, state


def targets(
    points: tf.Tensor,
    state: tf.Tensor,
    *,
    size: int,
    sigma: float,
    occluded: str = "train",
    rounded: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Target heatmaps and weights. Missing joints and joints outside the input weigh 0.

    Occluded joints (23 % of MPII's) are joints: "train" gives them a Gaussian and weight 1, as
    Newell's code does; "ignore" gives weight 0; "zero" trains them to an empty map, as the
    original Keras port did.

    Args:
      points: [B, J, 2] float32 input px.
      state: [B, J] int32, see ``pipelines.people``.
      size: side of the network input, px.
      sigma: heatmap px.
      occluded: one of ``OCCLUDED``.
      rounded: Gaussians on whole pixels.

    Returns:
      heatmaps [B, size / 4, size / 4, J] float32, weight [B, J] float32.
    """
    places = affine.resample(points, 1.0 / STRIDE)
    heatmaps = heatmap.render(places, size // STRIDE, sigma, rounded)
    inside = tf.reduce_all((points >= -0.5) & (points < size - 0.5), axis=-1)
    weight = tf.cast((state != MISSING) & inside, tf.float32)
    hidden = tf.cast(state == OCCLUDED_STATE, tf.float32)
    if occluded == "ignore":
        weight *= 1.0 - hidden
    if occluded == "zero":
        heatmaps *= (1.0 - hidden)[:, None, None, :]
    return heatmaps, weight
