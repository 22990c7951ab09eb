"""Why a validation fell although the training loss did not rise: statistics, weights or data."""

from __future__ import annotations

import dataclasses
import math

FALL = 3.0  # points; two seeds of one setting differ by less
RISE = 1.05  # factor from which a training loss has risen; less is noise
SHARE = 0.5  # of a fall that has to be gone with other statistics, for these to be its cause


@dataclasses.dataclass(frozen=True)
class Validation:
    """A validation and the training before it; NaN where a number is not known.

    Attributes:
      step: the one validated.
      mean14: PCKh@0.5 in percent of the better kind of weights.
      training_loss: loss, mean over the steps since the validation before.
      training_mean14: training PCKh@0.5 in percent over these steps.
    """

    step: int
    mean14: float
    training_loss: float = math.nan
    training_mean14: float = math.nan


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a sentence is made from.

    Attributes:
      best: the best validation so far.
      now: the one that fell.
      means: kind of weights, "raw" or "averaged" -> mean14 now.
      recomputed: whether validation recomputes batch norm's statistics.
      other: mean14 of the same weights with the other statistics: moving averages if
        ``recomputed``, else recomputed ones; NaN where there are none.
      staleness: see ``precise_bn.make``; NaN where there are no recomputed statistics.
    """

    best: Validation
    now: Validation
    means: dict[str, float]
    recomputed: bool
    other: float = math.nan
    staleness: float = math.nan

    @property
    def fall(self) -> float:
        """Points below the best."""
        return self.best.mean14 - self.now.mean14


def is_low(best: Validation, now: Validation) -> bool:
    """Whether a validation is more than ``FALL`` points below the best."""
    return best.mean14 - now.mean14 > FALL


def needs_a_reason(best: Validation, now: Validation) -> bool:
    """Whether it is low although the training loss did not rise, as far as that is known."""
    return is_low(best, now) and not now.training_loss > RISE * best.training_loss


def _statistics(evidence: Evidence) -> bool:
    return evidence.other - evidence.now.mean14 >= SHARE * evidence.fall


def _moving_averages(evidence: Evidence) -> bool:
    return _statistics(evidence) and not evidence.recomputed


def _restless(evidence: Evidence) -> bool:
    means = evidence.means
    return means.get("averaged", math.nan) - means["raw"] > FALL


def _worse(evidence: Evidence) -> bool:
    return evidence.best.training_mean14 - evidence.now.training_mean14 > FALL


def _as_good(evidence: Evidence) -> bool:
    return evidence.best.training_mean14 - evidence.now.training_mean14 <= FALL


def _overfitted(evidence: Evidence) -> bool:
    now = evidence.now
    return _as_good(evidence) and now.training_mean14 - now.mean14 > FALL


_OTHER_RATE = (
    "Lower --learning_rate, lengthen --warmup_epochs or set --clip_norm, in another --workdir "
    "that starts by --init_from from this one's best weights."
)

# Verdict -> (condition, sentences); the first whose condition holds.
_VERDICTS = {
    "moving averages": (
        _moving_averages,
        "To blame are batch norm's statistics, not the weights: with statistics recomputed from "
        "training people the same weights score {other:.1f}; the moving averages are up to "
        "{staleness:.1f} standard deviations off. Stop and repeat the command with "
        "--precise_bn_examples={examples}: the training stays the same, and validation no longer "
        "depends on them.",
    ),
    "recomputed statistics": (
        _statistics,
        "To blame are batch norm's recomputed statistics, not the weights: with the moving "
        "averages, up to {staleness:.1f} standard deviations away, the same weights score "
        "{other:.1f}. Repeat the command with a larger --precise_bn_examples; if that changes "
        "nothing, compare the training people with the validation people by "
        "scripts/draw_records.py.",
    ),
    "restless weights": (
        _restless,
        "To blame are the weights, which jump from step to step: raw ones score {raw:.1f}, their "
        "average {averaged:.1f}{whatever}. " + _OTHER_RATE,
    ),
    "worse weights": (
        _worse,
        "To blame are the weights: training PCKh fell as well, from {training_then:.1f} to "
        "{training_now:.1f}{whatever}. " + _OTHER_RATE,
    ),
    "data": (
        _overfitted,
        "To blame are the data: the network still learns the training people (training PCKh "
        "{training_then:.1f} then, {training_now:.1f} now), but not the validation people"
        "{whatever}. Train on more people, with a stronger --augmentation or for a shorter time; "
        "best/ holds the weights of step {then}.",
    ),
    "noisy weights": (
        _as_good,
        "To blame are the weights, which jump from step to step: training PCKh, "
        "{training_now:.1f}, is as good as then and not above validation's, so nothing is "
        "overfitted{whatever}. " + _OTHER_RATE,
    ),
    "unknown": (
        lambda evidence: True,
        "To blame are the weights or the data{whatever}; which of them cannot be told without the "
        "training PCKh of both validations.",
    ),
}


def verdict(evidence: Evidence) -> str:
    """What is to blame: a key of ``_VERDICTS``."""
    return next(name for name, (holds, _) in _VERDICTS.items() if holds(evidence))


def sentence(evidence: Evidence, examples: int) -> str:
    """What happened, what is to blame and what to do.

    Args:
      evidence: of a validation that ``needs_a_reason``.
      examples: --precise_bn_examples to recommend.
    """
    best, now = evidence.best, evidence.now
    # Without them the statistics are not ruled out, and nothing is claimed.
    known = not math.isnan(evidence.other)
    losses = (
        ""
        if math.isnan(best.training_loss + now.training_loss)
        else ", though the training loss did not rise "
        f"({best.training_loss:.3g} then, {now.training_loss:.3g})"
    )
    start = (
        f"step {now.step}: validation is {evidence.fall:.1f} points below the best so far "
        f"({best.mean14:.1f} at step {best.step}, {now.mean14:.1f} now){losses}. "
    )
    return start + _VERDICTS[verdict(evidence)][1].format(
        **{"averaged": math.nan, **evidence.means},
        other=evidence.other,
        staleness=evidence.staleness,
        examples=examples,
        then=best.step,
        training_then=best.training_mean14,
        training_now=now.training_mean14,
        whatever=f", with either kind of statistics ({evidence.other:.1f})" if known else "",
    )
