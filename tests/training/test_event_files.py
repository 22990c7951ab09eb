"""Validation curves read from real event files and plotted."""

import os
import pathlib
import resource

import cv2
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

from pipelines.training import event_files, summaries
from tests.helpers.forked import ROOT

CURVE = {"raw": [(100, 10.0), (200, 50.0), (300, 45.5)], "averaged": [(100, 5.0), (300, 60.25)]}


def write_run(folder, curve):
    writer = tf.summary.create_file_writer(str(folder / "logs"))
    for weights, points in curve.items():
        for step, percent in points:
            summaries.write_validation(writer, step, weights, {"PCKh@0.5": {"mean14": percent}})
    writer.close()
    return str(folder)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "first", CURVE)


def test_curves_come_back(run):
    curves = event_files.read_validation(run)
    assert set(curves) == {"raw", "averaged"}
    for weights, points in CURVE.items():
        np.testing.assert_allclose(np.stack(curves[weights], -1), points)


def test_a_resumed_run_has_one_curve(run):
    """Step 300 a second time, after a resume, in a second event file; then further steps."""
    resumed = tf.summary.create_file_writer(
        str(pathlib.Path(run, "logs")), filename_suffix=".resumed"
    )
    for step, percent in ((300, 46.0), (400, 70.0)):
        summaries.write_validation(resumed, step, "raw", {"PCKh@0.5": {"mean14": percent}})
    resumed.close()
    steps, percent = event_files.read_validation(run)["raw"]
    assert steps.tolist() == [100, 200, 300, 400]
    assert percent.tolist() == [10, 50, 46, 70]


def test_a_damaged_file_is_named(run, capsys):
    """TensorBoard's reader ends where the damage is; a curve that ends early looks whole."""
    (path,) = pathlib.Path(run, "logs").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    steps, _ = event_files.read_validation(run)["raw"]
    assert len(steps) < 3
    assert f"{path} is damaged after " in capsys.readouterr().err
    path.write_bytes(b"{}")
    with pytest.raises(ValueError, match="has no validation .*damaged after 0 events"):
        event_files.read_validation(run)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="fifo, device or socket, not a file"):
        event_files.read_validation(run)


def test_a_run_begun_by_an_earlier_version(run):
    """Its tags had other names; the later value of a step counts here too."""
    earlier = tf.summary.create_file_writer(str(pathlib.Path(run, "logs")), filename_suffix=".old")
    for step, percent in ((50, 3.0), (100, 9.0)):
        with earlier.as_default(step=step):
            tf.summary.scalar("validation raw PCKh@0.5/mean14", percent)
    earlier.close()
    steps, percent = event_files.read_validation(run)["raw"]
    assert steps.tolist() == [50, 100, 200, 300] and percent.tolist() == [3, 10, 50, 45.5]


def test_joint_groups_and_other_measures(run):
    writer = tf.summary.create_file_writer(str(pathlib.Path(run, "logs")), filename_suffix=".more")
    results = {"PCKh@0.5": {"mean14": 1.0, "wrist": 7.0}, "AUC": {"mean14": 4.0, "wrist": 2.0}}
    summaries.write_validation(writer, 500, "averaged", results)
    writer.close()
    assert event_files.read_validation(run, "PCKh@0.5", "wrist")["averaged"][1].tolist() == [7]
    assert event_files.read_validation(run, "AUC")["averaged"][1].tolist() == [4]


@pytest.mark.parametrize("folder", ["logs", "[a]*"])
def test_what_is_written_is_read_back(tmp_path, folder):
    writer = event_files.EventFile(str(tmp_path / folder))
    for step in (5, 5, 9):
        with writer.as_default(step=step):
            tf.summary.scalar("a", step)
        writer.flush()
        writer.flush()  # nothing new
    writer.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / folder), {"tensors": 0}).Reload()
    assert events.Tags()["tensors"] == ["a"]
    assert [event.step for event in events.Tensors("a")] == [5, 5, 9]


@pytest.mark.parametrize("room", [0, 1, 40, 5000, 1 << 16])
def test_a_full_disk_is_noticed(tmp_path, room):
    """To a program, a limit of its files' sizes looks like it. TensorFlow itself says nothing."""
    writer = event_files.EventFile(str(tmp_path))
    (path,) = tmp_path.iterdir()
    noise = np.random.default_rng(0).integers(0, 256, [1, 200, 200, 3], np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, before[1]))
    try:
        with writer.as_default(step=1):
            tf.summary.image("noise", noise)
        with pytest.raises(OSError, match=f"cannot write {path}: the last events are not in it"):
            writer.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_events_that_were_dropped_in_between_are_missed(tmp_path):
    """Space comes back before the next flush: what follows is whole, but not what was before."""
    writer = event_files.EventFile(str(tmp_path))
    (path,) = tmp_path.iterdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))
    try:
        with writer.as_default(step=1):
            tf.summary.text("long", "x" * 9000)
            tf.summary.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(OSError, match="as on a full disk"):
        writer.flush()


def test_missing_runs_and_curves(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a run: no event files"):
        event_files.read_validation(str(tmp_path / "nowhere"))
    with pytest.raises(
        ValueError, match=r"no validation of AUC wrist; .*events.* hold overview/PCKh@0.5 "
    ):
        event_files.read_validation(run, "AUC", "wrist")


@pytest.mark.slow
def test_command_draws_two_runs(run, tmp_path, fork_script):
    other = write_run(tmp_path / "second", {"raw": [(50, 20.0), (150, 30.0)]})
    output = tmp_path / "folder" / "curves.png"
    done = fork_script(ROOT, "scripts/plot_runs.py", run, other, f"--output={output}")
    assert done["code"] == 0, done
    assert f"{run}, averaged: best 60.25 at step 300, last 60.25 at step 300" in done["output"]
    assert f"{run}, raw: best 50.00 at step 200, last 45.50 at step 300" in done["output"]
    assert f"{other}, raw: best 30.00 at step 150" in done["output"]
    image = cv2.imread(str(output))
    assert image.shape == (600, 960, 3)
    # Matplotlib's first two colours, blue and orange, in BGR: one for each run.
    for color in ((180, 119, 31), (14, 127, 255)):
        assert (np.abs(image.astype(int) - color).max(-1) < 12).sum() > 100


@pytest.mark.slow
def test_command_fails_with_one_sentence(run, tmp_path, fork_script):
    done = fork_script(ROOT, "scripts/plot_runs.py", run, f"--output={tmp_path / 'curves.docx'}")
    assert done["code"] == 1 and not (tmp_path / "curves.docx").exists()
    assert "must end in .png, .svg, .pdf" in done["errors"] and "Traceback" not in done["errors"]
