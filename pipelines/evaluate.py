"""Predict every person once, go back to image pixels, score, write results and predictions."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

from hourglass import affine, heatmap, model
from hourglass.model import STRIDE
from hourglass.skeleton import Skeleton
from pipelines import (
    augment,
    checkpoint,
    devices,
    draw,
    ground_truth,
    inputs,
    predictions,
    records,
    results,
    score,
)
from pipelines.config import Config, fractions
from pipelines.people import MISSING


def heatmaps_of(
    network: tf.keras.Model, images: tf.Tensor, flip: bool, mirror: tuple[int, ...]
) -> tf.Tensor:
    """Heatmaps [B, h, w, J] float32 of the last stack, averaged with the mirrored picture's.

    Args:
      network: from ``hourglass.model.build``.
      images: [B, size, size, 3] float32 normalised.
      flip: mirror-averaged test (Newell et al. 2016, section 4).
      mirror: [J] permutation, ``Skeleton.mirror``.
    """
    if not flip:
        return network(images, training=False)[-1]
    both = network(tf.concat([images, tf.reverse(images, [2])], 0), training=False)[-1]
    straight, mirrored = tf.split(both, 2)
    return 0.5 * (straight + heatmap.unmirror(mirrored, mirror))


def multi_scale(
    network: tf.keras.Model,
    batch: dict,
    *,
    flip: bool,
    mirror,
    scales: tuple[float, ...] = (1.0,),
    mean=augment.MEAN,
    compiled: bool = True,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Heatmaps averaged over crops of several sizes about the same centre, in the frame of size 1.

    Where a smaller crop does not reach, the average is that of the others.

    Args:
      network: from ``hourglass.model.build``.
      batch: of ``inputs.evaluation``.
      flip: mirror-averaged test at each scale.
      mirror: [J] permutation.
      scales: factors of the crop's side; (1.0,) costs nothing more than one forward pass.
      mean: RGB [3], subtracted from pictures in [0, 1].
      compiled: see ``augment.images``.

    Returns:
      Heatmaps [B, h, w, J] float32 and crop_to_input [B, 2, 3] float32 of scale 1.
    """
    size, total, seen = network.input_shape[1], 0.0, 0.0
    for scale in scales:
        scaled = {**batch, "side": batch["side"] * scale}
        images, _ = augment.images(scaled, size, mean=mean, compiled=compiled)
        maps = heatmaps_of(network, images, flip, mirror)
        if scales == (1.0,):
            return maps, augment.crop_to_input(batch, size)
        width = maps.shape[1]
        to_one = tf.broadcast_to(affine.zoom(width, scale), [tf.shape(maps)[0], 2, 3])
        total += affine.warp(maps, to_one, width)
        seen += affine.warp(tf.ones([1, width, width, 1]), to_one[:1], width)
    return tf.math.divide_no_nan(total, seen), augment.crop_to_input(batch, size)


def decode_rule(asked: str, expected: str = "") -> str:
    """The decoder meant: "auto" is what imported weights expect, and "quarter" for ours."""
    return (expected or "quarter") if asked == "auto" else asked


def how(config: Config, expected: str = "") -> dict:
    """Keyword arguments of ``make_predict`` and ``picture`` that a Config means."""
    scales = tuple(fractions(config.test_scales))
    decoding = {"decode": decode_rule(config.decode, expected), "sigma": config.sigma}
    return {"flip": config.flip, "scales": scales, **decoding}


def joints_of(
    network: tf.keras.Model,
    batch: dict,
    *,
    decode: str,
    sigma: float = 1.0,
    heatmaps: bool = False,
    **scaled,
) -> tuple[tf.Tensor, ...]:
    """Joints [B, J, 2] float32 crop px and confidences [B, J] of stored crops.

    Args:
      network: from ``hourglass.model.build``.
      batch: image, center and side as ``inputs.evaluation`` gives them.
      decode: one of ``heatmap.DECODERS``.
      sigma: heatmap px; only "dark" needs it.
      heatmaps: return them too, [B, h, w, J] float32.
      **scaled: further arguments of ``multi_scale``.
    """
    maps, crop_to_input = multi_scale(network, batch, **scaled)
    joints, confidence = heatmap.decode(maps, decode, sigma)
    input_joints = heatmap.to_input(joints, STRIDE)
    found = affine.apply(affine.invert(crop_to_input), input_joints), confidence
    return (*found, maps) if heatmaps else found


def make_predict(
    strategy,
    network: tf.keras.Model,
    *,
    flip: bool,
    decode: str,
    mirror,
    sigma: float = 1.0,
    scales=(1.0,),
    mean=augment.MEAN,
) -> callable:
    """A function from a batch of ``inputs.evaluation`` to crop px, traced once.

    Returns:
      function(batch) -> index [B] int64, joints [B, J, 2] float32 crop px, confidence [B, J]
      float32, each per replica.
    """

    def replica_predict(batch: dict):
        how = {"flip": flip, "decode": decode, "mirror": mirror, "sigma": sigma, "mean": mean}
        return (batch["index"], *joints_of(network, batch, scales=scales, **how))

    return tf.function(lambda batch: strategy.run(replica_predict, (batch,)))


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
    return records.to_image(points, facts["crop_to_image"])


def evenly(people: int, count: int) -> np.ndarray:
    """Places of at most ``count`` of ``people``, evenly spaced from the first one on."""
    return np.arange(0, people, max(1, people // count))[:count]


def picture(
    network: tf.keras.Model,
    info,
    split: str,
    *,
    flip: bool,
    decode: str,
    sigma: float = 1.0,
    scales: tuple[float, ...] = (1.0,),
    places: np.ndarray | None = None,
    count: int = 12,
    mean=augment.MEAN,
):
    """Some people of a split with true and predicted joints.

    Args:
      network: from ``hourglass.model.build``.
      info: the record set.
      split: "train", "validation" or "test".
      flip: mirror-averaged test.
      decode: one of ``heatmap.DECODERS``.
      sigma: heatmap px; only "dark" needs it.
      scales: see ``multi_scale``.
      places: [n] of the people in ``inputs.facts``, in this order; None chooses evenly.
      count: how many are chosen evenly.
      mean: RGB [3], subtracted from pictures in [0, 1].

    Returns:
      Dict of images [n, size, size, 3] uint8, truth and predicted [n, J, 2] input px, state
      [n, J], errors [n, J] in head sizes and heatmaps [n, h, w, J].
    """
    places = evenly(info.count(split), count) if places is None else places
    rows = np.searchsorted(np.unique(places), places)
    stored = next(iter(inputs.chosen(info, split, places, batch=len(places))))
    batch = {key: tf.gather(value, rows) for key, value in stored.items()}
    facts = {key: value.numpy() for key, value in batch.items() if key != "image"}
    truth = ground_truth.of_records(info, split, facts)
    images, crop_to_input = augment.images(batch, network.input_shape[1], mean=mean)
    maps, _ = multi_scale(
        network, batch, flip=flip, mirror=info.skeleton.mirror, scales=scales, mean=mean
    )
    predicted = heatmap.to_input(heatmap.decode(maps, decode, sigma)[0], STRIDE)
    crop_joints = affine.apply(affine.invert(crop_to_input), predicted).numpy()
    levels = tf.round((images + tf.constant(mean, tf.float32)) * 255.0)
    return {
        "images": tf.cast(levels, tf.uint8).numpy(),
        "truth": affine.apply(crop_to_input, batch["joints"]).numpy(),
        "predicted": predicted.numpy(),
        "state": facts["state"],
        "errors": score.errors(to_image(facts, crop_joints), truth.joints, truth),
        "heatmaps": maps.numpy(),
    }


def grid(shown: dict, skeleton: Skeleton, title: str = "") -> np.ndarray:
    """One RGB picture of what ``picture`` returned."""
    return draw.people_grid(
        shown["images"],
        shown["truth"],
        shown["state"],
        shown["predicted"],
        skeleton,
        shown["errors"],
        title=title,
    )


def write_predictions(folder: str, facts: dict, found, confidence, info) -> None:
    """Write predictions.mat, .h5 and .json, rows in the split's published order.

    Records that came from a COCO file get coco_results.json too, in COCO's own results format.
    """
    batch = (facts["id"], facts["row"], found, confidence)
    gathered = predictions.gather([batch], info.skeleton, info.origin)
    predictions.write_mat(os.path.join(folder, "predictions.mat"), gathered)
    predictions.write_h5(os.path.join(folder, "predictions.h5"), gathered)
    predictions.write_json(os.path.join(folder, "predictions.json"), gathered)
    if "coco" in info.settings:
        path = os.path.join(folder, "coco_results.json")
        predictions.write_coco(path, gathered, info.settings["coco"])


def load_network(place: str, precision: str = "float32", weights: str = "best"):
    """Network of a run, its best/ or a checkpoint, with its weights.

    Returns:
      Keras model, its Skeleton, the checkpoint's prefix, and "model" or "averaged".

    Raises:
      FileNotFoundError, ValueError: there is none, or it is damaged.
    """
    arguments, skeleton = checkpoint.read_network(checkpoint.split_place(place)[0])
    network = model.build(**{**arguments, "sync_bn": False, "precision": precision})
    prefix = checkpoint.find(place)
    part = checkpoint.part_of(prefix, weights)
    checkpoint.load(prefix, network, part)
    return network, skeleton, prefix, part


def load_for(info, place: str, precision: str = "float32", weights: str = "best"):
    """Network, prefix and part as ``load_network``, of the joints that the records have.

    Raises:
      FileNotFoundError, ValueError: as ``load_network``, and for other joints.
    """
    folder, _ = checkpoint.split_place(place)
    _, skeleton = checkpoint.read_network(folder)
    if skeleton != info.skeleton:
        raise ValueError(
            f"the network in {folder} knows {len(skeleton)} joints {skeleton.joints}, the records "
            f"in {info.folder} have {len(info.skeleton)}: {info.skeleton.joints}; name records of "
            "the same joints"
        )
    network, _, prefix, part = load_network(place, precision, weights)
    return network, prefix, part


def run(config: Config) -> dict:
    """Evaluate a checkpoint: print the table, write results, predictions and a picture.

    Returns:
      What results.json holds.

    Raises:
      FileNotFoundError, ValueError: records, split or checkpoint that do not exist or do not fit.
    """
    info = records.read_info(config.records)
    records.check_shards(info, config.split)
    strategy = devices.make_strategy(config.strategy, config.logical_devices)
    place = config.checkpoint or config.workdir
    with strategy.scope():
        network, prefix, part = load_for(info, place, config.precision, config.weights)
    mean, expected = checkpoint.read_expected(checkpoint.split_place(place)[0])
    facts, options = inputs.facts(info, config.split), {**how(config, expected), "mean": mean}
    if expected and expected != options["decode"]:
        print(f"note: these weights were trained for --decode={expected}, not {config.decode}")
    predict_batch = make_predict(strategy, network, mirror=info.skeleton.mirror, **options)
    batch = devices.round_up(config.evaluation_batch, strategy)
    dataset = inputs.evaluation(info, config.split, batch=batch)
    predicted, confidence = predict(strategy, predict_batch, dataset, facts)
    write_predictions(config.workdir, facts, predicted, confidence, info)
    truth = ground_truth.of_records(info, config.split, facts)
    source = {"checkpoint": prefix, "weights": part, **options}
    source |= {"scales": list(options["scales"]), "mean": list(mean)}  # as JSON has them
    shown = f"{info.name} {config.split}: {len(predicted)} people"
    if (truth.state != MISSING).any():
        scored = results.report(predicted, truth, title=shown, source=source, output=config.workdir)
        shown += f", mean14 PCKh@0.5 {scored['PCKh@0.5']['mean14']:.1f}"
    else:
        scored = {"people": len(predicted), **results.describe(truth), "source": source}
        results.write_results(config.workdir, scored)
        print(f"{shown}, none of whom has annotated joints: predictions without a score")
    people = picture(network, info, config.split, **options)
    draw.write_png(
        os.path.join(config.workdir, "predictions.png"), grid(people, info.skeleton, shown)
    )
    also = ", coco_results.json" if "coco" in info.settings else ""
    print(f"{prefix} ({part} weights) -> {config.workdir}/results.json, predictions.*{also}")
    return scored
