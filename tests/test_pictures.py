"""Users' pictures and videos: real files of every kind, good and bad."""

import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from pipelines import pictures


@pytest.fixture
def photo():
    """[60, 80, 3] uint8 RGB, smooth, so that JPEG changes little."""
    y, x = np.mgrid[:60, :80]
    return np.stack([3 * x, 4 * y, 250 - 2 * x - y], -1).astype(np.uint8)


@pytest.mark.parametrize(
    "mode, name",
    [
        *(("RGB", f"x{kind}") for kind in (".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm")),
        ("CMYK", "x.jpg"),
        ("CMYK", "x.tif"),
        ("RGBA", "x.png"),
        ("RGBA", "x.webp"),
    ],
)
def test_every_kind_becomes_rgb(tmp_path, photo, mode, name):
    path = tmp_path / name
    Image.fromarray(photo).convert(mode).save(path, quality=95)
    image, turned = pictures.read(str(path))
    assert image.shape == photo.shape and image.dtype == np.uint8 and not turned
    assert np.abs(image.astype(int) - photo).mean() < 4


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "PA"])
def test_fewer_colours(tmp_path, photo, mode):
    path = tmp_path / "x.tif" if mode == "PA" else tmp_path / "x.png"
    converted = Image.fromarray(photo).convert("P" if mode == "PA" else mode)
    converted.save(path)
    expected = np.asarray(converted.convert("RGB")).astype(int)
    assert np.abs(pictures.read(str(path))[0] - expected).max() <= 1


def test_sixteen_bits(tmp_path, photo):
    for channels, name in ((photo, "c.png"), (photo[..., 0], "g.png"), (photo, "c.tif")):
        path = str(tmp_path / name)
        cv2.imwrite(
            path,
            channels[..., ::-1].astype(np.uint16) * 257
            if channels.ndim == 3
            else channels.astype(np.uint16) * 257,
        )
        expected = channels if channels.ndim == 3 else np.repeat(channels[..., None], 3, -1)
        np.testing.assert_array_equal(pictures.read(path)[0], expected)


def test_transparent_parts_are_black(tmp_path, photo):
    alpha = np.zeros([60, 80, 1], np.uint8)
    alpha[:, 40:] = 255
    alpha[0, 40] = 51
    Image.fromarray(np.concatenate([photo, alpha], -1)).save(tmp_path / "x.png")
    image, _ = pictures.read(str(tmp_path / "x.png"))
    assert not image[:, :40].any()
    np.testing.assert_array_equal(image[1:, 41:], photo[1:, 41:])
    np.testing.assert_array_equal(image[0, 40], np.rint(photo[0, 40] * 0.2))


def test_orientation_is_ignored_and_said_unless_asked_for(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = str(tmp_path / "x.jpg")
    Image.fromarray(photo).save(path, exif=exif, quality=95)
    image, turned = pictures.read(path)
    assert turned and image.shape == (60, 80, 3)
    upright, turned = pictures.read(path, upright=True)
    assert not turned
    np.testing.assert_array_equal(upright, np.rot90(image, -1))


def test_one_picture_of_a_gif_but_not_several(tmp_path, photo):
    still = Image.fromarray(photo).quantize(255)
    still.save(tmp_path / "still.gif")
    image, _ = pictures.read(str(tmp_path / "still.gif"))
    np.testing.assert_array_equal(image, np.asarray(still.convert("RGB")))
    others = [Image.fromarray(photo[::-1]), Image.fromarray(photo[:, ::-1])]
    for kind in ("gif", "webp", "png", "tif"):
        path = tmp_path / f"x.{kind}"
        Image.fromarray(photo).save(path, save_all=True, append_images=others)
        with pytest.raises(ValueError, match="3 pictures in one (GIF|WEBP|PNG|TIFF) file"):
            pictures.read(str(path))


def huge_png(width, height):
    """A few bytes that claim to be a picture of that size."""
    _, data = cv2.imencode(".png", np.zeros([1, 1, 3], np.uint8))
    data = bytearray(data.tobytes())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def test_what_is_refused(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "good.jpg")
    good = (tmp_path / "good.jpg").read_bytes()
    Image.fromarray(photo[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    files = {
        "empty file": b"",
        "not a picture of a known kind: JPEG": b"no picture at all",
        "truncated": good[: len(good) * 2 // 3],
        "than 100 megapixels; make it smaller": huge_png(20000, 20000),
        "more than 100 megapixels": huge_png(11000, 10000),
        "32-bit numbers": (tmp_path / "float.tif").read_bytes(),
        "known kind": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }
    for words, data in files.items():
        path = tmp_path / "bad.jpg"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=words):
            pictures.read(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as pictures does where no test turns warnings to errors
        path.write_bytes(huge_png(11000, 10000))
        with pytest.raises(ValueError, match="11000 x 10000 px are more than 100 megapixels"):
            pictures.read(str(path))
    for missing in ("none.jpg", "."):
        with pytest.raises(FileNotFoundError, match="no file at"):
            pictures.read(str(tmp_path / missing))


def test_a_file_of_too_many_bytes_is_not_read(tmp_path):
    path = tmp_path / "big.jpg"
    with open(path, "wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(ValueError, match="300,000,000 bytes, more than"):
        pictures.read(str(path))


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_inputs_are_expanded_in_order_and_once(tmp_path):
    touch(tmp_path, "f/b.jpg", "f/a.PNG", "f/sub/c.jpeg", "f/notes.txt", "f/.hidden.jpg")
    touch(tmp_path, "f/out/old.jpg", "g/1.jpg", "g/2.jpg", "w.mp4")
    at = lambda name: str(tmp_path / name)  # noqa: E731
    found, others = pictures.expand([at("f"), at("f/b.jpg"), "0"], [], at("f/out"))
    assert found == [
        (at("f/a.PNG"), "a.PNG"),
        (at("f/b.jpg"), "b.jpg"),
        (at("f/sub/c.jpeg"), "sub/c.jpeg"),
        ("0", "0"),
    ]
    assert others == 1
    found, _ = pictures.expand([at("g/?.jpg"), "-"], [at("w.mp4"), at("g/2.jpg")])
    assert [name for _, name in found] == ["1.jpg", "2.jpg", "w.mp4"]
    assert pictures.is_video("w.MP4") and pictures.is_camera("0") and not pictures.is_video("a.jpg")
    with pytest.raises(FileNotFoundError, match="nothing matches"):
        pictures.expand([at("*.webp")], [])
    touch(tmp_path, "empty/x.txt")
    with pytest.raises(FileNotFoundError, match="no pictures in"):
        pictures.expand([at("empty")], [])
    with pytest.raises(ValueError, match="no input"):
        pictures.expand([], [])


def test_inputs_that_are_not_there(tmp_path, monkeypatch):
    """All of them: a sentence before any network is loaded. Some of them: each when it is read."""
    monkeypatch.chdir(tmp_path)
    rule = f"there is no file or folder absent/, b.jpg; .* as seen from {tmp_path}, .* check the"
    with pytest.raises(FileNotFoundError, match=rule):
        pictures.expand(["absent/", "-"], ["b.jpg"])
    with pytest.raises(FileNotFoundError, match="folder 1.jpg, 2.jpg, 3.jpg, 4.jpg, 5.jpg, ...;"):
        pictures.expand([f"{k}.jpg" for k in range(1, 9)], [])
    touch(tmp_path, "a.jpg")
    found, _ = pictures.expand(["absent/", "a.jpg"], [])
    assert [path for path, _ in found] == ["absent/", "a.jpg"]
    with pytest.raises(FileNotFoundError, match="no file at absent/; check the path"):
        pictures.read("absent/")


def film(path, frames=12, size=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, size)
    for k in range(frames):
        writer.write(np.full((size[1], size[0], 3), (0, 0, 10 * k), np.uint8))
    writer.release()
    return str(path)


def test_a_video_frame_by_frame(tmp_path):
    video = pictures.open_video(film(tmp_path / "w.avi"))
    frames = list(video.frames())
    assert (video.rate, video.count, video.seen) == (25.0, 12, 12) and not video.ended_early
    reds = [frame[..., 0].mean() for frame in frames]
    np.testing.assert_allclose(reds, 10 * np.arange(12), atol=3)


def test_videos_that_end_early_or_are_none(tmp_path):
    film(tmp_path / "w.avi", 40)
    data = (tmp_path / "w.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    video = pictures.open_video(str(tmp_path / "cut.avi"))
    assert 0 < len(list(video.frames())) < 30 and video.ended_early
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not readable as a video"):
        pictures.open_video(str(tmp_path / "no.mp4"))
    with pytest.raises(FileNotFoundError, match="no file at"):
        pictures.open_video(str(tmp_path / "none.mp4"))
    with pytest.raises(ValueError, match="camera 97 does not answer"):
        pictures.open_video("97")
