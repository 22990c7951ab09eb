"""Packages that only some commands need: those of `make export-tools`."""

from __future__ import annotations

import importlib
import warnings


def load(name: str):
    """The module of an optional package. Raises OSError, with the remedy, if it is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they use deprecated parts of NumPy and protobuf
            return importlib.import_module(name)
    except ImportError as error:
        raise OSError(
            f"{name} is not installed; `make export-tools` adds it to .venv, or: "
            "pip install --no-deps -r requirements-export.txt"
        ) from error
