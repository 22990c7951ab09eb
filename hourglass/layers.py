"""Layers that Keras lacks or computes slowly, with custom gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

layers = tf.keras.layers


@tf.custom_gradient
def _double(x: tf.Tensor):
    """[B, H, W, C] -> [B, 2H, 2W, C], each pixel four times; the gradient sums the four."""
    # XLA has no gradient of TensorFlow's own nearest resize, and autodiff's sum over the two inner
    # axes of the broadcast is several times slower on a CPU than this pooling.
    height, width, channels = x.shape[1:]
    shape = [tf.shape(x)[0], height, 2, width, 2, channels]
    wide = tf.broadcast_to(x[:, :, None, :, None, :], shape)
    wide = tf.reshape(wide, [-1, 2 * height, 2 * width, channels])
    return wide, lambda slope: 4 * tf.nn.avg_pool2d(slope, 2, 2, "VALID")


@tf.custom_gradient
def _pointwise(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor):
    """1x1 convolution [B, H, W, C] -> [B, H, W, D] with kernel [1, 1, C, D] and bias [D]."""

    # On a CPU TensorFlow's gradient of the kernel takes over twice as long as a matrix product.
    def backward(slope):
        pixels, slopes = (tf.reshape(t, [-1, t.shape[-1]]) for t in (x, slope))
        of_x = tf.matmul(slopes, tf.reshape(kernel, kernel.shape[2:]), transpose_b=True)
        of_kernel = tf.matmul(pixels, slopes, transpose_a=True)
        of_bias = tf.matmul(tf.ones([1, tf.shape(slopes)[0]], slopes.dtype), slopes)
        return (
            tf.reshape(of_x, tf.shape(x)),
            tf.reshape(of_kernel, kernel.shape),
            tf.reshape(of_bias, bias.shape),
        )

    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias), backward


class Pointwise(layers.Conv2D):
    """1x1 convolution with a faster gradient; outside training it is Keras' own."""

    def call(self, x, training=None):
        """[B, H, W, C] -> [B, H, W, D]."""
        if training:
            return _pointwise(x, *(tf.convert_to_tensor(v) for v in (self.kernel, self.bias)))
        return super().call(x)


class Upsample(layers.Layer):
    """Nearest-neighbour upsampling to twice the height and width; no weights.

    Outside training it is TensorFlow's own operation, which TFLite supports.
    """

    def call(self, x, training=None):
        """[B, H, W, C] -> [B, 2H, 2W, C]."""
        if training:
            return _double(x)
        return tf.keras.backend.resize_images(x, 2, 2, "channels_last")


class BatchNorm(layers.BatchNormalization):
    """Keras' batch norm with moving averages that can be frozen.

    Attributes:
      frozen: True while a recomputation is traced: its batch has updated the averages already.
    """

    frozen = False

    def add_update(self, updates):
        """Update the moving averages unless they are frozen."""
        if not self.frozen:
            super().add_update(updates)


@contextlib.contextmanager
def frozen(network: tf.Module) -> Iterator[None]:
    """While calls are traced here, no ``BatchNorm`` of ``network`` updates its moving averages."""
    norms = [layer for layer in network.submodules if isinstance(layer, BatchNorm)]
    for layer in norms:
        layer.frozen = True
    try:
        yield
    finally:
        for layer in norms:
            layer.frozen = False


class Recomputed(layers.Layer):
    """Layers of which training stores only the input; the backward pass recomputes them.

    The layers stay a Keras graph of their own with one input; variables keep their names.
    """

    def __init__(self, x, outputs, **options):
        """Wrap the part of a Keras graph from the input ``x`` to ``outputs``."""
        super().__init__(**options)
        self._part = tf.keras.Model(x, outputs)

    def call(self, x, training=None):
        """Outputs of the part."""
        return self._run(x) if training else self._part(x, training=False)

    def _run(self, x):
        @tf.custom_gradient
        def forward(x):
            return self._part(x, training=True), backward

        # Not tf.recompute_grad: it delays the recomputation by adding a zero that depends on the
        # gradient, which TensorFlow's graph optimizer removes, and then no memory is saved.
        def backward(*slopes, variables):
            with tf.control_dependencies(slopes):
                kept = tf.identity(x)
            with tf.GradientTape() as tape:
                tape.watch(kept)
                outputs = tf.nest.flatten(self._recompute(kept))
            gradients = tape.gradient(outputs, [kept, *variables], output_gradients=list(slopes))
            return gradients[0], gradients[1:]

        return forward(x)

    def _recompute(self, x):
        with frozen(self._part):
            return self._part(x, training=True)
