"""Photographs and people -> shards and dataset.json, on every core; whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from pipelines.data import write_shards
from pipelines.data.annotations import (
    MAX_PX,
    MIN_HEAD_SIZE,
    MIN_SIDE,
    MISSING,
    SPLITS,
    Annotated,
    Person,
)
from pipelines.data.cropping import Geometry, window
from pipelines.data.locate import present
from pipelines.data.tfrecords import (
    INFO_FILE,
    JPEG_QUALITY,
    DatasetInfo,
    fingerprint,
    read_info,
)
from pipelines.data.write_shards import PARTIAL
from pipelines.io import write_atomically

LEFT_OUT_FILE = "left_out.json"
PEOPLE_PER_SHARD = 512

# With the start of its checksum; in records of earlier versions without.
_SHARD = re.compile(rf"({'|'.join(SPLITS)})-\d{{5}}-of-\d{{5}}(-[0-9a-f]{{8}})?\.tfrecord")
_UNFINISHED = re.compile(rf"({_SHARD.pattern}|{INFO_FILE}|{LEFT_OUT_FILE})({PARTIAL})+")


def convert(
    annotated: Annotated,
    images: str,
    records: str,
    *,
    geometry: Geometry,
    shards: int = 0,
    workers: int = 0,
    seed: int = 0,
    quality: int = JPEG_QUALITY,
    allow_missing_images: bool = False,
    upright: bool = False,
    overwrite: bool = False,
) -> tuple[DatasetInfo, bool]:
    """Write every person's record and, last of all, dataset.json.

    Train shards hold the photographs in a shuffled order that depends on ``seed`` alone, people of
    one photograph side by side; the other splits keep their published order.

    Args:
      annotated: what a reader returned.
      images: folder of the photographs.
      records: folder to write to.
      geometry: context and resolution of the crops.
      shards: files per split; 0 = one for every 512 people.
      workers: processes; 0 = one per core.
      seed: of the order of the train shards.
      quality: of the JPEG crops, 1-100.
      allow_missing_images: leave out, and count, people whose photograph is not there.
      upright: turn photographs as their EXIF orientation says, except where ``annotated.upright``
        tells otherwise.
      overwrite: replace whatever records the folder holds.

    Returns:
      dataset.json's content, and whether anything was written: False when the folder already holds
      exactly these records.

    Raises:
      FileNotFoundError: photographs are missing. FileExistsError: the folder holds other records.
      ValueError: no people, a person without a usable window, a path outside the images folder,
        or a split without people.
      OSError: a file cannot be written. ChildProcessError: a worker died.
    """
    _check_people(annotated, geometry, records)
    missing = missing_photographs(images, annotated.people)
    _check_missing(images, annotated.people, missing, allow_missing_images)
    decided = {"shards": shards, "seed": seed, "jpeg_quality": quality}
    decided.update({"upright": True} if upright else {})
    settings = _settings(annotated, decided, len(missing))
    if not overwrite and _already_there(records, annotated.name, geometry, settings):
        return read_info(records), False
    plan = _plan([one for one in annotated.people if one.image not in missing], shards, seed)
    absent = [person.id for person in annotated.people if person.image in missing]
    _open_folder(records)
    try:
        tasks = write_shards.tasks_of(plan, images, records, annotated.upright, upright)
        written = write_shards.write(tasks, geometry, quality, workers)
        unreadable = [shard.left_out for shard in written]
        left_out = _merged([annotated.left_out, {"photograph missing": absent}, *unreadable])
        splits = _splits([shard.entry for shard in written], left_out, records)
        info = _info(annotated, images, records, geometry, settings, splits, left_out)
        not_turned = len(set().union(*(shard.not_turned for shard in written)))
        info = dataclasses.replace(info, not_turned=not_turned)
        _publish(info, left_out)
    finally:
        _remove_leftovers(records)
    return info, True


def _settings(annotated: Annotated, decided: dict, missing: int) -> dict:
    return {
        **decided,
        "missing_photographs": missing,
        "head_rule": annotated.head_rule,
        "people_sha256": fingerprint(annotated.people),
        **annotated.settings,
        **_turned(annotated.upright),
    }


def _turned(upright: dict[str, bool]) -> dict[str, list[str]]:
    names = sorted(name for name, turn in upright.items() if turn)
    return {"turned_photographs": names} if names else {}


def _info(
    annotated: Annotated,
    images: str,
    records: str,
    geometry: Geometry,
    settings: dict,
    splits: dict,
    left_out: dict[str, list[str]],
) -> DatasetInfo:
    return DatasetInfo(
        folder=records,
        name=annotated.name,
        skeleton=annotated.skeleton,
        head_rule=annotated.head_rule,
        origin=annotated.origin,
        geometry=geometry,
        splits=splits,
        left_out={reason: len(ids) for reason, ids in left_out.items()},
        sources=(*annotated.sources, images),
        settings=settings,
    )


def _merged(parts: list[dict[str, list[str]]]) -> dict[str, list[str]]:
    """Reason -> ids of all parts; reasons without ids are dropped."""
    merged = {}
    for reason, ids in (item for part in parts for item in part.items()):
        if ids:
            merged.setdefault(reason, []).extend(ids)
    return merged


def _check_people(annotated: Annotated, geometry: Geometry, records: str) -> None:
    if not annotated.people:
        raise ValueError(
            f"no usable people in {', '.join(annotated.sources)}"
            f"{_reasons(records, annotated.left_out)}; check the annotation file"
        )
    ids = {person.id for person in annotated.people}
    if len(ids) < len(annotated.people):
        raise ValueError(f"{annotated.name}: person ids are not unique; each must be")
    for person in annotated.people:
        _check_numbers(person)
        window(person, geometry)
        parts = person.image.replace("\\", "/").split("/")
        if not person.image or os.path.isabs(person.image) or ".." in parts or "\0" in person.image:
            raise ValueError(
                f"person {person.id}: photograph {person.image!r} is not inside the images folder; "
                "write its path relative to that folder, without '..'"
            )


def _reasons(records: str, left_out: dict[str, list[str]]) -> str:
    """Return the counted reasons, in brackets; all names go to left_out.json.

    Records that are there keep their own file, and then the reasons go without names.
    """
    if not left_out:
        return ""
    text = ", ".join(f"{reason}: {len(ids):,}" for reason, ids in left_out.items())
    if tf.io.gfile.exists(os.path.join(records, INFO_FILE)):
        return f" ({text})"
    path = os.path.join(records, LEFT_OUT_FILE)
    write_atomically(path, json.dumps(left_out, indent=1).encode())
    return f" ({text}; their ids are in {path})"


def _check_numbers(person: Person) -> None:
    """Raise ValueError naming a person with numbers that float32 records cannot hold."""
    positions = np.concatenate([person.joints[person.state != MISSING], [person.center]])
    if not (np.abs(positions) <= MAX_PX).all():
        raise ValueError(
            f"person {person.id}: centre {person.center} and labelled joints must be finite, "
            f"of at most {MAX_PX:g} px; correct the annotation"
        )
    for what, value, least in (
        ("crop side", person.side, MIN_SIDE),
        ("head size", person.head_size, MIN_HEAD_SIZE),
    ):
        unknown = what == "head size" and math.isnan(value)
        if not (unknown or least <= value <= MAX_PX):
            raise ValueError(
                f"person {person.id}: the {what} is {value} px, not {least:g} to {MAX_PX:g}; "
                "correct the annotation"
            )


def missing_photographs(images: str, people: Iterable[Person]) -> set[str]:
    """Names, relative to ``images``, of people's photographs that do not exist."""
    if not tf.io.gfile.isdir(images):
        raise FileNotFoundError(f"no images folder at {images}; give it with --images")
    names = {person.image for person in people}
    return names - present(images, names)


def _check_missing(images: str, people: Iterable[Person], missing: set[str], allowed: bool) -> None:
    total = len({person.image for person in people})
    if not missing or (allowed and len(missing) < total):
        return
    names = ", ".join(sorted(missing)[:10]) + (", ..." if len(missing) > 10 else "")
    remedy = "Put them there, or leave their people out with --allow_missing_images"
    if len(missing) == total:
        remedy = "Is --images the right folder?"
    raise FileNotFoundError(
        f"{len(missing)} of {total} photographs are not in {images}: {names}. {remedy}"
    )


def _already_there(records: str, name: str, geometry: Geometry, settings: dict) -> bool:
    """Whether the folder holds exactly these records; FileExistsError for any others."""
    if not tf.io.gfile.exists(os.path.join(records, INFO_FILE)):
        foreign = [] if _unfinished(records) else _shard_files(records)
        if foreign:
            raise FileExistsError(
                f"{records} holds {foreign[0]} but no {INFO_FILE}, so it may belong to another "
                "tool; choose another --records, or replace it with --overwrite"
            )
        return False
    old = read_info(records)
    if (old.name, old.geometry, old.settings) == (name, geometry, settings):
        return True
    raise FileExistsError(
        f"{records} already holds records of {old.name!r} "
        f"({_differences(old, name, geometry, settings)}); "
        "choose another --records, or replace them with --overwrite"
    )


def _differences(old: DatasetInfo, name: str, geometry: Geometry, settings: dict) -> str:
    pairs = {"data set": (old.name, name), "geometry": (old.geometry, geometry)}
    pairs.update({key: (old.settings.get(key), value) for key, value in settings.items()})
    before, now = pairs.pop("people_sha256")
    differ = [f"{k} is {a!s:.80}, asked for {b!s:.80}" for k, (a, b) in pairs.items() if a != b]
    return "; ".join(differ + ["its people's annotations are others"] * (before != now))


def _shard_files(records: str) -> list[str]:
    if not tf.io.gfile.isdir(records):
        return []
    return sorted(name for name in tf.io.gfile.listdir(records) if _SHARD.fullmatch(name))


def _unfinished(records: str) -> bool:
    """Whether a run was interrupted while it put its finished shards in place."""
    return tf.io.gfile.exists(os.path.join(records, INFO_FILE + PARTIAL))


def _open_folder(records: str) -> None:
    try:
        tf.io.gfile.makedirs(records)
        _remove_leftovers(records)
    except tf.errors.OpError as error:
        raise OSError(f"cannot write to {records}: {error.message}; choose another") from error


def _remove_leftovers(records: str) -> None:
    """Remove what an interrupted run left; finished records and other files stay."""
    marker = INFO_FILE + PARTIAL
    unfinished = [one for one in tf.io.gfile.listdir(records) if _UNFINISHED.fullmatch(one)]
    if marker in unfinished:
        unfinished += _orphans(records)
    # The marker last: without it, the shards that are left would pass for another tool's.
    for name in sorted(unfinished, key=lambda name: name == marker):
        tf.io.gfile.remove(os.path.join(records, name))


def _orphans(records: str) -> list[str]:
    """Shards that dataset.json does not name; nothing is known of them where it is unreadable."""
    try:
        parts = read_info(records).splits.values()
    except FileNotFoundError:
        parts = ()
    except ValueError:
        return []
    named = {shard["file"] for part in parts for shard in part["shards"]}
    return [name for name in _shard_files(records) if name not in named]


def _plan(people: list[Person], shards: int, seed: int) -> dict[str, list[Person]]:
    """Shard file name -> its people, in order."""
    plan = {}
    for split in SPLITS:
        members = sorted((p for p in people if p.split == split), key=lambda p: p.row)
        if split == "train":
            members = _shuffled(members, seed)
        files = min(shards or math.ceil(len(members) / PEOPLE_PER_SHARD), len(members))
        for k in range(files):
            share = members[k * len(members) // files : (k + 1) * len(members) // files]
            plan[f"{split}-{k:05d}-of-{files:05d}.tfrecord"] = share
    return plan


def _shuffled(members: list[Person], seed: int) -> list[Person]:
    """Photographs in a random order; their people stay together, so that each is decoded once."""
    names = sorted({person.image for person in members})
    order = dict(zip(names, np.random.default_rng(seed).permutation(len(names))))
    return sorted(members, key=lambda person: (order[person.image], person.row))


def _splits(written: list[dict], left_out: dict[str, list[str]], records: str) -> dict:
    splits = {}
    for shard in written:
        part = splits.setdefault(shard["file"].split("-")[0], {"people": 0, "shards": []})
        part["people"] += shard["people"]
        part["shards"].append(shard)
    for split, part in splits.items():
        if not part["people"]:
            reasons = _reasons(records, left_out)
            raise ValueError(f"no people of the split {split!r} could be written{reasons}")
    return splits


def _publish(info: DatasetInfo, left_out: dict[str, list[str]]) -> None:
    """Put finished shards in place; then dataset.json, and only then the old shards go."""
    final = os.path.join(info.folder, INFO_FILE)
    # From here on its partial name marks the shards that no dataset.json names as leftovers.
    write_atomically(final + PARTIAL, info.to_json().encode())
    for part in info.splits.values():
        for shard in part["shards"]:
            path = os.path.join(info.folder, shard["file"])
            tf.io.gfile.rename(path + PARTIAL, path, overwrite=True)
    names = json.dumps(left_out, indent=1).encode()
    write_atomically(os.path.join(info.folder, LEFT_OUT_FILE), names)
    tf.io.gfile.rename(final + PARTIAL, final, overwrite=True)
    for name in _orphans(info.folder):
        tf.io.gfile.remove(os.path.join(info.folder, name))
