"""Our crops, heatmaps and joints beside those of the reference pipelines, to a tenth of a pixel.

``golden/reference_data.npz`` holds what the references' own code answered, unchanged and without
augmentation, for three photographed people and for every 30th of the 2,958 validation people:

- bearpaw/pytorch-pose edc7aec: ``pose.datasets.mpii.Mpii.__getitem__`` and ``transform``;
- princeton-vl/pytorch_stacked_hourglass ceedc14: ``data/MPII/dp.py`` ``Dataset.loadImage`` on
  valid.h5, its random numbers set to no rotation, scale 1 and no mirror;
- leoxiaobin/deep-high-resolution-net.pytorch 6f69e46: ``MPIIDataset.__getitem__``,
  ``get_affine_transform`` and ``generate_target`` with the settings of w32_256x256_adam_lr1e-3;

run with numpy 1.26, OpenCV 4.9 and torch 2.13. Pictures are kept as means of 16 x 16 px only.
``pytest tests/data/test_reference_pipelines.py -k table -s`` prints the table of docs/parity.md.
"""

import functools
import os
import pathlib

import cv2
import numpy as np
import pytest
import rich.console
import rich.table
import tensorflow as tf

from pipelines.data import cropping, preprocessing, targets, tfrecords
from pipelines.data.annotations import LABELLED, MISSING, Person
from tests.helpers.reference_rules import HEATMAP, INPUT, RULES, NewellLua, heatmap

GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "golden" / "reference_data.npz"))
DATA = os.environ.get("HOURGLASS_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="HOURGLASS_TEST_DATA is not set: no photographs")

PHOTOGRAPHS = ("005808361.jpg", "052475643.jpg", "004645041.jpg")


def columns(who, name="json"):
    """1-based joints [N, 16, 2], adjusted centres [N, 2] and sides [N] that a pipeline starts from.

    princeton-vl reads valid.h5, which is adjusted already; the others read the JSON's values.
    """
    if name == "princeton":
        start = "princeton_" if who == "three" else "princeton_some_"
        part, center, scale = (GOLDEN[start + key] for key in ("part", "center", "scale"))
        return part, center, 200 * scale
    scale = GOLDEN[f"{who}_scale"]
    center = GOLDEN[f"{who}_objpos"] + scale[:, None] * [0, 15]
    return GOLDEN[f"{who}_joints"][..., :2], center, 250 * scale


def peaks(rule, name, who="some"):
    return np.array([rule.peaks(*person) for person in zip(*columns(who, name))])


def device_batch(who="some"):
    """Our people as the device sees them, in the photograph's own pixels."""
    joints, center, side = columns(who)
    state = np.where((joints > 0).all(-1), LABELLED, MISSING)
    floats = {"joints": joints - 1, "center": center - 1, "side": side}
    batch = {key: tf.constant(value, tf.float32) for key, value in floats.items()}
    return {**batch, "state": tf.constant(state, tf.int32)}


def device_targets(rounded, who="some"):
    """Joints [N, 16, 2] in heatmap px, heatmaps [N, 64, 64, 16] and weights [N, 16]."""
    batch = device_batch(who)
    matrix = preprocessing.crop_to_input(batch, INPUT)
    points, state = targets.joints(batch, matrix, tuple(range(16)))
    maps, weight = targets.targets(points, state, size=INPUT, sigma=1.0, rounded=rounded)
    return (points.numpy() + 0.5) / 4 - 0.5, maps.numpy(), weight.numpy()


def in_heatmap(places):
    return ((places >= 0) & (places < HEATMAP)).all(-1)


@pytest.mark.parametrize("name", RULES)
def test_the_rules_stand_for_the_references_joints(name):
    """Equal, but for joints on a pixel's very edge, where their float32 or inverse decides."""
    found, ran = peaks(RULES[name], name), GOLDEN[f"{name}_some"]
    compared = (columns("some", name)[0] > 0).all(-1) & in_heatmap(found) & in_heatmap(ran)
    wrong = compared & (found != ran).any(-1)
    assert compared.sum() > 1400 and wrong.sum() <= 2
    assert np.abs(found - ran)[wrong].max(initial=0) <= 1
    three = GOLDEN[f"{name}_peaks"]
    drawn = (three >= 0).all(-1)
    assert drawn.sum() == 46  # of 48; two ankles have no position
    np.testing.assert_array_equal(peaks(RULES[name], name, "three")[drawn], three[drawn])


@pytest.mark.parametrize("name", RULES)
def test_the_rules_stand_for_the_references_heatmaps(name):
    rule = RULES[name]
    drawn = [heatmap(peak, rule.sigma, rule.radius) for peak in peaks(rule, name, "three")[0]]
    np.testing.assert_allclose(np.max(drawn, 0), GOLDEN[f"{name}_heatmap"], atol=1e-6)


def test_rounded_centres_give_pytorch_poses_heatmaps():
    """--round_centers: the same pixel for all joints, and the same Gaussian, but not cut off."""
    places, maps, weight = device_targets(rounded=True)
    flat = maps.reshape(len(maps), -1, 16).argmax(1)
    found, ran = np.stack([flat % HEATMAP, flat // HEATMAP], -1), GOLDEN["pytorch_pose_some"]
    on_an_edge = (np.abs(places + 0.5 - np.rint(places + 0.5)) < 1e-4).any(-1)
    compared = (weight > 0) & ~on_an_edge
    assert compared.sum() > 1400
    np.testing.assert_array_equal(found[compared], ran[compared])
    first = device_targets(rounded=True, who="three")[1][0]
    cut_off = np.exp(-(4**2) / 2)  # the first value that they leave out
    np.testing.assert_allclose(first.max(-1), GOLDEN["pytorch_pose_heatmap"], atol=cut_off * 1.001)


# Where a Gaussian stands, less where the joint is on our grid, heatmap px: rounding to the pixel
# is right on average; HRNet's px are input px / 4 (+ 3/8) with the centre half a px on (+ 1/8).
LABEL_BIAS = {"pytorch_pose": 0.0, "princeton": 0.0, "hrnet": 0.5}


def label_offsets(name):
    """[n, 2] heatmap px, of all joints that lie in the heatmap."""
    joints, center, side = columns("some", name)
    places = (joints - center[:, None]) * (HEATMAP / side[:, None, None]) + (HEATMAP - 1) / 2
    ran = GOLDEN[f"{name}_some"]
    # One px from the rim, where HRNet's half Gaussians stand off their centre.
    known = (joints > 0).all(-1) & in_heatmap(places - 1) & in_heatmap(places + 1)
    return (ran - places)[known]


@pytest.mark.parametrize("name", RULES)
def test_label_offsets_are_explained(name):
    """Over 1,400 joints: the bias above, and a pixel's width of rounding, 1 / sqrt(12) = 0.289."""
    offsets = label_offsets(name) - LABEL_BIAS[name]
    assert len(offsets) > 1400
    # Ties may fall to either side; of princeton-vl valid.h5 has also cut the joint to whole px.
    assert np.abs(offsets).max() < 0.501
    np.testing.assert_allclose(offsets.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(offsets.std(0), 12**-0.5, atol=0.02)


def test_newells_torch_code_labels_one_image_pixel_too_far_up_and_left():
    joints, center, side = columns("some")
    places = (joints - center[:, None]) * (HEATMAP / side[:, None, None]) + (HEATMAP - 1) / 2
    known = (joints > 0).all(-1) & in_heatmap(places - 0.5)
    offsets = peaks(NewellLua, "newell") - places
    pixel = HEATMAP / side[:, None, None]
    np.testing.assert_allclose((offsets + pixel)[known].mean(0), 0, atol=0.03)


# ---- pictures


def load(name):
    return np.ascontiguousarray(cv2.imread(os.path.join(DATA, "mpii", "images", name))[..., ::-1])


def our_picture(index):
    """[256, 256, 3] in [0, 1] by our records and device, and image_to_input [2, 3] float64."""
    joints, center, side = (column[index] for column in columns("three"))
    state = np.where((joints > 0).all(-1), LABELLED, MISSING)
    person = Person(
        id="1",
        image=PHOTOGRAPHS[index],
        split="validation",
        row=0,
        center=center - 1,
        side=side,
        joints=joints - 1,
        state=state,
        head_size=np.nan,
    )
    geometry = cropping.Geometry()
    serialized = tfrecords.encode(person, *cropping.crop(load(person.image), person, geometry))
    found = tfrecords.decode(serialized, joints=16, canvas=geometry.canvas)
    batch = {key: value[None] for key, value in found.items()}
    picture, crop_to_input = preprocessing.images(batch, INPUT)
    crop_to_image = np.vstack([found["crop_to_image"], [0, 0, 1]])
    matrix = crop_to_input[0].numpy().astype(float) @ np.linalg.inv(crop_to_image)
    return picture[0].numpy() + preprocessing.MEAN, matrix


def reference_picture(name, index):
    """[256, 256, 3] in [0, 1] by a reference's rule, and image_to_input [2, 3] (0-based)."""
    _, center, side = (column[index] for column in columns("three", name))
    image = load(PHOTOGRAPHS[index])
    # HRNet warps whole grey levels, the two others fractions of them.
    image = image if name == "hrnet" else image.astype(np.float32)
    picture, matrix = RULES[name].picture(image, center, side)
    return picture / 255.0, matrix


def measured_shift(ours, theirs, places):
    """[n, 2] px that content moves from one picture to the other: ECC registration, affine."""
    grey = [cv2.cvtColor(p.astype(np.float32), cv2.COLOR_RGB2GRAY) for p in (ours, theirs)]
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-8)
    start = np.eye(2, 3, dtype=np.float32)
    _, moved = cv2.findTransformECC(*grey, start, cv2.MOTION_AFFINE, stop, None, 5)
    return places @ (moved[:, :2] - np.eye(2)).T + moved[:, 2]


def place(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


@functools.cache
def picture_offsets(name, index):
    """Mean over a person's joints, input px: expected from the integers, and seen in the pixels."""
    ours, our_matrix = our_picture(index)
    theirs, their_matrix = reference_picture(name, index)
    joints = columns("three")[0][index]
    points = joints[(joints > 0).all(-1)] - 1
    expected = place(their_matrix, points) - place(our_matrix, points)
    measured = measured_shift(ours, theirs, place(our_matrix, points))
    return expected.mean(0), measured.mean(0)


@needs_data
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("index", range(3))
def test_the_rules_stand_for_the_references_pictures(name, index):
    picture, _ = reference_picture(name, index)
    means = picture.reshape(16, 16, 16, 16, 3).mean((1, 3, 4))
    np.testing.assert_allclose(means, GOLDEN[f"{name}_blocks"][index], atol=1e-5)


@needs_data
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("index", range(3))
def test_picture_offsets_are_explained_to_a_tenth_of_a_pixel(name, index):
    """What moves between our picture and theirs is their truncation, half pixel or shrinking."""
    expected, measured = picture_offsets(name, index)
    np.testing.assert_allclose(measured, expected, atol=0.1)
    # What is known without our matrix: HRNet's centre lies half a pixel on, princeton-vl's 1-based
    # window on 0-based pixels is right but for truncation, pytorch-pose's is a pixel off at most.
    known, spread = {"hrnet": (0.5, 0.02), "princeton": (0, 0.3), "pytorch_pose": (0, 1)}[name]
    np.testing.assert_allclose(expected, known, atol=spread)


@needs_data
def test_table():
    """Picture offsets: expected from the integers / measured; the three people in turn."""
    table = rich.table.Table(title="reference less ours, x y; positive is right and down")
    for column in ("pipeline", "Gaussian, px of 64", "spread", "its own picture, px of 64"):
        table.add_column(column)
    for photograph in PHOTOGRAPHS:
        table.add_column(f"picture of {photograph[:9]}, px of 256")
    for name in RULES:
        offsets, pairs = label_offsets(name), [picture_offsets(name, i) for i in range(3)]
        own = offsets.mean(0) - np.mean([expected for expected, _ in pairs], 0) / 4
        row = [shown(offsets.mean(0)), f"{offsets.std():.2f}", shown(own)]
        table.add_row(name, *row, *(" / ".join(map(shown, pair)) for pair in pairs))
    rich.console.Console(width=150).print(table)
    assert table.row_count == len(RULES)


def shown(pair):
    return "{:+.2f} {:+.2f}".format(*pair)
