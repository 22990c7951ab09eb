"""Some people of a record set with true and predicted joints, to be looked at."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hourglass import affine, heatmap
from hourglass.model import STRIDE
from hourglass.skeleton import Skeleton
from pipelines.data import input_pipeline, preprocessing
from pipelines.evaluation import evaluate, ground_truth, scoring
from pipelines.inference import forward
from pipelines.visualization import draw


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
    mean=preprocessing.MEAN,
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
      places: [n] of the people in ``input_pipeline.facts``, in this order; None chooses evenly.
      count: how many are chosen evenly.
      mean: RGB [3], subtracted from pictures in [0, 1].

    Returns:
      Dict of images [n, size, size, 3] uint8, truth and predicted [n, J, 2] input px, state
      [n, J], errors [n, J] in head sizes and heatmaps [n, h, w, J].
    """
    places = evenly(info.count(split), count) if places is None else places
    rows = np.searchsorted(np.unique(places), places)
    stored = next(iter(input_pipeline.chosen(info, split, places, batch=len(places))))
    batch = {key: tf.gather(value, rows) for key, value in stored.items()}
    facts = {key: value.numpy() for key, value in batch.items() if key != "image"}
    truth = ground_truth.of_records(info, split, facts)
    images, crop_to_input = preprocessing.images(batch, network.input_shape[1], mean=mean)
    maps, _ = forward.multi_scale(
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
        "errors": scoring.errors(evaluate.to_image(facts, crop_joints), truth.joints, truth),
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
