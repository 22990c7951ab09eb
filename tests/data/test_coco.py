"""COCO keypoint files: reading them, and from them to records, training, scores and back."""

import json
import math
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from hourglass.skeleton import Skeleton
from pipelines import checkpoints
from pipelines.data import tfrecords
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED
from pipelines.data.readers import coco, instances, splits
from pipelines.evaluation import evaluate, prediction_files
from pipelines.training import train
from tests.helpers.forked import ROOT
from tests.helpers.people import tiny
from tests.helpers.toys import TOY_PAIRS, draw_toys, write

DATA = os.environ.get("HOURGLASS_TEST_DATA")
needs_data = pytest.mark.skipif(
    not DATA, reason="HOURGLASS_TEST_DATA does not name the data folder"
)
JOINTS = ["nose", "left_ear", "right_ear", "tail"]


def annotation(number, image=1, **changes):
    """A dog of 40 x 80 px at (10, 20) with an occluded ear and no tail."""
    keypoints = [12, 22, 2, 15, 24, 1, 18.5, 24.25, 2, 0, 0, 0]
    entry = {"id": number, "image_id": image, "category_id": 3, "iscrowd": 0}
    return {**entry, "bbox": [10, 20, 40, 80], "keypoints": keypoints, **changes}


def document(annotations, images=2, **changes):
    pictures = [{"id": n, "file_name": f"{n}.jpg", "width": 200, "height": 100} for n in range(9)]
    dog = {"id": 3, "name": "dog", "keypoints": JOINTS, "skeleton": [[1, 2], [3, 1], [2, 1]]}
    return {
        "images": pictures[1 : images + 1],
        "annotations": annotations,
        "categories": [dog],
        **changes,
    }


def read(folder, content, **options):
    return coco.read(write(folder, content), **{"head": "box:0.1", **options})


def test_a_file_by_hand(tmp_path):
    result = read(
        tmp_path,
        document([annotation(8), annotation(5, 2)]),
        head="joint:nose,joint:left_ear",
        validation_fraction=0,
    )
    first, second = result.people
    assert (first.id, first.image, first.split, first.row) == ("1.jpg#8", "1.jpg", "train", 0)
    assert (second.id, second.row) == ("2.jpg#5", 1)
    assert first.state.tolist() == [LABELLED, OCCLUDED, LABELLED, MISSING]
    # Joints are pixel centres as they stand; the box starts at a pixel's edge.
    assert first.joints.tolist() == [[12, 22], [15, 24], [18.5, 24.25], [0, 0]]
    assert first.center.tolist() == [29.5, 59.5]
    assert first.side == pytest.approx(1.25 * 80)
    assert first.head_size == pytest.approx(math.hypot(3, 2))
    assert result.skeleton.joints == tuple(JOINTS) and result.skeleton.mirror == (0, 2, 1, 3)
    assert result.skeleton.limbs == ((0, 1), (0, 2))
    assert (result.name, result.origin, result.left_out) == ("coco dog", 0, {})
    assert result.settings["coco"]["image_ids"] == {"1.jpg": 1, "2.jpg": 2}
    assert result.settings["coco"]["category_id"] == 3
    assert "1.jpg" not in instances.describe(result) and "left_ear:right_ear" in instances.describe(
        result
    )


@pytest.mark.parametrize("box", [None, [], [10, 20, 0, 80]])
def test_without_a_box_of_some_size_the_joints_make_one(tmp_path, box):
    result = read(tmp_path, document([annotation(1, bbox=box)]), head="box:0.5")
    (person,) = result.people
    # x from 12 to 18.5, y from 22 to 24.25
    assert person.center.tolist() == [15.25, 23.125]
    assert person.side == pytest.approx(1.35 * 6.5)
    assert person.head_size == pytest.approx(0.5 * 6.5)
    assert result.settings["coco"]["boxes_from_joints"] == 1
    assert "1 of 1 have no bbox" in instances.describe(result)


@pytest.mark.parametrize("more", [0, 1])
def test_boxes_that_copy_the_joints_extent_are_none(tmp_path, more):
    """x from 12 to 18.5, y from 22 to 24.25; tools write the extent or one pixel more."""
    tight = [12, 22, 6.5 + more, 2.25 + more]
    copied = [annotation(n, bbox=tight) for n in (1, 2)]
    result = read(tmp_path, document(copied))
    assert [person.side for person in result.people] == pytest.approx([1.35 * 6.5] * 2)
    assert result.people[0].center.tolist() == [15.25, 23.125]
    (note,) = result.notes
    assert note.startswith("the bbox of all 2 annotations is just the box of their joints")
    one_real = read(tmp_path, document([*copied, annotation(3)]))
    assert one_real.people[0].side == pytest.approx(1.25 * (6.5 + more)) and not one_real.notes


@pytest.mark.parametrize(
    ("changes", "reason", "who"),
    [
        ({"iscrowd": 1}, "crowd (iscrowd)", "1.jpg#7"),
        ({"keypoints": [1, 1, 0] * 4, "num_keypoints": 0}, "no labelled joint", "1.jpg#7"),
        ({"keypoints": None}, "no keypoints", "1.jpg#7"),
        ({"keypoints": []}, "no keypoints", "1.jpg#7"),
        ({"image_id": 4}, "image_id not in images", "image 4#7"),
        ({"category_id": 1, "keypoints": [1]}, "of another category", "1.jpg#7"),
        ({"bbox": None, "keypoints": [5, 5, 2] + [0] * 9}, "box without size", "1.jpg#7"),
        (
            {"bbox": None, "keypoints": [5, 5, 2, 5, 5.4, 2] + [0] * 6},
            "box without size",
            "1.jpg#7",
        ),
        ({"bbox": [10, 20, 40, -1]}, "box of negative size", "1.jpg#7"),
        ({"bbox": [200, 0, 9, 9]}, "box outside the picture", "1.jpg#7"),
        ({"bbox": [-9, 5, 9, 9]}, "box outside the picture", "1.jpg#7"),
    ],
)
def test_who_is_left_out_is_named(tmp_path, changes, reason, who):
    result = read(tmp_path, document([annotation(6), annotation(7, **changes)]))
    assert [person.id for person in result.people] == ["1.jpg#6"]
    assert result.left_out == {reason: [who]}


def test_a_box_with_one_column_of_the_picture_is_kept(tmp_path):
    boxes = [[199, 0, 9, 9], [-8.5, 5, 9, 9]]
    people = read(tmp_path, document([annotation(n, bbox=b) for n, b in enumerate(boxes)])).people
    assert len(people) == 2


def test_missing_joints_may_hold_anything_else_not(tmp_path):
    keypoints = [12, 22, 2, 15, 24, 1, 18, 24, 2, None, math.nan, 0]
    (person,) = read(tmp_path, document([annotation(1, keypoints=keypoints)])).people
    assert person.joints[3].tolist() == [0, 0]
    for bad in (
        [None, 1, 2],
        [1, math.inf, 1],
        [1e308, 1, 2],
        [10**400, 1, 2],
        [0, 0, 3],
        [1, 1, 3],
        ["x", 1, 1],
        [1, 1, -1],
        [1, 1, None],
    ):
        broken = document([annotation(41, keypoints=keypoints[:9] + bad)])
        with pytest.raises(ValueError, match="annotation 41: .*flag 0 .missing"):
            read(tmp_path, broken)


def test_labelled_at_the_corner_is_missing_and_counted(tmp_path):
    corner = [0, 0, 2, 0, 0, 1, 18.5, 24.25, 2, 0, 0, 0]
    content = document([annotation(1, bbox=None), annotation(2, keypoints=corner)])
    result = read(tmp_path, content, validation_fraction=0)
    assert result.people[1].state.tolist() == [MISSING, MISSING, LABELLED, MISSING]
    (note,) = result.notes
    assert note.startswith("2 joints in 1 of 2 annotations are flagged as labelled at (0, 0)")


REFUSED = [
    (
        {"annotations": [annotation(9, keypoints=[1, 1, 2] * 3)]},
        "annotation 9: .*3 joints.*'dog'.*4",
    ),
    ({"annotations": [annotation(9, keypoints=[1, 1, 2, 1])]}, "annotation 9: .*1.33333 joints"),
    ({"annotations": [annotation(9, keypoints="abc")]}, "annotation 9: .*'abc'"),
    ({"annotations": [annotation(9, bbox=[1, 2, 3])]}, 'annotation 9: "bbox" must be 4 finite'),
    ({"annotations": [annotation(9, bbox=[1, 2, 3, math.nan])]}, 'annotation 9: "bbox" must be'),
    ({"annotations": [annotation(9, bbox=[1, 2, 1e308, 3])]}, 'annotation 9: "bbox" must be'),
    ({"annotations": [annotation(9, bbox=[-(10**400), 2, 3, 3])]}, 'annotation 9: "bbox" must be'),
    *(
        ({"images": [{"id": 1, "file_name": "1.jpg", "width": 9, "height": bad}]}, message)
        for bad, message in [
            (-480, 'image 1: "height" must be positive, not -480'),
            (10**400, 'image 1: "height" must be a finite number, not 1000'),
            (math.nan, 'image 1: "height" must be a finite number, not nan'),
            ("480 px", "image 1: \"height\" must be a finite number, not '480 px'"),
        ]
    ),
    ({"annotations": [annotation(9), annotation(9)]}, "annotation id 9 occurs twice"),
    ({"annotations": [annotation(None)]}, 'annotation at index 0: "id" must be a whole'),
    ({"annotations": [annotation(9, image_id=[1])]}, 'annotation 9: "image_id" must be'),
    ({"annotations": [7]}, "annotations should hold objects, not 7"),
    ({"annotations": {}}, "should be COCO JSON"),
    ({"images": [{"id": 1, "file_name": "../x.jpg"}]}, "image 0: .*'../x.jpg' must lie in the"),
    ({"images": [{"id": 1, "file_name": "/x.jpg"}]}, "must lie in the images folder"),
    ({"images": [{"id": 1, "file_name": "C:\\x.jpg"}]}, "must lie in the images folder"),
    ({"images": [{"id": 1}]}, "image 0: the photograph must be a file name"),
    ({"images": [{"id": 1, "file_name": "a"}] * 2}, "the id 1 occurs twice in images"),
    ({"categories": [{"id": 1, "name": "box"}]}, "no category names keypoints"),
    ({"categories": [{"id": 3, "name": "dog", "keypoints": [1]}]}, "keypoints should be names"),
    ({"categories": [{"id": 3, "name": "dog", "keypoints": ["a", "a"]}]}, "different names"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_files_that_cannot_be_used_say_where_and_why(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, {**document([annotation(1)]), **changes})


@pytest.mark.parametrize("limbs", [[[0, 1]], [[1, 5]], [[1, 2, 3]], [[1, "2"]], "1-2"])
def test_limbs_count_from_one(tmp_path, limbs):
    content = document([annotation(1)])
    content["categories"][0]["skeleton"] = limbs
    result = read(tmp_path, content)
    assert result.skeleton.limbs == Skeleton(tuple(JOINTS)).limbs
    (note,) = result.notes
    assert "'dog': skeleton should hold pairs of joint numbers from 1 to 4" in note


def test_missing_file_and_file_of_another_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match="no annotation file"):
        coco.read(str(tmp_path / "none.json"), head="box:0.1")
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(ValueError, match="not readable as JSON"):
        coco.read(str(tmp_path / "annotations.json"), head="box:0.1")


def test_one_of_several_categories(tmp_path):
    content = document([annotation(1), annotation(2, category_id=4, keypoints=[5, 6, 2] * 2)])
    content["categories"] += [
        {"id": 4, "name": "cat", "keypoints": ["nose", "tail"]},
        {"id": 5, "name": "car"},
    ]
    with pytest.raises(ValueError, match="choose --category= of dog, cat$"):
        read(tmp_path, content)
    with pytest.raises(ValueError, match="no category 'car' has keypoints, only dog, cat"):
        read(tmp_path, content, category="car")
    result = read(tmp_path, content, category="cat")
    assert [person.id for person in result.people] == ["1.jpg#2"] and len(result.skeleton) == 2
    assert result.left_out == {"of another category": ["1.jpg#1"]}


class TestMirrorPairs:
    def skeleton(self, folder, names, pairs=""):
        content = document(
            [annotation(1, keypoints=[3, 4, 2, 5, 6, 2] + [0] * 3 * (len(names) - 2))]
        )
        content["categories"][0].update(keypoints=names, skeleton=[])
        return read(folder, content, mirror_pairs=pairs).skeleton

    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ("left_eye", "right_eye"),
            ("l_eye", "r_eye"),
            ("eye_left", "eye_right"),
            ("eye_l", "eye_r"),
            ("Left Eye", "Right Eye"),
            ("LEFT_EYE", "RIGHT_EYE"),
            ("L_Eye", "R_Eye"),
            ("eye-L", "eye-R"),
            ("front_left_paw", "front_right_paw"),
            ("LeftEye", "RightEye"),
            ("eyeLeft", "eyeRight"),
            ("LEye", "REye"),
            ("Left", "Right"),
        ],
    )
    def test_from_names(self, tmp_path, left, right):
        assert self.skeleton(tmp_path, [left, "cleft_tail", right]).mirror == (2, 1, 0)

    def test_one_side_only_is_an_error_that_tells_the_way_out(self, tmp_path):
        names = ["nose", "left_fin", "left_eye", "rigth_eye"]
        with pytest.raises(ValueError, match=r"\['left_fin', 'left_eye'\].*--mirror_pairs.*A:A"):
            self.skeleton(tmp_path, names)
        mended = "left_eye:rigth_eye, left_fin:left_fin"
        assert self.skeleton(tmp_path, names, mended).mirror == (0, 1, 3, 2)

    def test_stated_pairs_come_before_names_and_the_others_follow_theirs(self, tmp_path):
        names = ["wing a", "wing b", "left_eye", "right_eye", "l_1", "r_1"]
        mirror = self.skeleton(tmp_path, names, "wing b:wing a,l_1:l_1,r_1:r_1").mirror
        assert mirror == (1, 0, 3, 2, 4, 5)

    @pytest.mark.parametrize(
        "pairs", ["nose", "nose:mouth", "nose:tail:nose", "nose:tail,tail:nose"]
    )
    def test_bad_pairs(self, tmp_path, pairs):
        with pytest.raises(ValueError, match="--mirror_pairs: 'n|--mirror_pairs: 't"):
            self.skeleton(tmp_path, ["nose", "tail"], pairs)

    def test_names_that_differ_in_spelling_only(self, tmp_path):
        with pytest.raises(ValueError, match="but for spelling: .*--mirror_pairs"):
            self.skeleton(tmp_path, ["left_eye", "LeftEye", "right_eye"])

    def test_none_at_all_is_worth_a_note(self, tmp_path):
        content = document([annotation(1)])
        content["categories"][0].update(keypoints=["nose", "le", "re", "tail"])
        (note,) = read(tmp_path, content).notes
        assert note.startswith("no joint has a mirror pair") and "--mirror_pairs=A:B" in note
        assert read(tmp_path, content, mirror_pairs="le:re").notes == ()
        assert read(tmp_path, content, mirror_pairs="nose:nose").notes == ()


class TestHead:
    @pytest.mark.parametrize(
        "head",
        ["", "box", "box:0", "box:-1", "box:1.5", "box:x", "box:e", "joint:nose", "nose,tail"]
        + ["joint:nose,joint:mouth", "joint:nose,joint:nose"],
    )
    def test_without_a_rule_the_message_has_one_to_copy(self, tmp_path, head):
        with pytest.raises(ValueError, match='--head="joint:left_ear,joint:right_ear"') as error:
            read(tmp_path, document([annotation(1)]), head=head)
        assert "--head=box:0.1" in str(error.value)
        assert (f"--head={head} is invalid" in str(error.value)) == bool(head)

    def test_unknown_where_a_joint_is_missing_or_both_are_one_place(self, tmp_path):
        same = [12, 22, 2, 12, 22, 2, 18, 24, 2, 1, 1, 2]
        result = read(
            tmp_path,
            document([annotation(1), annotation(2, keypoints=same)]),
            head="joint:nose,joint:tail",
        )
        assert [p.head_size for p in result.people] == pytest.approx(
            [math.nan, math.hypot(11, 21)], nan_ok=True
        )
        assert "unknown for 1 of 2" in instances.describe(result)
        with pytest.raises(ValueError, match="none in .* has both joints"):
            read(tmp_path, document([annotation(1)]), head="joint:nose,joint:tail")


class TestSplit:
    def test_by_picture_and_of_the_asked_size(self, tmp_path):
        dogs = [annotation(n, image=1 + n % 8) for n in range(24)]
        result = read(tmp_path, document(dogs, images=8), validation_fraction=0.25)
        sides = {split: {p.image for p in result.people if p.split == split} for split in SPLITS}
        assert len(sides["validation"]) == 2 and len(sides["train"]) == 6
        assert not sides["validation"] & sides["train"]
        rows = [p.row for p in result.people if p.split == "validation"]
        assert rows == list(range(6))

    def test_the_order_of_the_file_changes_nothing(self, tmp_path):
        dogs = [annotation(n, image=1 + n % 8) for n in range(24)]
        one = read(tmp_path, document(dogs, images=8))
        turned = document(dogs[::-1], images=8)
        turned["images"].reverse()
        assert tfrecords.fingerprint(one.people) == tfrecords.fingerprint(
            read(tmp_path, turned).people
        )

    def test_seeds_and_sizes(self):
        names = {f"{n}.jpg" for n in range(50)}
        chosen = [splits.held_out(names, 0.1, seed) for seed in range(3)]
        assert [len(c) for c in chosen] == [5, 5, 5] and chosen[0] != chosen[1] != chosen[2]
        assert splits.held_out(names, 0.2, 0) > chosen[0]
        assert splits.held_out(names, 0, 0) == set() == splits.held_out({"a"}, 0.5, 0)
        assert (
            len(splits.held_out({"a", "b"}, 0.01, 0))
            == 1
            == len(splits.held_out({"a", "b"}, 0.99, 0))
        )
        for fraction in (-0.1, 1.0, math.nan):
            with pytest.raises(ValueError, match="0 or more and below 1"):
                splits.held_out(names, fraction, 0)

    def test_a_second_file(self, tmp_path):
        second = write(tmp_path, document([annotation(1), annotation(2)]), "val.json")
        given = dict(validation_annotations=second, folders=("a", "b/c"))
        result = read(tmp_path, document([annotation(1)]), **given)
        assert {p.id: p.split for p in result.people} == {
            "a/1.jpg#1": "train",
            "b/c/1.jpg#1": "validation",
            "b/c/1.jpg#2": "validation",
        }
        with pytest.raises(ValueError, match="1 pictures are in both .* annotations: 1.jpg"):
            read(tmp_path, document([annotation(1)]), validation_annotations=second)
        with pytest.raises(ValueError, match="not both"):
            read(tmp_path, document([annotation(1)]), validation_fraction=0.1, **given)
        other = document([annotation(1)])
        other["categories"][0]["keypoints"] = JOINTS[::-1]
        with pytest.raises(ValueError, match="both must have the same in the same order"):
            read(tmp_path, other, **given)

    @pytest.mark.parametrize(
        ("images", "validation", "expected"),
        [
            ("/d/train", "/d/val/x/", ("/d", ("train", "val/x"))),
            ("/d", "/d/val", ("/d", ("", "val"))),
            ("/d", "/e", ("/", ("d", "e"))),
            ("gs://b/t", "gs://b/v", ("gs://b", ("t", "v"))),
        ],
    )
    def test_shared_root(self, images, validation, expected):
        assert coco.shared_root(images, validation) == expected

    def test_no_shared_root(self):
        with pytest.raises(ValueError, match="no folder in common"):
            coco.shared_root("gs://b/t", "/d")


SPLITS = ("train", "validation")


def predicted(people, skeleton, joints):
    order = np.arange(len(people))
    sure = np.full(joints.shape[:2], 0.5, np.float32)
    ids = np.array([person.id for person in people])
    return prediction_files.in_published_order(ids, order, joints, sure, skeleton, 0)


def test_results_in_cocos_format(tmp_path):
    result = read(tmp_path, document([annotation(8), annotation(5, 2)]))
    joints = np.stack([person.joints for person in result.people])
    joints[1, 3] = np.nan
    given = predicted(result.people, result.skeleton, joints)
    given.confidence[1, 3] = np.inf
    path = tmp_path / "coco_results.json"
    prediction_files.write_coco(str(path), given, result.settings["coco"])
    first, second = json.loads(path.read_text())
    nose, ears = [12, 22, 0.5], [15, 24, 0.5, 18.5, 24.25, 0.5]
    assert first == {
        "image_id": 1,
        "category_id": 3,
        "keypoints": nose + ears + [0, 0, 0.5],
        "score": 0.5,
    }
    assert second["image_id"] == 2 and second["keypoints"][9:] == [0, 0, 0]
    assert second["score"] == pytest.approx(0.375)


def test_predictions_of_joints_whose_names_tell_no_pairs_are_read_back(tmp_path):
    one = Skeleton(("left_fin", "tail"), pairs=())
    given = prediction_files.in_published_order(
        ["a#1"], np.zeros(1, int), np.ones((1, 2, 2)), np.ones((1, 2), np.float32), one, 0
    )
    for kind in ("mat", "h5", "json"):
        path = str(tmp_path / f"predictions.{kind}")
        getattr(prediction_files, f"write_{kind}")(path, given)
        assert prediction_files.read(path).skeleton == one


# ---- COCO's own pictures


def mini(split):
    folder = pathlib.Path(DATA, "coco_mini")
    return str(folder / f"person_keypoints_{split}2017.json"), str(folder / f"{split}2017")


def oks(annotations, results):
    """Average precision over OKS 0.5 to 0.95, by COCO's own tools."""
    tools = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    scorer = pytest.importorskip("pycocotools.cocoeval")
    truth = tools.COCO(annotations)
    run = scorer.COCOeval(truth, truth.loadRes(results), "keypoints")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.stats[0]


@needs_data
def test_coco_people(tmp_path):
    result = coco.read(
        mini("train")[0],
        head="joint:left_ear,joint:right_ear",
        validation_annotations=mini("val")[0],
        folders=("train2017", "val2017"),
    )
    counts = [sum(p.split == split for p in result.people) for split in SPLITS]
    assert counts == [86, 68]  # counted in the files: iscrowd 0 and num_keypoints > 0
    assert {reason: len(who) for reason, who in result.left_out.items()} == {
        "no labelled joint": 80,
        "crowd (iscrowd)": 6,
    }
    states = np.stack([p.state for p in result.people])
    flags = [1699 + 929, 102 + 92, 698 + 560]  # of all annotations; the 86 left out have flag 0
    assert np.bincount(states.ravel()).tolist() == [flags[0] - 17 * 86, *flags[1:]]
    assert list(result.skeleton.groups) == [
        *("nose", "eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    ]
    assert len(result.skeleton.limbs) == 19


@needs_data
@pytest.mark.parametrize(("away", "least", "most"), [(0, 0.999, 1.0), (1000, 0.0, 0.001)])
def test_cocos_tools_find_true_joints_true(tmp_path, away, least, most):
    result = coco.read(mini("val")[0], head="box:0.1", validation_fraction=0)
    joints = np.stack([person.joints for person in result.people]) + away
    path = str(tmp_path / "coco_results.json")
    given = predicted(result.people, result.skeleton, joints)
    prediction_files.write_coco(path, given, result.settings["coco"])
    assert least <= oks(mini("val")[0], path) <= most


# ---- end to end


@pytest.fixture
def convert(tmp_path, fork_script):
    """A function from words to all that make_tfrecords.py says."""

    def run(*words, code=0):
        small = ("--dataset=coco", "--side=32", "--workers=1")
        done = fork_script(tmp_path, str(ROOT / "scripts" / "make_tfrecords.py"), *small, *words)
        assert done["code"] == code, done
        assert "Traceback" not in done["errors"]
        return done["output"] + done["errors"]

    return run


def losses(workdir):
    values = {}
    for path in tf.io.gfile.glob(os.path.join(workdir, "logs", "events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(path):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag == "overview/loss":
                    values[event.step] = float(tf.make_ndarray(value.tensor))
    return [values[step] for step in sorted(values)]


@pytest.mark.slow
@pytest.mark.fire
def test_five_joints_of_a_toy_animal_from_annotations_to_scores(tmp_path, trained, convert, capfd):
    """Joints that no other set has, a stated mirror pair, and the trunk of MPII's 16 joints."""
    path = draw_toys(tmp_path / "toys")
    words = [f"--annotations={path}", "--head=joint:nose,joint:tail", "--validation_fraction=0.2"]
    output = convert(*words, "--records=rec", code=1)
    assert "['left_fin']" in output and "--mirror_pairs" in output
    words.append(f"--mirror_pairs={TOY_PAIRS}")
    output = convert(*words, "--records=rec")
    assert "mirror pairs: wing one:wing two" in output and "left_fin, tail" in output
    info = tfrecords.read_info(str(tmp_path / "rec"))
    assert (info.count("train") + info.count("validation"), info.name) == (27, "coco fish")
    assert info.skeleton.mirror == (0, 2, 1, 3, 4) and info.skeleton.limbs == (
        (0, 1),
        (0, 2),
        (0, 4),
    )
    # Another choice of pairs is another record set.
    other = [*words[:-1], "--mirror_pairs=left_fin:left_fin", "--records=rec"]
    assert "already holds records" in convert(*other, code=1)

    config = tiny(
        tmp_path / "run",
        info,
        stacks=2,
        epochs=8.0,
        evaluate_every=8.0,
        init_from=trained[0].workdir,
    )
    assert train.run(config) == 0
    assert "fresh: stack0_heatmaps.bias, stack0_heatmaps.kernel" in capfd.readouterr().out
    before = checkpoints.values(checkpoints.find(trained[0].workdir), "averaged")
    after = checkpoints.values(checkpoints.find(config.workdir), "model")
    assert before["stack0_heatmaps.kernel"].shape[-1] == 16
    assert after["stack0_heatmaps.kernel"].shape[-1] == 5
    assert checkpoints.read_network(config.workdir)[1].mirror == info.skeleton.mirror
    course = losses(config.workdir)
    # So few steps show that it trains, not that it finds joints: most of it is towards empty maps.
    assert course[-1] < course[0]

    results = evaluate.run(config)
    assert "predictions.*, coco_results.json" in capfd.readouterr().out
    columns = ["nose", "wing one/wing two", "left_fin", "tail", "mean14", "weighted14", "pooled16"]
    assert list(results["PCKh@0.5"]) == columns and results["people_scored_by_PCKh"] > 0
    assert (tmp_path / "run" / "predictions.png").stat().st_size > 10_000
    own = prediction_files.read(str(tmp_path / "run" / "predictions.json"))
    assert own.joints.shape == (info.count("validation"), 5, 2)
    listed = json.loads((tmp_path / "run" / "coco_results.json").read_text())
    truth = json.loads(pathlib.Path(path).read_text())["annotations"]
    images = {f"{entry['image_id'] - 500}.jpg#{entry['id']}": entry["image_id"] for entry in truth}
    assert [entry["image_id"] for entry in listed] == [images[name] for name in own.ids]
    for entry, joints in zip(listed, own.joints):
        assert entry["category_id"] == 2
        np.testing.assert_allclose(np.reshape(entry["keypoints"], (5, 3))[:, :2], joints, atol=1e-4)


@needs_data
@pytest.mark.slow
def test_coco_people_from_annotations_to_oks(tmp_path, convert):
    (annotations, images), (validation, pictures) = mini("train"), mini("val")
    output = convert(
        f"--annotations={annotations}",
        f"--images={images}",
        f"--validation_annotations={validation}",
        f"--validation_images={pictures}",
        "--head=box:0.1",
        "--records=rec",
    )
    assert "left out: no labelled joint" in output and "80" in output
    info = tfrecords.read_info(str(tmp_path / "rec"))
    assert (info.count("train"), info.count("validation")) == (86, 68)
    config = tiny(tmp_path / "run", info, steps=2, evaluate_every=100.0, ema_decay=0.0)
    assert train.run(config) == 0
    assert evaluate.run(config)["people"] == 68
    assert 0 <= oks(validation, str(tmp_path / "run" / "coco_results.json")) <= 1
