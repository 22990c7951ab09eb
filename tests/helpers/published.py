"""Sizes of the published networks."""

import numpy as np
import pytest
import tensorflow as tf

# Small enough to run in a moment, with every kind of layer.
SMALL = {"joints": 3, "stacks": 2, "channels": 8, "depth": 2, "size": 32}


def _images(batch=2, size=32, seed=0):
    return tf.random.stateless_normal([batch, size, size, 3], [seed, 1])


def _count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def _conv(inputs, outputs, kernel):
    return kernel * kernel * inputs * outputs + outputs


def _residual(inputs, outputs, block="residual"):
    half = outputs // 2
    norms = 2 * (inputs + half + half)
    middle = 9 * half if block == "mobile" else _conv(half, half, 3)
    skip = 0 if inputs == outputs else _conv(inputs, outputs, 1)
    return norms + _conv(inputs, half, 1) + middle + _conv(half, outputs, 1) + skip


def _expected(stem, stacks, joints=16, c=256, blocks=1, depth=4, block="residual"):
    """Trainable parameters, added up from the papers' description and not from the code."""
    second = c // 2 if stem == "newell" else c
    first = _conv(3, c // 4, 7) + 2 * (c // 4) + _residual(c // 4, c // 2, block)
    first += _residual(c // 2, second, block) + _residual(second, c, block)
    # Skip, down and up on each level, and the middle of the lowest one; then the head.
    trunk = (3 * depth + 1 + 1) * blocks * _residual(c, c, block)
    head = _conv(c, c, 1) + 2 * c + _conv(c, joints, 1)
    back = _conv(c, c, 1) + _conv(joints, c, 1)
    return first + stacks * (trunk + head) + (stacks - 1) * back


LONG = (pytest.mark.slow, pytest.mark.fire)

# Millions of parameters with 16 joints: Newell's hg-stacked models counted by their layers;
# pytorch-pose prints its own (README of bearpaw/pytorch-pose: 6.73M for hg_s2_b1, 25.59M for s8).
PUBLISHED = [
    ("newell", 1, 3.426),
    ("newell", 2, 6.570),
    pytest.param("newell", 4, 12.858, marks=LONG),
    pytest.param("newell", 8, 25.434, marks=LONG),
    ("pytorch_pose", 1, 3.587),
    ("pytorch_pose", 2, 6.731),
    pytest.param("pytorch_pose", 4, 13.019, marks=LONG),
    pytest.param("pytorch_pose", 8, 25.595, marks=LONG),
]
