import os

import h5py
import hypothesis
import numpy as np
import pytest
import scipy.io
from hypothesis import strategies as st

from hourglass import metrics
from hourglass.skeleton import LSP, MPII, Skeleton

NAN = float("nan")


def test_an_error_is_a_distance_in_head_sizes():
    predicted = np.array([[[3.0, 4.0], [10.0, 0.0]], [[1.0, 1.0], [1.0, 2.0]]])
    truth = np.array([[[0.0, 0.0], [4.0, 8.0]], [[1.0, 1.0], [1.0, 0.0]]])
    errors = metrics.normalized_errors(predicted, truth, np.array([10.0, 4.0]))
    np.testing.assert_allclose(errors, [[0.5, 1.0], [0.0, 0.5]])
    assert errors.dtype == np.float64


@pytest.mark.parametrize("size", [NAN, 0.0, -3.0, np.inf])
def test_a_person_without_a_size_has_no_errors(size):
    errors = metrics.normalized_errors(np.zeros((1, 2, 2)), np.ones((1, 2, 2)), np.array([size]))
    assert np.isnan(errors).all()


@pytest.mark.parametrize("value", [NAN, np.inf, -np.inf, 1e200])
def test_a_prediction_that_is_no_position_is_a_miss(value):
    predicted = np.array([[[value, 1.0], [1.0, 1.0]]])
    errors = metrics.normalized_errors(predicted, np.ones((1, 2, 2)), np.array([10.0]))
    hits, counts = metrics.hits_and_counts(errors, np.ones((1, 2), bool), 0.5)
    assert hits.tolist() == [0, 1] and counts.tolist() == [1, 1]


def test_an_unknown_truth_is_not_counted():
    truth = np.array([[[NAN, 1.0], [np.inf, 1.0], [1.0, 1.0]]])
    errors = metrics.normalized_errors(np.full((1, 3, 2), np.inf), truth, np.array([10.0]))
    assert np.isnan(errors[0, :2]).all() and errors[0, 2] == np.inf
    _, counts = metrics.hits_and_counts(errors, np.ones((1, 3), bool), 0.5)
    assert counts.tolist() == [0, 0, 1]


def test_shapes_that_do_not_match_are_errors():
    with pytest.raises(ValueError, match=r"\(2, 3, 2\).*\(3, 2\).*do not match"):
        metrics.normalized_errors(np.zeros((2, 3, 2)), np.zeros((3, 2)), np.ones(2))
    with pytest.raises(ValueError, match="do not match"):
        metrics.normalized_errors(np.zeros((2, 3, 2)), np.zeros((2, 3, 2)), np.ones(3))
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(4,\)"):
        metrics.hits_and_counts(np.zeros((4, 3)), np.ones(4, bool), 0.5)
    with pytest.raises(ValueError, match=r"\(3,\).*\[16\]"):
        metrics.summarize(np.ones(3), np.ones(3), MPII)


def test_hits_are_at_most_the_threshold_and_scored():
    errors = np.array([[0.5, 0.5 + 1e-12, NAN], [0.1, 0.1, 0.1], [9.0, np.inf, 0.2]])
    scored = np.array([[True, True, True], [True, False, True], [True, True, False]])
    hits, counts = metrics.hits_and_counts(errors, scored, 0.5)
    assert hits.tolist() == [2, 0, 1]
    assert counts.tolist() == [3, 2, 1]


def test_the_three_means_are_three_different_things():
    """Pelvis and thorax are always right and wrong; one ankle is scored once and missed."""
    hits, counts = np.full(16, 8.0), np.full(16, 10.0)
    hits[MPII.index("pelvis")], hits[MPII.index("thorax")] = 10, 0
    hits[MPII.index("left_ankle")], counts[MPII.index("left_ankle")] = 0, 1
    row = metrics.summarize(hits, counts, MPII)
    assert row["mean14"] == pytest.approx(13 * 80 / 14)
    assert row["weighted14"] == pytest.approx(100 * 104 / 131)
    assert row["pooled16"] == pytest.approx(100 * 114 / 151)
    assert row["ankle"] == pytest.approx(40)
    assert row["head"] == row["knee"] == pytest.approx(80)
    assert (
        list(row) == "head shoulder elbow wrist hip knee ankle mean14 weighted14 pooled16".split()
    )


def test_head_is_the_head_top_alone():
    hits = np.zeros(16)
    hits[MPII.index("head_top")] = 1
    assert metrics.summarize(hits, np.ones(16), MPII)["head"] == 100


def test_joints_never_scored_are_left_out_of_the_means():
    hits, counts = np.full(16, 3.0), np.full(16, 4.0)
    hits[MPII.index("left_knee")] = counts[MPII.index("left_knee")] = 0
    row = metrics.summarize(hits, counts, MPII)
    assert row["knee"] == row["mean14"] == row["weighted14"] == pytest.approx(75)
    assert np.isnan(metrics.per_joint(hits, counts)[MPII.index("left_knee")])


def pckh(errors, scored, threshold=0.5, skeleton=MPII):
    return metrics.summarize(*metrics.hits_and_counts(errors, scored, threshold), skeleton)


def auc(errors, scored, skeleton=MPII):
    return metrics.summarize(*metrics.area_under_curve(errors, scored), skeleton)


@pytest.mark.parametrize("measure", [pckh, auc])
@pytest.mark.parametrize("people", [5, 0])
def test_nothing_scored_is_nan_not_zero(measure, people):
    row = measure(np.zeros((people, 16)), np.zeros((people, 16), bool))
    assert all(np.isnan(value) for value in row.values())


def test_a_set_without_pelvis_and_thorax_keeps_the_names():
    hits, counts = np.arange(14.0), np.full(14, 20.0)
    row = metrics.summarize(hits, counts, LSP)
    expected = 100 * 91 / 280
    assert row["mean14"] == row["weighted14"] == row["pooled16"] == pytest.approx(expected)


def test_a_set_of_other_joints_has_a_column_for_each():
    row = metrics.summarize(np.array([1.0, 1.0]), np.array([2.0, 2.0]), Skeleton(("nose", "tail")))
    assert row == {"nose": 50, "tail": 50, "mean14": 50, "weighted14": 50, "pooled16": 50}


def test_batches_add_up():
    rng = np.random.default_rng(0)
    errors, scored = rng.exponential(0.5, (20, 16)), rng.random((20, 16)) < 0.8
    whole = metrics.hits_and_counts(errors, scored, 0.5)
    parts = [metrics.hits_and_counts(errors[s], scored[s], 0.5) for s in (slice(7), slice(7, 20))]
    np.testing.assert_array_equal(whole, np.sum(parts, axis=0))


def test_area_by_hand():
    """Errors 0, 0.25, 0.5 and 2 rise at 0, 0.25, 0.5 and never: areas 1, 0.5, 0 and 0."""
    errors = np.array([[0.0], [0.25], [0.5], [2.0], [NAN], [0.0]])
    scored = np.array([[True], [True], [True], [True], [True], [False]])
    sums, counts = metrics.area_under_curve(errors, scored)
    assert sums.tolist() == [1.5] and counts.tolist() == [4]


def test_area_is_the_integral_of_the_curve():
    rng = np.random.default_rng(1)
    errors, scored = rng.exponential(0.3, (50, 3)), rng.random((50, 3)) < 0.7
    thresholds = (np.arange(20000) + 0.5) / 40000
    curve = ((errors[None] <= thresholds[:, None, None]) & scored).sum(1).mean(0)
    sums, _ = metrics.area_under_curve(errors, scored, 0.5)
    np.testing.assert_allclose(sums, curve, atol=2e-3)


def test_torso_is_left_shoulder_to_right_hip():
    truth = np.zeros((3, 14, 2))
    truth[:, LSP.index("left_shoulder")] = [30, 40]
    truth[:, LSP.index("right_shoulder")] = truth[:, LSP.index("left_hip")] = [500, 500]
    scored = np.ones((3, 14), bool)
    scored[1, LSP.index("left_shoulder")] = scored[2, LSP.index("right_hip")] = False
    np.testing.assert_array_equal(metrics.torso_size(truth, scored, LSP), [50, NAN, NAN])


@hypothesis.given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-1e4, 1e4))
def test_scores_do_not_depend_on_scale_position_or_order(seed, scale, shift):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 500, (9, 16, 2))
    predicted = truth + rng.normal(0, 15, truth.shape)
    size, scored = rng.uniform(10, 90, 9), rng.random((9, 16)) < 0.8
    order = rng.permutation(9)

    def score(predicted, truth, size, scored):
        errors = metrics.normalized_errors(predicted, truth, size)
        return [*pckh(errors, scored).values(), *auc(errors, scored).values()]

    moved = score(
        (predicted * scale + shift)[order],
        (truth * scale + shift)[order],
        (size * scale)[order],
        scored[order],
    )
    np.testing.assert_allclose(moved, score(predicted, truth, size, scored), atol=1e-6)


@hypothesis.given(st.integers(0, 2**32 - 1))
def test_scores_are_percent_and_grow_with_the_threshold(seed):
    rng = np.random.default_rng(seed)
    errors, scored = rng.exponential(0.4, (6, 16)), rng.random((6, 16)) < 0.5
    rows = pckh(errors, scored, 0.1), auc(errors, scored), pckh(errors, scored, 0.5)
    for low, area, high in zip(*(row.values() for row in rows)):
        if not np.isnan(high):
            assert 0 <= low <= high <= 100 and 0 <= area <= high + 1e-9


def _folder():
    folder = os.environ.get("HOURGLASS_TEST_DATA", "")
    if not os.path.isfile(os.path.join(folder, "mpii", "detections_our_format.mat")):
        pytest.skip("needs MPII's published predictions: set HOURGLASS_TEST_DATA to their folder")
    return os.path.join(folder, "mpii")


def _published(folder):
    """name -> [2958, 16, 2] predictions, 1-based image px, in the published order."""
    name = os.path.join(folder, "predictions", "newell-valid-example.h5")
    with h5py.File(name, "r") as file:
        newell = file["preds"][()]
    bearpaw = scipy.io.loadmat(os.path.join(folder, "predictions", "bearpaw-hg_s2_b1.mat"))
    truth = scipy.io.loadmat(os.path.join(folder, "detections_our_format.mat"))
    tompson = truth["pos_pred_src"].transpose(2, 0, 1)
    return {"bearpaw": bearpaw["preds"], "newell": newell, "tompson": tompson}, truth


@pytest.mark.parametrize(
    "name, mean14, weighted14",
    [("bearpaw", 86.757, 87.299), ("newell", 83.347, 83.927), ("tompson", 81.458, 82.337)],
)
def test_pytorch_pose_and_hrnet_scores_of_published_predictions(name, mean14, weighted14):
    """As eval_PCKh.py (pytorch-pose) and HRNet's evaluate() read detections_our_format.mat."""
    predictions, mat = _published(_folder())
    boxes = mat["headboxes_src"]
    size = 0.6 * np.linalg.norm(boxes[1] - boxes[0], axis=0)
    truth = mat["pos_gt_src"].transpose(2, 0, 1)
    errors = metrics.normalized_errors(predictions[name], truth, size)
    row = pckh(errors, mat["jnt_missing"].T == 0)
    assert row["mean14"] == pytest.approx(mean14, abs=0.001)
    assert row["weighted14"] == pytest.approx(weighted14, abs=0.001)


@pytest.mark.parametrize(
    "name, pooled16", [("bearpaw", 88.198), ("newell", 85.020), ("tompson", 71.505)]
)
def test_princeton_scores_of_published_predictions(name, pooled16):
    """As princeton-vl's test.py reads valid.h5: neck and head top cut to whole px, missing = 0."""
    folder = _folder()
    with h5py.File(os.path.join(folder, "valid.h5"), "r") as file:
        truth, size = file["part"][()], file["normalize"][()]
    errors = metrics.normalized_errors(_published(folder)[0][name], truth, size)
    row = pckh(errors, truth[..., 0] != 0)
    # One bearpaw joint lies exactly on the threshold: a miss there ("<"), a hit here ("<=").
    assert row["pooled16"] == pytest.approx(pooled16, abs=0.003)


def test_groups_of_the_published_predictions_resemble_the_published_table():
    """pytorch-pose's README lists this network, by another decoding, in these columns."""
    predictions, mat = _published(_folder())
    boxes = mat["headboxes_src"]
    size = 0.6 * np.linalg.norm(boxes[1] - boxes[0], axis=0)
    truth = mat["pos_gt_src"].transpose(2, 0, 1)
    errors = metrics.normalized_errors(predictions["bearpaw"], truth, size)
    row = pckh(errors, mat["jnt_missing"].T == 0)
    measured = [row[group] for group in MPII.groups]
    np.testing.assert_allclose(
        measured, [95.80, 94.57, 88.12, 83.31, 86.24, 80.88, 77.44], atol=0.006
    )
    readme = [95.74, 94.51, 87.68, 81.70, 87.81, 80.88, 76.83]
    np.testing.assert_allclose(measured, readme, atol=1.7)
    assert abs(row["head"] - 95.74) < 0.1
