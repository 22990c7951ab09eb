"""How data and state move: annotations, records, tf.data, training, evaluation."""

import hourglass  # noqa: F401  (chooses Keras and quietens TensorFlow, whatever is imported first)
