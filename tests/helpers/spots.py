"""People of two spots, and a network that sees them without training."""

import numpy as np
import tensorflow as tf

from hourglass.skeleton import Skeleton
from pipelines.data import preprocessing
from pipelines.data.annotations import Person


def dots_network(size: int = 64) -> tf.keras.Model:
    """A network that is right by construction: map j is channel j of the picture, blurred.

    It finds the brightest spot of each colour; the first of its two stacks answers nonsense.
    """
    images = tf.keras.Input([size, size, 3])
    light = tf.keras.layers.ZeroPadding2D(1)(images + tf.constant(preprocessing.MEAN))
    maps = tf.keras.layers.AveragePooling2D(6, 4)(light)
    return tf.keras.Model(images, [tf.zeros_like(maps), maps])


# Joints without a side: a mirrored picture needs no swap, and colours stay with their joints.
SPOTS = Skeleton(("pelvis", "thorax", "head_top"))


def spots(k: int, split: str, row: int, _) -> tuple[np.ndarray, Person]:
    """Photograph with one soft red, green and blue spot each at a joint of a person."""
    random = np.random.default_rng(k)
    side = random.uniform(100, 160)
    center = random.uniform(90, 130, 2)
    joints = center + side * random.uniform(-0.4, 0.4, (3, 2))
    y, x = np.mgrid[:230, :220]
    image = [np.exp(-((x - j[0]) ** 2 + (y - j[1]) ** 2) / (2 * (side / 20) ** 2)) for j in joints]
    name = f"{split}{row}.jpg#1"
    state, head = np.full(3, 2, np.uint8), side / 10
    who = Person(name, name, split, row, center, side, joints, state, head)
    return np.rint(255 * np.stack(image, -1)).astype(np.uint8), who
