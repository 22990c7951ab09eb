"""Intermediate supervision: one weighted mean squared error per stack."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def per_stack(
    predicted: Sequence[tf.Tensor], target: tf.Tensor, weight: tf.Tensor, global_batch: int
) -> tf.Tensor:
    """Mean squared error of every stack's heatmaps (Newell et al. 2016, section 3.2).

    The mean is over all elements of the GLOBAL batch, so that the replicas' results add up to what
    one replica would have computed. A joint of weight 0 adds nothing and does not change the
    divisor: a joint weighs the same in every batch, whatever else is missing there.

    Args:
      predicted: S tensors [b, H, W, J], one per stack.
      target: [b, H, W, J] float32.
      weight: [b, J] float32, 0 for joints to ignore.
      global_batch: examples in the step over all replicas.

    Returns:
      [S] float32; their sum is the loss.
    """
    elements = global_batch * target.shape[1] * target.shape[2] * target.shape[3]
    weight = weight[:, None, None, :]
    sums = [tf.reduce_sum(weight * tf.square(tf.cast(p, tf.float32) - target)) for p in predicted]
    return tf.stack(sums) / elements
