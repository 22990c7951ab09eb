"""Users' pictures and videos: real files of every kind, good and bad."""

import os

import cv2
import numpy as np
import pytest

from pipelines.data import image_io
from pipelines.inference import boxes, media
from pipelines.inference.media_options import MediaOptions
from pipelines.inference.predict_media import Input, Run
from tests.helpers.films import TURNS, turned_film


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_inputs_are_expanded_in_order_and_once(tmp_path):
    touch(tmp_path, "f/b.jpg", "f/a.PNG", "f/sub/c.jpeg", "f/notes.txt", "f/.hidden.jpg")
    touch(tmp_path, "f/out/old.jpg", "g/1.jpg", "g/2.jpg", "w.mp4")
    at = lambda name: str(tmp_path / name)  # noqa: E731
    expanded, others = media.expand([at("f"), at("f/b.jpg"), "0"], [], at("f/out"))
    assert expanded == [
        (at("f/a.PNG"), "a.PNG"),
        (at("f/b.jpg"), "b.jpg"),
        (at("f/sub/c.jpeg"), "sub/c.jpeg"),
        ("0", "0"),
    ]
    assert others == 1
    expanded, _ = media.expand([at("g/?.jpg"), "-"], [at("w.mp4"), at("g/2.jpg")])
    assert [name for _, name in expanded] == ["1.jpg", "2.jpg", "w.mp4"]
    assert media.is_video("w.MP4") and media.is_camera("0") and not media.is_video("a.jpg")
    with pytest.raises(FileNotFoundError, match="nothing matches"):
        media.expand([at("*.webp")], [])
    touch(tmp_path, "empty/x.txt")
    with pytest.raises(FileNotFoundError, match="no pictures in"):
        media.expand([at("empty")], [])
    with pytest.raises(ValueError, match="no input"):
        media.expand([], [])


def test_inputs_that_are_not_there(tmp_path, monkeypatch):
    """All of them: a sentence before any network is loaded. Some of them: each when it is read."""
    monkeypatch.chdir(tmp_path)
    rule = f"there is no file or folder absent/, b.jpg; .* relative to {tmp_path}, .* check the"
    with pytest.raises(FileNotFoundError, match=rule):
        media.expand(["absent/", "-"], ["b.jpg"])
    with pytest.raises(FileNotFoundError, match="folder 1.jpg, 2.jpg, 3.jpg, 4.jpg, 5.jpg, ...;"):
        media.expand([f"{k}.jpg" for k in range(1, 9)], [])
    touch(tmp_path, "a.jpg")
    expanded, _ = media.expand(["absent/", "a.jpg"], [])
    assert [path for path, _ in expanded] == ["absent/", "a.jpg"]
    with pytest.raises(FileNotFoundError, match="no file at absent/; check the path"):
        image_io.read("absent/")


def test_a_name_that_is_not_utf_8_costs_its_own_file(tmp_path):
    touch(tmp_path, "f/a.jpg")
    try:
        (tmp_path / "f" / os.fsdecode(b"\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    expanded, _ = media.expand([str(tmp_path / "f")], [])
    (one, _), (other, _) = expanded
    assert one == str(tmp_path / "f" / "a.jpg") and media.expand([other], [])[0][0][0] == other
    with pytest.raises(UnicodeError):
        image_io.read(other)


def film(path, frames=12, size=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, size)
    for k in range(frames):
        writer.write(np.full((size[1], size[0], 3), (0, 0, 10 * k), np.uint8))
    writer.release()
    return str(path)


def test_a_video_frame_by_frame(tmp_path):
    video = media.open_video(film(tmp_path / "w.avi"))
    frames = list(video.frames())
    assert (video.rate, video.count, video.seen) == (25.0, 12, 12) and not video.ended_early
    reds = [frame[..., 0].mean() for frame in frames]
    np.testing.assert_allclose(reds, 10 * np.arange(12), atol=3)


@pytest.mark.parametrize("every", [2, 5, 12, 100])
def test_each_nth_frame_of_a_video(tmp_path, every):
    video = media.open_video(film(tmp_path / "w.avi"))
    reds = [frame[..., 0].mean() for frame in video.frames(every=every)]
    np.testing.assert_allclose(reds, 10 * np.arange(0, 12, every), atol=3)
    assert video.seen == video.count == 12 and not video.ended_early


def test_videos_that_end_early_or_are_none(tmp_path):
    film(tmp_path / "w.avi", 40)
    data = (tmp_path / "w.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    video = media.open_video(str(tmp_path / "cut.avi"))
    assert 0 < len(list(video.frames())) < 30 and video.ended_early
    skipping = media.open_video(str(tmp_path / "cut.avi"))
    assert 0 < len(list(skipping.frames(every=4))) < 8 and skipping.ended_early
    assert skipping.seen == video.seen
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not readable as a video"):
        media.open_video(str(tmp_path / "no.mp4"))
    with pytest.raises(FileNotFoundError, match="no file at"):
        media.open_video(str(tmp_path / "none.mp4"))
    with pytest.raises(ValueError, match="camera 97 does not respond"):
        media.open_video("97")


@pytest.mark.parametrize("degrees", TURNS)
def test_a_video_is_turned_as_its_file_says(tmp_path, degrees):
    path = turned_film(tmp_path / "w.mp4", degrees)
    for upright in (True, False):
        video = media.open_video(path)
        frames = list(video.frames(upright))
        a, b, c, d = TURNS[degrees] if upright else (1, 0, 0, 1)
        assert len(frames) == 3 and video.header[:2] == (64, 48)
        assert frames[0].shape == ((48, 64, 3) if a else (64, 48, 3))
        # Red is on the left, -x of the middle; where the matrix takes it is where it must be.
        x, y = np.array(frames[0].shape[1::-1]) / 2 - np.array([a, b]) * 12
        right, other = frames[0][int(y), int(x)], frames[0][-1 - int(y), -1 - int(x)]
        assert right[0] > 200 and other[0] < 50


def test_annotated_sizes_of_frames_decide_whether_a_video_is_turned(tmp_path):
    path = turned_film(tmp_path / "w.mp4", 90)
    source, film = Input(path, "w.mp4", ""), media.open_video(path)

    def upright(size, **options):
        entry = boxes.Entry((1.0, 1.0, 20.0, 20.0), "b.json, entry 0")
        sizes = {f"{path}#1": size} if size else {}
        annotated = boxes.Boxes({f"{path}#1": [entry]}, {}, sizes)
        work = Run(None, MediaOptions(**options), annotated, None)
        return work.upright(work.fit_of_video(source, film))

    assert upright((48, 64)) is True and upright((48, 64), upright=False) is True
    assert upright((64, 48)) is False and upright((64, 48), upright=True) is False
    assert upright(None) is True and upright(None, upright=False) is False
    with pytest.raises(ValueError, match="is 64x48, annotated as 64x64, so its boxes do not fit"):
        upright((64, 64))
