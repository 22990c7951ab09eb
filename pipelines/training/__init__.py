"""The training loop, its state, its validation and its logs."""
