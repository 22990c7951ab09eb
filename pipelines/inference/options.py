"""Options of inference: the same for validation, evaluation, prediction and export."""

from __future__ import annotations

import dataclasses
import math

from hourglass import heatmap
from pipelines.data import preprocessing


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """Everything that turns stored crops into joints, except the network and its skeleton.

    Attributes:
      flip: average with the mirrored picture (Newell et al. 2016, section 4).
      decoder: one of ``heatmap.DECODERS``.
      sigma: heatmap px, of the Gaussians trained on; only the decoder "dark" needs it.
      scales: factors of the crop's side; the heatmaps of all are averaged. (1.0,) is a single
        forward pass.
      mean: RGB, subtracted from pictures in [0, 1].

    Raises ValueError for an unknown decoder, or a sigma or scale out of range.
    """

    flip: bool = True
    decoder: str = "quarter"
    sigma: float = 1.0
    scales: tuple[float, ...] = (1.0,)
    mean: tuple[float, float, float] = preprocessing.MEAN

    def __post_init__(self):
        """Check the bounds."""
        if self.decoder not in heatmap.DECODERS:
            raise ValueError(
                f"decoder {self.decoder!r} is unknown; choose one of {', '.join(heatmap.DECODERS)}"
            )
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma must be above 0 and finite, not {self.sigma}")
        if not self.scales or not all(0.25 <= scale <= 4 for scale in self.scales):
            raise ValueError(f"scales must be one or more from 0.25 to 4, not {self.scales}")


def for_weights(
    expected: tuple[tuple[float, ...], str],
    *,
    flip: bool = True,
    decoder: str = "auto",
    sigma: float = 1.0,
    scales: tuple[float, ...] = (1.0,),
) -> InferenceOptions:
    """Options for a checkpoint's weights.

    Args:
      expected: mean and decoder of the weights, from ``checkpoints.read_expected``.
      flip: see ``InferenceOptions``, as for ``sigma`` and ``scales``.
      decoder: one of ``heatmap.DECODERS``, or "auto": what imported weights expect, "quarter" for
        ours.
      sigma: heatmap px.
      scales: factors of the crop's side.
    """
    mean, trained_for = expected
    chosen = (trained_for or "quarter") if decoder == "auto" else decoder
    return InferenceOptions(flip, chosen, sigma, scales, mean)
