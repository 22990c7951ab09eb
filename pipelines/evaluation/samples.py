"""Sample pictures: some people of a record set with true and predicted joints."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hourglass import affine, heatmap
from hourglass.model import STRIDE
from hourglass.skeleton import Skeleton
from pipelines.data import input_pipeline, preprocessing
from pipelines.evaluation import evaluate, ground_truth, scoring
from pipelines.inference import forward
from pipelines.inference.options import InferenceOptions
from pipelines.visualization import draw

# People in one grid of pictures.
COUNT = 12


def evenly(people: int, count: int) -> np.ndarray:
    """Indices of at most ``count`` of ``people``, evenly spaced from the first on."""
    return np.arange(0, people, max(1, people // count))[:count]


def predict(
    network: tf.keras.Model, info, split: str, options: InferenceOptions, indices: np.ndarray
) -> dict[str, np.ndarray]:
    """Pictures, true and predicted joints of some people of a split.

    Args:
      network: from ``hourglass.model.build``.
      info: the record set.
      split: "train", "validation" or "test".
      options: see there.
      indices: [n] of the people in ``input_pipeline.labels``; repetitions are allowed.

    Returns:
      In the order of ``indices``: images [n, size, size, 3] uint8, truth and predicted [n, J, 2]
      input px, state [n, J], errors [n, J] in head sizes and heatmaps [n, h, w, J].
    """
    mirror, mean = info.skeleton.mirror, options.mean
    rows = np.searchsorted(np.unique(indices), indices)
    stored = next(iter(input_pipeline.chosen(info, split, indices, batch=len(indices))))
    batch = {key: tf.gather(value, rows) for key, value in stored.items()}
    labels = {key: value.numpy() for key, value in batch.items() if key != "image"}
    truth = ground_truth.of_records(info, split, labels)
    images, crop_to_input = preprocessing.images(batch, network.input_shape[1], mean=mean)
    maps, _ = forward.predict_scales(network, batch, mirror, options)
    heatmap_joints, _ = heatmap.decode(maps, options.decoder, options.sigma)
    predicted = heatmap.to_input(heatmap_joints, STRIDE)
    crop_joints = affine.apply(affine.invert(crop_to_input), predicted).numpy()
    levels = tf.round((images + tf.constant(mean, tf.float32)) * 255.0)
    return {
        "images": tf.cast(levels, tf.uint8).numpy(),
        "truth": affine.apply(crop_to_input, batch["joints"]).numpy(),
        "predicted": predicted.numpy(),
        "state": labels["state"],
        "errors": scoring.errors(evaluate.to_image(labels, crop_joints), truth),
        "heatmaps": maps.numpy(),
    }


def grid(shown: dict, skeleton: Skeleton, title: str = "") -> np.ndarray:
    """One RGB picture of what ``predict`` returned."""
    return draw.people_grid(
        shown["images"],
        shown["truth"],
        shown["state"],
        shown["predicted"],
        skeleton,
        shown["errors"],
        title=title,
    )
