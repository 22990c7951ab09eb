"""The conversion as users meet it: real JPEGs, real processes, real interruptions."""

import collections
import dataclasses
import gzip
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import PIL.Image
import pytest
import scipy.io
import tensorflow as tf

from hourglass.skeleton import Skeleton
from pipelines.data import cropping, image_io, tfrecords, write_tfrecords
from pipelines.data.annotations import LABELLED, Annotated, Person
from pipelines.data.cropping import Geometry

TEST_DATA = os.environ.get("HOURGLASS_TEST_DATA")
ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "scripts" / "make_tfrecords.py")
SMALL = Geometry(1.0, 16)
TWO = Skeleton(("left_wrist", "right_wrist"))


def person(number, image, split, row, center=(40.0, 30.0)):
    return Person(
        id=f"{image}#{number}",
        image=image,
        split=split,
        row=row,
        center=np.array(center),
        side=20.0,
        joints=np.array(center) + [[-4.0, 2.0], [5.0, 3.0]],
        state=np.full(2, LABELLED, np.uint8),
        head_size=6.0,
    )


def annotated(people, name="two", **changes):
    fields = dict(left_out={}, head_rule="a rule", origin=0, sources=("two.json",))
    return Annotated(name=name, skeleton=TWO, people=tuple(people), **{**fields, **changes})


def photograph(path, seed=0, **options):
    """80 x 60 px, each quarter of its own colour, which depends on ``seed``."""
    colours = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    image = PIL.Image.fromarray(np.kron(colours, np.ones((30, 40, 1), np.uint8)))
    path.parent.mkdir(exist_ok=True, parents=True)
    image.save(path, **options)
    return path


@pytest.fixture
def people(tmp_path):
    """8 photographs of 3 people to train on, 3 of 2 to validate, with rows out of file order."""
    result = []
    for number in range(11):
        name = f"{number:02d}.jpg"
        photograph(tmp_path / "images" / name, number)
        if number < 8:
            result += [person(k, name, "train", 3 * number + k) for k in range(3)]
        else:
            rows = (20 - 2 * number, 21 - 2 * number)
            result += [person(k, name, "validation", row) for k, row in enumerate(rows)]
    return result


def run(tmp_path, people, to="records", **options):
    source = people if isinstance(people, Annotated) else annotated(people)
    options = {"geometry": SMALL, "workers": 2, **options}
    return write_tfrecords.convert(source, str(tmp_path / "images"), str(tmp_path / to), **options)


def read(info, split):
    data = tf.data.TFRecordDataset(info.shards(split))
    canvas = info.geometry.canvas
    data = data.map(lambda record: tfrecords.decode(record, joints=2, canvas=canvas))
    return list(data.as_numpy_iterator())


def ids(info, split):
    return [record["id"].decode() for record in read(info, split)]


def contents(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


class TestConvert:
    def test_everybody_is_written_once(self, tmp_path, people):
        info, written = run(tmp_path, people, shards=3)
        assert written
        assert info == tfrecords.read_info(str(tmp_path / "records"))
        assert (info.count("train"), info.count("validation")) == (24, 6)
        assert sorted(ids(info, "train")) == sorted(p.id for p in people if p.split == "train")
        names = sorted(contents(tmp_path / "records"))
        shards = [shard for part in info.splits.values() for shard in part["shards"]]
        assert names == ["dataset.json", "left_out.json", *(shard["file"] for shard in shards)]
        starts = [f"{split}-{k:05d}-of-00003" for split in info.splits for k in range(3)]
        sums = [shard["sha256"][:8] for shard in shards]
        assert names[2:] == [f"{start}-{sum}.tfrecord" for start, sum in zip(starts, sums)]
        for split in ("train", "validation"):
            tfrecords.check_shards(info, split)

    def test_dataset_json_names_its_sources(self, tmp_path, people):
        info, _ = run(tmp_path, people)
        assert info.sources == ("two.json", str(tmp_path / "images"))
        assert (info.name, info.head_rule, info.origin) == ("two", "a rule", 0)
        assert (info.skeleton, info.geometry) == (TWO, SMALL)

    def test_validation_keeps_the_published_order(self, tmp_path, people):
        info, _ = run(tmp_path, people, shards=2)
        rows = [record["row"] for record in read(info, "validation")]
        assert rows == [0, 1, 2, 3, 4, 5]
        assert ids(info, "validation")[0] == "10.jpg#0"

    def test_training_order_is_shuffled_by_seed_alone(self, tmp_path, people):
        order = {
            (seed, workers): ids(run(tmp_path, people, f"{seed}-{workers}", **options)[0], "train")
            for seed in (0, 1)
            for workers in (1, 2)
            for options in [dict(seed=seed, workers=workers, shards=2)]
        }
        assert order[0, 1] == order[0, 2] != order[1, 1] == order[1, 2]
        photographs = [name.split("#")[0] for name in order[0, 1]]
        assert photographs != sorted(photographs)
        # People of one photograph stay together: it is decoded once.
        assert photographs[::3] == photographs[1::3] == photographs[2::3]

    def test_bytes_do_not_depend_on_the_workers(self, tmp_path, people):
        one, _ = run(tmp_path, people, "one", workers=1, shards=2)
        two, _ = run(tmp_path, people, "two", workers=2, shards=2)
        assert one.splits == two.splits

    def test_each_person_gets_their_own_photograph(self, tmp_path, people):
        info, _ = run(tmp_path, people)
        for record in read(info, "train"):
            path = tmp_path / "images" / record["id"].decode().split("#")[0]
            image = cv2.imread(str(path))[..., ::-1]
            square, _ = cropping.crop(image, people[0], SMALL)
            assert np.abs(record["image"].astype(int) - square).mean() < 12

    def test_shards_follow_the_number_of_people(self, tmp_path, people):
        info, _ = run(tmp_path, people, shards=100)
        assert len(info.shards("train")) == 24  # never more than people
        info, _ = run(tmp_path, people, "default")
        assert len(info.shards("train")) == 1

    def test_validation_people_alone_are_enough(self, tmp_path, people):
        info, _ = run(tmp_path, people[24:])
        assert info.count("validation") == 6
        with pytest.raises(ValueError, match="no people in the split 'train'"):
            info.count("train")

    def test_the_readers_left_out_are_counted_and_named(self, tmp_path, people):
        info, _ = run(tmp_path, annotated(people, left_out={"no joints": ["x", "y"], "none": []}))
        assert info.left_out == {"no joints": 2}
        named = json.loads(contents(tmp_path / "records")["left_out.json"])
        assert named == {"no joints": ["x", "y"]}


class TestRefuses:
    def test_nobody(self, tmp_path, people):
        with pytest.raises(ValueError, match="no usable people in two.json"):
            run(tmp_path, [])

    def test_ids_that_are_not_unique(self, tmp_path, people):
        with pytest.raises(ValueError, match="ids are not unique"):
            run(tmp_path, [*people, people[0]])

    @pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "b/../../a.jpg", "..\\a.jpg", ""])
    def test_photographs_outside_the_folder(self, tmp_path, people, name):
        photograph(tmp_path / "a.jpg")
        with pytest.raises(ValueError, match="is not inside the images folder"):
            run(tmp_path, [*people, person(9, name, "train", 99)])
        assert not (tmp_path / "records").exists()

    def test_a_person_without_a_place(self, tmp_path, people):
        with pytest.raises(ValueError, match="00.jpg#9: centre .* must be finite"):
            run(tmp_path, [*people, person(9, "00.jpg", "train", 99, (np.nan, 0.0))])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"center": np.array([1e308, 0.0])}, "centre .* must be finite, of at most 1e.06 px"),
            ({"joints": np.array([[9, 9], [1e39, 9]])}, "labelled joints must be finite"),
            ({"side": 1e-300}, "crop side is 1e-300 px, not 1 to 1e.06"),
            ({"side": np.nan}, "crop side is nan px"),
            ({"head_size": 0.0}, "head size is 0.0 px, not 0.001 to"),
            ({"head_size": np.inf}, "head size is inf px"),
        ],
    )
    def test_numbers_that_records_cannot_hold(self, tmp_path, people, changes, message):
        bad = dataclasses.replace(person(9, "00.jpg", "train", 99), **changes)
        with pytest.raises(ValueError, match="person 00.jpg#9: .*" + message):
            run(tmp_path, [*people, bad])

    def test_no_images_folder(self, tmp_path, people):
        with pytest.raises(FileNotFoundError, match="no images folder at .*--images"):
            write_tfrecords.convert(
                annotated(people), "nowhere", str(tmp_path / "r"), geometry=SMALL
            )

    def test_a_file_in_place_of_the_folder(self, tmp_path, people):
        (tmp_path / "records").write_text("mine")
        with pytest.raises(OSError, match="cannot write to .*records"):
            run(tmp_path, people)
        assert (tmp_path / "records").read_text() == "mine"


class TestMissing:
    def test_are_listed_and_stop_the_run(self, tmp_path, people):
        more = [person(0, f"gone/{k:02d}.jpg", "train", 100 + k) for k in range(12)]
        with pytest.raises(FileNotFoundError) as error:
            run(tmp_path, people + more)
        text = str(error.value)
        assert "12 of 23 photographs are not in" in text
        assert text.count("gone/") == 10 and "gone/09.jpg, ..." in text
        assert "--allow_missing_images" in text
        assert not (tmp_path / "records").exists()

    def test_are_counted_when_allowed(self, tmp_path, people):
        os.remove(tmp_path / "images" / "03.jpg")
        info, _ = run(tmp_path, people, allow_missing_images=True)
        assert info.count("train") == 21
        assert info.left_out == {"photograph missing": 3}
        named = json.loads(contents(tmp_path / "records")["left_out.json"])
        assert named["photograph missing"] == ["03.jpg#0", "03.jpg#1", "03.jpg#2"]

    def test_all_of_them_are_never_allowed(self, tmp_path, people):
        (tmp_path / "images" / "other").mkdir()
        with pytest.raises(FileNotFoundError, match="11 of 11 .* Is --images the right folder"):
            write_tfrecords.convert(
                annotated(people),
                str(tmp_path / "images" / "other"),
                str(tmp_path / "records"),
                geometry=SMALL,
                allow_missing_images=True,
            )

    def test_folders_inside_the_images_folder(self, tmp_path, people):
        photograph(tmp_path / "images" / "deep" / "er" / "a.jpg")
        info, _ = run(tmp_path, [*people, person(0, "deep/er/a.jpg", "train", 99)])
        assert info.count("train") == 25


class TestExistingRecords:
    def test_the_same_again_costs_nothing(self, tmp_path, people):
        first, _ = run(tmp_path, people)
        before = contents(tmp_path / "records")
        times = {p: p.stat().st_mtime_ns for p in (tmp_path / "records").iterdir()}
        again, written = run(tmp_path, people, workers=1)
        assert not written and again == first
        assert contents(tmp_path / "records") == before
        assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "records").iterdir()}

    @pytest.mark.parametrize(
        "source, options, difference",
        [
            (dict(name="other"), {}, "data set is two, asked for other"),
            ({}, dict(geometry=Geometry(1.5, 16)), "geometry is .*1.0.*1.5"),
            ({}, dict(quality=50), "jpeg_quality is 92, asked for 50"),
            (dict(head_rule="another"), {}, "head_rule is a rule, asked for another"),
        ],
    )
    def test_others_are_not_touched_unasked(self, tmp_path, people, source, options, difference):
        run(tmp_path, people)
        before = contents(tmp_path / "records")
        with pytest.raises(FileExistsError, match=f"'two' .*{difference}.*--overwrite"):
            run(tmp_path, annotated(people, **source), **options)
        assert contents(tmp_path / "records") == before

    def test_moved_joints_are_other_people(self, tmp_path, people):
        run(tmp_path, people)
        people[3].joints[0, 0] += 0.01
        with pytest.raises(FileExistsError, match="annotations are others"):
            run(tmp_path, people)

    def test_overwrite_leaves_nothing_of_the_old_ones(self, tmp_path, people):
        run(tmp_path, people, shards=5)
        (tmp_path / "records" / "notes.txt").write_text("mine")
        info, written = run(tmp_path, annotated(people, "other"), shards=2, overwrite=True)
        assert written and info.name == "other"
        shards = [name for name in contents(tmp_path / "records") if "tfrecord" in name]
        assert len(shards) == 4
        assert (tmp_path / "records" / "notes.txt").read_text() == "mine"

    def test_other_photographs_go_under_other_names(self, tmp_path, people):
        """Whoever still reads the old set never gets a shard of the new one."""
        old, _ = run(tmp_path, people, shards=2)
        for number in range(0, 11, 3):
            photograph(tmp_path / "images" / f"{number:02d}.jpg", 100 + number)
        new, _ = run(tmp_path, people, shards=2, overwrite=True)
        assert old.settings == new.settings and old.splits != new.splits
        for split, part in old.splits.items():
            for path, shard in zip(old.shards(split), part["shards"]):
                assert not os.path.exists(path) or tfrecords.sha256(path) == shard["sha256"]
            tfrecords.check_shards(new, split)

    def test_a_failing_overwrite_keeps_the_old_ones(self, tmp_path, people):
        run(tmp_path, people)
        before = contents(tmp_path / "records")
        for number in range(8):
            (tmp_path / "images" / f"{number:02d}.jpg").write_text("no photograph")
        with pytest.raises(ValueError, match="no people of the split 'train' could be written"):
            run(tmp_path, annotated(people, "other"), overwrite=True)
        assert contents(tmp_path / "records") == before

    def test_shards_of_another_tool_are_not_touched_unasked(self, tmp_path, people):
        foreign = tmp_path / "records" / "train-00000-of-00002.tfrecord"
        foreign.parent.mkdir()
        foreign.write_text("mine")
        with pytest.raises(FileExistsError, match="another tool.*--overwrite"):
            run(tmp_path, people)
        assert foreign.read_text() == "mine"

    def test_leftovers_of_an_interrupted_replacement_are_removed(self, tmp_path, people):
        """As killed between moving shards into place and writing dataset.json."""
        info, _ = run(tmp_path, people, shards=3)
        folder = tmp_path / "records"
        (folder / "dataset.json").rename(folder / "dataset.json.partial")
        os.rename(info.shards("train")[2], info.shards("train")[2] + ".partial")
        with pytest.raises(ValueError, match="no people of the split"):
            (tmp_path / "images" / "empty.jpg").write_bytes(b"")
            run(tmp_path, [person(0, "empty.jpg", "train", 0)])
        assert not contents(folder).keys() - {"left_out.json"}
        info, written = run(tmp_path, people, shards=2)
        assert written
        assert len(contents(folder)) == 2 + 2 * 2
        tfrecords.check_shards(info, "train")


class TestPhotographs:
    """Every kind is either converted or counted by name."""

    def check(self, tmp_path, people, path, reason=None):
        info, _ = run(tmp_path, [*people, person(9, path.name, "validation", 99)])
        if reason:
            assert info.left_out == {reason: 1}
            named = json.loads(contents(tmp_path / "records")["left_out.json"])
            assert named == {reason: [f"{path.name}#9"]}
            return None
        assert info.left_out == {}
        return read(info, "validation")[-1]["image"]

    def colour(self, path):
        """Of photograph(seed 5), RGB."""
        return np.random.default_rng(5).integers(0, 256, (2, 2, 3), np.uint8)

    def corners(self, image):
        return image[[[4], [14]], [4, 14]].astype(int)

    @pytest.mark.parametrize(
        "mode, name",
        [("RGB", "x.jpg"), ("CMYK", "x.jpg"), ("RGB", "x.png"), ("RGBA", "x.png"), ("P", "x.png")],
    )
    def test_colour(self, tmp_path, people, mode, name):
        path = photograph(tmp_path / "images" / name, 5)
        PIL.Image.open(path).convert(mode, palette=PIL.Image.Palette.ADAPTIVE).save(path)
        image = self.check(tmp_path, people, path)
        expected = np.array(PIL.Image.open(path).convert("RGB"))[[[10], [50]], [10, 70]].astype(int)
        assert np.abs(self.corners(image) - expected).max() < 25  # chroma bleeds over the edges

    @pytest.mark.parametrize("mode, name", [("L", "x.jpg"), ("L", "x.png"), ("1", "x.png")])
    def test_grayscale(self, tmp_path, people, mode, name):
        path = photograph(tmp_path / "images" / name, 5)
        PIL.Image.open(path).convert(mode).save(path)
        image = self.check(tmp_path, people, path)
        assert np.abs(np.ptp(image.astype(int), axis=-1)).max() <= 1

    def test_progressive(self, tmp_path, people):
        path = photograph(tmp_path / "images" / "x.jpg", 5, progressive=True)
        assert self.check(tmp_path, people, path).any()

    def test_exif_rotation_is_ignored(self, tmp_path, people):
        """Annotations refer to the stored pixels, as the reference loaders read them."""
        exif = PIL.Image.Exif()
        exif[0x0112] = 6  # a viewer turns this by 90 degrees
        path = photograph(tmp_path / "images" / "x.jpg", 5, exif=exif)
        turned = image_io.read(str(path))[0]
        plain = image_io.read(str(photograph(tmp_path / "images" / "y.jpg", 5)))[0]
        np.testing.assert_array_equal(turned, plain)
        assert cv2.imread(str(path)).shape == (80, 60, 3)
        self.check(tmp_path, people, path)

    def test_16_bit(self, tmp_path, people):
        path = tmp_path / "images" / "x.png"
        cv2.imwrite(str(path), np.full((60, 80, 3), 0x8000, np.uint16))
        np.testing.assert_allclose(self.check(tmp_path, people, path), 128, atol=2)

    def test_truncated_are_counted(self, tmp_path, people):
        path = photograph(tmp_path / "images" / "x.jpg", 5)
        path.write_bytes(path.read_bytes()[:-20])
        self.check(tmp_path, people, path, "photograph truncated")

    def test_transparent_parts_are_black_as_in_prediction(self, tmp_path, people):
        path = photograph(tmp_path / "images" / "x.png", 5)
        shown = np.asarray(PIL.Image.open(path).convert("RGB"))
        alpha = np.zeros(shown.shape[:2] + (1,), np.uint8)
        PIL.Image.fromarray(np.concatenate([shown, alpha], -1)).save(path)
        assert not self.check(tmp_path, people, path).any()

    @pytest.mark.parametrize(
        "data, reason",
        [
            (b"", "photograph empty"),
            (
                b"no photograph" * 9,
                "photograph not a picture of a known kind (JPEG, PNG, BMP, WEBP, TIFF, GIF, PPM)",
            ),
        ],
    )
    def test_no_photograph(self, tmp_path, people, data, reason):
        path = tmp_path / "images" / "x.jpg"
        path.write_bytes(data)
        self.check(tmp_path, people, path, reason)

    def test_bomb(self, tmp_path, people):
        """100 megapixels in 1.6 MB are refused before they are unpacked."""
        path = tmp_path / "images" / "x.jpg"
        cv2.imwrite(str(path), np.zeros((10_001, 10_000), np.uint8))
        self.check(tmp_path, people, path, "photograph over 100 megapixels; make it smaller")


def script(cwd, *args):
    environment = {**os.environ, "COLUMNS": "120", "PYTHONWARNINGS": "error::ResourceWarning"}
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, args)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# One process for many command lines.
MANY = """
import contextlib, io, json, sys
sys.path.insert(0, sys.argv[1])
import make_tfrecords
from absl import flags
from absl.testing import flagsaver

flags.FLAGS(["make_tfrecords"])
for arguments in json.loads(sys.argv[2]):
    with flagsaver.flagsaver(), contextlib.redirect_stderr(io.StringIO()) as error:
        try:
            flags.FLAGS(["make_tfrecords", *arguments])
            assert make_tfrecords.main() == 1
        except flags.Error as refused:
            print(refused, file=error)
    print(json.dumps(error.getvalue()))
"""


@pytest.fixture
def errors_of(tmp_path, tmp_path_factory, fork_script):
    """A function from command lines to what each says in the end."""
    many = tmp_path_factory.mktemp("many") / "many.py"
    many.write_text(MANY)

    def run(command_lines):
        words = (str(many), os.path.dirname(SCRIPT), json.dumps(command_lines))
        answer = fork_script(tmp_path, *words)
        assert answer["code"] == 0, answer["errors"]
        return [json.loads(line) for line in answer["output"].splitlines()]

    return run


@pytest.fixture
def forked(tmp_path, fork_script):
    """A function from words to the output and the errors of a script that ends so."""

    def run(*words, code=0):
        answer = fork_script(tmp_path, SCRIPT, *map(str, words))
        assert answer["code"] == code, answer["errors"]
        assert "Traceback" not in answer["errors"]
        return answer["output"], answer["errors"]

    return run


def finish(process, code=0, seconds=200):
    try:
        out, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == code, error
    assert "Traceback" not in error
    return out, error


@pytest.fixture(scope="module")
def lsp(tmp_path_factory):
    """LSP-extended in its published layout: 1,002 people in one hard-linked photograph."""
    folder = tmp_path_factory.mktemp("lspet")
    photographs = folder / "images"
    first = photograph(photographs / "im00001.jpg")
    for number in range(2, 1003):
        os.link(first, photographs / f"im{number:05d}.jpg")
    joints = np.random.default_rng(0).uniform(10, 50, (14, 3, 1002))
    joints[:, 2] = 1
    scipy.io.savemat(folder / "joints.mat", {"joints": joints})
    return folder


class TestScript:
    def test_flag_values(self, tmp_path, forked, errors_of):
        _, error = forked("--dataset=voc", code=1)
        assert "dataset" in error and "voc" in error and "synthetic" in error
        wrong = "shards=-1 workers=many context=0.5 side=4 jpeg_quality=101 people=0 nonsense=1"
        cases = [[f"--{flag}"] for flag in wrong.split()]
        errors = errors_of(cases)
        assert len(errors) == len(cases)
        for flag, error in zip(wrong.split(), errors):
            assert flag.split("=")[0] in error
        assert not list(tmp_path.iterdir())

    def test_annotations_that_are_not_there(self, tmp_path, errors_of):
        cases = {
            "no annotations of mpii in data/mpii": ["--dataset=mpii"],
            "no annotations of lsp in x (joints.mat)": ["--dataset=lsp", "--images=x/images"],
            "need --dataset=": ["--images=somewhere"],
            "there is no annotation file a.mat": ["--dataset=lsp", "--annotations=a.mat"],
            "--head belongs to --dataset=coco": ["--dataset=mpii", "--head=box:0.1"],
            "--split_seed belongs to --dataset=coco": ["--split_seed=1"],
            "no annotations of coco in x (annotations.json": [
                "--dataset=coco",
                "--images=x/images",
            ],
            "--validation_images needs": [
                "--dataset=coco",
                "--annotations=a",
                "--validation_images=v",
            ],
        }
        errors = errors_of(list(cases.values()))
        assert len(errors) == len(cases)
        for sentence, error in zip(cases, errors):
            assert sentence in error
        assert not list(tmp_path.iterdir())

    def test_empty_annotation_file(self, tmp_path, forked):
        (tmp_path / "a.json").write_text("")
        _, error = forked("--dataset=mpii", "--annotations=a.json", code=1)
        assert "a.json is empty" in error

    @pytest.mark.slow
    def test_lsp_and_its_table(self, tmp_path, lsp, forked):
        arguments = ("--dataset=lsp", f"--images={lsp}/images", "--side=16", "--records=r")
        out, error = finish(script(tmp_path, *arguments))
        cells = [line.replace("│", " ").split()[:3] for line in out.splitlines()]
        assert ["train", "2", "1"] in cells
        assert ["validation", "1,000", "2"] in cells
        assert "left out: none" in out
        assert "people/s" in error and "1002/1002" in error
        out, _ = forked(*arguments)
        assert "already holds exactly these records: nothing to do" in out
        _, error = forked(*arguments, "--context=1.5", code=1)
        assert "already holds records of 'lsp'" in error and "--overwrite" in error

    @pytest.mark.slow
    def test_auto_without_mpii_says_so_and_draws_people(self, tmp_path, forked):
        arguments = ("--people=12", "--side=64", "--seed=3")
        out, _ = forked(*arguments)
        assert "no MPII in data/mpii" in out and "12 synthetic people" in out
        assert "data/mpii/images" in out and "mpii_annotations.json" in out
        info = tfrecords.read_info(str(tmp_path / "data" / "records"))
        assert (info.name, info.count("train"), info.count("validation")) == ("synthetic", 10, 2)
        drawn = tmp_path / "data" / "synthetic" / "images" / "000003.jpg"
        before = drawn.stat().st_mtime_ns
        out, _ = forked(*arguments, "--records=other")
        assert "Using the synthetic people" in out and drawn.stat().st_mtime_ns == before
        _, error = forked("--people=13", "--side=64", "--seed=3", code=1)
        assert "already holds records of 'synthetic'" in error

    @pytest.mark.slow
    def test_ctrl_c_leaves_nothing(self, tmp_path, lsp):
        process = self.start_slow(tmp_path, lsp)
        # As a terminal does: to every process of the group.
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "interrupted; nothing was written" in error and "Traceback" not in error
        assert not list((tmp_path / "r").iterdir())

    @pytest.mark.slow
    def test_kill_leaves_no_records_and_no_workers(self, tmp_path, lsp, forked):
        process = self.start_slow(tmp_path, lsp)
        process.kill()
        # Its pipes close when the last of its workers has gone.
        process.communicate(timeout=30)
        left = sorted(contents(tmp_path / "r"))
        assert left and all(name.endswith(".tfrecord.partial") for name in left)
        arguments = ("--dataset=lsp", f"--images={lsp}/images", "--records=r", "--side=16")
        forked(*arguments, "--shards=3")
        assert len(contents(tmp_path / "r")) == 2 + 2 + 3  # two people to train on

    def start_slow(self, tmp_path, lsp):
        """A run with large crops, when shards are half-written and some workers already idle."""
        arguments = ("--dataset=lsp", f"--images={lsp}/images", "--records=r", "--context=8")
        process = subprocess.Popen(
            [sys.executable, SCRIPT, *arguments, "--shards=3", "--workers=5", "--jpeg_quality=99"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A test run started in the background hands on an ignored SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("r/validation*.partial")):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.01)
        return process


@pytest.mark.skipif(not TEST_DATA, reason="HOURGLASS_TEST_DATA is not set: no real annotations")
class TestRealPeople:
    @pytest.mark.slow
    def test_the_labelled_mpii_photographs_at_hand(self, tmp_path, forked):
        images = pathlib.Path(TEST_DATA, "mpii", "images")
        arguments = ("--dataset=mpii", f"--images={images}", "--records=r")
        _, error = forked(*arguments, code=1)
        assert "photographs are not in" in error and "--allow_missing_images" in error
        out, _ = forked(*arguments, "--allow_missing_images")
        assert "left out: photograph missing" in out and "25,201" in out
        info = tfrecords.read_info(str(tmp_path / "r"))
        assert info.count("validation") == 3
        record = tf.data.TFRecordDataset(info.shards("validation"))
        record = record.map(lambda one: tfrecords.decode(one, joints=16, canvas=724))
        everyone = {entry["img_paths"]: entry for entry in self.entries()}
        for got in record.as_numpy_iterator():
            entry = everyone[got["id"].decode().split("#")[0]]
            matrix = got["crop_to_image"]
            back = got["joints"].astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
            truth = np.array(entry["joint_self"])[:, :2] - 1
            labelled = got["state"] > 0
            np.testing.assert_allclose(back[labelled], truth[labelled], atol=1e-4)

    @pytest.mark.slow
    @pytest.mark.fire
    def test_all_of_mpii_comes_to_the_published_counts(self, tmp_path, forked):
        """25,204 people with one placeholder under every photograph's name."""
        names = {entry["img_paths"] for entry in self.entries()}
        first = photograph(tmp_path / "images" / "placeholder.jpg")
        for name in names:
            os.link(first, tmp_path / "images" / name)
        annotations = pathlib.Path(TEST_DATA, "mpii", "mpii_annotations.json.gz")
        forked(
            "--dataset=mpii",
            f"--annotations={annotations}",
            f"--images={tmp_path}/images",
            "--records=r",
            "--context=1",
            "--side=8",
        )
        info = tfrecords.read_info(str(tmp_path / "r"))
        assert (info.count("train"), info.count("validation")) == (22_246, 2_958)
        assert info.left_out == {}
        seen = collections.Counter()
        data = tf.data.TFRecordDataset(info.shards("train") + info.shards("validation"))
        for record in data.as_numpy_iterator():
            example = tf.train.Example.FromString(record)
            seen[example.features.feature["id"].bytes_list.value[0]] += 1
        assert len(seen) == 25_204 and set(seen.values()) == {1}

    def entries(self):
        with gzip.open(pathlib.Path(TEST_DATA, "mpii", "mpii_annotations.json.gz")) as file:
            return json.load(file)
