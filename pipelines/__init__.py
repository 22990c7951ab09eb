"""How data and state move: annotations, records, tf.data, training, evaluation."""

import hourglass  # noqa: F401  (which has TensorFlow start quietly, whatever is imported first)
