"""Any JSON value in place of any value of a JSON file: a result, or one sentence."""

import json
import pathlib
import random
import tempfile

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from hourglass.skeleton import MPII
from pipelines import checkpoints
from pipelines.data import tfrecords
from pipelines.data.readers import coco, mpii
from pipelines.evaluation import prediction_files
from pipelines.inference import box_files, boxes
from pipelines.training import run_dir, run_lock
from tests.fire import corpus, damages

FEW = hypothesis.settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)

PLAIN = st.one_of(
    st.sampled_from([value for value in damages.VALUES if not isinstance(value, (list, dict))]),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
)
ANY = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)

BUILD = {"joints": 16, "stacks": 1, "blocks": 1, "channels": 8, "depth": 1, "size": 32}
SHARD = {"file": "train-0.tfrecord", "people": 2, "bytes": 9, "sha256": "00"}
DOCUMENTS = {
    "model.json": {
        "build": BUILD,
        **MPII.to_parts(),
        "data": {"name": "drawn", "people": 2, "sha256": "00"},
        "expects": {
            "mean": [0.4, 0.4, 0.4],
            "decode": "quarter",
            "geometry": {"context": 2.0, "side": 64},
        },
    },
    "dataset.json": {
        "schema": tfrecords.SCHEMA,
        "name": "drawn",
        **MPII.to_parts(),
        "head_rule": "a rule",
        "origin": 1,
        "geometry": {"context": 2.0, "side": 64, "canvas": 128},
        "splits": {"train": {"people": 2, "shards": [SHARD]}},
        "left_out": {"crowd": 3},
        "sources": ["a.json"],
        "settings": {"coco": {"category_id": 1, "image_ids": {"a.jpg": 7}}, "seed": 0},
        "not_turned": 0,
    },
    "best.json": {"step": 6, "weights": "model", "mean14": 12.5},
    "training.lock": {"host": "here", "pid": 1, "started": "1", "renewed": 1.0},
    "validated.json": {"step": 6},
    "annotations.json": {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 80, "height": 60}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 2,
                "iscrowd": 0,
                "keypoints": [10, 20, 2, 30, 40, 1],
                "bbox": [1, 2, 30, 40],
            }
        ],
        "categories": [
            {"id": 2, "name": "fish", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}
        ],
    },
    "people.json": {"a.jpg": [[1, 2, 30, 40]], "b.jpg": []},
    "detections.json": [
        {"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.9},
        {"file_name": "b.jpg", "category_id": 1, "bbox": [1, 2, 30, 40], "iscrowd": 0},
    ],
    "predictions.json": {
        "joint_names": ["nose", "tail"],
        "origin": 0,
        "published_origin": 1,
        "people": [{"id": "a#1", "row": 0, "joints": [[1, 2], [3, 4]], "confidence": [1, 0.5]}],
    },
}
(ONE,) = corpus.people(1)
DOCUMENTS["bearpaw.json"] = [corpus.bearpaw(*ONE)]
DOCUMENTS["hrnet.json"] = [corpus.hrnet(*ONE)]


def read_run(path: str) -> None:
    folder = str(pathlib.Path(path).parent)
    arguments, skeleton = checkpoints.read_network(folder)
    mean, decoder = checkpoints.read_expected(folder)
    assert len(mean) == 3 and np.isfinite(mean).all() and isinstance(decoder, str)
    assert checkpoints.read_geometry(folder).canvas <= 4096
    assert isinstance(arguments, dict) and all(isinstance(name, str) for name in skeleton.joints)


def read_records(path: str) -> None:
    info = tfrecords.read_info(str(pathlib.Path(path).parent))
    assert info.count("train") >= 0 and info.size("train") >= 0 and info.shards("train")
    assert info.skeleton.groups and info.to_json() and isinstance(info.origin, int)


def read_best(path: str) -> None:
    folder = pathlib.Path(path).parent
    (folder / "best").mkdir()
    pathlib.Path(path).rename(folder / "best" / "best.json")
    checkpoints.find(str(folder))


def read_lock(path: str) -> None:
    with run_lock.hold(str(pathlib.Path(path).parent)):
        pass


def read_validated(path: str) -> None:
    assert isinstance(run_dir.last_validation(str(pathlib.Path(path).parent)), int)


def read_people(people) -> None:
    for person in people:
        numbers = [*person.center, person.side, *person.joints.ravel()]
        assert np.isfinite(numbers).all() and person.image


def read_boxes(path: str) -> None:
    check_boxes(box_files.read(path))


def check_boxes(found: boxes.Boxes) -> None:
    for name, entries in found.people.items():
        assert isinstance(name, str)
        assert all(isinstance(boxes.problem(one.box, 80, 60), str) for one in entries)
    boxes.match(found, ["pictures/a.jpg", "pictures/b.jpg"])


def read_detections(path: str) -> None:
    annotations = pathlib.Path(path).parent / "annotations.json"
    annotations.write_text(json.dumps(DOCUMENTS["annotations.json"]))
    check_boxes(box_files.read(path, str(annotations)))


def read_predictions(path: str) -> None:
    predictions = prediction_files.read(path)
    assert predictions.joints.shape == (len(predictions.ids), len(predictions.skeleton), 2)


READ = {
    "model.json": read_run,
    "dataset.json": read_records,
    "best.json": read_best,
    "training.lock": read_lock,
    "validated.json": read_validated,
    "annotations.json": lambda path: read_people(coco.read(path, head="box:0.1").people),
    "bearpaw.json": lambda path: read_people(mpii.read(path).people),
    "hrnet.json": lambda path: read_people(mpii.read(path).people),
    "people.json": read_boxes,
    "detections.json": read_detections,
    "predictions.json": read_predictions,
}


@pytest.mark.parametrize("name", DOCUMENTS)
@FEW
@hypothesis.given(seed=st.integers(0, 2**32), value=ANY)
def test_any_value_in_any_place(name, seed, value):
    """Errors are ValueError or OSError with a text; never another type, never a NaN in people."""
    document = DOCUMENTS[name]
    place = damages.a_place(document, random.Random(seed))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, name)
        path.write_text(json.dumps(damages.replaced(document, place, value)))
        try:
            READ[name](str(path))
        except (ValueError, OSError) as error:
            assert str(error)
