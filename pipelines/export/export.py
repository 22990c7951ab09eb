"""A trained network for other programs: written, verified in its own runtime, then renamed."""

from __future__ import annotations

import dataclasses
import json
import math
import os

import numpy as np
import tensorflow as tf

from hourglass import bn_folding
from hourglass.model import STRIDE
from pipelines import checkpoints
from pipelines.data import input_pipeline, preprocessing, tfrecords
from pipelines.evaluation import evaluate, ground_truth, report
from pipelines.export import formats, signatures, verify
from pipelines.inference import forward
from pipelines.io import write_atomically

# People that int8's ranges are measured on.
CALIBRATION = 200

# A SavedModel's signatures for photographs, and whether these are files.
JOINTS = {"joints": True, "joints_of_pixels": False}

# People in one call of an export while it is verified.
BATCH = 8


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be exported, and how it is verified.

    Attributes:
      checkpoint: folder of a run, or one checkpoint.
      format: one of ``formats.FORMATS``.
      output: file, or for a SavedModel the folder that holds its version, ``1/``.
      records: record set of the same joints; its people verify the export.
      quantize: one of ``formats.QUANTIZE``.
      with_preprocessing: the network takes uint8 RGB instead of normalised float32.
      split: whose people verify.
      people: at most so many of them, evenly chosen.
      weights: "best", "averaged" or "raw".
      flip: mirror-averaged test, inside the SavedModel's joints and in verification.
      decode: one of ``heatmap.DECODERS``, or "auto": what the weights expect.
      sigma: heatmap px, of training; only "dark" needs it.
      accept_loss: keep an export that loses more than ``verify.LIMITS``.
    """

    checkpoint: str
    format: str
    output: str
    records: str
    quantize: str = "none"
    with_preprocessing: bool = False
    split: str = "validation"
    people: int = 300
    weights: str = "best"
    flip: bool = True
    decode: str = "auto"
    sigma: float = 1.0
    accept_loss: bool = False


def _check(request: Request) -> None:
    if not request.output:
        raise ValueError("--output is empty; name the file to write")
    if not request.records:
        raise ValueError(
            "--records is missing: every export is verified on people; name the record set that "
            "the network was trained on, or another of the same joints"
        )
    if request.quantize != "none" and request.format != "tflite":
        raise ValueError(
            f"--quantize={request.quantize} needs --format=tflite; {request.format} is float32"
        )
    if request.with_preprocessing and request.format == "savedmodel":
        raise ValueError(
            "--with_preprocessing is for tflite, onnx and frozen: a SavedModel's signature "
            '"joints" takes whole photographs already'
        )
    for path in (request.output, request.output + ".json"):
        if tf.io.gfile.exists(path):
            raise ValueError(f"{path} is there already; choose another --output, or delete it")
    formats.check_installed(request.format)


def _how(request: Request, info: tfrecords.DatasetInfo) -> dict:
    """Keyword arguments of ``forward.joints_of``."""
    folder, _ = checkpoints.split_place(request.checkpoint)
    mean, expected = checkpoints.read_expected(folder)
    decode = forward.decode_rule(request.decode, expected)
    how = {"flip": request.flip, "decode": decode, "sigma": request.sigma}
    return {**how, "mirror": info.skeleton.mirror, "mean": mean}


def calibration(info: tfrecords.DatasetInfo, exported: verify.Exported, mean) -> np.ndarray:
    """Pictures [N, size, size, 3] of training people, as the export takes them."""
    size = exported.input_shape[1]
    every = math.ceil(info.count("train") / CALIBRATION)
    pictures = []
    for batch in input_pipeline.evaluation(info, "train", batch=BATCH, every=every):
        images = exported.pictures(preprocessing.images(batch, size, mean=mean)[0])
        pictures.append(images[batch["index"] >= 0].numpy())
    return np.concatenate(pictures)


def write(request: Request, path: str, network, info: tfrecords.DatasetInfo, how: dict) -> str:
    """Write an export that is not verified yet.

    Args:
      request: the format, quantization and input.
      path: of the file; a SavedModel lies in its folder ``1``.
      network: to be written, from ``bn_folding.fold``.
      info: geometry of its records; people to calibrate on.
      how: see ``_how``.

    Returns:
      What the runtime loads: ``path``, or the folder in it.
    """
    function = signatures.heatmaps(network, request.with_preprocessing, how["mean"])
    if request.format == "savedmodel":
        joints = {
            name: signatures.joints(network, info.geometry, encoded, **how)
            for name, encoded in JOINTS.items()
        }
        path = os.path.join(path, "1")
        formats.write_savedmodel(path, {"heatmaps": function, **joints}, network.variables)
    elif request.format == "tflite":
        size, pictures = network.input_shape[1], None
        if request.quantize == "int8":
            like = verify.Exported(None, size, request.with_preprocessing, how["mean"])
            pictures = calibration(info, like, how["mean"])
        formats.write_tflite(path, function, request.quantize, pictures)
    else:
        {"onnx": formats.write_onnx, "frozen": formats.write_frozen}[request.format](path, function)
    return path


def _ways(request: Request, place: str, network, one: dict, how: dict) -> dict:
    """Checkpoint and export by name, each a ``verify.Way``; ``one`` is a batch of one."""
    size, mean = network.input_shape[1], how["mean"]
    picture = preprocessing.images(one, size, mean=mean)[0]
    # The checkpoint sees what the export sees: whole grey levels where that takes bytes.
    plain = signatures.heatmaps(network, request.with_preprocessing, mean)
    name = "heatmaps" if request.format == "savedmodel" else request.format
    runs = {
        "checkpoint": lambda pictures: plain(pictures)["heatmaps"],
        name: formats.LOAD[request.format](place),
    }

    def way(run) -> verify.Way:
        exported = verify.Exported(run, size, request.with_preprocessing, mean)
        given = exported.pictures(picture)
        return verify.Way(verify.by_heatmaps(exported, **how), lambda: np.asarray(run(given)))

    ways = {name: way(run) for name, run in runs.items()}
    if request.format == "savedmodel":
        loaded = tf.saved_model.load(place)
        for name, encoded in JOINTS.items():
            ways[name] = verify.by_joints(loaded, name, encoded, one)
    return ways


def compare(request: Request, place: str, network, info: tfrecords.DatasetInfo, how: dict) -> dict:
    """Compare an export with its checkpoint on people.

    Args:
      request: the format and the people.
      place: what ``write`` returned.
      network: the checkpoint's, not folded.
      info: records of its people.
      how: see ``_how``.

    Returns:
      "checkpoint" and each way to use the export -> ``verify.compare``, "milliseconds" and
      "bytes".
    """
    every = math.ceil(info.count(request.split) / request.people)
    facts = input_pipeline.facts(info, request.split, every)
    truth = ground_truth.of_records(info, request.split, facts)
    dataset = input_pipeline.evaluation(info, request.split, batch=BATCH, every=every)
    one = {key: part[:1] for key, part in next(iter(dataset)).items()}
    ways, strategy = _ways(request, place, network, one, how), tf.distribute.get_strategy()
    found = {
        name: evaluate.predict(strategy, way.predict, dataset, facts) for name, way in ways.items()
    }
    rows, size, times = {}, network.input_shape[1], verify.milliseconds(ways)
    for name in ways:
        row = verify.compare(truth, size, found["checkpoint"], found[name])
        rows[name] = {**row, "milliseconds": times[name], "bytes": formats.size_of(place)}
    rows["checkpoint"]["bytes"] = sum(v.numpy().nbytes for v in network.variables)
    return rows


def _interface(request: Request, network, how: dict) -> dict:
    """What a user of the file must know."""
    size, joints = network.input_shape[1], network.outputs[-1].shape[-1]
    pictures = f"images [B, {size}, {size}, 3] "
    pictures += "uint8 RGB" if request.with_preprocessing else "float32 RGB in [0, 1] less the mean"
    sides = f"[B, {size // STRIDE}, {size // STRIDE}, {joints}]"
    interface = {
        "mean": how["mean"],
        "heatmaps": f"{pictures} -> heatmaps {sides} float32",
        "input_px": f"(heatmap px + 0.5) * {STRIDE} - 0.5; pixel centres on integers",
    }
    if request.format == "savedmodel":
        people = f"boxes [N, 4] float32 x, y, width, height -> joints [N, {joints}, 2], confidences"
        interface["joints"] = f"images [N] JPEG or PNG, {people} [N, {joints}]"
        interface["joints_of_pixels"] = f"images [N, H, W, 3] uint8 RGB, {people} [N, {joints}]"
    return interface


def run(request: Request) -> dict:
    """Export, verify, print the table; the file and ``<output>.json`` appear only when it is good.

    Returns:
      What the JSON holds.

    Raises:
      FileNotFoundError, OSError: no checkpoint, no records, or a package that is not installed.
      ValueError: a request that contradicts itself, other joints, or an export that loses too much.
    """
    _check(request)
    info = tfrecords.read_info(request.records)
    tfrecords.check_shards(info, request.split)
    network, prefix, part = checkpoints.load_for(info, request.checkpoint, weights=request.weights)
    how, partial = _how(request, info), request.output.rstrip("/") + ".partial"
    try:
        _remove(partial)
        place = write(request, partial, bn_folding.fold(network), info, how)
        rows = compare(request, place, network, info, how)
        title = (
            f"{request.output}: {info.name} {request.split}, {rows['checkpoint']['people']} people"
        )
        report.show(verify.table(rows, title))
        loss = verify.problem(rows, request.quantize)
        if loss and not request.accept_loss:
            raise ValueError(f"{loss}; nothing was kept. --accept_loss keeps it all the same")
        document = {
            **dataclasses.asdict(request),
            **{"checkpoint": prefix, "weights": part, "decode": how["decode"]},
            "joints": info.skeleton.joints,
            "interface": _interface(request, network, how),
            "verification": rows,
            "accepted_loss": loss,
            "tensorflow": tf.__version__,
        }
        # Before the export itself: whoever finds that finds how good it is.
        text = json.dumps(report.no_nan(document), indent=1, allow_nan=False)
        write_atomically(request.output.rstrip("/") + ".json", text.encode())
        tf.io.gfile.rename(partial, request.output.rstrip("/"))
    except tf.errors.OpError as error:
        raise OSError(f"cannot write {request.output}: {error.message}") from error
    finally:
        _remove(partial)
    if loss:
        print(f"accepted all the same: {loss}")
    print(f"{prefix} ({part} weights) -> {request.output}, {request.output.rstrip('/')}.json")
    return document


def _remove(path: str) -> None:
    if tf.io.gfile.exists(path):
        tf.io.gfile.rmtree(path) if tf.io.gfile.isdir(path) else tf.io.gfile.remove(path)
