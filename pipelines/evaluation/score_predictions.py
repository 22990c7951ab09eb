"""Score any prediction file against any ground truth, without a network."""

from __future__ import annotations

import os

import tensorflow as tf

from pipelines.evaluation import checks, ground_truth, prediction_files, report
from pipelines.io import check_writable


def _check_flags(predictions_file: str, truth_file: str, output: str) -> None:
    if not (predictions_file and truth_file):
        raise ValueError(
            "--predictions, --ground_truth and --output score a file without a network: give at "
            "least the first two, or none to evaluate a checkpoint"
        )
    if output and tf.io.gfile.exists(output) and not tf.io.gfile.isdir(output):
        raise ValueError(f"--output={output} is a file; name a folder")
    if output:
        check_writable(output)


def run(
    predictions_file: str, truth_file: str, output: str = "", split: str = "validation"
) -> dict:
    """Score a prediction file: print the table; with ``output`` write results and the curve.

    Args:
      predictions_file: what ``prediction_files.read_foreign`` reads.
      truth_file: what ``ground_truth.read`` reads.
      output: folder for results.json, curve.csv and curve.png; "" writes nothing.
      split: the people predicted.

    Returns:
      The contents of results.json, see ``report.report``.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file of another format, or predictions that do not belong to this truth.
      OSError: the results cannot be written.
    """
    _check_flags(predictions_file, truth_file, output)
    truth = ground_truth.read(truth_file, split)
    ids, predicted = prediction_files.read_foreign(predictions_file, truth.origin, truth.skeleton)
    try:
        checks.check(ids, predicted, truth)
    except ValueError as error:
        raise ValueError(f"{predictions_file}: {error}") from error
    file = os.path.basename(predictions_file)
    scored = report.report(
        predicted,
        truth,
        title=f"{file}: {len(predicted)} people of {truth.name} {truth.split}",
        source={"predictions": predictions_file, "ground_truth": truth_file},
        output=output,
    )
    if output:
        print(f"{predictions_file} -> {output}/results.json, curve.csv, curve.png")
    return scored
