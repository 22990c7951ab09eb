"""A few of the random kills of ``make fire``, without the trainings, which take longest."""

import pathlib
import tempfile

import pytest

from tests.fire import kills

pytestmark = pytest.mark.slow


@pytest.mark.fire
def test_random_kills_are_survived(capsys):
    # Not in tmp_path, which is too long for the sockets of a conversion's workers.
    with tempfile.TemporaryDirectory() as folder:
        assert kills.run(3, 1, 10, ["synthetic", "replacement"], pathlib.Path(folder))
    assert "kills survived: " in capsys.readouterr().out
