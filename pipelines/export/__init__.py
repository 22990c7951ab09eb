"""Trained networks in formats of other programs."""
