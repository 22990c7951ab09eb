"""Records written over others: killed at any instant the folder holds one whole set, old or new."""

import shutil
import signal

import pytest

from pipelines.data import tfrecords
from tests.helpers.outcomes import differences, leftovers, of_files
from tests.helpers.people import write_records
from tests.helpers.processes import ROOT, start_python
from tests.helpers.toys import TOY_PAIRS, draw_toys

pytestmark = pytest.mark.slow

# Renames: of the marker, of two shards of each split, of left_out.json, of dataset.json.
MOMENTS = {
    "before the marker of unfinished records": (1, "before"),
    "between the new shards": (3, "after"),
    "before dataset.json": (7, "before"),
    "before the old shards are removed": (7, "after"),
}
ALWAYS = {"between the new shards"}


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    annotations = draw_toys(tmp_path_factory.mktemp("toys"))
    options = ["--dataset=coco", "--head=box:0.5", f"--mirror_pairs={TOY_PAIRS}", "--side=64"]
    more = ["--shards=2", "--records=records", "--overwrite", f"--annotations={annotations}"]
    return [str(ROOT / "scripts" / "make_tfrecords.py"), *options, *more]


def convert(folder, *words: str) -> tuple[int, str]:
    process = start_python(*words, cwd=folder)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    write_records(folder / "records", {"train": 9, "validation": 3})
    return folder


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, words, others) -> dict:
    folder = tmp_path_factory.mktemp("uninterrupted")
    shutil.copytree(others, folder, dirs_exist_ok=True)
    code, output = convert(folder, *words)
    assert code == 0, output
    return of_files(folder)


@pytest.mark.parametrize(
    "moment",
    [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.fire) for name in MOMENTS],
)
def test_killed(tmp_path, words, others, uninterrupted, moment):
    shutil.copytree(others, tmp_path, dirs_exist_ok=True)
    deadly = ("-m", "tests.fire.killed", "tensorflow:io.gfile.rename", *map(str, MOMENTS[moment]))
    code, output = convert(tmp_path, *deadly, *words)
    assert code == -signal.SIGKILL, output
    info = tfrecords.read_info(str(tmp_path / "records"))
    assert info.name == ("coco fish" if "old shards" in moment else "drawn")
    for split in info.splits:
        tfrecords.check_shards(info, split)
    code, output = convert(tmp_path, *words)
    assert code == 0, output
    assert not leftovers(tmp_path)
    assert not differences(of_files(tmp_path), uninterrupted)
