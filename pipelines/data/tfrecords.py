"""Person crops as TFRecords: the one tf.Example schema, its geometry, and dataset.json.

``crop`` -> ``encode`` writes what ``decode`` reads; nothing else knows the schema.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable

import cv2
import numpy as np
import tensorflow as tf

from hourglass.skeleton import Skeleton
from pipelines.data import cropping
from pipelines.data.annotations import MISSING, SPLITS, Person
from pipelines.io import check_regular, read_whole

INFO_FILE = "dataset.json"


SCHEMA = 1


# Full-resolution chroma (4:4:4): a shrunk photograph has sharp colours, unlike its original.
# Mean error at 256 px input over 3 real MPII crops, and size of one: quality 92 4:4:4 0.86 grey
# levels, 58 KB; 92 4:2:0 1.25, 46 KB; 95 4:2:0 1.01, 58 KB; 95 4:4:4 0.64, 72 KB. It costs the
# decoder a fifth of its speed (284 against 355 Mpx/s per core).
JPEG_QUALITY = 92


def encode(
    person: Person, square: np.ndarray, crop_to_image: np.ndarray, quality: int = JPEG_QUALITY
) -> bytes:
    """Serialise a person and what ``crop`` returned for them as one tf.Example.

    Joints go in as float32 crop px (finer than 3e-5 px on a 724 px canvas), the matrix as float64.
    """
    joints = cropping.to_crop(person.joints, crop_to_image)
    joints[person.state == MISSING] = 0.0
    features = {
        "image": _bytes(_jpeg(square, quality)),
        "joints": _floats(joints),
        "state": _ints(person.state),
        "center": _floats(cropping.to_crop(person.center, crop_to_image)),
        "side": _floats([person.side / crop_to_image[0, 0]]),
        "crop_to_image": _bytes(crop_to_image.astype("<f8").tobytes()),
        "head_size": _floats([person.head_size]),
        "id": _bytes(person.id.encode()),
        "row": _ints([person.row]),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # A map has no order of its own, and the records' checksums must not depend on the process.
    return example.SerializeToString(deterministic=True)


def fingerprint(people: Iterable[Person]) -> str:
    """SHA-256 of everything about the people that reaches their records, in order."""
    digest = hashlib.sha256()
    for person in people:
        words = (person.id, person.image, person.split, person.row, person.side, person.head_size)
        digest.update(repr(words).encode())
        for array in (person.center, person.joints):
            digest.update(np.asarray(array, "<f8").tobytes())
        digest.update(np.asarray(person.state, np.uint8).tobytes())
    return digest.hexdigest()


def decode(serialized: tf.Tensor, *, joints: int, canvas: int) -> dict[str, tf.Tensor]:
    """Parse one record inside tf.data; every shape is static.

    Args:
      serialized: [] string.
      joints: J, from the data set's skeleton.
      canvas: ``geometry.canvas`` of the data set.

    Returns:
      image [canvas, canvas, 3] uint8 RGB (zeros right of and below the stored crop), joints [J, 2]
      float32 crop px (zeros where missing), state [J] int32, center [2] float32 crop px, side []
      float32 crop px, crop_to_image [2, 3] float64, head_size [] float32 image px (NaN unknown),
      id [] string, row [] int64.
    """
    record = tf.io.parse_single_example(
        serialized,
        {
            "image": tf.io.FixedLenFeature([], tf.string),
            "joints": tf.io.FixedLenFeature([joints, 2], tf.float32),
            "state": tf.io.FixedLenFeature([joints], tf.int64),
            "center": tf.io.FixedLenFeature([2], tf.float32),
            "side": tf.io.FixedLenFeature([], tf.float32),
            "crop_to_image": tf.io.FixedLenFeature([], tf.string),
            "head_size": tf.io.FixedLenFeature([], tf.float32),
            "id": tf.io.FixedLenFeature([], tf.string),
            "row": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    record["image"] = _pixels(record["image"], canvas)
    record["state"] = tf.cast(record["state"], tf.int32)
    matrix = tf.io.decode_raw(record["crop_to_image"], tf.float64, little_endian=True)
    record["crop_to_image"] = tf.reshape(matrix, [2, 3])
    return record


def _pixels(jpeg: tf.Tensor, canvas: int) -> tf.Tensor:
    # INTEGER_FAST gains 3 % of speed and darkens every pixel by 0.7 grey levels: not worth it.
    image = tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")
    rest = canvas - tf.shape(image)[:2]
    image = tf.pad(image, [[0, rest[0]], [0, rest[1]], [0, 0]])
    return tf.ensure_shape(image, [canvas, canvas, 3])


def _jpeg(square: np.ndarray, quality: int) -> bytes:
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    ok, jpeg = cv2.imencode(".jpg", cv2.cvtColor(square, cv2.COLOR_RGB2BGR), settings)
    if not ok:
        raise ValueError(f"OpenCV could not write a JPEG of shape {square.shape}")
    return jpeg.tobytes()


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _floats(values) -> tf.train.Feature:
    flat = np.asarray(values, np.float32).ravel()
    return tf.train.Feature(float_list=tf.train.FloatList(value=flat))


def _ints(values) -> tf.train.Feature:
    flat = np.asarray(values, np.int64).ravel()
    return tf.train.Feature(int64_list=tf.train.Int64List(value=flat))


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What dataset.json holds about the shards in its folder.

    Attributes:
      folder: where the records are (not stored in the file).
      name: data set, e.g. "mpii".
      skeleton: its joint set.
      head_rule: how the PCKh normaliser is measured, one sentence.
      origin: coordinate that the published files give the first pixel's centre.
      geometry: context and resolution of the crops.
      splits: split -> {"people": count, "shards": [{"file", "people", "bytes", "sha256"}]}.
      left_out: reason -> number of people; their ids are in left_out.json.
      sources: the files read.
      settings: everything else that decided the bytes of the shards, or that goes with them.
      not_turned: photographs with an EXIF orientation that was ignored without a size to tell.
    """

    folder: str
    name: str
    skeleton: Skeleton
    head_rule: str
    origin: int
    geometry: cropping.Geometry
    splits: dict
    left_out: dict
    sources: tuple[str, ...]
    settings: dict
    not_turned: int = 0

    def count(self, split: str) -> int:
        """People in a split; ValueError when the data set has none."""
        return self._split(split)["people"]

    def shards(self, split: str) -> list[str]:
        """Full paths of a split's shards, in order; ValueError when the data set has none."""
        return [os.path.join(self.folder, shard["file"]) for shard in self._split(split)["shards"]]

    def size(self, split: str) -> int:
        """Bytes of a split's shards; ValueError when the data set has none."""
        return sum(shard["bytes"] for shard in self._split(split)["shards"])

    def _split(self, split: str) -> dict:
        part = self.splits.get(split)
        if not part or not part["people"]:
            have = ", ".join(f"{name} {one['people']}" for name, one in self.splits.items())
            raise ValueError(
                f"{self.folder} ({self.name}) has no people in the split {split!r}; its splits: "
                f"{have or 'no split'}. Choose one of these or convert other records"
            )
        return part

    def to_json(self) -> str:
        """Text of dataset.json."""
        return json.dumps(
            {
                "schema": SCHEMA,
                "name": self.name,
                **self.skeleton.to_parts(),
                "head_rule": self.head_rule,
                "origin": self.origin,
                "geometry": {**dataclasses.asdict(self.geometry), "canvas": self.geometry.canvas},
                "splits": self.splits,
                "left_out": self.left_out,
                "sources": self.sources,
                "settings": self.settings,
                "not_turned": self.not_turned,
            },
            indent=1,
        )


def read_info(folder: str) -> DatasetInfo:
    """Read ``folder``/dataset.json.

    Raises FileNotFoundError where there is none, ValueError for a file that is not ours.
    """
    path = os.path.join(folder, INFO_FILE)
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(
            f"no records in {folder}: {path} is missing. "
            f"Write them with: python scripts/make_tfrecords.py --records={folder}"
        )
    data = read_whole(path)
    try:
        return _parse_info(folder, json.loads(data))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a dataset.json of this version (schema {SCHEMA}): {error!r}. "
            "Convert again with --overwrite"
        ) from error


def check_unchanged(info: DatasetInfo) -> None:
    """Raise ValueError where other records stand in the folder since ``info`` was read."""
    if read_info(info.folder).splits != info.splits:
        raise ValueError(
            f"the records in {info.folder} were written again while they are used; start this "
            "command again with records that stay, a training of others in another --workdir"
        )


def _parse_info(folder: str, parts: dict) -> DatasetInfo:
    if parts["schema"] != SCHEMA:
        raise ValueError(f"schema {parts['schema']}")
    wrong = [key for key, kind in _KINDS.items() if type(parts[key]) is not kind]
    if wrong:
        raise ValueError(f"{wrong[0]} should be a {_KINDS[wrong[0]].__name__}")
    _check_coco(parts["settings"].get("coco"))
    for split in parts["splits"].values():
        counts = [shard[key] for shard in split["shards"] for key in ("people", "bytes")]
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("people and bytes of a shard should be whole numbers")
        names = [shard["file"] for shard in split["shards"]]
        if any(os.path.basename(name) != name for name in names):
            raise ValueError("a shard lies outside the folder")
        if split["people"] != sum(shard["people"] for shard in split["shards"]):
            raise ValueError("the counts of the shards do not add up")
    geometry = parts["geometry"]
    return DatasetInfo(
        folder=folder,
        name=parts["name"],
        skeleton=Skeleton.from_parts(parts),
        head_rule=parts["head_rule"],
        origin=parts["origin"],
        geometry=cropping.Geometry(geometry["context"], geometry["side"]),
        splits={split: parts["splits"][split] for split in SPLITS if split in parts["splits"]},
        left_out=parts["left_out"],
        sources=tuple(parts["sources"]),
        settings=parts["settings"],
        not_turned=parts.get("not_turned", 0),
    )


# Keys of dataset.json that are not checked where they are read.
_KINDS = {
    **{"name": str, "head_rule": str, "origin": int, "left_out": dict, "sources": list},
    "settings": dict,
}


def _check_coco(settings: object) -> None:
    """Raise where COCO's results could not be written with what a COCO reader has kept."""
    if settings is not None and not isinstance(settings["image_ids"], dict):
        raise ValueError("coco's image_ids should be an object")


def sha256(path: str) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 22), b""):
            digest.update(piece)
    return digest.hexdigest()


def check_shards(info: DatasetInfo, split: str, contents: bool = True) -> None:
    """Compare a split's shards with dataset.json: sizes, and with ``contents`` the SHA-256 too.

    Raises FileNotFoundError for a missing shard; ValueError naming the file and the first bad
    record for a truncated or altered one.
    """
    for path, shard in zip(info.shards(split), info._split(split)["shards"]):
        if not tf.io.gfile.exists(path):
            raise FileNotFoundError(f"{path} is missing although {INFO_FILE} lists it; {_REMEDY}")
        check_regular(path)
        size = tf.io.gfile.stat(path).length
        if size != shard["bytes"]:
            where = first_bad_record(path, shard["people"])
            raise ValueError(f"{path} has {size} bytes, not {shard['bytes']}; {where}; {_REMEDY}")
        if contents and sha256(path) != shard["sha256"]:
            where = first_bad_record(path, shard["people"])
            raise ValueError(f"{path} was altered (SHA-256 differs); {where}; {_REMEDY}")


_REMEDY = "copy it again or convert again with --overwrite"


def first_bad_record(path: str, people: int) -> str:
    """Which record (0-based) of a damaged shard of ``people`` records is the first bad one."""
    good = 0
    try:
        for _ in tf.data.TFRecordDataset(path):
            good += 1
    except tf.errors.DataLossError:
        return f"record {good} of {people} is damaged"
    if good < people:
        return f"record {good} of {people} is missing"
    return f"all {good} records are whole, but they are not those that were written"
