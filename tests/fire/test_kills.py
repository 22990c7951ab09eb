"""A few kills of ``make fire``'s; see ``kills.py``."""

import pytest

from tests.fire import kills

pytestmark = pytest.mark.slow


def test_random_kills_are_survived(tmp_path):
    assert kills.run(3, 1, 10, ["training", "replacement"], tmp_path)
