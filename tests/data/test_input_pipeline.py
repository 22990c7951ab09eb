"""tf.data: the endless training sequence is arithmetic; evaluation sees everyone once."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from pipelines.data import input_pipeline
from tests.helpers.people import TRAIN as PEOPLE


def sequence(info, examples, *, batch=5, **arguments):
    """Columns of the first ``examples`` // batch batches of the training data."""
    data = input_pipeline.training(info, batch=batch, **{"seed": 3, **arguments})
    batches = list(data.take(examples // batch).as_numpy_iterator())
    return {key: np.concatenate([one[key] for one in batches]) for key in batches[0]}


def who(info, columns):
    """Each example's index in the shards; the joints in crop px tell the people apart."""
    known = {
        joints.tobytes(): i
        for i, joints in enumerate(input_pipeline.labels(info, "train")["joints"])
    }
    assert len(known) == PEOPLE
    return [known[joints.tobytes()] for joints in columns["joints"]]


class TestTraining:
    def test_every_epoch_has_everyone_once_in_another_order(self, info):
        order = who(info, sequence(info, 75))
        epochs = [order[k : k + PEOPLE] for k in (0, 24, 48)]
        for epoch in epochs:
            assert sorted(epoch) == list(range(PEOPLE))
            # A full shuffle keeps no shard's own order, nor one shard after the other.
            shards = [[i for i in epoch if i // 8 == shard] for shard in range(3)]
            assert all(shard != sorted(shard) for shard in shards)
            assert {i // 8 for i in epoch[:8]} == {0, 1, 2}
        assert len({tuple(epoch) for epoch in epochs}) == 3

    def test_batches_run_across_the_ends_of_epochs(self, info):
        data = input_pipeline.training(info, batch=7, seed=0)
        assert [len(one["index"]) for one in data.take(8).as_numpy_iterator()] == [7] * 8

    def test_index_counts_the_examples(self, info):
        np.testing.assert_array_equal(sequence(info, 30)["index"], np.arange(30))
        np.testing.assert_array_equal(sequence(info, 30, start=35)["index"], np.arange(35, 65))

    @pytest.mark.parametrize("start", [0, 5, 20, 24, 25, 45, 48])
    def test_resuming_gives_exactly_the_rest(self, info, start):
        whole = sequence(info, 75)
        rest = sequence(info, (75 - start) // 5 * 5, start=start)
        for key, values in rest.items():
            np.testing.assert_array_equal(values, whole[key][start : start + len(values)])

    def test_seed_decides_the_order(self, info):
        first, second, other = (who(info, sequence(info, 25, seed=seed)) for seed in (1, 1, 2))
        assert first == second != other

    def test_a_small_buffer_still_gives_everyone_once(self, info):
        order = who(info, sequence(info, 50, buffer=4))
        assert sorted(order[:24]) == sorted(order[24:48]) == list(range(PEOPLE))
        assert order[:24] != order[24:48]

    def test_resuming_with_a_small_buffer(self, info):
        whole = who(info, sequence(info, 60, buffer=4))
        assert who(info, sequence(info, 25, buffer=4, start=35)) == whole[35:]

    def test_more_people_than_a_batch_needs_not(self, info):
        """One batch of 60 out of 24 people: two epochs and a half."""
        columns = sequence(info, 60, batch=60)
        assert sorted(who(info, columns)[:24]) == list(range(PEOPLE))

    @pytest.mark.parametrize("cached", [False, True])
    def test_static_shapes_and_no_float_pictures(self, info, cached):
        spec = input_pipeline.training(info, batch=5, seed=0, cached=cached).element_spec
        assert all(part.shape.is_fully_defined() for part in spec.values())
        assert (spec["image"].shape, spec["image"].dtype) == ((5, 128, 128, 3), tf.uint8)
        assert (spec["joints"].shape, spec["state"].shape) == ((5, 16, 2), (5, 16))

    def test_nothing_runs_in_python(self, info):
        python = tf.data.Dataset.range(3).map(lambda x: tf.py_function(lambda y: y, [x], tf.int64))
        assert b"PyFunc" in python._as_serialized_graph().numpy()
        for data in (
            input_pipeline.training(info, batch=5, seed=0),
            input_pipeline.training(info, batch=5, seed=0, cached=True),
            input_pipeline.training(info, batch=8, seed=0, replicas=2, workers=2),
            input_pipeline.evaluation(info, "validation", batch=4),
            input_pipeline.chosen(info, "validation", [1, 2], batch=2),
        ):
            assert b"PyFunc" not in data._as_serialized_graph().numpy()

    def test_no_operation_on_the_device_when_imported(self, fork_script, tmp_path):
        """Else devices could no longer be configured: logical CPUs, a GPU's memory growth."""
        (tmp_path / "begun.py").write_text(
            "from pipelines.training import train\n"
            "from tensorflow.python.eager import context\n"
            "print(context.context()._initialized)"
        )
        answer = fork_script(tmp_path, "begun.py")
        assert answer["output"] == "False\n", answer

    def test_empty_split(self, own_records):
        info = own_records(counts={"validation": 3})
        with pytest.raises(ValueError, match="no people in the split 'train'.*validation 3"):
            input_pipeline.training(info, batch=2, seed=0)


class TestCache:
    """Records held in memory are the same examples in the same order."""

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"start": 35},
            {"start": 48},
            {"start": 10, "buffer": 4},
            {"batch": 8, "replicas": 4, "workers": 2, "worker": 0},
            {"batch": 8, "replicas": 4, "workers": 2, "worker": 1, "start": 40},
        ],
        ids=str,
    )
    def test_the_same_batches_over_two_epochs(self, info, options):
        streamed, held = (sequence(info, 60, cached=cached, **options) for cached in (False, True))
        assert set(streamed) == set(held)
        for key, values in streamed.items():
            np.testing.assert_array_equal(held[key], values, err_msg=key)

    def test_shards_of_different_lengths(self, own_records):
        info = own_records(counts={"train": 20}, shards=7)
        streamed, held = (sequence(info, 60, cached=cached) for cached in (False, True))
        np.testing.assert_array_equal(held["joints"], streamed["joints"])

    def test_replicas_get_the_same_pieces(self, info, two_replicas):
        def pieces(cached):
            data = input_pipeline.distributed(
                two_replicas, info, batch=8, seed=3, start=16, cached=cached
            )
            pieces = [two_replicas.experimental_local_results(next(data)["joints"]) for _ in "123"]
            return tf.nest.map_structure(lambda joints: joints.numpy(), pieces)

        np.testing.assert_array_equal(pieces(True), pieces(False))

    def test_files_are_read_once_at_the_start(self, own_records):
        info = own_records(counts={"train": PEOPLE})
        whole = sequence(info, 60)
        held, streamed = (
            iter(input_pipeline.training(info, batch=5, seed=3, cached=cached))
            for cached in (True, False)
        )
        for path in info.shards("train"):
            pathlib.Path(path).unlink()
        joints = np.concatenate([next(held)["joints"] for _ in range(12)])
        np.testing.assert_array_equal(joints, whole["joints"])
        with pytest.raises(tf.errors.NotFoundError):
            next(streamed)

    def test_a_damaged_shard_is_named_at_once(self, own_records):
        info = own_records()
        path = pathlib.Path(info.shards("train")[2])
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"{path.name} was altered .* of 8 is damaged"):
            input_pipeline.training(info, batch=5, seed=3, cached=True)

    def test_they_are_cached_up_to_the_bound_and_the_user_is_told(self, info, capsys):
        size = sum(pathlib.Path(path).stat().st_size for path in info.shards("train"))
        assert input_pipeline.fits(info, size / 1e9)
        line = input_pipeline.describe_cache(info, size / 1e9)
        assert line == f"training records of {size / 1e9:.3g} GB: read once, kept in memory"
        assert not input_pipeline.fits(info, (size - 1) / 1e9)
        line = input_pipeline.describe_cache(info, (size - 1) / 1e9)
        assert line.endswith(f"every epoch, --cache_gb={(size - 1) / 1e9:g}")
        assert not input_pipeline.fits(info, 0.0)
        assert capsys.readouterr().out == ""


class TestWorkers:
    """The global batches do not depend on the number of workers."""

    @pytest.mark.parametrize(("replicas", "workers"), [(1, 1), (4, 1), (4, 2), (4, 4), (8, 2)])
    @pytest.mark.parametrize("start", [0, 24])
    def test_pieces_in_their_order_are_the_global_batches(self, info, replicas, workers, start):
        steps, local = 5, replicas // workers
        arguments = dict(batch=8, replicas=replicas, workers=workers, seed=3, start=start)
        pieces = []
        for worker in range(workers):
            data = input_pipeline.training(info, worker=worker, **arguments).take(steps * local)
            pieces.append(list(data.as_numpy_iterator()))
        own = range(local)
        ordered = [
            pieces[w][s * local + k] for s in range(steps) for w in range(workers) for k in own
        ]
        assert {len(piece["index"]) for piece in ordered} == {8 // replicas}
        whole = sequence(info, steps * 8, batch=8, start=start)
        for key, values in whole.items():
            joined = np.concatenate([piece[key] for piece in ordered])
            np.testing.assert_array_equal(joined, values, err_msg=key)

    def test_replicas_get_their_pieces_in_order(self, info, two_replicas):
        iterator = input_pipeline.distributed(two_replicas, info, batch=8, seed=3, start=16)
        for step in range(3):
            index = two_replicas.experimental_local_results(next(iterator)["index"])
            first = 16 + 8 * step
            assert [part.numpy().tolist() for part in index] == [
                list(range(first, first + 4)),
                list(range(first + 4, first + 8)),
            ]

    def test_workers_need_not_ask_each_other_for_the_end(self, info):
        data = input_pipeline.training(info, batch=8, seed=0, replicas=2, workers=2)
        assert data.cardinality() == tf.data.INFINITE_CARDINALITY
        assert data.element_spec["index"].shape == (4,)


class TestEvaluation:
    @pytest.mark.parametrize(("batch", "padding"), [(4, 2), (5, 0), (10, 0), (16, 6), (1, 0)])
    def test_everyone_once_and_padding_has_no_index(self, info, batch, padding):
        batches = list(
            input_pipeline.evaluation(info, "validation", batch=batch).as_numpy_iterator()
        )
        index = np.concatenate([one["index"] for one in batches])
        assert index.tolist() == [*range(10), *[-1] * padding]
        assert {len(one["image"]) for one in batches} == {batch}
        sides = np.concatenate([one["side"] for one in batches])
        labels = input_pipeline.labels(info, "validation")
        np.testing.assert_array_equal(sides[:10], labels["side"])
        np.testing.assert_array_equal(sides[10:], labels["side"][0])

    def test_every_third(self, info):
        batch = next(
            input_pipeline.evaluation(info, "validation", batch=4, every=3).as_numpy_iterator()
        )
        labels = input_pipeline.labels(info, "validation", every=3)
        assert labels["row"].tolist() == [0, 3, 6, 9]
        np.testing.assert_array_equal(batch["side"], labels["side"])
        assert batch["index"].tolist() == [0, 1, 2, 3]

    def test_every_third_fills_its_last_batch(self, info):
        batches = input_pipeline.evaluation(
            info, "validation", batch=3, every=3
        ).as_numpy_iterator()
        assert [one["index"].tolist() for one in batches] == [[0, 1, 2], [3, -1, -1]]

    def test_static_shapes(self, info):
        spec = input_pipeline.evaluation(info, "validation", batch=4).element_spec
        assert set(spec) == {"image", "center", "side", "index"}
        assert spec["image"].shape == (4, 128, 128, 3) and spec["image"].dtype == tf.uint8

    def test_empty_split(self, own_records):
        info = own_records(counts={"train": 3})
        for read in (
            lambda: input_pipeline.evaluation(info, "validation", batch=2),
            lambda: input_pipeline.labels(info, "validation"),
        ):
            with pytest.raises(ValueError, match="no people in the split 'validation'"):
                read()


def test_labels_are_what_was_written(drawn):
    info, people = drawn
    for split in ("train", "validation"):
        labels = input_pipeline.labels(info, split)
        assert [name.decode() for name in labels["id"]] == [who.id for who in people[split]]
        assert labels["row"].tolist() == [who.row for who in people[split]]
        for i, person in enumerate(people[split]):
            zoom, shift = labels["crop_to_image"][i, 0, 0], labels["crop_to_image"][i, :, 2]
            labelled = person.state > 0
            np.testing.assert_array_equal(labels["state"][i], person.state)
            joints = labels["joints"][i] * zoom + shift
            np.testing.assert_allclose(joints[labelled], person.joints[labelled], atol=1e-4)
            np.testing.assert_allclose(labels["center"][i] * zoom + shift, person.center, atol=1e-4)
            assert labels["side"][i] * zoom == pytest.approx(person.side)
            assert labels["head_size"][i] == pytest.approx(person.head_size, nan_ok=True)


class TestChosen:
    def test_whole_records_of_those_asked_for_in_order_of_place(self, info):
        labels = input_pipeline.labels(info, "validation")
        pixels = next(iter(input_pipeline.evaluation(info, "validation", batch=10)))[
            "image"
        ].numpy()
        batches = list(input_pipeline.chosen(info, "validation", [7, 0, 4, 7, 9], batch=3))
        assert [one["index"].numpy().tolist() for one in batches] == [[0, 4, 7], [9]]
        for one in batches:
            indices = one["index"].numpy()
            np.testing.assert_array_equal(one["image"], pixels[indices])
            assert set(one) == {*labels, "image", "index"}
            for key, values in labels.items():
                np.testing.assert_array_equal(one[key].numpy(), values[indices])

    def test_empty_split(self, info):
        with pytest.raises(ValueError, match="no people in the split 'test'"):
            input_pipeline.chosen(info, "test", [0], batch=1)
