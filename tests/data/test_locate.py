"""Pictures under the names that annotation tools write, found without editing the file."""

import json
import os

import numpy as np
import PIL.Image
import pytest

from pipelines.data import locate, tfrecords
from tests.helpers.forked import ROOT

SCRIPT = str(ROOT / "scripts" / "make_tfrecords.py")


def located(folder, files, names, annotations="result.json", images="images"):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return locate.locate(str(folder / images), str(folder / annotations), names)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("x.jpg", "x.jpg"),
        ("images/x.jpg", "x.jpg"),  # Label Studio: as seen from result.json
        ("images\\x.jpg", "x.jpg"),
        ("a\\x.jpg", "a/x.jpg"),
        ("../../images/x.jpg", "x.jpg"),
        ("../../label-studio/upload/1/x.jpg", "x.jpg"),
        ("/data/upload/1/x.jpg", "1/x.jpg"),
        ("C:\\pictures\\x.jpg", "deep/er/x.jpg"),
        ("x.jpg", "default/x.jpg"),  # CVAT
    ],
)
def test_names_as_tools_write_them(tmp_path, name, file):
    assert located(tmp_path, [f"images/{file}", "images/other.jpg"], [name]) == {name: file}


def test_annotations_in_a_folder_of_their_own(tmp_path):
    names = {"images/default/x.jpg": "default/x.jpg"}
    assert located(tmp_path, ["images/default/x.jpg"], names, "annotations/a.json") == names


def test_a_name_that_is_there_comes_first(tmp_path):
    files = ["images/x.jpg", "images/images/x.jpg", "images/a\\b.jpg", "images/a/b.jpg"]
    names = ["images/x.jpg", "a\\b.jpg"]
    assert located(tmp_path, files, names) == {name: name for name in names}


def test_a_base_name_counts_only_where_it_is_unique(tmp_path):
    files = ["images/a/x.jpg", "images/b/x.jpg", "images/c/y.jpg", "images/c/z.jpg"]
    names = ["1/x.jpg", "1/y.jpg", "2/y.jpg", "c/z.jpg", "../z.jpg", "../gone.jpg"]
    assert located(tmp_path, files, names) == {
        "1/x.jpg": "1/x.jpg",
        "1/y.jpg": "1/y.jpg",
        "2/y.jpg": "2/y.jpg",
        "c/z.jpg": "c/z.jpg",
        "../z.jpg": "z.jpg",
        "../gone.jpg": "gone.jpg",
    }


@pytest.mark.parametrize("other", ["../x.jpg", "./x.jpg"])
def test_two_names_of_one_file(tmp_path, other):
    with pytest.raises(ValueError, match=f"'{other}' and 'x.jpg' both lead to x.jpg"):
        located(tmp_path, ["images/x.jpg"], ["x.jpg", other])


def test_nothing_outside_the_folder_is_found(tmp_path):
    names = ["../secret.jpg", str(tmp_path / "secret.jpg"), "secret.jpg"]
    paths = located(tmp_path, ["secret.jpg", "images/x.jpg"], names)
    assert all(locate.is_inside(path) for path in paths.values())
    assert not any(os.path.exists(tmp_path / "images" / path) for path in paths.values())


def test_names_in_a_bucket():
    seen = locate.candidates("images/x.jpg", "gs://b/d/images", "gs://b/d/result.json")
    assert seen == ["images/x.jpg", "images/x.jpg", "x.jpg"]


# ---- the command, on whole exports


def export(folder, file, name, pictures, category="dog", **changes):
    """Two annotated pictures in a tool's layout; ``pictures`` is their folder."""
    images, annotations = [], []
    for number in range(2):
        path = folder / pictures / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(path)
        picture = {"id": number, "file_name": name.format(number), "width": 60, "height": 40}
        images.append(picture)
        entry = {"id": number, "image_id": number, "category_id": 1, "bbox": [5, 5, 30, 30]}
        annotations.append({**entry, "keypoints": [9, 9, 2, 30, 30, 2], **changes})
    kind = {"id": 1, "name": category, "keypoints": ["left_ear", "right_ear"], "skeleton": [[0, 1]]}
    content = {"images": images, "annotations": annotations, "categories": [kind]}
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(content))


@pytest.fixture
def convert(tmp_path, fork_script):
    def run(file, *words):
        options = ("--dataset=coco", f"--annotations={file}", "--head=box:0.1", "--records=r")
        return fork_script(tmp_path, SCRIPT, *options, "--side=16", "--workers=1", *words)

    return run


@pytest.mark.parametrize(
    ("file", "name", "pictures"),
    [
        ("result.json", "images/{}.jpg", "images"),
        ("result.json", "images\\{}.jpg", "images"),
        ("result.json", "../../upload/{}.jpg", "images"),
        ("annotations/person_keypoints_default.json", "{}.jpg", "images/default"),
        ("annotations/person_keypoints_default.json", "{}.jpg", "images"),
        ("own.json", "{}.jpg", "."),
    ],
)
def test_exports_are_converted_as_they_are(tmp_path, convert, file, name, pictures):
    export(tmp_path, file, name, pictures, category="[/bold]")
    done = convert(file)
    assert done["code"] == 0, done
    info = tfrecords.read_info(str(tmp_path / "r"))
    assert (info.count("train"), info.count("validation"), info.left_out) == (1, 1, {})
    assert "coco [/bold] in r" in done["output"]
    assert "from 1 to 2, not [0, 1]; drawn without limbs" in done["output"]


def test_no_usable_people_with_the_reasons(tmp_path, convert):
    export(tmp_path, "result.json", "{}.jpg", "images", keypoints=[0, 0, 0] * 2)
    done = convert("result.json")
    assert done["code"] == 1
    assert "no usable people in result.json (no labelled joint: 2; their ids" in done["errors"]
    assert "r/left_out.json" in done["errors"]
    named = json.loads((tmp_path / "r" / "left_out.json").read_text())
    assert named == {"no labelled joint": ["0.jpg#0", "1.jpg#1"]}


def test_a_folder_with_a_pictures_name_is_left_out(tmp_path, convert):
    export(tmp_path, "result.json", "{}.jpg", "images")
    export(tmp_path / "more", "unused.json", "{}.jpg", "images")
    (tmp_path / "images" / "0.jpg").unlink()
    (tmp_path / "images" / "0.jpg").mkdir()
    done = convert("result.json", "--validation_fraction=0")
    assert done["code"] == 0, done
    assert tfrecords.read_info(str(tmp_path / "r")).left_out == {"photograph not a file": 1}
