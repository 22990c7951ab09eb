"""What the method is: pure functions of tensors and the Keras graph. No files, flags, data sets."""

import warnings

from hourglass import keras_version

# The add-ons announce the end of their development on every import; BUILD_NOTES.md says what we do
# about it, and a user of this project cannot do anything.
warnings.filterwarnings("ignore", message=r"\s*TensorFlow Addons", category=UserWarning)
keras_version.choose()
