import json
import pathlib
import re
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.annotations import Person
from pipelines.inference import box_files, boxes


def write(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def plain(people):
    return {name: [entry.box for entry in entries] for name, entries in people.items()}


def entries(**people):
    """Name, with _ for the dot -> boxes, as Boxes has them."""
    return {
        name.replace("_", "."): [boxes.Entry(box, "b.json") for box in of]
        for name, of in people.items()
    }


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
        with pytest.raises(ValueError, match="has no size|is outside|as large as"):
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
        ((0, 0, float("inf"), 10), "not finite"),
        ((1e308, 0, 1e308, 10), "not finite, or beyond 1e+06"),
        ((0, 0, 1e-300, 1e-300), "has no size"),
        ((-1e5, -1e5, 1e6, 1e6), "is over 10 times as large as the picture of 300 x 200 px"),
        ((10**400, 0, 10, 10), "is not four numbers"),
        ((0, 0, 10), "box (0, 0, 10) is not four numbers x, y, width, height"),
        ((0, 0, None, 10), "is not four numbers"),
        ("1234", "is not four numbers"),
        (7, "is not four numbers"),
    ],
)
def test_boxes_that_cannot_be(box, reason):
    assert reason in boxes.problem(box, 300, 200)
    with pytest.raises(ValueError, match="^box "):
        boxes.person(box, 300, 200)


def test_csv_with_and_without_its_heading(tmp_path):
    lines = "a.jpg, 1, 2, 3, 4\n\nb/c.jpg,5,6,7,8.5\na.jpg,0,0,1,1\n"
    expected = {"a.jpg": [(1, 2, 3, 4), (0, 0, 1, 1)], "b/c.jpg": [(5, 6, 7, 8.5)]}
    for name, text in (("p.csv", lines), ("q.csv", "file,x,y,w,h\n" + lines)):
        assert plain(box_files.read(write(tmp_path, name, text)).people) == expected


def test_json_by_name(tmp_path):
    path = write(tmp_path, "b.json", {"a.jpg": [[1, 2, 3, 4], [5, 6, 7, 8]], "b.jpg": []})
    expected = {"a.jpg": [(1, 2, 3, 4), (5, 6, 7, 8)], "b.jpg": []}
    assert plain(box_files.read(path).people) == expected


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
    read = box_files.read(path, names, min_score=0.3)
    one = [(1, 2, 3, 4)]
    assert plain(read.people) == {"seven.jpg": one, "eight.jpg": one, "nine.jpg": []}
    assert read.ids == {"seven.jpg": 7, "eight.jpg": 8, "nine.jpg": 9}
    assert read.left_out == {"score below 0.3": 1, "of another category than 1": 1}
    with pytest.raises(ValueError, match="image_id 7 has no file_name: .*--annotations"):
        box_files.read(path)
    with pytest.raises(ValueError, match="image 1: the id 7 occurs twice in images"):
        box_files.read(path, write(tmp_path, "t.json", {"images": [images[0], images[0]]}))
    named = write(tmp_path, "n.json", [detection(file_name="x.jpg")])
    assert plain(box_files.read(named).people) == {"x.jpg": one}


def test_coco_annotations(tmp_path):
    people = [detection(iscrowd=0), detection(iscrowd=1)]
    parts = {"images": [{"id": 7, "file_name": "seven.jpg"}], "annotations": people}
    read = box_files.read(write(tmp_path, "a.json", parts))
    assert plain(read.people) == {"seven.jpg": [(1, 2, 3, 4)]} and read.left_out == {"a crowd": 1}


def test_ids_and_sizes_are_kept_as_they_are(tmp_path):
    images = [
        {"id": 0, "file_name": "zero.jpg", "width": 640, "height": 480},
        {"id": "a-17", "file_name": "text.jpg", "width": None, "height": 0},
        {"id": "", "file_name": "empty.jpg"},
        {"id": 9, "file_name": "bad.jpg", "width": -1, "height": 5},
        {"id": 10, "file_name": "zero.jpg"},
        {"id": [1], "file_name": "list.jpg"},
    ]
    parts = {"images": images, "annotations": [detection(image_id=i) for i in (0, "a-17", "", 9)]}
    read = box_files.read(write(tmp_path, "a.json", parts))
    kept = {"zero.jpg": 0, "text.jpg": "a-17", "empty.jpg": "", "bad.jpg": 9}
    assert read.ids == kept and read.sizes == {"zero.jpg": (640, 480)}
    assert plain(read.people) == dict.fromkeys(kept, [(1, 2, 3, 4)])
    size, twice, other = read.problems
    assert 'image 3: "width" must be positive, not -1' in size
    assert "image 4: 'zero.jpg' has the id 0 already" in twice
    assert 'image 5: "id" must be a whole number, not [1]' in other
    matched, _ = boxes.match(read, ["p/zero.jpg", "p/text.jpg"])
    assert matched.id_of("p/zero.jpg") == 0 and matched.id_of("p/text.jpg") == "a-17"
    assert matched.sizes == {"p/zero.jpg": (640, 480)}
    named = write(tmp_path, "c.csv", "zero.jpg,1,2,3,4\n")
    assert box_files.read(named, write(tmp_path, "n.json", parts)).ids == kept


def test_a_category_that_no_box_has(tmp_path):
    """An error that lists those that the file has, with their names; not 0 people."""
    people = [detection(category_id=c) for c in (3, 3, "x", None)]
    parts = {
        "images": [{"id": 7, "file_name": "seven.jpg"}],
        "annotations": people,
        "categories": [{"id": 3, "name": "bee"}, {"id": 1, "name": "person"}, 5],
    }
    path = write(tmp_path, "a.json", parts)
    rule = r"category 1, only of 3 \('bee', 2\), 'x' \(1\), None \(1\); choose with --category"
    with pytest.raises(ValueError, match=rule):
        box_files.read(path)
    assert plain(box_files.read(path, category="x").people) == {"seven.jpg": [(1, 2, 3, 4)]}
    assert box_files.read(path, category=3).left_out == {"of another category than 3": 2}


def test_an_absurd_entry_costs_itself(tmp_path):
    """NaN, 400 digits, texts, lists: the file is read, and each is named with its number."""
    absurd = ["[NaN, 0, 9, 9]", "[1e999, 0, 9, 9]", f"[{10**400}, 0, 9, 9]", "[0, 0, 9]", '"1234"']
    absurd += ["null", "{}", "[[1], 2, 3, 4]", "[0, 0, -9, 9]", "[0, 0, 0, 0]", "[true, 0, 9, 9]"]
    file = box_files.read(
        write(tmp_path, "b.json", f'{{"a.jpg": [{",".join(absurd)}, [1, 2, 3, 4]]}}')
    )
    *bad, good = file.of("a.jpg")
    assert good == ((1, 2, 3, 4), f"{tmp_path}/b.json, 'a.jpg', box 11") and len(bad) == 11
    assert all(boxes.problem(entry.box, 300, 200).startswith("box ") for entry in bad)
    lines = "a.jpg,nan,0,9,9\na.jpg,1,2,3\na.jpg,1,2,3,4\na.jpg,x,y,z,\na.jpg\n"
    read = box_files.read(write(tmp_path, "b.csv", lines)).of("a.jpg")
    assert [bool(boxes.problem(entry.box, 300, 200)) for entry in read] == [1, 1, 0, 1, 1]
    assert read[1].where == f"{tmp_path}/b.csv, line 2"
    some = [detection(bbox=None), 3, detection(image_id=8), detection(image_id=True), detection()]
    names = {"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]}
    path, names = write(tmp_path, "c.json", some), write(tmp_path, "n.json", names)
    read = box_files.read(path, names)
    assert plain(read.people) == {"a.jpg": ["None", (1, 2, 3, 4)], "b.jpg": []}
    assert [text.split(": ")[0] for text in read.problems] == [
        f"{path}, entry {k}" for k in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("b.json", "{", "not readable as JSON"),
        ("b.json", "3", "contains no boxes, but a int"),
        ("b.json", {"a.jpg": 3}, "'a.jpg': 3 should be a list of boxes"),
        ("b.json", {"a.jpg": [1, 2, 3, 4]}, "'a.jpg', box 0: box 1 is not four numbers"),
        ("b.json", {"a.jpg": [[1, 2, 3]]}, "four numbers"),
        ("b.json", {"a.jpg": [[1, 2, True, 4]]}, "four numbers"),
        ("b.json", [3], "entry 0: 3 is not an object with bbox"),
        ("b.json", [{"file_name": "a.jpg"}], "entry 0: box None is not four numbers"),
        ("b.json", [{"image_id": [1], "bbox": [1, 2, 3, 4]}], "has no file_name"),
        ("b.csv", "a.jpg,1,2,3\n", "line 1: box .* is not four numbers"),
        ("b.csv", "a.jpg,1,2,x,4\n", "line 1: box .* is not four numbers"),
        ("b.csv", "", "is empty"),
    ],
)
def test_files_that_are_no_boxes(tmp_path, name, content, words):
    with pytest.raises(ValueError, match=words):
        box_files.read(write(tmp_path, name, content))
    with pytest.raises(FileNotFoundError, match="no annotation file"):
        box_files.read(str(tmp_path / "none.csv"))


# What two tools write for a picture with a person and a dog.
RESULTS = {
    "mmdetection": [
        {"image_id": 7, "bbox": [10.5, 20.0, 30.0, 60.25], "score": 0.98, "category_id": 1},
        {"image_id": 7, "bbox": [50.0, 70.0, 20.0, 10.0], "score": 0.91, "category_id": 18},
    ],
    "Ultralytics": [
        {
            **{"image_id": 7, "file_name": "street.jpg", "category_id": 1},
            **{"bbox": [10.5, 20.0, 30.0, 60.25], "score": 0.98111},
        },
        {
            **{"image_id": 7, "file_name": "street.jpg", "category_id": 17},
            **{"bbox": [50.0, 70.0, 20.0, 10.0], "score": 0.91},
        },
    ],
}


@pytest.mark.parametrize("tool", RESULTS)
def test_results_of_detectors(tmp_path, tool):
    document = {"images": [{"id": 7, "file_name": "street.jpg"}], "annotations": []}
    annotations = write(tmp_path, "mine.json", document)
    read = box_files.read(write(tmp_path, "results.bbox.json", RESULTS[tool]), annotations)
    matched, unknown = boxes.match(read, ["pictures/street.jpg"])
    assert not unknown and not matched.problems
    assert plain(matched.people) == {"pictures/street.jpg": [(10.5, 20.0, 30.0, 60.25)]}
    assert sum(matched.left_out.values()) == 1


def test_the_pages_lines_for_results_in_memory(tmp_path, monkeypatch):
    """Of the shapes that torchvision and Ultralytics return; NumPy's arrays have tolist, too."""
    page = pathlib.Path(__file__).parents[2] / "docs" / "data.md"
    lines = re.search(r"\n    import csv\n(    .*\n|\n)+", page.read_text())[0]
    corners = np.float32([[10.5, 20, 40.5, 80.25], [50, 70, 70, 80]])
    torchvision = {"boxes": corners, "labels": np.array([1, 18]), "scores": np.ones(2)}
    classes = np.float32([0, 16])
    monkeypatch.chdir(tmp_path)
    for path, found in (
        ("street.jpg", torchvision),
        ("park.jpg", {"boxes": corners, "labels": classes + 1}),
    ):
        exec(textwrap.dedent(lines), {"found": found, "path": path})
    box = [(10.5, 20.0, 30.0, 60.25)]
    assert plain(box_files.read("people.csv").people) == {"street.jpg": box, "park.jpg": box}


def test_names_mean_inputs_by_the_end_of_their_paths():
    one, two = [(1, 2, 3, 4)], [(5, 6, 7, 8)]
    given = {**entries(a_jpg=one, x_jpg=one, y_jpg=[]), "d/c.jpg": entries(c=two)["c"]}
    matched, unknown = boxes.match(
        boxes.Boxes(given, {"a.jpg": 5}), ["p/a.jpg", "p/d/c.jpg", "p/bd/c.jpg", "q.jpg"]
    )
    assert plain(matched.people) == {"p/a.jpg": one, "p/d/c.jpg": two}
    assert matched.ids == {"p/a.jpg": 5}
    assert unknown == ["x.jpg"], "a name without boxes is not missed"
    with pytest.raises(ValueError, match="'c.jpg' match a/c.jpg and b/c.jpg"):
        boxes.match(boxes.Boxes(entries(c_jpg=one)), ["a/c.jpg", "b/c.jpg"])


def test_frames_of_a_video():
    """A frame's own boxes, size and id; the video's id would be the same for all frames."""
    one, two = entries(one=[(1, 2, 3, 4)])["one"], entries(two=[(5, 6, 7, 8)])["two"]
    ids, sizes = {"w.mp4": 4, "w.mp4#12": 0}, {"w.mp4#12": (64, 48)}
    read = boxes.Boxes({"w.mp4": one, "w.mp4#12": two}, ids, sizes)
    matched, unknown = boxes.match(read, ["v/w.mp4"])
    assert not unknown
    assert matched.of("v/w.mp4", 3) == one and matched.of("v/w.mp4", 12) == two
    assert matched.of("other.mp4", 12) == []
    assert matched.id_of("v/w.mp4", 12) == 0 and matched.id_of("v/w.mp4", 3) is None
    assert matched.sizes == {"v/w.mp4#12": (64, 48)}
    names = matched.of_video("v/w.mp4")
    np.testing.assert_array_equal(matched.corners(names), [(4, 6), (12, 14)])


def test_boxes_of_frames_that_were_not_predicted_are_counted():
    box = boxes.Entry((0, 0, 9, 9), "b.json")
    names = {"w.mp4": 1, "w.mp4#0": 1, "w.mp4#3": 2, "w.mp4#4": 1, "w.mp4#12": 5, "v.mp4#3": 1}
    given = boxes.Boxes({name: [box] * count for name, count in names.items()})
    assert given.unread("w.mp4", 12, 4) == (2, 5)
    assert given.unread("w.mp4", 13, 1) == (0, 0)
    assert given.unread("none.mp4", 12, 4) == (0, 0)
