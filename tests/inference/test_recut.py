"""Cutting a person again: by hand-computed squares, and with a network that finds coloured dots."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from hourglass.skeleton import Skeleton
from pipelines.data.annotations import JOINTS_CONTEXT
from pipelines.data.cropping import Geometry
from pipelines.data.preprocessing import MEAN
from pipelines.inference import recut
from pipelines.inference.options import InferenceOptions
from pipelines.inference.predictor import KEPT, Predictor

COLORS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
PLAIN = InferenceOptions(flip=False, decoder="subpixel")


def test_the_square_around_the_sure_joints():
    joints = np.array([[100, 50], [140, 60], [120, 250], [110, 240], [900, 900]], float)
    sure = np.array([0.9, 0.8, 0.5, 0.28, 0.26])  # the last is below 0.3 x 0.9
    center, side = recut.square(joints, sure, np.array([200.0, 200.0]), 400.0)
    np.testing.assert_allclose(center, [120, 150])
    assert side == pytest.approx(JOINTS_CONTEXT * 200)


def test_where_another_cut_would_show_nothing_new():
    joints, sure = np.array([[0, 0], [100, 0], [100, 200], [0, 200.0]]), np.ones(4)
    at, side = np.array([50.0, 100.0]), JOINTS_CONTEXT * 200
    assert recut.square(joints, sure, at, side) is None
    assert recut.square(joints, sure, at + 0.049 * side, 1.09 * side) is None
    assert recut.square(joints, sure, at + 0.051 * side, side) is not None
    assert recut.square(joints, sure, at, 1.12 * side) is not None
    assert recut.square(joints, np.array([1, 1, 1, 0.29]), at, 3 * side) is None, "3 sure joints"


def test_no_cut_is_a_quarter_or_four_times_as_large():
    joints = np.array([[0, 0], [2, 0], [2, 2], [0, 2.0]])
    assert recut.square(joints, np.ones(4), np.zeros(2), 100.0)[1] == 25.0
    assert recut.square(100 * joints, np.ones(4), np.zeros(2), 10.0)[1] == 40.0


def dots(size: int = 128) -> tf.keras.Model:
    """A network whose heatmaps are how much of each color a heatmap px contains."""
    images = tf.keras.Input([size, size, 3])
    pixels = tf.keras.layers.AveragePooling2D(4)(images + tf.constant(MEAN))
    alone = tf.nn.relu(pixels @ tf.constant(3 * np.eye(3, dtype=np.float32) - 2))
    yellow = tf.minimum(pixels[..., :1], pixels[..., 1:2])
    found = tf.concat([alone, yellow], -1)
    return tf.keras.Model(images, (found,))


def picture(where: np.ndarray, height: int = 300, width: int = 400) -> np.ndarray:
    image = np.zeros([height, width, 3], np.uint8)
    for place, color in zip(where, COLORS.values()):
        cv2.circle(image, [int(v) for v in place], 7, [255 * c for c in color], -1)
    return cv2.GaussianBlur(image, None, 3)


PLACES = np.array([[150, 120], [220, 118], [212, 200], [155, 205]], float)


@pytest.fixture(scope="module")
def network():
    with tf.device("/cpu:0"):
        return dots()


def make(network, recuts: int) -> Predictor:
    skeleton = Skeleton(tuple(COLORS), pairs=())
    return Predictor(network, skeleton, Geometry(1.3, 170), PLAIN, batch_size=2, recuts=recuts)


def test_a_person_without_a_box_is_cut_around_its_joints(network):
    image = picture(PLACES)
    coarse, near = (make(network, n)([image])[0][0] for n in (0, 2))
    assert coarse.side == 300 and near.box is None
    assert near.side == pytest.approx(JOINTS_CONTEXT * 87, abs=8)
    np.testing.assert_allclose(near.center, [185, 161.5], atol=4)
    errors = [np.linalg.norm(pose.joints - PLACES, axis=1).mean() for pose in (coarse, near)]
    assert errors[1] < 2.5 and errors[1] < errors[0]
    assert near.confidence.mean() > coarse.confidence.mean()


def test_boxes_are_never_changed_and_each_picture_keeps_its_people(network):
    image, other = picture(PLACES), picture(PLACES + [-40, 30])
    box = (100, 80, 160, 160)
    cut, plain = make(network, 2), make(network, 0)
    images, boxes = [image, other, image, other], [[box], None, None, [box, box]]
    poses = cut(images, boxes)
    assert [len(of_picture) for of_picture in poses] == [1, 1, 1, 2]
    for k in (0, 3):
        for one, same in zip(poses[k], plain([images[k]], [boxes[k]])[0]):
            np.testing.assert_allclose(one.joints, same.joints, atol=1e-4)
    for k in (1, 2):
        alone = cut([images[k]])[0][0]
        np.testing.assert_allclose(poses[k][0].joints, alone.joints, atol=1e-4)
        np.testing.assert_allclose(alone.joints, PLACES + [-40 * (k == 1), 30 * (k == 1)], atol=4)


def test_the_surest_cut_counts_and_an_empty_picture_stays_as_it_is(network):
    empty = np.zeros([300, 400, 3], np.uint8)
    pose = make(network, 2)([empty])[0][0]
    assert pose.side == 300
    # Dots so large that the first cut is as sure as any.
    image = cv2.resize(picture(PLACES), None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
    poses = [make(network, n)([image])[0][0] for n in (0, 1, 2)]
    sure = [pose.confidence.mean() for pose in poses]
    assert sure == sorted(sure)


def test_what_is_kept_of_a_picture_is_bounded(network):
    image = np.zeros([4000, 6000, 3], np.uint8)
    kept, kept_to_image = make(network, 1).crop(image, None).kept
    assert max(kept.shape) <= KEPT and kept.base is None
    assert kept_to_image[0, 0] == 5 and kept_to_image[0, 2] == 2.0
    assert make(network, 1).crop(image, (0, 0, 400, 400)).kept is None
    assert make(network, 0).crop(image, None).kept is None
