"""The step's modes: parts of a batch, recomputation, XLA and float16 change no result."""

import dataclasses
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from hourglass import layers, model, optimizer
from hourglass.skeleton import MPII
from pipelines import checkpoint_files, checkpoints, devices
from pipelines.config import Config
from pipelines.data import input_pipeline
from pipelines.training import train, train_step
from pipelines.training.state import create_train_state
from tests.helpers.people import tiny

# As small as a network gets that has every kind of layer; groups of two channels and more.
SMALL = {"joints": 3, "stacks": 1, "channels": 16, "depth": 1, "size": 16}


def pictures(count=4):
    return tf.random.stateless_normal([count, 16, 16, 3], [0, 1])


def step_of(network, images, **modes):
    """Losses, gradients by name and moving statistics by name after one pass in a graph."""
    before = {v.name: v.numpy() for v in network.variables}
    run = tf.function(train_step.make_gradients(network, global_batch_size=len(images), **modes))
    target = tf.random.stateless_uniform([len(images), 4, 4, 3], [2, 2])
    losses, gradients, maps = run(images, target, tf.ones([len(images), 3]), tf.constant(1.0))
    assert run.experimental_get_tracing_count() == 1
    names = [v.name for v in network.trainable_variables]
    moving = {v.name: v.numpy() for v in network.non_trainable_variables}
    for variable in network.variables:
        variable.assign(before[variable.name])
    assert maps.shape == target.shape
    return losses.numpy(), {n: g.numpy() for n, g in zip(names, gradients)}, moving


def same(one, two, tolerance=1e-5):
    """Losses, gradients and statistics to ``tolerance`` of the largest."""
    np.testing.assert_allclose(one[0], two[0], rtol=tolerance)
    for ours, theirs in zip(one[1:], two[1:]):
        assert set(ours) == set(theirs)
        largest = max((np.abs(value).max() for value in ours.values()), default=0.0)
        for name in ours:
            np.testing.assert_allclose(
                theirs[name], ours[name], atol=tolerance * largest, err_msg=name
            )


class TestUpsampling:
    def test_each_pixel_four_times_and_the_slope_their_sum(self):
        x = tf.constant(np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2))
        with tf.GradientTape() as tape:
            tape.watch(x)
            wide = layers._double(x)
        np.testing.assert_array_equal(wide, x.numpy().repeat(2, axis=1).repeat(2, axis=2))
        slope = np.random.default_rng(0).normal(size=(1, 4, 6, 2)).astype(np.float32)
        sums = slope.reshape(1, 2, 2, 3, 2, 2).sum((2, 4))
        np.testing.assert_allclose(tape.gradient(wide, x, tf.constant(slope)), sums, atol=1e-6)


class TestAccumulate:
    def test_parts_equal_the_whole_without_batch_norm(self):
        network = model.build(**SMALL, norm="group")
        whole, parts = (step_of(network, pictures(), accumulation_steps=n) for n in (1, 4))
        # A convolution of one picture rounds otherwise than one of four, and then a ReLU may flip.
        same(whole, parts, tolerance=3e-3)

    def test_batch_norm_sees_parts_and_moves_once_for_each(self):
        network = model.build(**SMALL)
        images = pictures()
        convolved = network.get_layer("stem_conv")(network.get_layer("stem_conv_pad")(images))
        halves = [convolved[:2], convolved[2:]]
        mean = 0.0
        for half in halves:
            mean = 0.9 * mean + 0.1 * np.mean(half, axis=(0, 1, 2))
        _, _, moving = step_of(network, images, accumulation_steps=2)
        np.testing.assert_allclose(moving["stem_bn/moving_mean:0"], mean, rtol=1e-4, atol=1e-6)

    def test_a_batch_that_cannot_be_divided_into_parts(self, tmp_path, info):
        wrong = tiny(tmp_path / "run", info, accumulation_steps=3)
        with pytest.raises(
            ValueError,
            match="--global_batch_size=8 .* among 1 replicas with --accumulation_steps=3",
        ):
            train.run(wrong)
        assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def networks():
    return model.build(**SMALL), model.build(**SMALL, remat=True)


class TestRemat:
    def test_the_same_variables_and_predictions(self, networks):
        plain, remat = (checkpoints.by_name(n.variables) for n in networks)
        assert set(plain) == set(remat)
        for name, variable in plain.items():
            np.testing.assert_array_equal(remat[name], variable, err_msg=name)
        for ours, theirs in zip(*(n(pictures(), training=False) for n in networks)):
            np.testing.assert_array_equal(ours, theirs)

    def test_the_same_gradients_and_statistics_moved_once(self, networks):
        """Moved twice, a statistic would lie 0.81 of the way from its start instead of 0.9."""
        plain, remat = (step_of(n, pictures()) for n in networks)
        assert len(plain[1]) == len(networks[0].trainable_variables)
        same(plain, remat)
        assert any(np.abs(v).max() > 0.01 for n, v in plain[2].items() if "moving_mean" in n)

    def test_with_parts(self, networks):
        same(*(step_of(n, pictures(), accumulation_steps=2) for n in networks))


def run_steps(strategy, info, *, count=3, loss_scale=None, sync_bn=False, norm="group", **modes):
    """Sums per step and the weights after ``count`` steps of 8 examples, as in ``train.run``."""
    build = {"joints": 16, "stacks": 1, "channels": 16, "depth": 1, "size": 32, "norm": norm}
    build |= {name: modes.pop(name) for name in ("remat", "precision") if name in modes}
    state = create_train_state(
        strategy,
        {**build, "sync_bn": sync_bn},
        lambda step: tf.constant(0.1),
        averaged=False,
    )
    with strategy.scope():
        # RMSprop would divide rounding by itself where a gradient is next to nothing.
        opt = tf.keras.optimizers.legacy.SGD(0.1)
        optimizer.create_slots(opt, state.network.trainable_variables)
        scale = optimizer.LossScale(**loss_scale) if loss_scale else None
    state = dataclasses.replace(state, optimizer=opt, loss_scale=scale)
    settings = Config(global_batch_size=8, size=32, ema_decay=0.0, seed=3, **modes)
    steps = train_step.make_train_steps(state, train.step_options(settings, MPII))
    data = input_pipeline.training(info, batch=8, seed=3)
    iterator = iter(strategy.experimental_distribute_dataset(data))
    sums = [steps(iterator, tf.constant(1)) for _ in range(count)]
    assert steps.experimental_get_tracing_count() == 1
    assert int(state.step.numpy()) == count
    weights = {n: v.numpy() for n, v in checkpoints.by_name(state.network.variables).items()}
    return [{k: v.numpy() for k, v in one.items()} for one in sums], weights, scale


def agree(one, two, rtol):
    for ours, theirs in zip(one[0], two[0]):
        np.testing.assert_allclose(theirs["losses"], ours["losses"], rtol=rtol)
        np.testing.assert_allclose(theirs["norm"], ours["norm"], rtol=rtol)


@pytest.fixture(scope="module")
def plain(info):
    return run_steps(devices.make_strategy("one"), info)


@pytest.mark.slow
class TestModesInTraining:
    @pytest.mark.fire
    def test_one_device(self, info, plain):
        """With XLA, too: on two replicas, and each mode by itself in test_modes.py."""
        modes = {"accumulation_steps": 2, "remat": True}
        agree(plain, run_steps(devices.make_strategy("one"), info, **modes), 1e-4)

    @pytest.mark.fire
    def test_two_replicas(self, info, plain, two_replicas):
        """Everything at once; parts of two examples each.

        After the first update rounding takes other sides of ReLU and pool, which processor and
        compiler decide: 0.1 % of the gradient's norm was seen.
        """
        modes = {"accumulation_steps": 2, "remat": True, "xla": True}
        two, all_modes = (run_steps(two_replicas, info, **more) for more in ({}, modes))
        agree((two[0][:1],), all_modes, 1e-5)
        agree(two, all_modes, 1e-2)
        agree((plain[0][:1],), all_modes, 1e-5)

    @pytest.mark.fire
    def test_float16_skips_overflowing_steps(self, info, plain, two_replicas):
        """A scale of 2^40 overflows float16; it is halved until the gradient fits."""
        half = {"precision": "mixed_float16", "count": 30}
        sums, weights, scale = run_steps(two_replicas, info, loss_scale={"start": 2.0**40}, **half)
        skipped = int(scale.skipped.numpy())
        assert 5 < skipped < 30 and scale.scale.numpy() == 2.0 ** (40 - skipped)
        assert [s["norm"] == 0 for s in sums] == [True] * skipped + [False] * (30 - skipped)
        assert all(np.isfinite(value).all() for value in weights.values())
        # Nothing moved: the first loss is that of float32.
        np.testing.assert_allclose(sums[0]["losses"], plain[0][0]["losses"], rtol=0.01)

    @pytest.mark.parametrize(
        "modes", [{"xla": True}, {"accumulation_steps": 2}, {"remat": True}], ids=str
    )
    def test_replicas_that_cannot_synchronise(self, info, two_replicas, modes):
        with pytest.raises(
            ValueError, match="--sync_bn on several replicas cannot be combined with"
        ):
            run_steps(two_replicas, info, norm="batch", sync_bn=True, **modes)


class TestLossScale:
    @staticmethod
    def after(scale, norms):
        """(norm reported, scale, steps skipped, updates) after each gradient norm."""
        updates = tf.Variable(0)

        @tf.function
        def guard(norm):
            return scale.guard(norm, lambda: updates.assign_add(1))

        return [
            (float(guard(tf.constant(n))), *map(float, (scale.scale, scale.skipped, updates)))
            for n in norms
        ]

    def test_doubles_after_patience_and_halves_at_once(self):
        scale = optimizer.LossScale(8.0, patience=2)
        assert self.after(scale, [3.0, 4.0, np.inf, 5.0, np.nan, 6.0, 7.0]) == [
            (3.0, 8.0, 0, 1),
            (4.0, 16.0, 0, 2),
            (0.0, 8.0, 1, 2),
            (5.0, 8.0, 1, 3),
            (0.0, 4.0, 2, 3),  # and the count of finite ones restarts
            (6.0, 4.0, 2, 4),
            (7.0, 8.0, 2, 5),
        ]

    def test_the_rule_is_that_of_keras(self):
        """The same gradients through Keras' own optimizer leave the same scales."""
        theirs = tf.keras.mixed_precision.LossScaleOptimizer(
            tf.keras.optimizers.legacy.SGD(0.0), initial_scale=8.0, dynamic_growth_steps=2
        )
        ours, weight = optimizer.LossScale(8.0, patience=2), tf.Variable(0.0)
        for norm in (1.0, np.inf, 1.0, 1.0, 1.0, 1.0, np.nan, np.inf, np.inf, np.inf, np.inf, 1.0):
            theirs.apply_gradients([(tf.constant(norm), weight)])
            ours.guard(tf.constant(norm), lambda: None)
            assert float(ours.scale) == float(theirs.loss_scale)

    def test_overflow_at_a_scale_of_one_is_reported(self):
        reported = self.after(optimizer.LossScale(2.0), [np.inf, np.inf])
        assert reported[0] == (0.0, 1.0, 1, 0)
        assert np.isinf(reported[1][0]) and reported[1][1:] == (1.0, 2, 0)


@pytest.mark.slow
class TestRun:
    def test_float16_with_a_profile_and_resumed(self, tmp_path, info, capfd):
        """Two runs of two steps each; the loss scale continues where it was."""
        config = tiny(tmp_path / "run", info, steps=4, precision="mixed_float16", ema_decay=0.0)
        half = dataclasses.replace(config, profile="1:3", evaluate_every=9.0)
        assert train.run(half) == 0
        assert "0 steps skipped for overflow in float16; the loss scale is 32768" in (
            capfd.readouterr().out
        )
        steps = profiled(pathlib.Path(config.workdir, "logs"))
        assert steps == 2
        prefix = checkpoint_files.latest(str(tmp_path / "run" / "checkpoints"))
        reader = tf.train.load_checkpoint(prefix)
        end = "/.ATTRIBUTES/VARIABLE_VALUE"
        saved = [reader.get_tensor(f"loss_scale/{n}{end}") for n in ("scale", "finite", "skipped")]
        assert saved == [2.0**15, 4, 0]
        assert train.run(half) == 0  # restores every value or fails


def profiled(logs: pathlib.Path) -> int:
    """Calls of the training step in the one profile under ``logs``, where TensorBoard looks."""
    (file,) = logs.glob("plugins/profile/*/*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    count = 0
    for plane in space.planes:
        marks = {key for key, value in plane.event_metadata.items() if value.name == "train"}
        count += sum(e.metadata_id in marks for line in plane.lines for e in line.events)
    return count


class TestLibdevice:
    """XLA for GPUs links CUDA's libdevice; a training must not find out in its first step."""

    def test_missing_is_named_before_training(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XLA_FLAGS", f"--xla_gpu_cuda_data_dir={tmp_path}/cuda")
        monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
        with pytest.raises(ValueError, match=f"in none of {tmp_path}/cuda, .*BUILD=gpu make venv"):
            devices.check_xla(["GPU"])
        devices.check_xla([])

    @pytest.mark.parametrize("folder", ["cuda", "home"])
    def test_is_found_where_xla_looks(self, tmp_path, monkeypatch, folder):
        monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to=x --xla_gpu_cuda_data_dir={tmp_path}/cuda")
        monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
        libdevice = tmp_path / folder / "nvvm" / "libdevice" / "libdevice.10.bc"
        libdevice.parent.mkdir(parents=True)
        libdevice.write_bytes(b"BC")
        devices.check_xla(["GPU"])
