"""The state of training: everything a checkpoint holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from hourglass import model, optimizer
from pipelines import checkpoints


@dataclasses.dataclass(frozen=True, eq=False)
class TrainState:
    """Variables under one strategy.

    Attributes:
      strategy: the one under which all were created.
      step: [] int64, steps taken.
      network: the one that is trained.
      averaged: exponential moving average of its weights; None without one.
      optimizer: from ``hourglass.optimizer.build``, with its slots.
      loss_scale: for float16; None for other types.
      learning_rate: function() -> [] float32, at ``step``.
    """

    strategy: tf.distribute.Strategy
    step: tf.Variable
    network: tf.keras.Model
    averaged: tf.keras.Model | None
    optimizer: tf.keras.optimizers.Optimizer
    loss_scale: optimizer.LossScale | None
    learning_rate: Callable[[], tf.Tensor]

    def checkpoint(self) -> tf.train.Checkpoint:
        """The whole state as one checkpoint."""
        checkpoint = checkpoints.state(self.step, self.network, self.averaged, self.optimizer)
        if self.loss_scale is not None:
            checkpoint.loss_scale = self.loss_scale
        return checkpoint

    def start_average(self) -> None:
        """Start the average at the network's current weights."""
        if self.averaged is not None:
            for average, variable in zip(self.averaged.variables, self.network.variables):
                average.assign(variable)


def create_train_state(
    strategy: tf.distribute.Strategy,
    build: dict,
    rate: Callable[[tf.Tensor], tf.Tensor],
    *,
    optimizer_name: str = "rmsprop",
    weight_decay: float = 0.0,
    averaged: bool = True,
    rmsprop: dict | None = None,
) -> TrainState:
    """Fresh variables.

    Args:
      strategy: to create them under.
      build: arguments of ``hourglass.model.build``.
      rate: function from the step [] int64 to the learning rate [] float32.
      optimizer_name: one of ``hourglass.optimizer.OPTIMIZERS``.
      weight_decay: AdamW's.
      averaged: keep an average of the weights.
      rmsprop: arguments of ``hourglass.optimizer.build`` that only RMSprop has; None for torch's.

    Raises:
      ValueError: an invalid argument.
    """
    with strategy.scope():
        step = tf.Variable(
            0, False, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        # Built alike: the average is matched to the weights by the order of their layers.
        network = model.build(**build)
        average = model.build(**build) if averaged else None
        float16 = build.get("precision") == "mixed_float16"
        loss_scale = optimizer.LossScale() if float16 else None

        def learning_rate() -> tf.Tensor:
            return rate(step)

        opt = optimizer.build(optimizer_name, learning_rate, weight_decay, **(rmsprop or {}))
        optimizer.create_slots(opt, network.trainable_variables)
    return TrainState(strategy, step, network, average, opt, loss_scale, learning_rate)
