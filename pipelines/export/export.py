"""Export a trained network: write it, verify it in its own runtime, then rename it into place."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os

import numpy as np
import tensorflow as tf

from hourglass import bn_folding, heatmap
from hourglass.model import STRIDE
from pipelines import checkpoints
from pipelines.cli import POSITIVE, option
from pipelines.data import input_pipeline, preprocessing, tfrecords
from pipelines.evaluation import evaluate, ground_truth, report
from pipelines.export import formats, signatures, verify
from pipelines.inference import openvino_engine
from pipelines.inference.options import InferenceOptions, for_weights
from pipelines.io import check_writable, read_whole, write_atomically

# People to measure int8's ranges on.
CALIBRATION = 200

# A SavedModel's signatures for photographs -> whether these are encoded files.
JOINTS = {"joints": True, "joints_of_pixels": False}

# People per call of an export while it is verified.
BATCH = 8

# A folder next to the output, with the export and a copy of its JSON until both are in place.
_PARTIAL, _EXPORT, _JSON = ".partial", "export", "verification.json"


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """The network, the file to write, and the records to verify it on.

    Attributes:
      records: with the same joints as the network; evenly spaced people of it verify the export.
      accept_loss: keep an export that loses more than ``verify.LIMITS``.
    """

    checkpoint: str = option(dataclasses.MISSING, "run or checkpoint", group="Network")
    format: str = option(dataclasses.MISSING, "file format", choices=formats.FORMATS, group="File")
    output: str = option(dataclasses.MISSING, "file (savedmodel, openvino, run: folder) to write")
    weights: str = option(
        "best", "kind of weights", choices=("best", "averaged", "raw"), group="Network"
    )
    quantize: str = option(
        "none", "quantization of tflite, openvino or run", choices=formats.QUANTIZE, group="File"
    )
    with_preprocessing: bool = option(
        False, "input is uint8 RGB; the file contains scaling and mean"
    )
    flip: bool = option(
        True,
        "average with the mirrored picture, in a SavedModel's joints too",
        group="Joints from heatmaps",
    )
    decoder: str = option(
        "auto",
        "joints from heatmaps; auto: as the weights expect",
        choices=("auto", *heatmap.DECODERS),
        formerly="decode",
    )
    sigma: float = option(
        1.0, "heatmap px, as trained; only --decoder=dark needs it", rule=POSITIVE
    )
    records: str = option(
        "", "record set to verify the export on, and to calibrate int8", group="Verification"
    )
    split: str = option("validation", "split to verify on")
    people: int = option(300, "maximum number of people to verify on", lower=1)
    accept_loss: bool = option(False, "keep an export that loses too much; its JSON records it")


def _check(options: ExportOptions) -> None:
    if not options.output:
        raise ValueError("--output is empty; name the file to write")
    if not options.records:
        raise ValueError(
            "--records is missing: every export is verified on records; name the record set that "
            "the network was trained on, or another with the same joints"
        )
    able = [kind for kind, ways in formats.QUANTIZED.items() if options.quantize in ways]
    if options.quantize != "none" and options.format not in able:
        raise ValueError(
            f"--quantize={options.quantize} needs --format={' or '.join(able)}, not "
            f"{options.format}"
        )
    if options.with_preprocessing and options.format == "savedmodel":
        raise ValueError(
            "--with_preprocessing is for the other formats: a SavedModel's signature "
            '"joints" takes whole photographs already'
        )
    if options.with_preprocessing and options.format == "run":
        raise ValueError("--with_preprocessing is for other formats: a run's mean is in model.json")
    formats.check_installed(options.format, options.quantize)


def _check_output(output: str) -> None:
    """Remove what a killed export left; ValueError for a file that is there, OSError for others."""
    _remove_leftovers(output)
    for path in (output, output + ".json"):
        if tf.io.gfile.exists(path):
            raise ValueError(f"{path} exists already; choose another --output, or delete it")
    check_writable(os.path.dirname(output))


def _inference_options(options: ExportOptions) -> InferenceOptions:
    folder, _ = checkpoints.split_path(options.checkpoint)
    expected = checkpoints.read_expected(folder)
    return for_weights(expected, flip=options.flip, decoder=options.decoder, sigma=options.sigma)


@dataclasses.dataclass(frozen=True)
class _Export:
    """What is written, and to where; the network is not folded."""

    options: ExportOptions
    path: str
    network: tf.keras.Model
    info: tfrecords.DatasetInfo
    inference: InferenceOptions

    @functools.cached_property
    def folded(self) -> tf.keras.Model:
        """The network with its batch norms folded into the convolutions."""
        return bn_folding.fold(self.network)

    def heatmaps(self):
        """The function from pictures to heatmaps."""
        mean = self.inference.mean
        return signatures.heatmaps(self.folded, self.options.with_preprocessing, mean)

    def calibration(self) -> np.ndarray | None:
        """Training people [N, size, size, 3] as the export takes them; None except for int8."""
        if self.options.quantize != "int8":
            return None
        size, mean = self.network.input_shape[1], self.inference.mean
        exported = verify.Exported(None, size, self.options.with_preprocessing, mean)
        every, pictures = math.ceil(self.info.count("train") / CALIBRATION), []
        for batch in input_pipeline.evaluation(self.info, "train", batch=BATCH, every=every):
            images = exported.pictures(preprocessing.images(batch, size, mean=mean)[0])
            pictures.append(images[batch["index"] >= 0].numpy())
        return np.concatenate(pictures)


def _write_savedmodel(export: _Export) -> str:
    joints = {
        name: signatures.joints(
            export.folded,
            export.info.geometry,
            export.info.skeleton.mirror,
            export.inference,
            encoded=encoded,
        )
        for name, encoded in JOINTS.items()
    }
    functions = {"heatmaps": export.heatmaps(), **joints}
    path = os.path.join(export.path, "1")
    formats.write_savedmodel(path, functions, export.folded.variables)
    return path


def _write_tflite(export: _Export) -> str:
    quantize = export.options.quantize
    formats.write_tflite(export.path, export.heatmaps(), quantize, export.calibration())
    return export.path


def _write_onnx(export: _Export) -> str:
    formats.write_onnx(export.path, export.heatmaps())
    return export.path


def _write_frozen(export: _Export) -> str:
    openvino_engine.write_frozen(export.path, export.heatmaps())
    return export.path


def _write_openvino(export: _Export) -> str:
    quantize = export.options.quantize
    formats.write_openvino(export.path, export.heatmaps(), quantize, export.calibration())
    return export.path


def _write_run(export: _Export) -> str:
    folder, _ = checkpoints.split_path(export.options.checkpoint)
    parts = checkpoints.read_parts(folder)
    expects = {**parts.get("expects", {}), "decode": export.inference.decoder}
    kind = tf.float16 if export.options.quantize == "float16" else tf.float32
    checkpoints.write_run(export.path, {**parts, "expects": expects}, export.network, kind=kind)
    return export.path


# Each writes an export and returns the path that its runtime, in ``formats.LOAD``, loads.
WRITE = {
    "savedmodel": _write_savedmodel,
    "tflite": _write_tflite,
    "onnx": _write_onnx,
    "frozen": _write_frozen,
    "openvino": _write_openvino,
    "run": _write_run,
}


def write(
    options: ExportOptions,
    path: str,
    network,
    info: tfrecords.DatasetInfo,
    inference: InferenceOptions,
) -> str:
    """Write an export, without verifying it.

    Args:
      options: format, quantization and input.
      path: of the file; a SavedModel is written to its subfolder ``1``.
      network: to be written, not folded.
      info: records with its geometry, and with people to calibrate on.
      inference: options of the joints.

    Returns:
      The path that the runtime loads: ``path``, or the folder in it.
    """
    return WRITE[options.format](_Export(options, path, network, info, inference))


def _variants(
    options: ExportOptions, path: str, network, mirror, person: dict, inference: InferenceOptions
) -> dict[str, verify.Variant]:
    """Checkpoint and export by name; ``person`` is a batch of one person."""
    size, mean = network.input_shape[1], inference.mean
    picture = preprocessing.images(person, size, mean=mean)[0]
    # The checkpoint gets the export's input: whole grey levels if that is uint8.
    plain = signatures.heatmaps(network, options.with_preprocessing, mean)
    name = "heatmaps" if options.format == "savedmodel" else options.format
    runs = {
        "checkpoint": lambda pictures: plain(pictures)["heatmaps"],
        name: formats.LOAD[options.format](path),
    }
    variants = {}
    for name, run in runs.items():
        exported = verify.Exported(run, size, options.with_preprocessing, mean)
        variants[name] = verify.by_heatmaps(exported, picture, mirror, inference)
    if options.format == "savedmodel":
        loaded = tf.saved_model.load(path)
        for name, encoded in JOINTS.items():
            variants[name] = verify.by_joints(loaded, name, encoded, person)
    return variants


def compare(
    options: ExportOptions,
    path: str,
    network,
    info: tfrecords.DatasetInfo,
    inference: InferenceOptions,
) -> dict:
    """Compare an export with its checkpoint on people of the records.

    Args:
      options: the format and the people.
      path: what ``write`` returned.
      network: the checkpoint's, not folded.
      info: the records.
      inference: options of the joints.

    Returns:
      "checkpoint" and each signature of the export -> ``verify.compare``, "milliseconds" and
      "bytes".
    """
    every = math.ceil(info.count(options.split) / options.people)
    labels = input_pipeline.labels(info, options.split, every)
    truth = ground_truth.of_records(info, options.split, labels)
    dataset = input_pipeline.evaluation(info, options.split, batch=BATCH, every=every)
    person = {key: part[:1] for key, part in next(iter(dataset)).items()}
    variants = _variants(options, path, network, info.skeleton.mirror, person, inference)
    strategy = tf.distribute.get_strategy()
    predicted = {
        name: evaluate.predict(strategy, variant.predict, dataset, labels)
        for name, variant in variants.items()
    }
    rows, size, times = {}, network.input_shape[1], verify.milliseconds(variants)
    for name in variants:
        row = verify.compare(truth, size, predicted["checkpoint"], predicted[name])
        rows[name] = {**row, "milliseconds": times[name], "bytes": formats.size_of(path)}
    rows["checkpoint"]["bytes"] = sum(v.numpy().nbytes for v in network.variables)
    return rows


def _interface(options: ExportOptions, network, mean: tuple[float, ...]) -> dict:
    """Inputs and outputs, documented for users of the file."""
    size, joints = network.input_shape[1], network.outputs[-1].shape[-1]
    pictures = f"images [B, {size}, {size}, 3] "
    pictures += "uint8 RGB" if options.with_preprocessing else "float32 RGB in [0, 1] less the mean"
    shape = f"[B, {size // STRIDE}, {size // STRIDE}, {joints}]"
    interface = {
        "mean": mean,
        "heatmaps": f"{pictures} -> heatmaps {shape} float32",
        "input_px": f"(heatmap px + 0.5) * {STRIDE} - 0.5; pixel centres on integers",
    }
    if options.format == "savedmodel":
        people = f"boxes [N, 4] float32 x, y, width, height -> joints [N, {joints}, 2], confidences"
        interface["joints"] = f"images [N] JPEG or PNG, {people} [N, {joints}]"
        interface["joints_of_pixels"] = f"images [N, H, W, 3] uint8 RGB, {people} [N, {joints}]"
    return interface


def _judge(options: ExportOptions, name: str, people: int, rows: dict) -> tuple[str, str]:
    """Print the table; return sentences about an accepted loss and what the comparison cannot show.

    Each may be "". Raises ValueError for a loss that is not accepted.
    """
    shown = f"{rows['checkpoint']['people']} of {people} people"
    report.show(verify.table(rows, f"{options.output}: {name} {options.split}, {shown}"))
    weakness = verify.weakness(rows["checkpoint"])
    if weakness:
        print(f"note: {weakness}")
    loss = verify.problem(rows, options.quantize)
    if loss and not options.accept_loss:
        raise ValueError(f"{loss}; the export was deleted. --accept_loss keeps it")
    return loss, weakness


def run(options: ExportOptions) -> dict:
    """Export, verify, print the table; the file and ``<output>.json`` appear only on success.

    Returns:
      The contents of the JSON.

    Raises:
      FileNotFoundError, OSError: no checkpoint, no records, an output that cannot be written, or a
        package that is not installed.
      ValueError: options that contradict each other, other joints, or an export that loses too
        much.
    """
    _check(options)
    output = options.output.rstrip("/")
    _check_output(output)
    info = tfrecords.read_info(options.records)
    tfrecords.check_shards(info, options.split)
    network, prefix, part = checkpoints.load_for(info, options.checkpoint, weights=options.weights)
    inference, work = _inference_options(options), output + _PARTIAL
    try:
        tf.io.gfile.makedirs(work)
        written = os.path.join(work, _EXPORT)
        path = write(options, written, network, info, inference)
        rows = compare(options, path, network, info, inference)
        loss, weakness = _judge(options, info.name, info.count(options.split), rows)
        document = {
            **dataclasses.asdict(options),
            **{"checkpoint": prefix, "weights": part, "decoder": inference.decoder},
            "joints": info.skeleton.joints,
            "interface": _interface(options, network, inference.mean),
            "verification": rows,
            "accepted_loss": loss,
            "weakness": weakness,
            "tensorflow": tf.__version__,
        }
        text = json.dumps(report.no_nan(document), indent=1, allow_nan=False).encode()
        # Before the export itself, which never exists without its verification; the copy tells
        # that the JSON is this export's, should this process be killed between them.
        write_atomically(os.path.join(work, _JSON), text)
        write_atomically(output + ".json", text)
        tf.io.gfile.rename(written, output)
    except tf.errors.OpError as error:
        raise OSError(f"cannot write {options.output}: {error.message}") from error
    finally:
        _remove_leftovers(output)
    if loss:
        print(f"accepted: {loss}")
    print(f"{prefix} ({checkpoints.kind_of(part)} weights) -> {options.output}, {output}.json")
    return document


def _remove_leftovers(output: str) -> None:
    """Remove the work folder of an export, and its JSON if the export itself did not appear."""
    work, published = output + _PARTIAL, output + ".json"
    own = os.path.join(work, _JSON)
    if tf.io.gfile.exists(own) and tf.io.gfile.exists(published):
        if not tf.io.gfile.exists(output) and read_whole(own) == read_whole(published):
            tf.io.gfile.remove(published)
    if tf.io.gfile.exists(work):
        tf.io.gfile.rmtree(work) if tf.io.gfile.isdir(work) else tf.io.gfile.remove(work)
