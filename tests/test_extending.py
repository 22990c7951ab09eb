"""docs/extending.md: each of its patches, applied to a copy of the project, and used."""

import csv
import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hourglass.skeleton import MPII
from pipelines import checkpoints
from pipelines.data import augmentation
from pipelines.data.annotations import MISSING
from tests.helpers.people import draw_person
from tests.helpers.processes import ROOT, start_python

PARTS = ("hourglass", "pipelines", "scripts", "configs", "train_main.py", "eval_main.py")
SMALL = (
    *("--channels=8", "--size=32", "--global_batch_size=8", "--steps=4", "--log_every=2"),
    *("--evaluate_every=100", "--evaluation_batch_size=4", "--strategy=one", "--workdir=run"),
)


def patches() -> dict[str, str]:
    """Patches of the page by their heading's first words."""
    text = (ROOT / "docs" / "extending.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    by_name = {}
    for section in sections:
        (patch,) = re.findall(r"^    --- .*\n(?:    .*\n)+", section, re.MULTILINE)
        by_name[section.split(":")[0]] = re.sub("^    ", "", patch, flags=re.MULTILINE)
    return by_name


def test_every_patch_fits_the_code_as_it_is():
    """Fast, so that whoever changes a line that a patch shows sees it at once."""
    for name, patch in patches().items():
        command = ["git", "apply", "--check", "-"]
        done = subprocess.run(command, cwd=ROOT, input=patch, capture_output=True, text=True)
        assert done.returncode == 0, (name, done.stderr)


@pytest.fixture
def extended(tmp_path):
    """A function that copies the project with one patch, and runs Python there."""

    def extend(name: str):
        copy = tmp_path / "project"
        for part in PARTS:
            source = ROOT / part
            copied = shutil.copytree if source.is_dir() else shutil.copy
            copy.mkdir(exist_ok=True)
            copied(source, copy / part)
        command = ["git", "apply", "--verbose", "-"]
        done = subprocess.run(
            command, cwd=copy, input=patches()[name], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

        def run(*words: str) -> str:
            process = start_python(*words, cwd=copy, path=copy)
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
            return output

        return copy, run

    return extend


# Draws of 64 examples and a batch of white pictures, by the project that is on the path.
DRAW = """
import sys
import numpy as np, tensorflow as tf
from pipelines.data import augmentation
index = tf.range(64, dtype=tf.int64)
kind = augmentation.AUGMENTATIONS[sys.argv[1]]
draws = augmentation.draw(kind, 3, index, 64)
white = augmentation.change_pixels(tf.ones([64, 40, 40, 3]), draws)
np.savez(sys.argv[2], white=white, **draws)
"""


@pytest.mark.slow
@pytest.mark.fire
def test_an_augmentation(extended, info):
    copy, run = extended("An augmentation")
    run("-c", DRAW, "newell", "newell.npz")
    index = tf.range(64, dtype=tf.int64)
    before = augmentation.draw(augmentation.AUGMENTATIONS["newell"], 3, index, 64)
    after = np.load(copy / "newell.npz")
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, err_msg="another transform's draws")
    assert not after["patch"].any()
    run("-c", DRAW, "patches", "patches.npz")
    patched = np.load(copy / "patches.npz")
    covered = (patched["white"] == 0.5).all(-1)
    assert 20 < covered.any((1, 2)).sum() < 44  # of 64, half
    assert not (covered.any((1, 2)) & ~patched["patch"].any(1)).any()
    assert covered.mean((1, 2)).max() <= 0.4**2 + 0.02
    output = run(
        "train_main.py", *SMALL, "--depth=1", f"--records={info.folder}", "--augmentation=patches"
    )
    assert "step 4 of 4" in output and "1 trace" in output


@pytest.mark.slow
@pytest.mark.fire
def test_a_data_set(extended):
    copy, run = extended("A data set")
    (copy / "mine" / "images").mkdir(parents=True)
    with open(copy / "mine" / "people.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["image", "split", *(f"{name}_{axis}" for name in MPII.joints for axis in "xy")]
        )
        for k in range(12):
            split = "validation" if k >= 8 else "train"
            image, who = draw_person(k, split, k, MPII)
            cv2.imwrite(str(copy / "mine" / "images" / f"{k}.jpg"), image[..., ::-1])
            known = (who.state != MISSING) if k else np.arange(16) == 0
            cells = np.where(known[:, None], who.joints.round(2).astype(str), "")
            table.writerow([f"{k}.jpg", split, *cells.ravel()])
    output = run(
        *("scripts/make_tfrecords.py", "--dataset=csv", "--annotations=mine/people.csv"),
        *("--records=data/mine", "--side=64"),
    )
    assert "fewer than 2 joints" in output
    written = json.loads((copy / "data" / "mine" / "dataset.json").read_text())
    assert {split: part["people"] for split, part in written["splits"].items()} == {
        "train": 7,
        "validation": 4,
    }
    assert written["joints"] == list(MPII.joints)
    output = run("train_main.py", *SMALL, "--depth=1", "--records=data/mine", "--steps=1")
    assert "step 1 of 1" in output and "validation mean14" in output


@pytest.mark.slow
@pytest.mark.fire
def test_a_network_whose_validation_is_recalibrated(extended, info):
    copy, run = extended("A network")
    words = (*SMALL, f"--records={info.folder}", "--precise_bn_examples=24")
    output = run("train_main.py", *words, "--network=simple_baseline")
    assert "step 4 of 4" in output and "1 trace" in output
    events = EventAccumulator(str(copy / "run" / "logs"), {"tensors": 0}).Reload()
    for kind in ("raw", "averaged"):
        (stale,) = events.Tensors(f"validation {kind}/batch_norm_staleness")
        assert tf.make_ndarray(stale.tensor_proto) > 0.1
    best = checkpoints.values(checkpoints.find(str(copy / "run" / "best")), "model")
    passing = checkpoints.values(str(copy / "run" / "checkpoints" / "ckpt-4"), "model")
    moved = {n for n in best if not np.array_equal(best[n], passing[n])}
    assert moved == {n for n in best if "moving_" in n} and len(moved) == 8
    scored = run("eval_main.py", *words, "--network=simple_baseline")
    assert "mean14" in scored
    run(
        *("scripts/export.py", "--checkpoint=run", f"--records={info.folder}", "--format=frozen"),
        "--output=exported.pb",
    )
