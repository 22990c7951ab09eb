"""Predicted joints, keyed by person, to and from .mat, .h5 and .json files.

The .mat and .h5 files contain ``preds`` in the data set's own coordinates (MPII: the first pixel's
centre is 1), in the order of the published split, as third-party evaluators expect, and the rows'
person ``ids``. The .json file is for other uses: 0-based, everything by name. ``read_foreign`` also
reads what other projects publish: an array ``preds`` in those coordinates.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence

import h5py
import numpy as np
import scipy.io

from hourglass.skeleton import Skeleton
from pipelines.data.readers import files
from pipelines.inference import coco_results
from pipelines.io import read_whole, write_atomically

# A file with more numbers than this is not one of ours (MPII's test set has 400,000).
_MAX_NUMBERS = 100_000_000

# Contents of our own .mat and .h5 files; a file without all of them is another project's.
_OURS = ("preds", "confidence", "rows", "origin", "ids", "joint_names")


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted joints of N people.

    Attributes:
      ids: N different person ids.
      rows: [N] int64, ascending: each person's index in the split's published order.
      joints: [N, J, 2] float64, 0-based image px, pixel centres on integers.
      confidence: [N, J] float32, the heatmap's peak.
      skeleton: names the joints.
      origin: coordinate of the first pixel's centre in published files; only writers add it.

    Raises ValueError if the shapes do not match, or a person or a row appears twice.
    """

    ids: tuple[str, ...]
    rows: np.ndarray
    joints: np.ndarray
    confidence: np.ndarray
    skeleton: Skeleton
    origin: int

    def __post_init__(self):
        """Validate once what all users of this record rely on."""
        shapes = self.rows.shape, self.joints.shape, self.confidence.shape
        people, joints = len(self.ids), len(self.skeleton)
        if shapes != ((people,), (people, joints, 2), (people, joints)):
            raise ValueError(
                f"rows, joints, confidence of shapes {shapes} do not match {people} ids and "
                f"{joints} joints: pass [N], [N, J, 2], [N, J]"
            )
        for kind, values in (("person", self.ids), ("row", self.rows.tolist())):
            twice = [str(value) for value, n in Counter(values).items() if n > 1]
            if twice:
                raise ValueError(
                    f"{len(twice)} of the predictions share a {kind} ({', '.join(twice[:3])}); "
                    "each person is predicted once: drop padded examples and repeated batches"
                )
        if (np.diff(self.rows) < 0).any():
            raise ValueError("rows must ascend; in_published_order() sorts them")


def in_published_order(
    ids: Sequence[str | bytes],
    rows: np.ndarray,
    joints: np.ndarray,
    confidence: np.ndarray,
    skeleton: Skeleton,
    origin: int,
) -> Predictions:
    """``Predictions`` of people in any order, sorted by row.

    Args:
      ids: N person ids.
      rows: [N] int.
      joints: [N, J, 2] 0-based image px.
      confidence: [N, J].
      skeleton: names the joints.
      origin: see ``Predictions``.

    Raises:
      ValueError: no person, or a person or a row twice.
    """
    if not len(rows):
        raise ValueError("no predictions: the split is empty; choose another")
    order = np.argsort(rows, kind="stable")
    return Predictions(
        ids=tuple(_text(ids[i]) for i in order),
        rows=rows[order].astype(np.int64),
        joints=joints[order].astype(np.float64),
        confidence=confidence[order].astype(np.float32),
        skeleton=skeleton,
        origin=origin,
    )


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _arrays(predictions: Predictions) -> dict[str, np.ndarray]:
    """Arrays of the .mat and .h5 files; only here the published origin is added."""
    return {
        "preds": predictions.joints + predictions.origin,
        "confidence": predictions.confidence,
        "rows": predictions.rows,
        "origin": np.int64(predictions.origin),
    }


def write_mat(path: str, predictions: Predictions) -> None:
    """MATLAB 5 file: ``preds`` [N, J, 2] published coordinates, ``ids`` and ``joint_names`` cells.

    Also ``confidence`` [N, J], ``rows`` [N] and ``origin``. Raises OSError if it cannot write.
    """
    names = {"ids": predictions.ids, "joint_names": predictions.skeleton.joints}
    cells = {key: np.array(value, dtype=object) for key, value in names.items()}
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {**_arrays(predictions), **cells}, do_compression=True)
    write_atomically(path, buffer.getvalue())


def write_h5(path: str, predictions: Predictions) -> None:
    """HDF5 file: ``preds`` [N, J, 2] published coordinates, ``ids`` and ``joint_names`` as UTF-8.

    Also ``confidence`` [N, J], ``rows`` [N] and ``origin``. Raises OSError if it cannot write.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in _arrays(predictions).items():
            file[name] = array
        file.create_dataset("ids", data=list(predictions.ids), dtype=h5py.string_dtype())
        joints = list(predictions.skeleton.joints)
        file.create_dataset("joint_names", data=joints, dtype=h5py.string_dtype())
    write_atomically(path, buffer.getvalue())


def write_json(path: str, predictions: Predictions) -> None:
    """JSON: ``joint_names``, ``origin`` 0 and ``people``: id, row, joints [J][2], confidence [J].

    Positions are 0-based image px; ``published_origin`` is what the other formats add. A number
    that is not finite becomes null. Raises OSError if it cannot write.
    """
    people = [
        {"id": name, "row": int(row), "joints": _plain(joints), "confidence": _plain(confidence)}
        for name, row, joints, confidence in zip(
            predictions.ids, predictions.rows, predictions.joints, predictions.confidence
        )
    ]
    document = {
        "joint_names": list(predictions.skeleton.joints),
        "origin": 0,
        "published_origin": predictions.origin,
        "people": people,
    }
    write_atomically(path, json.dumps(document, allow_nan=False).encode())


def write_coco(path: str, predictions: Predictions, coco: dict) -> None:
    """JSON list in COCO's keypoint-results format, for ``pycocotools`` and other tools.

    Args:
      path: the file.
      predictions: with ids that start with the image, before "#".
      coco: ``image_ids`` (image -> id) and ``category_id`` of the annotations, as
        ``readers.coco`` stores them in a record set's settings.

    Raises OSError if it cannot write, KeyError for a person of an image that is not in ``coco``.
    """
    image_ids = [coco["image_ids"][name[: name.rfind("#")]] for name in predictions.ids]
    people = [
        coco_results.entry(image_id, coco["category_id"], joints, confidence, 4)
        for image_id, joints, confidence in zip(
            image_ids, predictions.joints, predictions.confidence
        )
    ]
    write_atomically(path, json.dumps(people, allow_nan=False).encode())


def _plain(array: np.ndarray) -> list:
    return np.where(np.isfinite(array), array, None).tolist()


def read(path: str) -> Predictions:
    """Read a file of one of the writers; the extension (.mat, .h5, .json) determines the format.

    Raises:
      FileNotFoundError: no such file.
      ValueError: another format, or a file that the writers here cannot have written.
    """
    parsers = {".mat": _read_mat, ".h5": _read_h5, ".json": _read_json}
    extension = os.path.splitext(path)[1].lower()
    if extension not in parsers:
        raise ValueError(
            f"{path} has the extension {extension!r}; predictions are .mat, .h5 or .json"
        )
    data = read_whole(path)
    try:
        return parsers[extension](data)
    except Exception as error:  # The three parsers raise many types on broken bytes.
        raise ValueError(
            f"{path} is not a predictions file of this project ({error!r}); write it again"
        ) from error


def _named(joints: Iterable[str]) -> Skeleton:
    # Prediction files contain names only; their data set has the mirror pairs.
    return Skeleton(tuple(joints), pairs=())


def _from_arrays(arrays: dict, ids: Iterable, joint_names: Iterable) -> Predictions:
    origin = int(np.asarray(arrays["origin"]).item())
    return Predictions(
        ids=tuple(map(_text, ids)),
        rows=np.asarray(arrays["rows"], np.int64).ravel(),
        joints=np.asarray(arrays["preds"], np.float64) - origin,
        confidence=np.asarray(arrays["confidence"], np.float32),
        skeleton=_named(map(_text, joint_names)),
        origin=origin,
    )


def _read_mat(data: bytes) -> Predictions:
    arrays = scipy.io.loadmat(io.BytesIO(data), variable_names=_OURS)
    ids, joints = ([cell.item() for cell in arrays[key].ravel()] for key in ("ids", "joint_names"))
    return _from_arrays(arrays, ids, joints)


def _read_h5(data: bytes) -> Predictions:
    with h5py.File(io.BytesIO(data), "r") as file:
        arrays = {name: _own_dataset(file, name)[()] for name in _OURS}
    return _from_arrays(arrays, arrays["ids"], arrays["joint_names"])


def _own_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Open a dataset stored in this very file: HDF5 can refer to other files on this machine."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is missing, or a link")
    dataset = file[name]
    if dataset.external or dataset.is_virtual or dataset.size > _MAX_NUMBERS:
        raise ValueError(f"{name} is stored in other files, or has {dataset.size} entries")
    return dataset


def _read_json(data: bytes) -> Predictions:
    document = json.loads(data)
    people = document["people"]
    if document["origin"] != 0:
        raise ValueError(f"origin is {document['origin']}, must be 0")
    return Predictions(
        ids=tuple(str(person["id"]) for person in people),
        rows=np.array([person["row"] for person in people], np.int64),
        joints=np.array([person["joints"] for person in people], np.float64),
        confidence=np.array([person["confidence"] for person in people], np.float32),
        skeleton=_named(document["joint_names"]),
        origin=int(document["published_origin"]),
    )


def read_foreign(
    path: str, origin: int, skeleton: Skeleton
) -> tuple[tuple[str, ...] | None, np.ndarray]:
    """Read predictions of any project: ours with their keys, others as arrays without keys.

    Formats: ``.json`` of ``write_json``; ``.mat`` and ``.h5`` with ``preds``, by us or by
    others (pytorch-pose, HRNet, princeton-vl); ``.npy``; and ``detections_our_format.mat``, with
    Tompson's predictions in ``pos_pred_src``.

    Args:
      path: the file, local or gs://.
      origin: coordinate of the first pixel's centre in published files of this data set (MPII: 1).
        It is subtracted from arrays without keys, all of which are published so.
      skeleton: the joints that the caller expects.

    Returns:
      N person ids, or None for an array without keys; and positions [N, J, 2] float64, 0-based
      image px. A third column (confidence) is dropped.

    Raises:
      FileNotFoundError: no such file.
      ValueError: another format, a damaged file, one that would run code (pickled .npy), other
        joints, or an array that is not [N, J, 2] or [N, J, 3] numbers.
    """
    parsers = {".mat": _foreign_mat, ".h5": _foreign_h5, ".npy": _foreign_npy, ".json": None}
    extension = os.path.splitext(path)[1].lower()
    if extension not in parsers:
        raise ValueError(
            f"{path} has the extension {extension!r}; predictions are .mat, .h5, .npy or .json"
        )
    array = None if extension == ".json" else parsers[extension](read_whole(path), path)
    if array is None:
        own = read(path)
        if own.skeleton != skeleton:
            raise ValueError(f"{path} predicts {own.skeleton.joints}, not {skeleton.joints}")
        return own.ids, own.joints
    if array.shape[1:] not in ((len(skeleton), 2), (len(skeleton), 3)):
        raise ValueError(
            f"{path}: the predictions have the shape {list(array.shape)}; they must be "
            f"[people, {len(skeleton)}, 2] or [people, {len(skeleton)}, 3]"
        )
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: the predictions are {array.dtype}, not real numbers")
    return None, array[..., :2].astype(np.float64) - origin


def _foreign_mat(data: bytes, path: str) -> np.ndarray | None:
    """Return the array; None if the file has the keys of our own files."""
    variables = files.parse_mat(data, path, variable_names=("pos_pred_src", *_OURS))
    if set(_OURS) <= set(variables):
        return None
    if "pos_pred_src" in variables:
        tompson = variables["pos_pred_src"]
        return tompson.transpose(2, 0, 1) if tompson.ndim == 3 else tompson
    if "preds" not in variables:
        present = [name for name, *_ in scipy.io.whosmat(io.BytesIO(data))]
        raise ValueError(f'{path} has no variable "preds", only {present}')
    return variables["preds"]


def _foreign_h5(data: bytes, path: str) -> np.ndarray | None:
    """Return the array; None if the file has the keys of our own files."""
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            if "preds" not in file:
                raise ValueError(f'it has no data set "preds", only {sorted(file)}')
            return None if set(_OURS) <= set(file) else _own_dataset(file, "preds")[()]
    except Exception as error:  # h5py raises a dozen types on broken bytes.
        raise ValueError(f"{path} cannot be read as predictions in HDF5: {error}") from error


def _foreign_npy(data: bytes, path: str) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # An absurd size in the header is a MemoryError.
        raise ValueError(
            f"{path} cannot be read as one plain array: {error}; write it with numpy.save, "
            "allow_pickle=False"
        ) from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} is an archive of several arrays; save the one array as .npy")
    return array
