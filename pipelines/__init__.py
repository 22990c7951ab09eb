"""How data and state move: annotations, records, tf.data, training, evaluation."""

import hourglass  # noqa: F401  (selects Keras 2 and quiets TensorFlow, whatever is imported first)
