"""Exports, predictions and evaluations that are killed: the same command runs again, and cleans up.

Each command is run once in full, then killed at an instant and run again in another folder: both
folders must hold the same files, and the one for temporary files no folder.
"""

import dataclasses
import json
import pathlib
import signal

import cv2
import numpy as np
import pytest

from pipelines.config import to_flagfile
from tests.helpers.people import draw_person, once
from tests.helpers.processes import ROOT

pytestmark = pytest.mark.slow

# A script with a folder for temporary files of its own, killed as ``tests.fire.killed`` says.
DEADLY = """
import sys, tempfile
from tests.fire import killed
tempfile.tempdir = sys.argv[1]
killed.main(*sys.argv[2:])
"""

RENAME, REMOVE = "tensorflow:io.gfile.rename", "tensorflow:io.gfile.rmtree"

# Command, where, which call, when. Renames of an export: the file (of OpenVINO's a frozen graph,
# then its two), the copy of its JSON, the JSON, the export; of a prediction: each drawn picture,
# then the two JSON files and the CSV.
ALWAYS = [
    ("frozen", RENAME, 3, "after"),
    ("predict", RENAME, 4, "after"),
]
OTHERS = [
    ("frozen", RENAME, 1, "before"),
    ("tflite", "shutil:rmtree", 1, "before"),
    ("predict", RENAME, 2, "before"),
    ("frozen", RENAME, 2, "before"),
    ("frozen", RENAME, 3, "before"),
    ("tflite", RENAME, 3, "after"),
    ("tflite", "pipelines.export.export:compare", 1, "after"),
    ("savedmodel", "tensorflow:saved_model.save", 1, "after"),
    ("savedmodel", RENAME, 2, "after"),
    ("onnx", RENAME, 1, "before"),
    ("onnx", RENAME, 3, "after"),
    ("openvino", RENAME, 2, "after"),
    ("openvino", RENAME, 5, "after"),
    ("predict", RENAME, 4, "before"),
    ("predict", RENAME, 5, "after"),
    ("predict", RENAME, 6, "before"),
    ("predict", "os:replace", 1, "before"),
    ("evaluate", RENAME, 1, "before"),
    ("evaluate", RENAME, 3, "after"),
    ("evaluate", RENAME, 6, "before"),
    ("export_torch", RENAME, 1, "before"),
    ("import_torch", "tensorflow:train.CheckpointManager.save", 1, "after"),
    ("import_torch", RENAME, 2, "before"),
]
MOMENTS = [*ALWAYS, *(pytest.param(*moment, marks=pytest.mark.fire) for moment in OTHERS)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, fork_script, trained, info):
    """A function (folder, command, moment) -> the answer of the command, which writes there."""
    home = tmp_path_factory.mktemp("home")
    (home / "deadly.py").write_text(DEADLY)
    for k in range(3):
        cv2.imwrite(str(home / f"{k}.png"), draw_person(k, "train", k, info.skeleton)[0])
    film = cv2.VideoWriter(str(home / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    for k in range(4):
        film.write(np.full([64, 64, 3], 40 * k, np.uint8))
    film.release()

    def words(folder: pathlib.Path, command: str) -> list[str]:
        checkpoint, records = f"--checkpoint={trained[0].workdir}", f"--records={info.folder}"
        if command == "predict":
            inputs = [f"{home}/{name}" for name in ("0.png", "1.png", "2.png", "film.mp4")]
            return ["scripts/predict.py", checkpoint, f"--output={folder}", *inputs]
        if command == "evaluate":
            config = dataclasses.replace(trained[0], checkpoint=trained[0].workdir)
            flags = home / "flags"
            flags.write_text(to_flagfile(dataclasses.replace(config, workdir=str(folder))))
            return ["eval_main.py", f"--flagfile={flags}"]
        if command == "export_torch":
            layout = "--layout=princeton"  # of the trained network's stem
            return ["scripts/export_torch.py", checkpoint, layout, f"--output={folder}/pose.pth"]
        if command == "import_torch":
            words_of = words(home, "export_torch")
            if not (home / "pose.pth").exists():
                fork_script(home, str(ROOT / words_of[0]), *words_of[1:])
            return [
                "scripts/import_torch.py",
                f"--input={home}/pose.pth",
                f"--output={folder}/run",
                "--size=32",
            ]
        output = f"--output={folder}/pose.{command}"
        # A network trained for seconds: what it is worth is not the question here.
        return [
            "scripts/export.py",
            checkpoint,
            records,
            f"--format={command}",
            output,
            "--accept_loss",
        ]

    def answer(folder: pathlib.Path, command: str, *moment) -> dict:
        temporary = folder.with_name(folder.name + "-temporary")
        for path in (folder, temporary):
            path.mkdir(exist_ok=True)
        script, *rest = words(folder, command)
        start = [str(home / "deadly.py"), str(temporary), *map(str, moment or (RENAME, 0, ""))]
        return fork_script(home, *start, str(ROOT / script), *rest)

    return answer


def contents(folder: pathlib.Path) -> dict:
    """Relative path -> bytes of every file; of an export's JSON what does not change."""
    found = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for path in found:
        if path.name.startswith("pose.") and path.suffix == ".json":
            found[path] = sorted(json.loads(found[path]))
        elif path.suffix not in (".json", ".jpg", ".csv"):
            found[path] = "written"  # dates, or an order that varies
        elif path.suffix == ".json":
            found[path] = found[path].replace(str(folder).encode(), b"folder")
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory, run):
    """A function: what a command that is not killed leaves."""

    def make(command: str) -> dict:
        def work(folder):
            answer = run(folder, command)
            assert answer["code"] == 0, answer
            return contents(folder)

        return once(tmp_path_factory, f"whole-{command}", work)

    return make


@pytest.mark.parametrize("command, where, call, when", MOMENTS)
def test_killed_and_run_again(tmp_path, run, whole, command, where, call, when):
    package = {"export_torch": "torch", "import_torch": "torch"}.get(command, command)
    if package in ("onnx", "openvino", "torch"):
        pytest.importorskip(package)
    expected, folder = whole(command), tmp_path / "again"
    answer = run(folder, command, where, call, when)
    assert answer["code"] == -signal.SIGKILL, answer
    answer = run(folder, command)
    assert answer["code"] == 0, answer
    assert contents(folder) == expected
    # Files are TensorFlow's own generated Python.
    assert not [path for path in (tmp_path / "again-temporary").iterdir() if path.is_dir()]


@pytest.mark.fire
@pytest.mark.parametrize("call, where, when", [(4, RENAME, "after"), (1, REMOVE, "before")])
def test_an_export_that_was_killed_when_it_was_whole(tmp_path, run, whole, call, where, when):
    """It is there with its JSON: the same command says so, and removes the rest."""
    folder = tmp_path / "again"
    assert run(folder, "frozen", where, call, when)["code"] == -signal.SIGKILL
    answer = run(folder, "frozen")
    assert answer["code"] == 1 and "pose.frozen exists already" in answer["errors"], answer
    assert contents(folder) == whole("frozen")


def test_a_json_of_another_program_stays(tmp_path, run):
    """Leftovers are told from a file that was there by their content."""
    folder = tmp_path / "again"
    assert run(folder, "frozen", RENAME, 2, "after")["code"] == -signal.SIGKILL
    (folder / "pose.frozen.json").write_text("mine")
    answer = run(folder, "frozen")
    assert answer["code"] == 1 and "pose.frozen.json exists already" in answer["errors"], answer
    assert (folder / "pose.frozen.json").read_text() == "mine"
