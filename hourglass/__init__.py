"""What the method is: pure functions of tensors and the Keras graph. No files, flags, data sets."""

from hourglass import keras_version, onednn, quiet

keras_version.choose()
onednn.enable()
quiet.start()
