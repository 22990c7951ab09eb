"""The data that is measured on: photographs of MPII's size, their records and stored crops.

Synthetic people are drawn, enlarged to the size of MPII's photographs and given a sensor's noise,
so that decoding and cropping cost as much as MPII's. Most files are hard links to a few.
"""

from __future__ import annotations

import dataclasses
import json
import os

import cv2
import numpy as np
import tensorflow as tf

from pipelines.benchmark import Part
from pipelines.data import cropping, tfrecords
from pipelines.data.annotations import Annotated
from pipelines.data.readers import mpii
from pipelines.data.synthetic import scene
from pipelines.data.write_tfrecords import convert

MAX_DRAWN = 96  # photographs; the other files are links to them
ENLARGED = 3.4  # to 0.92 megapixels on average, the size of most of MPII's photographs
NOISE = 4.0  # grey levels, standard deviation
MAX_CROPS = 256  # taken from the records
SHARDS = 8  # per split: more than cores, as in large record sets


def prepare(folder: str, given: str, count: int) -> tfrecords.DatasetInfo:
    """Fill ``folder`` with photographs and, unless ``given``, with their records.

    Args:
      folder: empty; gets photographs/, photographs.npz, crops/ and crops.npz, records/.
      given: folder of existing records to measure on; "" to convert the photographs.
      count: number of photographs, with one person each.

    Returns:
      The records' dataset.json.

    Raises:
      FileNotFoundError, ValueError: ``given`` holds no records.
    """
    info = tfrecords.read_info(given) if given else None
    # One process: starting more would take longer than drawing these few.
    scene.generate(os.path.join(folder, "drawn"), min(count, MAX_DRAWN), seed=0, workers=1)
    os.makedirs(os.path.join(folder, "photographs"))
    with open(os.path.join(folder, "people.json"), "w") as file:
        json.dump(count, file)
    for person in photographs(folder).people:
        _photograph(folder, person.image)
    if info is None:
        info, _ = convert_into(folder, os.path.join(folder, "records"))
    _write_tables(folder, info)
    return info


def prepared(settings: dict, folder: str, count: int) -> Part:
    """``prepare`` as a part, with the details {"records": folder of the records}."""
    info = prepare(folder, "", count)
    return Part(lambda steps: None, 1, details=lambda: {"records": info.folder})


def _original(name: str) -> str:
    return name.split("_")[-1]


def _photograph(folder: str, name: str) -> None:
    """Write photograph ``name``: the first of identical ones is drawn, the others are links."""
    images = os.path.join(folder, "photographs")
    first = os.path.join(images, f"0000_{_original(name)}")
    if os.path.exists(first):
        os.link(first, os.path.join(images, name))
        return
    small = cv2.imread(os.path.join(folder, "drawn", "images", _original(name)))
    large = cv2.resize(small, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, NOISE, large.shape)
    noisy = np.clip(large + noise, 0, 255).astype(np.uint8)
    cv2.imwrite(first, noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])


def photographs(folder: str) -> Annotated:
    """People of the photographs that ``prepare`` wrote."""
    with open(os.path.join(folder, "people.json")) as file:
        count = json.load(file)
    drawn = mpii.read(os.path.join(folder, "drawn", "annotations.json"), name="synthetic")
    people = []
    for k in range(count):
        person, copy = drawn.people[k % len(drawn.people)], k // len(drawn.people)
        name = f"{copy:04d}_{person.image}"
        people.append(
            dataclasses.replace(
                person,
                id=f"{name}#1",
                image=name,
                row=k,
                center=_enlarge(person.center),
                joints=np.where(person.state[:, None] > 0, _enlarge(person.joints), 0.0),
                side=person.side * ENLARGED,
                head_size=person.head_size * ENLARGED,
            )
        )
    return dataclasses.replace(drawn, people=tuple(people))


def _enlarge(points: np.ndarray) -> np.ndarray:
    return (points + 0.5) * ENLARGED - 0.5


def convert_into(
    folder: str, target: str, geometry: cropping.Geometry | None = None
) -> tuple[tfrecords.DatasetInfo, bool]:
    """Convert the photographs to records in ``target`` as scripts/make_tfrecords.py would."""
    return convert(
        photographs(folder),
        os.path.join(folder, "photographs"),
        target,
        geometry=geometry or cropping.Geometry(),
        shards=SHARDS,
        overwrite=True,
    )


def _write_tables(folder: str, info: tfrecords.DatasetInfo) -> None:
    """Tables of photographs and of stored crops that can be read without TensorFlow."""
    people = photographs(folder).people
    geometry = cropping.Geometry()
    windows = [cropping.window(person, geometry) for person in people]
    _table(
        folder,
        "photographs",
        names=[person.image for person in people],
        center=[person.center for person in people],
        side=[person.side for person in people],
        joints=[person.joints for person in people],
        state=[person.state for person in people],
        window=[(x, y, width, min(width, geometry.canvas)) for x, y, width in windows],
        mirror=info.skeleton.mirror,
    )
    os.makedirs(os.path.join(folder, "crops"))
    crops = [_crop(folder, k, raw) for k, raw in enumerate(_serialized(info))]
    joined = {key: [crop[key] for crop in crops] for key in crops[0]}
    _table(folder, "crops", **joined, mirror=info.skeleton.mirror)


def _serialized(info: tfrecords.DatasetInfo):
    return tf.data.TFRecordDataset(info.shards("train")).take(MAX_CROPS).as_numpy_iterator()


def _crop(folder: str, k: int, serialized: bytes) -> dict:
    """Write a record's JPEG as a file; return its row of the table."""
    feature = tf.train.Example.FromString(serialized).features.feature
    name = f"{k:06d}.jpg"
    with open(os.path.join(folder, "crops", name), "wb") as file:
        file.write(feature["image"].bytes_list.value[0])
    return {
        "names": name,
        "center": list(feature["center"].float_list.value),
        "side": feature["side"].float_list.value[0],
        "joints": np.reshape(feature["joints"].float_list.value, [-1, 2]),
        "state": list(feature["state"].int64_list.value),
    }


def _table(folder: str, name: str, **columns) -> None:
    arrays = {key: np.array(values) for key, values in columns.items()}
    np.savez(os.path.join(folder, f"{name}.npz"), **arrays)
