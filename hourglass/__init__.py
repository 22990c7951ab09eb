"""What the method is: pure functions of tensors and the Keras graph. No files, flags, data sets."""

from hourglass import keras_version, quiet

keras_version.choose()
quiet.start()
