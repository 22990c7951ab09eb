"""RMSprop with torch's formula, AdamW, learning rate schedules and weight averaging.

The optimizers are Keras' "legacy" ones: the newer RMSprop of TensorFlow 2.15 adds epsilon inside
the square root, which makes learning from the tiny gradients of heatmap losses 28 times slower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from hourglass import addons

OPTIMIZERS = ("rmsprop", "adamw")
SCHEDULES = ("step", "cosine")


def learning_rate(
    step: tf.Tensor,
    *,
    base: float,
    schedule: str,
    steps: int,
    warmup: int = 0,
    milestones: Sequence[int] = (),
    drop_factor: float = 0.1,
) -> tf.Tensor:
    """Learning rate of a step.

    "step" multiplies ``base`` by ``drop_factor`` at each step of ``milestones``; "cosine" falls
    along half a cosine from ``base`` to 0 at ``steps`` (Loshchilov and Hutter 2017). Both rise
    linearly from ``base / warmup`` over the first ``warmup`` steps.

    Args:
      step: [] integer, 0 for the first step.
      base: the highest rate.
      schedule: one of ``SCHEDULES``.
      steps: length of the training.
      warmup: steps of linear rise.
      milestones: steps at which "step" falls.
      drop_factor: the factor that it falls by.

    Returns:
      [] float32.

    Raises:
      ValueError: unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule {schedule!r} is not one of {SCHEDULES}")
    now = tf.cast(step, tf.float32)
    rise = tf.minimum(1.0, (now + 1.0) / max(warmup, 1))
    if schedule == "cosine":
        done = tf.clip_by_value((now - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        return base * rise * 0.5 * (1.0 + tf.cos(math.pi * done))
    passed = [tf.cast(now >= milestone, tf.float32) for milestone in milestones]
    return base * rise * drop_factor ** tf.add_n(passed or [tf.constant(0.0)])


class RMSprop(tf.keras.optimizers.legacy.RMSprop):
    """torch's formula, or that of TensorFlow 2.15's Keras, as one operation per variable.

    Keras needs ten; with some 400 variables they cost more than a small network's convolutions.
    Nesterov's Adam with beta_1 0 and no bias correction is RMSprop, and has a fused kernel. The
    kernel that is called RMSprop adds epsilon inside the square root.

    Attributes:
      epsilon_inside: add epsilon inside the square root, as TensorFlow 2.15's Keras does.
    """

    epsilon_inside = False

    def _create_slots(self, var_list):
        super()._create_slots(var_list)
        for variable in var_list:
            self.add_slot(variable, "momentum")  # required by the kernel, which does not read it

    def _resource_apply_dense(self, grad, var, apply_state=None):
        settings = apply_state[(var.device, var.dtype.base_dtype)]
        zero = tf.zeros([], var.dtype.base_dtype)
        momentum, rms = (self.get_slot(var, name).handle for name in ("momentum", "rms"))
        if self.epsilon_inside:
            return tf.raw_ops.ResourceApplyRMSProp(
                var=var.handle,
                ms=rms,
                mom=momentum,
                lr=settings["lr_t"],
                rho=settings["rho"],
                momentum=zero,
                epsilon=self.epsilon,
                grad=grad,
            )
        return tf.raw_ops.ResourceApplyAdam(
            var=var.handle,
            m=momentum,
            v=rms,
            beta1_power=zero,
            beta2_power=zero,
            lr=settings["lr_t"],
            beta1=zero,
            beta2=settings["rho"],
            epsilon=self.epsilon,
            grad=grad,
            use_nesterov=True,
        )


def build(
    name: str,
    rate,
    weight_decay: float = 0.0,
    *,
    rho: float = 0.99,
    epsilon: float = 1e-8,
    epsilon_inside: bool = False,
) -> tf.keras.optimizers.Optimizer:
    """Optimizer that evaluates its learning rate at every step.

    "rmsprop" is torch's: rho 0.99, epsilon 1e-8 outside the square root. "adamw" is Adam (0.9,
    0.999, epsilon 1e-8 added to the root of the uncorrected second moment) with weights decayed by
    ``rate * weight_decay`` (Loshchilov and Hutter 2019).

    Args:
      name: one of ``OPTIMIZERS``.
      rate: function without arguments -> [] float32.
      weight_decay: AdamW only.
      rho: RMSprop only: share of the mean square that a step keeps.
      epsilon: RMSprop only.
      epsilon_inside: RMSprop only: add epsilon inside the square root.

    Raises:
      ValueError: unknown name, or weight decay with RMSprop.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer {name!r} is not one of {OPTIMIZERS}")
    if name == "adamw":
        return addons.adamw(
            weight_decay=lambda: rate() * weight_decay,
            learning_rate=rate,
            epsilon=1e-8,
        )
    if weight_decay:
        raise ValueError(f"weight_decay {weight_decay} needs optimizer adamw; rmsprop has none")
    built = RMSprop(learning_rate=rate, rho=rho, epsilon=epsilon)
    built.epsilon_inside = epsilon_inside
    return built


def decayed(variables: Sequence[tf.Variable]) -> list[tf.Variable]:
    """Variables that weight decay applies to: kernels, not biases or normalisation.

    For ``decay_var_list`` of AdamW. Under MirroredStrategy these are every replica's copies: the
    optimizer compares them with what it updates, which is a copy, never the mirrored variable.
    """
    kernels = [variable for variable in variables if len(variable.shape) > 1]
    return [copy for kernel in kernels for copy in getattr(kernel, "values", (kernel,))]


def create_slots(
    optimizer: tf.keras.optimizers.Optimizer, variables: Sequence[tf.Variable]
) -> None:
    """Create the optimizer's state now, so that a checkpoint can be restored into all of it."""
    optimizer._create_all_weights(variables)


def average_decay(decay: float, step: tf.Tensor) -> tf.Tensor:
    """Decay of the exponential average at a step: min(decay, (1 + step) / (10 + step)).

    The ramp lets the average forget the random initial weights (TensorFlow's
    ``ExponentialMovingAverage``).
    """
    now = tf.cast(step, tf.float32)
    return tf.minimum(decay, (1.0 + now) / (10.0 + now))


def update_average(
    averages: Sequence[tf.Variable], variables: Sequence[tf.Variable], decay: tf.Tensor
) -> None:
    """Move each average towards its variable: average += (1 - decay) * (variable - average).

    Under MirroredStrategy each replica's copy is moved by itself, which traces in half the time;
    statistics, which differ between replicas, have the mean of their averages as their average.
    """
    rate = 1.0 - decay
    for pair in zip(averages, variables):
        for average, variable in zip(*(getattr(v, "values", (v,)) for v in pair)):
            with tf.device(average.device):
                change = rate * (variable.value() - average.value())
                average.assign_add(change, read_value=False)


def clip(gradients: Sequence[tf.Tensor], limit: float | None) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Gradients scaled so that their global norm is at most ``limit``, and the norm before it."""
    norm = tf.linalg.global_norm(gradients)
    if not limit:
        return list(gradients), norm
    return tf.clip_by_global_norm(gradients, limit, use_norm=norm)[0], norm


class LossScale(tf.Module):
    """The factor that keeps float16's small gradients from vanishing, and its rule.

    Keras' rule (``tf.keras.mixed_precision.LossScaleOptimizer``; Micikevicius et al. 2018, section
    3.2): a gradient that is not finite halves the factor, down to 1, and its step is skipped;
    ``patience`` finite ones in a row double it.

    Attributes:
      scale: [] float32, multiply the loss by it and divide the gradient.
      skipped: [] int64, steps skipped so far.
    """

    def __init__(self, start: float = 2.0**15, patience: int = 2000):
        """Start at ``start``; under the strategy's scope, so that all replicas share it."""
        super().__init__()
        kind = {"trainable": False, "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
        self.scale = tf.Variable(start, dtype=tf.float32, **kind)
        self.finite = tf.Variable(0, dtype=tf.int64, **kind)
        self.skipped = tf.Variable(0, dtype=tf.int64, **kind)
        self._patience = patience

    def guard(self, norm: tf.Tensor, update) -> tf.Tensor:
        """Call ``update`` if the gradient is finite, and adjust the scale.

        Args:
          norm: [] float32 of the gradient, the same on all replicas.
          update: function without arguments.

        Returns:
          [] float32: ``norm``, but 0 for a skipped step, unless the scale is at its minimum of 1.
        """
        at_minimum = self.scale.read_value() <= 1.0
        finite = tf.math.is_finite(norm)

        def apply_step() -> None:
            update()
            full = self.finite.read_value() + 1 >= self._patience
            doubled = tf.minimum(2.0 * self.scale.read_value(), 2.0**127)
            self.scale.assign(tf.where(full, doubled, self.scale.read_value()))
            self.finite.assign(tf.where(full, tf.constant(0, tf.int64), self.finite + 1))

        def skip_step() -> None:
            self.scale.assign(tf.maximum(0.5 * self.scale.read_value(), 1.0))
            self.finite.assign(tf.constant(0, tf.int64))
            self.skipped.assign_add(1)

        tf.cond(finite, apply_step, skip_step)
        return tf.where(finite | at_minimum, norm, 0.0)
