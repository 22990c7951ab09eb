"""Counted multiply-adds, the numerator of a fraction of the machine's peak."""

from __future__ import annotations

import math

import tensorflow as tf

# The gradients by a layer's input and by its kernel take as many multiply-adds as the layer.
TRAINING = 3


def layer_macs(layer: tf.Module) -> int:
    """Multiply-adds of a convolution for one example; 0 for every other layer (under 1 % here)."""
    if isinstance(layer, tf.keras.layers.DepthwiseConv2D):
        taps = math.prod(layer.kernel_size)
    elif isinstance(layer, tf.keras.layers.Conv2D):
        taps = math.prod(layer.kernel_size) * layer.input_shape[-1] // layer.groups
    else:
        return 0
    return taps * math.prod(layer.output_shape[1:])


def forward_macs(network: tf.keras.Model) -> int:
    """Multiply-adds of one example's forward pass."""
    return sum(layer_macs(layer) for layer in network.submodules)
