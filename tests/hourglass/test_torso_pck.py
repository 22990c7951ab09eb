"""PCK@0.2 of LSP's published tables, by hand-computed numbers."""

import numpy as np
import pytest

from hourglass import metrics
from hourglass.skeleton import LSP, MPII, Skeleton

LEFT_SHOULDER, RIGHT_SHOULDER = LSP.index("left_shoulder"), LSP.index("right_shoulder")
RIGHT_HIP, LEFT_HIP = LSP.index("right_hip"), LSP.index("left_hip")


def people(count=2):
    """Torsos of 100 px: left shoulder to right hip is (60, 80); the other diagonal is 500 px."""
    truth = np.arange(count * 14 * 2, dtype=float).reshape(count, 14, 2) * 10
    truth[:, RIGHT_HIP], truth[:, LEFT_SHOULDER] = (400, 400), (460, 480)
    truth[:, RIGHT_SHOULDER], truth[:, LEFT_HIP] = (0, 0), (300, 400)
    return truth, np.ones((count, 14), bool)


def score(move, count=2, scored=None):
    truth, everywhere = people(count)
    scored = everywhere if scored is None else scored
    return metrics.torso_pck(truth + move, truth, scored, LSP)


@pytest.mark.parametrize(("away", "percent"), [(0, 100), (19.9, 100), (20, 100), (20.1, 0)])
def test_a_fifth_of_the_torso_is_the_limit_and_belongs_to_the_hits(away, percent):
    row = score(np.array([away, 0.0]))
    assert set(row.values()) == {percent}


def test_columns():
    """Of two people one wrist, both ankles of the first, and one head top are 21 px away."""
    move = np.zeros((2, 14, 2))
    for joint in ("left_wrist", "left_ankle", "right_ankle"):
        move[0, LSP.index(joint)] = (0, 21)
    move[1, LSP.index("head_top")] = (0, 21)
    row = score(move)
    # Head: neck 100, head top 50. Wrist: left 50, right 100. Ankle: 50 each. 24 of 28 in all.
    assert (row["head"], row["wrist"], row["ankle"], row["knee"]) == (75, 75, 50, 100)
    assert row["pooled16"] == row["mean14"] == pytest.approx(100 * 24 / 28)


def test_left_and_right_are_the_persons_own():
    truth, scored = people()
    swapped = truth[:, list(LSP.mirror)]
    row = metrics.torso_pck(swapped, truth, scored, LSP)
    assert row["head"] == 100 and row["shoulder"] == row["hip"] == row["knee"] == 0
    assert row["pooled16"] == pytest.approx(100 * 2 / 14)


def test_who_is_scored():
    """NaN without a torso; unlabelled joints do not count, and a NaN prediction is a miss."""
    scored = np.ones((3, 14), bool)
    scored[0, RIGHT_HIP] = False
    scored[1, LSP.index("left_knee")] = False
    move = np.zeros((3, 14, 2))
    move[0] = 1000
    move[1, LSP.index("left_knee")] = 1000
    move[2, LSP.index("right_knee")] = np.nan
    row = score(move, 3, scored)
    # Knees of people 1 and 2: right 1 of 2, left 1 of 1; all joints: 13 + 14, one of them missed.
    assert row["knee"] == 75
    assert row["pooled16"] == pytest.approx(100 * 26 / 27)


def test_mpii_keeps_its_head_top():
    truth = np.random.default_rng(0).uniform(0, 500, (4, 16, 2))
    predicted = truth.copy()
    predicted[:, MPII.index("upper_neck")] += 1e4
    row = metrics.torso_pck(predicted, truth, np.ones((4, 16), bool), MPII)
    assert row["head"] == 100 and row["pooled16"] == pytest.approx(100 * 15 / 16)


def test_a_neck_without_a_head_top_has_no_head_column():
    """As in AP-10K's animals."""
    names = ("neck", "nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip")
    truth = np.arange(12.0).reshape(1, 6, 2) ** 2
    row = metrics.torso_pck(truth, truth, np.ones((1, 6), bool), Skeleton(names))
    columns = ["neck", "nose", "shoulder", "hip", "mean14", "weighted14", "pooled16"]
    assert list(row) == columns and set(row.values()) == {100}
