"""What the method is: pure functions of tensors and the Keras graph. No files, flags or data sets."""
