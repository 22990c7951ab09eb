"""Networks in float64, and their gradients."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hourglass import loss, model
from pipelines import checkpoints


def float64(network, arguments: dict) -> tf.keras.Model:
    """The same network in float64.

    A narrow network in training mode multiplies float32's rounding to per cents of the gradient, in
    PyTorch as here.
    """
    wide = model.build(**{**arguments, "size": network.input_shape[1], "precision": "float64"})
    weights = checkpoints.by_name(network.variables)
    for name, variable in checkpoints.by_name(wide.variables).items():
        variable.assign(tf.cast(weights[name], tf.float64))
    return wide


def gradients(network, images, target) -> dict[str, np.ndarray]:
    """Of the sum of all stacks' losses, in training mode, by our variable names."""
    variables = checkpoints.by_name(network.trainable_variables)
    with tf.GradientTape() as tape:
        predicted = network(tf.constant(images), training=True)
        weight = tf.ones([len(images), target.shape[-1]])
        whole = tf.reduce_sum(loss.per_stack(predicted, target, weight, len(images)))
    slopes = tape.gradient(whole, list(variables.values()))
    return {name: slope.numpy() for name, slope in zip(variables, slopes)}
