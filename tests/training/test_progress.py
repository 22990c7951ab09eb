"""Training warns when the device waits for data, and names the remedy."""

import dataclasses
import pathlib

import numpy as np
import pytest

from pipelines.data import cropping, tfrecords
from pipelines.training import progress, train
from pipelines.training.progress import WARN_INCREASE, WARN_SHARE, WINDOW_SECONDS, DataWait
from tests.helpers.people import tiny

ALL = 1e6  # CPU seconds: more than any machine has


def warnings(calls, cached: bool = True) -> list[str]:
    """Warnings for calls of a whole window each: (share waited, CPU seconds)."""
    data_wait = DataWait(724, 12.3, cached)
    assert data_wait.add(WINDOW_SECONDS, WINDOW_SECONDS, ALL) == ""  # the first call traces
    return [data_wait.add(WINDOW_SECONDS, share * WINDOW_SECONDS, busy) for share, busy in calls]


def test_a_warning_is_repeated_only_when_the_wait_got_much_worse():
    shares = [
        WARN_SHARE - 0.01,
        WARN_SHARE + 0.02,
        0.25,
        WARN_SHARE + 0.03 + WARN_INCREASE,
        0.4,
        0.05,
        0.2,
    ]
    printed = warnings([(share, ALL) for share in shares])
    assert [bool(text) for text in printed] == [False, True, False, True, False, False, False]
    assert printed[1].startswith("the device waits for data 12% of the time; the ")


def test_short_calls_are_added_up():
    data_wait = DataWait(724, 12.3, True)
    texts = [data_wait.add(WINDOW_SECONDS / 4, WINDOW_SECONDS / 8, ALL) for _ in range(5)]
    assert [bool(text) for text in texts] == [False] * 4 + [True]


def test_without_a_clock_there_is_no_warning():
    assert warnings([(np.nan, ALL)] * 3) == [""] * 3


@pytest.mark.parametrize(
    ("busy", "cached", "remedy"),
    [
        (ALL, True, "crops of up to 724 px: write records with a smaller --context or --side"),
        (ALL, False, "or use more cores"),
        (0.0, False, "--cache_gb=12 or more"),
        (0.0, True, "check for other programs"),
    ],
)
def test_the_remedy_follows_from_the_cores_and_the_files(busy, cached, remedy):
    (warning,) = warnings([(0.5, busy)], cached)
    assert remedy in warning


@pytest.mark.slow
@pytest.mark.fire
@pytest.mark.parametrize("side, waits", [(64, False), (1000, True)])
def test_a_training_with_slow_input_prints_the_warning(
    tmp_path, own_records, capfd, monkeypatch, side, waits
):
    """Every crop is padded to a canvas of 2,000 px: 96 MB for a step of milliseconds."""
    monkeypatch.setattr(progress, "WINDOW_SECONDS", 0.3)
    wide = dataclasses.replace(own_records(), geometry=cropping.Geometry(2.0, side))
    pathlib.Path(wide.folder, tfrecords.INFO_FILE).write_text(wide.to_json())
    config = tiny(tmp_path / "run", wide, steps=30, evaluate_every=100, ema_decay=0.0)
    assert train.run(config) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if "waits for data" in line]
    assert bool(lines) == waits, lines
    assert all("cores" in line for line in lines)
