"""The GPU's results compared with the CPU's and with float64.

Every function takes (settings: fields of a Config, folder: filled by ``workload.prepare``). Without
a GPU the CPU takes its part: the comparison then runs, but shows nothing about GPUs.
"""

from __future__ import annotations

import dataclasses
import os
import pickle

import numpy as np
import scipy.ndimage
import tensorflow as tf

from hourglass import affine, model
from hourglass.model import STRIDE
from pipelines.benchmark import Part
from pipelines.config import Config, build_arguments
from pipelines.data import augmentation, input_pipeline, preprocessing, tfrecords
from pipelines.training import train, train_step

# Largest differences allowed, relative to the pictures' range, to a heatmap's peak, to the norm.
# Positions at 700 px are exact to 6e-5 px in float32 along x and y, several roundings lead to them,
# and a white pixel may have a black neighbour.
PICTURES, HEATMAPS = 3e-4, 1e-5
# Of float32 from float64, whichever is larger: this fraction, or this multiple of the difference of
# the CPU's float32. Gradients of a fresh network amplify rounding to per cents on any device.
FLOAT32, TIMES = 1e-4, 4.0
# Of TF32, with ten bits of mantissa. Its gradients are reported and judged by their angle.
TF32, TF32_COSINE = 3e-2, 0.9


def _device() -> str:
    gpus = tf.config.list_logical_devices("GPU")
    return gpus[0].name if gpus else "/cpu:0"


def _batch(config: Config) -> tuple[dict, tfrecords.DatasetInfo]:
    info = tfrecords.read_info(config.records)
    with tf.device("/cpu:0"):
        return next(
            iter(input_pipeline.training(info, batch=config.global_batch_size, seed=0))
        ), info


def _augmented(config: Config, info: tfrecords.DatasetInfo, batch: dict):
    """Draws and ``augmentation.AugmentedBatch``, with the widest augmentation."""
    widest = dataclasses.replace(config, augmentation="newell")
    options = train.step_options(widest, info.skeleton).batch
    return options.draw(batch["index"]), augmentation.augment_batch(batch, options)


def exact_pictures(batch: dict, draws: dict, matrix: np.ndarray, size: int) -> np.ndarray:
    """[B, size, size, 3] float64 in [0, 1] less the mean: the same warp by SciPy."""
    rows, columns = np.mgrid[:size, :size]
    pictures = []
    for crop, to_input, color in zip(batch["image"].numpy(), matrix, draws["color"].numpy()):
        to_crop = np.linalg.inv(np.vstack([to_input, [0, 0, 1]]).astype(np.float64))
        x, y, _ = np.tensordot(to_crop, np.stack([columns, rows, np.ones_like(rows)]), 1)
        planes = [
            scipy.ndimage.map_coordinates(
                crop[..., c].astype(np.float64), [y, x], order=1, mode="grid-constant"
            )
            for c in range(3)
        ]
        pictures.append(np.clip(np.stack(planes, -1) / 255 * color, 0, 1))
    return np.stack(pictures) - np.array(preprocessing.MEAN)


def exact_heatmaps(points: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """[B, H, W, J] float64 Gaussians at ``points`` [B, J, 2], input px."""
    centers = affine.resample(points.astype(np.float64), 1 / STRIDE)
    grid = np.arange(size // STRIDE)
    x, y = (np.exp(-((grid - centers[..., k, None]) ** 2) / (2 * sigma**2)) for k in (0, 1))
    return np.einsum("bjy,bjx->byxj", y, x)


def augment_crops(settings: dict, folder: str) -> Part:
    """Warp, colours and heatmaps on the GPU and on the CPU, each against float64."""
    config = Config(**settings)
    batch, info = _batch(config)
    differences = {}

    def run(steps: int) -> None:
        for name, device in (("GPU", _device()), ("CPU", "/cpu:0")):
            with tf.device(device):
                draws, augmented = _augmented(config, info, batch)
            matrix = augmented.crop_to_input.numpy()
            exact = exact_pictures(batch, draws, matrix, config.size)
            maps = exact_heatmaps(augmented.joints.numpy(), config.size, config.sigma)
            differences[name] = {
                "pictures": float(np.abs(augmented.images.numpy() - exact).max()),
                "heatmaps": float(np.abs(augmented.targets.numpy() - maps).max()),
            }

    def details() -> dict:
        limits = {"pictures": PICTURES, "heatmaps": HEATMAPS}
        wrong = [
            f"{what} on the {name} are {off:.2g} off float64, more than {limits[what]:g}"
            for name, parts in differences.items()
            for what, off in parts.items()
            if not off <= limits[what]
        ]
        return {"device": _device(), "differences": differences, "limits": limits, "wrong": wrong}

    return Part(run, config.global_batch_size, details=details)


def _relative(value: np.ndarray, exact: np.ndarray) -> float:
    """Norm of the difference over the norm."""
    return float(np.linalg.norm(value - exact) / np.linalg.norm(exact))


def _cosine(value: np.ndarray, exact: np.ndarray) -> float:
    return float(value @ exact / (np.linalg.norm(value) * np.linalg.norm(exact)))


def difference(value: dict, exact: dict) -> dict[str, float]:
    """Relative differences of heatmaps, loss and gradient from the exact ones, and the cosine."""
    relative = {key: _relative(value[key], exact[key]) for key in ("heatmaps", "loss", "gradient")}
    return {**relative, "cosine": _cosine(value["gradient"], exact["gradient"])}


def judge(name: str, off: dict, cpu: dict) -> list[str]:
    """Differences ``off`` of mode ``name`` above the limits; ``cpu``: the CPU's in float32."""
    if "TF32" in name:
        limits = {"heatmaps": TF32, "loss": TF32}
        wrong = [] if off["cosine"] >= TF32_COSINE else [f"{name}: cosine {off['cosine']:.3f}"]
    else:
        limits = {key: max(FLOAT32, TIMES * cpu[key]) for key in ("heatmaps", "loss", "gradient")}
        wrong = []
    return wrong + [
        f"{name}: the {key} is {off[key]:.2g} off float64, more than {limit:.2g}"
        for key, limit in limits.items()
        if not off[key] <= limit
    ]


def _passes(config: Config, info, device: str, precision: str, weights, tensors) -> dict:
    """Heatmaps, loss and gradient, flat, of the network with ``weights`` on ``device``."""
    kind = np.float64 if precision == "float64" else np.float32
    with tf.device(device):
        arguments = {**build_arguments(config, info.skeleton), "precision": precision}
        network = model.build(**arguments)
        if weights is not None:
            network.set_weights([value.astype(kind) for value in weights])
        batch_size = config.global_batch_size
        gradients_of = train_step.make_gradients(network, global_batch_size=batch_size)
        step = tf.function(gradients_of, autograph=False)
        initial = network.get_weights()
        losses, gradients, heatmaps = step(*map(tf.constant, tensors), 1.0)
    flat = np.concatenate([gradient.numpy().ravel() for gradient in gradients])
    return {
        "heatmaps": heatmaps.numpy().astype(np.float64).ravel(),
        "loss": losses.numpy().astype(np.float64),
        "gradient": flat.astype(np.float64),
        "weights": initial,
    }


def network(settings: dict, folder: str) -> Part:
    """Forward pass, loss and gradients of one batch in float32: CPU and GPU, against float64.

    The float64 results are kept in ``folder`` for ``network_tf32``.
    """
    config = Config(**settings)
    batch, info = _batch(config)
    differences = {}

    def run(steps: int) -> None:
        tf.config.experimental.enable_tensor_float_32_execution(False)
        with tf.device("/cpu:0"):
            _, (images, target, weight, *_) = _augmented(config, info, batch)
        tensors = [images.numpy(), target.numpy(), weight.numpy()]
        exact = _passes(config, info, "/cpu:0", "float64", None, tensors)
        for name, device in (("CPU float32", "/cpu:0"), ("GPU float32", _device())):
            value = _passes(config, info, device, "float32", exact["weights"], tensors)
            differences[name] = difference(value, exact)
        with open(_float64_file(folder), "wb") as file:
            pickle.dump((tensors, exact), file)

    def details() -> dict:
        wrong = judge("GPU float32", differences["GPU float32"], differences["CPU float32"])
        return {"device": _device(), "differences": differences, "wrong": wrong}

    return Part(run, config.global_batch_size, details=details)


def _float64_file(folder: str) -> str:
    return os.path.join(folder, "float64.pickle")


def network_tf32(settings: dict, folder: str) -> Part:
    """As ``network``, which must have run before, with TF32.

    In its own process: TensorFlow keeps the algorithms that it chose without TF32.
    """
    config = Config(**settings)
    info, name, differences = tfrecords.read_info(config.records), "GPU float32 with TF32", {}

    def run(steps: int) -> None:
        tf.config.experimental.enable_tensor_float_32_execution(True)
        with open(_float64_file(folder), "rb") as file:
            tensors, exact = pickle.load(file)
        value = _passes(config, info, _device(), "float32", exact["weights"], tensors)
        differences[name] = difference(value, exact)

    def details() -> dict:
        wrong = judge(name, differences[name], {})
        return {"device": _device(), "differences": differences, "wrong": wrong}

    return Part(run, config.global_batch_size, details=details)
