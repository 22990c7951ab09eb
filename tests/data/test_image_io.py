"""Pictures of annotations and of users: real files of every kind, good and bad."""

import io
import os
import socket
import subprocess
import sys
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from pipelines.data import image_io
from tests.helpers.forked import ROOT


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
    image, orientation = image_io.read(str(path))
    assert image.shape == photo.shape and image.dtype == np.uint8 and orientation == 1
    assert np.abs(image.astype(int) - photo).mean() < 4


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "PA"])
def test_fewer_colours(tmp_path, photo, mode):
    path = tmp_path / "x.tif" if mode == "PA" else tmp_path / "x.png"
    converted = Image.fromarray(photo).convert("P" if mode == "PA" else mode)
    converted.save(path)
    expected = np.asarray(converted.convert("RGB")).astype(int)
    assert np.abs(image_io.read(str(path))[0] - expected).max() <= 1


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
        np.testing.assert_array_equal(image_io.read(path)[0], expected)


def test_transparent_parts_are_black(tmp_path, photo):
    alpha = np.zeros([60, 80, 1], np.uint8)
    alpha[:, 40:] = 255
    alpha[0, 40] = 51
    Image.fromarray(np.concatenate([photo, alpha], -1)).save(tmp_path / "x.png")
    image, _ = image_io.read(str(tmp_path / "x.png"))
    assert not image[:, :40].any()
    np.testing.assert_array_equal(image[1:, 41:], photo[1:, 41:])
    np.testing.assert_array_equal(image[0, 40], np.rint(photo[0, 40] * 0.2))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "mode, name",
    [("RGB", "x.jpg"), ("CMYK", "x.jpg"), ("L", "x.png"), ("RGBA", "x.png"), ("RGB", "x.webp")],
)
def test_orientation_is_ignored_and_said_unless_asked_for(tmp_path, photo, mode, name, orientation):
    """Every kind of file in every orientation, against Pillow's own way of turning."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / name)
    Image.fromarray(photo).convert(mode).save(path, exif=exif, quality=95)
    stored, said = image_io.read(path)
    assert said == orientation and stored.shape == (60, 80, 3)
    assert image_io.header(path) == (80, 60, orientation)
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    upright, said = image_io.read(path, upright=True)
    assert said == orientation
    np.testing.assert_array_equal(upright, ImageOps.exif_transpose(image))
    assert upright.flags.c_contiguous


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_tiff_is_always_as_its_tag_shows_it(tmp_path, photo, orientation):
    path = str(tmp_path / "x.tif")
    Image.fromarray(photo).save(path, tiffinfo={0x0112: orientation})
    shown = np.rot90(photo, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    assert image_io.header(path) == (shown.shape[1], shown.shape[0], 1)
    for upright in (False, True):
        image, said = image_io.read(path, upright)
        assert said == 1
        np.testing.assert_array_equal(image, shown)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # as image_io does
@pytest.mark.parametrize(
    "block", [b"", b"MM\0", b"II*\0\xff\xff\xff\xff", b"no TIFF at all", b"\0" * 40]
)
def test_a_broken_exif_block_is_no_orientation(tmp_path, photo, block):
    path = str(tmp_path / "x.jpg")
    Image.fromarray(photo).save(path, exif=b"Exif\0\0" + block)
    assert image_io.read(path, upright=True)[0].shape == (60, 80, 3)
    assert image_io.header(path) == (80, 60, 1)


def test_one_picture_of_a_gif_but_not_several(tmp_path, photo):
    still = Image.fromarray(photo).quantize(255)
    still.save(tmp_path / "still.gif")
    image, _ = image_io.read(str(tmp_path / "still.gif"))
    np.testing.assert_array_equal(image, np.asarray(still.convert("RGB")))
    others = [Image.fromarray(photo[::-1]), Image.fromarray(photo[:, ::-1])]
    for kind in ("gif", "webp", "png", "tif"):
        path = tmp_path / f"x.{kind}"
        Image.fromarray(photo).save(path, save_all=True, append_images=others)
        with pytest.raises(ValueError, match="several pictures in one file"):
            image_io.read(str(path))


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
        "photograph empty": b"",
        "not a picture of a known kind \\(JPEG": b"no picture at all",
        "truncated": good[: len(good) * 2 // 3],
        "over 100 megapixels; make it smaller": huge_png(20000, 20000),
        "over 100 megapixels": huge_png(11000, 10000),
        "32-bit numbers": (tmp_path / "float.tif").read_bytes(),
        "known kind": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }
    for words, data in files.items():
        path = tmp_path / "bad.jpg"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=words):
            image_io.read(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as image_io does where no test turns warnings to errors
        path.write_bytes(huge_png(11000, 10000))
        with pytest.raises(ValueError, match="over 100 megapixels"):
            image_io.read(str(path))
    for missing in ("none.jpg", "."):
        with pytest.raises(FileNotFoundError, match="no file at"):
            image_io.read(str(tmp_path / missing))


def test_a_file_of_too_many_bytes_is_not_read(tmp_path):
    path = tmp_path / "big.jpg"
    with open(path, "wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(ValueError, match="photograph over 256 MB"):
        image_io.read(str(path))


SPECIAL = {
    "fifo": os.mkfifo,
    "device": lambda path: os.symlink("/dev/zero", path),
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(path),
}


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 108 bytes
    SPECIAL[kind]("x.jpg")
    code = "from pipelines.data import image_io; image_io.read('x.jpg')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "ValueError: photograph a fifo, device or socket" in done.stderr


TRAILING = b"\xff\xd8 a motion photo's film \xff\xda" + bytes(1000)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
def test_bytes_behind_the_end_change_nothing(tmp_path, photo, name, progressive):
    path = tmp_path / name
    noisy = photo ^ np.random.default_rng(0).integers(0, 64, photo.shape, np.uint8)
    Image.fromarray(noisy).save(path, progressive=progressive)
    plain, _ = image_io.read(str(path))
    path.write_bytes(path.read_bytes() + TRAILING)
    np.testing.assert_array_equal(image_io.read(str(path))[0], plain)


@pytest.mark.parametrize("keep", [0.2, 0.7, 0.99])
@pytest.mark.parametrize("name", ["x.jpg", "progressive.jpg", "x.png"])
def test_truncated(tmp_path, name, keep):
    path = tmp_path / name
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(image).save(path, progressive=name.startswith("progressive"))
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ValueError, match="^photograph (truncated|not a picture)"):
        image_io.read(str(path))


def test_truncated_behind_a_thumbnail(tmp_path, photo):
    """The thumbnail in the EXIF block has an end marker of its own."""
    thumbnail = io.BytesIO()
    Image.new("RGB", (8, 8)).save(thumbnail, "JPEG")
    path = tmp_path / "x.jpg"
    Image.fromarray(photo).save(path, exif=b"Exif\0\0" + thumbnail.getvalue())
    assert path.read_bytes().count(b"\xff\xd9") == 2
    assert image_io.read(str(path))[0].any()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="^photograph truncated$"):
        image_io.read(str(path))
