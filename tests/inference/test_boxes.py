import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.annotations import Person
from pipelines.inference import boxes


def write(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_box_is_a_crop_by_the_training_rule():
    """Pixels 10..29 and 20..59: centre 19.5, 39.5; 1.25 x the longer side of 40."""
    person = boxes.person((10, 20, 20, 40), 200, 100)
    assert isinstance(person, Person)
    np.testing.assert_allclose(person.center, [19.5, 39.5])
    assert person.side == pytest.approx(50.0)


def test_no_box_takes_the_height_about_the_middle():
    person = boxes.person(None, 200, 100)
    np.testing.assert_allclose(person.center, [99.5, 49.5])
    assert person.side == pytest.approx(100.0)


@given(st.tuples(*[st.floats(-500, 500)] * 2, *[st.floats(-50, 500)] * 2))
def test_every_box_is_a_crop_or_has_a_problem(box):
    if boxes.problem(box, 300, 200):
        with pytest.raises(ValueError, match="has no size|is outside"):
            boxes.person(box, 300, 200)
    else:
        x, y, w, h = box
        assert w > 0 and h > 0 and x < 300 and y < 200 and x + w > 0 and y + h > 0
        assert boxes.person(box, 300, 200).side == pytest.approx(1.25 * max(w, h))


@pytest.mark.parametrize(
    "box, reason",
    [
        ((0, 0, 0, 10), "has no size"),
        ((0, 0, 10, -1), "has no size"),
        ((300, 0, 10, 10), "is outside the picture of 300 x 200 px"),
        ((-10, 0, 10, 10), "is outside"),
        ((0, 200, 10, 10), "is outside"),
        ((float("nan"), 0, 10, 10), "not finite"),
    ],
)
def test_boxes_that_cannot_be(box, reason):
    assert reason in boxes.problem(box, 300, 200)


def test_csv_with_and_without_its_heading(tmp_path):
    lines = "a.jpg, 1, 2, 3, 4\n\nb/c.jpg,5,6,7,8.5\na.jpg,0,0,1,1\n"
    expected = {"a.jpg": [(1, 2, 3, 4), (0, 0, 1, 1)], "b/c.jpg": [(5, 6, 7, 8.5)]}
    assert boxes.read(write(tmp_path, "p.csv", lines)).people == expected
    assert boxes.read(write(tmp_path, "q.csv", "file,x,y,w,h\n" + lines)).people == expected


def test_json_by_name(tmp_path):
    path = write(tmp_path, "b.json", {"a.jpg": [[1, 2, 3, 4], [5, 6, 7, 8]], "b.jpg": []})
    assert boxes.read(path).people == {"a.jpg": [(1, 2, 3, 4), (5, 6, 7, 8)], "b.jpg": []}


def detection(**changes):
    return {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9, **changes}


def test_coco_detections_and_the_file_that_names_their_images(tmp_path):
    detections = [
        detection(),
        detection(score=0.1),
        detection(category_id=3),
        detection(image_id=8),
    ]
    path = write(tmp_path, "d.json", detections)
    images = [{"id": 7, "file_name": "seven.jpg"}, {"id": 8, "file_name": "eight.jpg"}]
    names = write(tmp_path, "i.json", {"images": [*images, {"id": 9, "file_name": "nine.jpg"}]})
    read = boxes.read(path, names, min_score=0.3)
    one = [(1, 2, 3, 4)]
    assert read.people == {"seven.jpg": one, "eight.jpg": one, "nine.jpg": []}
    assert read.ids == {"seven.jpg": 7, "eight.jpg": 8, "nine.jpg": 9}
    assert read.left_out == {"score below 0.3": 1, "of another category than 1": 1}
    with pytest.raises(ValueError, match="image_id 7 has no file_name: .*--annotations"):
        boxes.read(path)
    with pytest.raises(ValueError, match="image 1: the id 7 occurs twice in images"):
        boxes.read(path, write(tmp_path, "t.json", {"images": [images[0], images[0]]}))
    named = write(tmp_path, "n.json", [detection(file_name="x.jpg")])
    assert boxes.read(named).people == {"x.jpg": one}


def test_coco_annotations(tmp_path):
    people = [detection(iscrowd=0), detection(iscrowd=1)]
    parts = {"images": [{"id": 7, "file_name": "seven.jpg"}], "annotations": people}
    read = boxes.read(write(tmp_path, "a.json", parts))
    assert read.people == {"seven.jpg": [(1, 2, 3, 4)]} and read.left_out == {"a crowd": 1}


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("b.json", "{", "not readable as JSON"),
        ("b.json", "3", "contains no boxes, but a int"),
        ("b.json", {"a.jpg": 3}, "'a.jpg': 3 should be a list of boxes"),
        ("b.json", {"a.jpg": [1, 2, 3, 4]}, "'a.jpg': should be a box of four numbers"),
        ("b.json", {"a.jpg": [[1, 2, 3]]}, "four numbers"),
        ("b.json", {"a.jpg": [[1, 2, True, 4]]}, "four numbers"),
        ("b.json", [3], "entry 0: 3 is not an object with bbox"),
        ("b.json", [{"file_name": "a.jpg"}], "entry 0: bbox should be a box"),
        ("b.json", [{"image_id": [1], "bbox": [1, 2, 3, 4]}], "has no file_name"),
        ("b.csv", "a.jpg,1,2,3\n", "line 1, should be a box"),
        ("b.csv", "a.jpg,1,2,x,4\n", "line 1, should be a box"),
        ("b.csv", "", "is empty"),
    ],
)
def test_files_that_are_no_boxes(tmp_path, name, content, words):
    with pytest.raises(ValueError, match=words):
        boxes.read(write(tmp_path, name, content))
    with pytest.raises(FileNotFoundError, match="no annotation file"):
        boxes.read(str(tmp_path / "none.csv"))


def test_names_mean_inputs_by_the_end_of_their_paths():
    one, two = [(1, 2, 3, 4)], [(5, 6, 7, 8)]
    read = boxes.Boxes({"a.jpg": one, "d/c.jpg": two, "x.jpg": one, "y.jpg": []}, {"a.jpg": 5})
    matched, unknown = boxes.match(read, ["p/a.jpg", "p/d/c.jpg", "p/bd/c.jpg", "q.jpg"])
    assert matched.people == {"p/a.jpg": one, "p/d/c.jpg": two} and matched.ids == {"p/a.jpg": 5}
    assert unknown == ["x.jpg"], "a name without boxes is not missed"
    with pytest.raises(ValueError, match="'c.jpg' match a/c.jpg and b/c.jpg"):
        boxes.match(boxes.Boxes({"c.jpg": one}), ["a/c.jpg", "b/c.jpg"])


def test_frames_of_a_video():
    one, two = [(1, 2, 3, 4)], [(5, 6, 7, 8)]
    read = boxes.Boxes({"w.mp4": one, "w.mp4#12": two})
    matched, unknown = boxes.match(read, ["v/w.mp4"])
    assert not unknown
    assert matched.of("v/w.mp4", 3) == one and matched.of("v/w.mp4", 12) == two
    assert matched.of("other.mp4", 12) == []
