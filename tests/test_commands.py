"""Trainings as a user starts them: in processes, with signals, checkpoints and exit codes."""

import os
import pathlib
import re
import signal
import subprocess
import time

import numpy as np
import pytest
import tensorflow as tf

from pipelines import checkpoint_files, config
from tests.helpers.forked import ROOT
from tests.helpers.people import tiny
from tests.helpers.processes import start_python

pytestmark = pytest.mark.slow

MAIN, EVALUATE = str(ROOT / "train_main.py"), str(ROOT / "eval_main.py")


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert "Traceback" not in output, output
    return output


@pytest.fixture
def started(tmp_path):
    """A function that makes a Run; processes left at the end are killed."""
    runs = []

    def make(name: str, flagfile: pathlib.Path) -> Run:
        runs.append(Run(tmp_path / name, flagfile))
        return runs[-1]

    yield make
    for run in runs:
        if run.process and run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


class Run:
    """A training in its own process, restarted repeatedly in one workdir."""

    def __init__(self, workdir: pathlib.Path, flagfile: pathlib.Path):
        self.words = [MAIN, f"--flagfile={flagfile}", f"--workdir={workdir}"]
        self.folder = workdir / "checkpoints"
        self.process = None

    def start(self) -> None:
        self.process = start_python(*self.words)

    @property
    def newest(self) -> int:
        """Step of the newest checkpoint; 0 without any."""
        steps = [int(path.stem.split("-")[1]) for path in self.folder.glob("ckpt-*.index")]
        return max(steps, default=0)

    def stop_after_a_checkpoint(self, number: signal.Signals) -> tuple[int, str]:
        """Start, send a signal once there is a new checkpoint; return exit code and output."""
        before, end = self.newest, time.monotonic() + 200
        self.start()
        while self.newest <= before:
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < end, "no checkpoint came"
            time.sleep(0.01)
        os.kill(self.process.pid, number)
        output = finish(self.process)
        return self.process.returncode, output


def tensors(prefix: str) -> dict:
    reader = tf.train.load_checkpoint(prefix)
    names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    return {name: reader.get_tensor(name) for name in names if "save_counter" not in name}


def test_stopped_by_every_signal_it_ends_as_if_it_had_never_stopped(tmp_path, info, started):
    """SIGTERM, SIGINT (Ctrl-C) and SIGKILL; 90 steps, a checkpoint after every third."""
    changes = dict(epochs=30.0, evaluate_every=30.0, log_every=1, deterministic=True)
    flagfile = tmp_path / "run.flags"
    flagfile.write_text(config.to_flagfile(tiny(tmp_path / "any", info, **changes)))
    whole, run = started("whole", flagfile), started("run", flagfile)
    whole.start()

    code, output = run.stop_after_a_checkpoint(signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert "SIGTERM: saving" in output and "the same command resumes" in output
    saved = int(re.search(r"step (\d+) of 90, saved as .*ckpt-\1;", output)[1])
    assert 3 <= saved == run.newest < 90

    code, output = run.stop_after_a_checkpoint(signal.SIGINT)
    assert code == 128 + signal.SIGINT
    assert f"from step {saved} " in output and "the same command resumes" in output
    assert saved < run.newest < 90

    code, _ = run.stop_after_a_checkpoint(signal.SIGKILL)
    assert code == -signal.SIGKILL
    # TensorFlow writes an index under its final name, so the newest may hold a part of it.
    left = checkpoint_files.newest_whole(str(run.folder), set_aside=False)
    step = int(left.rsplit("-", 1)[1])
    assert run.newest - step in range(7), "at most the steps since the last checkpoints are lost"
    assert all(np.isfinite(value).all() for value in tensors(left).values())

    run.start()
    output = finish(run.process)
    assert run.process.returncode == 0
    assert f"from step {step} ({left})" in output and "step 90 of 90" in output
    finish(whole.process)
    assert whole.process.returncode == 0
    expected, got = (tensors(str(one.folder / "ckpt-90")) for one in (whole, run))
    assert expected.keys() == got.keys()
    assert any("SLOT/optimizer/rms" in name for name in expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_errors_are_a_sentence_and_an_exit_code(tmp_path, info, fork_script):
    run = f"--workdir={tmp_path / 'run'}"
    words = {
        "not a flag: steps=3; flags start with --": [MAIN, run, "steps=3"],
        "flag --stacks=0: 0 is not a positive integer": [MAIN, run, "--stacks=0"],
        f"error: {tmp_path / 'run'} contains no trained network": [
            EVALUATE,
            run,
            f"--records={info.folder}",
        ],
    }
    for sentence, line in words.items():
        answer = fork_script(ROOT, *line)
        assert answer["code"] == 1 and sentence in answer["errors"], answer
        assert "Traceback" not in answer["errors"]
    assert not (tmp_path / "run").exists()
