"""Files that cannot be written: one sentence, exit code 1, and what was there stays whole."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import resource
import shutil
import socket
import tempfile

import numpy as np
import pytest

from hourglass.skeleton import MPII
from pipelines import io
from pipelines.config import to_flagfile
from pipelines.inference import writers
from pipelines.inference.predictor import Pose
from tests.helpers.people import tiny
from tests.helpers.processes import ROOT, start_python

pytestmark = pytest.mark.slow

# Runs a script whose files can hold so many bytes only: to a program, a full disk looks like this.
LIMITED = """
import resource, runpy, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


# Runs a script with folders that cannot be written; what it reads does not exist.
COMMANDS = {
    "train_main.py": "--workdir={folder} --records={records} --init_from=nowhere",
    "eval_main.py": "--workdir={folder} --records=nowhere",
    "eval_main.py --predictions=nowhere.mat": "--ground_truth=nowhere.mat --output={folder}",
    "scripts/score_predictions.py": (
        "--predictions=nowhere.mat --ground_truth=nowhere.mat --output={folder}"
    ),
    "scripts/predict.py": "--checkpoint=nowhere nowhere.jpg --output={folder}",
    "scripts/export.py": (
        "--checkpoint=nowhere --records=nowhere --format=frozen --output={folder}/pose"
    ),
    "scripts/export_torch.py": (
        "--checkpoint=nowhere --layout=pytorch_pose --output={folder}/pose.pth"
    ),
    "scripts/import_torch.py": "--input=nowhere.pth --output={folder}/run",
    "scripts/make_tfrecords.py": "--dataset=mpii --annotations=nowhere --records={folder}",
    "scripts/make_submission.py": (
        "--annotations=nowhere --predictions=nowhere --output={folder}/submission.mat"
    ),
    "scripts/make_mpii_validation.py": "nowhere.h5 nowhere.mat {folder}/table.csv",
    "scripts/browse.py": "--records=nowhere --output={folder}/people.html",
    "scripts/draw_records.py": "--records=nowhere --output={folder}/truth.png",
    "scripts/plot_runs.py": "nowhere --output={folder}/curves.png",
}


def run(*words: str) -> tuple[int, str]:
    process = start_python(*words)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def contents(folder: pathlib.Path) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("ckpt-*")) if path.is_file()}


@pytest.mark.fire
def test_no_space_for_a_checkpoint(tmp_path, trained):
    """What the interrupted run had saved stays, and is resumed when there is space again."""
    config = dataclasses.replace(trained[0], workdir=str(tmp_path / "run"), steps=18, epochs=100.0)
    shutil.copytree(trained[0].workdir, config.workdir)
    longer = to_flagfile(config)
    pathlib.Path(config.workdir, "flags.txt").write_text(longer)
    (tmp_path / "flags").write_text(longer)
    before = contents(tmp_path / "run")
    main = (str(ROOT / "train_main.py"), f"--flagfile={tmp_path / 'flags'}")
    code, output = run("-c", LIMITED, "30000", *main)
    assert code == 1 and "Traceback" not in output, output
    assert "error: cannot save step " in output and "the same command resumes" in output
    after = contents(tmp_path / "run")
    assert before.items() <= after.items()
    code, output = run(*main)
    assert code == 0 and "resuming" in output, output


def test_no_space_for_results(tmp_path, trained):
    config = dataclasses.replace(
        trained[0], checkpoint=trained[0].workdir, workdir=str(tmp_path / "scored")
    )
    (tmp_path / "flags").write_text(to_flagfile(config))
    words = (str(ROOT / "eval_main.py"), f"--flagfile={tmp_path / 'flags'}")
    code, output = run("-c", LIMITED, "2000", *words)
    assert code == 1 and "Traceback" not in output and "error: cannot write" in output, output
    written = tmp_path / "scored" / "results.json"
    assert not written.exists() or json.loads(written.read_text())


def test_a_workdir_that_is_a_file(tmp_path, info):
    (tmp_path / "run").write_text("mine")
    (tmp_path / "flags").write_text(to_flagfile(tiny(tmp_path / "run", info)))
    code, output = run(str(ROOT / "train_main.py"), f"--flagfile={tmp_path / 'flags'}")
    assert code == 1 and "Traceback" not in output and "error: " in output, output
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.fire
def test_no_space_for_events(tmp_path, info):
    """The event file's pictures need more than a checkpoint: the state is saved, and resumed."""
    config = tiny(tmp_path / "run", info)
    (tmp_path / "flags").write_text(to_flagfile(config))
    main = (str(ROOT / "train_main.py"), f"--flagfile={tmp_path / 'flags'}")
    code, output = run("-c", LIMITED, "400000", *main)
    assert code == 1 and "Traceback" not in output, output
    assert "error: cannot write " in output and "the last events are not in it" in output
    assert contents(tmp_path / "run")
    code, output = run(*main)
    assert code == 0 and "resuming" in output, output


def test_no_space_for_predictions(tmp_path, small_files):
    """None of the three files appears, nor a part of them; what was there stays."""
    (tmp_path / "predictions.json").write_text("before")
    pose = Pose(np.zeros([16, 2]), np.ones(16), None, np.zeros(2), 1.0)
    with small_files(5000), pytest.raises(OSError, match="cannot write .*predictions.json"):
        with writers.Results(str(tmp_path), MPII, {"id": 1, "name": "person"}, 1) as results:
            for k in range(100):
                results.add(f"{k}.jpg", (10, 10), [pose])
    assert (tmp_path / "predictions.json").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.json"]


@pytest.mark.parametrize("room", [0, 3000, 30000])
def test_no_space_for_a_video(tmp_path, small_files, room):
    random = np.random.default_rng(0)
    with small_files(room), writers.Film(str(tmp_path / "film.webm"), 25.0) as film:
        for _ in range(20):
            film.add(random.integers(0, 256, [120, 160, 3], np.uint8))
    assert re.search("cannot write .*film.webm", film.problem)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_files():
    """A context in which this process's files can hold so many bytes only."""

    @contextlib.contextmanager
    def limited(size: int):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.mark.parametrize("command", COMMANDS)
def test_the_output_is_tried_first(tmp_path, fork_script, info, command):
    """What is missing as well is not complained about: the work has not begun."""
    (tmp_path / "file").write_text("mine")
    folder = tmp_path / "file" / "folder"
    words = [
        *command.split()[1:],
        *COMMANDS[command].format(folder=folder, records=info.folder).split(),
    ]
    answer = fork_script(tmp_path, str(ROOT / command.split()[0]), *words)
    assert answer["code"] == 1 and f"cannot write to {folder}" in answer["errors"], answer
    assert "Traceback" not in answer["errors"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/none", "link"])
def test_folders_that_cannot_be_written(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OSError, match=f"cannot write to {folder}: .*; choose another path"):
        io.check_writable(folder)
    with pytest.raises(OSError, match="it is a folder; name a file"):
        io.check_file_writable(str(tmp_path))


@pytest.mark.parametrize("folder", ["", ".", "there", "there/[a]*/b"])
def test_a_folder_is_tried_without_a_trace(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    io.check_writable(folder)
    io.check_file_writable(f"{folder}/file" if folder else "file")
    assert [*tmp_path.rglob("*")] == [tmp_path / "there"]


def test_temporary_folders_of_killed_processes(tmp_path, monkeypatch):
    """Those of processes that live, and of other programs, stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    host = f"hourglass-{socket.gethostname()}"
    with start_python("-c", "") as ended:
        pass
    names = [f"{host}-{ended.pid}-x", f"{host}-{os.getppid()}-x", f"hourglass-o-{ended.pid}-x"]
    for name in names:
        (tmp_path / name / "folder").mkdir(parents=True)
    with io.temporary_folder() as folder:
        there = {path.name for path in tmp_path.iterdir()}
        assert there == {*names[1:], pathlib.Path(folder).name}
    assert {path.name for path in tmp_path.iterdir()} == {*names[1:]}
