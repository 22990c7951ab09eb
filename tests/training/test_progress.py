"""Whether training says that the device waits for data, and what then helps."""

import dataclasses
import pathlib

import numpy as np
import pytest

from pipelines.data import cropping, tfrecords
from pipelines.training import progress, train
from pipelines.training.progress import STRETCH, WAITING, WORSE, Waiting
from tests.helpers.people import tiny

ALL = 1e6  # processor seconds: more than any machine has


def said(calls, cached: bool = True) -> list[str]:
    """Sentences for calls of a whole stretch each: (share waited, processor seconds)."""
    waiting = Waiting(724, 12.3, cached)
    assert waiting.add(STRETCH, STRETCH, ALL) == ""  # the first call traces
    return [waiting.add(STRETCH, share * STRETCH, busy) for share, busy in calls]


def test_said_once_and_again_only_when_it_got_much_worse():
    shares = [WAITING - 0.01, WAITING + 0.02, 0.25, WAITING + 0.03 + WORSE, 0.4, 0.05, 0.2]
    sentences = said([(share, ALL) for share in shares])
    assert [bool(text) for text in sentences] == [False, True, False, True, False, False, False]
    assert sentences[1].startswith("the device waits for data 12% of the time; the ")


def test_short_calls_are_put_together():
    waiting = Waiting(724, 12.3, True)
    texts = [waiting.add(STRETCH / 4, STRETCH / 8, ALL) for _ in range(5)]
    assert [bool(text) for text in texts] == [False] * 4 + [True]


def test_without_a_clock_nothing_is_said():
    assert said([(np.nan, ALL)] * 3) == [""] * 3


@pytest.mark.parametrize(
    ("busy", "cached", "remedy"),
    [
        (ALL, True, "crops of up to 724 px: write records with a smaller --context or --side"),
        (ALL, False, "or use more cores"),
        (0.0, False, "--cache_gb=12 or more"),
        (0.0, True, "look for other programs"),
    ],
)
def test_the_remedy_follows_from_the_cores_and_the_files(busy, cached, remedy):
    (sentence,) = said([(0.5, busy)], cached)
    assert remedy in sentence


@pytest.mark.slow
@pytest.mark.parametrize("side, waits", [(64, False), (1000, True)])
def test_a_training_whose_input_is_slow_says_so(
    tmp_path, own_records, capfd, monkeypatch, side, waits
):
    """Every crop is padded to a canvas of 2,000 px: 96 MB for a step of milliseconds."""
    monkeypatch.setattr(progress, "STRETCH", 0.3)
    wide = dataclasses.replace(own_records(), geometry=cropping.Geometry(2.0, side))
    pathlib.Path(wide.folder, tfrecords.INFO_FILE).write_text(wide.to_json())
    config = tiny(tmp_path / "run", wide, steps=30, evaluate_every=100, ema_decay=0.0)
    assert train.run(config) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if "waits for data" in line]
    assert bool(lines) == waits, lines
    assert all("cores" in line for line in lines)
