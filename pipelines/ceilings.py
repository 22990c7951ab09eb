"""Oracle ceilings: what a perfect network would score, given how joints become heatmaps and back.

The ground truth is drawn, decoded and scored. What is missing to 100 is the codec's own error, and
what lies outside the crop. Each reference is drawn and read in its own manner, from its released
code; the last step back to the photograph is ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import rich.table
import tensorflow as tf

from hourglass import affine, heatmap, pckh
from hourglass.skeleton import Skeleton
from pipelines.people import MISSING, Person

THRESHOLDS = (0.5, 0.1, 0.05)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How joints are drawn into heatmaps.

    Attributes:
      sigma: heatmap px.
      whole: Gaussians are centred on whole pixels.
      before: heatmap px added to our coordinate before it is cut to a whole pixel.
      after: whole heatmap px added then.
      reach: a Gaussian is drawn so many px around its centre; None: everywhere.
    """

    sigma: float = 1.0
    whole: bool = False
    before: float = 0.0
    after: float = 0.0
    reach: int | None = None


@dataclasses.dataclass(frozen=True)
class Codec:
    """One way to heatmaps and back.

    Attributes:
      name: whose.
      drawing: how joints are drawn.
      decoder: one of ``heatmap.DECODERS``.
      shift: heatmap px added to what the decoder finds.
      whole_image_px: the answer is cut to whole image px, then 1 is added (0-based).
    """

    name: str
    drawing: Drawing
    decoder: str
    shift: float = 0.0
    whole_image_px: bool = False


_PATCH = Drawing(whole=True, before=0.5, reach=3)

OURS = tuple(Codec("ours", Drawing(), decoder) for decoder in heatmap.DECODERS)
REFERENCES = (
    # yuanyuanli85/Stacked_Hourglass_Network_Keras: drawn one pixel too far, and read as the
    # pixel's upper left corner: int(x) + 1 on the way in and on the way out, - 1 once.
    Codec(
        "original Keras port",
        Drawing(whole=True, before=0.5, after=1.0, reach=3),
        "argmax",
        shift=-1.5,
        whole_image_px=True,
    ),
    Codec("7x7 patches on whole px", _PATCH, "quarter"),
    # bearpaw/pytorch-pose: pose/utils/transforms.py cuts to whole px both ways.
    Codec("pytorch-pose", _PATCH, "hourglass", whole_image_px=True),
    # leoxiaobin/deep-high-resolution-net.pytorch: int(x / 4 + 0.5), where x / 4 is ours + 0.5.
    Codec("HRNet", Drawing(2.0, whole=True, before=1.0, reach=6), "hrnet"),
    # ilovepose/DarkPose: HRNet's coordinates, never cut.
    Codec("DARK", Drawing(2.0, before=0.5), "dark", shift=-0.5),
    Codec("7x7 patches on whole px", _PATCH, "subpixel"),
)


def draw(points: tf.Tensor, size: int, drawing: Drawing) -> tf.Tensor:
    """Heatmaps [B, size, size, J] float32 of joints [B, J, 2], our heatmap px."""
    centers = points + drawing.before
    if drawing.whole:
        centers = tf.cast(tf.cast(centers, tf.int32), tf.float32)  # towards 0, as int() cuts
    centers += drawing.after
    maps = heatmap.render(centers, size, drawing.sigma)
    if drawing.reach is None:
        return maps
    near = tf.abs(tf.range(size, dtype=tf.float32) - centers[..., None]) <= drawing.reach
    near = tf.transpose(near, [2, 0, 3, 1])
    return tf.where(near[1][:, :, None, :] & near[0][:, None, :, :], maps, 0.0)


def _read(maps: tf.Tensor, heatmap_to_image: tf.Tensor, codec: Codec) -> np.ndarray:
    found, _ = heatmap.decode(maps, codec.decoder, codec.drawing.sigma)
    image = affine.apply(heatmap_to_image, found + codec.shift).numpy().astype(np.float64)
    return np.trunc(image + 1.0) if codec.whole_image_px else image


def decoded(
    people: Sequence[Person], codecs: Sequence[Codec], size: int = 64
) -> dict[Codec, np.ndarray]:
    """Every person's joints after drawing and decoding them: {codec: [N, J, 2] image px}."""
    truth = tf.constant(np.stack([person.joints for person in people]), tf.float32)
    center = tf.constant(np.stack([person.center for person in people]), tf.float32)
    side = tf.constant([person.side for person in people], tf.float32)
    image_to_heatmap = affine.window_to_input(center, side, size)
    points = affine.apply(image_to_heatmap, truth)
    heatmap_to_image = affine.invert(image_to_heatmap)
    found = {codec: [] for codec in codecs}
    for start in range(0, len(people), _BATCH):
        part = slice(start, start + _BATCH)
        for drawing in dict.fromkeys(codec.drawing for codec in codecs):
            maps = draw(points[part], size, drawing)
            for codec in codecs:
                if codec.drawing == drawing:
                    found[codec].append(_read(maps, heatmap_to_image[part], codec))
    return {codec: np.concatenate(parts) for codec, parts in found.items()}


_BATCH = 64


def measure(
    people: Sequence[Person], skeleton: Skeleton, codecs: Sequence[Codec] = OURS + REFERENCES
) -> dict[Codec, dict[float, float]]:
    """Ceilings in percent: {codec: {threshold: mean14 PCKh}}, thresholds as in ``THRESHOLDS``.

    Args:
      people: who are scored; those without head size are not counted.
      skeleton: names their joints.
      codecs: ways to heatmaps of 64x64 px and back.

    Raises:
      ValueError: nobody given.
    """
    if not people:
        raise ValueError("no people to score; give annotations that have some in this split")
    truth = np.stack([person.joints for person in people])
    scored = np.stack([person.state for person in people]) != MISSING
    head_size = np.array([person.head_size for person in people])
    rows = {}
    for codec, found in decoded(people, codecs).items():
        errors = pckh.normalized_errors(found, truth, head_size)
        rows[codec] = {
            threshold: pckh.summarize(
                *pckh.hits_and_counts(errors, scored, threshold), skeleton
            )["mean14"]
            for threshold in THRESHOLDS
        }
    return rows


def table(rows: dict[Codec, dict[float, float]], title: str) -> rich.table.Table:
    """Ceilings as a table: a line per codec, a column per threshold."""
    shown = rich.table.Table("decoder", "heatmaps", title=title)
    for threshold in THRESHOLDS:
        shown.add_column(f"PCKh@{threshold:g}", justify="right")
    for codec, row in rows.items():
        shown.add_row(codec.decoder, codec.name, *(f"{row[t]:.2f}" for t in THRESHOLDS))
    return shown
