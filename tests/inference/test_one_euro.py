import math

import numpy as np
import pytest

from pipelines.inference.one_euro import OneEuro


def filtered(points, rate=30.0, side=1.0, **options):
    euro = OneEuro(rate, **options)
    return np.stack([euro(frame, side) for frame in points])


def test_by_hand():
    """Casiez et al. 2012, algorithm 1: one point, two frames at 1 Hz, cutoffs of 1 / (2 pi) Hz."""
    low = 1 / (2 * math.pi)
    # Both filters' weight is then 1 / (1 + 1) = 1/2; the speed is 0.5 * 4 = 2 px per s.
    outputs = filtered([[[0, 0]], [[4, 0]]], rate=1.0, cutoff=low, gain=0.0, speed=low)
    np.testing.assert_allclose(outputs[:, 0], [[0, 0], [2, 0]])
    # With gain 1/(2 pi), cutoff (1 + 2) / (2 pi): the weight is 1 / (1 + 1/3) = 3/4.
    outputs = filtered([[[0, 0]], [[4, 0]]], rate=1.0, cutoff=low, gain=low, speed=low)
    np.testing.assert_allclose(outputs[:, 0], [[0, 0], [3, 0]])


def test_resting_joints_tremble_less_and_fast_ones_are_not_late():
    random, rate, side = np.random.default_rng(0), 30.0, 200.0
    rest = 100 + random.normal(0, 2.0, [300, 14, 2])
    calm = filtered(rest, rate, side)
    assert calm[60:].std(0).mean() < 0.5 * rest[60:].std(0).mean()
    walk = np.zeros([90, 14, 2])
    walk[:, :, 0] = np.arange(90)[:, None] * side / rate  # one crop side per second
    late = walk[30:, 0, 0] - filtered(walk, rate, side)[30:, 0, 0]
    assert 0 < late.max() < 0.04 * side
    assert (walk - filtered(walk, rate, side, gain=0.0))[30:, 0, 0].max() > 0.1 * side


def test_direction_and_size_of_the_person_do_not_matter():
    random = np.random.default_rng(1)
    points = random.normal(0, 5.0, [20, 3, 2]).cumsum(0)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    np.testing.assert_allclose(filtered(points @ turn, side=9), filtered(points, side=9) @ turn)
    np.testing.assert_allclose(filtered(7 * points, side=63), 7 * filtered(points, side=9))


def test_another_number_of_joints_starts_anew():
    euro = OneEuro(30.0)
    euro(np.zeros([3, 2]))
    np.testing.assert_array_equal(euro(np.ones([4, 2])), np.ones([4, 2]))


def test_rates_that_are_none():
    for wrong in (dict(rate=0.0), dict(rate=30.0, cutoff=-1.0), dict(rate=math.nan)):
        with pytest.raises(ValueError, match="positive Hz"):
            OneEuro(**wrong)
