"""Every command in README.md and docs/: its flags are real, its files are there by then, it runs.

A command that stands on a page and in none of the tables below fails, as does one that stands in a
table and on no page. Those in ``RUN`` run here, in the order of the pages, in a copy of the scripts
in a folder of its own, with the words that make them small.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request

import cv2
import numpy as np
import pytest
import scipy.io
import tensorflow as tf

from hourglass.skeleton import MPII
from tests.helpers.forked import ROOT
from tests.helpers.help_pages import GROUPS, entries
from tests.helpers.mpii_people import people, person
from tests.helpers.people import draw_person
from tests.helpers.release_mat import EMPTY, annorect_of, write_mat
from tests.helpers.toys import TOY_PAIRS, draw_toys
from tests.helpers.truth_files import joints_of, tompson

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

SMALL = "--stacks=1 --channels=8 --depth=1 --size=32 --global_batch_size=8 --steps=4 --log_every=2"
VALIDATED = f"{SMALL} --evaluate_every=100 --evaluation_batch_size=4"
TRAIN = f"{VALIDATED} --ema_decay=0 --precise_bn_examples=0"
AVERAGED = f"{VALIDATED} --ema_decay=0.9"


@dataclasses.dataclass(frozen=True)
class Small:
    """A command as it runs here: added flags, expected output, files that it writes; whether it
    takes so long that only ``make fire`` runs it."""

    words: str = ""
    output: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    long: bool = False


RUN = {
    "python scripts/make_tfrecords.py": Small(
        "--people=24 --workers=1 --side=64",
        ("no MPII in data/mpii", "validation"),
        ("data/records/dataset.json",),
    ),
    "python train_main.py --flagfile=configs/hg_s2.flags": Small(
        AVERAGED, ("step 4 of 4, saved as runs/hg_s2/checkpoints/ckpt-4",)
    ),
    "python scripts/draw_records.py": Small(
        "--count=4 --size=64", writes=("data/records/truth.png",)
    ),
    "python eval_main.py --flagfile=configs/hg_s2.flags": Small(
        TRAIN,
        ("mean14", "weighted14", "pooled16"),
        tuple(f"runs/hg_s2/predictions.{kind}" for kind in ("mat", "h5", "json", "png")),
    ),
    "python scripts/predict.py docs/street.jpg --boxes=docs/street.csv": Small(
        "",
        ("network: pretrained/people", "1 person in 1 image"),
        ("predictions/street.jpg", "predictions/predictions.csv"),
    ),
    "python scripts/predict.py holiday/ street.jpg walk.mp4 --boxes=people.csv": Small(
        "",
        ("network: pretrained/people", "3 boxes for 3 inputs", "14 people in 14 images"),
        tuple(
            f"predictions/{name}"
            for name in ("predictions.json", "predictions.csv", "images.json", "walk.webm")
        ),
    ),
    "python scripts/browse.py --records=data/demo --predictions=runs/demo/predictions.json": Small(
        "--size=64", ("of 4 people",), ("runs/demo/people.html",)
    ),
    "python scripts/plot_runs.py runs/demo runs/hg_s2": Small(
        "", ("runs/hg_s2, averaged: best",), ("curves.png",)
    ),
    "python scripts/export.py --checkpoint=runs/demo --records=data/demo --format=savedmodel "
    "--output=exports/pose": Small(
        "--people=4",
        ("joints_of_pixels", "PCKh mean14", "-> exports/pose"),
        ("exports/pose/1/saved_model.pb", "exports/pose.json"),
    ),
    "python eval_main.py --predictions=preds.mat --ground_truth=detections_our_format.mat "
    "--output=runs/scored": Small(
        "",
        ("mean14 100.000, 95 % from 100.00 to 100.00",),
        tuple(f"runs/scored/{name}" for name in ("results.json", "curve.csv", "curve.png")),
    ),
    "python train_main.py --flagfile=configs/lspet.flags": Small(
        f"{TRAIN} --records=data/records --logical_devices=0",
        ("step 4 of 4, saved as runs/lspet/",),
        long=True,
    ),
    "python eval_main.py --flagfile=configs/lspet.flags": Small(
        f"{TRAIN} --records=data/records --logical_devices=0",
        ("mean14",),
        ("runs/lspet/results.json",),
        long=True,
    ),
    "python scripts/make_tfrecords.py --dataset=coco --annotations=mine.json --images=pictures "
    "--head=box:0.1 --records=data/mine": Small(
        f"'--mirror_pairs={TOY_PAIRS}' --workers=1 --side=32",
        ("mirror pairs: wing one:wing two", "coco fish in data/mine"),
        ("data/mine/dataset.json",),
    ),
    "python scripts/draw_records.py --records=data/mine": Small(
        "--count=2 --size=64", writes=("data/mine/truth.png",)
    ),
    "python train_main.py --records=data/mine --workdir=runs/mine": Small(
        TRAIN, ("step 4 of 4, saved as runs/mine/",)
    ),
    "python eval_main.py --records=data/mine --workdir=runs/mine": Small(
        TRAIN, ("wing one/wing two",), ("runs/mine/results.json", "runs/mine/coco_results.json")
    ),
    "python scripts/export.py --checkpoint=runs/mine --records=data/mine --format=savedmodel "
    "--output=exports/mine": Small(
        "--people=4", ("-> exports/mine",), ("exports/mine/1/saved_model.pb", "exports/mine.json")
    ),
    "python train_main.py --flagfile=configs/demo.flags --workdir=runs/two --strategy=mirrored "
    "--logical_devices=2 --sync_bn --steps=20": Small(
        TRAIN, ("step 4 of 4, saved as runs/two/", "1 trace"), long=True
    ),
    "python scripts/make_tfrecords.py --dataset=synthetic --people=400 --side=171 --context=1.3 "
    "--records=data/small": Small(
        "--people=24 --workers=1 --side=64",
        ("synthetic in data/small",),
        ("data/small/dataset.json",),
    ),
    "python train_main.py --flagfile=configs/demo.flags --records=data/small --workdir=runs/small "
    "--steps=20 --log_every=5": Small(
        f"{AVERAGED} --logical_devices=0",
        ("kept in memory", "(best)", "step 4 of 4, saved as runs/small/checkpoints/", "1 trace"),
        ("runs/small/best/best.json",),
        long=True,
    ),
}

# Run by other tests; the two test-set commands and tensorboard need more than words, further down.
ELSEWHERE = {
    "make demo": ".ci/run",
    "make test": ".ci/run",
    "make torch": ".ci/run",
    "make export-tools": ".ci/run",
    "make venv PYTHON=3.12": "tests/test_setup.py::make_venv",
    "python scripts/predict.py pictures --boxes=results.bbox.json --annotations=mine.json": (
        "tests/inference/test_boxes.py::test_results_of_detectors"
    ),
    "tensorboard --logdir runs": "tests/test_readme.py::test_tensorboard_shows_the_runs",
    "python scripts/import_torch.py --input=hg_s2_b1.pth.tar --output=runs/imported": (
        "tests/export/test_torch.py::test_the_commands"
    ),
    "python eval_main.py --checkpoint=runs/imported --workdir=runs/imported": (
        "tests/export/test_torch.py::test_the_commands"
    ),
    "python scripts/export_torch.py --checkpoint=runs/hg_s2 --layout=pytorch_pose "
    "--output=hg_s2.pth.tar": "tests/export/test_torch.py::test_the_commands",
    "python scripts/make_tfrecords.py --dataset=lsp --images=LSPET/images "
    "--annotations=LSPET/joints.mat --records=data/lspet --side=171 --context=1.3": (
        "tests/data/test_write_tfrecords.py::test_lsp_and_its_table"
    ),
    "python scripts/make_tfrecords.py --dataset=yolo --annotations=export/data.yaml --head=box:0.1 "
    "--records=data/mine": "tests/data/test_yolo.py::test_from_an_export_to_an_exported_network",
    "python scripts/make_tfrecords.py --dataset=labelme --annotations=labelled --head=box:0.1 "
    "--records=data/mine": "tests/data/test_labelme.py::test_from_a_folder_to_an_exported_network",
    "python scripts/benchmark.py --flagfile=configs/demo.flags "
    "--parts=input,augment,train,end_to_end": "tests/benchmark/test_benchmark.py::test_the_command",
    "python scripts/benchmark.py --parts=person --noceilings --people=6 --repeats=4": (
        "tests/benchmark/test_benchmark.py::test_a_person_of_a_photograph_is_found_at_each_step"
    ),
    "python scripts/benchmark.py --stored=362:2,362:1.77,256:2,256:1.77,256:1.5,256:1.25,171:1.3": (
        "tests/benchmark/test_benchmark.py::test_the_command_s_stored_sizes"
    ),
    "python scripts/collapse_study.py": (
        "tests/training/test_collapse.py::test_the_command_is_resumed_and_reports"
    ),
    "python scripts/check_gpu.py": "tests/benchmark/test_gpu_check.py::test_the_command",
    "python scripts/decoder_ceilings.py --annotations=FILE": (
        "tests/hourglass/test_decode.py::test_the_command_prints_the_table"
    ),
    "python train_main.py --flagfile=configs/hg_s2.flags --strategy=multi_worker "
    "--global_batch_size=12": (
        "tests/training/test_multi_worker.py::test_two_workers_equal_two_replicas"
    ),
    "python eval_main.py --checkpoint=runs/hg_s2 --workdir=runs/test --split=test": (
        "tests/test_readme.py::test_mpiis_test_set"
    ),
    "python scripts/make_submission.py --annotations=mpii_human_pose_v1_u12_1.mat "
    "--predictions=runs/test/predictions.json": "tests/test_readme.py::test_mpiis_test_set",
}

# Beginning of a command -> why no test runs it as it stands.
NOT_RUN = {
    "make venv && source .venv/bin/activate": "make demo and make test do the first",
    "source .venv/bin/activate": "of venv; tests/test_setup.py makes the folder",
    "make fire": "takes long; a few of its instants are run by the tests themselves",
    "python scripts/benchmark.py --all --json": "takes long at any size; its groups are tested",
    "python scripts/collapse_study.py --ours=": "twenty minutes; tests/training/test_collapse.py",
    "docker run -p 8501:8501": "no Docker; tests/export/test_export.py loads what it would serve",
    "echo '{": "needs that server; test_the_request_that_is_sent checks what it would get",
    "export TF_CONFIG=": "test_tf_config_is_one",
}

# What the pages tell the user to bring.
BROUGHT = {
    "configs", "holiday", "street.jpg", "walk.mp4", "people.csv", "preds.mat", "LSPET", "mine.json",
    "detections_our_format.mat", "mpii_human_pose_v1_u12_1.mat", "hg_s2_b1.pth.tar", "pictures",
    "FILE", "export/data.yaml", "labelled", "docs", "results.bbox.json",
}  # fmt: skip
INPUTS = (
    "flagfile records checkpoint predictions ground_truth annotations images boxes init_from input"
)
MADE_BY_MAKE_DEMO = ("data/demo", "runs/demo")


# ---- what stands on the pages

BLOCK = r"(?<=\n\n)(?:    .*\n|\n(?=    ))+"


def blocks(text: str) -> list[str]:
    """Indented code, without its indent."""
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in re.findall(BLOCK, text)]


def in_block(block: str) -> list[str]:
    """The commands of a block, each on one line, without comments."""
    lines, line = [], ""
    for part in block.splitlines():
        line = f"{line} {re.sub(' +# .*', '', part).strip()}".strip()
        if line.endswith("\\"):
            line = line[:-1].rstrip()
        elif not line.endswith("|") and line.count("'") % 2 == 0:
            lines.append(line)
            line = ""
    assert not line, f"{line} does not end"
    return lines


def spans(text: str) -> list[str]:
    """Text between backticks outside of blocks."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", re.sub(BLOCK, "", text))]


def is_snippet(block: str) -> bool:
    return block.startswith(("from ", "import "))


def has_commands(block: str) -> bool:
    """Neither Python, nor a patch (tests/test_extending.py applies those), nor a drawing."""
    drawing = re.search(r"^ *->", block, re.MULTILINE)
    return not (is_snippet(block) or block.startswith("--- ") or drawing)


def commands(text: str) -> list[str]:
    """All commands of a page: blocks, then those in sentences and tables."""
    lines = [line for block in blocks(text) if has_commands(block) for line in in_block(block)]
    inline = [re.sub("^time ", "", span) for span in spans(text)]
    lines += [one for one in inline if re.match(r"make |python ", one)]
    return lines + [f"python {one}" for one in inline if re.match(r"[\w/]+\.py ", one)]


TEXTS = {page.name: page.read_text() for page in PAGES}
COMMANDS = list(dict.fromkeys(line for text in TEXTS.values() for line in commands(text)))
PYTHON = [line for line in COMMANDS if line.startswith("python ")]
SNIPPETS = [block for text in TEXTS.values() for block in blocks(text) if is_snippet(block)]


def words_of(line: str) -> list[str]:
    """Script and words of a python command."""
    return shlex.split(line.split(" > ")[0])[1:]


def test_commands_are_found():
    """A parser that finds nothing would let everything pass."""
    page = "# T\n\nSay `make it` or `a.py --x` in `a.py`.\n\n    one --a \\\n        --b   # why\n"
    page += "    two 'x\n    y' |\n      three\n\nThen\n\n    import os\n\n    os.x()\n\n"
    page += "| `time make this\nnow` |\n"
    expected = ["one --a --b", "two 'x y' | three", "make it", "make this now", "python a.py --x"]
    assert commands(page) == expected
    assert {"make demo", "tensorboard --logdir runs"} < set(COMMANDS) and len(PYTHON) > 25
    assert len(SNIPPETS) == 2


def test_every_command_is_run_or_says_why_not():
    reasons = {line: [one for one in NOT_RUN if line.startswith(one)] for line in COMMANDS}
    known = set(RUN) | set(ELSEWHERE) | {line for line, reason in reasons.items() if reason}
    assert [line for line in COMMANDS if line not in known] == [], "add a test for these"
    assert [line for line in (*RUN, *ELSEWHERE) if line not in COMMANDS] == [], "on no page"
    assert {one for reason in reasons.values() for one in reason} == set(NOT_RUN)


@pytest.mark.parametrize(("line", "test"), ELSEWHERE.items())
def test_the_tests_named_exist(line, test):
    file, _, name = test.partition("::")
    text = (ROOT / file).read_text()
    if name:
        assert re.search(rf"^ *def {name}\(", text, re.MULTILINE), test
    else:
        assert f"timed {line}" in text or line == "make demo" and "make demo" in text


# ---- flags, values and files


@pytest.mark.parametrize("line", PYTHON)
def test_flags_and_their_values_are_taken(fork_script, line):
    """By the script's own definitions and rules; it stops before its work."""
    answer = fork_script(ROOT, *words_of(line), "--only_check_args")
    assert (answer["code"], answer["errors"]) == (0, "")


def test_flags_in_sentences_are_some_scripts(fork_script):
    pages = [fork_script(ROOT, script, "--help")["output"] for script in GROUPS]
    known = {name for page in pages for name in entries(page)} | {"help", "helpfull", "flagfile"}
    named = [
        re.findall(r"(?<![\w-])--(\w+)", span) for text in TEXTS.values() for span in spans(text)
    ]
    flags = {name for names in named for name in names}
    no = {name for name in flags if name.startswith("no") and name[2:] in known}
    assert flags - no - known == set() and len(flags) > 25


def test_files_named_on_the_pages_exist():
    """Of the project: what has a folder of its own, or is a script."""
    named = [span for text in TEXTS.values() for span in spans(text)]
    named = [one for one in named if re.fullmatch(r"[\w/]+(\.\w+|/)", one)]
    own = ("configs/", "hourglass/", "pipelines/", "scripts/", "docs/")
    named = [one for one in named if one.startswith(own) or re.fullmatch(r"\w+_main\.py", one)]
    assert [one for one in named if not (ROOT / one).exists()] == [] and len(named) > 30
    links = [link for text in TEXTS.values() for link in re.findall(r"\]\(([^)#]+)", text)]
    linked = [ROOT / link if (ROOT / link).exists() else ROOT / "docs" / link for link in links]
    assert [str(path) for path in linked if not path.exists()] == []


def test_every_script_is_in_the_table():
    table = TEXTS["README.md"].split("## Every command")[1].split("## ")[0]
    scripts = {f"scripts/{path.name}" for path in (ROOT / "scripts").iterdir() if path.is_file()}
    assert set(re.findall(r"`([\w/]+\.(?:py|sh))`", table)) == {
        *scripts,
        "train_main.py",
        "eval_main.py",
    }


def settings(words: list[str]) -> dict[str, str]:
    """Flag -> value of a command line, those of its flagfile included, and its other words."""
    values = {}
    for word in words:
        name, _, value = word.lstrip("-").partition("=")
        if word.startswith("--flagfile="):
            lines = (ROOT / value).read_text().splitlines()
            values.update(settings([line for line in lines if line.startswith("--")]))
        values[name if word.startswith("--") else word] = value or word
    return values


def written(script: str, given: dict[str, str]) -> list[str]:
    """Files and folders that a command writes."""
    if script == "scripts/make_tfrecords.py":
        return [given.get("records", "data/records")]
    if script in ("train_main.py", "eval_main.py"):
        return [given.get("output", given.get("workdir", "runs/hg_s2"))]
    return [given["output"]] if "output" in given else []


def test_files_are_there_when_a_command_needs_them():
    """Brought by the user, or written by a command that stands before it."""
    there = [*BROUGHT, *MADE_BY_MAKE_DEMO]
    for line in PYTHON:
        script, *words = words_of(line)
        given = settings(words)
        makes = script in ("scripts/make_tfrecords.py", "scripts/collapse_study.py")
        needs = [given[name] for name in INPUTS.split() if name in given]
        needs += [word for word in words if not word.startswith("--")]
        if makes and "records" in given:
            needs.remove(given["records"])
        absent = [one for one in needs if not any(f"{one}/".startswith(f"{x}/") for x in there)]
        assert absent == [], f"{line}: nothing before it writes these"
        there += written(script, given)


def test_tf_config_is_one():
    (line,) = [line for line in COMMANDS if line.startswith("export TF_CONFIG=")]
    (word,) = shlex.split(line)[1:]
    config = json.loads(word.partition("=")[2])
    assert config["task"] == {"type": "worker", "index": 0}
    assert len(config["cluster"]["worker"]) == 2


# ---- the commands run


def fill(folder: pathlib.Path) -> None:
    """The scripts, and what the user brings."""
    (folder / "docs").mkdir()
    for name in ("street.jpg", "street.csv"):
        shutil.copy(ROOT / "docs" / name, folder / "docs")
    for name in ("scripts", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train_main.py", "eval_main.py"):
        shutil.copy(ROOT / name, folder)
    image = cv2.resize(draw_person(1, "validation", 0, MPII)[0], (440, 484))[..., ::-1]
    (folder / "holiday").mkdir()
    for name in ("street.jpg", "holiday/beach.jpg"):
        cv2.imwrite(str(folder / name), image)
    film = cv2.VideoWriter(
        str(folder / "walk.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 12, (440, 484)
    )
    for k in range(12):
        film.write(np.roll(image, k, 1))
    film.release()
    rows = [f"{name},60,40,300,420" for name in ("street.jpg", "holiday/beach.jpg", "walk.mp4")]
    (folder / "people.csv").write_text("\n".join(rows))
    toys = pathlib.Path(draw_toys(folder / "toys"))
    toys.rename(folder / "mine.json")
    (folder / "toys" / "images").rename(folder / "pictures")
    tompson(folder / "detections_our_format.mat", joints_of(12))
    scipy.io.savemat(folder / "preds.mat", {"preds": joints_of(12)})


class Tree:
    """A folder in which the commands of ``RUN`` run in their order, each once."""

    def __init__(self, folder: pathlib.Path, fork_script):
        self.folder, self.fork_script, self.done = folder, fork_script, {}
        fill(folder)
        # In place of make demo: the same two folders, of the three commands.
        for link, target in zip(MADE_BY_MAKE_DEMO, ("records", "hg_s2")):
            (folder / link).parent.mkdir()
            (folder / link).symlink_to(target)

    def answer(self, line: str) -> dict:
        """What a command of ``RUN`` answered, after those before it."""
        for one, small in RUN.items():
            if one not in self.done and (RUN[line].long or not small.long):
                words = [*words_of(one), *shlex.split(small.words)]
                self.done[one] = self.fork_script(self.folder, *words)
            if one == line:
                return self.done[one]
        raise KeyError(line)

    def after(self, beginning: str) -> pathlib.Path:
        """The folder once the command that starts so has run."""
        (line,) = [line for line in RUN if line.startswith(beginning)]
        assert self.answer(line)["code"] == 0
        return self.folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory, fork_script):
    return Tree(tmp_path_factory.mktemp("home"), fork_script)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [pytest.param(line, marks=[pytest.mark.fire] * small.long) for line, small in RUN.items()],
)
def test_command(tree, line):
    answer = tree.answer(line)
    both = answer["output"] + answer["errors"]
    assert answer["code"] == 0 and "Traceback" not in both, both
    for text in RUN[line].output:
        assert text in both
    for name in RUN[line].writes:
        assert (tree.folder / name).stat().st_size > 0, name
    assert not list(tree.folder.rglob("*.partial"))


@pytest.mark.slow
def test_what_the_three_commands_leave(tree):
    run = tree.after("python eval_main.py --flagfile=configs/hg_s2") / "runs" / "hg_s2"
    names = {path.name for path in run.iterdir()}
    assert {"best", "checkpoints", "logs", "flags.txt", "model.json", "validated.json"} <= names
    results = json.loads((run / "results.json").read_text())
    assert set(results["PCKh@0.5"]) >= {"head", "mean14", "weighted14", "pooled16"}
    info = json.loads((tree.folder / "data" / "records" / "dataset.json").read_text())
    people = info["splits"]["validation"]["people"]
    assert results["people"] == people > 0
    assert scipy.io.loadmat(run / "predictions.mat")["preds"].shape == (people, 16, 2)
    assert cv2.imread(str(run / "predictions.png")) is not None


@pytest.mark.slow
@pytest.mark.fire
def test_two_replicas_write_one_log(tree):
    two = "python train_main.py --flagfile=configs/demo.flags --workdir=runs/two"
    run = tree.after(two) / "runs" / "two"
    names = {path.name for path in run.iterdir()}
    assert names == {"best", "checkpoints", "logs", "flags.txt", "model.json", "validated.json"}
    assert len(list((run / "logs").glob("events.out.tfevents.*"))) == 1


@pytest.mark.slow
def test_snippet(tree, fork_script):
    folder = tree.after("python eval_main.py --flagfile=configs/hg_s2")
    see = "print(poses[0][0].joints.shape, poses[0][0].confidence.shape)\n"
    (folder / "snippet.py").write_text(SNIPPETS[0] + see)
    answer = fork_script(folder, "snippet.py")
    assert answer["code"] == 0 and answer["output"] == "(14, 2) (14,)\n", answer


@pytest.mark.slow
def test_the_request_that_is_sent(tree):
    """What the shell makes of it is what the exported signature takes."""
    folder = tree.after("python scripts/export.py --checkpoint=runs/demo")
    (line,) = [line for line in COMMANDS if line.startswith("echo '{")]
    echo, curl = line.rsplit("|", 1)
    assert "curl -d @- " in curl and curl.endswith("/v1/models/pose:predict")
    sent = subprocess.run(["bash", "-c", echo], cwd=folder, capture_output=True, check=True).stdout
    request = json.loads(sent)
    images = [base64.b64decode(image["b64"]) for image in request["inputs"].pop("images")]
    signature = tf.saved_model.load(str(folder / "exports/pose/1")).signatures[
        request["signature_name"]
    ]
    inputs = {name: tf.constant(value, tf.float32) for name, value in request["inputs"].items()}
    predicted = signature(images=tf.constant(images), **inputs)
    assert predicted["joints"].shape == (1, 16, 2) and predicted["confidences"].shape == (1, 16)


@pytest.mark.slow
def test_tensorboard_shows_the_runs(tree):
    folder = tree.after("python train_main.py --flagfile=configs/hg_s2")
    program = str(pathlib.Path(sys.executable).with_name("tensorboard"))
    words = shlex.split("tensorboard --logdir runs --port=0")[1:]
    process = subprocess.Popen(
        [program, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        line = next(line for line in process.stderr if "http://" in line)
        url, runs, end = re.search(r"http://\S+", line)[0], [], time.monotonic() + 120
        while "hg_s2/logs" not in runs and time.monotonic() < end:
            with urllib.request.urlopen(f"{url}data/runs", timeout=60) as answer:
                runs = json.load(answer)
            time.sleep(0.2)
        assert "hg_s2/logs" in runs
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.slow
def test_mpiis_test_set(tree, tmp_path, fork_script):
    """The original .mat where README wants it: converted, predicted, handed in."""
    home = tree.after("python train_main.py --flagfile=configs/hg_s2")
    for name in ("scripts", "eval_main.py"):
        (tmp_path / name).symlink_to(home / name)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "hg_s2").symlink_to(home / "runs" / "hg_s2")
    (tmp_path / "data" / "mpii" / "images").mkdir(parents=True)
    for name in "ab":
        shutil.copy(home / "street.jpg", tmp_path / "data" / "mpii" / "images" / f"{name}.jpg")
    trained = annorect_of({1: [(200, 240), 1.5, [(200 + j, 240 - j, 1) for j in range(16)]]})
    tested = people(person((200, 240)), person((120, 200)))
    release = write_mat(
        tmp_path / "mpii_human_pose_v1_u12_1.mat",
        [("a.jpg", 1, trained), ("b.jpg", 0, tested)],
        single=[EMPTY, np.array([[1, 2]])],
    )
    shutil.copy(release, tmp_path / "data" / "mpii")
    lines = {
        "python scripts/make_tfrecords.py": "--workers=1 --side=64",
        "python eval_main.py --checkpoint=runs/hg_s2 --workdir=runs/test --split=test": "",
        "python scripts/make_submission.py --annotations=mpii_human_pose_v1_u12_1.mat "
        "--predictions=runs/test/predictions.json": "",
    }
    for line, more in lines.items():
        assert line in COMMANDS
        answer = fork_script(tmp_path, *words_of(line), *more.split())
        assert answer["code"] == 0, answer
    assert "2 people in 1 photographs -> pred_keypoints_mpii.mat" in answer["output"]
    assert scipy.io.loadmat(tmp_path / "pred_keypoints_mpii.mat")["pred"].shape == (1, 1)
