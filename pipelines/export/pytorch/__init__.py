"""Import and export of PyTorch checkpoints of the published implementations."""
