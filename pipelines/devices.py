"""Which devices a run uses."""

from __future__ import annotations

import os

import tensorflow as tf


def make_strategy(kind: str, logical_devices: int = 0) -> tf.distribute.Strategy:
    """Strategy over this machine's devices.

    Args:
      kind: "one" device, all "mirrored", or "auto": mirrored where there are several of them.
      logical_devices: split the CPU into so many devices and use these; with "auto" only where
        there is no GPU. Each runs its operations on its own share of the cores: small networks
        train faster with one device per core.

    Raises:
      ValueError: logical devices asked of one device, or after TensorFlow has started.
    """
    if logical_devices and kind == "one":
        raise ValueError("--logical_devices needs --strategy=mirrored or auto, not one")
    gpus = tf.config.list_physical_devices("GPU")
    if logical_devices and (kind == "mirrored" or not gpus):
        return tf.distribute.MirroredStrategy(_split_cpu(logical_devices))
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if kind == "mirrored" or (kind == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")


def _split_cpu(count: int) -> list[str]:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or []) != count:
        try:
            parts = [tf.config.LogicalDeviceConfiguration()] * count
            tf.config.set_logical_device_configuration(cpu, parts)
            cores = max(1, (os.cpu_count() or 1) // count)
            tf.config.threading.set_intra_op_parallelism_threads(cores)
        except RuntimeError as error:
            raise ValueError(f"--logical_devices={count}: {error}; use a fresh process") from error
    return [f"/cpu:{i}" for i in range(count)]


def round_up(batch: int, strategy: tf.distribute.Strategy) -> int:
    """The smallest batch from ``batch`` up that all replicas share equally."""
    replicas = strategy.num_replicas_in_sync
    return -(-batch // replicas) * replicas
