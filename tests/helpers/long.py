"""Tests that take too long for ``make test``."""

import os

import pytest

only_in_fire = pytest.mark.skipif("HOURGLASS_FIRE" not in os.environ, reason="make fire runs it")
