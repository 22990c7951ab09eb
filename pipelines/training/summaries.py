"""What TensorBoard shows of a run."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from hourglass.skeleton import Skeleton
from pipelines.config import Config
from pipelines.evaluation import samples, scoring
from pipelines.visualization import curves, draw

# Head sizes; larger errors count as this one, or a single joint far away would set the scale of
# a histogram.
_FARTHEST_ERROR = 2.0


# Of a validation; eval_main.py prints the others, too.
_MEASURES = ("PCKh@0.5", "PCKh@0.1", "AUC", "PCK@0.2 torso")


# What several runs are compared by, in the order of the table's columns.
_METRICS = ("validation averaged PCKh@0.5/mean14", "validation raw PCKh@0.5/mean14", "loss/total")


def write_flags(writer: tf.summary.SummaryWriter, flagfile: str) -> None:
    """The run's flags as text."""
    with writer.as_default(step=0):
        tf.summary.text("flags", "    " + flagfile.replace("\n", "\n    "))


def write_hyper_parameters(writer: tf.summary.SummaryWriter, config: Config) -> None:
    """The run as one line of the table under HParams, beside the other runs of the log folder.

    Columns: every field of ``config`` that training depends on, the records, and the last values of
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
        # Without an id of their own, runs with equal values would become one line.
        hparams.hparams(values, trial_id=config.workdir)


def _domain(field: dataclasses.Field) -> hparams.Discrete | hparams.RealInterval | None:
    if field.metadata["choices"]:
        return hparams.Discrete(list(field.metadata["choices"]))
    if isinstance(field.default, bool):
        return hparams.Discrete([False, True])
    # No number of Config is outside; TensorBoard's filter starts with the whole interval.
    return None if isinstance(field.default, str) else hparams.RealInterval(0.0, 2.0**31)


def write_training(writer: tf.summary.SummaryWriter, step: int, report: dict) -> None:
    """Scalars of the steps since the last log.

    Args:
      writer: of the run.
      step: the last step.
      report: "losses" [S], further numbers by tag, and "PCKh" as ``metrics.summarize`` gives.
    """
    with writer.as_default(step=step):
        for stack, value in enumerate(report["losses"]):
            tf.summary.scalar(f"loss/stack{stack}", value)
        tf.summary.scalar("loss/total", sum(report["losses"]))
        for tag in ("learning_rate", "gradient_norm", "images_per_second", "data_wait_percent"):
            tf.summary.scalar(f"training/{tag}", report[tag])
        _write_row("training PCKh@0.5", report["PCKh"])
    writer.flush()


def write_validation(
    writer: tf.summary.SummaryWriter, step: int, weights: str, results: dict
) -> None:
    """PCKh per joint group and mean of the "raw" or "averaged" weights."""
    with writer.as_default(step=step):
        for measure in _MEASURES:
            if measure in results:
                _write_row(f"validation {weights} {measure}", results[measure])
    writer.flush()


def write_errors(
    writer: tf.summary.SummaryWriter,
    step: int,
    weights: str,
    errors: np.ndarray,
    skeleton: Skeleton,
) -> None:
    """PCKh over the threshold as a picture, and the distribution of each joint's errors.

    Args:
      writer: of the run.
      step: validated.
      weights: "raw" or "averaged".
      errors: [N, J] head sizes, NaN where a joint is not scored. Histograms end at
        ``_FARTHEST_ERROR``, which larger ones count as.
      skeleton: names the joints.
    """
    columns = scoring.curve(errors, errors, skeleton)
    shown = {name: percent for name, percent in columns.items() if name not in scoring.MEANS[1:]}
    png = curves.curves(shown, f"step {step}, {weights} weights")
    with writer.as_default(step=step):
        tf.summary.image(f"thresholds/{weights}", tf.io.decode_png(png, channels=3)[None])
        for name, column in zip(skeleton.joints, errors.T):
            known = column[~np.isnan(column)]
            if len(known):
                tf.summary.histogram(f"errors {weights}/{name}", known.clip(max=_FARTHEST_ERROR))
    writer.flush()


def write_staleness(
    writer: tf.summary.SummaryWriter, step: int, weights: str, stale: float | None
) -> None:
    """Write "batch_norm/stale_<weights>", what ``batch_statistics`` found; nothing for None."""
    if stale is not None:
        with writer.as_default(step=step):
            tf.summary.scalar(f"batch_norm/stale_{weights}", stale)


def _write_row(prefix: str, row: dict[str, float]) -> None:
    for name, value in row.items():
        if np.isfinite(value):
            tf.summary.scalar(f"{prefix}/{name}", value)


def write_pictures(
    writer: tf.summary.SummaryWriter, step: int, shown: dict, skeleton: Skeleton, even: int
) -> None:
    """Validation people with true and predicted skeletons, and with their heatmaps.

    Args:
      writer: of the run.
      step: validated.
      shown: what ``samples.picture`` returned; first people who stay the same from one validation
        to the next, then those who are predicted worst now, the worst first.
      skeleton: names the joints.
      even: how many are of the first kind; heatmaps are shown of them.
    """
    same = {key: value[:even] for key, value in shown.items()}
    worst = {key: value[even:] for key, value in shown.items()}
    panels = [draw.heatmap_panel(i, h) for i, h in zip(same["images"], same["heatmaps"])]
    with writer.as_default(step=step):
        tf.summary.image("validation/skeletons", samples.grid(same, skeleton)[None])
        tf.summary.image("validation/worst", samples.grid(worst, skeleton)[None])
        tf.summary.image("validation/heatmaps", np.stack(panels), max_outputs=len(panels))
    writer.flush()
