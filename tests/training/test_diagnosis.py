"""The alarm: what is to blame for a validation that fell, from numbers and in whole runs."""

import dataclasses
import math
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipelines import config
from pipelines.training import diagnosis
from pipelines.training.diagnosis import Evidence, Validation
from tests.helpers.forked import ROOT
from tests.helpers.people import tiny

BEST = Validation(300, 57.0, training_loss=0.010, training_mean14=50.0)
NOW = Validation(400, 23.0, training_loss=0.009, training_mean14=52.0)
# Moving averages were validated; recomputed statistics score no better: the data are left.
BASE = Evidence(BEST, NOW, {"raw": 21.0, "averaged": 23.0}, False, other=24.0, staleness=7.5)


def now(**changes) -> Validation:
    return dataclasses.replace(NOW, **changes)


LOW = dataclasses.replace(BEST, training_mean14=20.0)

CASES = {
    "moving averages": [
        {"other": 56.8},
        {"other": 40.0},  # half of the 34 points
        {"other": 56.8, "means": {"raw": 23.0}},  # --ema_decay=0
        {"other": 56.8, "now": now(training_mean14=20.0)},
        {"other": 56.8, "now": now(training_loss=math.nan, training_mean14=math.nan)},
    ],
    "recomputed statistics": [{"recomputed": True, "other": 50.0}],
    "restless weights": [
        {"means": {"raw": 19.0, "averaged": 23.0}},
        {"means": {"raw": 5.0, "averaged": 23.0}, "recomputed": True},
    ],
    "worse weights": [
        {"now": now(training_mean14=46.9)},
        {"now": now(training_mean14=46.9), "other": math.nan},
    ],
    "data": [
        {},
        {"other": 39.9},
        {"best": LOW, "now": now(training_mean14=26.1)},
        {"now": now(training_mean14=47.1)},
        {"other": math.nan},
    ],
    "noisy weights": [
        {"best": LOW, "now": now(training_mean14=25.9)},
        {"best": LOW, "now": now(training_mean14=17.1), "other": math.nan},
    ],
    "unknown": [
        {"now": now(training_mean14=math.nan)},
        {"best": dataclasses.replace(BEST, training_mean14=math.nan)},
        {"now": now(training_mean14=math.nan), "other": math.nan},
    ],
}


@pytest.mark.parametrize(
    "expected, changes", [(name, changes) for name, cases in CASES.items() for changes in cases]
)
def test_verdicts(expected, changes):
    evidence = dataclasses.replace(BASE, **changes)
    assert diagnosis.verdict(evidence) == expected
    text = diagnosis.sentence(evidence, 1000)
    assert "34.0 points below the best so far (57.0 at step 300, 23.0 now)" in text
    assert "nan" not in text and "{" not in text


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"other": 56.8}, ("not the weights", "score 56.8", "7.5 standard", "_examples=1000:")),
        ({"other": 56.8, "recomputed": True}, ("recomputed statistics", "larger --precise_bn")),
        (
            {"now": now(training_mean14=20.0)},
            ("from 50.0 to 20.0", "(24.0)", "Lower --learning_rate"),
        ),
        ({"means": {"raw": 9.0, "averaged": 23.0}}, ("ones score 9.0", "average 23.0", "--init_")),
        ({}, ("50.0 then, 52.0 now", "(24.0)", "more people", "weights of step 300")),
        ({}, ("training loss did not rise (0.01 then, 0.009)",)),
        ({"now": now(training_loss=math.nan)}, ("23.0 now). To blame",)),
    ],
)
def test_sentences(changes, words):
    text = diagnosis.sentence(dataclasses.replace(BASE, **changes), 1000)
    for word in words:
        assert word in text, text


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, True),
        ({"mean14": 54.1}, False),
        ({"mean14": 53.9}, True),
        ({"mean14": 60.0}, False),
        ({"mean14": math.nan}, False),
        ({"training_loss": 0.0104}, True),
        ({"training_loss": 0.0106}, False),
        ({"training_loss": math.nan}, True),
    ],
)
def test_when_a_reason_is_needed(changes, expected):
    assert diagnosis.needs_a_reason(BEST, now(**changes)) is expected


END, RESUMED = 180, 168  # steps
RUN = {
    "steps": END,
    "evaluate_every": RESUMED / 3,
    "max_checkpoints": 5,
    "log_every": 60,
    "learning_rate": 5e-3,
    "lr_schedule": "cosine",
    "augmentation": "none",
    "ema_decay": 0.0,
    "bn_momentum": 0.999,  # of the averages' start 83 % are left in the end
    "precise_bn_examples": 24,
    "deterministic": True,
}


def state_of(checkpoint: pathlib.Path) -> dict:
    reader = tf.train.load_checkpoint(str(checkpoint))
    names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    return {name: reader.get_tensor(name) for name in names if "save_counter" not in name}


@pytest.mark.slow
def test_a_run_that_collapses_says_so_once_and_trains_on_unchanged(tmp_path, info, fork_script):
    """Its end is repeated with moving averages, which lag behind: momentum 0.999."""

    def train(**changes) -> str:
        changed = tiny(tmp_path / "run", info, **{**RUN, **changes})
        flagfile = tmp_path / "run.flags"
        flagfile.write_text(config.to_flagfile(changed))
        answer = fork_script(ROOT, "train_main.py", f"--flagfile={flagfile}")
        assert answer["code"] == 0, answer
        return answer["output"] + answer["errors"]

    healthy = train()
    assert healthy.count("validation mean14") == 2 and "To blame" not in healthy
    folder = tmp_path / "run" / "checkpoints"
    expected = state_of(folder / f"ckpt-{END}")
    for file in folder.glob("ckpt-*"):
        if int(file.stem.split("-")[1].split(".")[0]) > RESUMED:
            file.unlink()

    collapsed = train(precise_bn_examples=0, evaluate_every=2.0)
    assert f"from step {RESUMED} " in collapsed
    assert collapsed.count("validation mean14") == 2 and collapsed.count("To blame") == 1
    (line,) = [line for line in collapsed.splitlines() if "To blame" in line]
    assert f"step {RESUMED + 6}: validation is " in line
    assert "To blame are batch norm's statistics, not the weights" in line
    assert "--precise_bn_examples=1000" in line
    got = state_of(folder / f"ckpt-{END}")
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    events = EventAccumulator(os.path.join(tmp_path, "run", "logs"), {"tensors": 0}).Reload()
    (text,) = events.Tensors("validation/diagnosis")
    assert tf.make_ndarray(text.tensor_proto).item().decode() in line
