"""Pictures that are not as large as their annotations have it: real JPEGs, real COCO files."""

import json
import os

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from pipelines.data import tfrecords, write_tfrecords
from pipelines.data.cropping import Geometry
from pipelines.data.readers import coco
from tests.helpers.forked import ROOT
from tests.helpers.toys import write

ORIENTATION = 0x0112
DOTS = np.array([(30, 100), (45, 130)])  # of a picture 120 px wide, 160 px high


def shown():
    """[160, 120, 3] uint8: black, with two white dots of 9 x 9 px."""
    picture = np.zeros((160, 120, 3), np.uint8)
    for x, y in DOTS:
        picture[y - 4 : y + 5, x - 4 : x + 5] = 255
    return picture


def save(path, picture, orientation=1):
    """A JPEG that viewers show as ``picture``, with its pixels stored as the orientation says."""
    turns = {1: picture, 3: np.rot90(picture, 2), 6: np.rot90(picture), 8: np.rot90(picture, -1)}
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    path.parent.mkdir(exist_ok=True, parents=True)
    PIL.Image.fromarray(turns[orientation]).save(path, exif=exif, quality=95)


def document(sizes, dots=DOTS):
    """One person of two joints in each picture of these annotated sizes."""
    images, annotations = [], []
    for number, (name, size) in enumerate(sizes.items()):
        images.append({"id": number, "file_name": name, **size})
        keypoints = np.hstack([dots, [[2], [2]]]).ravel().tolist()
        low, extent = dots.min(0) - 8, np.ptp(dots, axis=0) + 16
        entry = {"id": number, "image_id": number, "category_id": 1, "keypoints": keypoints}
        annotations.append({**entry, "bbox": [*low.tolist(), *extent.tolist()]})
    category = {"id": 1, "name": "dog", "keypoints": ["left_ear", "right_ear"]}
    return {"images": images, "annotations": annotations, "categories": [category]}


def size(width, height):
    return {"width": width, "height": height}


def read(folder, content, **options):
    options = {"head": "box:0.1", "validation_fraction": 0, **options}
    return coco.read(write(folder, content), images=str(folder / "images"), **options)


def convert(folder, annotated, **options):
    options = {"geometry": Geometry(2.0, 64), "workers": 1, **options}
    images, records = str(folder / "images"), str(folder / "records")
    return write_tfrecords.convert(annotated, images, records, **options)[0]


def brightness(info):
    """Grey level at each joint of each record."""
    canvas = info.geometry.canvas
    data = tf.data.TFRecordDataset(info.shards("train"))
    data = data.map(lambda record: tfrecords.decode(record, joints=2, canvas=canvas))
    levels = []
    for record in data.as_numpy_iterator():
        x, y = np.rint(record["joints"]).astype(int).T
        levels += record["image"][y, x].mean(-1).tolist()
    return np.array(levels)


@pytest.mark.parametrize("orientation", [6, 8])
def test_a_picture_that_fits_only_turned_is_turned(tmp_path, orientation):
    for name in ("a.jpg", "b.jpg"):
        save(tmp_path / "images" / name, shown(), orientation)
    save(tmp_path / "images" / "c.jpg", shown())
    result = read(tmp_path, document(dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), size(120, 160))))
    assert result.upright == {"a.jpg": True, "b.jpg": True}
    (note,) = result.notes
    assert note.startswith("2 of 3 pictures fit their annotated size only as their EXIF")
    info = convert(tmp_path, result)
    assert info.count("train") == 3 and (brightness(info) > 200).all()
    assert info.settings["turned_photographs"] == ["a.jpg", "b.jpg"] and info.not_turned == 0


def test_a_picture_that_fits_only_as_stored_stays_even_with_upright(tmp_path):
    save(tmp_path / "images" / "a.jpg", np.rot90(shown(), -1), 6)  # stored as ``shown``
    result = read(tmp_path, document({"a.jpg": size(120, 160)}))
    assert (result.upright, result.notes) == ({"a.jpg": False}, ())
    info = convert(tmp_path, result, upright=True)
    assert (brightness(info) > 200).all() and info.not_turned == 0


def test_a_half_turn_follows_the_quarter_turns(tmp_path):
    save(tmp_path / "images" / "half.jpg", shown(), 3)
    alone = read(tmp_path, document({"half.jpg": size(120, 160)}))
    assert (alone.upright, alone.notes) == ({}, ())
    save(tmp_path / "images" / "quarter.jpg", shown(), 6)
    both = read(tmp_path, document(dict.fromkeys(("half.jpg", "quarter.jpg"), size(120, 160))))
    assert both.upright == {"half.jpg": True, "quarter.jpg": True}
    assert "fit with and without it: turned like the others" in both.notes[1]
    assert (brightness(convert(tmp_path, both)) > 200).all()
    save(tmp_path / "images" / "stored.jpg", np.rot90(shown(), -1), 6)
    names = ("half.jpg", "quarter.jpg", "stored.jpg")
    mixed = read(tmp_path, document(dict.fromkeys(names, size(120, 160))))
    assert "half.jpg" not in mixed.upright
    as_stored = read(tmp_path, document(dict.fromkeys(("half.jpg", "stored.jpg"), size(120, 160))))
    assert (as_stored.upright, as_stored.notes) == ({"half.jpg": False, "stored.jpg": False}, ())


def test_without_a_size_the_ignored_are_counted_and_upright_turns_them(tmp_path):
    save(tmp_path / "images" / "a.jpg", shown(), 6)
    save(tmp_path / "images" / "b.jpg", shown())
    result = read(tmp_path, document({"a.jpg": {}, "b.jpg": {"width": None, "height": 0}}))
    info = convert(tmp_path, result)
    assert info.not_turned == 1 and not (brightness(info) > 200).all()
    assert tfrecords.read_info(str(tmp_path / "records")) == info
    with pytest.raises(FileExistsError, match="upright"):
        convert(tmp_path, result, upright=True)
    info = convert(tmp_path, result, upright=True, overwrite=True)
    assert info.not_turned == 0 and (brightness(info) > 200).all()


def test_exchanged_width_and_height(tmp_path):
    """A box below 120 px, the height as annotated, is in the picture all the same."""
    save(tmp_path / "images" / "a.jpg", shown())
    low = DOTS + [0, 24]
    result = read(tmp_path, document({"a.jpg": size(160, 120)}, low))
    assert len(result.people) == 1 and result.left_out == {} and result.upright == {}
    assert "1 of 1 pictures have width and height exchanged" in result.notes[0]
    assert "their real size is used; a.jpg is 120x160, annotated as 160x120" in result.notes[0]


def test_positions_of_a_turned_picture_are_no_exchange(tmp_path):
    """Turned after labelling, without EXIF: joints lie beyond the real picture."""
    save(tmp_path / "images" / "a.jpg", np.rot90(shown()))
    result = read(tmp_path, document({"a.jpg": size(120, 160)}))
    assert result.people == ()
    (who,) = result.left_out["picture of another size than annotated"]
    assert who == "a.jpg#0: a.jpg is 160x120, annotated as 120x160"


def test_another_size_is_left_out_by_name(tmp_path):
    save(tmp_path / "images" / "a.jpg", np.zeros((480, 640, 3), np.uint8))
    save(tmp_path / "images" / "b.jpg", shown())
    result = read(tmp_path, document({"a.jpg": size(478, 640), "b.jpg": size(120, 160)}))
    assert [person.image for person in result.people] == ["b.jpg"]
    (note,) = result.notes
    assert "a.jpg is 640x480, annotated as 478x640" in note and "--rescale_annotations" in note
    convert(tmp_path, result)
    named = json.loads((tmp_path / "records" / "left_out.json").read_text())
    assert named == {
        "picture of another size than annotated": [
            "a.jpg#0: a.jpg is 640x480, annotated as 478x640"
        ]
    }


@pytest.mark.parametrize("orientation", [1, 6])
def test_rescaled_on_request(tmp_path, orientation):
    """The labels are those of a picture twice as wide and three times as high."""
    save(tmp_path / "images" / "a.jpg", shown(), orientation)
    labels = (DOTS + 0.5) * (2, 3) - 0.5
    content = document({"a.jpg": size(240, 480)}, labels)
    content["annotations"][0]["keypoints"][5] = 0
    result = read(tmp_path, content, rescale=True)
    (person,) = result.people
    np.testing.assert_allclose(person.joints, [DOTS[0], (0, 0)])
    box = np.array(content["annotations"][0]["bbox"]) / (2, 3, 2, 3)
    np.testing.assert_allclose(person.center, box[:2] + box[2:] / 2 - 0.5)
    assert person.side == pytest.approx(1.25 * box[2:].max())
    assert result.upright == ({} if orientation == 1 else {"a.jpg": True})
    assert "positions are rescaled; a.jpg is 120x160, annotated as 240x480" in result.notes[0]


def test_missing_and_broken_pictures_are_left_to_the_conversion(tmp_path):
    save(tmp_path / "images" / "a.jpg", shown())
    (tmp_path / "images" / "b.jpg").write_bytes(b"no picture")
    os.mkfifo(tmp_path / "images" / "d.jpg")
    names = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    result = read(tmp_path, document(dict.fromkeys(names, size(120, 160))))
    assert len(result.people) == 4 and result.notes == ()
    info = convert(tmp_path, result, allow_missing_images=True)
    reasons = {reason[:20]: count for reason, count in info.left_out.items()}
    assert reasons == {
        "photograph missing": 1,
        "photograph not a pic": 1,
        "photograph a fifo, d": 1,
    }


@pytest.mark.slow
def test_the_command_prints_what_was_done(tmp_path, fork_script):
    def command(*words):
        script = str(ROOT / "scripts" / "make_tfrecords.py")
        return fork_script(tmp_path, script, "--records=r", "--side=16", "--workers=1", *words)

    save(tmp_path / "images" / "sized.jpg", shown(), 6)
    save(tmp_path / "images" / "unsized.jpg", shown(), 6)
    save(tmp_path / "images" / "large.jpg", shown())
    sizes = {"sized.jpg": size(120, 160), "unsized.jpg": {}, "large.jpg": size(240, 320)}
    path = write(tmp_path, document(sizes))
    mine = ("--dataset=coco", f"--annotations={path}", "--head=box:0.1")
    printed = command(*mine, "--validation_fraction=0")["output"]
    assert "Note: 1 of 2 pictures fit their annotated size only as" in printed
    assert "left out: picture of another size than annotated" in printed
    assert "1 photographs carry an EXIF orientation, which is ignored" in printed
    options = ("--validation_fraction=0", "--upright", "--rescale_annotations", "--overwrite")
    printed = command(*mine, *options)["output"]
    assert "positions are rescaled; large.jpg is 120x160, annotated as 240x320" in printed
    assert "left out: none" in printed and "carry an EXIF orientation" not in printed
    refused = command("--dataset=lsp", "--rescale_annotations")
    assert "--rescale_annotations belongs to --dataset=coco" in refused["errors"]
