"""MPII's submission: the struct that the evaluation toolkit reads, with all people."""

import numpy as np
import pytest
import scipy.io

from hourglass.skeleton import LSP, MPII
from pipelines.evaluation import mpii_submission, prediction_files
from pipelines.evaluation.prediction_files import Predictions
from tests.helpers.mpii_people import people, person
from tests.helpers.release_mat import EMPTY, annorect_of, write_mat


@pytest.fixture
def release(tmp_path):
    """Test photographs b (two people, the second single), c (empty), d (one, without centre)."""
    trained = annorect_of({1: [(5, 5), 1.0, 16 * [(1, 1, 1)]]})
    photographs = [
        ("a.jpg", 1, trained),
        ("b.jpg", 0, people(person(), person((30, 40)))),
        ("c.jpg", 0, EMPTY),
        ("d.jpg", 0, people({})),
    ]
    return write_mat(tmp_path / "release.mat", photographs, single=[1, 2, EMPTY, 1])


def predicted(folder, *ids, skeleton=MPII):
    count = len(skeleton)
    joints = np.arange(len(ids) * count * 2, dtype=float).reshape(len(ids), count, 2) / 4
    predictions = Predictions(
        ids, np.arange(len(ids)), joints, np.ones(joints.shape[:2], np.float32), skeleton, 1
    )
    prediction_files.write_json(str(folder / "predictions.json"), predictions)
    return str(folder / "predictions.json"), joints


def test_the_struct_that_the_toolkit_reads(tmp_path, release):
    file, joints = predicted(tmp_path, "b.jpg#1", "b.jpg#2")
    output = str(tmp_path / "pred_keypoints_mpii.mat")
    assert mpii_submission.write(release, file, output) == (3, 2)
    pred = scipy.io.loadmat(output, struct_as_record=False)["pred"]
    assert pred.shape == (1, 3)
    names = [entry.image[0, 0].name[0] for entry in pred[0]]
    assert names == ["b.jpg", "c.jpg", "d.jpg"]
    for index in (0, 1):
        points = pred[0, 0].annorect[0, index].annopoints[0, 0].point[0]
        assert [int(point.id[0, 0]) for point in points] == list(range(16))
        written = [(point.x[0, 0], point.y[0, 0]) for point in points]
        np.testing.assert_array_equal(written, joints[index] + 1)  # MPII counts from 1
    assert pred[0, 1].annorect.size == 0
    assert pred[0, 2].annorect[0, 0].annopoints.size == 0


def test_a_person_who_is_not_scored_may_be_missing(tmp_path, release):
    file, _ = predicted(tmp_path, "b.jpg#2")
    output = str(tmp_path / "out.mat")
    assert mpii_submission.write(release, file, output) == (3, 1)
    pred = scipy.io.loadmat(output, struct_as_record=False)["pred"]
    assert pred[0, 0].annorect[0, 0].annopoints.size == 0


@pytest.mark.parametrize(
    ("ids", "skeleton", "message"),
    [
        (("b.jpg#1",), MPII, "1 people are scored but not predicted.*: b.jpg#2"),
        (("b.jpg#2", "a.jpg#1"), MPII, "1 people are predicted but not in the test set.*a.jpg#1"),
        (("b.jpg#2",), LSP, "MPII has the joints"),
    ],
)
def test_rejections(tmp_path, release, ids, skeleton, message):
    file, _ = predicted(tmp_path, *ids, skeleton=skeleton)
    with pytest.raises(ValueError, match=message):
        mpii_submission.write(release, file, str(tmp_path / "out.mat"))
    assert not (tmp_path / "out.mat").exists()


def test_single_person_of_another_length(tmp_path):
    path = write_mat(tmp_path / "r.mat", [("b.jpg", 0, people(person()))], single=[1])
    mat = scipy.io.loadmat(path)["RELEASE"]
    mat["single_person"][0, 0] = np.zeros((0, 0))
    scipy.io.savemat(path, {"RELEASE": mat})
    file, _ = predicted(tmp_path, "b.jpg#1")
    with pytest.raises(ValueError, match="single_person has 0 entries for 1 photographs"):
        mpii_submission.write(path, file, str(tmp_path / "out.mat"))
