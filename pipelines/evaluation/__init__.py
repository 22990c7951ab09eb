"""Predictions, truth, scores and reports."""
