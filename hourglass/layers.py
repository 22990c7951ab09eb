"""Layers that Keras lacks or computes slowly, and the gradients that make the difference."""

from __future__ import annotations

import tensorflow as tf

layers = tf.keras.layers


@tf.custom_gradient
def _double(x: tf.Tensor):
    """[B, H, W, C] -> [B, 2H, 2W, C], each pixel four times; the gradient adds the four."""
    # XLA has no gradient of TensorFlow's own nearest resize. Left to autodiff, the broadcast's sum
    # over two inner axes is several times slower on a CPU than this pooling.
    height, width, channels = x.shape[1:]
    shape = [tf.shape(x)[0], height, 2, width, 2, channels]
    wide = tf.broadcast_to(x[:, :, None, :, None, :], shape)
    wide = tf.reshape(wide, [-1, 2 * height, 2 * width, channels])
    return wide, lambda slope: 4 * tf.nn.avg_pool2d(slope, 2, 2, "VALID")


@tf.custom_gradient
def _pointwise(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor):
    """1x1 convolution [B, H, W, C] -> [B, H, W, D] with kernel [1, 1, C, D] and bias [D]."""

    # On a CPU TensorFlow's own gradient by the kernel takes more than twice as long as a product.
    def backward(slope):
        pixels, slopes = (tf.reshape(t, [-1, t.shape[-1]]) for t in (x, slope))
        down = tf.matmul(slopes, tf.reshape(kernel, kernel.shape[2:]), transpose_b=True)
        by_kernel = tf.matmul(pixels, slopes, transpose_a=True)
        by_bias = tf.matmul(tf.ones([1, tf.shape(slopes)[0]], slopes.dtype), slopes)
        shaped = (down, tf.shape(x)), (by_kernel, kernel.shape), (by_bias, bias.shape)
        return tuple(tf.reshape(*one) for one in shaped)

    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias), backward


class Pointwise(layers.Conv2D):
    """1x1 convolution with a faster gradient; outside training it is Keras' own."""

    def call(self, x, training=None):
        """[B, H, W, C] -> [B, H, W, D]."""
        if training:
            return _pointwise(x, *(tf.convert_to_tensor(v) for v in (self.kernel, self.bias)))
        return super().call(x)


class Upsample(layers.Layer):
    """Twice the height and width by nearest neighbour; no weights.

    Outside training by TensorFlow's own operation, which TFLite knows.
    """

    def call(self, x, training=None):
        """[B, H, W, C] -> [B, 2H, 2W, C]."""
        if training:
            return _double(x)
        return tf.keras.backend.resize_images(x, 2, 2, "channels_last")


class BatchNorm(layers.BatchNormalization):
    """Keras' batch norm, with moving averages that can be told to rest.

    Attributes:
      rests: True while a recomputation is traced, whose batch has moved the averages already.
    """

    rests = False

    def add_update(self, updates):
        """Move the averages, unless they rest."""
        if not self.rests:
            super().add_update(updates)


class Recomputed(layers.Layer):
    """Layers of which training keeps the input only; the backward pass computes them again.

    The layers stay a Keras graph of their own, with one input, whose variables keep their names.
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

        # Not tf.recompute_grad: what is to hold its second run back until the gradient arrives adds
        # zero, which TensorFlow's graph optimizer takes away, and then nothing is saved.
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
        norms = [layer for layer in self._part.submodules if isinstance(layer, BatchNorm)]
        for layer in norms:
            layer.rests = True
        try:
            return self._part(x, training=True)
        finally:
            for layer in norms:
                layer.rests = False
