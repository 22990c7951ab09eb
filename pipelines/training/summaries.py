"""What TensorBoard shows of a run."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from hourglass.skeleton import Skeleton
from pipelines.config import Config
from pipelines.evaluation import samples, scoring
from pipelines.training.event_files import EventFile, validation_tag
from pipelines.visualization import curves, draw

# Logged for a validation besides PCKh@0.5 by joint group; eval_main.py prints all measures.
_MEASURES = ("PCKh@0.1", "AUC", "PCK@0.2 torso")

# By which runs are compared in the HParams table, in the order of its columns.
_METRICS = (*(validation_tag(kind) for kind in ("averaged", "raw")), "overview/loss")


def write_flags(writer: EventFile, flagfile: str) -> None:
    """The run's flags as text."""
    with writer.as_default(step=0):
        tf.summary.text("flags", "    " + flagfile.replace("\n", "\n    "))


def write_hyper_parameters(writer: EventFile, config: Config) -> None:
    """The run as one row of the table under HParams, which lists all runs of the log folder.

    Columns: every field of ``config`` that affects training, the records, and the last values of
    ``_METRICS``.
    """
    fields = [
        field
        for field in dataclasses.fields(Config)
        if not field.metadata["may_change"] or field.name == "records"
    ]
    with writer.as_default(step=0):
        hparams.hparams_config(
            [hparams.HParam(field.name, _domain(field)) for field in fields],
            [hparams.Metric(tag) for tag in _METRICS],
        )
        values = {field.name: getattr(config, field.name) for field in fields}
        # Without distinct ids, runs with equal values would share a row.
        hparams.hparams(values, trial_id=config.workdir)
    writer.flush()


def _domain(field: dataclasses.Field) -> hparams.Discrete | hparams.RealInterval | None:
    if field.metadata["choices"]:
        return hparams.Discrete(list(field.metadata["choices"]))
    if isinstance(field.default, bool):
        return hparams.Discrete([False, True])
    # Contains every number in Config; TensorBoard's filter starts with the whole interval.
    return None if isinstance(field.default, str) else hparams.RealInterval(0.0, 2.0**31)


def write_training(writer: EventFile, step: int, scalars: dict) -> None:
    """Scalars of the steps since the last log.

    Args:
      writer: the run's.
      step: the last step.
      scalars: "losses" [S], other numbers by tag, and "PCKh" as ``metrics.summarize`` returns it.
    """
    with writer.as_default(step=step):
        tf.summary.scalar("overview/loss", sum(scalars["losses"]))
        for tag in ("learning_rate", "images_per_second"):
            tf.summary.scalar(f"overview/{tag}", scalars[tag])
        for stack, value in enumerate(scalars["losses"]):
            tf.summary.scalar(f"training/loss of stack {stack}", value)
        for tag in ("gradient_norm", "data_wait_percent"):
            tf.summary.scalar(f"training/{tag}", scalars[tag])
        _write("training/PCKh@0.5", scalars["PCKh"]["mean14"])
    writer.flush()


def write_validation(writer: EventFile, step: int, kind: str, results: dict) -> None:
    """PCKh@0.5 by joint group, and the means of all measures.

    Args:
      writer: the run's.
      step: the one validated.
      kind: weights validated, "raw" or "averaged".
      results: measure -> column -> percent, from ``scoring.rows``.
    """
    with writer.as_default(step=step):
        for column, percent in results["PCKh@0.5"].items():
            if column == "mean14" or column not in scoring.MEANS:
                _write(validation_tag(kind, "PCKh@0.5", column), percent)
        for measure in _MEASURES:
            if measure in results:
                _write(validation_tag(kind, measure), results[measure]["mean14"])
    writer.flush()


def write_thresholds(
    writer: EventFile,
    step: int,
    kind: str,
    errors: np.ndarray,
    skeleton: Skeleton,
) -> None:
    """PCKh against the threshold, as a picture.

    Args:
      writer: the run's.
      step: the one validated.
      kind: weights validated, "raw" or "averaged".
      errors: [N, J] in head sizes, NaN for joints that are not scored.
      skeleton: names the joints.
    """
    columns = scoring.curve(errors, errors, skeleton)
    shown = {name: percent for name, percent in columns.items() if name not in scoring.MEANS[1:]}
    png = curves.curves(shown, f"step {step}, {kind} weights")
    with writer.as_default(step=step):
        tf.summary.image("validation/thresholds", tf.io.decode_png(png, channels=3)[None])
    writer.flush()


def write_staleness(writer: EventFile, step: int, kind: str, staleness: float | None) -> None:
    """Distance of the moving averages from batch norm's statistics; see ``precise_bn.make``."""
    if staleness is not None:
        with writer.as_default(step=step):
            tf.summary.scalar(f"validation {kind}/batch_norm_staleness", staleness)


def write_diagnosis(writer: tf.summary.SummaryWriter, step: int, text: str) -> None:
    """Why a validation fell, as text; see ``diagnosis.sentence``."""
    with writer.as_default(step=step):
        tf.summary.text("validation/diagnosis", text)


def _write(tag: str, value: float) -> None:
    if np.isfinite(value):
        tf.summary.scalar(tag, value)


def write_pictures(
    writer: EventFile, step: int, shown: dict, skeleton: Skeleton, fixed: int
) -> None:
    """Validation people with true and predicted skeletons, and with their heatmaps.

    Args:
      writer: the run's.
      step: the one validated.
      shown: what ``samples.predict`` returned: first people who are the same in every validation,
        then those with the largest errors now, worst first.
      skeleton: names the joints.
      fixed: number of the former; their heatmaps are shown, too.
    """
    same = {key: value[:fixed] for key, value in shown.items()}
    worst = {key: value[fixed:] for key, value in shown.items()}
    panels = [draw.heatmap_panel(i, h) for i, h in zip(same["images"], same["heatmaps"])]
    with writer.as_default(step=step):
        tf.summary.image("validation/skeletons", samples.grid(same, skeleton)[None])
        tf.summary.image("validation/worst", samples.grid(worst, skeleton)[None])
        tf.summary.image("validation/heatmaps", np.stack(panels), max_outputs=len(panels))
    writer.flush()
