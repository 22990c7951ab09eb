"""People of a record set, or of predictions on it, as one HTML page that opens from disk.

The page needs no other file: pictures are data URIs, and its content security policy allows only
the page's own script and no network. Strings from files (names, ids) reach the page as JSON or
escaped text only, and its script writes them as text: they cannot become markup.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import os
import re

import cv2
import numpy as np
import tensorflow as tf
import tqdm

from hourglass import affine, skeleton
from pipelines.data import input_pipeline, preprocessing, tfrecords
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED
from pipelines.evaluation import ground_truth, prediction_files, scoring
from pipelines.io import check_file_writable, read_whole, write_atomically
from pipelines.visualization import draw

# Width of a thumbnail in crop sides: the network's input and a margin for joints outside it.
VIEW = 1.2

# Head sizes.
HIT = 0.5

_TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "people_page.html")
_STATES = {MISSING: "missing", OCCLUDED: "occluded", LABELLED: "visible"}
_SIDES = ("right", "left", "middle")
_JPEG_QUALITY = 85
_BATCH = 32


@dataclasses.dataclass(frozen=True, eq=False)
class _Predicted:
    """Predictions of a split's N people.

    Attributes:
      joints: [N, J, 2] float64 image px, NaN for people without a prediction.
      confidence: [N, J] float32, NaN likewise.
      errors: [N, J] head sizes, NaN where not scored or not predicted.
      missing: [N] bool, people without a prediction.
    """

    joints: np.ndarray
    confidence: np.ndarray
    errors: np.ndarray
    missing: np.ndarray


def run(
    folder: str,
    output: str,
    *,
    split: str = "validation",
    predictions_file: str = "",
    max_people: int = 200,
    size: int = 256,
    megabytes: float = 50.0,
) -> None:
    """Write the page; print its size, and how many people it shows and leaves out.

    Args:
      folder: of the records.
      output: the HTML file.
      split: "train", "validation" or "test".
      predictions_file: what ``prediction_files.read`` reads; people are then sorted by mean error,
        the worst first. Empty: true joints only, in the records' order.
      max_people: maximum number of people.
      size: side of a thumbnail, px.
      megabytes: maximum size of the page (10^6 bytes); the last people are left out beyond it.

    Raises:
      FileNotFoundError: no records, or no predictions.
      ValueError: damaged records, an empty split, predictions of other joints or people, or a page
        that is too small for a single person.
      OSError: the page cannot be written.
    """
    check_file_writable(output)
    info = tfrecords.read_info(folder)
    tfrecords.check_shards(info, split)
    labels = input_pipeline.labels(info, split)
    predicted = _read(predictions_file, info, split, labels) if predictions_file else None
    order = np.arange(len(labels["row"])) if predicted is None else _order(predicted)
    order = order[:max_people]
    people = _people(labels, predicted, order, size)
    pictures = _thumbnails(info, split, order, size)
    for person, index in zip(people, order):
        person["image"] = pictures[index]
    title = f"{info.name} {split}" + (f": {predictions_file}" if predictions_file else "")
    page, shown = _page(
        info, labels, predicted, people, title=title, size=size, megabytes=megabytes
    )
    write_atomically(output, page)
    if predicted is not None and predicted.missing.any():
        print(_missing_line(labels, predicted))
    print(
        f"{output}: {shown} of {len(labels['row'])} people, {len(page) / 1e6:.1f} MB"
        + (f"; more than {shown} exceed --megabytes={megabytes:g}" if shown < len(people) else "")
    )


def _read(path: str, info: tfrecords.DatasetInfo, split: str, labels: dict) -> _Predicted:
    """Predictions matched by id; ValueError for other joints or people."""
    file = prediction_files.read(path)
    if file.skeleton != info.skeleton:
        raise ValueError(
            f"{path} predicts {len(file.skeleton)} joints {file.skeleton.joints}, the records in "
            f"{info.folder} have {len(info.skeleton)}: {info.skeleton.joints}; name the records "
            "that were predicted"
        )
    index_of = {name.decode(): index for index, name in enumerate(labels["id"])}
    unknown = [name for name in file.ids if name not in index_of]
    if unknown or not file.ids:
        raise ValueError(
            f"{len(unknown)} of {len(file.ids)} people in {path} are not in the {split} split of "
            f"{info.folder} ({', '.join(unknown[:3]) or 'it is empty'}); name the records and the "
            "split that were predicted"
        )
    indices, people = [index_of[name] for name in file.ids], len(index_of)
    joints = np.full([people, len(info.skeleton), 2], np.nan)
    confidence, missing = np.full(joints.shape[:2], np.nan, np.float32), np.ones(people, bool)
    joints[indices], confidence[indices], missing[indices] = file.joints, file.confidence, False
    errors = scoring.errors(joints, ground_truth.of_records(info, split, labels))
    errors[missing] = np.nan
    return _Predicted(joints, confidence, errors, missing)


def _order(predicted: _Predicted) -> np.ndarray:
    """[N] indices: scored people, the worst first, then unscored ones, then those not predicted."""
    worst = scoring.worst(predicted.errors)
    return worst[np.argsort(predicted.missing[worst], kind="stable")]


def _missing_line(labels: dict, predicted: _Predicted) -> str:
    names = [name.decode() for name in labels["id"][predicted.missing]]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} people without a prediction: {', '.join(names[:5])}{more}"


def _summary(info: tfrecords.DatasetInfo, labels: dict, predicted: _Predicted | None) -> str:
    count, head = f"{len(labels['row'])} people", f"One head: {info.head_rule}."
    if predicted is None:
        return f"{count}. {head}"
    scored = int((~np.isnan(predicted.errors)).any(1).sum())
    absent = f" {_missing_line(labels, predicted)}." if predicted.missing.any() else ""
    return f"{count}, {scored} scored; PCKh@{HIT} in percent. {head}{absent}"


def _scores(info: tfrecords.DatasetInfo, predicted: _Predicted | None) -> dict[str, float | None]:
    """PCKh of each group of joints and each mean, percent; None where no joint is scored."""
    if predicted is None:
        return {}
    row = scoring.pckh(predicted.errors, info.skeleton, HIT)
    return dict(zip(row, _numbers(np.array(list(row.values())))))


def _crop_to_thumbnail(labels: dict, size: int) -> tf.Tensor:
    """[B, 2, 3] float32, also for pixels."""
    return preprocessing.crop_to_input({**labels, "side": labels["side"] * VIEW}, size)


def _people(labels: dict, predicted: _Predicted | None, order: np.ndarray, size: int) -> list[dict]:
    """Everything that the page shows of each person except pictures; points in thumbnail px."""
    labels = {key: value[order] for key, value in labels.items()}
    matrix = tf.cast(_crop_to_thumbnail(labels, size), tf.float64)
    truth = affine.apply(matrix, labels["joints"].astype(np.float64)).numpy()
    truth[labels["state"] == MISSING] = np.nan
    people = [
        {
            "id": labels["id"][k].decode(),
            "row": int(labels["row"][k]),
            "state": [_STATES[state] for state in labels["state"][k].tolist()],
            "truth": _points(truth[k]),
        }
        for k in range(len(order))
    ]
    if predicted is None:
        return people
    image_to_thumbnail = affine.compose(affine.invert(labels["crop_to_image"]), matrix)
    points = affine.apply(image_to_thumbnail, predicted.joints[order]).numpy()
    means = scoring.over_joints(np.nanmean, predicted.errors)[order]
    for k, (person, index) in enumerate(zip(people, order)):
        if not predicted.missing[index]:
            person["predicted"] = _points(points[k])
            person["confidence"] = _numbers(predicted.confidence[index])
            person["errors"] = _numbers(predicted.errors[index])
            person["mean"] = _numbers(means[k : k + 1])[0]
    return people


def _points(points: np.ndarray) -> list:
    return [p.round(2).tolist() if np.isfinite(p).all() else None for p in points]


def _numbers(values: np.ndarray) -> list:
    """Numbers for JSON: unknown ones become null, an infinite error the text "Infinity"."""
    return [
        None if np.isnan(value) else round(value, 3) if np.isfinite(value) else "Infinity"
        for value in values.tolist()
    ]


def _thumbnails(info: tfrecords.DatasetInfo, split: str, indices: np.ndarray, size: int) -> dict:
    """Index -> JPEG as a data URI."""
    pictures = {}
    with tqdm.tqdm(total=len(indices), unit="person", disable=None) as bar:
        for batch in input_pipeline.chosen(info, split, indices, batch=_BATCH):
            pixels = affine.warp(batch["image"], _crop_to_thumbnail(batch, size), size)
            pixels = np.rint(pixels).astype(np.uint8)
            for index, rgb in zip(batch["index"].numpy().tolist(), pixels):
                pictures[index] = _data_uri(rgb)
            bar.update(len(pixels))
    return pictures


def _data_uri(rgb: np.ndarray) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), quality)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


def _page(info, labels, predicted, people: list[dict], *, title: str, size: int, megabytes: float):
    """The page's bytes and the number of people that fit into it."""
    texts = [_json(person) for person in people]
    colors = {key: _css(value) for key, value in draw.colors(info.skeleton).items()}
    side_of = [skeleton.side(name) or "middle" for name in info.skeleton.joints]
    sides = dict(zip(side_of, colors["joints"]))
    document = {
        "people": len(labels["row"]),
        "scores": _scores(info, predicted),
        "joints": info.skeleton.joints,
        "limbs": info.skeleton.limbs,
        "colors": {**colors, "sides": {k: sides[k] for k in _SIDES if k in sides}},
        "size": size,
        "crop": size / VIEW,
        "hit": HIT,
    }
    parts = {
        "TITLE": html.escape(title),
        "SUMMARY": html.escape(_summary(info, labels, predicted)),
        "SETUP": _json(document),
        "PEOPLE": "[]",
    }
    room = megabytes * 1e6 - len(_filled(parts).encode())
    shown = int((np.cumsum([len(text) + 1 for text in texts]) <= room).sum())
    if not shown:
        raise ValueError(
            f"--megabytes={megabytes:g} is too small for one person: a thumbnail of {size} px "
            f"takes {len(texts[0]) / 1e6:.3f} MB; allow more, or a smaller --size"
        )
    return _filled({**parts, "PEOPLE": f"[{','.join(texts[:shown])}]"}).encode(), shown


def _filled(parts: dict[str, str]) -> str:
    """The template with each @@NAME@@ replaced; replacements are not searched for further names.

    The policy allows only the template's own script, by its hash.
    """
    template = read_whole(_TEMPLATE).decode()
    script = template.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {**parts, "SCRIPT_HASH": f"'sha256-{digest}'"}
    return re.sub("@@([A-Z_]+)@@", lambda match: parts[match[1]], template)


def _css(color) -> str | list[str]:
    return [_css(part) for part in color] if isinstance(color, list) else "#" + bytes(color).hex()


def _json(value) -> str:
    """JSON for a script element, where "</script>" and "<!--" would end or change it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
