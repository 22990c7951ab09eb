"""The network in pretrained/, which predicts where no other is named."""

import csv
import pathlib

import numpy as np
import pytest

from pipelines.inference.predictor import Predictor
from tests.helpers.processes import ROOT

# COCO's labels of the man in docs/street.jpg, image px. His arms are crossed: they are not found.
BODY = {
    **{"right_ankle": (356, 361), "right_knee": (340, 302), "right_hip": (313, 248)},
    **{"left_ankle": (378, 354), "left_knee": (358, 299), "left_hip": (334, 244)},
    **{"right_shoulder": (290, 177), "left_shoulder": (320, 171)},
}


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load()


def farthest(predictor, pose) -> float:
    found = dict(zip(predictor.skeleton.joints, pose.joints))
    return max(np.linalg.norm(found[name] - place) for name, place in BODY.items())


def test_a_photograph_with_and_without_a_box(predictor):
    """254 px high in 425, beside the middle; the whole picture's heatmap px is 13 px wide."""
    with open(f"{ROOT}/docs/street.csv", newline="") as file:
        box = tuple(float(value) for value in next(csv.reader(file))[1:])
    image = f"{ROOT}/docs/street.jpg"
    ((given,),), ((found,),) = predictor([image], [[box]]), predictor([image])
    assert farthest(predictor, given) < 25 and farthest(predictor, found) < 25
    assert found.box is None and 250 < found.side < 400
    np.testing.assert_allclose(found.center, given.center, atol=30)


def test_it_is_small_and_says_what_it_is(capfd):
    sizes = [path.stat().st_size for path in pathlib.Path(ROOT, "pretrained").rglob("*.*")]
    assert 1e6 < sum(sizes) < 6e6
    Predictor.load()
    assert "network: pretrained/people, which comes with the project" in capfd.readouterr().err
