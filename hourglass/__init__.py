"""What the method is: pure functions of tensors and the Keras graph. No files, flags, data sets."""

from hourglass import quiet

quiet.start()
