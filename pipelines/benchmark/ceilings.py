"""The machine's limits: the same libraries' bare functions on the same data.

Every function takes (settings: fields of a Config, folder: filled by ``workload.prepare``).
TensorFlow is imported only where it is needed: a part's process holds only what it measures.
"""

from __future__ import annotations

import collections
import concurrent.futures
import os
from collections.abc import Callable

import cv2
import numpy as np

from pipelines.benchmark import Part, usable_cores

# Side of the square matrices: of 1024, 2048 and 4096 the fastest in bfloat16 for both libraries,
# because the factors stay in the cache; in float32 it makes no difference.
SIDE = 1024


def _on_all_cores(items: list, work: Callable) -> Callable[[int], None]:
    """function(steps) that applies ``work`` to every item, with one thread per usable core.

    OpenCV and TensorFlow release Python's lock while they compute.
    """
    cores = usable_cores()
    shares = [items[k::cores] for k in range(cores)]
    pool = concurrent.futures.ThreadPoolExecutor(cores)

    def on_share(share: list) -> None:
        for item in share:
            work(item)

    def run(steps: int) -> None:
        for _ in range(steps):
            list(pool.map(on_share, shares))

    return run


def _crops(folder: str) -> list[bytes]:
    names = np.load(os.path.join(folder, "crops.npz"), allow_pickle=False)["names"]
    jpegs = []
    for name in names:
        with open(os.path.join(folder, "crops", str(name)), "rb") as file:
            jpegs.append(file.read())
    return jpegs


def decode_opencv(settings: dict, folder: str) -> Part:
    """The records' JPEG bytes through OpenCV's libjpeg-turbo, without reading or padding."""
    cv2.setNumThreads(1)
    jpegs = [np.frombuffer(jpeg, np.uint8) for jpeg in _crops(folder)]
    return Part(
        _on_all_cores(jpegs, lambda jpeg: cv2.imdecode(jpeg, cv2.IMREAD_COLOR)),
        len(jpegs),
    )


def decode_tensorflow(settings: dict, folder: str) -> Part:
    """The same bytes through TensorFlow's libjpeg-turbo, one eager call per picture."""
    import tensorflow as tf

    def decode(jpeg):
        return tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")

    jpegs = [tf.constant(jpeg) for jpeg in _crops(folder)]
    return Part(_on_all_cores(jpegs, decode), len(jpegs))


def product_tensorflow(settings: dict, folder: str, side: int = SIDE) -> Part:
    """Dense matrix products in the settings' precision, by TensorFlow."""
    import tensorflow as tf

    dtype = tf.bfloat16 if "bfloat16" in settings["precision"] else tf.float32
    # With this deviation products are as large as their factors: no overflow, no denormal numbers.
    draws = tf.random.stateless_normal([2, side, side], [0, 0], stddev=side**-0.5)
    first, second = tf.unstack(tf.cast(draws, dtype))

    @tf.function
    def products(count: tf.Tensor) -> tf.Tensor:
        result = first
        for _ in tf.range(count):
            result = tf.matmul(result, second)
        return result[0, 0]

    def run(steps: int) -> None:
        products(tf.constant(steps)).numpy()

    return Part(run, 2e-9 * side**3, "GFLOP")


def product_torch(settings: dict, folder: str, side: int = SIDE) -> Part:
    """The same products by PyTorch: the faster library's rate is the ceiling."""
    import torch

    dtype = torch.bfloat16 if "bfloat16" in settings["precision"] else torch.float32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    draws = torch.randn(2, side, side, generator=torch.Generator().manual_seed(0)) * side**-0.5
    first, second = draws.to(device, dtype)

    @torch.inference_mode()
    def run(steps: int) -> None:
        result = first
        for _ in range(steps):
            result = result @ second
        result[0, 0].item()

    return Part(run, 2e-9 * side**3, "GFLOP")


def _convolve_both_ways(x, kernel, stride: int, padding: str, count: int):
    """Run a convolution and both its gradients ``count`` times; [] float32 that depends on all."""
    import tensorflow as tf

    options = {"strides": [1, stride, stride, 1], "padding": padding.upper()}
    weights, total = tf.zeros(kernel, x.dtype), tf.zeros([], x.dtype)
    for _ in tf.range(count):
        # Each depends on the previous one, so that none can be skipped or computed only once.
        output = tf.nn.conv2d(x, weights, **options)
        by_input = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=x.shape, filter=weights, out_backprop=output, **options
        )
        weights += tf.raw_ops.Conv2DBackpropFilter(
            input=x, filter_sizes=kernel, out_backprop=output, **options
        )
        total += by_input[0, 0, 0, 0]
    return tf.cast(total, tf.float32)


def convolutions(settings: dict, folder: str) -> Part:
    """The network's convolutions and both gradients of each, one after the other, nothing between.

    The time of a training step if normalisation, ReLU, sums and updates cost nothing.
    """
    import tensorflow as tf

    from hourglass import model
    from pipelines.benchmark import counting
    from pipelines.config import Config, build_arguments
    from pipelines.data import tfrecords

    config = Config(**settings)
    skeleton = tfrecords.read_info(config.records).skeleton
    network = model.build(**build_arguments(config, skeleton))
    dtype = tf.bfloat16 if "bfloat16" in config.precision else tf.float32
    layers = [layer for layer in network.submodules if isinstance(layer, tf.keras.layers.Conv2D)]
    shapes = collections.Counter(
        (tuple(c.input_shape[1:]), tuple(c.kernel.shape), c.strides[0], c.padding) for c in layers
    )
    inputs = {shape: tf.ones([config.global_batch_size, *shape], dtype) for shape, *_ in shapes}

    @tf.function
    def all_layers(steps: tf.Tensor) -> tf.Tensor:
        total = 0.0
        for _ in tf.range(steps):
            for (shape, kernel, stride, padding), count in shapes.items():
                total += _convolve_both_ways(inputs[shape], kernel, stride, padding, count)
        return total

    flop = 2 * counting.TRAINING * counting.forward_macs(network)

    def run(steps: int) -> None:
        all_layers(tf.constant(steps)).numpy()

    return Part(run, config.global_batch_size, details=lambda: {"flop_per_image": flop})


def bare_conversion(settings: dict, folder: str, quality: int) -> Part:
    """Read a photograph, decode, crop, shrink, encode: no annotations, no checks, no writing."""
    cv2.setNumThreads(1)
    table = np.load(os.path.join(folder, "photographs.npz"), allow_pickle=False)
    paths = [os.path.join(folder, "photographs", str(name)) for name in table["names"]]
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]

    def convert_one(item: tuple[str, np.ndarray]) -> None:
        path, (x, y, width, side) = item[0], item[1].tolist()
        with open(path, "rb") as file:
            image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
        height, image_width = image.shape[:2]
        inside = image[max(y, 0) : y + width, max(x, 0) : x + width]
        borders = (
            max(-y, 0),
            max(y + width - height, 0),
            max(-x, 0),
            max(x + width - image_width, 0),
        )
        square = cv2.copyMakeBorder(inside, *borders, cv2.BORDER_CONSTANT)
        if side < width:
            square = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA)
        cv2.imencode(".jpg", square, options)

    items = list(zip(paths, table["window"]))
    return Part(_on_all_cores(items, convert_one), len(items))
