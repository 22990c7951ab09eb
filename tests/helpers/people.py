"""A tiny record set of drawn people, and runs of seconds on it.

24 people to train on and 10 to validate, MPII's joints, crops of 64 px (canvas 128). Each is a
stick figure on noise whose joints are discs of their own colours: a network can learn to find them.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import pickle

import cv2
import numpy as np
import tensorflow as tf

from hourglass.skeleton import MPII, Skeleton
from pipelines.config import Config
from pipelines.data import cropping, tfrecords
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED, Person

GEOMETRY = cropping.Geometry(context=2.0, side=64)


TRAIN, VALIDATION = 24, 10


# A standing person in units of the crop's side, from the centre; y points down.
_POSE = np.array(
    [
        (-0.12, 0.42),
        (-0.11, 0.22),
        (-0.08, 0.02),
        (0.08, 0.02),
        (0.11, 0.22),
        (0.12, 0.42),
        (0.0, 0.02),
        (0.0, -0.24),
        (0.0, -0.29),
        (0.0, -0.42),
        (-0.24, 0.04),
        (-0.21, -0.10),
        (-0.14, -0.23),
        (0.14, -0.23),
        (0.21, -0.10),
        (0.24, 0.04),
    ]
)


def draw_person(k: int, split: str, row: int, skeleton: Skeleton) -> tuple[np.ndarray, Person]:
    """Photograph [220, 200, 3] uint8 RGB and the person in it; everything follows from ``k``."""
    random = np.random.default_rng(k)
    image = random.integers(0, 60, (220, 200, 3), np.uint8)
    side = random.uniform(90, 150)
    center = np.array([100.0, 110.0]) + random.uniform(-8, 8, 2)
    joints = center + side * (_POSE + random.uniform(-0.03, 0.03, _POSE.shape))
    joints = joints[: len(skeleton)]
    state = np.full(len(skeleton), LABELLED, np.uint8)
    state[k % len(skeleton)], state[(k + 5) % len(skeleton)] = MISSING, OCCLUDED
    for a, b in skeleton.limbs:
        ends = np.rint(joints[[a, b]]).astype(int).tolist()
        cv2.line(image, *ends, (150, 150, 150), max(2, round(side / 30)), cv2.LINE_AA)
    for j, joint in enumerate(joints):
        hue = np.uint8([[[j * 11, 255, 255]]])
        color = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
        cv2.circle(image, np.rint(joint).astype(int).tolist(), round(side / 25), color, -1)
    joints[state == MISSING] = 0.0
    name = f"{split}{row}.jpg"
    who = Person(
        id=f"{name}#1",
        image=name,
        split=split,
        row=row,
        center=center,
        side=side,
        joints=joints,
        state=state,
        head_size=np.nan if k % 12 == 11 else side * 0.12,
    )
    return image, who


def write_records(
    folder: pathlib.Path,
    counts: dict[str, int],
    *,
    shards: int = 3,
    skeleton: Skeleton = MPII,
    first: int = 0,
    draw=draw_person,
) -> tuple[tfrecords.DatasetInfo, dict[str, list[Person]]]:
    """Write people as shards and dataset.json; return it and the people of each split."""
    folder.mkdir(parents=True, exist_ok=True)
    splits, people = {}, {}
    for split, count in counts.items():
        entries, people[split] = [], []
        for shard in range(shards):
            path = folder / f"{split}-{shard:05d}-of-{shards:05d}.tfrecord"
            rows = range(shard * count // shards, (shard + 1) * count // shards)
            with tf.io.TFRecordWriter(str(path)) as writer:
                for row in rows:
                    k = first + row + (1000 if split == "validation" else 0)
                    image, who = draw(k, split, row, skeleton)
                    writer.write(tfrecords.encode(who, *cropping.crop(image, who, GEOMETRY)))
                    people[split].append(who)
            entries.append(
                {
                    "file": path.name,
                    "people": len(rows),
                    "bytes": path.stat().st_size,
                    "sha256": tfrecords.sha256(str(path)),
                }
            )
        splits[split] = {"people": count, "shards": entries}
    info = tfrecords.DatasetInfo(
        folder=str(folder),
        name="drawn",
        skeleton=skeleton,
        head_rule="0.12 of the crop's side",
        origin=1,
        geometry=GEOMETRY,
        splits=splits,
        left_out={},
        sources=("numpy",),
        settings={},
    )
    (folder / tfrecords.INFO_FILE).write_text(info.to_json())
    return tfrecords.read_info(str(folder)), people


def once(tmp_path_factory, name: str, make):
    """What ``make(folder)`` returned in that of the processes of this test run which came first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = pathlib.Path(f"{folder}.pickle")
        if not made.exists():
            made.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(made.read_bytes())


def tiny(workdir: pathlib.Path, info: tfrecords.DatasetInfo, **changes) -> Config:
    """A run of seconds: 12 steps of 8 people in 4 epochs, one hourglass of 8 channels, 32 px."""
    settings = dict(
        workdir=str(workdir),
        records=info.folder,
        stacks=1,
        channels=8,
        depth=1,
        size=32,
        global_batch_size=8,
        epochs=4.0,
        ema_decay=0.9,
        evaluate_every=2.0,
        evaluation_batch_size=4,
        log_every=2,
        strategy="one",
        # So few steps leave an almost untrained network. By its true statistics all that it says is
        # amplified noise, and rounding would move joints in every comparison.
        precise_bn_examples=0,
    )
    return Config(**{**settings, **changes})
