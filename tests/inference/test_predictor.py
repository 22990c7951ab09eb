"""Predictor and the command: against evaluation, in batches, on good and bad files."""

import csv
import dataclasses
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf

from hourglass.skeleton import MPII
from pipelines import checkpoint_files, checkpoints, devices
from pipelines.data import cropping
from pipelines.data.annotations import BOX_CONTEXT
from pipelines.evaluation import evaluate
from pipelines.inference import forward, predict_media, writers
from pipelines.inference.options import InferenceOptions, for_weights
from pipelines.inference.predictor import Pose, Predictor
from pipelines.visualization import draw
from tests.helpers.films import turned_film
from tests.helpers.forked import ROOT
from tests.helpers.people import draw_person
from tests.helpers.processes import start_python

PEOPLE = 10
PERSON = {"id": 1, "name": "person"}


@pytest.fixture(scope="module")
def predictor(trained) -> Predictor:
    return Predictor.load(trained[0].workdir, batch_size=4)


@pytest.fixture(scope="module")
def crowd():
    """Photographs and persons as the records of conftest have them, and the persons' boxes."""
    drawn = [draw_person(1000 + k, "validation", k, MPII) for k in range(PEOPLE)]
    return [(image, who, box_of(who)) for image, who in drawn]


def box_of(who):
    side = who.side / BOX_CONTEXT
    return (*(who.center + 0.5 - side / 2), side, side)


def by_evaluation(config, info, crowd):
    """Joints [N, J, 2] image px and confidence by evaluate.make_predict, without a JPEG between."""
    with tf.device("/cpu:0"):
        network, skeleton, *_ = checkpoints.load_network(config.workdir)
    batch, matrices = {"image": [], "center": [], "side": []}, []
    for image, who, _ in crowd:
        square, crop_to_image = cropping.crop(image, who, info.geometry)
        rest = info.geometry.canvas - len(square)
        batch["image"].append(np.pad(square, [(0, rest), (0, rest), (0, 0)]))
        batch["center"].append(np.float32(cropping.to_crop(who.center, crop_to_image)))
        batch["side"].append(np.float32(who.side / crop_to_image[0, 0]))
        matrices.append(crop_to_image)
    batch = {key: tf.constant(np.stack(parts)) for key, parts in batch.items()}
    batch["index"] = tf.range(len(crowd), dtype=tf.int64)
    strategy = devices.make_strategy("one")
    predict = forward.make_predict(strategy, network, skeleton.mirror, InferenceOptions())
    _, joints, confidence = predict(batch)
    return cropping.to_image(np.float64(joints), np.stack(matrices)), confidence.numpy()


def test_the_same_joints_as_evaluation(trained, info, crowd, predictor):
    joints, confidence = by_evaluation(trained[0], info, crowd)
    poses = predictor([image for image, *_ in crowd], [[box] for *_, box in crowd])
    assert [len(of_picture) for of_picture in poses] == [1] * PEOPLE
    np.testing.assert_allclose(np.stack([p.joints for (p,) in poses]), joints, atol=1e-3)
    np.testing.assert_allclose([p.confidence for (p,) in poses], confidence, atol=1e-5)
    assert joints.std() > 5, "a network with constant output would prove nothing"
    for (pose,), (_, who, box) in zip(poses, crowd):
        assert pose.box == pytest.approx(box) and pose.side == pytest.approx(who.side)
        np.testing.assert_allclose(pose.center, who.center)


@pytest.mark.slow
def test_evaluations_own_files_differ_by_their_jpegs_only(trained, crowd, predictor, tmp_path):
    """What eval_main.py writes went through the records' JPEGs: most joints are the same px."""
    config = dataclasses.replace(
        trained[0], workdir=str(tmp_path), checkpoint=trained[0].workdir, decoder="subpixel"
    )
    evaluate.run(config)
    written = json.loads((tmp_path / "predictions.json").read_text())["people"]
    joints = np.array([person["joints"] for person in written])
    expected = checkpoints.read_expected(trained[0].workdir)
    subpixel = Predictor.load(trained[0].workdir, for_weights(expected, decoder="subpixel"))
    poses = subpixel([image for image, *_ in crowd], [[box] for *_, box in crowd])
    apart = np.linalg.norm(np.stack([p.joints for (p,) in poses]) - joints, axis=-1)
    side = np.array([who.side for _, who, _ in crowd])[:, None]
    assert np.median(apart / side) < 0.01


def test_a_run_and_its_best_checkpoint(trained, info, predictor):
    folder = trained[0].workdir
    prefix = checkpoint_files.latest(folder + "/checkpoints")
    assert checkpoints.split_path(folder + "/best/")[0] == folder
    assert checkpoints.split_path(prefix) == (folder, prefix)
    assert checkpoints.find(folder) == checkpoints.find(folder + "/best")
    assert checkpoints.read_geometry(folder) == info.geometry == predictor.geometry
    image = np.full([40, 30, 3], 90, np.uint8)
    (one,), (same,) = (Predictor.load(path)([image]) for path in (folder, folder + "/best"))
    np.testing.assert_array_equal(one[0].joints, same[0].joints)
    with pytest.raises(FileNotFoundError, match="contains no trained network"):
        Predictor.load(folder + "/nothing")


def test_geometry_of_runs_that_do_not_say(trained, tmp_path):
    parts = json.loads((tmp_path.__class__(trained[0].workdir) / "model.json").read_text())
    del parts["expects"]["geometry"]
    (tmp_path / "model.json").write_text(json.dumps(parts))
    assert checkpoints.read_geometry(str(tmp_path)) == cropping.Geometry(side=round(362 * 32 / 256))
    parts["expects"]["geometry"] = {"context": 2}
    (tmp_path / "model.json").write_text(json.dumps(parts))
    with pytest.raises(ValueError, match="geometry {'context': 2} is invalid"):
        checkpoints.read_geometry(str(tmp_path))


def test_pictures_are_independent_of_their_batch_and_order(crowd, predictor):
    images, boxes = [one[0] for one in crowd], [[one[2]] for one in crowd]
    boxes[3], boxes[4] = [], [boxes[4][0], (20, 20, 90, 150), boxes[4][0]]
    poses = predictor(images, boxes)
    assert [len(of_picture) for of_picture in poses] == [1, 1, 1, 0, 3, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(poses[4][0].joints, poses[4][2].joints)
    for k in (0, 4, 9):
        (alone,) = predictor([images[k]], [boxes[k]])
        for one, same in zip(poses[k], alone):
            np.testing.assert_allclose(one.joints, same.joints, atol=1e-3)
    assert predictor([], []) == [] and predictor(images[:1], [[]]) == [[]]


def test_a_whole_picture_is_one_person(crowd, predictor, monkeypatch):
    monkeypatch.setattr(predictor, "recuts", 0)
    image = crowd[0][0]
    ((pose,),), ((same,),) = predictor([image]), predictor([image], [None])
    height, width = image.shape[:2]
    assert pose.box is None and pose.side == pytest.approx(height)
    np.testing.assert_allclose(pose.center, [(width - 1) / 2, (height - 1) / 2])
    np.testing.assert_array_equal(pose.joints, same.joints)
    side = height / BOX_CONTEXT
    box = (width / 2 - side / 2, height / 2 - side / 2, side, side)
    np.testing.assert_allclose(predictor([image], [[box]])[0][0].joints, pose.joints, atol=1e-9)


def test_a_person_far_wider_than_the_window_is_downscaled_first(predictor, monkeypatch):
    """Halved first: a checkerboard of 8 px has the same crop, to rounding, at the same position."""
    y, x = np.mgrid[:600, :500]
    image = np.repeat((((x // 8 + y // 8) % 2) * 200).astype(np.uint8)[..., None], 3, -1)
    box = (101, 50, 200, 401)
    whole = predictor.crop(image, box)
    monkeypatch.setattr("pipelines.inference.predictor.WIDEST", 600)
    small = predictor.crop(image, box)
    assert whole.square.shape == small.square.shape
    for crop in (whole, small):
        middle = crop.crop_to_image[:, :2] @ crop.center + crop.crop_to_image[:, 2]
        np.testing.assert_allclose(middle, [200.5, 250.0])
        assert crop.side * crop.crop_to_image[0, 0] == pytest.approx(1.25 * 401)
    assert np.abs(whole.square.astype(int) - small.square).mean() < 25


def test_images_and_boxes_that_cannot_be(crowd, predictor, tmp_path):
    image = crowd[0][0]
    wrong = [
        (([image], [None, None]), "1 images but boxes for 2"),
        ((image,), "pass a list"),
        (([image / 255.0],), r"image 0: an image must be \[H, W, 3\] uint8 RGB, not .* float64"),
        (([image[..., 0]],), "image 0: an image must be"),
        (
            ([image, image], [None, [(500, 0, 9, 9)]]),
            "image 1, box 0: box .* is outside the picture",
        ),
        (([image], [[(0, 0, 9, 9), (0, 0, 9)]]), r"image 0, box 1: box \(0, 0, 9\) is not four"),
        (([image], [[(0, 0, 1e308, 1e308)]]), "image 0, box 0: box .* is not finite, or beyond"),
    ]
    for arguments, words in wrong:
        with pytest.raises(ValueError, match=words):
            predictor(*arguments)
    with pytest.raises(FileNotFoundError, match="none.jpg: no file"):
        predictor([str(tmp_path / "none.jpg")])


def save_turned(path, image, orientation=6):
    """A JPEG that is stored as ``image``, and turned by viewers; returns its pixels as shown."""
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(image).save(path, exif=exif, quality=95)
    shown = PIL.ImageOps.exif_transpose(PIL.Image.open(path)).convert("RGB")
    return np.asarray(shown)


def test_files_are_turned_as_viewers_show_them(crowd, predictor, tmp_path):
    path, boxes = str(tmp_path / "x.jpg"), [[(30, 20, 100, 130)]]
    shown = save_turned(path, crowd[0][0])
    assert shown.shape == (200, 220, 3)
    ((pose,),), ((same,),) = predictor([path], boxes), predictor([shown], boxes)
    np.testing.assert_array_equal(pose.joints, same.joints)
    stored = np.ascontiguousarray(np.rot90(shown))
    ((pose,),), ((same,),) = predictor([path], boxes, upright=False), predictor([stored], boxes)
    np.testing.assert_array_equal(pose.joints, same.joints)


def test_reading_ahead_is_bounded_and_in_order():
    started = []

    def slow_first(k):
        started.append(k)
        time.sleep(0.05 if k == 0 else 0.0)
        return k

    results = predict_media.ahead(slow_first, itertools.count(), 6, workers=3)
    for k in range(40):
        assert next(results) == k
        assert len(started) <= k + 8
    results.close()


def test_streaming_holds_two_batches_at_most(crowd, predictor):
    """Pictures with and without people: none waits for long, whatever comes."""
    read = 0

    def items():
        nonlocal read
        for k in range(60):
            read += 1
            people = 3 if k % 20 == 7 else 0 if 20 < k < 50 else 1
            yield k, [predictor.crop(crowd[0][0], crowd[0][2])] * people

    for number, (k, poses) in enumerate(predictor.stream(items())):
        assert k == number and len(poses) == (3 if k % 20 == 7 else 0 if 20 < k < 50 else 1)
        assert read - number <= 2 * predictor.batch_size + 1
    assert number == 59


def test_results_appear_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "out"
    pose = Pose(np.full([16, 2], 1.5), np.full(16, 0.25), (1, 2, 3, 4), np.zeros(2), 9.0)
    nan = dataclasses.replace(pose, joints=np.full([16, 2], np.nan), box=None)
    with writers.Results(str(folder), MPII, {"id": "b", "name": "bee"}, 8) as results:
        results.add("a.jpg", (40, 30), [pose, nan])
        results.add("b.jpg", (40, 30), [pose], image_id=0)
        results.add("c.jpg", (40, 30), [pose])
        assert not (folder / "predictions.json").exists()
    assert len((folder / "predictions.csv").read_text().splitlines()) == 1 + 4
    people = json.loads((folder / "predictions.json").read_text())
    pictures = json.loads((folder / "images.json").read_text())
    assert [image["id"] for image in pictures["images"]] == [8, 0, 9]
    assert [person["image_id"] for person in people] == [8, 8, 0, 9]
    assert {person["category_id"] for person in people} == {"b"}
    assert people[0]["keypoints"] == [1.5, 1.5, 0.25] * 16 and people[0]["score"] == 0.25
    assert people[0]["box"] == [1, 2, 3, 4] and people[1]["keypoints"][:3] == [0, 0, 0.25]
    (category,) = pictures["categories"]
    assert (category["id"], category["name"]) == ("b", "bee")
    assert category["skeleton"][0] == [1, 2] and category["keypoints"] == list(MPII.joints)
    with writers.Results(str(tmp_path / "none"), MPII, PERSON):
        pass
    assert json.loads((tmp_path / "none" / "predictions.json").read_text()) == []
    assert json.loads((tmp_path / "none" / "images.json").read_text())["images"] == []
    with pytest.raises(OSError), writers.Results(str(tmp_path / "bad"), MPII, PERSON):
        raise OSError("disk full")
    assert not list((tmp_path / "bad").iterdir())


def test_each_input_has_its_own_place():
    names = ["a.jpg", "a.png", "s/a.jpg", "w.avi", "0"]
    expected = ["o/a.jpg", "o/a-2.jpg", "o/s/a.jpg", "o/w.webm", "o/camera0.webm"]
    assert writers.drawn_paths("o", names) == expected


def test_people_are_drawn_at_their_place_with_numbers_and_panel():
    image = np.full([400, 300, 3], 128, np.uint8)
    joints = np.stack([np.linspace(100, 500, 16), np.linspace(100, 700, 16)], -1)
    confidence = np.linspace(0, 1, 16)
    pose = Pose(joints, confidence, None, np.array([300.0, 400.0]), 800.0, np.zeros([8, 8, 16]))
    drawn = draw.poses(image, [pose], MPII, 0.5, 0.1, panel=True)
    assert drawn.shape == (400, 700, 3) and (image == 128).all()
    changed = (drawn[:, :300] != 128).any(-1)
    for position, expected in zip((joints + 0.5) * 0.5 - 0.5, confidence):
        x, y = np.rint(position).astype(int)
        assert changed[y, x] or expected < 0.1
    assert not changed[:40].any() and not changed[360:].any()
    assert (drawn[200, 360:640] == round(0.55 * 128)).all(), "a panel without heat is dimmed"


@pytest.fixture
def command(fork_script):
    """A function from words to the exit code and everything that predict.py prints."""

    def run(*words: str) -> tuple[int, str]:
        answer = fork_script(ROOT, "scripts/predict.py", *words)
        output = answer["output"] + answer["errors"]
        assert "Traceback" not in output, output
        return answer["code"], output

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory, crowd):
    """Six JPEGs, two of them broken, a text and a video."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for k in range(4):
        name = f"{'more/' if k == 3 else ''}p{k}.jpg"
        cv2.imwrite(str(folder / name), crowd[k][0][..., ::-1])
    whole = (folder / "p0.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.mark.slow
def test_a_folder_with_broken_pictures(command, trained, folder, tmp_path, predictor):
    words = (f"--checkpoint={trained[0].workdir}", f"--output={tmp_path / 'out'}", "--heatmaps")
    code, output = command(str(folder), *words)
    assert code == 1, output
    assert "each picture shows one person" in output
    assert output.count("bad: ") == 2
    assert f"bad: {folder / 'cut.jpg'}: photograph truncated" in output
    assert f"bad: {folder / 'empty.jpg'}: photograph empty" in output
    assert "error: 2 inputs had problems" in output and "images/s" in output
    assert "1 file in the folders without a picture's extension" in output
    assert "4 people in 4 images" in output
    people = json.loads((tmp_path / "out" / "predictions.json").read_text())
    names = ["more/p3.jpg", "p0.jpg", "p1.jpg", "p2.jpg"]
    assert sorted(person["file_name"] for person in people) == names
    for person in people:
        ((pose,),) = predictor([str(folder / person["file_name"])])
        keypoints = np.array(person["keypoints"]).reshape(16, 3)
        np.testing.assert_allclose(keypoints[:, :2], pose.joints, atol=1e-3)
        np.testing.assert_allclose(keypoints[:, 2], pose.confidence, atol=1e-3)
    drawn = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.jpg"))
    assert drawn == names
    height, width = cv2.imread(str(folder / "p0.jpg")).shape[:2]
    high, wide = cv2.imread(str(tmp_path / "out" / "p0.jpg")).shape[:2]
    assert wide == pytest.approx(high * width / height + high, abs=2) and high >= 360
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.slow
def test_detections_in_a_list_from_standard_input(trained, folder, crowd, tmp_path):
    """As COCO has them: ids instead of names, invalid boxes, a name without an input."""
    box = [float(value) for value in crowd[1][2]]
    images = [(71, "p1.jpg"), (72, "p2.jpg"), (73, "unseen.jpg"), (74, "p0.jpg")]
    named = {"images": [{"id": i, "file_name": name} for i, name in images]}
    (tmp_path / "names.json").write_text(json.dumps(named))
    some = [(71, box), (71, [0, 0, 0, 5]), (73, box), (72, [900, 900, 5, 5]), (72, box)]
    detections = [{"image_id": i, "category_id": 1, "bbox": b, "score": 0.9} for i, b in some]
    (tmp_path / "boxes.json").write_text(json.dumps(detections))
    out = tmp_path / "out"
    process = subprocess.run(
        f"ls {folder}/p*.jpg | {sys.executable} scripts/predict.py - "
        f"--checkpoint={trained[0].workdir} --output={out} --nodraw "
        f"--boxes={tmp_path / 'boxes.json'} --annotations={tmp_path / 'names.json'}",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 1, process.stderr
    assert "4 boxes for 3 inputs" in process.stdout
    assert "1 picture has no boxes" in process.stdout
    for words in (
        f"bad: p1.jpg: {tmp_path}/boxes.json, entry 1: box (0.0, 0.0, 0.0, 5.0) (x, y, width, ",
        "boxes.json, entry 3: box (900.0, 900.0, 5.0, 5.0)",
        f"bad: {tmp_path}/boxes.json: 1 name matches no input: unseen.jpg",
        "error: 3 inputs had problems: ",
    ):
        assert words in process.stderr
    files = ["images.json", "predictions.csv", "predictions.json"]
    assert sorted(path.name for path in out.iterdir()) == files
    people = json.loads((out / "predictions.json").read_text())
    assert [person["image_id"] for person in people] == [71, 72]
    pictures = json.loads((out / "images.json").read_text())["images"]
    assert {image["file_name"]: image["id"] for image in pictures} == {
        "p0.jpg": 74,
        "p1.jpg": 71,
        "p2.jpg": 72,
    }


@pytest.mark.slow
def test_a_video_in_and_out(command, trained, crowd, tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "walk.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (200, 220)
    )
    for k in range(25):
        writer.write(np.roll(crowd[k % 2][0], k, 1)[..., ::-1])
    writer.release()
    data = (tmp_path / "walk.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    (tmp_path / "boxes.csv").write_text("walk.avi,20,10,150,200\nwalk.avi#3,0,0,90,90\n")
    out = tmp_path / "out"
    common = (f"--checkpoint={trained[0].workdir}", f"--output={out}", "--smooth")
    boxes = f"--boxes={tmp_path / 'boxes.csv'}"
    code, output = command(str(tmp_path / "walk.avi"), boxes, "--every=4", *common)
    assert code == 0 and re.search(r" 7/7 \[[0-9:]+<00:00", output), output
    assert "walk.avi: boxes of frames that --every=4 leaves out: 1\n" in output
    with open(out / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {"walk.avi"}
    assert [row["frame"] for row in rows] == [str(k) for k in range(0, 25, 4)]
    assert [float(row["time"]) for row in rows] == [k / 20 for k in range(0, 25, 4)]
    video = cv2.VideoCapture(str(out / "walk.webm"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 7 and video.get(cv2.CAP_PROP_FPS) == 5
    code, output = command(str(tmp_path / "walk.avi"), boxes, *common)
    assert code == 0 and re.search(r" 25/25 \[[0-9:]+<00:00", output), output
    assert "OpenCV" not in output
    people = json.loads((out / "predictions.json").read_text())
    assert [person["file_name"] for person in people] == [f"walk.avi#{k}" for k in range(25)]
    assert people[3]["box"] == [0, 0, 90, 90] and people[4]["box"] == [20, 10, 150, 200]
    assert {person["track_id"] for person in people} == {1, 2}, "the box of frame 3 is elsewhere"
    video = cv2.VideoCapture(str(out / "walk.webm"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 25 and video.get(cv2.CAP_PROP_FPS) == 20
    frames = [video.read()[1] for _ in range(25)]
    assert all(frame is not None and min(frame.shape[:2]) >= 360 for frame in frames)
    turned = turned_film(tmp_path / "turned.mp4", 90)
    (out / "turned.webm").mkdir()  # cannot be written; that costs the drawing only
    code, output = command(
        str(tmp_path / "cut.avi"), str(tmp_path / "none.mp4"), turned, "98", *common
    )
    assert code == 1 and "cut.avi: ends early: " in output and "none.mp4: no file" in output
    assert "98: camera 98 does not respond" in output
    assert (out / "cut.webm").exists()
    assert "turned.mp4: predicted, not drawn: cannot write the video" in output
    assert "1 video turned as viewers show it" in output
    assert "error: 4 inputs had problems: " in output
    images = json.loads((out / "images.json").read_text())["images"]
    sizes = [(one["width"], one["height"]) for one in images if "turned" in one["file_name"]]
    assert sizes == [(48, 64)] * 3
    assert sorted(path.name for path in out.iterdir()) == [
        *("cut.webm", "images.json", "predictions.csv", "predictions.json"),
        *("turned.webm", "walk.webm"),
    ]
    (tmp_path / "late.csv").write_text("walk.avi#24,0,0,90,90\nwalk.avi#25,0,0,90,90\n")
    late = f"--boxes={tmp_path / 'late.csv'}"
    code, output = command(str(tmp_path / "walk.avi"), late, "--nodraw", *common)
    assert code == 1 and "frames 0 to 24 were read, there are boxes of later ones: 1" in output


@pytest.mark.slow
def test_ids_sizes_and_category_of_an_annotation_file(command, trained, crowd, predictor, tmp_path):
    """Ids 0 and texts, EXIF orientations that the sizes confirm, deny and do not tell."""
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    run, photos, out = tmp_path / "run", tmp_path / "photos", tmp_path / "out"
    shutil.copytree(trained[0].workdir, run)
    parts = json.loads((run / "model.json").read_text())
    parts["category"] = {"id": 7, "name": "bee"}
    (run / "model.json").write_text(json.dumps(parts))
    photos.mkdir()
    box, images, people, arrays = [30.0, 20.0, 100.0, 130.0], [], [], {}
    stored, shown = {"width": 200, "height": 220}, {"width": 220, "height": 200}
    kinds = {0: shown, "a-17": stored, 5: {"width": 99, "height": 99}, 6: {}, 8: stored}
    for k, (key, size) in enumerate(kinds.items()):
        name, image = f"p{k}.jpg", crowd[k][0]
        arrays[key] = save_turned(photos / name, image, 1 if key == 8 else 6)
        images.append({"id": key, "file_name": name, **size})
        one = {"id": k + 1, "image_id": key, "category_id": 7, "bbox": box, "area": 1, "iscrowd": 0}
        people.append(one)
    arrays["a-17"] = np.ascontiguousarray(np.rot90(arrays["a-17"]))
    categories = [{"id": 7, "name": "bee"}, {"id": 1, "name": "person"}]
    file = tmp_path / "bees.json"
    file.write_text(json.dumps({"images": images, "annotations": people, "categories": categories}))
    words = (str(photos), f"--checkpoint={run}", f"--boxes={file}")
    code, output = command(*words, f"--output={out}")
    assert code == 1, output
    assert "bad: " + str(photos / "p2.jpg") + ": is 200x220, annotated as 99x99" in output
    assert "2 pictures turned as viewers show them" in output
    assert "1 picture not turned, though" in output and "error: 1 input had problems" in output
    predicted = json.loads((out / "predictions.json").read_text())
    assert [one["image_id"] for one in predicted] == [0, "a-17", 6, 8]
    assert {one["category_id"] for one in predicted} == {7}
    for one in predicted:
        ((pose,),) = predictor([arrays[one["image_id"]]], [[tuple(box)]])
        keypoints = np.reshape(one["keypoints"], (16, 3))
        np.testing.assert_allclose(keypoints[:, :2], pose.joints, atol=1e-3)
    listed = json.loads((out / "images.json").read_text())
    assert listed["categories"][0]["name"] == "bee" and listed["categories"][0]["id"] == 7
    for one in listed["images"]:
        height, width = arrays[one["id"]].shape[:2]
        drawn = cv2.imread(str(out / one["file_name"]))
        assert (one["width"], one["height"]) == (width, height)
        assert drawn.shape[1] / drawn.shape[0] == pytest.approx(width / height, abs=0.01)
    for annotations in (file, out / "images.json"):
        loaded = coco.COCO(str(annotations)).loadRes(str(out / "predictions.json"))
        assert set(loaded.getImgIds()) >= {0, "a-17", 6, 8}
    (out / "predictions.json").unlink()
    code, output = command(*words, f"--output={out}", "--category=2", "--least_score=0.5")
    assert code == 1 and "error: --least_score: it is now called --min_score" in output
    code, output = command(*words, f"--output={out}", "--category=2")
    assert code == 1 and "is of the category 2, only of 7 ('bee', 5)" in output
    assert not (out / "predictions.json").exists()


@pytest.mark.slow
def test_one_absurd_box_or_bad_picture_costs_only_itself(command, trained, folder, tmp_path):
    """NaN, infinite, negative, huge, far outside; a picture that cannot be decoded, or drawn."""
    out = tmp_path / "out"
    (out / "p1.jpg").mkdir(parents=True)
    good = "[20, 10, 150, 200]"
    absurd = ["[NaN, 0, 9, 9]", "[0, 0, Infinity, 9]", "[0, 0, -9, 9]", "[1e308, 0, 1e308, 9]"]
    absurd += [f"[0, 0, {10**400}, 9]", "[0, 0, 0, 0]", "[-9e5, -9e5, 1e6, 1e6]", "[9e5, 0, 9, 9]"]
    absurd += ["[0, 0, 1e-300, 1e-300]", "[1, 2, 3]", "null"]
    people = {"p0.jpg": [*absurd, good], "p1.jpg": [good], "p2.jpg": [good], "cut.jpg": [good]}
    lists = (f'"{name}": [{", ".join(boxes)}]' for name, boxes in people.items())
    (tmp_path / "boxes.json").write_text(f'{{{", ".join(lists)}, "p3.jpg": 7}}')
    code, output = command(
        str(folder),
        f"--boxes={tmp_path / 'boxes.json'}",
        f"--checkpoint={trained[0].workdir}",
        f"--output={out}",
    )
    assert code == 1, output
    for number in range(len(absurd)):
        assert f"bad: p0.jpg: {tmp_path}/boxes.json, 'p0.jpg', box {number}: box " in output
    for words in (
        "boxes.json, 'p3.jpg': 7 should be a list of boxes",
        f"bad: {folder / 'cut.jpg'}: photograph truncated",
        f"bad: p1.jpg: predicted, not drawn: cannot write {out / 'p1.jpg'}: ",
        "error: 5 inputs had problems: ",
        "3 people in 4 images",
    ):
        assert words in output
    predicted = json.loads((out / "predictions.json").read_text())
    assert [one["file_name"] for one in predicted] == ["p0.jpg", "p1.jpg", "p2.jpg"]
    assert all(one["box"] == [20, 10, 150, 200] for one in predicted)
    drawn = [path.name for path in out.rglob("*.jpg") if path.is_file()]
    assert sorted(drawn) == ["p0.jpg", "p2.jpg", "p3.jpg"]
    assert not list(out.rglob("*.partial"))


@pytest.mark.slow
def test_ctrl_c_keeps_what_there_is(trained, folder, tmp_path):
    many = tmp_path / "many"
    many.mkdir()
    for k in range(20_000):
        (many / f"{k:05d}.jpg").symlink_to(folder / "p0.jpg")
    out = tmp_path / "out"
    script = str(ROOT / "scripts" / "predict.py")
    words = (f"--checkpoint={trained[0].workdir}", f"--output={out}", "--nodraw")
    process = start_python(script, str(many), *words)
    partial, end = out / "predictions.json.partial", time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size > 10_000):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in output, output
    assert "interrupted: what was predicted so far is written" in output
    people = json.loads((out / "predictions.json").read_text())
    assert 0 < len(people) < 20_000


@pytest.mark.slow
def test_mistakes_are_sentences(command, trained, folder, tmp_path):
    run = f"--checkpoint={trained[0].workdir}"
    (tmp_path / "boxes.json").write_text('{"elsewhere.jpg": [[1, 2, 3, 4]]}')
    lines = {
        "error: no input: give pictures": [run],
        "error: there is no file or folder nowhere/; ": ["nowhere/", run],
        "contains no trained network": [str(folder), f"--checkpoint={tmp_path}"],
        "error: no name in": [str(folder), run, f"--boxes={tmp_path / 'boxes.json'}"],
        "would overwrite the input": [str(folder / "p0.jpg"), run, f"--output={folder}"],
    }
    for sentence, words in lines.items():
        code, output = command(*words)
        assert code == 1 and sentence in output, output
