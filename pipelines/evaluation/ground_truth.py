"""The ground truth that predictions are scored against, from any annotation file or record set.

| given | keys | occluded | crop scale |
|---|---|---|---|
| ``detections_our_format.mat`` | of the 2,958 published people | unknown | of the 2,958 |
| Newell's ``valid.h5``, bearpaw's JSON, the original ``.mat`` | yes | known | yes |
| HRNet's and mmpose's JSON | yes | unknown | yes |
| LSP's ``joints.mat`` | yes | LSP only | yes |
| record set folder | yes | as in its source | yes |

Two published ground truths of the same 2,958 people differ by up to 0.03 points in the means. In
``valid.h5`` neck and head top are truncated to whole pixels; princeton-vl's pooled16 is computed on
it. ``detections_our_format.mat`` has them with fractions, and a 0 instead of a coordinate of 13
joints; the published mean14 and weighted14 are computed on it. So that one command gives the
published table, the .mat yields both: ``Truth.joints``, as in the file, and
``Truth.pooled_joints``, equal to those of ``valid.h5``. Any other truth has one set of positions.
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import tensorflow as tf

from hourglass.skeleton import MPII, Skeleton
from pipelines.data import cropping
from pipelines.data.annotations import LABELLED, MISSING, Annotated, Person
from pipelines.data.readers import files, lsp, mpii

# (row, joint, x, y) of joints with a coordinate 0 in detections_our_format.mat; x and y are those
# of valid.h5 (princeton-vl/pose-hg-train), 1-based px.
_ZERO_IN_MAT = (
    (682, "right_ankle", 286, 219),
    (786, "left_ankle", 495, 445),
    (1081, "head_top", 687, 75),
    (1897, "right_elbow", 309, 4),
    (2636, "head_top", 768, 22),
    (2739, "right_ankle", 571, 586),
    (2763, "right_ankle", 281, 94),
    (2763, "right_knee", 281, 94),
    (2763, "left_knee", 281, 94),
    (2763, "left_ankle", 281, 94),
    (2775, "head_top", 273, 161),
    (2897, "head_top", 214, 253),
    (2921, "head_top", 498, 268),
)

# The .mat's whole pixels are off by up to 7e-5 px: positions that close to one were whole.
_NOISE = 8e-5

_POOLED_AS_PRINCETON = (
    "note: pooled16 is princeton-vl's: neck and head top on whole pixels, and 13 joints that are 0 "
    "in this file where valid.h5 has them"
)
_CUT = (
    "note: neck and head top are whole pixels in this file. Its pooled16 is the published one; "
    "mean14 and weighted14, published on detections_our_format.mat, differ by up to 0.03 points"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """What predictions of N people are compared with, in the published order.

    Attributes:
      name: data set.
      split: which of its people.
      skeleton: its joint set.
      origin: coordinate of the first pixel's centre in published files (MPII: 1).
      head_rule: how ``head_size`` is measured, one sentence.
      ids: N person ids; None where the file has no keys.
      images: N photographs; the bootstrap samples the people of one photograph together.
      joints: [N, J, 2] float64 0-based image px.
      state: [N, J] of MISSING, OCCLUDED, LABELLED; no OCCLUDED if the file lacks visibility.
      head_size: [N] float64 image px, NaN where the person cannot be scored by PCKh.
      side: [N] float64 image px, the crop's side; NaN where unknown.
      pooled_joints: [N, J, 2] float64 0-based image px, for pooled16; NaN where it does not count
        the joint. ``joints`` itself unless two truths are published.
      left_out: number of people in the file, of any split, that are unusable and have no row.
      note: remark to print with the scores; may be empty.
    """

    name: str
    split: str
    skeleton: Skeleton
    origin: int
    head_rule: str
    ids: tuple[str, ...] | None
    images: tuple[str, ...]
    joints: np.ndarray
    state: np.ndarray
    head_size: np.ndarray
    side: np.ndarray
    pooled_joints: np.ndarray
    left_out: int = 0
    note: str = ""


def read(path: str, split: str = "validation") -> Truth:
    """Read the people of a split from an annotation file or a record set folder.

    Args:
      path: ``detections_our_format.mat``, any file that ``readers.mpii`` or ``readers.lsp`` reads,
        a record set folder or its ``dataset.json``; local or gs://.
      split: "train", "validation" or "test"; ``detections_our_format.mat`` has validation only.

    Raises:
      FileNotFoundError: no such file or folder.
      ValueError: another format, a damaged file, or no people in the split.
    """
    folder, file = os.path.split(path)
    if tf.io.gfile.isdir(path) or file == "dataset.json":
        return _from_records(folder if file == "dataset.json" else path, split)
    data = files.read_bytes(path)
    if not data.startswith(b"MATLAB"):
        truth = _from_annotated(mpii.read(path), split)
        return dataclasses.replace(truth, note=_CUT) if _is_cut(truth) else truth
    names = ("jnt_missing", "pos_gt_src", "headboxes_src", "joints")
    variables = files.parse_mat(data, path, variable_names=names)
    if "pos_gt_src" in variables:
        return _from_tompson(variables, path, split)
    return _from_annotated(lsp.read(path) if "joints" in variables else mpii.read(path), split)


def _from_records(folder: str, split: str) -> Truth:
    # Not at the top: the other formats need neither OpenCV nor tf.data.
    from pipelines.data import input_pipeline, tfrecords

    info = tfrecords.read_info(folder)
    tfrecords.check_shards(info, split)
    labels = input_pipeline.labels(info, split)
    order = np.argsort(labels["row"], kind="stable")
    return of_records(info, split, {name: column[order] for name, column in labels.items()})


def of_records(info, split: str, labels: dict[str, np.ndarray]) -> Truth:
    """Truth of a record set's people.

    Args:
      info: ``tfrecords.DatasetInfo``.
      split: "train", "validation" or "test".
      labels: of ``input_pipeline.labels``; the truth's rows are in the same order.
    """
    joints = cropping.to_image(labels["joints"], labels["crop_to_image"])
    ids = tuple(name.decode() for name in labels["id"])
    return Truth(
        name=info.name,
        split=split,
        skeleton=info.skeleton,
        origin=info.origin,
        head_rule=info.head_rule,
        ids=ids,
        images=tuple(_photograph(name) for name in ids),
        joints=joints,
        state=labels["state"],
        head_size=labels["head_size"],
        side=labels["side"] * labels["crop_to_image"][:, 0, 0],
        pooled_joints=joints,
        left_out=sum(info.left_out.values()),
    )


def _photograph(key: str) -> str:
    """Photograph of an id: "image#person", or "image@x,y" if people have no numbers."""
    return key[: max(key.rfind("#"), key.rfind("@"))] if "#" in key or "@" in key else key


def _from_annotated(annotated: Annotated, split: str) -> Truth:
    people = sorted((p for p in annotated.people if p.split == split), key=lambda p: p.row)
    if not people:
        raise ValueError(
            f"{annotated.sources[0]} has no people in the split {split!r}, only in "
            f"{sorted({person.split for person in annotated.people})}; give another file or --split"
        )
    joints = _column(people, "joints")
    return Truth(
        name=annotated.name,
        split=split,
        skeleton=annotated.skeleton,
        origin=annotated.origin,
        head_rule=annotated.head_rule,
        ids=tuple(person.id for person in people),
        images=tuple(person.image for person in people),
        joints=joints,
        state=_column(people, "state"),
        head_size=_column(people, "head_size"),
        side=_column(people, "side"),
        pooled_joints=joints,
        left_out=sum(map(len, annotated.left_out.values())),
    )


def _column(people: list[Person], name: str) -> np.ndarray:
    return np.array([getattr(person, name) for person in people])


def _is_cut(truth: Truth) -> bool:
    """Whether these are the published people with every neck and head top on a whole pixel."""
    head = truth.joints[:, [MPII.index("upper_neck"), MPII.index("head_top")]]
    return truth.ids == tuple(mpii.published_people()) and bool((head == np.rint(head)).all())


def _from_tompson(variables: dict, path: str, split: str) -> Truth:
    missing, joints, boxes = _tompson_columns(variables, path)
    if split != "validation":
        raise ValueError(f"{path} contains validation people only, not the split {split!r}")
    head_size = 0.6 * np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=1)
    known = _published(head_size)
    unknown = tuple(str(row) for row in range(len(joints)))
    pooled = _as_princeton(joints) if known else joints
    return Truth(
        name="mpii",
        split=split,
        skeleton=MPII,
        origin=mpii.ORIGIN,
        head_rule="0.6 x the diagonal of the annotated head box (MPII's PCKh)",
        ids=tuple(known) or None,
        images=tuple(person.image for person in known.values()) or unknown,
        joints=joints - mpii.ORIGIN,
        state=np.where(missing, MISSING, LABELLED),
        head_size=head_size,
        side=np.array([250 * p.scale for p in known.values()] or [np.nan] * len(joints)),
        pooled_joints=pooled - mpii.ORIGIN,
        note=_POOLED_AS_PRINCETON if known else "",
    )


def _tompson_columns(variables: dict, path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return missing [N, 16] bool, joints [N, 16, 2] 1-based px and head boxes [N, 2, 2]."""
    names = ("jnt_missing", "pos_gt_src", "headboxes_src")
    missing, joints, boxes = (np.asarray(variables.get(name)) for name in names)
    shapes = missing.shape, joints.shape, boxes.shape
    people = joints.shape[-1] if joints.ndim else 0
    if not people or shapes != ((16, people), (16, 2, people), (2, 2, people)):
        raise ValueError(
            f"{path}: {', '.join(names)} have the shapes {shapes}, not [16, people], "
            "[16, 2, people] and [2, 2, people]"
        )
    plain = all(array.dtype.kind in "fiub" for array in (missing, joints, boxes))
    if not (plain and np.isfinite(joints).all() and np.isfinite(boxes).all()):
        raise ValueError(f"{path}: a position or head box is not finite, or no number")
    return missing.T != 0, joints.transpose(2, 0, 1), boxes.transpose(2, 0, 1)


def _published(head_size: np.ndarray) -> dict:
    """Return the 2,958 published people if these are their head sizes, else {}."""
    known = mpii.published_people()
    corners = np.array([person.head_box for person in known.values()])
    sizes = 0.6 * np.linalg.norm(corners[:, 2:] - corners[:, :2], axis=1)
    same = len(sizes) == len(head_size) and np.allclose(sizes, head_size, atol=1e-3)
    return known if same else {}


def _as_princeton(joints: np.ndarray) -> np.ndarray:
    """``part`` of valid.h5 from ``pos_gt_src``, both [2958, 16, 2] 1-based px; NaN: not scored."""
    joints = joints.copy()
    for row, joint, x, y in _ZERO_IN_MAT:
        joints[row, MPII.index(joint)] = x, y
    head = [MPII.index("upper_neck"), MPII.index("head_top")]
    whole = np.rint(joints[:, head])
    near = np.abs(joints[:, head] - whole) < _NOISE
    joints[:, head] = np.where(near, whole, np.trunc(joints[:, head]))
    # princeton-vl's script treats a joint with x = 0 as missing.
    return np.where(np.abs(joints[..., :1]) < _NOISE, np.nan, joints)
