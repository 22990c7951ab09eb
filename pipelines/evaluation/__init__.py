"""Predictions, ground truth, scores and reports."""
