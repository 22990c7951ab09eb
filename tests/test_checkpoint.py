"""Training state to files and back: by name, completely, and rejected if incompatible."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from hourglass import model, optimizer
from hourglass.skeleton import MPII
from pipelines import checkpoint_files, checkpoints
from pipelines.config import Config
from pipelines.training import run_dir

BUILD = {"joints": 16, "stacks": 2, "channels": 8, "depth": 1, "size": 32}


def make(averaged=True, opt="rmsprop", seed=0, **changes):
    """(state, network, averaged network, optimizer) of a tiny run."""
    arguments = {**BUILD, "seed": seed, **changes}
    network = model.build(**arguments)
    second = model.build(**arguments) if averaged else None
    chosen = optimizer.build(opt, lambda: tf.constant(1e-3))
    optimizer.create_slots(chosen, network.trainable_variables)
    step = tf.Variable(0, trainable=False, dtype=tf.int64)
    return checkpoints.state(step, network, second, chosen), network, second, chosen


def scramble(variables, seed=1):
    random = np.random.default_rng(seed)
    for variable in variables:
        variable.assign(random.normal(size=variable.shape).astype(variable.dtype.as_numpy_dtype))


def save(folder, state, number=7) -> str:
    state.step.assign(number)
    manager = tf.train.CheckpointManager(state, str(folder), 3)
    return manager.save(checkpoint_number=number)


def values_of(variables):
    return [variable.numpy() for variable in variables]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, drawn):
    """A run with one checkpoint: (folder, network's weights, averaged weights, slots)."""
    folder = tmp_path_factory.mktemp("run")
    state, network, averaged, opt = make()
    scramble(network.variables, 1), scramble(averaged.variables, 2), scramble(opt.weights[1:], 3)
    checkpoints.write_network(str(folder), BUILD, drawn[0])
    save(folder / "checkpoints", state)
    return folder, *(values_of(part) for part in (network.variables, averaged.variables)), opt


@pytest.fixture(scope="module")
def spare():
    """A state of the same shape to save or to restore into, with arbitrary values."""
    return make(seed=9)


@pytest.fixture(scope="module")
def fourteen():
    """A network of 14 joints with fresh weights; must not be modified."""
    return model.build(**{**BUILD, "joints": 14}, seed=5)


@pytest.fixture
def copied(run_folder, tmp_path):
    """The run's folder, to damage."""
    return pathlib.Path(shutil.copytree(run_folder[0], tmp_path / "run"))


class TestState:
    def test_everything_is_restored(self, run_folder, spare):
        folder, weights, averages, opt = run_folder
        state, network, averaged, fresh = spare
        checkpoints.restore(state, checkpoints.find(str(folder)))
        assert state.step.numpy() == 7
        for got, want in (
            (network.variables, weights),
            (averaged.variables, averages),
            (fresh.weights, values_of(opt.weights)),
        ):
            assert len(got) == len(want) > 10
            for variable, value in zip(got, want):
                np.testing.assert_array_equal(variable.numpy(), value)

    @pytest.mark.parametrize(
        "changes", [{"stacks": 1}, {"channels": 12}, {"averaged": False}, {"opt": "adamw"}]
    )
    def test_another_configuration_is_rejected(self, run_folder, changes):
        with pytest.raises(ValueError, match="ckpt-7 cannot be resumed"):
            checkpoints.restore(make(**changes)[0], checkpoints.find(str(run_folder[0])))

    @pytest.mark.parametrize("kind", ["index", "data-00000-of-00001"])
    @pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
    def test_damaged_files_are_named(self, copied, spare, kind, damage):
        prefix = checkpoints.find(str(copied))
        path = pathlib.Path(f"{prefix}.{kind}")
        data = bytearray(path.read_bytes())
        # Data: a byte in the middle of a weight, which only its checksum can tell.
        data[len(data) // 2] ^= 0x10
        path.write_bytes({"cut": data[: len(data) // 3], "flip": data, "empty": b""}[damage])
        with pytest.raises(ValueError, match="ckpt-7 cannot be resumed"):
            checkpoints.restore(spare[0], prefix)

    def test_the_remedy_works(self, copied, spare):
        """Deleting a damaged checkpoint's files resumes from the previous one, as stated."""
        state = spare[0]
        folder = copied / "checkpoints"
        checkpoints.restore(state, checkpoint_files.latest(str(folder)))
        newer = save(folder, state, 8)
        assert checkpoint_files.latest(str(folder)) == newer
        for path in folder.glob("ckpt-8.*"):
            path.unlink()
        assert checkpoint_files.latest(str(folder)) == str(folder / "ckpt-7")

    @pytest.mark.parametrize("text", [None, "", "model_checkpoint_path: ???"])
    def test_the_files_decide_not_their_list(self, copied, text):
        folder = copied / "checkpoints"
        for number in (9, 10):  # 10 comes after 9, though "10" sorts before it
            copy_step(folder, 7, number)
        (folder / "checkpoint").unlink()
        if text is not None:
            (folder / "checkpoint").write_text(text)
        assert checkpoints.find(str(copied)) == str(folder / "ckpt-10")

    def test_a_list_of_files_that_are_gone(self, copied):
        """Seen: such a run began again at step 0, over the whole checkpoints beside the list."""
        folder = copied / "checkpoints"
        (folder / "checkpoint").write_text('model_checkpoint_path: "ckpt-99"\n')
        assert checkpoint_files.newest_whole(str(folder)) == str(folder / "ckpt-7")

    @pytest.mark.parametrize("kind", ["index", "data-00000-of-00001"])
    def test_an_incomplete_one_does_not_count(self, copied, kind):
        folder = copied / "checkpoints"
        copy_step(folder, 7, 9)
        (folder / f"ckpt-9.{kind}").unlink()
        assert checkpoint_files.complete(str(folder)) == [str(folder / "ckpt-7")]

    @pytest.mark.parametrize("change", ["flip", "cut", "empty", "fifo"])
    def test_a_damaged_one_is_set_aside_and_named(self, copied, capsys, change):
        folder = copied / "checkpoints"
        copy_step(folder, 7, 9)
        path = folder / "ckpt-9.data-00000-of-00001"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        if change == "fifo":
            path.unlink()
            os.mkfifo(path)
        else:
            path.write_bytes({"flip": data, "cut": data[:1000], "empty": b""}[change])
        assert checkpoint_files.newest_whole(str(folder)) == str(folder / "ckpt-7")
        out = capsys.readouterr().out
        assert out.startswith(f"{folder}/ckpt-9 is damaged (") and "damaged-ckpt-9.*" in out
        kept = {"checkpoint", "ckpt-7.index", "ckpt-7.data-00000-of-00001"}
        aside = {"damaged-ckpt-9.index", "damaged-ckpt-9.data-00000-of-00001"}
        assert {path.name for path in folder.iterdir()} == kept | aside

    def test_no_new_start_where_all_are_damaged(self, copied):
        """Nor when the same command is tried again: nothing was set aside."""
        folder = copied / "checkpoints"
        (folder / "ckpt-7.data-00000-of-00001").write_bytes(b"")
        before = sorted(folder.iterdir())
        for _ in range(2):
            with pytest.raises(ValueError, match="no checkpoint in .* can be read.*ckpt-7"):
                checkpoint_files.newest_whole(str(folder))
        assert sorted(folder.iterdir()) == before

    def test_what_a_killed_process_left(self, copied):
        folder = copied / "checkpoints"
        before = sorted(folder.iterdir())
        (folder / "ckpt-9_temp").mkdir()
        (folder / "ckpt-9_temp" / "part-00000-of-00001.data-00000-of-00001").touch()
        (folder / "checkpoint.tmp123abc").touch()
        (folder / "best.json.partial").touch()
        checkpoint_files.remove_leftovers(str(folder))
        assert sorted(folder.iterdir()) == before

    @pytest.mark.parametrize("name", ["a[b]", "a]b", "a*b", "a?b", "a{b,c}", "a\\b", "[", "a b"])
    def test_any_path(self, tmp_path, copied, spare, name):
        folder = tmp_path / name
        shutil.copytree(copied, folder)
        prefix = checkpoints.find(str(folder))
        assert prefix == str(folder / "checkpoints" / "ckpt-7")
        checkpoints.restore(spare[0], prefix)
        assert checkpoints.values(prefix, "model")
        assert not checkpoint_files.damage(prefix)
        assert checkpoints.save_best(spare[0], str(folder), 8, scores(raw=2.0))
        assert checkpoints.find(str(folder)) == str(folder / "best" / "ckpt-8")

    def test_no_checkpoint(self, tmp_path):
        assert checkpoint_files.latest(str(tmp_path / "nowhere")) is None
        with pytest.raises(FileNotFoundError, match="no checkpoint in .*--checkpoint"):
            checkpoints.find(str(tmp_path))


class TestLoad:
    @pytest.mark.parametrize(("part", "which"), [("model", 1), ("averaged", 2)])
    def test_by_name(self, run_folder, spare, part, which):
        prefix, network = checkpoints.find(str(run_folder[0])), spare[1]
        checkpoints.load(prefix, network, part)
        for variable, value in zip(network.variables, run_folder[which]):
            np.testing.assert_array_equal(variable.numpy(), value)

    def test_values_are_the_networks_variables_and_nothing_else(self, run_folder, spare):
        """Neither the optimizer's slots, which lie below them, nor altered names."""
        prefix = checkpoints.find(str(run_folder[0]))
        names = set(checkpoints.by_name(spare[1].variables))
        assert set(checkpoints.values(prefix, "model")) == names
        assert set(checkpoints.values(prefix, "averaged")) == names
        assert checkpoints.values(prefix, "nothing") == {}

    def test_names_are_unique(self, spare):
        network = spare[1]
        assert len(checkpoints.by_name(network.variables)) == len(network.variables)

    def test_another_network_is_rejected(self, run_folder, fourteen):
        prefix, network = checkpoints.find(str(run_folder[0])), fourteen
        before = values_of(network.variables)
        with pytest.raises(ValueError, match="does not fit the network: 5 variables differ"):
            checkpoints.load(prefix, network, "model")
        for value, variable in zip(before, network.variables):
            np.testing.assert_array_equal(value, variable.numpy())

    def test_damaged(self, copied, fourteen):
        prefix = checkpoints.find(str(copied))
        path = pathlib.Path(prefix + ".data-00000-of-00001")
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(ValueError, match="ckpt-7 cannot be read as a checkpoint"):
            checkpoints.load(prefix, fourteen, "model")


class TestStartFrom:
    def test_same_joints_take_everything(self, run_folder, spare):
        network = spare[1]
        checkpoints.start_from(checkpoints.find(str(run_folder[0])), network, set())
        for variable, value in zip(network.variables, run_folder[2]):
            np.testing.assert_array_equal(variable.numpy(), value)

    def test_other_joints_keep_the_trunk_and_name_the_fresh_heads(self, run_folder, fourteen):
        network = tf.keras.models.clone_model(fourteen)
        network.set_weights(fourteen.get_weights())
        before = checkpoints.by_name(fourteen.variables)
        fresh = checkpoints.of_joints({**BUILD, "joints": 14})
        checkpoints.start_from(checkpoints.find(str(run_folder[0])), network, fresh)
        assert sorted(fresh) == [
            "stack0_heatmaps.bias",
            "stack0_heatmaps.kernel",
            "stack0_heatmaps_back.bias",
            "stack0_heatmaps_back.kernel",
            "stack1_heatmaps.bias",
            "stack1_heatmaps.kernel",
        ]
        averages = checkpoints.values(checkpoints.find(str(run_folder[0])), "averaged")
        for name, variable in checkpoints.by_name(network.variables).items():
            want = before[name].numpy() if name in fresh else averages[name]
            np.testing.assert_array_equal(variable.numpy(), want, err_msg=name)

    def test_as_many_but_other_joints_stay_fresh_too(self, run_folder, spare):
        weights = checkpoints.by_name(spare[1].variables)
        before = {name: variable.numpy() for name, variable in weights.items()}
        fresh = checkpoints.of_joints(BUILD)
        checkpoints.start_from(checkpoints.find(str(run_folder[0])), spare[1], fresh)
        assert len(fresh) == 6
        for name in fresh:
            np.testing.assert_array_equal(weights[name].numpy(), before[name])

    @pytest.mark.parametrize("changes", [{"channels": 12}, {"depth": 2}])
    def test_another_trunk_is_rejected(self, run_folder, changes):
        network = model.build(**{**BUILD, **changes})
        with pytest.raises(ValueError, match="--init_from .* is another network"):
            checkpoints.start_from(checkpoints.find(str(run_folder[0])), network, set())


def test_the_network_keeps_its_batch_norms(copied, run_folder):
    """A model.json without them is of an earlier version: 0.9 and 1e-5."""
    (one,) = {
        (layer.momentum, layer.epsilon)
        for layer in checkpoints.load_network(str(copied))[0].layers
        if hasattr(layer, "moving_mean")
    }
    assert one == (0.9, 1e-5)
    parts = json.loads((copied / "model.json").read_text())
    parts["build"].update(bn_momentum=0.99, bn_epsilon=1e-3)
    (copied / "model.json").write_text(json.dumps(parts))
    (one,) = {
        (layer.momentum, layer.epsilon)
        for layer in checkpoints.load_network(str(copied))[0].layers
        if hasattr(layer, "moving_mean")
    }
    assert one == (0.99, 1e-3)


class TestDamagedNetworkFile:
    """model.json cut, of other types or absurd: a sentence that names it, and no memory taken."""

    @pytest.mark.parametrize(
        "text",
        [
            *("", "{", "[]", "null", "3", '"text"', "{}", "[" * 100_000, "\x00\x01"),
            '{"build": []}',
            '{"build": {}, "joints": 5}',
            '{"build": {}, "expects": []}',
        ],
    )
    def test_not_a_description(self, copied, text):
        (copied / "model.json").write_text(text)
        for read in (checkpoints.read_network, checkpoints.read_expected, checkpoints.load_network):
            with pytest.raises(ValueError, match="model.json does not describe a network"):
                read(str(copied))

    @pytest.mark.parametrize("count", [True, 15, 16.0, "16", None])
    def test_another_number_of_joints(self, copied, count):
        parts = json.loads((copied / "model.json").read_text())
        parts["build"]["joints"] = count
        (copied / "model.json").write_text(json.dumps(parts))
        with pytest.raises(ValueError, match="build has .* joints, joints has 16"):
            checkpoints.read_network(str(copied))

    @pytest.mark.parametrize(
        ("part", "value"),
        [
            *(("channels", "8"), ("channels", 10**9), ("stacks", 10**9), ("stacks", None)),
            *(("size", 2**30), ("depth", 10**6), ("network", "vit"), ("no_such", 1)),
            *(("bn_momentum", "x"), ("bn_epsilon", -1.0)),
        ],
    )
    def test_no_such_network(self, copied, part, value):
        self.change(copied, "build", part, value)
        with pytest.raises(ValueError, match="model.json: .*restore it"):
            checkpoints.load_network(str(copied))

    @pytest.mark.parametrize(
        ("part", "value"),
        [
            *(("mean", "grey"), ("mean", [1, 2]), ("mean", [0, 0, float("nan")])),
            *(("mean", [[1], [2], [3]]), ("decode", "best"), ("decode", 7)),
        ],
    )
    def test_what_the_weights_expect(self, copied, part, value):
        self.change(copied, "expects", part, value)
        with pytest.raises(ValueError, match="model.json.*restore it"):
            checkpoints.read_expected(str(copied))

    @pytest.mark.parametrize(
        "geometry",
        [5, [], {}, {"context": 8.0, "side": 4096}, {"context": "x", "side": 9}, {"side": 1e400}],
    )
    def test_geometry(self, copied, geometry):
        self.change(copied, "expects", "geometry", geometry)
        with pytest.raises(ValueError, match="model.json: geometry .* is invalid"):
            checkpoints.read_geometry(str(copied))

    @pytest.mark.parametrize(("part", "value"), [("id", [1]), ("id", True), ("name", 3)])
    def test_category(self, copied, part, value):
        self.change(copied, "category", "id", 1)
        self.change(copied, "category", "name", "bee")
        assert checkpoints.read_category(str(copied)) == {"id": 1, "name": "bee"}
        self.change(copied, "category", part, value)
        with pytest.raises(ValueError, match="model.json: category .* should be an id and a name"):
            checkpoints.read_category(str(copied))

    def change(self, folder, group, part, value):
        parts = json.loads((folder / "model.json").read_text())
        parts.setdefault(group, {})[part] = value
        (folder / "model.json").write_text(json.dumps(parts))


class TestNetworkFile:
    def test_comes_back(self, run_folder):
        assert checkpoints.read_network(str(run_folder[0])) == (BUILD, MPII)

    def test_category_is_that_of_the_data(self, run_folder, info, tmp_path):
        """COCO's own; without one, people."""
        assert checkpoints.read_category(str(run_folder[0])) == {"id": 1, "name": "person"}
        coco = {"coco": {"category": "bee", "category_id": "b-3"}}
        bees = dataclasses.replace(info, name="coco bee", settings=coco)
        checkpoints.write_network(str(tmp_path), BUILD, bees)
        assert checkpoints.read_category(str(tmp_path)) == {"id": "b-3", "name": "bee"}
        parts = json.loads((tmp_path / "model.json").read_text())
        del parts["category"]  # as runs had it before
        (tmp_path / "model.json").write_text(json.dumps(parts))
        assert checkpoints.read_category(str(tmp_path)) == {"id": 1, "name": "bee"}

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="contains no trained network.*train_main.py"):
            checkpoints.read_network(str(tmp_path))

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"build": 3, "joints": ["left_a"]}', "\xff"])
    def test_broken(self, tmp_path, text):
        (tmp_path / "model.json").write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match="model.json does not describe a network"):
            checkpoints.read_network(str(tmp_path))

    def test_other_records_are_rejected(self, run_folder, info, own_records):
        checkpoints.check_data(str(run_folder[0]), info)
        others = own_records(first=500)
        with pytest.raises(ValueError, match="was trained on other records.*--workdir"):
            checkpoints.check_data(str(run_folder[0]), others)

    def test_the_same_records_elsewhere_are_the_same(self, run_folder, own_records):
        checkpoints.check_data(str(run_folder[0]), own_records(name="moved"))


def copy_step(folder, step, to):
    for path in folder.glob(f"ckpt-{step}.*"):
        shutil.copy(path, folder / path.name.replace(f"-{step}.", f"-{to}."))


def scores(**means):
    return {kind: {"PCKh@0.5": {"mean14": mean}} for kind, mean in means.items()}


class TestBest:
    def test_only_a_higher_mean_replaces_it(self, tmp_path, spare):
        state, network, *_ = spare
        folder, best = str(tmp_path), tmp_path / "best"
        assert not checkpoints.save_best(state, folder, 1, {})
        assert checkpoints.save_best(state, folder, 2, scores(raw=40.0, averaged=30.0))
        assert not checkpoints.save_best(state, folder, 3, scores(raw=20.0, averaged=40.0))
        scramble(network.variables)
        assert checkpoints.save_best(state, folder, 4, scores(raw=40.0, averaged=50.0))
        assert [path.name for path in best.glob("*.index")] == ["ckpt-4.index"]
        note = json.loads((best / "best.json").read_text())
        assert note == {"step": 4, "weights": "averaged", "mean14": 50.0}
        kept = checkpoints.values(checkpoints.find(folder), "model")
        np.testing.assert_array_equal(
            kept["stem_conv.kernel"], checkpoints.by_name(network.variables)["stem_conv.kernel"]
        )

    def test_which_weights_are_meant(self, tmp_path, copied, spare):
        state = spare[0]
        checkpoints.save_best(state, str(tmp_path), 2, scores(raw=40.0, averaged=30.0))
        best, latest = checkpoints.find(str(tmp_path)), checkpoints.find(str(copied))
        assert checkpoints.part_of(best, "best") == "model"
        assert checkpoints.part_of(best, "averaged") == "averaged"
        assert checkpoints.part_of(latest, "best") == "averaged"
        assert checkpoints.part_of(latest, "raw") == "model"

    def test_no_averages_kept(self, tmp_path):
        prefix = save(tmp_path, make(averaged=False)[0])
        assert checkpoints.part_of(prefix, "best") == "model"
        with pytest.raises(ValueError, match="--ema_decay was 0.*--weights=raw"):
            checkpoints.part_of(prefix, "averaged")


class TestBestIsOneThing:
    """At any instant the note, its kind of weights and its files belong together."""

    @pytest.fixture
    def kept(self, tmp_path, spare):
        checkpoints.save_best(spare[0], str(tmp_path), 5, scores(raw=30.0, averaged=20.0))
        return tmp_path

    def test_killed_between_files_and_note(self, kept, spare, monkeypatch):
        def killed(path, data):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checkpoints, "write_atomically", killed)
            checkpoints.save_best(spare[0], str(kept), 10, scores(raw=1.0, averaged=40.0))
        best = checkpoints.find(str(kept))
        assert best == str(kept / "best" / "ckpt-5")
        assert checkpoints.part_of(best, "best") == "model"
        # The next one that is better cleans up.
        assert checkpoints.save_best(spare[0], str(kept), 15, scores(raw=50.0))
        assert {path.name for path in (kept / "best").glob("ckpt-*.index")} == {"ckpt-15.index"}

    def test_killed_before_the_others_are_removed(self, kept, spare, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_files, "remove_all_but", lambda prefix: None)
            checkpoints.save_best(spare[0], str(kept), 10, scores(raw=1.0, averaged=40.0))
        best = checkpoints.find(str(kept))
        assert best == str(kept / "best" / "ckpt-10")
        assert checkpoints.part_of(best, "best") == "averaged"

    def test_files_without_a_note_are_no_best(self, tmp_path, spare):
        save(tmp_path / "best", spare[0], 3)
        save(tmp_path / "checkpoints", spare[0], 2)
        assert checkpoints.find(str(tmp_path)) == str(tmp_path / "checkpoints" / "ckpt-2")

    def test_a_note_without_its_files_is_an_error(self, kept, spare):
        """Never another checkpoint unasked."""
        save(kept / "checkpoints", spare[0], 9)
        (kept / "best" / "ckpt-5.index").unlink()
        with pytest.raises(FileNotFoundError, match="best/ckpt-5.* is missing or incomplete"):
            checkpoints.find(str(kept))

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"step": "5"}', "[" * 100_000])
    def test_a_damaged_note_is_named(self, kept, text):
        (kept / "best" / "best.json").write_text(text)
        with pytest.raises(ValueError, match="best.json is damaged"):
            checkpoints.find(str(kept))


class TestPlaces:
    def test_a_run_or_one_checkpoint(self, run_folder):
        folder = str(run_folder[0])
        prefix = folder + "/checkpoints/ckpt-7"
        assert checkpoints.split_path(folder + "/") == (folder, "")
        assert checkpoints.split_path(prefix) == (folder, prefix)
        assert checkpoints.find(prefix) == checkpoints.find(folder) == prefix

    def test_the_best_comes_first(self, copied, spare):
        checkpoints.save_best(spare[0], str(copied), 3, scores(raw=1.0))
        assert checkpoints.find(str(copied)) == str(copied / "best" / "ckpt-3")


def test_resumed_runs_keep_no_more_checkpoints(tmp_path):
    """Those of before the start count too, as does what a killed removal left."""
    config, saved = Config(workdir=str(tmp_path), max_checkpoints=2), tf.train.Checkpoint()
    folder = tmp_path / "checkpoints"
    for step in (3, 6, 9):
        run_dir.save(run_dir.checkpoint_manager(saved, config), config, step)
        there = [int(path.stem.split("-")[1]) for path in folder.glob("*.index")]
        assert sorted(there) == [step - 3, step][step == 3 :]
    (folder / "ckpt-3.data-00000-of-00001").touch()
    shutil.copy(folder / "ckpt-6.index", folder / "ckpt-5.index")
    shutil.copy(folder / "ckpt-6.data-00000-of-00001", folder / "ckpt-5.data-00000-of-00001")
    run_dir.checkpoint_manager(saved, config)
    assert {path.stem for path in folder.glob("ckpt-*")} == {"ckpt-6", "ckpt-9"}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["checkpoints", "best"])
def test_a_fifo_in_place_of_tensorflow_s_list_is_not_waited_for(tmp_path, name):
    saved = tf.train.Checkpoint(step=tf.Variable(1))
    (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / name / "checkpoint")
    with pytest.raises(OSError, match=f"{name}/checkpoint is a folder, fifo"):
        if name == "best":
            checkpoints.save_best(saved, str(tmp_path), 1, {"raw": {"PCKh@0.5": {"mean14": 1.0}}})
        run_dir.checkpoint_manager(saved, Config(workdir=str(tmp_path)))
