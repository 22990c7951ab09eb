"""A network in OpenVINO's runtime: for prediction in the place of TensorFlow's, and as an export.

Needs the package openvino (`make export-tools`); only the CPU is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from pipelines import optional
from pipelines.io import temporary_folder, write_atomically

# The precision that the processor is fastest in: bf16 where it has that, float32 elsewhere.
FASTEST = ""


def write_frozen(path: str, function) -> None:
    """Write a GraphDef without variables: "images:0" to "heatmaps:0".

    Args:
      path: of the file.
      function: tf.function of "images" with an input signature, to {"heatmaps": ...}.
    """
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    write_atomically(path, frozen.graph.as_graph_def().SerializeToString())


def convert(function):
    """OpenVINO's model, "images" to "heatmaps", of a function as in ``write_frozen``.

    Raises OSError if openvino is not installed.
    """
    core = optional.load("openvino").Core()
    with temporary_folder() as folder:
        frozen = os.path.join(folder, "frozen.pb")
        write_frozen(frozen, function)
        network = core.read_model(frozen)
    network.input().set_names({"images"})
    network.output().set_names({"heatmaps"})
    return network


def compile_model(network, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    """OpenVINO's model as a function of pictures [B, size, size, 3] to heatmaps [B, h, w, J].

    Args:
      network: from ``convert``, or read from a file.
      precision: computed in, "f32", "bf16" or ``FASTEST``; where the processor has no bf16,
        OpenVINO decides.
    """
    hints = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    compiled = optional.load("openvino").Core().compile_model(network, "CPU", hints)
    return lambda images: compiled(np.asarray(images))[0]


def engine(network: tf.keras.Model, precision: str = FASTEST) -> tf.keras.Model:
    """A Keras model of the same input that computes its last heatmaps in OpenVINO.

    Args:
      network: from ``hourglass.bn_folding.fold`` or ``hourglass.model.build``.
      precision: see ``compile_model``.

    Returns:
      Model of pictures [B, size, size, 3] float32 to (heatmaps [B, h, w, J] float32,).

    Raises OSError if openvino is not installed.
    """
    shape = network.outputs[-1].shape[1:]

    pictures = tf.TensorSpec(network.input_shape, name="images")

    @tf.function(input_signature=[pictures], autograph=False)
    def last(images):
        return {"heatmaps": tf.identity(network(images, training=False)[-1], "heatmaps")}

    run = compile_model(convert(last), precision)

    def in_openvino(images: tf.Tensor) -> tf.Tensor:
        heatmaps = tf.numpy_function(run, [images], tf.float32, stateful=False)
        return tf.ensure_shape(heatmaps, [None, *shape])

    images = tf.keras.Input(network.input_shape[1:])
    return tf.keras.Model(images, (tf.keras.layers.Lambda(in_openvino)(images),))
