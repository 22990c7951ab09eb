"""Comparison of an export with its checkpoint: joints, PCKh, latency and size."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

import numpy as np
import rich.table
import tensorflow as tf

from pipelines.data import cropping
from pipelines.evaluation import scoring
from pipelines.evaluation.ground_truth import Truth
from pipelines.inference import forward
from pipelines.inference.options import InferenceOptions

# A peak of at least half of a perfect Gaussian's: the joint will not jump elsewhere.
CONFIDENT = 0.5

# mean14 PCKh@0.5 that an export may lose, in points.
LIMITS = {"none": 0.2, "float16": 0.2, "int8": 1.0}


class Exported:
    """A loaded export as a network: normalised pictures to a tuple of heatmaps."""

    def __init__(self, run: Callable, size: int, preprocess: bool, mean: tuple[float, ...]):
        """Wrap ``run`` of ``formats.LOAD``; with ``preprocess`` it takes uint8 pictures."""
        self.input_shape = (None, size, size, 3)
        self.run, self._preprocess, self._mean = run, preprocess, mean

    def pictures(self, images: tf.Tensor) -> tf.Tensor:
        """The export's input, from [B, size, size, 3] float32 normalised pictures."""
        if not self._preprocess:
            return images
        # The inverse of ``preprocessing.normalize``.
        levels = (images + tf.constant(self._mean, tf.float32)) * 255.0
        return tf.cast(tf.round(levels), tf.uint8)

    def __call__(self, images: tf.Tensor, training: bool = False) -> tuple[tf.Tensor]:
        """Heatmaps ([B, h, w, J] float32,)."""
        return (tf.convert_to_tensor(self.run(self.pictures(images))),)


@dataclasses.dataclass(frozen=True)
class Variant:
    """The checkpoint, or one signature of its export.

    Attributes:
      predict: like the function of ``forward.make_predict``.
      once: predicts one picture or, of a signature for photographs, one person.
    """

    predict: Callable
    once: Callable


def milliseconds(variants: dict[str, Variant], repeats: int = 15) -> dict[str, float]:
    """Median time of each ``once``, run alternately, after two warm-up rounds."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats + 2):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant.once()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(seconds[2:]) for name, seconds in times.items()}


def by_heatmaps(
    exported: Exported, picture: tf.Tensor, mirror: tuple[int, ...], options: InferenceOptions
) -> Variant:
    """An export, or the checkpoint, that returns heatmaps.

    Args:
      exported: the export.
      picture: [1, size, size, 3] float32 normalised, for timing.
      mirror: [J] permutation, ``Skeleton.mirror``.
      options: see ``InferenceOptions``.
    """

    def predict(batch: dict) -> tuple[tf.Tensor, ...]:
        return batch["index"], *forward.predict_joints(exported, batch, mirror, options)

    given = exported.pictures(picture)
    return Variant(predict, lambda: np.asarray(exported.run(given)))


def by_joints(loaded, name: str, encoded: bool, person: dict) -> Variant:
    """A SavedModel's signature for photographs, called with stored crops as photographs.

    Args:
      loaded: the SavedModel.
      name: of the signature.
      encoded: whether it takes encoded files.
      person: batch of one person, for timing.
    """
    signature = loaded.signatures[name]

    def predict(batch: dict) -> tuple[tf.Tensor, ...]:
        images, boxes = photographs(batch, encoded)
        predicted = signature(images=images, boxes=boxes)
        return batch["index"], predicted["joints"], predicted["confidences"]

    images, boxes = photographs(person, encoded)
    return Variant(predict, lambda: signature(images=images, boxes=boxes)["joints"].numpy())


def photographs(batch: dict, encoded: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Stored crops of a batch as pictures (or PNG files) and their people's boxes."""
    images = batch["image"]
    if encoded:
        images = tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string)
    return images, cropping.graph_box(batch["center"], batch["side"])


def compare(truth: Truth, size: int, reference: tuple, exported: tuple) -> dict:
    """Distances of an export's joints from the checkpoint's, and the loss of PCKh.

    Args:
      truth: of N people.
      size: side of the network input, px.
      reference: the checkpoint's joints [N, J, 2] float64 image px and confidences [N, J].
      exported: the export's.

    Returns:
      "all_image_px", "all_input_px" and "confident_input_px", each {"median", "largest"} of the
      distances; the numbers "confident" (joints for which the checkpoint's confidence is at least
      ``CONFIDENT``), "joints" and "people"; "mean14" PCKh@0.5 of the export; "loss", the
      checkpoint's mean14 minus the export's, points.
    """
    distance = np.linalg.norm(exported[0] - reference[0], axis=-1)
    in_input, confident = distance * (size / truth.side)[:, None], reference[1] >= CONFIDENT
    mean14 = scoring.mean14(exported[0], truth)
    return {
        "all_image_px": _spread(distance),
        "all_input_px": _spread(in_input),
        "confident_input_px": _spread(in_input[confident]),
        "confident": int(confident.sum()),
        "joints": int(confident.size),
        "people": len(confident),
        "mean14": mean14,
        "loss": scoring.mean14(reference[0], truth) - mean14,
    }


def _spread(distances: np.ndarray) -> dict[str, float]:
    if not distances.size:
        return {"median": float("nan"), "largest": float("nan")}
    return {"median": float(np.median(distances)), "largest": float(distances.max())}


def problem(rows: dict[str, dict], quantize: str) -> str:
    """Why an export loses too much, in one sentence; "" if it does not.

    Args:
      rows: name of a variant -> result of ``compare``.
      quantize: key of ``LIMITS``.
    """
    limit = LIMITS[quantize]
    for name, row in rows.items():
        if np.isnan(row["loss"]):
            return f"{name}: none of these people can be scored by PCKh, so no loss is known"
        if row["loss"] > limit:
            return (
                f"{name} loses {row['loss']:.3f} points of PCKh@0.5 and reaches mean14 "
                f"{row['mean14']:.2f}; with quantize={quantize} it may lose {limit}"
            )
    return ""


def table(rows: dict[str, dict], title: str) -> rich.table.Table:
    """Rows of ``compare``, with "milliseconds" and "bytes", as a table."""
    confident, joints = (next(iter(rows.values()))[key] for key in ("confident", "joints"))
    caption = (
        "Distances from the checkpoint's joints. Confident: its confidence is "
        f"{CONFIDENT} or more, as for {confident} of {joints} joints."
    )
    shown = rich.table.Table(title=title, caption=caption)
    shown.add_column("")
    distances = ("image px: median", "largest", "confident, input px: median", "largest")
    for heading in ("PCKh mean14", *distances, "ms, batch 1", "MB"):
        shown.add_column(heading, justify="right")
    for name, row in rows.items():
        parts = [row[part] for part in ("all_image_px", "confident_input_px")]
        cells = [f"{part[kind]:.3f}" for part in parts for kind in ("median", "largest")]
        cost = [f"{row['milliseconds']:.1f}", f"{row['bytes'] / 1e6:.2f}"]
        shown.add_row(name, f"{row['mean14']:.2f}", *cells, *cost)
    return shown
