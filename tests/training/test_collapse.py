"""The collapse study: its runs, its scorings, what its table says, and the command whole."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import tensorflow as tf

from hourglass import model, optimizer
from pipelines import config
from pipelines.config import Config
from pipelines.training import collapse, collapse_report
from tests.helpers.forked import ROOT
from tests.helpers.people import tiny


def recipe(name: str) -> Config:
    return config.from_flagfile((ROOT / "configs" / "collapse" / f"{name}.flags").read_text())


THEIRS, OURS = recipe("predecessor"), recipe("ours")


def differing(one: Config, other: Config) -> set[str]:
    return {
        field.name
        for field in dataclasses.fields(Config)
        if getattr(one, field.name) != getattr(other, field.name)
    }


class TestVariants:
    named = collapse.variants(THEIRS, OURS)

    def test_the_choices_are_all_that_differs(self):
        chosen = {name for fields in collapse.CHOICES.values() for name in fields}
        assert chosen == differing(THEIRS, OURS) - {"workdir", "precise_bn_examples"}

    @pytest.mark.parametrize("choice", collapse.CHOICES)
    def test_one_choice_at_a_time(self, choice):
        for name, base, source in (
            (f"ours with their {choice}", "ours", "predecessor"),
            (f"predecessor with our {choice}", "predecessor", "ours"),
        ):
            one, from_, whole = self.named[name], self.named[base], self.named[source]
            fields = differing(one.config, from_.config)
            assert fields == set(collapse.CHOICES[choice])
            assert all(getattr(one.config, f) == getattr(whole.config, f) for f in fields)
            changes_state = choice == "optimizer state on resuming"
            assert one.forgets == (from_.forgets ^ changes_state)

    def test_their_rate_is_constant(self):
        assert (THEIRS.learning_rate, THEIRS.lr_schedule, THEIRS.lr_milestones) == (
            5e-4,
            "step",
            "",
        )

    def test_folders_and_lengths(self):
        runs = collapse.placed(self.named, "records", "out", 48)
        assert len({one.config.workdir for one in runs.values()}) == len(runs)
        assert {one.config.steps for one in runs.values()} == {48}
        assert {one.config.precise_bn_examples for one in runs.values()} == {500}
        without = dataclasses.replace(THEIRS, ema_decay=0.0)
        with pytest.raises(ValueError, match="set --ema_decay in both"):
            collapse.placed(collapse.variants(without, OURS), "records", "out", 48)


def test_the_length_of_runs_by_a_short_one():
    """A step takes 0.1 s; compilation and evaluations 50 s, which each run has."""
    seconds = [31.0, *[1.0] * 11]
    assert collapse.fitting_steps(seconds, 62.0, 10, 170.0) == 1200
    assert collapse.fitting_steps(seconds, 62.0, 10, 20.0) == 24


def test_forgetting_clears_the_slots_alone():
    chosen, variable = optimizer.build("rmsprop", lambda: 0.1), tf.Variable([1.0, 2.0])
    chosen.apply_gradients([(tf.constant([3.0, 4.0]), variable)])
    before = variable.numpy()
    assert np.abs(chosen.get_slot(variable, "rms")).min() > 0
    collapse._forget(chosen)
    np.testing.assert_array_equal(chosen.get_slot(variable, "rms"), [0, 0])
    np.testing.assert_array_equal(variable, before)
    assert int(chosen.iterations) == 1


def test_the_batch_s_own_statistics_are_used_and_not_kept():
    network = model.build(joints=3, stacks=1, channels=8, depth=1, size=16)
    images = 3 + tf.random.stateless_normal([4, 16, 16, 3], [0, 1])
    before = [v.numpy() for v in network.non_trainable_variables]
    with_own = tf.function(collapse._OfBatch(network))(images, training=False)[-1].numpy()
    for variable, value in zip(network.non_trainable_variables, before):
        np.testing.assert_array_equal(variable, value)
    assert np.abs(network(images, training=False)[-1] - with_own).max() > 0.01
    np.testing.assert_allclose(network(images, training=True)[-1], with_own, atol=1e-4)
    assert np.abs(network.non_trainable_variables[0] - before[0]).max() > 0


def records(*moving: float, recomputed: float = 60.0) -> list[dict]:
    others = {"staleness": 2.0, "gradient_norm": 0.5, "update": 0.01}
    return [
        {
            "step": 10 * (k + 1),
            "moving averages": score,
            "the batch's own": recomputed,
            "recomputed": recomputed,
            "recomputed, averaged weights": recomputed,
            **others,
        }
        for k, score in enumerate(moving)
    ]


class TestReport:
    RUNS = {
        "predecessor": records(30.0, 50.0, 20.0, 40.0, 15.0),
        "ours": records(30.0, 50.0, 48.0, 55.0, 54.0),
        "ours with their learning rate": records(30.0, 20.0, 50.0, 53.0, 55.0),
        "ours with their batch norm": records(30.0, 50.0, 47.5, 53.0, 55.0),
        "predecessor with our learning rate": records(30.0, 29.0, 50.0, 53.0, 55.0),
        "predecessor with our RMSprop": records(30.0, 29.0, 50.0, 20.0, 55.0),
        "ours with seed 1": records(30.0, 1.0, 50.0, 53.0, 55.0),
    }

    @pytest.mark.parametrize(
        "scores, expected", [((1, 2, 3), 0), ((50, 20, 60, 55), 30), ((9, 5, 7, 1), 8), ((4,), 0)]
    )
    def test_the_deepest_drop_below_the_best_before(self, scores, expected):
        assert collapse_report.drop(records(*scores), "moving averages") == expected

    def test_the_largest_gap_of_the_moving_averages_after_the_start(self):
        assert collapse_report.gap(records(0, 0, 59, 53, 58, recomputed=60.0)) == 7
        assert collapse_report.gap(records(0, 0, 61, recomputed=60.0)) == -1
        assert collapse_report.gap(records(0, 0)) == 0

    def test_table_and_findings(self):
        text = collapse_report.table(self.RUNS)
        (row,) = [line for line in text.splitlines() if line.startswith("| predecessor |")]
        assert "| 50 | 50.0 / 35.0 / 15.0 | 60.0 / 0.0 / 60.0 |" in row
        assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
        assert "ours drops by 2.0 points." in text
        assert "more than 3: ours with their learning rate (10.0)." in text
        cures = "predecessor with our learning rate (1.0), its weights scored by: the batch's own"
        assert f"prevents it: {cures} (0.0), " in text and "our RMSprop (" not in text

    def test_without_a_collapse_nothing_is_claimed(self):
        calm = {"predecessor": records(30.0, 50.0, 49.0), "ours": records(30.0, 50.0)}
        text = collapse_report.table(calm)
        assert "drops by 1.0 points only: the collapse does not appear" in text
        assert "causes" not in text and "prevents" not in text

    def test_picture(self):
        png = collapse_report.picture(self.RUNS)
        picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[1] > 1500 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


@pytest.mark.slow
@pytest.mark.fire
def test_the_command_is_resumed_and_reports(tmp_path, info, fork_script):
    settings = dict(stacks=1, precise_bn_examples=24, flip=False, evaluation_batch_size=4)
    for name, changes in (("theirs", {"occluded": "zero", "bn_momentum": 0.99}), ("ours", {})):
        text = config.to_flagfile(tiny(tmp_path, info, **settings, **changes))
        (tmp_path / f"{name}.flags").write_text(text)
    flags = [f"--{name}={tmp_path}/{name}.flags" for name in ("theirs", "ours")]
    flags += [f"--records={info.folder}", f"--output={tmp_path}/out", "--runs=predecessor"]

    def study(*words: str) -> dict:
        return fork_script(ROOT, "scripts/collapse_study.py", *flags, *words)

    assert "--steps=25 must be a multiple of 12" in study("--steps=25")["errors"]
    answer = study("--steps=24")
    assert (
        answer["code"] == 0 and "predecessor: mean14 PCKh@0.5 at the end moving" in answer["output"]
    )
    run, table = tmp_path / "out" / "predecessor", tmp_path / "out" / "table.md"
    scores = json.loads((run / "scores.json").read_text())
    assert [one["step"] for one in scores] == list(range(2, 25, 2))
    assert all(one["staleness"] > 0.1 and 0 < one["update"] < 1 for one in scores)
    assert "| predecessor | 24 | " in table.read_text()
    assert (tmp_path / "out" / "curves.png").stat().st_size > 5000

    # Stopped after the 11th evaluation, in the middle of writing the 12th.
    for file in (run / "checkpoints").glob("ckpt-24.*"):
        file.unlink()
    (run / "scores.json").write_text(json.dumps(scores[:11]))
    table.unlink()
    assert study("--steps=24")["code"] == 0
    again = json.loads((run / "scores.json").read_text())
    assert again[:11] == scores[:11] and again[11]["step"] == 24 and len(again) == 12
    assert again[11]["loss"] == pytest.approx(scores[11]["loss"], rel=1e-3)
    assert table.exists()
