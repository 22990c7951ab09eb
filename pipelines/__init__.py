"""How data and state move: annotations, records, tf.data, training, evaluation."""

import os

from hourglass import keras_version

# TensorFlow's start-up notices say nothing that a user could act on; 0 shows them all.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras_version.choose()
