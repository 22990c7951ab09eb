"""Fast prediction of any number of pictures: one compiled function per batch size.

Best with ``hourglass.bn_folding.fold(network)``; any network of ``hourglass.model.build`` works.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from pipelines.inference import forward
from pipelines.inference.options import InferenceOptions


@dataclasses.dataclass
class Compiled:
    """A function of batches of any length, compiled once for each of a few lengths.

    A batch is padded to the next length and its results are cut to its own; one longer than the
    last length is split. Each length is traced when it is first needed.

    Attributes:
      step: from tensors [B, ...] to tensors [B, ...], each example independent of the others.
      lengths: the B that are compiled, ascending.
    """

    step: Callable
    lengths: tuple[int, ...]
    _functions: dict = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __call__(self, *batch) -> tuple[tf.Tensor, ...]:
        """Results [B, ...] of tensors or arrays [B, ...], B from 0 up."""
        tensors = [tf.convert_to_tensor(part) for part in batch]
        count, largest = tensors[0].shape[0], self.lengths[-1]
        starts = range(0, max(count, 1), largest)
        parts = [self._padded([t[start : start + largest] for t in tensors]) for start in starts]
        return parts[0] if len(parts) == 1 else tuple(tf.concat(p, 0) for p in zip(*parts))

    def _padded(self, tensors: list[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        count = tensors[0].shape[0]
        missing = next(length for length in self.lengths if length >= count) - count
        if missing:
            # Ones, because a crop of side 0 cannot be mapped to the network's input.
            pads = [[[0, missing]] + [[0, 0]] * (len(t.shape) - 1) for t in tensors]
            tensors = [tf.pad(t, p, constant_values=1) for t, p in zip(tensors, pads)]
        results = self._function(tensors)(*tensors)
        return tuple(result[:count] for result in results) if missing else tuple(results)

    def _function(self, tensors: list[tf.Tensor]):
        key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)
        if key not in self._functions:
            specs = [tf.TensorSpec(shape, dtype) for shape, dtype in key]
            with tf.init_scope():  # reading weights must not become part of a caller's graph
                traced = tf.function(self.step, autograph=False).get_concrete_function(*specs)
                # Constants are cast and laid out for the processor once instead of in each call.
                self._functions[key] = convert_variables_to_constants_v2(traced)
        return self._functions[key]


def lengths_up_to(largest: int) -> tuple[int, ...]:
    """Powers of two below ``largest``, and ``largest``."""
    if largest < 1:
        raise ValueError(f"a batch needs at least 1 example, not {largest}")
    return (*(2**n for n in range((largest - 1).bit_length())), largest)


def make_predict(
    network: tf.keras.Model,
    mirror: tuple[int, ...],
    options: InferenceOptions,
    *,
    batch_size: int = 32,
    heatmaps: bool = False,
) -> Compiled:
    """Joints of stored crops: warp, network and decoder in one call.

    Args:
      network: its weights are frozen when a length is compiled.
      mirror: [J] permutation, ``Skeleton.mirror``.
      options: see there.
      batch_size: largest batch of the network.
      heatmaps: return them too.

    Returns:
      function(image [B, n, n, 3] uint8, center [B, 2] float32 crop px, side [B] float32 crop px)
      -> joints [B, J, 2] float32 crop px, confidence [B, J] float32 and, with ``heatmaps``, those
      [B, h, w, J] float32.

    Raises:
      ValueError: ``batch_size`` below 1, or a mirror permutation of another number of joints.
    """
    joints = network.outputs[-1].shape[-1]
    if options.flip and len(mirror) != joints:
        raise ValueError(
            f"the mirrored prediction of {joints} joints needs {joints} indices in mirror, not "
            f"{len(mirror)}: pass Skeleton.mirror of the network's joints"
        )

    def step(image: tf.Tensor, center: tf.Tensor, side: tf.Tensor):
        batch = {"image": image, "center": center, "side": side}
        return forward.predict_joints(network, batch, mirror, options, heatmaps=heatmaps)

    return Compiled(step, lengths_up_to(batch_size))
