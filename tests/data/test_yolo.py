"""YOLO-pose data sets as the tools write them: hand-computed people, hostile files, commands."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data import tfrecords
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED
from pipelines.data.readers import instances, yolo, yolo_files
from tests.helpers.own_data import from_annotations_to_joints, picture
from tests.helpers.toys import draw_yolo_toys

# In 200 x 100 px: a box of 40 x 60 around (60, 50), joints at (50, 40) and (70, 45), one absent.
ROW = "0 0.3 0.5 0.2 0.6 0.25 0.4 2 0.35 0.45 1 0 0 0"
YAML = "train: images\nkpt_shape: [3, 3]\nflip_idx: [1, 0, 2]\nnames: [dog]\n"


def write(folder, labels, yaml=YAML):
    """Pictures in ``folder``/images with these labels ("" for none), and data.yaml."""
    for name, text in labels.items():
        picture(folder / "images" / f"{name}.jpg")
        path = folder / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "data.yaml").write_text(yaml)
    return str(folder / "data.yaml")


def read(folder, labels=None, yaml=YAML, **options):
    path = write(folder, {"a": ROW} if labels is None else labels, yaml)
    return yolo.read(path, **{"head": "box:0.1", "validation_fraction": 0, **options})


def test_a_data_set_by_hand(tmp_path):
    result = read(tmp_path, {"b": ROW, "a": f"{ROW}\n\n{ROW.replace('0.3 0.5', '0.31 0.5')}\n"})
    assert [person.id for person in result.people] == [
        *("images/a.jpg#1", "images/a.jpg#3", "images/b.jpg#1")
    ]
    first = result.people[0]
    assert (first.image, first.split, first.row) == ("images/a.jpg", "train", 0)
    np.testing.assert_allclose(first.joints, [[50, 40], [70, 45], [0, 0]])
    assert first.state.tolist() == [LABELLED, OCCLUDED, MISSING] and first.state.dtype == np.uint8
    np.testing.assert_allclose(first.center, [59.5, 49.5])
    assert (first.side, first.head_size) == pytest.approx((1.25 * 60, 6))
    assert result.skeleton.joints == ("joint_0", "joint_1", "joint_2")
    assert result.skeleton.mirror == (1, 0, 2)
    assert (result.name, result.origin, result.left_out, result.notes) == ("yolo dog", 0, {}, ())
    assert "mirror pairs: joint_0:joint_1" in instances.describe(result)


# Layouts: data.yaml's paths, and the folders of training and validation pictures.
LAYOUTS = {
    "Ultralytics": (
        "path: ../datasets/dogs # root\ntrain: images/train # 2\nval: images/val\ntest:\n",
        ("images/train", "images/val"),
    ),
    "Roboflow": (
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n",
        ("train/images", "valid/images"),
    ),
    "folders above images": (
        "path: dogs\ntrain: train\nval: val\n",
        ("train/images", "val/images"),
    ),
    "another machine's": (
        "train: /content/dogs/train/images\nval: C:\\dogs\\valid\\images\n",
        ("train/images", "valid/images"),
    ),
    "of absolute path": ("path: /kaggle/dogs\ntrain: a/images\nval: b\n", ("a/images", "b/images")),
    "CVAT": ("path: ./\ntrain: train.txt\nval: validation.txt\n", ("images/train", "images/val")),
    "lists": ("train: [x/images, y/images]\nval: [z/images]\n", ("x/images", "z/images")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    """What lies outside under the name that is written, is not read."""
    paths, folders = LAYOUTS[layout]
    root = tmp_path / "set"
    for folder, name in zip((*folders, "y/images"), "abc"):
        picture(root / folder / f"{name}.jpg")
        label = root / f"{folder}/".replace("images/", "labels/") / f"{name}.txt"
        label.parent.mkdir(parents=True)
        label.write_text(ROW)
        picture(tmp_path / folder / "outside.jpg")
    (root / "train.txt").write_text("images/train/a.jpg\n")
    (root / "validation.txt").write_text("./images/val/b.jpg\r\n\r\n")
    if layout != "lists":
        shutil.rmtree(root / "y")
    yaml = f"{paths}kpt_shape: [3, 3]\nflip_idx: [1, 0, 2]\nnames:\n  0: dog\n"
    (root / "data.yaml").write_text(yaml)
    result = yolo.read(str(root / "data.yaml"), head="box:0.1")
    expected = {f"{folders[0]}/a.jpg": "train", f"{folders[1]}/b.jpg": "validation"}
    expected.update({"y/images/c.jpg": "train"} if layout == "lists" else {})
    assert {person.image: person.split for person in result.people} == expected
    assert result.left_out == {}
    assert [note for note in result.notes if "test" in note] == [
        *(["test: '../test/images' is not read; evaluation uses val"] * (layout == "Roboflow"))
    ]


def test_labels_lie_where_ultralytics_looks_for_them():
    """The last folder called images becomes labels; without one they lie by the picture."""
    expected = {
        "images/a/images/b.c.jpg": "images/a/labels/b.c.txt",
        "images/train/a.png": "labels/train/a.txt",
        "train/myimages/a.jpg": "train/myimages/a.txt",
    }
    assert {image: yolo_files.label_of(image) for image in expected} == expected


def test_a_folder_elsewhere_is_named_with_images(tmp_path):
    path = write(tmp_path / "set", {"a": ROW})
    (tmp_path / "mine.yaml").write_text(YAML)
    with pytest.raises(FileNotFoundError, match="'images', which is not in .*--images"):
        yolo.read(str(tmp_path / "mine.yaml"), head="box:0.1")
    given = dict(head="box:0.1", validation_fraction=0)
    result = yolo.read(str(tmp_path / "mine.yaml"), images=str(tmp_path / "set"), **given)
    assert tfrecords.fingerprint(result.people) == tfrecords.fingerprint(
        yolo.read(path, **given).people
    )


def test_a_list_of_another_machine_is_found_inside_and_noted(tmp_path):
    path = write(tmp_path, {"a": ROW, "b": ROW}, YAML.replace("images", "list.txt"))
    (tmp_path / "list.txt").write_text("/content/x/y/a.jpg\n./images/b.jpg\nimages/b.jpg")
    result = yolo.read(path, head="box:0.1", validation_fraction=0)
    assert [person.image for person in result.people] == ["images/a.jpg", "images/b.jpg"]
    assert result.notes == ("1 of 2 pictures have other names: /content/x/y/a.jpg -> images/a.jpg",)


def test_without_visibilities(tmp_path):
    """Absent joints are at (0, 0), or negative as Ultralytics' own reader has it."""
    row = "0 0.3 0.5 0.2 0.6 0.25 0.4 0 0 -0.005 0.3"
    result = read(tmp_path, {"a": row}, YAML.replace("[3, 3]", "[3, 2]"))
    assert result.people[0].state.tolist() == [LABELLED, MISSING, MISSING]
    assert result.people[0].joints.tolist() == [[50, 40], [0, 0], [0, 0]] and result.notes == ()


def test_without_a_two_a_one_is_visible(tmp_path):
    result = read(tmp_path, {"a": ROW.replace(" 2 ", " 1.0 ")})
    assert result.people[0].state.tolist() == [LABELLED, LABELLED, MISSING]
    assert result.people[0].state.dtype == np.uint8
    assert result.notes == ("no joint has visibility 2: 1 is taken as visible, not as occluded",)


def test_joints_outside_of_the_picture_stay(tmp_path):
    result = read(tmp_path, {"a": ROW.replace("0.35 0.45", "1.02 -0.5")})
    np.testing.assert_allclose(result.people[0].joints[1], [204, -50])


def test_boxes_that_copy_the_joints_extent(tmp_path):
    result = read(tmp_path, {"a": ROW.replace("0.3 0.5 0.2 0.6", "0.3 0.425 0.1 0.05")})
    assert result.people[0].side == pytest.approx(1.35 * 20)
    assert result.notes[0].startswith(
        "the bbox of all 1 annotations is just the box of their joints"
    )


LEFT_OUT = [
    ("0 0.3 0.5 0.2 0.6", "row of another length than kpt_shape asks for"),
    (f"{ROW} 7", "row of another length than kpt_shape asks for"),
    (ROW.replace("0.25", "x"), "row that is not numbers"),
    (ROW.replace("0.25", "nan"), "row that is not numbers"),
    (ROW.replace("0.25", "1e999"), "row that is not numbers"),
    (ROW.replace("0.25", "50"), "positions that are not shares of the picture"),
    (ROW.replace("0.2 0.6", "40 60"), "positions that are not shares of the picture"),
    (ROW.replace(" 2 ", " 3 "), "visibility other than 0, 1 and 2"),
    (ROW.replace(" 2 ", " 0.9 "), "visibility other than 0, 1 and 2"),
    (ROW.replace(" 2 ", " 0 ").replace(" 1 ", " 0 "), "no labelled joint"),
    (ROW.replace("0.2 0.6", "-0.2 0.6"), "box of negative size"),
    (ROW.replace("0.3 0.5 0.2", "1.5 0.5 0.2"), "box outside the picture"),
    (f"1{ROW[1:]}", "of another category"),
    ("1 0.5", "of another category"),
    (ROW.replace("0.5", "0.50") + "\n" + ROW.replace("0.5", "0.50"), "row that repeats another"),
]


@pytest.mark.parametrize(("row", "reason"), LEFT_OUT)
def test_who_is_left_out_is_named(tmp_path, row, reason):
    result = read(tmp_path, {"a": f"{ROW}\n{row}"})
    line = 1 + len(row.splitlines())
    kept = ["images/a.jpg#1", *(["images/a.jpg#2"] if line == 3 else [])]
    assert [person.id for person in result.people] == kept
    assert result.left_out == {reason: [f"images/a.jpg#{line}"]}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.one_of(
                st.sampled_from(["0", "1", "2", "0.5", "-0.1", "nan", "1e999", "0x1", "½", "_"]),
                st.floats(width=16).map(str),
            ),
            max_size=16,
        ).map(" ".join)
        | st.just(ROW)
        | st.text(max_size=20),
        max_size=6,
    )
)
def test_every_row_is_a_person_or_left_out_by_name(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    text = "\n".join([ROW.replace("0.3", "0.29"), *rows])
    path = write(folder, {"a": ""})
    (folder / "labels" / "a.txt").write_bytes(text.encode("utf-8", "surrogatepass"))
    result = yolo.read(path, head="box:0.1", validation_fraction=0)
    full = [n for n, row in enumerate(text.splitlines(), 1) if row.split()]
    named = [who for reason in result.left_out.values() for who in reason]
    named += [person.id for person in result.people]
    if "label file that is not text" not in result.left_out:
        assert sorted(named) == sorted(f"images/a.jpg#{n}" for n in full)


def test_files_that_are_missing_or_broken(tmp_path):
    write(tmp_path, {name: ROW for name in "abcdef"} | {"g": "\n \n"})
    (tmp_path / "labels" / "b.txt").unlink()
    (tmp_path / "images" / "c.jpg").unlink()
    (tmp_path / "images" / "d.jpg").write_bytes(b"no picture")
    (tmp_path / "labels" / "e.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "labels" / "f.txt").unlink()
    (tmp_path / "labels" / "f.txt").mkdir()
    (tmp_path / "images" / "notes.txt").write_text("no picture, and not meant as one")
    (tmp_path / "list.txt").write_text("images/a.jpg\nimages/away.jpg\n../../etc/passwd\n")
    result = yolo.read(str(tmp_path / "data.yaml"), head="box:0.1", validation_fraction=0)
    assert [person.id for person in result.people] == ["images/a.jpg#1"]
    reasons = {
        reason: [who.split(":")[0] for who in ids] for reason, ids in result.left_out.items()
    }
    assert reasons == {
        "label file without a photograph": ["labels/c.txt"],
        "photograph without a label file": ["images/b.jpg"],
        "photograph missing or not readable": ["images/d.jpg"],
        "label file that is not text": ["images/e.jpg", "images/f.jpg"],
        "photograph without rows": ["images/g.jpg"],
    }
    (tmp_path / "data.yaml").write_text(YAML.replace("images", "list.txt"))
    result = yolo.read(str(tmp_path / "data.yaml"), head="box:0.1", validation_fraction=0)
    missing = result.left_out["photograph missing or not readable"]
    assert len(result.people) == 1 and missing == ["etc/passwd", "images/away.jpg"]


@pytest.mark.parametrize(
    ("orientation", "size"), [(1, (200, 100)), (6, (100, 200)), (3, (200, 100))]
)
def test_shares_are_of_the_picture_as_it_is_shown(tmp_path, orientation, size):
    """As Ultralytics' reader turns it."""
    path = write(tmp_path, {"a": ROW})
    picture(tmp_path / "images" / "a.jpg", (200, 100), orientation)
    result = yolo.read(path, head="box:0.1", validation_fraction=0)
    width, height = size
    np.testing.assert_allclose(result.people[0].joints[0], [0.25 * width, 0.4 * height])
    turned = orientation != 1
    assert result.upright == ({"images/a.jpg": True} if turned else {})
    assert any("EXIF orientation" in note for note in result.notes) == turned


def test_a_tenth_of_the_pictures_validates_where_no_others_do(tmp_path):
    labels = {str(k): f"{ROW}\n{ROW.replace('0.3', '0.31')}" for k in range(20)}
    result = read(tmp_path, labels, validation_fraction=None)
    images = {person.image for person in result.people if person.split == "validation"}
    assert len(images) == 2 and len(result.people) == 40
    assert sum(person.split == "validation" for person in result.people) == 4
    both = YAML + "val: images\n"
    with pytest.raises(ValueError, match="both the training and the validation .*images/0.jpg"):
        read(tmp_path, labels, both, validation_fraction=None)
    with pytest.raises(ValueError, match="not both"):
        read(tmp_path, labels, both, validation_fraction=0.1)


class TestJoints:
    NAMED = YAML + "kpt_names:\n  0: [left_ear, right_ear, tail]\n"

    def mirror(self, folder, yaml, **options):
        skeleton = read(folder, yaml=yaml, **options).skeleton
        return skeleton.joints, skeleton.mirror

    def test_names_of_the_file_or_the_flag(self, tmp_path):
        names = ("left_ear", "right_ear", "tail")
        assert self.mirror(tmp_path, self.NAMED) == (names, (1, 0, 2))
        assert self.mirror(tmp_path, YAML, joints="left_ear, right_ear,tail") == (names, (1, 0, 2))
        without = self.NAMED.replace("flip_idx: [1, 0, 2]\n", "")
        assert self.mirror(tmp_path, without) == (names, (1, 0, 2))
        result = read(tmp_path, head="joint:left_ear,joint:right_ear", yaml=self.NAMED)
        assert result.people[0].head_size == pytest.approx(np.hypot(20, 5))

    def test_what_the_file_does_not_tell_is_asked_for_by_name(self, tmp_path):
        unsaid = YAML.replace("flip_idx: [1, 0, 2]\n", "")
        with pytest.raises(
            ValueError, match="neither flip_idx nor names.*--joints=.*--mirror_pairs"
        ):
            read(tmp_path, yaml=unsaid)
        pairs = dict(mirror_pairs="joint_0:joint_2")
        assert self.mirror(tmp_path, unsaid, **pairs)[1] == (2, 1, 0)
        single = dict(mirror_pairs="joint_0:joint_0")
        assert self.mirror(tmp_path, unsaid, **single)[1] == (0, 1, 2)
        with pytest.raises(ValueError, match="PCKh needs a unit: --head=box:0.1"):
            read(tmp_path, head="")

    def test_flip_idx_that_pairs_nothing(self, tmp_path):
        """As Roboflow writes it unless told otherwise."""
        identity = YAML.replace("[1, 0, 2]", "[0, 1, 2]")
        (note,) = read(tmp_path, yaml=identity).notes
        assert note.startswith("no joint has a mirror pair")
        named = dict(joints="left_ear,right_ear,tail")
        with pytest.raises(
            ValueError, match="left_ear with right_ear.*--mirror_pairs=left_ear:right"
        ):
            read(tmp_path, yaml=identity, **named)
        given = dict(named, mirror_pairs="left_ear:right_ear")
        assert self.mirror(tmp_path, identity, **given)[1] == (1, 0, 2)

    def test_flip_idx_comes_before_names_without_a_counterpart(self, tmp_path):
        joints = dict(joints="left_fin,tail,nose")
        assert self.mirror(tmp_path, YAML, **joints)[1] == (1, 0, 2)


def test_one_of_several_classes(tmp_path):
    yaml = YAML.replace("[dog]", "{0: dog, 1: cat}")
    labels = {"a": f"{ROW}\n1{ROW[1:]}"}
    with pytest.raises(ValueError, match="choose --category= of dog, cat$"):
        read(tmp_path, labels, yaml)
    with pytest.raises(ValueError, match="no class 'cow', only dog, cat"):
        read(tmp_path, labels, yaml, category="cow")
    result = read(tmp_path, labels, yaml, category="cat")
    assert [person.id for person in result.people] == ["images/a.jpg#2"]
    assert (result.name, result.left_out) == (
        "yolo cat",
        {"of another category": ["images/a.jpg#1"]},
    )
    assert read(tmp_path, yaml=YAML.replace("names: [dog]", "nc: 1")).name == "yolo 0"


REFUSED = [
    ("train: [", "data.yaml is not readable as YAML"),
    ("[" * 100_000, "not readable as YAML: it has brackets more than 16 deep"),
    ("- " * 3000, "data.yaml is not readable as YAML"),
    ("? " * 3000, "data.yaml is not readable as YAML"),
    ("a: &a [x, x]\nb: [*a, *a]", "an alias"),
    ("!!python/object/apply:os.system ['true']", "not readable as YAML"),
    ("\x00", "not readable as YAML"),
    ("just words", "should hold keys such as train and names, not 'just words'"),
    (YAML.replace("kpt_shape: [3, 3]\n", ""), "has no kpt_shape.*export the data set for pose"),
    (YAML.replace("[3, 3]", "[3, 4]"), r"kpt_shape must be \[joints, 2 or 3\]"),
    (YAML.replace("[3, 3]", "[3.0, true]"), "kpt_shape must be"),
    (YAML.replace("[3, 3]", "[1000000000000, 3]"), "kpt_shape must be"),
    (YAML.replace("[1, 0, 2]", "[1, 2, 0]"), "flip_idx must hold each of 0 to 2 once, in pairs"),
    (YAML.replace("[1, 0, 2]", "[[0, 1]]"), "flip_idx must"),
    (YAML.replace("[1, 0, 2]", "[0, 1, -1]"), "flip_idx must"),
    (YAML.replace("[1, 0, 2]", "[1, 0]"), "flip_idx must"),
    (YAML.replace("[dog]", "[[dog]]"), "names must be a list of classes"),
    (YAML.replace("names: [dog]", "nc: -1"), "names must be a list of classes"),
    (YAML + "kpt_names: {0: [a, b]}", "kpt_names has 2 different names, kpt_shape of .* 3 joints"),
    (YAML + "kpt_names: {0: 5}", "kpt_names must list names of class 0"),
    (YAML.replace("train: images", "train:"), "names no training pictures"),
    (YAML.replace("train: images", "train: 5"), "train must be a path, not 5"),
    (YAML.replace("train: images", "train: [images, {}, [1]]"), "train must be a path"),
    (YAML.replace("train: images", "train: labels"), "there is no picture in 'labels'"),
    (YAML + "val: ../away", "names '../away', which is not in .*; only that folder is searched"),
    (YAML + "val: /etc", "names '/etc', which is not in"),
    (YAML + "path: 7", "path must be a path, not 7"),
]


@pytest.mark.parametrize(("yaml", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_files_that_cannot_be_used_say_where_and_why(tmp_path, yaml, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(tmp_path, yaml=yaml)


def test_too_many_or_bad_names(tmp_path):
    with pytest.raises(ValueError, match="--joints has 2 different names, kpt_shape .* 3 joints"):
        read(tmp_path, joints="a,b")
    with pytest.raises(ValueError, match="--joints=a,,b: give different names"):
        read(tmp_path, joints="a,,b")
    with pytest.raises(FileNotFoundError, match="no annotation file"):
        yolo.read(str(tmp_path / "none.yaml"), head="box:0.1")


@pytest.mark.slow
@pytest.mark.fire
def test_from_an_export_to_an_exported_network(tmp_path, fork_script):
    draw_yolo_toys(tmp_path / "export")
    shutil.copy(tmp_path / "export" / "train" / "images" / "1.jpg", tmp_path / "one.jpg")
    converted, *_, scored, _, _ = from_annotations_to_joints(tmp_path, fork_script, "yolo")
    assert "mirror pairs: joint_1:joint_2" in converted and "left out: none" in converted
    assert "joint_1/joint_2" in scored
    info = tfrecords.read_info(str(tmp_path / "data" / "mine"))
    # Every third of 20 pictures holds two, and 0, 5, 10 and 15 are validation.
    assert (info.name, info.count("train"), info.count("validation")) == ("yolo fish", 21, 6)
