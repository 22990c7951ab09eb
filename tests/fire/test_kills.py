"""A few of the random kills of ``make fire``, without the trainings, which take longest."""

import pytest

from tests.fire import kills

pytestmark = pytest.mark.slow


def test_random_kills_are_survived(tmp_path, capsys):
    assert kills.run(3, 1, 10, ["synthetic", "replacement"], tmp_path)
    assert "kills survived: " in capsys.readouterr().out
