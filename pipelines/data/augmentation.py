"""From stored crops to network input and targets, on the device, inside the step.

One affine draw per example moves pixels and joints alike, so they cannot part. Evaluation is the
same road without a draw.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf


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


AUGMENTATIONS = {
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
