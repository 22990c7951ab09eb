"""PyTorch's checkpoints of the published implementations, in and out."""
