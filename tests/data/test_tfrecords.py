"""The records' schema and geometry, against hand-computed arrays and real photographs."""

import dataclasses
import json
import os
import pathlib

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.skeleton import MPII, Skeleton
from pipelines.data import cropping, tfrecords
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED, Person
from pipelines.data.cropping import Geometry

TEST_DATA = os.environ.get("HOURGLASS_TEST_DATA")
THREE = Skeleton(("left_wrist", "right_wrist", "neck"))


def person(center=(40.0, 30.0), side=15.0, **changes):
    fields = dict(
        id="a.jpg#1",
        image="a.jpg",
        split="train",
        row=7,
        center=np.array(center, np.float64),
        side=side,
        joints=np.array([[38.25, 31.5], [44.0, 27.0], [0.0, 0.0]]),
        state=np.array([LABELLED, OCCLUDED, MISSING], np.uint8),
        head_size=9.5,
    )
    return Person(**{**fields, **changes})


def apply(matrix, points):
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def scene(height, width):
    """Smooth, so that JPEG and resampling hardly change it."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(x / a + y / b) for a, b in ((9, 31), (23, 11), (37, 17))]
    return np.stack(waves, -1).astype(np.uint8)


def decode_one(serialized, joints=3, canvas=16):
    """Through tf.data, as training does; checks that every shape is static there."""
    data = tf.data.Dataset.from_tensors(serialized)
    data = data.map(lambda record: tfrecords.decode(record, joints=joints, canvas=canvas))
    assert all(spec.shape.is_fully_defined() for spec in data.element_spec.values())
    return next(data.as_numpy_iterator())


class TestGeometry:
    def test_canvas_is_even_and_holds_the_context(self):
        assert Geometry().canvas == 724
        assert Geometry(1.77, 256).canvas == 454  # 453.12
        assert Geometry(1.0, 9).canvas == 10

    @pytest.mark.parametrize("context", [0.9, 8.5, float("nan")])
    def test_refuses_context(self, context):
        with pytest.raises(ValueError, match="context is .* between 1 and 8"):
            Geometry(context, 256)

    @pytest.mark.parametrize("side", [0, 7, 5000])
    def test_refuses_side(self, side):
        with pytest.raises(ValueError, match=f"side is {side}; .* between 8 and 4096"):
            Geometry(2.0, side)


class TestWindow:
    def test_by_hand(self):
        # 15 px of side, context 1: 16 px; their centre 7.5 px right of the first one's.
        assert cropping.window(person((40.0, 30.25), 15.0), Geometry(1.0, 8)) == (32, 23, 16)

    @given(st.floats(-300, 3000), st.floats(-300, 3000), st.floats(1, 2000), st.floats(1, 4))
    def test_always_covers_the_context(self, x, y, side, context):
        x0, y0, width = cropping.window(person((x, y), side), Geometry(context, 256))
        half = context * side / 2 - 1e-9
        for first, middle in ((x0, x), (y0, y)):
            assert first - 0.5 <= middle - half
            assert middle + half <= first + width - 0.5
        assert width < context * side + 2 + 1e-9

    @pytest.mark.parametrize(
        "center, side", [((np.nan, 0), 10), ((0, np.inf), 10), ((0, 0), 0), ((0, 0), np.nan)]
    )
    def test_refuses_a_person_without_a_place(self, center, side):
        with pytest.raises(ValueError, match="a.jpg#1.*finite.*correct the annotation"):
            cropping.window(person(center, side), Geometry())

    def test_refuses_a_window_that_fills_the_memory(self):
        with pytest.raises(ValueError, match="a.jpg#1.*more than 16384; lower the context"):
            cropping.window(person(side=1e5), Geometry())


class TestCrop:
    def test_small_person_keeps_the_photographs_own_pixels(self):
        image = noise(60, 80)
        square, crop_to_image = cropping.crop(image, person(side=15.0), Geometry(1.0, 64))
        # The window of 16 px around 40, 30: 32.5 and 22.5 round to the even numbers.
        np.testing.assert_array_equal(square, image[22:38, 32:48])
        np.testing.assert_array_equal(crop_to_image, [[1, 0, 32], [0, 1, 22]])

    def test_large_person_is_averaged(self):
        image = noise(60, 80)
        square, crop_to_image = cropping.crop(image, person(side=15.0), Geometry(1.0, 8))
        blocks = image[22:38, 32:48].reshape(8, 2, 8, 2, 3).mean((1, 3))
        assert square.shape == (8, 8, 3)
        assert np.abs(square - blocks).max() <= 0.5
        # Crop pixel 0 is the mean of image px 32 and 33.
        np.testing.assert_array_equal(crop_to_image, [[2, 0, 32.5], [0, 2, 22.5]])

    def test_beyond_the_photograph_is_black(self):
        image = np.full((20, 30, 3), 200, np.uint8)
        square, crop_to_image = cropping.crop(image, person((0.0, 19.0), 9.0), Geometry(1.0, 64))
        x0, y0 = crop_to_image[:, 2].astype(int)
        inside = np.zeros((10, 10), bool)
        inside[: 20 - y0, -x0:] = True
        np.testing.assert_array_equal(square[..., 0], np.where(inside, 200, 0))
        assert 0 < inside.sum() < 100

    @pytest.mark.parametrize("center", [(-500, 10), (500, 10), (10, -500), (10, 500)])
    def test_wholly_outside_is_black(self, center):
        square, _ = cropping.crop(noise(20, 30), person(center, 9.0), Geometry(1.0, 64))
        assert square.shape == (10, 10, 3)
        assert not square.any()

    @settings(deadline=None, max_examples=25)
    @given(st.floats(60, 90), st.floats(60, 90), st.floats(20, 120))
    def test_a_spot_stays_where_the_matrix_says(self, x, y, side):
        at = np.array([75.3, 71.8])
        grid = np.stack(np.meshgrid(np.arange(150), np.arange(150)), -1)
        spot = 250 * np.exp(-(((grid - at) ** 2).sum(-1)) / (2 * 4.0**2))
        image = np.repeat(spot[..., None], 3, -1).round().astype(np.uint8)
        square, crop_to_image = cropping.crop(image, person((x, y), side), Geometry(2.0, 32))
        mass = square[..., 0].astype(float)
        n = len(square)
        if cropping.to_crop(at, crop_to_image).min() < n * 0.2 or mass[[0, -1]].any():
            return  # the spot is cut off
        if mass[:, [0, -1]].any():
            return
        places = np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1)
        centroid = (places * mass[..., None]).sum((0, 1)) / mass.sum()
        np.testing.assert_allclose(apply(crop_to_image, centroid), at, atol=0.05)


class TestSchema:
    def test_everything_comes_back(self):
        who = person()
        square, crop_to_image = cropping.crop(scene(60, 80), who, Geometry(1.0, 8))
        got = decode_one(tfrecords.encode(who, square, crop_to_image))
        assert got["id"] == b"a.jpg#1"
        assert got["row"] == 7 and got["row"].dtype == np.int64
        assert got["head_size"] == np.float32(9.5)
        assert got["state"].tolist() == [LABELLED, OCCLUDED, MISSING]
        assert got["state"].dtype == np.int32
        assert got["image"].dtype == np.uint8
        np.testing.assert_array_equal(got["crop_to_image"], crop_to_image)
        assert got["crop_to_image"].dtype == np.float64
        # image = 2 crop + (32.5, 22.5)
        np.testing.assert_allclose(got["joints"], [[2.875, 4.5], [5.75, 2.25], [0, 0]], atol=1e-6)
        np.testing.assert_allclose(got["center"], [3.75, 3.75], atol=1e-6)
        np.testing.assert_allclose(got["side"], 7.5, atol=1e-6)
        assert got["joints"].dtype == got["center"].dtype == got["side"].dtype == np.float32

    def test_pixels_survive_within_jpeg_and_the_rest_of_the_canvas_is_zero(self):
        who = person((40, 30), 29.0)
        square, crop_to_image = cropping.crop(scene(60, 80), who, Geometry(1.0, 32))
        assert len(square) == 30
        image = decode_one(tfrecords.encode(who, square, crop_to_image), canvas=32)["image"]
        assert np.abs(image[:30, :30].astype(int) - square).mean() < 2.5
        assert image[:30, :30].min() > 0
        assert not image[30:].any() and not image[:, 30:].any()

    def test_colours_are_not_swapped(self):
        red = np.zeros((60, 80, 3), np.uint8)
        red[..., 0] = 220
        square, crop_to_image = cropping.crop(red, person(), Geometry(1.0, 64))
        pixel = decode_one(tfrecords.encode(person(), square, crop_to_image))["image"][8, 8]
        np.testing.assert_allclose(pixel, [220, 0, 0], atol=4)

    def test_quality_decides_the_size(self):
        square, crop_to_image = cropping.crop(noise(60, 80), person(), Geometry(1.0, 64))
        sizes = [len(tfrecords.encode(person(), square, crop_to_image, q)) for q in (50, 92, 100)]
        assert sizes == sorted(set(sizes))

    def test_unknown_head_size_is_nan(self):
        square, crop_to_image = cropping.crop(noise(60, 80), person(), Geometry(1.0, 8))
        record = tfrecords.encode(person(head_size=float("nan")), square, crop_to_image)
        assert np.isnan(decode_one(record)["head_size"])

    @settings(deadline=None, max_examples=25)
    @given(st.floats(0, 2000), st.floats(0, 2000), st.floats(20, 900), st.integers(0, 999))
    def test_joints_return_to_the_photograph(self, x, y, side, seed):
        """1e-4 image px: float32 on a 724 px canvas is finer than 3.1e-5 px, times 2.5 at most."""
        offsets = np.random.default_rng(seed).uniform(-0.5, 0.5, (3, 2)) * side
        who = person((x, y), side, joints=offsets + (x, y), state=np.full(3, LABELLED, np.uint8))
        square, crop_to_image = cropping.crop(np.zeros((8, 8, 3), np.uint8), who, Geometry())
        got = decode_one(tfrecords.encode(who, square, crop_to_image), canvas=724)
        back = apply(got["crop_to_image"], got["joints"].astype(np.float64))
        np.testing.assert_allclose(back, who.joints, atol=1e-4, rtol=0)
        np.testing.assert_array_equal(got["crop_to_image"], crop_to_image)

    def test_the_same_person_gives_the_same_bytes_in_every_process(self, run_python):
        """Protocol buffers of some releases write a map in another order in each process."""
        code = (
            "import hashlib, numpy as np\n"
            "from pipelines.data import tfrecords\n"
            "from pipelines.data.annotations import Person\n"
            "person = Person('a#1', 'a', 'train', 0, np.ones(2), 1.0, np.ones((3, 2)),"
            " np.ones(3, np.uint8), 1.0)\n"
            "data = tfrecords.encode(person, np.zeros((8, 8, 3), np.uint8), np.eye(3)[:2])\n"
            "print(hashlib.sha256(data).hexdigest())"
        )
        assert run_python(code) == run_python(code)

    def test_another_joint_count_is_refused(self):
        square, crop_to_image = cropping.crop(noise(60, 80), person(), Geometry(1.0, 8))
        record = tfrecords.encode(person(), square, crop_to_image)
        with pytest.raises(tf.errors.InvalidArgumentError, match="joints|state"):
            decode_one(record, joints=4)

    def test_another_canvas_is_refused(self):
        square, crop_to_image = cropping.crop(noise(60, 80), person(), Geometry(1.0, 16))
        record = tfrecords.encode(person(), square, crop_to_image)
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode_one(record, canvas=14)


def input_to_image(who, size=256):
    """[2, 3] network input px -> image px: the person's crop side fills the input."""
    zoom = who.side / size
    return (
        np.array([[zoom, 0, 0], [0, zoom, 0]])
        + np.c_[np.zeros((2, 2)), who.center - zoom * (size - 1) / 2]
    )


def bilinear(image, output_to_source, size=256):
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, output_to_source, (size, size), flags=flags)


def square_matrix(matrix):
    return np.vstack([matrix, [0, 0, 1]])


def shrink_whole(image, zoom):
    """The whole photograph, area-filtered by ``zoom``; its own grid, and shrunk_to_image."""
    height, width = image.shape[:2]
    size = (round(width / zoom), round(height / zoom))
    fx, fy = width / size[0], height / size[1]
    matrix = np.array([[fx, 0, fx / 2 - 0.5], [0, fy, fy / 2 - 0.5], [0, 0, 1]])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), matrix


@pytest.mark.skipif(not TEST_DATA, reason="HOURGLASS_TEST_DATA is not set: no real photographs")
class TestRealPhotographs:
    """The 3 labelled MPII photographs: person centre and scale from mpii_annotations.json."""

    PEOPLE = {
        "005808361.jpg": ((966.0, 340.0), 4.718),
        "052475643.jpg": ((316.0, 220.0), 1.762),
        "004645041.jpg": ((809.0, 403.0), 3.249),
    }

    def load(self, name):
        path = pathlib.Path(TEST_DATA, "mpii", "images", name)
        image = cv2.imread(str(path))[..., ::-1]
        (x, y), scale = self.PEOPLE[name]
        side = 200 * 1.25 * scale
        joints, state = np.zeros((16, 2)), np.zeros(16, np.uint8)
        who = person((x - 1, y - 1 + 15 * scale), side, id=name, joints=joints, state=state)
        return np.ascontiguousarray(image), who

    def difference(self, name):
        """Absolute grey-level differences at 256 px network input, and what lies in the photograph.

        Straight from the photograph: the whole of it is area-filtered to the same resolution as
        the stored crop (a bilinear warp alone would alias at 1:4), on its own grid, without
        window, rounding or JPEG, then warped to 256 px.
        """
        image, who = self.load(name)
        square, crop_to_image = cropping.crop(image, who, Geometry())
        got = decode_one(tfrecords.encode(who, square, crop_to_image), joints=16, canvas=724)
        to_image = square_matrix(input_to_image(who))
        image_to_crop = np.linalg.inv(square_matrix(got["crop_to_image"]))
        through_crop = bilinear(got["image"], (image_to_crop @ to_image)[:2])

        small, small_to_image = shrink_whole(image, got["crop_to_image"][0, 0])
        direct = bilinear(small, (np.linalg.inv(small_to_image) @ to_image)[:2])

        places = apply(to_image[:2], np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1))
        inside = ((places > 0) & (places < (image.shape[1] - 1, image.shape[0] - 1))).all(-1)
        return np.abs(through_crop.astype(float) - direct), inside

    def test_evaluation_through_a_crop_equals_evaluation_from_the_photograph(self):
        """Under 2 grey levels: each network input, and the pixels inside the photographs pooled.

        (Inside, 005808361.jpg alone has 2.8: grain that is shrunk 4.6 times. Of this 2.2 come from
        the two grids' different phase alone, 1.2 from JPEG.)
        """
        inner = []
        for name in self.PEOPLE:
            difference, inside = self.difference(name)
            assert inside.mean() > 0.3
            assert difference.mean() < 2.0, name
            inner.append(difference[inside])
        assert np.concatenate(inner).mean() < 2.0

    @pytest.mark.parametrize("name", sorted(PEOPLE))
    def test_matrices_are_exact(self, name):
        """Input px -> crop px -> image px is the same place as input px -> image px: 1e-4 px."""
        image, who = self.load(name)
        square, crop_to_image = cropping.crop(image, who, Geometry())
        got = decode_one(tfrecords.encode(who, square, crop_to_image), joints=16, canvas=724)
        # As the input pipeline makes it: from the record's float32 centre and side.
        zoom = np.float64(got["side"]) / 256
        input_to_crop = np.array([[zoom, 0, 0], [0, zoom, 0]])
        input_to_crop[:, 2] = got["center"] - zoom * 127.5
        corners = np.array([[0, 0], [255, 0], [0, 255], [255, 255], [127.5, 127.5]])
        through = apply(got["crop_to_image"], apply(input_to_crop, corners))
        np.testing.assert_allclose(
            through, apply(input_to_image(who), corners), atol=1.5e-4, rtol=0
        )


SHARD = "validation-00000-of-00001.tfrecord"


def info_of(folder, shards=(), people=0):
    return tfrecords.DatasetInfo(
        folder=str(folder),
        name="three",
        skeleton=THREE,
        head_rule="a rule",
        origin=1,
        geometry=Geometry(1.5, 64),
        splits={"validation": {"people": people, "shards": list(shards)}},
        left_out={"photograph missing": 3},
        sources=("a.json",),
        settings={"seed": 0},
    )


@pytest.fixture
def written(tmp_path):
    """Five records of noise, and their dataset.json."""
    path = tmp_path / SHARD
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in range(5):
            square, matrix = cropping.crop(noise(60, 80, row), person(), Geometry(1.5, 64))
            writer.write(tfrecords.encode(person(id=f"{row}", row=row), square, matrix))
    entry = {
        "file": SHARD,
        "people": 5,
        "bytes": path.stat().st_size,
        "sha256": tfrecords.sha256(str(path)),
    }
    info = info_of(tmp_path, [entry], 5)
    (tmp_path / "dataset.json").write_text(info.to_json())
    return info


class TestDatasetInfo:
    def test_comes_back_from_its_file(self, written):
        assert tfrecords.read_info(written.folder) == written
        assert written.count("validation") == 5
        assert written.shards("validation") == [os.path.join(written.folder, SHARD)]

    def test_says_what_other_tools_need(self):
        info = dataclasses.replace(info_of("f"), skeleton=MPII)
        parts = json.loads(info.to_json())
        assert parts["joints"][:2] == ["right_ankle", "right_knee"]
        assert parts["mirror_pairs"] == [[0, 5], [1, 4], [2, 3], [10, 15], [11, 14], [12, 13]]
        assert [8, 9] in parts["limbs"]
        assert parts["geometry"] == {"context": 1.5, "side": 64, "canvas": 96}

    def test_absent_split(self, written):
        with pytest.raises(ValueError, match="no people in the split 'train'.*validation 5"):
            written.count("train")
        with pytest.raises(ValueError, match="no people in the split 'train'"):
            written.shards("train")

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="make_tfrecords.py --records="):
            tfrecords.read_info(str(tmp_path / "nowhere"))

    @pytest.mark.parametrize(
        "change",
        [
            lambda parts: parts.update(schema=99),
            lambda parts: parts.pop("joints"),
            lambda parts: parts.update(joints=["left_wrist"]),
            lambda parts: parts.update(geometry={"context": 0, "side": 64}),
            lambda parts: parts.update(geometry=None),
            lambda parts: parts["splits"]["validation"].update(people=6),
            lambda parts: parts["splits"]["validation"]["shards"][0].update(file="../x"),
        ],
    )
    def test_broken_file(self, written, change):
        path = pathlib.Path(written.folder, "dataset.json")
        parts = json.loads(path.read_text())
        change(parts)
        path.write_text(json.dumps(parts))
        with pytest.raises(ValueError, match="dataset.json is not .*--overwrite"):
            tfrecords.read_info(written.folder)

    @pytest.mark.parametrize("text", ["", "[]", "not JSON", "\x00\xff"])
    def test_not_json(self, tmp_path, text):
        (tmp_path / "dataset.json").write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match="dataset.json is not"):
            tfrecords.read_info(str(tmp_path))


class TestCheckShards:
    def damage(self, written, change):
        path = pathlib.Path(written.folder, SHARD)
        path.write_bytes(change(path.read_bytes()))

    def test_whole(self, written):
        tfrecords.check_shards(written, "validation")

    def test_missing(self, written):
        os.remove(os.path.join(written.folder, SHARD))
        with pytest.raises(FileNotFoundError, match=SHARD):
            tfrecords.check_shards(written, "validation")

    def test_a_fifo_is_not_waited_for(self, written):
        path = pathlib.Path(written.folder, SHARD)
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(OSError, match=f"{SHARD} is a folder, fifo, .* not a file"):
            tfrecords.check_shards(written, "validation")

    def test_truncated_inside_the_last_record(self, written):
        self.damage(written, lambda data: data[:-10])
        with pytest.raises(ValueError, match=f"{SHARD}.*record 4 of 5 is damaged"):
            tfrecords.check_shards(written, "validation", contents=False)

    def test_truncated_between_records(self, written):
        one = written.splits["validation"]["shards"][0]["bytes"]
        with tf.io.TFRecordWriter(os.path.join(written.folder, "first")) as writer:
            writer.write(next(iter(tf.data.TFRecordDataset(written.shards("validation")))).numpy())
        length = os.path.getsize(os.path.join(written.folder, "first"))
        assert length < one
        self.damage(written, lambda data: data[:length])
        with pytest.raises(ValueError, match=f"{SHARD}.*record 1 of 5 is missing"):
            tfrecords.check_shards(written, "validation", contents=False)

    def test_flipped_bit_in_the_third_record(self, written):
        where = int(written.splits["validation"]["shards"][0]["bytes"] * 0.5)
        flip = lambda data: data[:where] + bytes([data[where] ^ 4]) + data[where + 1 :]  # noqa: E731
        self.damage(written, flip)
        tfrecords.check_shards(written, "validation", contents=False)
        with pytest.raises(ValueError, match=f"{SHARD} was altered.*record 2 of 5 is damaged"):
            tfrecords.check_shards(written, "validation")

    def test_another_files_records(self, written):
        rows = [record.numpy() for record in tf.data.TFRecordDataset(written.shards("validation"))]
        with tf.io.TFRecordWriter(written.shards("validation")[0]) as writer:
            for row in reversed(rows):
                writer.write(row)
        with pytest.raises(ValueError, match="was altered.*all 5 records are whole, but"):
            tfrecords.check_shards(written, "validation")
