"""Files of predictions, read back as their readers do: JSON, CSV, films."""

import csv
import dataclasses
import json
import os

import cv2
import numpy as np
import pytest

from hourglass.skeleton import MPII
from pipelines.inference import media, writers
from pipelines.inference.predictor import Pose

PERSON = {"id": 1, "name": "person"}
POSE = Pose(np.full([16, 2], 1.5), np.full(16, 0.25), (1, 2, 3, 4), np.zeros(2), 9.0)


def rows(folder):
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_for_each_person_and_frame(tmp_path):
    random = np.random.default_rng(0)
    joints = [random.normal(0, 300, [16, 2]) for _ in range(4)]
    poses = [dataclasses.replace(POSE, joints=each) for each in joints]
    with writers.Results(str(tmp_path), MPII, PERSON) as results:
        results.add("s/a.jpg", (40, 30), poses[:2])
        results.add("none.jpg", (40, 30), [])
        for k, persons in ((0, (1,)), (7, (3,))):
            frame = media.Frame("w#1.mp4", k, k / 30)
            results.add(f"w#1.mp4#{k}", (40, 30), [poses[2 + bool(k)]], None, frame, persons)
        assert not (tmp_path / "predictions.csv").exists()
    read = rows(tmp_path)
    names = [f"{joint}_{what}" for joint in MPII.joints for what in ("x", "y", "confidence")]
    assert list(read[0]) == ["file", "frame", "time", "person", *names]
    places = [tuple(row[key] for key in ("file", "frame", "time", "person")) for row in read]
    assert places == [
        ("s/a.jpg", "", "", "1"),
        ("s/a.jpg", "", "", "2"),
        ("w#1.mp4", "0", "0.0", "1"),
        ("w#1.mp4", "7", "0.233333", "3"),
    ]
    for row, expected in zip(read, joints):
        numbers = np.array([float(row[name]) for name in names]).reshape(16, 3)
        np.testing.assert_allclose(numbers[:, :2], expected, atol=5.1e-4)
        assert (numbers[:, 2] == 0.25).all()
    people = json.loads((tmp_path / "predictions.json").read_text())
    assert [one.get("track_id") for one in people] == [None, None, 1, 3]
    assert [one["file_name"] for one in people[2:]] == ["w#1.mp4#0", "w#1.mp4#7"]


def test_names_and_numbers_that_csv_cannot_hold_as_they_are(tmp_path):
    """Commas, quotes and line ends are quoted; formulas become paths; what is not finite, empty."""
    joints = np.full([16, 2], 2.0)
    joints[0] = np.nan, np.inf
    pose = dataclasses.replace(POSE, joints=joints)
    names = [
        *('a,"b".jpg', "a\nb.jpg", "a\rb.jpg", "\u00e4.jpg", "=1+1.jpg", "+1.jpg", "-1.jpg"),
        *("@SUM(1).jpg", "\t=1.jpg", "a=1.jpg"),
    ]
    with writers.Results(str(tmp_path), MPII, PERSON) as results:
        for name in names:
            results.add(name, (40, 30), [pose])
    read = [row["file"] for row in rows(tmp_path)]
    assert [os.path.normpath(name) for name in read] == names
    assert [name for name in read if name.startswith("./")] == [f"./{n}" for n in names[4:9]]
    row = rows(tmp_path)[0]
    assert row["right_ankle_x"] == row["right_ankle_y"] == "" and row["right_knee_x"] == "2.0"


def written(path, frames, rate):
    with writers.Film(str(path), rate) as film:
        for frame in frames:
            film.add(frame)
    return film.problem


def test_a_film_takes_frames_of_any_size_and_names_what_it_cannot_write(tmp_path):
    frames = [np.full((48, 64, 3), 200, np.uint8), np.full((96, 128, 3), 200, np.uint8)]
    assert not written(tmp_path / "a.webm", frames, 25.0)
    again = list(media.open_video(str(tmp_path / "a.webm")).frames())
    assert [one.shape for one in again] == [(48, 64, 3)] * 2
    (tmp_path / "file").touch()
    problem = written(tmp_path / "file" / "a.webm", frames, 25.0)
    assert problem == f"cannot write the video {tmp_path}/file/a.webm: File exists"


@pytest.mark.parametrize("rate", [25.0, 29.97, 25 / 7, 0.1])
def test_a_film_is_whole_in_frames_and_time_and_of_a_codec_of_browsers(tmp_path, rate, capfd):
    random = np.random.default_rng(0)
    still = random.integers(0, 256, [90, 120, 3], np.uint8)
    for count in (1, 2, 40):
        path = tmp_path / f"{count}.webm"
        assert not written(path, (np.roll(still, k, 1) for k in range(count)), rate)
        assert b"webm" in path.read_bytes()[:64], "EBML's DocType"
        video = cv2.VideoCapture(str(path))
        assert int(video.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter_fourcc(*"VP80")
        assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(rate, rel=0.01)
        times = []
        while video.grab():
            times.append(video.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        np.testing.assert_allclose(times, np.arange(count) / rate, atol=0.002 + 0.01 * count / rate)
    assert capfd.readouterr().err == "", "OpenCV's notices are filtered"
