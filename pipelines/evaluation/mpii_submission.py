"""The submission file of MPII's test set: ``pred_keypoints_mpii.mat``.

It contains ``pred``, one entry for every photograph with ``RELEASE.img_train == 0``, with
photographs and people in the release's order: ``pred(i).annorect(j).annopoints.point(k).x/y/id``,
1-based image px and the joints' 0-based ids. The single persons (``RELEASE.single_person``) are
scored and must be complete (README of the evaluation toolkit, "Single Person Pose Estimation").
"""

from __future__ import annotations

import io

import numpy as np
import scipy.io

from hourglass.skeleton import MPII
from pipelines.data.readers import files, mpii_mat
from pipelines.evaluation import prediction_files
from pipelines.evaluation.prediction_files import Predictions
from pipelines.io import check_file_writable, write_atomically

_EMPTY = np.zeros((0, 0))
_NAMED = 5  # people named in an error


def _struct(rows: list[dict], fields: tuple[str, ...]) -> np.ndarray:
    """MATLAB struct array [1, len(rows)]."""
    array = np.zeros((1, len(rows)), dtype=[(field, object) for field in fields])
    for index, row in enumerate(rows):
        array[0, index] = tuple(row[field] for field in fields)
    return array


def _points(joints: np.ndarray) -> np.ndarray:
    rows = [{"x": x, "y": y, "id": float(k)} for k, (x, y) in enumerate(joints)]
    return _struct([{"point": _struct(rows, ("x", "y", "id"))}], ("point",))


def _photograph(test: mpii_mat.Photograph, joints: dict[str, np.ndarray]) -> dict:
    people = [
        {"annopoints": _points(joints[key]) if key in joints else _EMPTY} for key in test.people
    ]
    annorect = _struct(people, ("annopoints",)) if people else _EMPTY
    return {"image": _struct([{"name": test.image}], ("name",)), "annorect": annorect}


def _check(photographs: list[mpii_mat.Photograph], predictions: Predictions) -> None:
    if predictions.skeleton != MPII:
        raise ValueError(
            f"MPII has the joints {MPII.joints}, the predictions {predictions.skeleton}; give "
            "predictions of MPII's test set"
        )
    known = {key for photograph in photographs for key in photograph.people}
    ids = set(predictions.ids)
    unknown = [key for key in predictions.ids if key not in known]
    missing = [key for photo in photographs for key in photo.single if key not in ids]
    for people, rule in (
        (unknown, "predicted but not in the test set; predict its records (--split=test)"),
        (missing, "scored but not predicted; convert and predict all test people"),
    ):
        if people:
            raise ValueError(f"{len(people)} people are {rule}: {', '.join(people[:_NAMED])} ...")


def write(annotations: str, predicted: str, output: str) -> tuple[int, int]:
    """Write the submission from predictions of the test set.

    Args:
      annotations: the original ``mpii_human_pose_v1_u12_1.mat``.
      predicted: predictions.json, .mat or .h5 of an evaluation with ``--split=test``.
      output: file to write, whole or not at all.

    Returns:
      Photographs and people written.

    Raises:
      FileNotFoundError, ValueError: a missing file or one of another format, people who are not in
        the test set, or single persons without a prediction.
      OSError: ``output`` cannot be written.
    """
    check_file_writable(output)
    photographs = mpii_mat.test_set(files.read_bytes(annotations), annotations)
    predictions = prediction_files.read(predicted)
    _check(photographs, predictions)
    joints = dict(zip(predictions.ids, predictions.joints + predictions.origin))
    entries = [_photograph(photograph, joints) for photograph in photographs]
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"pred": _struct(entries, ("image", "annorect"))}, do_compression=True)
    write_atomically(output, buffer.getvalue())
    return len(entries), len(joints)
