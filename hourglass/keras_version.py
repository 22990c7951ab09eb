"""Keras 2 with any TensorFlow: the networks, optimizers and checkpoints depend on it.

TensorFlow 2.15, for Python 3.9 to 3.11, has only Keras 2. Later versions use Keras 2 from the
package tf_keras if TF_USE_LEGACY_KERAS is 1 when Keras is first used, otherwise Keras 3.
"""

import os
import sys

NAME = "TF_USE_LEGACY_KERAS"


def choose() -> None:
    """Make TensorFlow use Keras 2.

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
