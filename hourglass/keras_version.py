"""Keras 2, whatever TensorFlow brings: the networks, optimizers and checkpoints are made with it.

TensorFlow 2.15, for Python 3.9 to 3.11, has no other. Later ones take it from the package tf_keras,
if TF_USE_LEGACY_KERAS is 1 when Keras is first used, and Keras 3 otherwise.
"""

import os
import sys

NAME = "TF_USE_LEGACY_KERAS"


def choose() -> None:
    """Have TensorFlow take Keras 2.

    Raises ImportError where the user's environment or program has chosen Keras 3.
    """
    if sys.version_info < (3, 12):
        return
    value = os.environ.setdefault(NAME, "1")
    if value not in ("1", "true", "True"):
        raise ImportError(f"{NAME}={value} asks for Keras 3, but this needs Keras 2; unset {NAME}")
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow and hasattr(tensorflow, "keras") and _is_keras_3(tensorflow.keras):
        raise ImportError(
            "TensorFlow uses Keras 3 in this program already, but hourglass needs Keras 2; import "
            f"hourglass first, or set {NAME}=1 before the program starts"
        )


def _is_keras_3(keras) -> bool:
    return keras.Model.__module__.startswith("keras.")
