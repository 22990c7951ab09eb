"""Predict every person once, map to image pixels, score, write results and predictions."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from pipelines import checkpoints, devices
from pipelines.config import Config, fractions
from pipelines.data import cropping, input_pipeline, tfrecords
from pipelines.data.annotations import MISSING
from pipelines.evaluation import ground_truth, prediction_files, report, samples
from pipelines.inference import forward
from pipelines.inference.options import InferenceOptions, for_weights
from pipelines.io import check_writable
from pipelines.visualization import draw


def options_of(config: Config, expected: tuple[tuple[float, ...], str]) -> InferenceOptions:
    """Options of a Config for weights that expect a mean and a decoder, see ``for_weights``."""
    return for_weights(
        expected,
        flip=config.flip,
        decoder=config.decoder,
        sigma=config.sigma,
        scales=tuple(fractions(config.test_scales)),
    )


def predict(strategy, predict_batch, dataset, labels: dict) -> tuple[np.ndarray, np.ndarray]:
    """Joints [N, J, 2] float64 image px and confidences [N, J], rows as in ``labels``.

    Raises:
      RuntimeError: a person was not predicted, or twice.
    """
    people, joints = labels["state"].shape
    predicted = np.full([people, joints, 2], np.nan)
    confidence, times = np.zeros([people, joints], np.float32), np.zeros(people, int)
    for batch in strategy.experimental_distribute_dataset(dataset):
        parts = [strategy.experimental_local_results(part) for part in predict_batch(batch)]
        index, points, peaks = (np.concatenate([p.numpy() for p in part]) for part in parts)
        real = index >= 0
        index = index[real]
        predicted[index], confidence[index] = points[real], peaks[real]
        np.add.at(times, index, 1)
    if not (times == 1).all():
        never, twice = (times == 0).sum(), (times > 1).sum()
        raise RuntimeError(f"{never} people never predicted, {twice} twice")
    return to_image(labels, predicted), confidence


def to_image(labels: dict, points: np.ndarray) -> np.ndarray:
    """Points [N, J, 2] from crop px to image px, float64, by the stored matrices."""
    return cropping.to_image(points, labels["crop_to_image"])


def write_predictions(folder: str, labels: dict, predicted, confidence, info) -> None:
    """Write predictions.mat, .h5 and .json, rows in the split's published order.

    For records from a COCO file also coco_results.json, in COCO's results format.
    """
    predictions = prediction_files.in_published_order(
        labels["id"], labels["row"], predicted, confidence, info.skeleton, info.origin
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
      The contents of results.json.

    Raises:
      FileNotFoundError, ValueError: records, split or checkpoint do not exist or do not match.
      OSError: the results cannot be written.
    """
    check_writable(config.workdir)
    info = tfrecords.read_info(config.records)
    tfrecords.check_shards(info, config.split)
    strategy = devices.make_strategy(config.strategy, config.logical_devices)
    path = config.checkpoint or config.workdir
    with strategy.scope():
        network, prefix, part = checkpoints.load_for(info, path, config.precision, config.weights)
    expected = checkpoints.read_expected(checkpoints.split_path(path)[0])
    labels, options = input_pipeline.labels(info, config.split), options_of(config, expected)
    if expected[1] not in ("", options.decoder):
        print(f"note: these weights were trained for --decoder={expected[1]}, not {config.decoder}")
    predict_batch = forward.make_predict(strategy, network, info.skeleton.mirror, options)
    batch = devices.round_up(config.evaluation_batch_size, strategy)
    dataset = input_pipeline.evaluation(info, config.split, batch=batch)
    predicted, confidence = predict(strategy, predict_batch, dataset, labels)
    write_predictions(config.workdir, labels, predicted, confidence, info)
    truth = ground_truth.of_records(info, config.split, labels)
    source = {"checkpoint": prefix, "weights": part, **dataclasses.asdict(options)}
    title = f"{info.name} {config.split}: {len(predicted)} people"
    if (truth.state != MISSING).any():
        scored = report.report(predicted, truth, title=title, source=source, output=config.workdir)
        title += f", mean14 PCKh@0.5 {scored['PCKh@0.5']['mean14']:.1f}"
    else:
        scored = {"people": len(predicted), **report.describe(truth), "source": source}
        report.write_results(config.workdir, scored)
        print(f"{title} without annotated joints: predictions are not scored")
    indices = samples.evenly(len(predicted), samples.COUNT)
    shown = samples.predict(network, info, config.split, options, indices)
    draw.write_png(
        os.path.join(config.workdir, "predictions.png"), samples.grid(shown, info.skeleton, title)
    )
    also = ", coco_results.json" if "coco" in info.settings else ""
    source = f"{prefix} ({checkpoints.kind_of(part)} weights)"
    print(f"{source} -> {config.workdir}/results.json, predictions.*{also}")
    return scored
