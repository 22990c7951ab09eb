"""Oracle ceilings: the score of a perfect network with a given encoding and decoding of heatmaps.

The ground truth is rendered, decoded and scored. What is missing to 100 is the error of the codec,
and joints outside the crop. Each reference is rendered and decoded as in its released code; only
the last step, from crop to photograph, is ours.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence

import numpy as np
import rich.table
import tensorflow as tf

from hourglass import affine, heatmap, metrics
from hourglass.skeleton import Skeleton
from pipelines.data.annotations import MISSING, Person
from pipelines.evaluation import scoring

THRESHOLDS = (0.5, 0.1, 0.05)

_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Rendering:
    """How joints are rendered into heatmaps.

    Attributes:
      sigma: heatmap px.
      whole: Gaussians are centred on whole pixels.
      before: heatmap px added to our coordinate before it is truncated to a whole pixel.
      after: whole heatmap px added after that.
      reach: px around the centre in which a Gaussian is rendered; None: everywhere.
    """

    sigma: float = 1.0
    whole: bool = False
    before: float = 0.0
    after: float = 0.0
    reach: int | None = None


@dataclasses.dataclass(frozen=True)
class Codec:
    """One encoding and decoding of heatmaps.

    Attributes:
      name: of the implementation.
      rendering: how joints are rendered.
      decoder: one of ``heatmap.DECODERS``.
      shift: heatmap px added to the decoded joints.
      whole_image_px: the result plus 1 (0-based) is truncated to whole image px.
    """

    name: str
    rendering: Rendering
    decoder: str
    shift: float = 0.0
    whole_image_px: bool = False


class Ceiling(typing.NamedTuple):
    """PCKh mean14 in percent per threshold, {0.5: ..., 0.1: ..., 0.05: ...}.

    Attributes:
      all: of all labelled joints.
      inside: of those inside the crop.
    """

    all: dict[float, float]
    inside: dict[float, float]


_PATCH = Rendering(whole=True, before=0.5, reach=3)

OURS = tuple(Codec("ours", Rendering(), decoder) for decoder in heatmap.DECODERS)
REFERENCES = (
    # yuanyuanli85/Stacked_Hourglass_Network_Keras: rendered one pixel too far, and decoded as the
    # pixel's upper left corner: int(x) + 1 for encoding and for decoding, - 1 once.
    Codec(
        "original Keras port",
        Rendering(whole=True, before=0.5, after=1.0, reach=3),
        "argmax",
        shift=-1.5,
        whole_image_px=True,
    ),
    Codec("7x7 patches on whole px", _PATCH, "quarter"),
    # bearpaw/pytorch-pose: pose/utils/transforms.py truncates to whole px in both directions.
    Codec("pytorch-pose", _PATCH, "hourglass", whole_image_px=True),
    # leoxiaobin/deep-high-resolution-net.pytorch: int(x / 4 + 0.5), where x / 4 is ours + 0.5.
    Codec("HRNet", Rendering(2.0, whole=True, before=1.0, reach=6), "hrnet"),
    # ilovepose/DarkPose: HRNet's coordinates, never truncated.
    Codec("DARK", Rendering(2.0, before=0.5), "dark", shift=-0.5),
    Codec("7x7 patches on whole px", _PATCH, "subpixel"),
)


def render(points: tf.Tensor, size: int, rendering: Rendering) -> tf.Tensor:
    """Heatmaps [B, size, size, J] float32 of joints [B, J, 2] float64, our heatmap px."""
    centers = points + rendering.before
    if rendering.whole:
        centers = tf.cast(centers, tf.int32)  # towards 0, like int()
    centers = tf.cast(centers, tf.float32) + rendering.after
    maps = heatmap.render(centers, size, rendering.sigma)
    if rendering.reach is None:
        return maps
    near = tf.abs(tf.range(size, dtype=tf.float32) - centers[..., None]) <= rendering.reach
    near = tf.transpose(near, [2, 0, 3, 1])
    return tf.where(near[1][:, :, None, :] & near[0][:, None, :, :], maps, 0.0)


def _decode(maps: tf.Tensor, heatmap_to_image: tf.Tensor, codec: Codec) -> np.ndarray:
    joints, _ = heatmap.decode(maps, codec.decoder, codec.rendering.sigma)
    joints = tf.cast(joints + codec.shift, tf.float64)
    image = affine.apply(heatmap_to_image, joints).numpy()
    return np.trunc(image + 1.0) if codec.whole_image_px else image


def _image_to_heatmap(people: Sequence[Person], size: int) -> tf.Tensor:
    # float64: rounding errors must not move a truncated coordinate to another whole px.
    center = tf.constant(np.stack([person.center for person in people]), tf.float64)
    side = tf.constant([person.side for person in people], tf.float64)
    return affine.window_to_input(center, side, size, tf.constant(0.0, tf.float64))


def decoded(
    people: Sequence[Person], codecs: Sequence[Codec], size: int = 64
) -> dict[Codec, np.ndarray]:
    """Every person's joints rendered and decoded: {codec: [N, J, 2] image px}."""
    batches = {codec: [] for codec in codecs}
    for start in range(0, len(people), _BATCH):
        batch = people[start : start + _BATCH]
        image_to_heatmap = _image_to_heatmap(batch, size)
        heatmap_to_image = affine.invert(image_to_heatmap)
        truth = tf.constant(np.stack([person.joints for person in batch]))
        points = affine.apply(image_to_heatmap, truth)
        for rendering in dict.fromkeys(codec.rendering for codec in codecs):
            maps = render(points, size, rendering)
            for codec in codecs:
                if codec.rendering == rendering:
                    batches[codec].append(_decode(maps, heatmap_to_image, codec))
    return {codec: np.concatenate(parts) for codec, parts in batches.items()}


def _mean14(errors: np.ndarray, scored: np.ndarray, skeleton: Skeleton) -> dict[float, float]:
    return {t: scoring.pckh(errors, skeleton, t, scored)["mean14"] for t in THRESHOLDS}


def measure(
    people: Sequence[Person], skeleton: Skeleton, codecs: Sequence[Codec] = OURS + REFERENCES
) -> dict[Codec, Ceiling]:
    """Render, decode and score the true joints with 64x64 px heatmaps.

    Args:
      people: to be scored; those without a head size are not counted.
      skeleton: names their joints.
      codecs: to compare.

    Raises:
      ValueError: no people.
    """
    if not people:
        raise ValueError("no people to score; give annotations with people in this split")
    size = 64
    truth = np.stack([person.joints for person in people])
    scored = np.stack([person.state for person in people]) != MISSING
    head_size = np.array([person.head_size for person in people])
    points = affine.apply(_image_to_heatmap(people, size), tf.constant(truth)).numpy()
    inside = scored & ((points >= -0.5) & (points < size - 0.5)).all(-1)
    rows = {}
    for codec, predicted in decoded(people, codecs, size).items():
        errors = metrics.normalized_errors(predicted, truth, head_size)
        rows[codec] = Ceiling(*(_mean14(errors, counted, skeleton) for counted in (scored, inside)))
    return rows


def table(rows: dict[Codec, Ceiling], title: str) -> rich.table.Table:
    """Ceilings as a table: a row per codec; three thresholds for all joints, three for inside."""
    shown = rich.table.Table("decoder", "heatmaps", title=title)
    for population in ("all", "inside"):
        for threshold in THRESHOLDS:
            shown.add_column(f"{population} @{threshold:g}", justify="right")
    for codec, ceiling in rows.items():
        percents = [row[t] for row in ceiling for t in THRESHOLDS]
        shown.add_row(codec.decoder, codec.name, *(f"{percent:.2f}" for percent in percents))
    return shown
