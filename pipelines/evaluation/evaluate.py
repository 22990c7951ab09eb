"""Predict every person once, go back to image pixels, score, write results and predictions."""

from __future__ import annotations

import os

import numpy as np

from pipelines import checkpoints, devices
from pipelines.config import Config, fractions
from pipelines.data import cropping, input_pipeline, tfrecords
from pipelines.data.annotations import MISSING
from pipelines.evaluation import ground_truth, prediction_files, report, samples
from pipelines.inference import forward
from pipelines.visualization import draw


def how(config: Config, expected: str = "") -> dict:
    """Keyword arguments of ``make_predict`` and ``picture`` that a Config means."""
    scales = tuple(fractions(config.test_scales))
    decoding = {"decode": forward.decode_rule(config.decoder, expected), "sigma": config.sigma}
    return {"flip": config.flip, "scales": scales, **decoding}


def predict(strategy, predict_batch, dataset, facts: dict) -> tuple[np.ndarray, np.ndarray]:
    """Joints [N, J, 2] float64 image px and confidences [N, J] of all people, in facts' order.

    Raises:
      RuntimeError: someone was predicted not at all or twice.
    """
    people, joints = facts["state"].shape
    found = np.full([people, joints, 2], np.nan)
    confidence, seen = np.zeros([people, joints], np.float32), np.zeros(people, int)
    for batch in strategy.experimental_distribute_dataset(dataset):
        parts = [strategy.experimental_local_results(part) for part in predict_batch(batch)]
        index, points, peaks = (np.concatenate([p.numpy() for p in part]) for part in parts)
        real = index >= 0
        index = index[real]
        found[index], confidence[index] = points[real], peaks[real]
        np.add.at(seen, index, 1)
    if not (seen == 1).all():
        raise RuntimeError(f"{(seen == 0).sum()} people never predicted, {(seen > 1).sum()} twice")
    return to_image(facts, found), confidence


def to_image(facts: dict, points: np.ndarray) -> np.ndarray:
    """Points [N, J, 2] from crop px to image px, float64, through the stored matrices."""
    return cropping.to_image(points, facts["crop_to_image"])


def write_predictions(folder: str, facts: dict, found, confidence, info) -> None:
    """Write predictions.mat, .h5 and .json, rows in the split's published order.

    Records that came from a COCO file get coco_results.json too, in COCO's own results format.
    """
    predictions = prediction_files.in_published_order(
        facts["id"], facts["row"], found, confidence, info.skeleton, info.origin
    )
    prediction_files.write_mat(os.path.join(folder, "predictions.mat"), predictions)
    prediction_files.write_h5(os.path.join(folder, "predictions.h5"), predictions)
    prediction_files.write_json(os.path.join(folder, "predictions.json"), predictions)
    if "coco" in info.settings:
        path = os.path.join(folder, "coco_results.json")
        prediction_files.write_coco(path, predictions, info.settings["coco"])


def run(config: Config) -> dict:
    """Evaluate a checkpoint: print the table, write results, predictions and a picture.

    Returns:
      What results.json holds.

    Raises:
      FileNotFoundError, ValueError: records, split or checkpoint that do not exist or do not fit.
    """
    info = tfrecords.read_info(config.records)
    tfrecords.check_shards(info, config.split)
    strategy = devices.make_strategy(config.strategy, config.logical_devices)
    place = config.checkpoint or config.workdir
    with strategy.scope():
        network, prefix, part = checkpoints.load_for(info, place, config.precision, config.weights)
    mean, expected = checkpoints.read_expected(checkpoints.split_place(place)[0])
    facts, options = (
        input_pipeline.facts(info, config.split),
        {**how(config, expected), "mean": mean},
    )
    if expected and expected != options["decode"]:
        print(f"note: these weights were trained for --decoder={expected}, not {config.decoder}")
    predict_batch = forward.make_predict(strategy, network, mirror=info.skeleton.mirror, **options)
    batch = devices.round_up(config.evaluation_batch_size, strategy)
    dataset = input_pipeline.evaluation(info, config.split, batch=batch)
    predicted, confidence = predict(strategy, predict_batch, dataset, facts)
    write_predictions(config.workdir, facts, predicted, confidence, info)
    truth = ground_truth.of_records(info, config.split, facts)
    source = {"checkpoint": prefix, "weights": part, **options}
    source |= {"scales": list(options["scales"]), "mean": list(mean)}  # as JSON has them
    shown = f"{info.name} {config.split}: {len(predicted)} people"
    if (truth.state != MISSING).any():
        scored = report.report(predicted, truth, title=shown, source=source, output=config.workdir)
        shown += f", mean14 PCKh@0.5 {scored['PCKh@0.5']['mean14']:.1f}"
    else:
        scored = {"people": len(predicted), **report.describe(truth), "source": source}
        report.write_results(config.workdir, scored)
        print(f"{shown}, none of whom has annotated joints: predictions without a score")
    people = samples.picture(network, info, config.split, **options)
    draw.write_png(
        os.path.join(config.workdir, "predictions.png"), samples.grid(people, info.skeleton, shown)
    )
    also = ", coco_results.json" if "coco" in info.settings else ""
    print(f"{prefix} ({part} weights) -> {config.workdir}/results.json, predictions.*{also}")
    return scored
