"""AdamW and DARK's blur: from tensorflow-addons if installed, else the same formulas here.

tensorflow-addons 0.23 belongs to TensorFlow 2.15 and has no packages for Linux on aarch64.
The two AdamWs can read each other's checkpoints: their variables have the same names.
"""

from __future__ import annotations

import importlib.util

import tensorflow as tf

PRESENT = importlib.util.find_spec("tensorflow_addons") is not None
if PRESENT:
    import tensorflow_addons as tfa


def adamw(weight_decay, **settings) -> tf.keras.optimizers.legacy.Adam:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    ``apply_gradients`` takes ``decay_var_list``, the variables that decay; without it all do.

    Args:
      weight_decay: function without arguments -> [] float32, what a step takes off a weight of 1.
      **settings: of Keras' Adam.
    """
    return (tfa.optimizers.AdamW if PRESENT else AdamW)(weight_decay=weight_decay, **settings)


def blur(maps: tf.Tensor, size: int, sigma: float) -> tf.Tensor:
    """Gaussian blur, with zeros beyond the border.

    Args:
      maps: [B, H, W, C] float32.
      size: the Gaussian's width and height in px, odd.
      sigma: its standard deviation, px.

    Returns:
      [B, H, W, C] float32.
    """
    if PRESENT:
        return tfa.image.gaussian_filter2d(maps, size, sigma, padding="CONSTANT")
    return gaussian_filter(maps, size, sigma)


class AdamW(tf.keras.optimizers.legacy.Adam):
    """tensorflow-addons' AdamW for dense gradients: decays a weight, then takes Adam's step."""

    def __init__(self, weight_decay, name="AdamW", **settings):
        """Arguments as in ``adamw``."""
        super().__init__(name=name, **settings)
        self._set_hyper("weight_decay", weight_decay)
        self._decayed = None

    def apply_gradients(self, grads_and_vars, name=None, decay_var_list=None, **options):
        """As Keras', with ``decay_var_list``: the variables that decay, None or [] for all."""
        self._decayed = {variable.ref() for variable in decay_var_list or ()}
        return super().apply_gradients(grads_and_vars, name=name, **options)

    def _prepare_local(self, var_device, var_dtype, apply_state):
        super()._prepare_local(var_device, var_dtype, apply_state)
        decay = tf.identity(self._get_hyper("weight_decay", var_dtype))
        apply_state[(var_device, var_dtype)]["wd_t"] = decay

    def _resource_apply_dense(self, grad, var, apply_state=None):
        decays = []
        if not self._decayed or var.ref() in self._decayed:
            decay = apply_state[(var.device, var.dtype.base_dtype)]["wd_t"]
            decays = [var.assign_sub(decay * var, self._use_locking)]
        with tf.control_dependencies(decays):
            return super()._resource_apply_dense(grad, var, apply_state=apply_state)


def gaussian_filter(maps: tf.Tensor, size: int, sigma: float) -> tf.Tensor:
    """tensorflow-addons' ``gaussian_filter2d`` with zeros beyond the border; see ``blur``."""
    offsets = tf.cast(tf.range(-(size // 2), size // 2 + 1) ** 2, maps.dtype)
    line = tf.nn.softmax(-offsets / tf.constant(2.0 * sigma**2, maps.dtype))
    kernel = tf.tile((line[:, None] * line)[:, :, None, None], [1, 1, tf.shape(maps)[3], 1])
    return tf.nn.depthwise_conv2d(
        tf.pad(maps, [[0, 0], [size // 2] * 2, [size // 2] * 2, [0, 0]]),
        kernel,
        strides=(1, 1, 1, 1),
        padding="VALID",
    )
