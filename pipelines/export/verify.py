"""Comparison of an export with its checkpoint: joints, PCKh, latency and size."""

from __future__ import annotations

import dataclasses
import math
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

# With fewer people that can be scored, or a lower mean14, a loss of PCKh@0.5 is chance.
FEW, LOW = 5, 10.0


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an export may change.

    Attributes:
      loss: mean14 PCKh@0.5 that it may lose, points.
      median: of all joints' distances from the checkpoint's, input px (4 are a heatmap px).
      p95: the distance that 95 % of all joints stay below, input px.
      confident: the same of 99 % of the confident joints.
      unproven: the largest distance of any joint where PCKh proves nothing, input px.
    """

    loss: float
    median: float
    p95: float
    confident: float
    unproven: float = math.inf


# One and a half times what int8 did to a trained network, 2.0, 10.0 and 6.3 px (docs/parity.md);
# none and float16 moved single doubtful joints only, less than 1 %. The limits lie between the
# decoder's steps of 2 px. A joint with two equal peaks may jump, so the largest distance is limited
# only where nothing else tells what int8 did to a network.
LIMITS = {
    "none": Limits(0.2, median=0.1, p95=1.0, confident=1.0),
    "float16": Limits(0.2, median=0.5, p95=3.0, confident=5.0),
    "int8": Limits(1.0, median=3.0, p95=15.0, confident=9.0, unproven=9.0),
}


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
      "all_image_px", "all_input_px" and "confident_input_px", each {"median", "p95", "p99",
      "largest"} of the distances; the numbers "confident" (joints for which the checkpoint's
      confidence is at least ``CONFIDENT``), "joints", "people" and "scored" (people that PCKh
      counts); "mean14" PCKh@0.5 of the export; "loss", the checkpoint's mean14 minus the export's,
      points.
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
        "scored": int((~np.isnan(scoring.errors(reference[0], truth))).any(1).sum()),
        "mean14": mean14,
        "loss": scoring.mean14(reference[0], truth) - mean14,
    }


def _spread(distances: np.ndarray) -> dict[str, float]:
    if not distances.size:
        return dict.fromkeys(("median", "p95", "p99", "largest"), float("nan"))
    shares = {"median": 0.5, "p95": 0.95, "p99": 0.99, "largest": 1.0}
    return {name: float(np.quantile(distances, share)) for name, share in shares.items()}


def problem(rows: dict[str, dict], quantize: str) -> str:
    """Why an export changes too much, in one sentence; "" if it does not.

    Where PCKh proves nothing, see ``unproven``, the joints' movement alone decides.

    Args:
      rows: "checkpoint" and the export's signatures -> result of ``compare``.
      quantize: key of ``LIMITS``.
    """
    limits, proven = LIMITS[quantize], not unproven(rows["checkpoint"])
    for name, row in rows.items():
        if proven and not row["loss"] <= limits.loss:
            return (
                f"{name} loses {row['loss']:.3f} points of PCKh@0.5 and reaches mean14 "
                f"{row['mean14']:.2f}; with quantize={quantize} it may lose {limits.loss}"
            )
        for what, moved, limit in _movements(row, limits, proven):
            if moved > limit:
                return (
                    f"{name} moves joints: {what} is {moved:.2f} input px from the checkpoint's; "
                    f"with quantize={quantize} it may be {limit}"
                )
    return ""


def _movements(row: dict, limits: Limits, proven: bool) -> list[tuple[str, float, float]]:
    """What is measured, its distance and its limit, input px; NaN without confident joints."""
    return [
        ("the median of all joints", row["all_input_px"]["median"], limits.median),
        ("the 95 % quantile of all joints", row["all_input_px"]["p95"], limits.p95),
        (
            "the 99 % quantile of confident joints",
            row["confident_input_px"]["p99"],
            limits.confident,
        ),
        (
            "the largest of all joints",
            row["all_input_px"]["largest"],
            math.inf if proven else limits.unproven,
        ),
    ]


def unproven(checkpoint: dict) -> str:
    """Why PCKh proves nothing about an export, from the checkpoint's row; "" if it does."""
    if checkpoint["scored"] < FEW:
        return f"{checkpoint['scored'] or 'none'} of these people can be scored by PCKh"
    if checkpoint["mean14"] < LOW:
        return f"the checkpoint itself reaches mean14 {checkpoint['mean14']:.2f} only"
    return ""


def weakness(checkpoint: dict) -> str:
    """What the comparison cannot show, in one sentence, from the checkpoint's row; or ""."""
    reason = unproven(checkpoint)
    if reason:
        return (
            f"{reason}, which proves nothing about the export: it is judged by the movement of "
            "its joints alone"
        )
    if not checkpoint["confident"]:
        return f"no joint has a confidence of {CONFIDENT}, so confident joints are not compared"
    return ""


def table(rows: dict[str, dict], title: str) -> rich.table.Table:
    """Rows of ``compare``, with "milliseconds" and "bytes", as a table."""
    confident, joints = (next(iter(rows.values()))[key] for key in ("confident", "joints"))
    caption = (
        "Distances from the checkpoint's joints. Confident: its confidence is "
        f"{CONFIDENT} or more, as for {confident} of {joints} joints. Exports have folded batch "
        "norms; eval_main.py scores all people, unfolded."
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
