"""Evaluation: everyone once, back to image pixels, scored as NumPy does, written as promised."""

import dataclasses
import json
import os
import pathlib
import re
import shutil

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
import tensorflow as tf

from hourglass.skeleton import LSP, MPII
from pipelines import checkpoints, devices
from pipelines.config import Config
from pipelines.data import input_pipeline
from pipelines.data.annotations import MISSING
from pipelines.data.preprocessing import MEAN
from pipelines.evaluation import (
    evaluate,
    ground_truth,
    prediction_files,
    samples,
    score_predictions,
    scoring,
)
from pipelines.evaluation import report as results_module
from pipelines.inference import forward
from pipelines.inference.options import InferenceOptions
from tests.helpers.people import draw_person, write_records
from tests.helpers.spots import SPOTS, dots_network, spots

MEANS = ("mean14", "weighted14", "pooled16")
PLAIN = InferenceOptions(flip=False)


@pytest.fixture(scope="module")
def spotted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spots")
    return write_records(folder, {"validation": 10}, skeleton=SPOTS, draw=spots)


def predict_spots(spotted, batch, options=PLAIN, *, strategy=None, data=lambda data: data):
    info, _ = spotted
    strategy = strategy or devices.make_strategy("one")
    with strategy.scope():
        network = dots_network()
    predict = forward.make_predict(strategy, network, info.skeleton.mirror, options)
    labels = input_pipeline.labels(info, "validation")
    dataset = data(input_pipeline.evaluation(info, "validation", batch=batch))
    return evaluate.predict(strategy, predict, dataset, labels)


class TestPredict:
    def test_auto_decodes_as_the_weights_expect(self):
        def decoder(asked, expected):
            return evaluate.options_of(Config(decoder=asked), (MEAN, expected)).decoder

        assert [decoder("auto", expected) for expected in ("", "hourglass")] == [
            "quarter",
            "hourglass",
        ]
        assert decoder("dark", "hourglass") == "dark"

    def test_options_are_those_of_the_configuration_and_the_weights(self):
        config = Config(decoder="dark", sigma=3.0, flip=False, test_scales="1.0,0.5")
        options = evaluate.options_of(config, ((0.1, 0.2, 0.3), "hrnet"))
        assert options == InferenceOptions(False, "dark", 3.0, (1.0, 0.5), (0.1, 0.2, 0.3))

    def test_sigma_reaches_the_decoder(self, spotted):
        dark = dataclasses.replace(PLAIN, decoder="dark")
        sharp, blurred = (
            predict_spots(spotted, 5, dataclasses.replace(dark, sigma=sigma))[0]
            for sigma in (1.0, 3.0)
        )
        assert (sharp != blurred).any()

    @pytest.mark.parametrize("flip", [False, True])
    def test_spots_are_found_where_they_are_in_the_photograph(self, spotted, flip):
        """Within half a heatmap px, that is 1/32 of the crop's side."""
        predicted, confidence = predict_spots(spotted, 5, InferenceOptions(flip=flip))
        people = spotted[1]["validation"]
        for joints, peaks, person in zip(predicted, confidence, people):
            assert np.abs(joints - person.joints).max() < person.side / 32
            assert (peaks > 0.3).all()
        offsets = np.stack([(f - p.joints) / p.side for f, p in zip(predicted, people)])
        # No bias: a half pixel forgotten on the way would be 1/32 or 1/128 of a side.
        assert np.abs(offsets.mean((0, 1))).max() < 0.004

    def test_argmax_is_coarser(self, spotted):
        truth = np.stack([person.joints for person in spotted[1]["validation"]])
        errors = [
            np.abs(predict_spots(spotted, 5, InferenceOptions(False, decoder))[0] - truth).mean()
            for decoder in ("argmax", "quarter")
        ]
        assert errors[0] > errors[1]

    @pytest.mark.parametrize("batch", [4, 16])
    def test_padding_changes_nothing(self, spotted, batch):
        for padded, exact in zip(predict_spots(spotted, batch), predict_spots(spotted, 10)):
            np.testing.assert_allclose(padded, exact, atol=1e-4)

    def test_two_replicas_find_the_same(self, spotted, two_replicas):
        for two, one in zip(
            predict_spots(spotted, 4, strategy=two_replicas), predict_spots(spotted, 10)
        ):
            np.testing.assert_allclose(two, one, atol=1e-4)

    def test_people_predicted_twice(self, spotted):
        with pytest.raises(RuntimeError, match="0 people never predicted, 10 twice"):
            predict_spots(spotted, 5, data=lambda data: data.concatenate(data))

    def test_people_not_predicted(self, spotted):
        with pytest.raises(RuntimeError, match="5 people never predicted, 0 twice"):
            predict_spots(spotted, 5, data=lambda data: data.take(1))

    def test_flip_averages_with_the_unmirrored_map(self):
        """Against NumPy, with a network that treats left and right differently."""
        kernel = np.random.default_rng(0).normal(size=(5, 5, 3, 16)).astype(np.float32)
        images = tf.keras.Input([32, 32, 3])
        convolution = tf.keras.layers.Conv2D(16, 5, 4, "same", use_bias=False)
        network = tf.keras.Model(images, [convolution(images)])
        convolution.set_weights([kernel])
        picture = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
        network = _listed(network)
        straight = network(picture)[-1].numpy()
        mirrored = network(picture[:, :, ::-1])[-1].numpy()[:, :, ::-1]
        swap = [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10]
        maps = forward.predict_heatmaps(network, tf.constant(picture), MPII.mirror, True)
        np.testing.assert_allclose(maps, (straight + mirrored[..., swap]) / 2, atol=1e-5)
        plain = forward.predict_heatmaps(network, tf.constant(picture), MPII.mirror, False)
        np.testing.assert_allclose(plain, straight, atol=1e-5)


def _listed(network):
    """As ``hourglass.model.build`` answers: a list of stacks, of which the last one counts."""
    return tf.keras.Model(network.inputs, [network.outputs[0] * 0.0, network.outputs[0]])


def direct(labels, predicted, threshold, size):
    """Hits and counts per joint, one joint of one person at a time."""
    hits, counts = np.zeros(predicted.shape[1]), np.zeros(predicted.shape[1])
    for i, person in enumerate(predicted):
        zoom, shift = labels["crop_to_image"][i, 0, 0], labels["crop_to_image"][i, :, 2]
        for j, joint in enumerate(person):
            if labels["state"][i, j] == MISSING or not size[i] > 0:
                continue
            truth = labels["joints"][i, j] * zoom + shift
            counts[j] += 1
            hits[j] += np.sqrt(((joint - truth) ** 2).sum()) / size[i] <= threshold
    return hits, counts


@pytest.fixture(scope="module")
def labels(info):
    return input_pipeline.labels(info, "validation")


@pytest.fixture(scope="module")
def truth(labels):
    return evaluate.to_image(labels, labels["joints"])


def scored(info, labels: dict, predicted) -> dict:
    return scoring.score(predicted, ground_truth.of_records(info, "validation", labels))


class TestScore:
    def test_perfect_predictions(self, info, labels, truth):
        results = scored(info, labels, truth)
        for measure in ("PCKh@0.5", "PCKh@0.1", "AUC", "PCK@0.2 torso"):
            assert set(results[measure].values()) == {100.0}, measure

    def test_equal_to_a_direct_computation(self, info, labels, truth):
        predicted = truth + np.random.default_rng(0).normal(0, 5, truth.shape)
        results = scored(info, labels, predicted)
        for measure, threshold in (("PCKh@0.5", 0.5), ("PCKh@0.1", 0.1)):
            hits, counts = direct(labels, predicted, threshold, labels["head_size"])
            self.check(results[measure], hits, counts)
            assert 0 < results[measure]["pooled16"] < 100
        ends = truth[:, [13, 2]]  # left shoulder, right hip
        torso = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=-1)
        torso[(labels["state"][:, [13, 2]] == MISSING).any(1)] = np.nan
        self.check(results["PCK@0.2 torso"], *direct(labels, predicted, 0.2, torso))

    def check(self, row, hits, counts):
        percent = 100 * hits / counts
        fourteen = [j for j in range(16) if j not in (6, 7)]
        assert row["head"] == pytest.approx(percent[9])
        assert row["ankle"] == pytest.approx(percent[[0, 5]].mean())
        assert row["wrist"] == pytest.approx(percent[[10, 15]].mean())
        assert row["mean14"] == pytest.approx(percent[fourteen].mean())
        weighted = 100 * hits[fourteen].sum() / counts[fourteen].sum()
        assert row["weighted14"] == pytest.approx(weighted)
        assert row["pooled16"] == pytest.approx(100 * hits.sum() / counts.sum())

    def test_missing_joints_and_unknown_heads_do_not_count(self, info, labels, truth):
        wrong = truth + 1000.0 * (labels["state"] == MISSING)[..., None]
        unknown = {**labels, "head_size": labels["head_size"].copy()}
        unknown["head_size"][[1, 4]] = np.nan  # and person 7 has none at all
        wrong[[1, 4]] += 1000.0
        results = scored(info, unknown, wrong)
        assert results["PCKh@0.5"]["pooled16"] == 100
        assert results["people"] == 10 and results["people_scored_by_PCKh"] == 7

    def test_a_prediction_that_is_no_number_is_a_miss(self, info, labels, truth):
        wrong = truth.copy()
        wrong[:, 9] = np.nan
        row = scored(info, labels, wrong)["PCKh@0.5"]
        assert row["head"] == 0 and row["ankle"] == 100

    def test_no_people_can_be_scored(self, info, labels, truth, tmp_path):
        blind = {**labels, "head_size": np.full(10, np.nan, np.float32)}
        results = scored(info, blind, truth)
        assert np.isnan(results["PCKh@0.5"]["mean14"])
        results_module.write_results(str(tmp_path), results)
        written = json.loads((tmp_path / "results.json").read_text())
        assert written["PCKh@0.5"]["mean14"] is None
        assert written["people"] == 10


class TestPredictionFiles:
    def test_published_order_and_coordinates(self, drawn, tmp_path):
        """Records of shuffled order come out by row; origin 1 is added in .mat and .h5 alone."""
        info, people = drawn
        labels = input_pipeline.labels(info, "validation")
        shuffled = np.random.default_rng(0).permutation(10)
        mixed = {key: value[shuffled] for key, value in labels.items()}
        joints = np.stack([person.joints for person in people["validation"]])[shuffled]
        confidence = np.tile(mixed["row"][:, None] / 10, (1, 16)).astype(np.float32)
        evaluate.write_predictions(str(tmp_path), mixed, joints, confidence, info)

        ordered = np.stack([person.joints for person in people["validation"]])
        mat = scipy.io.loadmat(tmp_path / "predictions.mat")
        assert mat["preds"].shape == (10, 16, 2)
        np.testing.assert_allclose(mat["preds"], ordered + 1)
        assert [cell.item() for cell in mat["ids"].ravel()] == [
            person.id for person in people["validation"]
        ]
        with h5py.File(tmp_path / "predictions.h5") as file:
            np.testing.assert_allclose(file["preds"], ordered + 1)
            np.testing.assert_allclose(file["confidence"][:, 0], np.arange(10) / 10)
        document = json.loads((tmp_path / "predictions.json").read_text())
        np.testing.assert_allclose([one["joints"] for one in document["people"]], ordered)
        assert [one["row"] for one in document["people"]] == list(range(10))


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """Config, results and folder of an evaluation of the trained run."""
    workdir = tmp_path_factory.mktemp("evaluated") / "deep" / "run"
    config = dataclasses.replace(
        trained[0], workdir=str(workdir), checkpoint=trained[0].workdir, evaluation_batch_size=4
    )
    return config, evaluate.run(config), workdir


class TestRun:
    def test_results(self, evaluated):
        config, results, folder = evaluated
        written = json.loads((folder / "results.json").read_text())
        assert written == results_module.no_nan(results)
        measures = ("PCKh@0.5", "PCKh@0.1", "AUC", "PCK@0.2 torso")
        rows = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", *MEANS)
        for measure in measures:
            assert tuple(written[measure]) == rows
            assert all(0 <= value <= 100 for value in written[measure].values())
        assert (written["people"], written["people_scored_by_PCKh"]) == (10, 9)
        assert (written["dataset"], written["split"]) == ("drawn", "validation")
        best = checkpoints.find(config.checkpoint)
        assert written["source"] == {
            "flip": True,
            "decoder": "quarter",
            "sigma": config.sigma,
            "scales": [1.0],
            "mean": list(MEAN),
            "checkpoint": best,
            "weights": json.loads(pathlib.Path(best).with_name("best.json").read_text())["weights"],
        }

    def test_people_without_joints_are_predicted_but_not_scored(
        self, trained, own_records, tmp_path, capsys
    ):
        def unlabelled(*args):
            image, who = draw_person(*args)
            return image, dataclasses.replace(who, state=np.zeros_like(who.state))

        info = own_records("unlabelled", {"test": 6}, draw=unlabelled)
        config = dataclasses.replace(
            trained[0],
            workdir=str(tmp_path / "test"),
            checkpoint=trained[0].workdir,
            records=info.folder,
            split="test",
        )
        results = evaluate.run(config)
        assert results["people"] == 6 and not any("PCK" in key for key in results)
        assert "without annotated joints" in capsys.readouterr().out
        predictions = prediction_files.read(str(tmp_path / "test" / "predictions.json"))
        assert predictions.ids == tuple(f"test{k}.jpg#1" for k in range(6))
        assert np.isfinite(predictions.joints).all()

    def test_files(self, evaluated):
        names = sorted(path.name for path in evaluated[2].iterdir())
        kinds = ("h5", "json", "mat", "png")
        files = [*(f"predictions.{kind}" for kind in kinds), "results.json"]
        assert names == ["curve.csv", "curve.png", *files]
        assert cv2.imread(str(evaluated[2] / "predictions.png")).shape[1] > 1000

    @pytest.mark.parametrize("kind", ["mat", "h5", "json"])
    def test_its_own_prediction_file_gets_the_same_results(self, evaluated, kind, capsys):
        """Same keys, same numbers, same table: but for where the predictions come from."""
        config, of_network, folder = evaluated
        file = str(folder / f"predictions.{kind}")
        of_file = score_predictions.run(file, config.records, str(folder / kind))
        written = [
            json.loads((one / "results.json").read_text()) for one in (folder, folder / kind)
        ]
        assert written[0].keys() == written[1].keys()
        for key in written[0].keys() - {"source", "bias", "interval_95"}:
            row = of_file[key]
            if isinstance(row, dict):
                row = pytest.approx(row, nan_ok=True)
            assert of_network[key] == row, key
        for key in ("bias", "interval_95"):
            for name, value in of_network[key].items():
                np.testing.assert_allclose(of_file[key][name], value, atol=1e-3, err_msg=name)
        printed = capsys.readouterr().out
        for words in ("PCKh@0.2", "PCKh@0.5 occluded", "95 % from", "bias in x and y"):
            assert words in printed

    def test_same_as_in_training(self, evaluated):
        """The best checkpoint's note holds the mean that training saw for the same weights."""
        note = pathlib.Path(evaluated[1]["source"]["checkpoint"]).with_name("best.json")
        mean = json.loads(note.read_text())["mean14"]
        assert evaluated[1]["PCKh@0.5"]["mean14"] == pytest.approx(mean, abs=0.5)

    @pytest.mark.parametrize("weights", ["raw", "averaged"])
    def test_kinds_of_weights(self, trained, evaluated, info, weights):
        """Neither kind is the other: the network holds what the checkpoint calls so."""
        config = dataclasses.replace(evaluated[0], weights=weights)
        network, prefix, part = checkpoints.load_for(
            info, trained[0].workdir, weights=config.weights
        )
        assert part == {"raw": "model", "averaged": "averaged"}[weights]
        have = checkpoints.by_name(network.variables)["stack0_linear.kernel"].numpy()
        np.testing.assert_array_equal(
            have, checkpoints.values(prefix, part)["stack0_linear.kernel"]
        )
        other = {"raw": "averaged", "averaged": "model"}[weights]
        assert (have != checkpoints.values(prefix, other)["stack0_linear.kernel"]).any()

    def rejected(self, config, error, match, **changes):
        with pytest.raises(error, match=match):
            evaluate.run(dataclasses.replace(config, **changes))

    def test_checkpoint_missing(self, evaluated, tmp_path):
        config = evaluated[0]
        nowhere = str(tmp_path / "nowhere")
        self.rejected(config, FileNotFoundError, "contains no trained network", checkpoint=nowhere)
        shutil.copytree(config.checkpoint, tmp_path / "run")
        shutil.rmtree(tmp_path / "run" / "best"), shutil.rmtree(tmp_path / "run" / "checkpoints")
        self.rejected(
            config, FileNotFoundError, "no checkpoint in", checkpoint=str(tmp_path / "run")
        )

    def test_records_of_other_joints(self, evaluated, own_records):
        lsp = own_records(counts={"validation": 3}, skeleton=LSP)
        match = "has 16 joints .* have 14: .*right_ankle"
        self.rejected(evaluated[0], ValueError, match, records=lsp.folder)

    def test_empty_split(self, evaluated, own_records):
        info = own_records(counts={"train": 3})
        match = "no people in the split 'validation'"
        self.rejected(evaluated[0], ValueError, match, records=info.folder)

    def test_damaged_shard(self, evaluated, own_records):
        info = own_records()
        path = info.shards("validation")[1]
        data = bytearray(pathlib.Path(path).read_bytes())
        data[-30] ^= 1
        pathlib.Path(path).write_bytes(data)
        match = re.escape(os.path.basename(path)) + " was altered .* record 2 of 3 is damaged"
        self.rejected(evaluated[0], ValueError, match, records=info.folder)


class TestPicture:
    def test_truth_and_prediction_lie_in_the_picture_they_belong_to(self, spotted):
        info, _ = spotted
        shown = samples.predict(dots_network(), info, "validation", PLAIN, np.arange(4))
        assert shown["images"].shape == (4, 64, 64, 3)
        assert np.abs(shown["truth"] - shown["predicted"]).max() < 2.5
        for image, joints in zip(shown["images"], shown["truth"]):
            for channel, (x, y) in enumerate(np.rint(joints).astype(int)):
                assert image[y, x, channel] > 150
        picture = samples.grid(shown, info.skeleton, "title")
        assert picture.dtype == np.uint8 and picture.shape[1] > 4 * 256

    def test_chosen_people_come_in_the_order_asked_for(self, spotted):
        info, _ = spotted
        count = info.count("validation")
        everybody = samples.predict(dots_network(), info, "validation", PLAIN, np.arange(count))
        indices = np.array([count - 1, 0, count - 1])
        shown = samples.predict(dots_network(), info, "validation", PLAIN, indices)
        assert shown.keys() == everybody.keys()
        assert not np.array_equal(shown["truth"][0], shown["truth"][1])
        for key, values in shown.items():
            np.testing.assert_allclose(values, everybody[key][indices], atol=1e-4)


class TestWorst:
    def test_by_mean_error_with_infinity_first_and_unscored_last(self):
        nan, inf = np.nan, np.inf
        errors = np.array([[0.5, nan], [nan, nan], [0.1, 0.7], [3.0, 0.0], [0.2, inf], [0.5, 0.5]])
        means = scoring.over_joints(np.nanmean, errors)
        np.testing.assert_allclose(means, [0.5, nan, 0.4, 1.5, inf, 0.5])
        assert scoring.worst(errors).tolist() == [4, 3, 0, 5, 2, 1]

    def test_evenly(self):
        assert samples.evenly(10, 4).tolist() == [0, 2, 4, 6]
        assert samples.evenly(3, 12).tolist() == [0, 1, 2]
        assert samples.evenly(24, 12).tolist() == list(range(0, 24, 2))
