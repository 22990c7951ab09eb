"""A run's lengths in steps."""

from __future__ import annotations

import dataclasses

from pipelines import config as configuration
from pipelines.config import Config


@dataclasses.dataclass(frozen=True)
class Lengths:
    """A run's lengths in steps, converted once from epochs."""

    total: int
    epoch: int
    evaluate: int
    warmup: int
    milestones: tuple[int, ...]
    profile: tuple[int, int] = (0, 0)

    @classmethod
    def from_config(cls, config: Config, examples: int) -> Lengths:
        """Lengths for a number of training examples; ValueError for a profile after the end."""
        total = config.steps or max(1, round(config.epochs * examples / config.global_batch_size))
        epoch = max(1, round(examples / config.global_batch_size))
        profile = configuration.span(config.profile)
        if profile[0] >= total:
            raise ValueError(
                f"--profile={config.profile} begins after the training's {total} steps; "
                "start earlier"
            )
        return cls(
            total=total,
            epoch=epoch,
            evaluate=max(1, round(config.evaluate_every * epoch)),
            warmup=round(config.warmup_epochs * examples / config.global_batch_size),
            milestones=tuple(
                round(fraction * total)
                for fraction in configuration.fractions(config.lr_milestones)
            ),
            profile=profile,
        )

    def until_stop(self, step: int, log_every: int) -> int:
        """Steps from ``step`` to the next log, end of an epoch, validation or end of training.

        One at a time while they are profiled: TensorBoard shows calls as steps.
        """
        stops = [every - step % every for every in (self.epoch, self.evaluate, log_every)]
        stops += [start - step for start in self.profile[:1] if start > step]
        return 1 if self.is_profiled(step) else min([*stops, self.total - step])

    def is_profiled(self, step: int) -> bool:
        """Whether the step after ``step`` steps is profiled."""
        return self.profile[0] <= step < self.profile[1]
