"""Exports: the graph's crop, each format in its own runtime, and rejected options.

The exports are of the tiny trained network, on people with its predictions as true joints: the
checkpoint scores 100, and an export of anything else less.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import io
import json
import pathlib
import warnings

import numpy as np
import pytest
import tensorflow as tf

from hourglass import affine, model
from hourglass.skeleton import MPII
from pipelines import checkpoints
from pipelines.data import cropping, input_pipeline, preprocessing, tfrecords
from pipelines.data.annotations import LABELLED
from pipelines.evaluation import evaluate
from pipelines.evaluation.ground_truth import Truth
from pipelines.export import export, formats, signatures, verify
from pipelines.inference import forward
from pipelines.inference.options import InferenceOptions
from pipelines.training import train
from tests.helpers.people import GEOMETRY, TRAIN, VALIDATION, draw_person, tiny

OPTIONS = InferenceOptions()


def needs(kind: str, quantize: str = "none") -> None:
    for package in formats.packages(kind, quantize):
        pytest.importorskip(package, reason=f"{package} is not installed: make export-tools")


# --- the crop inside the graph ---


def test_box_and_person_are_each_others_inverse():
    # Two pixels wide, three high, from pixel (10, 20) on: they are 10, 11 and 20, 21, 22.
    center, side = cropping.graph_square(tf.constant([10.0, 20.0, 2.0, 3.0]))
    assert center.numpy().tolist() == [10.5, 21.0] and float(side) == 1.25 * 3
    box = cropping.graph_box(tf.constant([[10.5, 21.0]]), tf.constant([40.0]))
    assert box.numpy().tolist() == [[-5.0, 5.5, 32.0, 32.0]]
    center, side = cropping.graph_square(box)
    assert center.numpy().tolist() == [[10.5, 21.0]] and side.numpy().tolist() == [40.0]


@pytest.mark.parametrize(
    "center, side",
    [
        ((100.0, 110.0), 150.0),  # shrunk
        ((100.3, 109.8), 61.7),  # kept
        ((3.0, 215.0), 120.0),  # beyond two borders
        ((198.0, 2.0), 63.2),  # beyond the other two
        ((90.0, 100.0), 900.0),  # the photograph is a small part of it
    ],
)
def test_graph_crops_as_the_records_are_cropped(center, side):
    photograph, person = draw_person(3, "train", 0, MPII)
    person = dataclasses.replace(person, center=np.array(center), side=side)
    want, crop_to_image = cropping.crop(photograph, person, GEOMETRY)
    box = cropping.graph_box(tf.constant([center], tf.float32), tf.constant([side]))[0]
    image, where, width, matrix = (
        x.numpy() for x in cropping.graph_crop(photograph, box, GEOMETRY)
    )
    n, canvas = len(want), GEOMETRY.canvas
    assert image.shape == (canvas + 1, canvas + 1, 3) and image.dtype == np.uint8
    difference = np.abs(image[:n, :n].astype(int) - want)
    assert difference.max() <= 1 and difference.mean() < 0.01  # averages of exactly .5
    assert not image[n:].any() and not image[:, n:].any()
    np.testing.assert_allclose(matrix, crop_to_image, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(where, cropping.to_crop(person.center, crop_to_image), atol=1e-4)
    np.testing.assert_allclose(width, side / crop_to_image[0, 0], rtol=1e-6)


def test_stored_crops_come_through_the_graph_unshrunk(info):
    """Verification shows stored crops as photographs: every pixel must arrive as it is."""
    for batch in input_pipeline.evaluation(info, "validation", batch=VALIDATION):
        images, boxes = verify.photographs(batch, encoded=False)
        for image, box, center in zip(images, boxes, batch["center"]):
            cut, where, _, crop_to_image = cropping.graph_crop(image, box, GEOMETRY)
            assert crop_to_image[0, 0] == 1.0
            np.testing.assert_allclose(affine.apply(crop_to_image, where[None])[0], center, 1e-5)
            x, y = np.rint(crop_to_image[:, 2]).astype(int)
            assert (x, y) == (0, 0) or abs(x) <= 1 and abs(y) <= 1
            inside = (slice(1, -2), slice(1, -2))
            moved = np.roll(image, (-y, -x), (0, 1))
            assert (cut[:-1, :-1].numpy()[inside] == moved[inside]).all()


@pytest.mark.parametrize(
    "box, words",
    [
        ((10, 10, 0, 20), "both positive"),
        ((10, 10, 20, -3), "both positive"),
        ((float("nan"), 10, 20, 20), "both positive"),
        ((200, 10, 20, 20), "overlap"),
        ((-20, 10, 20, 20), "overlap"),
        ((0, 0, 8000, 8000), "at most 16384"),
    ],
)
def test_boxes_that_cannot_be_are_rejected(box, words):
    photograph, _ = draw_person(3, "train", 0, MPII)  # 200 x 220
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        cropping.graph_crop(photograph, tf.constant(box, tf.float32), GEOMETRY)


@pytest.fixture(scope="module")
def network() -> tf.keras.Model:
    return model.build(joints=len(MPII), stacks=2, channels=8, depth=1, size=32)


def photographs(kind: str, count: int = 4) -> tuple[list[bytes], np.ndarray, list]:
    """Files, their people's boxes, and (pixels as decoded, person)."""
    files, boxes, people = [], [], []
    for k in range(count):
        photograph, person = draw_person(k, "train", k, MPII)
        if k == 1:
            photograph = photograph[:, 40:150]  # another size, and the person leaves the picture
        encode = tf.io.encode_png if kind == "png" else tf.io.encode_jpeg
        files.append(encode(photograph).numpy())
        pixels = tf.io.decode_image(files[-1], channels=3).numpy() if kind == "png" else None
        if kind == "jpeg":
            pixels = tf.io.decode_jpeg(files[-1], dct_method="INTEGER_ACCURATE").numpy()
        boxes.append(
            cropping.graph_box(tf.constant(person.center, tf.float32), np.float32(person.side))
        )
        people.append((pixels, person))
    return files, np.stack(boxes), people


def expected(network, people: list) -> tuple[np.ndarray, np.ndarray]:
    """Joints [N, J, 2] image px and confidences by the road of records and evaluation."""
    joints, confidences = [], []
    for pixels, person in people:
        square, crop_to_image = cropping.crop(pixels, person, GEOMETRY)
        batch = {
            "image": tf.constant(square[None]),
            "center": tf.constant(cropping.to_crop(person.center, crop_to_image)[None], tf.float32),
            "side": tf.constant([person.side / crop_to_image[0, 0]], tf.float32),
        }
        points, peaks = forward.predict_joints(network, batch, MPII.mirror, OPTIONS)
        joints.append(cropping.to_image(points.numpy().astype(float), crop_to_image[None])[0])
        confidences.append(peaks[0].numpy())
    return np.stack(joints), np.stack(confidences)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_joints_of_files_are_those_of_records(network, kind):
    files, boxes, people = photographs(kind)
    signature = signatures.joints(network, GEOMETRY, MPII.mirror, OPTIONS, encoded=True)
    predicted = signature(tf.constant(files), tf.constant(boxes))
    joints, confidences = expected(network, people)
    np.testing.assert_allclose(predicted["confidences"], confidences, atol=2e-3)
    distance = np.linalg.norm(predicted["joints"] - joints, axis=-1)
    # A grey level of rounding may move the top of an untrained network's heatmap.
    assert np.median(distance) < 1e-3 and (distance < 0.01).mean() > 0.9, distance


# --- what is compared ---


def test_comparison_by_hand():
    """Two people with a crop of 64 image px each; input 32 px."""
    joints = np.full([2, 16, 2], 20.0)
    truth = Truth(
        name="by hand",
        split="validation",
        skeleton=MPII,
        origin=0,
        head_rule="",
        ids=None,
        images=("a", "b"),
        joints=joints,
        state=np.full([2, 16], LABELLED),
        head_size=np.array([4.0, np.nan]),
        side=np.array([64.0, 64.0]),
        pooled_joints=joints,
    )
    predicted = joints.copy()
    predicted[0, 0] += (3.0, 4.0)  # 5 image px, 2.5 input px; more than half a head
    predicted[1, 1] += (0.0, 1.0)
    confidence = np.full([2, 16], 0.49)
    confidence[0, :2] = 0.5
    row = verify.compare(truth, 32, (joints, confidence), (predicted, confidence))
    nearly = {"p95": pytest.approx(1.25 + 0.45 * 2.5), "p99": pytest.approx(1.25 + 0.49 * 2.5)}
    assert row["all_image_px"]["median"] == 0.0 and row["all_image_px"]["largest"] == 5.0
    assert row["all_input_px"]["median"] == 0.0 and row["all_input_px"]["largest"] == 2.5
    assert row["confident_input_px"] == {"median": 1.25, "largest": 2.5, **nearly}
    assert (row["confident"], row["joints"], row["people"], row["scored"]) == (2, 32, 2, 1)
    # Of 14 joints of the one person with a head size, the right ankle is lost.
    assert row["mean14"] == pytest.approx(100 * 13 / 14)
    assert row["loss"] == pytest.approx(100 / 14)


@pytest.mark.parametrize(
    "loss, quantize, rejected",
    [(0.2, "none", 0), (0.21, "none", 1), (0.9, "int8", 0), (1.1, "int8", 1), (-5, "float16", 0)],
)
def test_limits(loss, quantize, rejected):
    rows = {"checkpoint": row_of(), "x": row_of(loss=loss, mean14=80 - loss)}
    assert bool(verify.problem(rows, quantize)) == bool(rejected)


def row_of(**changes) -> dict:
    """A row of ``verify.compare`` in which nothing moved; distances by name, such as all_p95."""
    names = ("all_median", "all_p95", "all_largest", "confident_p99")
    moved = {name: changes.pop(name, 0.0) for name in names}
    row = {"loss": 0.0, "mean14": 80.0, "scored": 300, "confident": 4000, **changes}
    row["all_input_px"] = {name: moved[f"all_{name}"] for name in ("median", "p95", "largest")}
    return {**row, "confident_input_px": {"p99": moved["confident_p99"]}}


@pytest.mark.parametrize("quantize", formats.QUANTIZE)
@pytest.mark.parametrize(
    "name, field, words",
    [
        ("all_median", "median", "the median of all joints"),
        ("all_p95", "p95", "the 95 % quantile of all joints"),
        ("confident_p99", "confident", "the 99 % quantile of confident joints"),
    ],
)
def test_limits_of_movement(quantize, name, field, words):
    limit = getattr(verify.LIMITS[quantize], field)
    rows = {"checkpoint": row_of(), "x": row_of(**{name: limit})}
    assert verify.problem(rows, quantize) == ""
    rows["x"] = row_of(**{name: limit + 0.01})
    assert f"x moves joints: {words} is" in verify.problem(rows, quantize)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"scored": 0, "mean14": np.nan, "loss": np.nan}, "none of these people can be scored"),
        ({"scored": 4}, "4 of these people can be scored"),
        ({"mean14": 0.0}, "the checkpoint itself reaches mean14 0.00"),
    ],
)
def test_pckh_that_proves_nothing(changes, words):
    """Neither a loss nor its absence counts then; the joints' movement does."""
    rows = {"checkpoint": row_of(**changes), "x": row_of(**{**changes, "loss": 4.0})}
    assert words in verify.weakness(rows["checkpoint"])
    assert "by the movement of its joints alone" in verify.weakness(rows["checkpoint"])
    assert verify.problem(rows, "int8") == ""
    rows["x"] = row_of(**changes, all_p95=427.0)
    assert "moves joints" in verify.problem(rows, "int8")


def test_one_joint_that_jumps_counts_where_pckh_proves_nothing():
    """Of an untrained network: a joint moved 427 px, and the file passed."""
    jump, untrained = row_of(all_largest=427.0), {"mean14": 0.0}
    assert verify.problem({"checkpoint": row_of(), "x": jump}, "int8") == ""
    rows = {"checkpoint": row_of(**untrained), "x": {**jump, **untrained}}
    assert "x moves joints: the largest of all joints is 427.00" in verify.problem(rows, "int8")
    assert verify.problem(rows, "none") == ""


def test_no_confident_joint():
    nothing = row_of(confident=0, confident_p99=np.nan)
    assert "no joint has a confidence of 0.5" in verify.weakness(nothing)
    assert verify.problem({"checkpoint": nothing, "x": nothing}, "none") == ""
    assert verify.weakness(row_of()) == ""


# --- exports of the trained network ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory, info):
    """A finished run of more channels than the other tests': of eight, whole layers die."""
    config = tiny(tmp_path_factory.mktemp("trained") / "run", info, stacks=2, channels=16)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert train.run(config) == 0
    return config, printed.getvalue()


@pytest.fixture(scope="module")
def known(tmp_path_factory, trained, info) -> str:
    """Records of the drawn people with the network's predictions as true joints."""
    network, *_ = checkpoints.load_network(trained[0].workdir)
    strategy = tf.distribute.get_strategy()
    predict = forward.make_predict(strategy, network, MPII.mirror, OPTIONS)
    dataset, labels = (
        input_pipeline.evaluation(info, "validation", batch=5),
        input_pipeline.labels(info, "validation"),
    )
    predicted, _ = evaluate.predict(strategy, predict, dataset, labels)

    def draw(k, split, row, skeleton):
        image, person = draw_person(k, split, row, skeleton)
        if split == "validation":
            state = np.full(len(skeleton), LABELLED, np.uint8)
            person = dataclasses.replace(person, joints=predicted[row], state=state)
        return image, person

    from tests.helpers.people import write_records

    counts = {"train": TRAIN, "validation": VALIDATION}
    return write_records(tmp_path_factory.mktemp("known") / "records", counts, draw=draw)[0].folder


@pytest.fixture(scope="module")
def ask_in(trained, known):
    """A function that makes ExportOptions for the trained network, to be written in a folder."""

    def make(folder: pathlib.Path, kind: str, **changes) -> export.ExportOptions:
        options = export.ExportOptions(
            trained[0].workdir, kind, str(folder / f"pose.{kind}"), records=known
        )
        return dataclasses.replace(options, **changes)

    return make


@pytest.fixture
def ask(tmp_path, ask_in):
    return functools.partial(ask_in, tmp_path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, ask_in):
    """A function: an export's folder, its options and what it printed; each made once."""

    @functools.cache
    def make(kind: str, *changes) -> tuple[pathlib.Path, export.ExportOptions, str]:
        needs(kind, dict(changes).get("quantize", "none"))
        folder = tmp_path_factory.mktemp("exported")
        options = ask_in(folder, kind, **dict(changes))
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            export.run(options)
        return folder, options, printed.getvalue()

    return make


def left(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


CASES = [
    ("frozen", {}),
    ("tflite", {"quantize": "float16", "with_preprocessing": True}),
    ("onnx", {"with_preprocessing": True}),
    ("savedmodel", {}),
    ("openvino", {"quantize": "float16", "with_preprocessing": True}),
    ("run", {"quantize": "float16"}),
]
MORE = [
    ("frozen", {"with_preprocessing": True}),
    ("tflite", {}),
    ("onnx", {}),
    ("openvino", {}),
    ("run", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, changes", [*CASES, *(pytest.param(*one, marks=pytest.mark.fire) for one in MORE)]
)
def test_export_equals_its_checkpoint(exported, trained, kind, changes):
    folder, options, printed = exported(kind, *changes.items())
    assert left(folder) == [f"pose.{kind}", f"pose.{kind}.json"]
    report = json.loads((folder / f"pose.{kind}.json").read_text())
    rows = report["verification"]
    signatures = ["heatmaps", "joints", "joints_of_pixels"]
    ways = signatures if kind == "savedmodel" else [kind]
    # The truth is what the checkpoint finds, in pictures that are not rounded to grey levels.
    best = rows["checkpoint"]["mean14"]
    assert list(rows) == ["checkpoint", *ways]
    assert best > 95 if options.with_preprocessing else best == 100.0
    for way, row in rows.items():
        assert row["people"] == VALIDATION and row["joints"] == VALIDATION * len(MPII)
        assert row["mean14"] == best and row["loss"] == 0.0, way
        assert row["all_input_px"]["median"] < 1e-3, way
        assert row["milliseconds"] > 0 and row["bytes"] > 0
        assert way in printed
    assert report["accepted_loss"] == "" and report["joints"] == list(MPII.joints)

    path = options.output + ("/1" if kind == "savedmodel" else "")
    pictures = np.random.default_rng(0).integers(0, 256, [3, 32, 32, 3], np.uint8)
    given = pictures if options.with_preprocessing else preprocessing.normalize(pictures).numpy()
    network, *_ = checkpoints.load_network(trained[0].workdir)
    want = network(preprocessing.normalize(pictures), training=False)[-1].numpy()
    within = 2e-3 if options.quantize == "float16" else 1e-5
    np.testing.assert_allclose(formats.LOAD[kind](path)(given), want, atol=within)
    np.testing.assert_allclose(formats.LOAD[kind](path)(given[:1]), want[:1], atol=within)


@pytest.mark.slow
def test_a_run_is_predicted_and_continued_from(exported, trained):
    """One set of weights in half the bytes, and the decoder that it was exported with."""
    # The truth is what another decoder found: 8 people's PCKh says nothing about this one.
    changes = (("quantize", "float16"), ("decoder", "subpixel"), ("accept_loss", True))
    folder = str(exported("run", *changes)[0] / "pose.run")
    network, skeleton, prefix, part = checkpoints.load_network(folder)
    stored = checkpoints.values(prefix, part)
    assert skeleton == MPII and part == "model"
    kinds = {(array.ndim > 1, array.dtype.name) for array in stored.values()}
    assert kinds == {(True, "float16"), (False, "float32")}
    assert set(stored) == set(checkpoints.by_name(network.variables))
    assert checkpoints.read_expected(folder) == (preprocessing.MEAN, "subpixel")
    assert checkpoints.read_geometry(folder) == checkpoints.read_geometry(trained[0].workdir)
    fresh = model.build(**checkpoints.read_network(folder)[0])
    checkpoints.start_from(prefix, fresh, set())
    for ours, theirs in zip(fresh.variables, network.variables):
        assert ours.dtype == tf.float32
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.slow
def test_savedmodel_serves_photographs_without_this_project(
    exported, tmp_path, trained, run_python
):
    """In a process that has TensorFlow alone: files and boxes in, image px out."""
    path = exported("savedmodel")[0] / "pose.savedmodel"
    assert left(path) == ["1"]
    files, boxes, people = photographs("jpeg")
    for k, data in enumerate(files):
        (tmp_path / f"{k}.jpg").write_bytes(data)
    output = run_python(f"""
import json, sys, tensorflow as tf
model = tf.saved_model.load({str(path / "1")!r})
assert sorted(model.signatures) == ["heatmaps", "joints", "joints_of_pixels"]
functions = model.signatures["joints"].graph.as_graph_def().library.function
assert functions and not any(one.attr["_XlaMustCompile"].b for one in functions)
files = tf.stack([tf.io.read_file(f"{tmp_path}/{{k}}.jpg") for k in range({len(files)})])
predicted = model.signatures["joints"](images=files, boxes=tf.constant({boxes.tolist()}))
assert not {{"hourglass", "pipelines", "tensorflow_addons"}} & set(sys.modules)
print("FOUND" + json.dumps(predicted["joints"].numpy().tolist()))
""")
    predicted = np.array(json.loads(output.split("FOUND")[1]))
    network, *_ = checkpoints.load_network(trained[0].workdir)
    joints, _ = expected(network, people)
    distance = np.linalg.norm(predicted - joints, axis=-1)
    assert np.median(distance) < 1e-3 and (distance < 0.01).mean() > 0.9, distance


@pytest.mark.slow
def test_openvino_takes_any_batch_by_the_names_of_onnx(exported):
    """By OpenVINO's own means, which find the weights next to the graph."""
    folder = exported("openvino")[0] / "pose.openvino"
    assert left(folder) == ["model.bin", "model.xml"]
    network = importlib.import_module("openvino").Core().read_model(folder / "model.xml")
    (pictures,), (heatmaps,) = network.inputs, network.outputs
    assert pictures.names == {"images"} and str(pictures.partial_shape) == "[?,32,32,3]"
    assert heatmaps.names == {"heatmaps"} and str(heatmaps.partial_shape) == "[?,8,8,16]"
    halved = exported("openvino", ("quantize", "float16"))[0] / "pose.openvino" / "model.bin"
    assert halved.stat().st_size < 0.6 * (folder / "model.bin").stat().st_size


@pytest.mark.slow
def test_openvino_computes_every_convolution_in_int8(exported, trained):
    changes = ("quantize", "int8"), ("with_preprocessing", True), ("accept_loss", True)
    path = exported("openvino", *changes)[0] / "pose.openvino"
    graph = (path / "model.xml").read_text()
    assert graph.count('element_type="i8"') == graph.count('type="Convolution"') > 40
    pictures = np.random.default_rng(0).integers(0, 256, [3, 32, 32, 3], np.uint8)
    network, *_ = checkpoints.load_network(trained[0].workdir)
    want = network(preprocessing.normalize(pictures), training=False)[-1].numpy()
    heatmaps = formats.load_openvino(str(path))(pictures)
    assert np.abs(heatmaps - want).max() < 0.2 * np.ptp(want)  # measured: 0.13


@pytest.mark.slow
def test_int8_of_a_dead_layer_is_rejected_where_it_aborts(tmp_path):
    """TensorFlow Lite 2.15 does, and this process would be gone; 2.21 computes it right."""
    scale = tf.constant([3.0, 2.0])

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 2], tf.float32)])
    def dead(images):
        return {"heatmaps": tf.nn.relu(images * scale - 100.0) + images}

    pictures = np.random.default_rng(0).uniform(0, 1, [4, 8, 8, 2]).astype(np.float32)
    path = tmp_path / "dead.tflite"
    if not tf.__version__.startswith("2.15."):
        formats.write_tflite(str(path), dead, "int8", pictures)
        np.testing.assert_allclose(formats.load_tflite(str(path))(pictures), pictures, atol=0.01)
        return
    with pytest.raises(ValueError, match="cannot run the int8 file .* the same output for all"):
        formats.write_tflite(str(path), dead, "int8", pictures)
    assert not path.exists()


@pytest.mark.slow
def test_int8_loss_is_rejected_unless_accepted(ask, tmp_path):
    """A network trained for seconds does not survive 8 bits: a real loss."""
    options = ask("tflite", quantize="int8")
    with pytest.raises(ValueError, match=r"loses .* points .* may lose 1.0.*--accept_loss"):
        export.run(options)
    assert left(tmp_path) == []
    report = export.run(dataclasses.replace(options, accept_loss=True))
    assert "loses" in report["accepted_loss"]
    assert left(tmp_path) == ["pose.tflite", "pose.tflite.json"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 2.21 recommends another package
        details = tf.lite.Interpreter(options.output).get_tensor_details()
    kernels = [d for d in details if d["dtype"] == np.int8 and len(d["shape"]) == 4]
    assert len(kernels) > 10  # else nothing was quantised


@pytest.mark.slow
def test_spoiled_export_is_found_out(ask, tmp_path, known):
    """Two joints' heatmaps exchanged between reading the checkpoint and writing the file."""
    options, info = ask("frozen"), tfrecords.read_info(known)
    network, *_ = checkpoints.load_network(options.checkpoint)
    spoiled, *_ = checkpoints.load_network(options.checkpoint)
    heads = [layer for layer in spoiled.layers if layer.name.endswith("_heatmaps")]
    kernel, bias = heads[-1].get_weights()
    order = np.arange(len(MPII))
    order[[0, 9]] = order[[9, 0]]  # right ankle and head top
    heads[-1].set_weights([kernel[..., order], bias[order]])
    path = export.write(options, str(tmp_path / "spoiled"), spoiled, info, OPTIONS)
    rows = export.compare(options, path, network, info, OPTIONS)
    assert rows["checkpoint"]["mean14"] == 100.0
    assert rows["frozen"]["all_input_px"]["largest"] > 1
    assert "frozen loses" in verify.problem(rows, "none")


# --- options rejected before any work ---


@pytest.mark.parametrize(
    "kind, changes, words",
    [
        ("onnx", {"quantize": "float16"}, "=float16 needs --format=tflite or openvino or run, not"),
        ("savedmodel", {"quantize": "int8"}, "=int8 needs --format=tflite or openvino, not"),
        ("savedmodel", {"with_preprocessing": True}, "--with_preprocessing is for"),
        ("run", {"with_preprocessing": True}, "--with_preprocessing is for other formats: a run's"),
        ("frozen", {"records": ""}, "--records is missing"),
        ("frozen", {"output": ""}, "--output is empty"),
        ("frozen", {"split": "test"}, "no people in the split 'test'"),
    ],
)
def test_options_that_contradict_themselves(ask, tmp_path, kind, changes, words):
    needs(kind)
    with pytest.raises(ValueError, match=words):
        export.run(ask(kind, **changes))
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", ["pose.frozen", "pose.frozen.json"])
def test_nothing_is_overwritten(ask, tmp_path, name):
    (tmp_path / name).write_text("here first")
    with pytest.raises(ValueError, match="exists already"):
        export.run(ask("frozen"))
    assert (tmp_path / name).read_text() == "here first" and left(tmp_path) == [name]


def test_records_of_other_joints_are_rejected(ask, own_records):
    from hourglass.skeleton import LSP

    other = own_records(skeleton=LSP, counts={"train": 3, "validation": 3})
    with pytest.raises(ValueError, match="16 joints .* have 14.*records of the same joints"):
        export.run(ask("frozen", records=other.folder))


@pytest.mark.slow
@pytest.mark.fire
def test_int8_of_an_untrained_network_is_judged_by_movement(ask, tmp_path, info, capsys):
    """After 12 steps it finds no drawn joint: no PCKh can be lost, but joints jump."""
    with pytest.raises(ValueError, match="tflite moves joints: .* of all joints .*--accept_loss"):
        export.run(ask("tflite", quantize="int8", records=info.folder))
    printed = " ".join(capsys.readouterr().out.split())
    assert "note: the checkpoint itself reaches mean14" in printed
    assert left(tmp_path) == []


@pytest.mark.slow
def test_people_without_head_size_leave_the_movement(ask, own_records, tmp_path):
    def draw(k, split, row, skeleton):
        image, person = draw_person(k, split, row, skeleton)
        return image, dataclasses.replace(person, head_size=np.nan)

    unscored = own_records(counts={"train": 3, "validation": 3}, draw=draw)
    options = ask("frozen", records=unscored.folder)
    report = export.run(options)
    text = (tmp_path / "pose.frozen.json").read_text()
    assert json.loads(text)["verification"]["frozen"]["loss"] is None
    assert report["weakness"].startswith("none of these people can be scored by PCKh")
    assert report["accepted_loss"] == ""


# --- the command: tests/test_readme.py runs it ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, quantize, package",
    [
        ("onnx", "none", "tf2onnx"),
        ("onnx", "none", "onnxruntime"),
        ("openvino", "float16", "openvino"),
        ("openvino", "int8", "nncf"),
    ],
)
def test_missing_package_is_one_sentence(ask, fork_script, tmp_path, kind, quantize, package):
    options = ask(kind, quantize=quantize)
    (tmp_path / "without.py").write_text(f"""
import sys
sys.modules[{package!r}] = None
from pipelines import cli
from pipelines.export import export
options = export.ExportOptions(**{dataclasses.asdict(options)!r})
sys.exit(cli.answer(lambda: export.run(options)))
""")
    answer = fork_script(tmp_path, "without.py")
    assert answer["code"] == 1 and answer["errors"].startswith("error: ")
    assert "make export-tools" in answer["errors"] and "Traceback" not in answer["errors"]


def test_every_format_is_written_and_loaded():
    assert set(export.WRITE) == set(formats.LOAD) == set(formats.FORMATS)
