"""A training that is killed, and started again by the same command, ends as if nothing had been."""

import dataclasses
import json
import os
import pathlib
import signal
import time

import numpy as np
import pytest

from pipelines.config import to_flagfile
from tests.helpers.outcomes import leftovers, of_training
from tests.helpers.people import once, tiny
from tests.helpers.processes import ROOT, start_python

pytestmark = [pytest.mark.slow, pytest.mark.fire]

# The moments of a run of 12 steps with validations after 6 and 12: where, which call, when.
VALIDATE = "pipelines.training.validator:Validator"
MOMENTS = {
    "before the first checkpoint": ("pipelines.training.run_dir:save", 1, "before"),
    "as a validation starts": (f"{VALIDATE}._validate", 1, "before"),
    "as the last validation starts": (f"{VALIDATE}._validate", 2, "before"),
    "between the scores of two kinds of weights": (
        "pipelines.training.summaries:write_validation",
        1,
        "after",
    ),
    "between best's files and its note": ("pipelines.checkpoints:write_atomically", 2, "before"),
    "between best's note and the rest": ("pipelines.checkpoint_files:remove_all_but", 1, "before"),
    "before a validation is noted": ("pipelines.training.run_dir:note_validation", 1, "before"),
    "while a checkpoint's files are renamed": (
        "tensorflow:train.CheckpointManager.save",
        2,
        "after",
    ),
}


def config_of(folder, info):
    return tiny(folder, info, deterministic=True, precise_bn_examples=8, stacks=1)


def finish(process) -> tuple[int, str]:
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, info):
    def make(folder):
        folder.mkdir()
        code, output = start(config_of(folder / "run", info))
        assert code == 0, output
        return of_training(folder / "run")

    return once(tmp_path_factory, "uninterrupted", make)


def start(config, *before: str) -> tuple[int, str]:
    flags = pathlib.Path(config.workdir).parent / "flags"
    flags.write_text(to_flagfile(config))
    return finish(start_python(*before, str(ROOT / "train_main.py"), f"--flagfile={flags}"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at(tmp_path, info, uninterrupted, moment):
    config = config_of(tmp_path / "run", info)
    code, output = start(config, "-m", "tests.fire.killed", *map(str, MOMENTS[moment]))
    assert code == -signal.SIGKILL, output
    code, output = start(config)
    assert code == 0, output
    np.testing.assert_equal(of_training(tmp_path / "run"), uninterrupted)
    assert not leftovers(tmp_path)


def test_sigterm_during_a_validation_is_answered_and_made_up_for(tmp_path, info, uninterrupted):
    config = config_of(tmp_path / "run", info)
    slow = (
        "import sys, time; from pipelines.training import train, validator\n"
        "from pipelines.config import Config; import json, os, signal\n"
        "real = validator.Validator._check_signals\n"
        "def check(self):\n"
        "    os.kill(os.getpid(), signal.SIGTERM) if not self.signals else None\n"
        "    real(self)\n"
        "validator.Validator._check_signals = check\n"
        "sys.exit(train.run(Config(**json.loads(sys.argv[1]))))\n"
    )
    code, output = finish(start_python("-c", slow, json.dumps(dataclasses.asdict(config))))
    assert code == 128 + signal.SIGTERM, output
    assert "step 6: validation stopped; the resumed run makes up for it" in output
    assert start(config)[0] == 0
    np.testing.assert_equal(of_training(tmp_path / "run"), uninterrupted)


def test_two_trainings_in_one_folder(tmp_path, info):
    config = dataclasses.replace(config_of(tmp_path / "run", info), epochs=4000.0)
    (tmp_path / "flags").write_text(to_flagfile(config))
    words = (str(ROOT / "train_main.py"), f"--flagfile={tmp_path / 'flags'}")
    with start_python(*words) as first:
        lock = pathlib.Path(config.workdir, "training.lock")
        deadline = time.monotonic() + 120
        while not lock.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        code, output = finish(start_python(*words))
        assert code == 1 and f"process {first.pid} on {os.uname().nodename}" in output
        assert "Traceback" not in output
        first.kill()
