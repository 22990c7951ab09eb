"""All 25,204 people of MPII's JSON against plain NumPy on the raw file.

Nothing of the reader is used for the expected values: neither its tables nor its constants.
"""

import gzip
import json
import os

import numpy as np
import pytest
import scipy.io
import tensorflow as tf

from hourglass import affine
from pipelines.data import cropping, preprocessing, targets, tfrecords
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED
from pipelines.data.readers import mpii

DATA = os.environ.get("HOURGLASS_TEST_DATA")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA, reason="HOURGLASS_TEST_DATA is not set: no MPII people"),
]

SIZE = 256


def mpii_file(name):
    return os.path.join(DATA, "mpii", name)


@pytest.fixture(scope="module")
def raw():
    """The file's columns, untouched: 1-based positions, centre and scale before any adjustment."""
    with gzip.open(mpii_file("mpii_annotations.json.gz")) as file:
        entries = json.load(file)
    return {
        "id": [f"{e['img_paths']}#{e['people_index']:.0f}" for e in entries],
        "joints": np.array([e["joint_self"] for e in entries]),
        "objpos": np.array([e["objpos"] for e in entries]),
        "scale": np.array([e["scale_provided"] for e in entries]),
        "validation": np.array([e["isValidation"] for e in entries]) == 1,
    }


@pytest.fixture(scope="module")
def people(raw):
    """Our people in the file's order, everybody once."""
    found = {p.id: p for p in mpii.read(mpii_file("mpii_annotations.json.gz")).people}
    ordered = [found.pop(name) for name in raw["id"]]
    assert not found
    return ordered


@pytest.fixture(scope="module")
def ours(people):
    """Our people's columns."""
    columns = ("split", "center", "side", "joints", "state", "head_size")
    return {name: np.array([getattr(p, name) for p in people]) for name in columns}


def expected_states(raw):
    """[N, 16] the three states, from the file's flags and positions alone."""
    flagged = raw["joints"][..., 2] == 1
    placed = (raw["joints"][..., 0] > 0) & (raw["joints"][..., 1] > 0)
    # Published PCKh counts flagged joints of validation people even beyond the picture's edge.
    known = placed | (flagged & raw["validation"][:, None])
    return np.select([known & flagged, known], [LABELLED, OCCLUDED], MISSING)


def by_state(state):
    return [int((state == kind).sum()) for kind in (LABELLED, OCCLUDED, MISSING)]


def test_everybody_is_there(raw, ours):
    assert len(raw["id"]) == len(set(raw["id"])) == 25_204
    np.testing.assert_array_equal(ours["split"] == "validation", raw["validation"])
    assert raw["validation"].sum() == 2_958


def test_joints_and_their_states(raw, ours):
    expected = expected_states(raw)
    np.testing.assert_array_equal(ours["state"], expected)
    known = expected != MISSING
    np.testing.assert_array_equal(ours["joints"][known], raw["joints"][..., :2][known] - 1)
    assert not ours["joints"][~known].any()
    # Of 16 joints each; the sums are what one gets by reading the file, to notice another file.
    training = ~raw["validation"]
    assert by_state(ours["state"][training]) == [255_228, 76_460, 24_248]
    assert by_state(ours["state"][~training]) == [33_997, 10_243, 3_088]


def test_crops_are_where_the_references_put_them(raw, ours):
    """MPII's scale is a height of 200 px; the references widen it by 1.25 and go 15 px down."""
    center = raw["objpos"] - 1 + raw["scale"][:, None] * [0, 15]
    np.testing.assert_allclose(ours["center"], center, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours["side"], 250 * raw["scale"], rtol=1e-12)


def outside(raw):
    """[N, 16] known joints that lie outside the square around the adjusted centre."""
    center = raw["objpos"] + raw["scale"][:, None] * [0, 15]
    offset = raw["joints"][..., :2] - center[:, None]
    half = (125 * raw["scale"])[:, None, None]
    out = ((offset < -half) | (offset >= half)).any(-1)
    return out & (expected_states(raw) != MISSING)


def test_joints_outside_the_crop_weigh_nothing(raw, ours):
    """Weights as the device computes them for all 403,264 joints, without augmentation."""

    @tf.function  # leaves the heatmaps, which nobody reads, out of the graph
    def weights(center, side, joints, state):
        points = affine.apply(affine.window_to_input(center, side, SIZE), joints)
        return targets.targets(points, state, size=SIZE, sigma=1.0)[1]

    columns = [tf.constant(ours[name], tf.float32) for name in ("center", "side", "joints")]
    weight = weights(*columns, tf.constant(ours["state"], tf.int32)).numpy()
    out = outside(raw)
    np.testing.assert_array_equal(weight == 0, out | (ours["state"] == MISSING))
    assert (
        out.sum(1)[~raw["validation"]].sum() == 1_368
        and out.any(1)[~raw["validation"]].sum() == 1_052
    )
    assert out.sum(1)[raw["validation"]].sum() == 189 and out.any(1)[raw["validation"]].sum() == 149


def test_head_sizes_of_validation_people_are_those_of_the_annotated_boxes(raw, ours):
    boxes = scipy.io.loadmat(mpii_file("detections_our_format.mat"))["headboxes_src"]
    expected = 0.6 * np.sqrt(((boxes[1] - boxes[0]) ** 2).sum(0))
    found = ours["head_size"][raw["validation"]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (round(found.mean(), 2), round(found.std(), 2)) == (80.47, 45.43)


def test_head_sizes_of_training_people_are_three_quarters_of_neck_to_top(raw, ours):
    training = ~raw["validation"]
    top, neck = raw["joints"][training, 9, :2], raw["joints"][training, 8, :2]
    known = (expected_states(raw)[training][:, 8:10] != MISSING).all(1)
    expected = 0.75 * np.sqrt(((top - neck) ** 2).sum(1))
    expected[~known | (expected == 0)] = np.nan
    found = ours["head_size"][training]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert np.isnan(found).sum() == 482
    assert (round(np.nanmean(found), 2), round(np.nanstd(found), 2)) == (83.03, 47.07)


def test_joints_reach_the_network_input_through_the_record(raw, people):
    """Every 250th person through crop, record and device, against float64 from the raw file."""
    nothing, geometry = np.zeros((1, 1, 3), np.uint8), cropping.Geometry()
    for i in range(0, len(people), 250):
        record = tfrecords.encode(people[i], *cropping.crop(nothing, people[i], geometry))
        found = tfrecords.decode(record, joints=16, canvas=geometry.canvas)
        batch = {key: value[None] for key, value in found.items()}
        points, _ = targets.joints(
            batch, preprocessing.crop_to_input(batch, SIZE), tuple(range(16))
        )
        offset = raw["joints"][i, :, :2] - raw["objpos"][i] - raw["scale"][i] * np.array([0, 15])
        expected = offset * SIZE / (250 * raw["scale"][i]) + (SIZE - 1) / 2
        known = people[i].state != MISSING
        np.testing.assert_allclose(points[0].numpy()[known], expected[known], rtol=0, atol=1e-3)
