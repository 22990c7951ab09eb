"""Folders of labelme's JSON files: hand-computed people, hostile files, five commands."""

import base64
import json
import shutil

import numpy as np
import pytest

from pipelines.data import tfrecords
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED
from pipelines.data.readers import coco, instances, labelme
from tests.helpers.forked import ROOT
from tests.helpers.own_data import from_annotations_to_joints, picture
from tests.helpers.toys import TOY_PAIRS, draw_labelme_toys, labelme_file, labelme_shape, write


def point(label, x, y, **changes):
    return labelme_shape(label, [[x, y]], **changes)


def rectangle(left, top, right, bottom, label="dog", **changes):
    return labelme_shape(label, [[left, top], [right, bottom]], "rectangle", **changes)


# A box of 40 x 60 px around (60, 50); its points.
BOX = rectangle(40, 20, 80, 80)
EARS = [point("left_ear", 50, 40), point("right_ear", 70.5, 45.25)]


def save(folder, shapes, name="a", image=None, **changes):
    """A JSON and, beside it, its picture of 200 x 100 px."""
    picture(folder / f"{name}.jpg")
    write(folder, labelme_file(image or f"{name}.jpg", shapes, **changes), f"{name}.json")


def read(folder, **options):
    return labelme.read(str(folder), **{"head": "box:0.1", "validation_fraction": 0, **options})


def states(result):
    return {person.id: person.state.tolist() for person in result.people}


def test_a_folder_by_hand(tmp_path):
    nose = point("nose", 60, 50, flags={"occluded": True})
    save(tmp_path, [BOX, *EARS, nose], "b")
    data = base64.b64encode(bytes(100_000)).decode()
    save(tmp_path, [*EARS[::-1], rectangle(80, 80, 40, 20)], imageData=data)
    result = read(tmp_path)
    first, second = result.people
    assert (first.id, first.image, first.split) == ("a.jpg#shape 2", "a.jpg", "train")
    assert (second.id, second.row) == ("b.jpg#shape 0", 1)
    assert result.skeleton.joints == ("left_ear", "nose", "right_ear")
    assert result.skeleton.mirror == (2, 1, 0)
    assert first.joints.tolist() == [[50, 40], [0, 0], [70.5, 45.25]]
    assert first.state.tolist() == [LABELLED, MISSING, LABELLED] and first.state.dtype == np.uint8
    assert second.state.tolist() == [LABELLED, OCCLUDED, LABELLED]
    assert first.center.tolist() == [59.5, 49.5]
    assert (first.side, first.head_size) == pytest.approx((1.25 * 60, 6))
    assert (result.name, result.origin, result.left_out, result.notes) == ("labelme dog", 0, {}, ())
    assert "mirror pairs: left_ear:right_ear" in instances.describe(result)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"flags": {"occluded": True, "blurry": False}}, OCCLUDED),
        ({"flags": {"occluded": False}}, LABELLED),
        ({"flags": {"Hidden": True}}, OCCLUDED),
        ({"flags": {"blurry": True}}, LABELLED),
        ({"flags": None, "description": None}, LABELLED),
        ({"description": " Occluded "}, OCCLUDED),
        ({"description": "not occluded"}, LABELLED),
        ({"difficult": True}, OCCLUDED),
        ({"difficult": False}, LABELLED),
    ],
)
def test_occluded(tmp_path, changes, state):
    save(tmp_path, [point("nose", 5, 6, **changes), point("tail", 50, 60)])
    result = read(tmp_path)
    assert result.people[0].state.tolist() == [state, LABELLED]
    said = [note for note in result.notes if "flags that change nothing: blurry (1)" in note]
    assert bool(said) == (changes.get("flags") == {"blurry": True})


class TestGroups:
    def test_without_rectangles_and_groups_a_picture_is_one_person(self, tmp_path):
        save(tmp_path, EARS)
        result = read(tmp_path)
        assert states(result) == {"a.jpg#all": [LABELLED, LABELLED]}
        assert result.people[0].side == pytest.approx(1.35 * 20.5)
        assert result.name == "labelme"

    def test_by_group_id_with_and_without_a_rectangle(self, tmp_path):
        """Two people who overlap; X-AnyLabeling writes four corners."""
        corners = [[40, 20], [80, 20], [80, 80], [40, 80]]
        box = labelme_shape("dog", corners, "rectangle", group_id=1)
        ones = [dict(EARS[0], group_id=1), dict(EARS[1], group_id=1)]
        twos = [point("left_ear", 55, 40, group_id=2), point("right_ear", 75, 40, group_id=2)]
        save(tmp_path, [*twos, box, *ones])
        result = read(tmp_path)
        assert states(result) == dict.fromkeys(("a.jpg#group 1", "a.jpg#group 2"), [2, 2])
        assert [person.side for person in result.people] == pytest.approx([75, 1.35 * 20])
        assert result.people[1].joints.tolist() == [[55, 40], [75, 40]] and not result.left_out

    def test_by_the_rectangle_that_holds_them(self, tmp_path):
        other = rectangle(100, 20, 150, 80, group_id=7)
        theirs = [point("left_ear", 100, 20), point("right_ear", 150, 80)]
        save(tmp_path, [BOX, other, *EARS, *theirs])
        result = read(tmp_path)
        assert states(result) == {"a.jpg#group 7": [2, 2], "a.jpg#shape 0": [2, 2]}
        assert result.people[0].joints.tolist() == [[100, 20], [150, 80]]

    @pytest.mark.parametrize(
        ("shapes", "lost"),
        [
            (
                [rectangle(60, 20, 120, 80), EARS[1]],
                {
                    "point in several rectangles (give it the group_id of one)": ["shape 5"],
                    "rectangle without points": ["shape 4"],
                },
            ),
            ([point("nose", 190, 90)], {"point outside of every rectangle": ["shape 4"]}),
            ([rectangle(150, 0, 180, 50)], {"rectangle without points": ["shape 4"]}),
            (
                [rectangle(150, 0, 180, 50), point("nose", 160, 5), point("nose", 170, 5)],
                {"a joint twice (give each person a group_id)": ["shape 4"]},
            ),
            (
                [rectangle(1, 1, 9, 9, group_id=3), rectangle(2, 2, 9, 9, group_id=3)],
                {"several rectangles with one group_id": ["group 3"]},
            ),
            (
                [labelme_shape("dog", [[1, 2], [3, 4], [5, 9]], "polygon")],
                {"other shape (polygon)": ["shape 4"]},
            ),
            (
                [rectangle(150, 0, 180, 50, "ball"), point("nose", 160, 5)],
                {"of another category": ["shape 5", "shape 4"]},
            ),
        ],
    )
    def test_what_is_in_no_person_is_named(self, tmp_path, shapes, lost):
        save(tmp_path, [BOX, EARS[0], point("nose", 45, 25), point("tail", 46, 70), *shapes])
        options = dict(category="dog", joints="left_ear,right_ear,nose,tail")
        result = read(tmp_path, **options)
        assert list(states(result)) == ["a.jpg#shape 0"]
        assert result.left_out == {
            reason: [f"a.jpg#{what}" for what in who] for reason, who in lost.items()
        }

    def test_two_people_without_grouping_in_one_picture(self, tmp_path):
        save(tmp_path, [*EARS, *EARS])
        save(tmp_path, EARS, "b")
        result = read(tmp_path)
        assert list(states(result)) == ["b.jpg#all"]
        assert list(result.left_out.values()) == [["a.jpg#all"]]


class TestPictures:
    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("a.jpg", "a.jpg"),
            ("..\\pictures\\a.jpg", "pictures/a.jpg"),
            ("../pictures/./a.jpg", "pictures/a.jpg"),
            ("C:\\Users\\me\\a.jpg", "a.jpg"),
            ("/home/me/a.jpg", "a.jpg"),
            ("../../../a.jpg", "a.jpg"),
        ],
    )
    def test_paths_as_they_are_written(self, tmp_path, name, found):
        """Relative to the JSON file; of those that lead out, the base name inside."""
        root = tmp_path / "set"
        (root / "labels").mkdir(parents=True)
        picture(tmp_path / "a.jpg")
        picture(root / ("labels/a.jpg" if found == "a.jpg" else found))
        write(root / "labels", labelme_file(name, EARS), "a.json")
        result = read(root)
        (person,) = result.people
        assert person.image == ("labels/a.jpg" if found == "a.jpg" else found)
        moved = [note for note in result.notes if "1 of 1 pictures have other names" in note]
        assert bool(moved) == name.startswith(("C:", "/", "../../.."))

    def test_same_names_in_two_folders(self, tmp_path):
        for folder in ("x", "y"):
            (tmp_path / folder).mkdir()
            save(tmp_path / folder, EARS)
        save(tmp_path, EARS)
        images = [person.image for person in read(tmp_path).people]
        assert images == ["a.jpg", "x/a.jpg", "y/a.jpg"]

    def test_pictures_in_a_folder_of_their_own(self, tmp_path):
        save(tmp_path / "pictures", EARS)
        (tmp_path / "labels").mkdir()
        (tmp_path / "pictures" / "a.json").rename(tmp_path / "labels" / "a.json")
        result = read(tmp_path / "labels", images=str(tmp_path / "pictures"))
        assert [person.image for person in result.people] == ["a.jpg"]

    def test_two_files_for_one_picture(self, tmp_path):
        save(tmp_path, EARS)
        write(tmp_path, labelme_file("a.jpg", EARS), "copy.json")
        with pytest.raises(
            ValueError, match="a.json and .*copy.json are both of the picture a.jpg"
        ):
            read(tmp_path)

    @pytest.mark.parametrize("orientation", [6, 3])
    def test_they_are_turned_as_labelme_shows_them(self, tmp_path, orientation):
        size = (100, 200) if orientation == 6 else (200, 100)
        save(tmp_path, EARS, size=size)
        picture(tmp_path / "a.jpg", (200, 100), orientation)
        result = read(tmp_path)
        assert result.upright == {"a.jpg": True} and len(result.people) == 1
        assert any("EXIF orientation" in note for note in result.notes)

    def test_of_another_size_than_annotated(self, tmp_path):
        save(tmp_path, [BOX, *EARS], size=(400, 200))
        result = read(tmp_path)
        assert list(result.left_out) == ["picture of another size than annotated"]
        (person,) = read(tmp_path, rescale=True).people
        np.testing.assert_allclose(person.joints[0], [24.75, 19.75])
        assert person.side == pytest.approx(75 / 2)


def test_other_files_and_broken_ones_are_named(tmp_path):
    save(tmp_path, EARS)
    write(tmp_path, {"images": [], "annotations": []}, "coco.json")
    write(tmp_path, [1], "list.json")
    broken = {
        "half": "{",
        "shapes": json.dumps(labelme_file("b.jpg", {})),
        "shape": json.dumps(labelme_file("b.jpg", [3])),
        "label": json.dumps(labelme_file("b.jpg", [point(None, 1, 2)])),
        "group": json.dumps(labelme_file("b.jpg", [point("nose", 1, 2, group_id="x")])),
        "points": json.dumps(labelme_file("b.jpg", [point("nose", 1, None)])),
        "nan": json.dumps(labelme_file("b.jpg", [point("nose", 1, float("nan"))])),
        "far": json.dumps(labelme_file("b.jpg", [point("nose", 1, 1e300)])),
        "three": json.dumps(labelme_file("b.jpg", [dict(BOX, points=[[1, 2]] * 3)])),
        "size": json.dumps(labelme_file("b.jpg", EARS, imageWidth=-3)),
        "image": json.dumps(labelme_file(None, EARS)),
        "nul": json.dumps(labelme_file("a\0.jpg", EARS)),
        "deep": "[" * 100_000,
    }
    for name, text in broken.items():
        (tmp_path / f"{name}.json").write_text(text)
    picture(tmp_path / "empty.jpg")
    write(tmp_path, labelme_file("empty.jpg", []), "empty.json")
    result = read(tmp_path)
    assert [person.id for person in result.people] == ["a.jpg#all"]
    assert {reason: len(who) for reason, who in result.left_out.items()} == {
        "JSON of another kind than labelme's": 2,
        "file that cannot be used": len(broken),
        "photograph without shapes": 1,
    }
    for name, sentence in zip(sorted(broken), result.left_out["file that cannot be used"]):
        assert f"{tmp_path}/{name}.json" in sentence and len(sentence) < 400


class TestChoices:
    def test_one_of_several_labels_of_rectangles(self, tmp_path):
        save(tmp_path, [BOX, *EARS, rectangle(1, 1, 9, 9, "cat")])
        with pytest.raises(ValueError, match="choose --category= of cat, dog"):
            read(tmp_path)
        with pytest.raises(ValueError, match="no rectangle is labelled 'cow', only cat, dog"):
            read(tmp_path, category="cow")
        assert read(tmp_path, category="dog").name == "labelme dog"

    def test_joints_in_an_order_and_those_not_named(self, tmp_path):
        save(tmp_path, [*EARS, point("nsoe", 9, 9)])
        result = read(tmp_path, joints="right_ear,nose,left_ear")
        assert result.skeleton.joints == ("right_ear", "nose", "left_ear")
        assert result.people[0].state.tolist() == [LABELLED, MISSING, LABELLED]
        assert result.left_out == {
            "point with a label that is not in --joints": ["a.jpg#shape 2: nsoe"]
        }

    def test_a_rare_label_may_be_a_slip(self, tmp_path):
        for k in range(22):
            save(tmp_path, [*EARS, point("nose" if k else "nsoe", 9, 9)], str(k))
        (note,) = read(tmp_path).notes
        assert "far less often than others (up to 22): nsoe (1)" in note and "--joints" in note

    def test_one_side_only_and_no_head(self, tmp_path):
        save(tmp_path, [EARS[0], point("nose", 3, 4)])
        with pytest.raises(ValueError, match=r"\['left_ear'\].*--mirror_pairs"):
            read(tmp_path)
        with pytest.raises(ValueError, match="PCKh needs a unit: --head=box:0.1"):
            read(tmp_path, mirror_pairs="left_ear:left_ear", head="")

    def test_a_second_folder_validates(self, tmp_path):
        for folder in ("train", "val"):
            (tmp_path / folder).mkdir()
            save(tmp_path / folder, EARS)
        images, folders = coco.shared_root(str(tmp_path / "train"), str(tmp_path / "val"))
        result = labelme.read(
            str(tmp_path / "train"),
            head="box:0.1",
            validation_annotations=str(tmp_path / "val"),
            folders=folders,
            images=images,
        )
        splits = {person.image: person.split for person in result.people}
        assert splits == {"train/a.jpg": "train", "val/a.jpg": "validation"}

    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no folder .*none of JSON files"):
            read(tmp_path / "none")
        with pytest.raises(FileNotFoundError, match="no JSON file in"):
            read(tmp_path)
        write(tmp_path, [], "a.json")
        with pytest.raises(ValueError, match="has a point with a label; JSON of another kind"):
            read(tmp_path)


@pytest.mark.slow
@pytest.mark.fire
def test_from_a_folder_to_an_exported_network(tmp_path, fork_script):
    draw_labelme_toys(tmp_path / "labelled")
    shutil.copy(tmp_path / "labelled" / "1.jpg", tmp_path / "one.jpg")
    words = (f"--mirror_pairs={TOY_PAIRS}", "--validation_fraction=0.2")
    converted, *_, scored, _, _ = from_annotations_to_joints(
        tmp_path, fork_script, "labelme", *words
    )
    assert "mirror pairs: wing one:wing two" in converted and "left out: none" in converted
    assert "wing one/wing two" in scored
    info = tfrecords.read_info(str(tmp_path / "data" / "mine"))
    assert (info.count("train") + info.count("validation"), info.name) == (27, "labelme fish")


@pytest.mark.slow
def test_folders_of_training_and_validation_by_the_command(tmp_path, fork_script):
    """Their pictures lie in them; a folder named only with --images has both, too."""
    draw_labelme_toys(tmp_path / "train", 8)
    draw_labelme_toys(tmp_path / "val", 4)
    script, small = str(ROOT / "scripts" / "make_tfrecords.py"), ("--side=16", "--workers=1")
    words = ("--dataset=labelme", "--head=box:0.1", f"--mirror_pairs={TOY_PAIRS}", *small)
    two = ("--annotations=train", "--validation_annotations=val", "--records=two")
    for more in (two, ("--images=train", "--records=one")):
        done = fork_script(tmp_path, script, *words, *more)
        assert done["code"] == 0, done
    info = tfrecords.read_info(str(tmp_path / "two"))
    assert (info.count("train"), info.count("validation")) == (11, 6)
    one = tfrecords.read_info(str(tmp_path / "one"))
    assert one.count("train") + one.count("validation") == 11 and one.count("validation") in (1, 2)
