"""The benchmark: counting, comparisons, tables, and the command as a user starts it."""

import dataclasses
import json
import pathlib
import statistics
import time
import warnings

import cv2
import numpy as np
import pytest
import tensorflow as tf

from hourglass import model
from pipelines.benchmark import (
    Task,
    ceilings,
    comparison,
    counting,
    engines,
    loader,
    parts,
    person,
    predicting,
    report,
    rounds,
    stored,
    workload,
)
from pipelines.config import Config
from pipelines.data import augmentation, cropping, input_pipeline, targets, tfrecords
from pipelines.export import formats
from tests.helpers.forked import ROOT
from tests.helpers.processes import start_python

layers = tf.keras.layers

# ---- counted multiply-adds


def test_a_convolution_by_hand():
    same = layers.Conv2D(8, 3, padding="same")
    same(tf.keras.Input([10, 12, 3]))
    assert counting.layer_macs(same) == 10 * 12 * 8 * (3 * 3 * 3)


def test_a_strided_convolution_by_hand():
    strided = layers.Conv2D(6, (3, 5), 2)
    strided(tf.keras.Input([11, 11, 4]))
    assert counting.layer_macs(strided) == 5 * 4 * 6 * (3 * 5 * 4)


def test_grouped_and_depthwise_convolutions_by_hand():
    pictures = tf.keras.Input([8, 8, 6])
    grouped = layers.Conv2D(4, 1, groups=2)
    depthwise = layers.DepthwiseConv2D(3, padding="same")
    network = tf.keras.Model(pictures, grouped(depthwise(pictures)))
    assert counting.layer_macs(depthwise) == 8 * 8 * 6 * 9
    assert counting.layer_macs(grouped) == 8 * 8 * 4 * 3
    assert counting.forward_macs(network) == 8 * 8 * (6 * 9 + 4 * 3)


def test_two_stacks_take_8_3_billion():
    """The figure that the paper's network is known by; it does not depend on the batch."""
    network = model.build(joints=16, stacks=2, channels=256, size=256)
    assert round(counting.forward_macs(network) / 1e9, 1) == 8.3


# ---- figures


def measured(rates, unit="images", **details) -> dict:
    median = statistics.median(rates)
    return {"rates": rates, "median": median, "unit": unit, "peak_mb": 100.0, **details}


ROW = comparison.Row("p", "a", "g", "ours", ("theirs", "other"), "rate", 1.25)
GROUP = comparison.Group("g", Config(), [])


def test_the_best_of_several_counts():
    results = {"ours": measured([30.0]), "theirs": measured([10.0]), "other": measured([20.0])}
    assert report.reached(ROW, results) == (1.5, "other")
    assert report.line(ROW, GROUP, results, True)["verdict"] == "PASS"


def test_what_failed_does_not_count():
    results = {"ours": measured([12.0]), "theirs": measured([10.0]), "other": {"failed": "no"}}
    assert report.reached(ROW, results) == (1.2, "theirs")
    assert report.line(ROW, GROUP, results, True)["verdict"] == "below"


def test_without_anything_to_compare_the_reason_is_given():
    results = {"ours": measured([12.0]), "theirs": {"failed": "torch is not installed"}}
    line = report.line(ROW, GROUP, results, True)
    assert line["reached"] is None and line["verdict"] == "not measured"
    assert line["why_not"] == "theirs: torch is not installed"


def test_a_share_of_peak_compares_flops():
    row = dataclasses.replace(ROW, kind="peak")
    results = {
        "ours": measured([9.0, 10.0, 12.0], flop_per_image=3e9),
        "theirs": measured([40.0, 60.0, 50.0], "GFLOP"),
    }
    line = report.line(row, GROUP, results, True)
    assert line["reached"] == pytest.approx(30 / 50)
    assert line["per_round"] == pytest.approx([27 / 40, 30 / 60, 36 / 50])


def test_memory_compares_peaks_and_may_be_at_most():
    row = dataclasses.replace(ROW, kind="memory", reach=0.5, most=True, under=("theirs",))
    results = {"ours": measured([1.0]), "theirs": {**measured([1.0]), "peak_mb": 160.0}}
    assert report.reached(row, results) == (0.625, "theirs")
    assert report.line(row, GROUP, results, True)["verdict"] == "above"


def test_figures_at_other_settings_pass_and_fail_nothing():
    results = {"ours": measured([30.0]), "theirs": measured([10.0])}
    assert report.line(ROW, GROUP, results, False)["verdict"] == "other settings"


# ---- what is compared with what


def test_every_row_finds_its_tasks():
    groups = {group.name: group for group in comparison.everything(Config(), set(), 16)}
    for row in comparison.ROWS:
        names = [task.name for task in groups[row.group].tasks]
        assert len(set(names)) == len(names)
        assert {row.over, *row.under} <= set(names), row


def test_rows_are_defined_at_the_paper_s_network():
    groups = {group.name: group for group in comparison.everything(Config(), set(), 16)}
    assert report.settings(groups["train, bf16"]) == "2 x 256, 256 px, batch 8, bf16"
    assert report.settings(groups["train, float32"]) == "2 x 256, 256 px, batch 8, float32"
    single = report.settings(groups["infer, one picture, float32"])
    assert single == "2 x 256, 256 px, batch 1, float32"
    assert report.settings(groups["memory"]).startswith("8 x 256, 256 px, batch 6")
    assert all(comparison.as_defined(group, 16) for group in groups.values())


def test_given_flags_replace_the_definition():
    small = Config(stacks=1, global_batch_size=2)
    for group in comparison.everything(small, {"stacks", "global_batch_size"}, 16):
        assert group.config.stacks == 1 and group.config.global_batch_size in (1, 2)
        assert group.config.channels == (96 if group.name == "person" else 256)
        assert not comparison.as_defined(group, 16)


def test_chosen_parts_come_with_their_comparisons():
    (group,) = comparison.chosen(["train", "infer", "end_to_end"], Config(), 16, True, True)
    rows = {(row.over, row.under[0]) for row in comparison.pairs(group)}
    assert {("end_to_end", "train"), ("train", "train: torch channels_last")} <= rows
    assert ("infer", "infer: torch channels_last") in rows
    assert {("infer", "OpenVINO"), ("infer", "ONNX Runtime")} <= rows
    assert ("infer", "train: torch channels_last") not in rows
    assert {row.kind for row in comparison.pairs(group)} == {"rate", "peak"}
    (files,) = comparison.chosen(["predict"], Config(), 16, True, True)
    (row,) = comparison.pairs(files)
    assert (row.over, row.under, row.kind) == ("predict", ("its halves in turn",), "rate")
    (people,) = comparison.chosen(["person"], Config(), 16, True, True)
    names = ["person", "person, one at a time"]
    assert [(row.over, *row.under) for row in comparison.pairs(people)] == [
        (name, "MediaPipe") for name in names
    ]
    (alone,) = comparison.chosen(["train", "infer"], Config(), 16, False, False)
    assert [task.name for task in alone.tasks] == ["train", "infer"]


# ---- photographs, the loader, processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("workload"))
    workload.prepare(folder, "", 12)
    return folder


def test_the_loader_makes_what_we_make(folder):
    """Same draw, same picture and heatmaps: the peer does the same work."""
    info = tfrecords.read_info(f"{folder}/records")
    batch = next(iter(input_pipeline.training(info, batch=1, seed=0)))
    examples = loader.Examples(folder, "crops", 256, 1.0, "one_warp")
    same = [
        k
        for k, center in enumerate(examples.columns["center"])
        if np.array_equal(np.float32(center), batch["center"][0])
    ]
    color = np.array([0.9, 1.0, 1.1], np.float32)
    draws = {
        "scale": tf.constant([1.1]),
        "angle": tf.constant([0.3]),
        "mirror": tf.constant([True]),
        "color": tf.constant(color[None]),
    }
    images, matrix = augmentation.images(batch, 256, draws)
    points, state = targets.joints(batch, matrix, info.skeleton.mirror, draws["mirror"])
    heatmaps, weight = targets.targets(points, state, size=256, sigma=1.0)
    picture, maps, known = examples.example(same[0], 1.1, 0.3, True, color)
    assert np.abs(picture.transpose(1, 2, 0) - images[0]).mean() < 0.01
    assert np.abs(maps.transpose(1, 2, 0) - heatmaps[0]).max() < 0.012  # cut off at 3 sigma
    assert np.array_equal(known, weight[0])


@pytest.mark.parametrize("scale, angle", [(1.1, 0.3), (0.75, 0.0), (1.25, -1.0)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_published_steps_end_in_the_same_picture(folder, scale, angle, mirrored):
    """To a pixel or two: every pass rounds the square's position. The joints are the same."""
    color = np.array([0.9, 1.0, 1.1], np.float32)
    kinds = ("published", "one_warp")
    both = [loader.Examples(folder, "photographs", 256, 1.0, kind) for kind in kinds]
    for k in range(3):
        (one, *targets), (other, *same) = (
            e.example(k, scale, angle, mirrored, color) for e in both
        )
        calm = [cv2.blur(picture.transpose(1, 2, 0), (9, 9)) for picture in (one, other)]
        assert np.abs(calm[0] - calm[1]).mean() < 0.02
        assert all(np.array_equal(*pair) for pair in zip(targets, same))


def test_only_tasks_like_train_main_have_huge_pages(monkeypatch, tmp_path):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    for pages in (True, False):
        task = Task("t", "parts.no_such_function", {}, huge_pages=pages)
        worker = rounds.Worker(task, str(tmp_path))
        environ = pathlib.Path(f"/proc/{worker.process.pid}/environ")
        while not (text := environ.read_text()):  # the new process has not replaced the fork yet
            time.sleep(0.01)
        assert ("GLIBC_TUNABLES=glibc.malloc.hugetlb=1" in text) == pages
        worker.close()


@pytest.mark.slow
def test_convolutions_alone_do_the_flops_of_a_training_step(info):
    settings = Config(
        records=info.folder, global_batch_size=2, size=32, channels=8, stacks=1, depth=2
    )
    built = ceilings.convolutions(dataclasses.asdict(settings), "")
    assert built.run(2) is None
    network = model.build(joints=16, stacks=1, channels=8, depth=2, size=32)
    flop = 2 * counting.TRAINING * counting.forward_macs(network)
    assert built.details() == {"flop_per_image": flop}


@pytest.mark.parametrize("part", [parts.read, parts.augment_crops, parts.read_and_augment])
def test_parts_of_input_are_traced_once(info, part):
    built = part(dataclasses.asdict(Config(records=info.folder, global_batch_size=4, size=32)), "")
    for steps in (1, 2, 1):
        assert built.run(steps) is None
    assert list(built.details()["traces"].values()) == [1]
    assert built.work == 4 * parts.BATCHES and built.unit == "images"


def test_inference_is_traced_once(info):
    small = Config(records=info.folder, global_batch_size=2, size=32, stacks=1, channels=8, depth=1)
    built = parts.inference(dataclasses.asdict(small), "")
    for steps in (1, 2):
        built.run(steps)
    assert built.details()["traces"] == {"forward": 1}
    assert built.details()["flop_per_image"] > 0 and built.work == 2


@pytest.mark.parametrize(
    "engine, precision, within",
    [
        ("openvino", "float32", 1e-5),
        ("openvino", "mixed_bfloat16", 0.1),
        ("onnx", "mixed_bfloat16", 1e-5),
    ],
)
def test_other_engines_compute_our_network(info, engine, precision, within):
    for package in formats.packages(engine):
        pytest.importorskip(package, reason=f"{package} is not installed: make export-tools")
    small = {"size": 32, "stacks": 1, "channels": 8, "depth": 1, "precision": precision}
    config = Config(records=info.folder, global_batch_size=2, **small)
    network, run = engines.load(config, engine)
    pictures = np.random.default_rng(0).uniform(-0.5, 0.5, [3, 32, 32, 3]).astype(np.float32)
    want = network(pictures, training=False)[-1].numpy()
    np.testing.assert_allclose(run(pictures), want, atol=within * np.abs(want).max())
    built = engines.inference(dataclasses.asdict(config), "", engine)
    assert built.run(2) is None and built.work == 2 and built.unit == "images"


@pytest.mark.slow
@pytest.mark.fire
def test_predicting_and_its_halves_read_every_picture_at_each_step(info, tmp_path):
    workload.prepare(str(tmp_path), info.folder, 6)
    small = dataclasses.asdict(Config(records=info.folder, size=32, stacks=1, channels=8, depth=1))
    names = ("whole", "reading", "halves", "network")
    built = {name: getattr(predicting, name)(small, str(tmp_path)) for name in names}
    for part in built.values():
        assert part.run(2) is None and part.work == 6 and part.unit == "images"
    sorted((tmp_path / "photographs").iterdir())[-1].unlink()
    built["network"].run(1)  # its crops are ready
    for name, reason in (("whole", "5 people in 6"), ("reading", "no file"), ("halves", "no file")):
        with pytest.raises((ValueError, OSError), match=reason):
            built[name].run(1)


@pytest.mark.slow
def test_a_person_of_a_photograph_is_found_at_each_step(capsys):
    many = person.ours({}, "", batch=2)
    assert many.run(2) is None and many.work == 2
    assert "pretrained/people" in capsys.readouterr().err
    pytest.importorskip("mediapipe", reason="mediapipe is not installed: docs/performance.md")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses deprecated parts of protobuf
        one = person.mediapipe_pose({}, "")
        assert one.run(2) is None and one.work == 1


TIMING = rounds.Timing(repeats=2, seconds=0.0, steps=2, limit=100)


def test_rates_follow_from_the_seconds(folder):
    settings = dataclasses.asdict(Config())
    tasks = [
        Task("decode", "ceilings.decode_opencv", settings, cores=1),
        Task("convert", "ceilings.bare_conversion", settings, {"quality": 92}),
        Task("broken", "ceilings.bare_conversion", settings, {"quality": "best"}),
        Task("absent", "peers.training", settings, needs=("a_missing_package",)),
    ]
    results = rounds.measure(tasks, folder, TIMING)
    assert list(results) == ["decode", "convert", "broken", "absent"]
    assert results["absent"] == {"failed": "a_missing_package is not installed"}
    assert results["broken"]["failed"].startswith(("error", "TypeError", "ValueError"))
    train = tfrecords.read_info(f"{folder}/records").count("train")
    for name, work in (("decode", train), ("convert", 12)):
        one = results[name]
        assert one["work"] == work and one["steps"] == 2 and len(one["seconds"]) == 2
        assert one["rates"] == pytest.approx([2 * work / s for s in one["seconds"]])
        assert one["median"] == pytest.approx(statistics.median(one["rates"]))
        assert one["peak_mb"] > 0


def test_a_part_that_does_not_answer_fails(folder):
    task = Task("decode", "ceilings.decode_opencv", dataclasses.asdict(Config()))
    timing = dataclasses.replace(TIMING, limit=0.001)
    assert rounds.measure([task], folder, timing) == {"decode": {"failed": "no answer within 0 s"}}


# ---- the command

TINY = (
    "--stacks=1",
    "--channels=8",
    "--depth=1",
    "--size=32",
    "--global_batch_size=2",
    "--strategy=one",
)


def command(*words: str) -> tuple[int, str]:
    process = start_python(str(ROOT / "scripts" / "benchmark.py"), *words)
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


@pytest.mark.slow
@pytest.mark.fire
def test_the_command(info):
    """One trace per function, and every figure follows from the medians."""
    words = ("--parts=train,end_to_end", "--nopeers", "--json", f"--records={info.folder}")
    words += ("--people=6", "--benchmark_steps=2", "--repeats=2")
    code, output = command(*TINY, *words)
    assert code == 0, output
    data = json.loads(output[output.index("\n{") :])
    about = data["environment"]
    assert {"date", "cpu", "cores", "instructions", "packages", "commit"} <= set(about)
    (group,) = data["groups"]
    measured_parts = group["parts"]
    assert group["config"]["records"] == info.folder and group["config"]["channels"] == 8
    for name in ("train", "end_to_end"):
        assert measured_parts[name]["traces"] == {"train_steps": 1}
        assert len(measured_parts[name]["rates"]) == 2 and measured_parts[name]["peak_mb"] > 0
    medians = {name: part["median"] for name, part in measured_parts.items()}
    figures = {(one["part"], one["against"]): one for one in data["figures"]}
    whole = figures["end_to_end", "train"]["reached"]
    assert whole == pytest.approx(medians["end_to_end"] / medians["train"])
    share = figures["train", "matrix product"]
    flops = medians["train"] * measured_parts["train"]["flop_per_image"] / 1e9
    assert share["reached"] == pytest.approx(flops / medians[share["compared_with"]])
    assert "data wait" in output and "images/s" in output


def test_missing_records_are_a_sentence(fork_script):
    answer = fork_script(ROOT, "scripts/benchmark.py", "--records=/nowhere/at/all")
    assert answer["code"] == 1 and "no records in /nowhere/at/all" in answer["errors"]
    assert "Traceback" not in answer["errors"]


# ---- stored sizes


def test_geometries_are_read():
    small, large = stored.geometries(["171:1.3", "362:2"])
    assert (small.side, small.context, large.side, large.context) == (171, 1.3, 362, 2.0)
    for text in ("362", "big:2", "362:"):
        with pytest.raises(ValueError):
            stored.geometries([text])


def test_padding_is_what_a_warp_of_white_crops_shows():
    """By the pipeline's own warp and draws, on crops that fill their window."""
    draws = augmentation.draw(
        augmentation.AUGMENTATIONS["newell"], 0, tf.range(64, dtype=tf.int64), 64
    )
    white = {
        "image": tf.fill([64, 125, 125, 3], tf.constant(255, tf.uint8)),
        "center": tf.fill([64, 2], 62.0),
        "side": tf.fill([64], 100.0),
    }
    draws["color"] = tf.ones_like(draws["color"])
    pictures = augmentation.images(white, 64, draws, mean=(0.0, 0.0, 0.0))[0]
    expected = 1 - float(tf.reduce_mean(pictures))
    assert stored.padding("newell", 1.25, 64) == pytest.approx(expected, abs=0.004)
    assert expected > 0.01


def test_default_records_need_no_padding_and_no_enlarging():
    default = cropping.Geometry()
    for name in stored.AUGMENTATIONS:
        assert stored.padding(name, default.context) == 0
        assert stored.enlarged(name, default.side, 256) == 0
    assert stored.padding("upright", 1.25) == 0 < stored.padding("upright", 1.1)
    assert stored.enlarged("newell", 128, 256) > 0.9 > stored.enlarged("newell", 256, 256) > 0.1


@pytest.mark.slow
@pytest.mark.fire
def test_the_command_s_stored_sizes():
    words = ("--stored=64:1.5,128:2", "--people=6", "--repeats=1", "--seconds=0", "--json")
    code, output = command(*TINY, *words)
    assert code == 0, output
    small, large = json.loads(output[output.index("\n{") :])["stored"]
    assert (small["canvas"], large["canvas"]) == (96, 256) and small["kb"] < large["kb"]
    assert small["cores_per_1000"] == pytest.approx(1000 / small["images_per_second"])
    assert "cores per" in output
