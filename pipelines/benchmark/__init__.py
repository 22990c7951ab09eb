"""Speed of the parts, of the machine and of other programs, measured in alternation.

Each part runs in its own process (``worker``), so that libraries do not share threads and peak
memory is the part's own; ``rounds`` lets them take turns, so that a busy machine slows all of them
equally. ``comparison`` defines what is compared with what, ``report`` prints it.
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


def _no_details() -> dict:
    return {}


@dataclasses.dataclass(frozen=True)
class Part:
    """Something that is timed.

    Attributes:
      run: function(steps) -> seconds waited for data, or None.
      work: of one step, in ``unit``.
      unit: "images" or "GFLOP".
      lead_in: untimed steps before each measurement, to use up buffers that filled between turns.
      details: function() -> other results, called at the end: traces {function: count},
        flop_per_image.
    """

    run: Callable[[int], Any]
    work: float
    unit: str = "images"
    lead_in: int = 0
    details: Callable[[], dict] = _no_details


@dataclasses.dataclass(frozen=True)
class Task:
    """A part to be built in its own process.

    Attributes:
      name: unique among those measured together.
      function: "module.function" in this package; called with (settings dict, folder, **arguments).
      settings: fields of a ``pipelines.config.Config``.
      arguments: the function's other arguments.
      cores: number that the process may use; 0 = all.
      needs: packages that it requires.
      huge_pages: use huge pages, as ``train_main.py`` does.
      environment: variables added to the process's.
      python: its interpreter; "" = ours. ``needs`` is not checked in another one.
    """

    name: str
    function: str
    settings: dict
    arguments: dict = dataclasses.field(default_factory=dict)
    cores: int = 0
    needs: tuple[str, ...] = ()
    huge_pages: bool = False
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    python: str = ""
