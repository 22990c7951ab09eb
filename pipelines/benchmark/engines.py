"""Other programs' engines of inference, on our network as scripts/export.py writes it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import numpy as np

from hourglass import bn_folding, model
from pipelines.benchmark import BF16, FP32, Part
from pipelines.config import Config, build_arguments
from pipelines.data import tfrecords
from pipelines.export import formats, signatures
from pipelines.inference.options import InferenceOptions


def _openvino(folder: str, function, bf16: bool) -> Callable:
    path = os.path.join(folder, "openvino")
    formats.write_openvino(path, function, "none")
    return formats.load_openvino(path, "bf16" if bf16 else "f32")


def _onnx(folder: str, function, bf16: bool) -> Callable:
    """In float32 always: its CPU kernels have no bfloat16."""
    path = os.path.join(folder, "network.onnx")
    formats.write_onnx(path, function)
    return formats.load_onnx(path)


# Export format -> function(folder to write into, network's function, whether in bf16) -> run.
ENGINES = {"openvino": _openvino, "onnx": _onnx}


def load(config: Config, engine: str) -> tuple[object, Callable]:
    """The float32 network of a Config, folded, and the engine's function of its pictures."""
    info = tfrecords.read_info(config.records)
    arguments = {**build_arguments(config, info.skeleton), "precision": FP32}
    network = bn_folding.fold(model.build(**arguments))
    function = signatures.heatmaps(network, False, InferenceOptions().mean)
    with tempfile.TemporaryDirectory() as folder:
        return network, ENGINES[engine](folder, function, config.precision == BF16)


def inference(settings: dict, folder: str, engine: str) -> Part:
    """Normalised pictures -> the last stack's heatmaps in host memory, one call per batch."""
    config = Config(**settings)
    _, forward = load(config, engine)
    shape = [config.global_batch_size, config.size, config.size, 3]
    images = np.random.default_rng(0).uniform(-0.45, 0.55, shape).astype(np.float32)

    def run(steps: int) -> None:
        for _ in range(steps):
            forward(images)

    return Part(run, config.global_batch_size)
