"""What every command line does alike: plain sentences and exit codes instead of tracebacks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from absl import app

# What users can mend; anything else is our mistake and keeps its traceback.
EXPECTED = (OSError, ValueError, FloatingPointError)


def answer(work: Callable[[], int | None]) -> int:
    """Run ``work``; an expected error becomes one sentence on standard error and exit code 1.

    Ctrl-C where nothing handles it gives exit code 130, as in a shell.
    """
    # TensorFlow's notes on how replicas reduce what are for its developers.
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    try:
        return work() or 0
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def no_leftovers(arguments: list[str]) -> None:
    """Refuse words that are no flags; a forgotten -- would otherwise be ignored silently.

    Raises app.UsageError.
    """
    if len(arguments) > 1:
        raise app.UsageError(f"not a flag: {' '.join(arguments[1:])}; flags start with --")
