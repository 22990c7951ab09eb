"""What every claim of speed rests on: parts, their ceilings and their peers, in alternation.

Each part runs in a process of its own (``worker``), so that libraries do not share threads and the
peak of its memory is its own; ``rounds`` lets them take turns, so that a busy machine slows all of
them alike. ``comparison`` says what is measured beside what, ``report`` prints it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

BF16, FP16, FP32 = "mixed_bfloat16", "mixed_float16", "float32"


def usable_cores() -> int:
    """Cores that this process may use; macOS cannot restrict them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _nothing() -> dict:
    return {}


@dataclasses.dataclass(frozen=True)
class Part:
    """Something that is timed.

    Attributes:
      run: function(steps); what it returns is the time waited for data in seconds, or None.
      work: done by one step, in ``unit``.
      unit: "images" or "GFLOP".
      lead_in: untimed steps before each measurement, where buffers filled meanwhile would count.
      facts: function() -> what else is to be known, asked at the end: traces {function: count},
        flop_per_image.
    """

    run: Callable[[int], Any]
    work: float
    unit: str = "images"
    lead_in: int = 0
    facts: Callable[[], dict] = _nothing


@dataclasses.dataclass(frozen=True)
class Task:
    """A part to be built in a process of its own.

    Attributes:
      name: unique among those measured together.
      place: "module.function" in this package; called with (settings dict, folder, **arguments).
      settings: fields of a ``pipelines.config.Config``.
      arguments: further ones.
      cores: that the process may use; 0 = all.
      needs: packages without which it cannot be measured.
      huge_pages: whether the process has them, as ``train_main.py`` has.
      environment: further variables of the process.
      python: runs it; "" = the one that runs us. ``needs`` is not checked in another one.
    """

    name: str
    place: str
    settings: dict
    arguments: dict = dataclasses.field(default_factory=dict)
    cores: int = 0
    needs: tuple[str, ...] = ()
    huge_pages: bool = False
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    python: str = ""
