"""Training: steps that do not depend on replicas, runs that resume exactly, and errors."""

import dataclasses
import math
import os
import pathlib
import shutil
import signal
import textwrap

import cv2
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hourglass import model
from hourglass.skeleton import LSP, MPII
from pipelines import checkpoint_files, checkpoints, cli, config, devices
from pipelines.config import Config
from pipelines.data import input_pipeline
from pipelines.training import schedule, train, train_step
from pipelines.training.progress import Log, Pace
from pipelines.training.state import create_train_state
from tests.helpers.people import tiny

ROWS = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")


def tensors(prefix: str) -> dict:
    """Everything in a checkpoint that belongs to the training's state."""
    reader = tf.train.load_checkpoint(prefix)
    names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: reader.get_tensor(name) for name in names if "save_counter" not in name}


def finite(prefix: str) -> bool:
    return all(np.isfinite(value).all() for value in tensors(prefix).values())


def copy_run(trained, tmp_path, *, until: int | None = None):
    """Config of a copy of the trained run, without the checkpoints after step ``until``."""
    old, _ = trained
    workdir = pathlib.Path(shutil.copytree(old.workdir, tmp_path / "copy"))
    for index in workdir.glob("checkpoints/ckpt-*.index"):
        if until is not None and int(index.stem.split("-")[1]) > until:
            for file in index.parent.glob(index.stem + ".*"):
                file.unlink()
    return dataclasses.replace(old, workdir=str(workdir))


class TestRun:
    def test_prints_its_end_and_traced_once(self, trained):
        assert "step 12 of 12, saved as" in trained[1]
        assert "GB: read once, kept in memory" in trained[1]
        assert trained[1].rstrip().endswith("1 trace")
        assert "step 6: validation mean14 PCKh@0.5 raw" in trained[1]
        assert "step 12: validation mean14 PCKh@0.5 raw" in trained[1]

    @pytest.mark.slow
    @pytest.mark.fire
    def test_no_source_is_converted(self, tmp_path, info, run_python):
        """AutoGraph would convert dozens of functions; compiling a small network took 1.5 times
        as long with it."""
        run = tiny(tmp_path / "run", info, precise_bn_examples=8)
        code = f"""
            import sys, numpy
            from pipelines.config import Config
            from pipelines.evaluation import evaluate
            from pipelines.inference.predictor import Predictor
            from pipelines.training import train
            train.run(Config(**{dataclasses.asdict(run)}))
            evaluate.run(Config(**{dataclasses.asdict(run)}))
            Predictor.load("{run.workdir}")([numpy.zeros([40, 30, 3], numpy.uint8)])
            print([name for name in sys.modules if "autograph_generated" in name])
        """
        assert run_python(textwrap.dedent(code)).splitlines()[-1] == "[]"

    def test_files(self, trained):
        folder = pathlib.Path(trained[0].workdir)
        names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        best = [name for name in names if name.startswith("best/ckpt-") and "index" in name]
        assert len(best) == 1
        number = best[0][len("best/ckpt-") : -len(".index")]
        files = [f"best/ckpt-{number}", *(f"checkpoints/ckpt-{n}" for n in (6, 9, 12))]
        ends = (".index", ".data-00000-of-00001")
        events = {name for name in names if name.startswith("logs/events.out.tfevents")}
        assert len(events) == 1
        assert names - events == {
            *("flags.txt", "model.json", "validated.json", "best/best.json", "best/checkpoint"),
            "checkpoints/checkpoint",  # of the four epochs the first one is pruned
            *(file + end for file in files for end in ends),
        }

    def test_flags_file_round_trips_the_config(self, trained):
        text = pathlib.Path(trained[0].workdir, "flags.txt").read_text()
        assert text == config.to_flagfile(trained[0])
        assert config.differences(text, trained[0]) == []

    def test_weights_moved_and_the_average_followed(self, trained):
        last = str(pathlib.Path(trained[0].workdir, "checkpoints", "ckpt-12"))
        raw, averaged = checkpoints.values(last, "model"), checkpoints.values(last, "averaged")
        fresh = checkpoints.by_name(
            model.build(**config.build_arguments(trained[0], MPII)).variables
        )
        name = "stack1_heatmaps.kernel"
        moved = np.abs(raw[name] - fresh[name].numpy()).max()
        assert moved > 1e-3
        # min(0.9, 11 / 20) ** 10 of the initial weights is left at step 10; two steps followed.
        assert 0 < np.abs(raw[name] - averaged[name]).max() < 0.3 * moved

    def test_a_finished_run_resumed_takes_no_steps(self, trained, tmp_path, capfd):
        copy = copy_run(trained, tmp_path)
        assert train.run(copy) == 0
        out = capfd.readouterr().out
        assert "resuming" in out and "step 12 of 12" in out and "nothing was left to do" in out


@pytest.fixture(scope="module")
def events(trained):
    return EventAccumulator(os.path.join(trained[0].workdir, "logs"), {"tensors": 0}).Reload()


class TestTensorBoard:
    def scalars(self, events, tag):
        logged = events.Tensors(tag)
        return {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in logged}

    def test_tags(self, events):
        tags = set(events.Tags()["tensors"])
        # No joint is missing in all of the 2 x 8 examples of one log, nor in validation.
        measures = [*(f"PCKh@0.5 {row}" for row in ROWS), "PCKh@0.1 mean14", "AUC mean14"]
        measures += ["PCK@0.2 torso mean14"]
        assert tags == {
            *("overview/loss", "overview/learning_rate", "overview/images_per_second"),
            *("overview/PCKh@0.5 raw", "overview/PCKh@0.5 averaged"),
            *("training/loss of stack 0", "training/loss of stack 1", "training/PCKh@0.5"),
            *("training/gradient_norm", "training/data_wait_percent"),
            *(f"validation {kind}/{m}" for kind in ("raw", "averaged") for m in measures),
            *("validation/skeletons", "validation/worst", "validation/heatmaps"),
            *("validation/thresholds", "flags"),
            *("_hparams_/experiment", "_hparams_/session_start_info"),
        }

    def test_the_first_page_shows_what_a_run_is_judged_by(self, events):
        """TensorBoard sorts groups by their names."""
        tags = events.Tags()["tensors"]
        groups = sorted({tag.split("/")[0] for tag in tags if "/" in tag and tag[0] != "_"})
        assert groups[0] == "overview"

    def test_steps_and_values(self, events):
        assert list(self.scalars(events, "overview/loss")) == [2, 4, 6, 8, 10, 12]
        assert list(self.scalars(events, "overview/PCKh@0.5 raw")) == [6, 12]
        parts = [self.scalars(events, f"training/loss of stack {k}") for k in (0, 1)]
        for step, total in self.scalars(events, "overview/loss").items():
            assert total == pytest.approx(parts[0][step] + parts[1][step])
        rates = self.scalars(events, "overview/learning_rate")
        # Drops at 0.7 * 12 = 8 and 0.9 * 12 = 11; shown is the rate of the step to come.
        expected = [2.5e-4] * 3 + [2.5e-5] * 2 + [2.5e-6]
        assert list(rates.values()) == pytest.approx(expected)
        assert all(value > 0 for value in self.scalars(events, "training/gradient_norm").values())

    def test_losses_fall(self, events):
        losses = list(self.scalars(events, "overview/loss").values())
        assert losses[-1] < losses[0]

    def test_flags(self, events, trained):
        text = tf.make_ndarray(events.Tensors("flags")[0].tensor_proto).item().decode()
        assert "--stacks=2" in text and f"--workdir={trained[0].workdir}" in text

    def test_pictures(self, events):
        kinds = {"skeletons": 1, "worst": 1, "heatmaps": 10}
        for tag, count in ((f"validation/{kind}", count) for kind, count in kinds.items()):
            for event in events.Tensors(tag):
                width, height, *pictures = tf.make_ndarray(event.tensor_proto)
                assert len(pictures) == count
                picture = cv2.imdecode(np.frombuffer(pictures[0], np.uint8), cv2.IMREAD_COLOR)
                assert picture.shape == (int(height), int(width), 3) and picture.std() > 5


class TestErrors:
    def fails(self, config, error, match):
        with pytest.raises(error, match=match):
            train.run(config)

    def test_no_records(self, tmp_path, info):
        wrong = tiny(tmp_path / "run", info, records=str(tmp_path / "nowhere"))
        self.fails(wrong, FileNotFoundError, "make_tfrecords.py --records=")

    def test_empty_split(self, tmp_path, own_records):
        only = own_records(counts={"validation": 4})
        self.fails(tiny(tmp_path / "run", only), ValueError, "no people in the split 'train'")
        assert not (tmp_path / "run").exists()

    def test_workdir_of_another_configuration(self, trained):
        other = dataclasses.replace(trained[0], channels=12, learning_rate=1e-3)
        self.fails(
            other,
            ValueError,
            "--channels: 8 there, 12 here; --learning_rate: 0.00025 there, 0.001 here.*--workdir",
        )

    def test_workdir_of_other_records(self, trained, own_records):
        other = dataclasses.replace(trained[0], records=own_records(first=500).folder)
        self.fails(other, ValueError, "was trained on other records")

    def test_truncated_shard(self, tmp_path, own_records):
        info = own_records()
        path = pathlib.Path(info.shards("train")[1])
        path.write_bytes(path.read_bytes()[:-20])
        match = f"{path.name} has .* record 7 of 8 is damaged"
        self.fails(tiny(tmp_path / "run", info), ValueError, match)
        assert not (tmp_path / "run").exists()

    def test_flipped_bit_in_a_validation_shard(self, tmp_path, own_records):
        info = own_records()
        path = pathlib.Path(info.shards("validation")[2])
        data = bytearray(path.read_bytes())
        data[10] ^= 1
        path.write_bytes(data)
        match = f"{path.name} was altered .* record 0 of 4 is damaged"
        self.fails(tiny(tmp_path / "run", info), ValueError, match)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"channels": 6}, "channels must be a multiple of 4 from 8 up, not 6"),
            ({"size": 100}, "size must be a multiple of 8 px for depth 1"),
            ({"weight_decay": 0.1}, "needs optimizer adamw"),
            ({"init_from": "/nowhere"}, "no checkpoint in /nowhere"),
            (
                {"global_batch_size": 9, "strategy": "mirrored", "logical_devices": 2},
                "--global_batch_size=9 cannot be divided equally among 2 replicas",
            ),
            ({"logical_devices": 2}, "--logical_devices needs --strategy=mirrored or auto"),
        ],
    )
    def test_invalid_flags_leave_no_files(self, tmp_path, info, changes, match):
        """Not even flags.txt, which would make the corrected command fail."""
        wrong = tiny(tmp_path / "run", info, **changes)
        self.fails(wrong, (ValueError, FileNotFoundError), match)
        assert not (tmp_path / "run").exists()

    @pytest.mark.slow
    def test_records_written_again_meanwhile(self, tmp_path, own_records, monkeypatch):
        """Noticed at the epoch's end, before what was trained on two record sets is saved."""
        info, taken = own_records(), []

        def write_others(*arguments):
            if not taken:
                taken.append(own_records(first=500))
            return take_steps(*arguments)

        take_steps = train._take_steps
        monkeypatch.setattr(train, "_take_steps", write_others)
        self.fails(tiny(tmp_path / "run", info), ValueError, "were written again while")
        assert not list((tmp_path / "run").rglob("ckpt-*"))

    @pytest.mark.slow
    def test_records_replaced_before_a_validation(self, tmp_path, own_records, monkeypatch):
        """Noticed when a shard is opened that is gone, not at the end of the epoch only."""
        info = own_records()

        def replace(*arguments):
            sums = take_steps(*arguments)
            for path in info.shards("validation"):
                os.remove(path)
            own_records("others", first=500)
            os.replace(tmp_path / "others" / "dataset.json", f"{info.folder}/dataset.json")
            return sums

        take_steps = train._take_steps
        monkeypatch.setattr(train, "_take_steps", replace)
        config = tiny(tmp_path / "run", info, evaluate_every=1 / 3)
        self.fails(config, ValueError, "were written again while")

    def test_a_deleted_flags_file_switches_no_check_off(self, trained, tmp_path):
        copy = copy_run(trained, tmp_path)
        pathlib.Path(copy.workdir, "flags.txt").unlink()
        self.fails(copy, FileNotFoundError, "flags.txt is missing, which says how")

    @pytest.mark.parametrize(
        "data", [b"", b"\x00\xff\xfe", b"stacks=2", b"--stacks=2\n--size=\0\0"]
    )
    def test_a_damaged_flags_file(self, trained, tmp_path, data):
        copy = copy_run(trained, tmp_path)
        pathlib.Path(copy.workdir, "flags.txt").write_bytes(data)
        self.fails(copy, ValueError, "flags.txt .*restore it")

    def test_a_cut_flags_file_is_named(self, trained, tmp_path):
        copy = copy_run(trained, tmp_path)
        path = pathlib.Path(copy.workdir, "flags.txt")
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:9]))
        self.fails(copy, ValueError, "another configuration, as its flags.txt tells")

    @pytest.mark.slow
    def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_resumed(
        self, trained, tmp_path, capfd
    ):
        copy = copy_run(trained, tmp_path)
        folder = pathlib.Path(copy.workdir, "checkpoints")
        data = folder / "ckpt-12.data-00000-of-00001"
        data.write_bytes(data.read_bytes()[:999])
        assert train.run(copy) == 0
        out = capfd.readouterr().out
        assert "ckpt-12 is damaged (" in out and "from step 9" in out
        assert (folder / "damaged-ckpt-12.index").exists() and data.stat().st_size > 999


class TestLengths:
    def of(self, examples=24, **changes):
        changed = dataclasses.replace(config.Config(), **changes)
        return schedule.Lengths.from_config(changed, examples)

    def test_epochs_become_steps_once(self):
        lengths = self.of(
            22_246, global_batch_size=6, epochs=100.0, warmup_epochs=0.5, evaluate_every=2.0
        )
        assert lengths.total == 370_767  # 100 * 22246 / 6 = 370766.7
        assert (lengths.epoch, lengths.evaluate, lengths.warmup) == (3708, 7416, 1854)
        assert lengths.milestones == (259_537, 333_690)

    def test_steps_replace_epochs(self):
        assert self.of(steps=7, epochs=100.0).total == 7

    def test_a_batch_larger_than_the_data(self):
        lengths = self.of(5, global_batch_size=32, epochs=1.0, evaluate_every=0.1)
        assert (lengths.total, lengths.epoch, lengths.evaluate) == (1, 1, 1)

    def test_until_stop(self):
        lengths = schedule.Lengths(total=100, epoch=10, evaluate=4, warmup=0, milestones=())
        assert lengths.until_stop(0, 50) == 4
        assert lengths.until_stop(8, 50) == 2
        assert lengths.until_stop(9, 50) == 1
        assert lengths.until_stop(20, 3) == 1
        assert lengths.until_stop(97, 50) == 3

    def test_profiled_steps_are_taken_one_at_a_time(self):
        lengths = schedule.Lengths(
            100, epoch=100, evaluate=100, warmup=0, milestones=(), profile=(10, 12)
        )
        assert [lengths.until_stop(step, 50) for step in (0, 7, 10, 11, 12)] == [10, 3, 1, 1, 38]
        assert [lengths.is_profiled(step) for step in (9, 10, 11, 12)] == [False, True, True, False]

    def test_a_profile_after_the_end(self):
        with pytest.raises(ValueError, match="--profile=7:9 begins after the training's 7 steps"):
            self.of(steps=7, profile="7:9")


class TestCheckFinite:
    def sums(self, loss=1.0, norm=1.0):
        return {"losses": np.array([0.5, loss]), "norm": np.float32(norm)}

    def test_finite(self):
        train.check_finite(self.sums(), 5, 9, None)

    @pytest.mark.parametrize(
        "bad", [{"loss": np.nan}, {"loss": np.inf}, {"norm": np.nan}, {"norm": np.inf}]
    )
    def test_not_finite(self, bad):
        with pytest.raises(FloatingPointError, match="in steps 6 to 9; .* is run/ckpt-5"):
            train.check_finite(self.sums(**bad), 5, 9, "run/ckpt-5")
        with pytest.raises(FloatingPointError, match="none yet"):
            train.check_finite(self.sums(**bad), 0, 9, None)


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_the_first_is_recorded_and_the_second_acts(self, number, capsys):
        before = signal.getsignal(number)
        with train.stop_on_signals() as received:
            os.kill(os.getpid(), number)
            assert received == [number]
            assert signal.getsignal(number) == before
        assert signal.getsignal(number) == before
        assert "saving after the current steps" in capsys.readouterr().out


class TestProgress:
    def test_pace_starts_with_one_step_and_then_fills_two_seconds(self):
        pace = Pace()
        assert pace.count(100) == 1
        pace.add(1, 30.0, 0.0)  # traces
        assert pace.count(100) == 1
        pace.add(1, 0.1, 0.05)
        assert pace.count(100) == 20
        assert pace.count(7) == 7
        pace.add(10, 0.1, 0.0)
        assert pace.count(1000) == 200

    def test_the_wait_does_not_count_the_first_call(self):
        pace = Pace()
        pace.add(1, 30.0, 29.0)
        pace.add(2, 1.0, 0.25)
        pace.add(2, 3.0, 0.15)
        assert pace.wait_percent == pytest.approx(10.0)

    def test_log_divides_sums_once(self):
        log = Log(batch=8)
        hits, counts = np.zeros(16), np.zeros(16)
        hits[9], counts[9] = 3, 4
        one = {"losses": np.array([2.0, 4.0]), "norm": 6.0, "wait": 0.5}
        for steps in (1, 3):
            log.add({**one, "hits": hits, "counts": counts}, steps, 2.0)
        scalars = log.scalars(0.1, MPII)
        assert scalars["losses"].tolist() == [1.0, 2.0]
        assert scalars["gradient_norm"] == 3.0
        assert scalars["images_per_second"] == 8.0
        assert scalars["data_wait_percent"] == 25.0
        assert scalars["PCKh"]["head"] == 75.0
        # The mean of all steps, the speed of the last call.
        assert log.line(1.5) == "loss 3, 12 images/s, data wait 1.5 %"
        assert log.line(math.nan) == "loss 3, 12 images/s, data wait not measured"


def test_errors_in_step_are_in_head_sizes():
    """A joint 8 input px away; the head is 10 image px = 5 crop px = 20 input px: error 0.4."""
    heatmaps = np.zeros((1, 16, 16, 2), np.float32)
    heatmaps[0, 5, 3] = 1  # heatmap px (3, 5) is input px (13.5, 21.5)
    batch = {
        "crop_to_image": tf.constant([[[2.0, 0, 9], [0, 2.0, 7]]], tf.float64),
        "head_size": tf.constant([10.0]),
    }
    turned = tf.constant([[[0.0, -4.0, 1.0], [4.0, 0.0, 2.0]]])
    points = tf.constant([[[13.5, 29.5], [13.5, 21.5]]])
    errors = train_step.errors_in_step(batch, turned, points, tf.constant(heatmaps))
    np.testing.assert_allclose(errors, [[0.4, 0.0]], atol=1e-6)


class TestCommand:
    def test_expected_errors_become_a_sentence(self, capsys):
        def fail():
            raise FloatingPointError("the loss is not finite")

        assert cli.answer(fail) == 1
        assert capsys.readouterr().err == "error: the loss is not finite\n"

    def test_bugs_keep_their_traceback(self):
        with pytest.raises(ZeroDivisionError):
            cli.answer(lambda: 1 // 0)

    def test_exit_codes(self):
        def interrupt():
            raise KeyboardInterrupt

        assert cli.answer(lambda: None) == 0
        assert cli.answer(lambda: 143) == 143
        assert cli.answer(interrupt) == 130


class TestDevices:
    def test_kinds(self, two_replicas):
        assert devices.make_strategy("one").num_replicas_in_sync == 1
        assert two_replicas.num_replicas_in_sync == 2

    def test_too_late(self):
        tf.zeros([])
        with pytest.raises(ValueError, match="--logical_devices=3.*fresh process"):
            devices.make_strategy("mirrored", 3)

    def test_each_part_of_a_cpu_computes_on_its_share_of_the_cores(self, fork_script, tmp_path):
        (tmp_path / "parts.py").write_text(
            "import tensorflow as tf\n"
            "from pipelines import devices\n"
            "print(devices.make_strategy('auto', 2).num_replicas_in_sync)\n"
            "print(tf.config.threading.get_intra_op_parallelism_threads())"
        )
        answer = fork_script(tmp_path, "parts.py")
        assert answer["output"].split() == ["2", f"{max(1, os.cpu_count() // 2)}"], answer

    def test_round_up(self, two_replicas):
        assert [devices.round_up(n, two_replicas) for n in (1, 2, 3)] == [2, 2, 4]


def take_steps(strategy, info, count, *, clip_norm):
    """Calls of ``count`` steps of 8 examples with AdamW, averaged with 0.5.

    Sums of each call, initial weights, AdamW's means of gradients after the first call, weights,
    and their averages.
    """
    build = {"joints": 16, "stacks": 1, "channels": 8, "depth": 1, "size": 32, "sync_bn": True}
    state = create_train_state(
        strategy,
        build,
        lambda step: tf.constant(1e-3),
        optimizer_name="adamw",
        weight_decay=0.1,
    )
    settings = Config(
        size=32, global_batch_size=8, seed=3, clip_norm=clip_norm, ema_decay=0.5, sigma=1.0
    )
    steps = train_step.make_train_steps(state, train.step_options(settings, MPII))
    network, averaged, opt, step = state.network, state.averaged, state.optimizer, state.step
    data = input_pipeline.training(info, batch=8, seed=3)
    iterator = iter(strategy.experimental_distribute_dataset(data))
    start = arrays(network.variables)
    sums = [steps(iterator, tf.constant(count[0]))]
    means = {
        name: opt.get_slot(variable, "m").numpy()
        for name, variable in checkpoints.by_name(network.trainable_variables).items()
    }
    sums += [steps(iterator, tf.constant(n)) for n in count[1:]]
    assert steps.experimental_get_tracing_count() == 1
    assert int(step.numpy()) == sum(count)
    for variable in network.trainable_variables:
        first, *others = (v.numpy() for v in strategy.experimental_local_results(variable))
        for other in others:
            np.testing.assert_array_equal(first, other)
    sums = [{key: value.numpy() for key, value in one.items()} for one in sums]
    return sums, start, means, arrays(network.variables), arrays(averaged.variables)


def arrays(variables) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in checkpoints.by_name(variables).items()}


@pytest.mark.slow
class TestReplicas:
    """Two logical replicas under MirroredStrategy with synchronised batch norm equal one."""

    CLIPPED = 0.1

    @pytest.fixture(scope="class")
    def runs(self, info, two_replicas):
        """Ten steps in three calls, the first of one step, on one device and on two."""
        strategies = devices.make_strategy("one"), two_replicas
        return [take_steps(s, info, [1, 4, 5], clip_norm=self.CLIPPED) for s in strategies]

    def test_loss_and_gradients(self, runs):
        """AdamW's mean after one step is a tenth of the gradient, which was clipped."""
        one, two = (run[0][0] for run in runs)
        for key in ("losses", "hits", "counts", "norm"):
            np.testing.assert_allclose(one[key], two[key], rtol=1e-5, err_msg=key)
        whole = 10 * max(1.0, one["norm"] / self.CLIPPED)
        gradients = [{name: whole * mean for name, mean in run[2].items()} for run in runs]
        largest = max(np.abs(value).max() for value in gradients[0].values())
        assert largest > 1e-3 and len(gradients[0]) > 100
        for name, value in gradients[0].items():
            error = np.abs(value - gradients[1][name]).max()
            assert error < 1e-5 * max(1.0, largest), (name, error)

    def test_adamw_with_clipping_and_averages(self, runs):
        """Adam divides by the gradient's size, so rounding grows: where the true gradient is 0 (a
        bias before batch norm) its sign alone moves the weight."""
        head = "stack0_heatmaps.kernel"
        for _, start, _, weights, averages in runs:
            assert np.abs(weights[head] - start[head]).max() > 5e-3
            # 0.5 ** 10 at step 10: the average has forgotten the initial weights but for 0.1 %.
            expected = weights[head] + 0.5**10 * (start[head] - weights[head])
            np.testing.assert_allclose(averages[head], expected, atol=1e-6)
        for one, two in zip(runs[0][0], runs[1][0]):
            np.testing.assert_allclose(one["losses"], two["losses"], rtol=2e-3)
        np.testing.assert_allclose(runs[0][3][head], runs[1][3][head], atol=1e-3)


@pytest.mark.slow
class TestLongRuns:
    def test_a_loss_that_is_not_finite_stops_at_the_last_good_checkpoint(self, trained, tmp_path):
        """From step 9 on with a rate of 1e30, written into the run's flags by hand."""
        copy = dataclasses.replace(
            copy_run(trained, tmp_path, until=9), learning_rate=1e30, lr_milestones=""
        )
        pathlib.Path(copy.workdir, "flags.txt").write_text(config.to_flagfile(copy))
        last = os.path.join(copy.workdir, "checkpoints", "ckpt-9")
        with pytest.raises(
            FloatingPointError, match=f"in steps 1[12] to 1[12]; .* {last}[.] Lower"
        ):
            train.run(copy)
        assert checkpoint_files.latest(os.path.dirname(last)) == last
        assert finite(last)

    @pytest.mark.parametrize("cache_gb", [0.0, 4.0])
    def test_flipped_bit_in_a_training_shard(self, tmp_path, own_records, cache_gb):
        """Named when a step needs it; records that are held at once, before anything is written."""
        info = own_records()
        path = pathlib.Path(info.shards("train")[2])
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
        match = f"{path.name} was altered .* record [34] of 8 is damaged"
        with pytest.raises(ValueError, match=match):
            train.run(tiny(tmp_path / "run", info, cache_gb=cache_gb))
        assert (tmp_path / "run").exists() == (cache_gb == 0)

    def test_fine_tuning_to_other_joints(self, trained, tmp_path, own_records, capfd):
        """Without a validation split, in bfloat16, with AdamW; LSP's 14 of MPII's joints."""
        lsp = own_records(counts={"train": 8}, skeleton=LSP)
        changes = dict(stacks=2, steps=2, optimizer="adamw", weight_decay=0.01, ema_decay=0.0)
        new = tiny(tmp_path / "run", lsp, **changes, precision="mixed_bfloat16")
        new = dataclasses.replace(new, init_from=trained[0].workdir, learning_rate=1e-6)
        assert train.run(new) == 0
        out = capfd.readouterr().out
        assert "fresh: stack0_heatmaps.bias, stack0_heatmaps.kernel, " in out
        assert "has no validation split: nothing will be validated" in out
        before = checkpoints.values(checkpoints.find(trained[0].workdir), "averaged")
        after = checkpoints.values(checkpoints.find(new.workdir), "model")
        np.testing.assert_allclose(after["stem_conv.kernel"], before["stem_conv.kernel"], atol=1e-4)
        assert after["stack0_heatmaps.kernel"].shape[-1] == 14
        assert not os.path.exists(os.path.join(new.workdir, "best"))
