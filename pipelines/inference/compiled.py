"""Joints of any number of pictures, fast: one compiled function per batch size.

Give it ``hourglass.folded.fold(network)``; any network of ``hourglass.model.build`` will do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from hourglass import heatmap
from hourglass.model import STRIDE
from pipelines.inference import forward


@dataclasses.dataclass
class Compiled:
    """A function of batches of any length, compiled once for each of a few lengths.

    A batch is filled up to the next length and the result cut off again; one longer than the last
    length is taken in parts. Every length is traced when it first comes.

    Attributes:
      step: from tensors [B, ...] to tensors [B, ...], each example judged alone.
      lengths: the B that are compiled, rising.
    """

    step: Callable
    lengths: tuple[int, ...]
    _functions: dict = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __call__(self, *batch) -> tuple[tf.Tensor, ...]:
        """Results [B, ...] of tensors or arrays [B, ...], B from 0 up."""
        tensors = [tf.convert_to_tensor(part) for part in batch]
        count, most = tensors[0].shape[0], self.lengths[-1]
        starts = range(0, max(count, 1), most)
        parts = [self._padded([t[start : start + most] for t in tensors]) for start in starts]
        return parts[0] if len(parts) == 1 else tuple(tf.concat(p, 0) for p in zip(*parts))

    def _padded(self, tensors: list[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        count = tensors[0].shape[0]
        missing = next(length for length in self.lengths if length >= count) - count
        if missing:
            # Ones: a crop of side 0 has no way to the network's input.
            pads = [[[0, missing]] + [[0, 0]] * (len(t.shape) - 1) for t in tensors]
            tensors = [tf.pad(t, p, constant_values=1) for t, p in zip(tensors, pads)]
        results = self._function(tensors)(*tensors)
        return tuple(result[:count] for result in results) if missing else tuple(results)

    def _function(self, tensors: list[tf.Tensor]):
        key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)
        if key not in self._functions:
            specs = [tf.TensorSpec(shape, dtype) for shape, dtype in key]
            with tf.init_scope():  # reading weights must not become part of a caller's graph
                traced = tf.function(self.step).get_concrete_function(*specs)
                # Constants are cast and laid out for the processor once, not at each call.
                self._functions[key] = convert_variables_to_constants_v2(traced)
        return self._functions[key]


def lengths_up_to(largest: int) -> tuple[int, ...]:
    """Powers of two below ``largest``, and ``largest``."""
    if largest < 1:
        raise ValueError(f"a batch holds 1 example or more, not {largest}")
    return (*(2**n for n in range((largest - 1).bit_length())), largest)


def _check_mirror(flip: bool, mirror: tuple[int, ...], network: tf.keras.Model) -> None:
    joints = network.outputs[-1].shape[-1]
    if flip and len(mirror) != joints:
        raise ValueError(
            f"the mirror test of {joints} joints needs as many places in mirror, not "
            f"{len(mirror)}: pass Skeleton.mirror"
        )


def of_images(
    network: tf.keras.Model,
    *,
    largest: int = 32,
    flip: bool = False,
    mirror: tuple[int, ...] = (),
    decode: str = "quarter",
    sigma: float = 1.0,
) -> Compiled:
    """Joints of normalised pictures, decoded on the device.

    Args:
      network: its weights as they are when a length is compiled.
      largest: longest batch of one call.
      flip: average with the mirrored picture, both in one batch.
      mirror: [J] permutation, ``Skeleton.mirror``; only ``flip`` needs it.
      decode: one of ``heatmap.DECODERS``.
      sigma: heatmap px; only "dark" needs it.

    Returns:
      function(images [B, size, size, 3] float32 less the mean) -> joints [B, J, 2] float32 input
      px, confidence [B, J] float32. It raises ValueError for other pictures.

    Raises:
      ValueError: ``largest`` below 1, or a mirror test without ``mirror``.
    """
    _check_mirror(flip, mirror, network)

    def step(images: tf.Tensor):
        _check_images(images, network.input_shape[1])
        maps = forward.heatmaps_of(network, images, flip, mirror)
        joints, confidence = heatmap.decode(maps, decode, sigma)
        return heatmap.to_input(joints, STRIDE), confidence

    return Compiled(step, lengths_up_to(largest))


def _check_images(images: tf.Tensor, size: int) -> None:
    if images.dtype != tf.float32 or tuple(images.shape[1:]) != (size, size, 3):
        raise ValueError(
            f"pictures are {images.dtype.name} {list(images.shape)}; the network takes float32 "
            f"[B, {size}, {size}, 3] less the mean, as preprocessing.images makes them"
        )


def of_crops(
    network: tf.keras.Model,
    *,
    largest: int = 32,
    flip: bool = False,
    mirror: tuple[int, ...] = (),
    decode: str = "quarter",
    **more,
) -> Compiled:
    """Joints of stored crops: warp, network and decoder in one call.

    Args:
      network: as for ``of_images``, like ``largest``, ``flip``, ``mirror`` and ``decode``.
      largest: longest batch of one call.
      flip: average with the mirrored picture.
      mirror: [J] permutation.
      decode: one of ``heatmap.DECODERS``.
      **more: sigma, scales, mean and heatmaps of ``forward.joints_of``.

    Returns:
      function(image [B, n, n, 3] uint8, center [B, 2] float32 crop px, side [B] float32 crop px)
      -> joints [B, J, 2] float32 crop px, confidence [B, J] float32.

    Raises:
      ValueError: ``largest`` below 1, or a mirror test without ``mirror``.
    """
    _check_mirror(flip, mirror, network)
    how = {"flip": flip, "mirror": mirror, "decode": decode, **more}

    def step(image: tf.Tensor, center: tf.Tensor, side: tf.Tensor):
        batch = {"image": image, "center": center, "side": side}
        return forward.joints_of(network, batch, **how)

    return Compiled(step, lengths_up_to(largest))
