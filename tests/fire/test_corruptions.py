"""The short part of the corruption harness: each kind of file, damaged once.

A run that goes on to train takes seconds: those are in ``make fire``'s part only.
"""

import re

import pytest

from tests.fire import corruptions
from tests.helpers.processes import start_python

pytestmark = pytest.mark.slow


def test_corruptions_are_answered():
    kinds = corruptions.subjects(brief=True)
    words = (f"--count={len(kinds)}", "--seed=1", "--brief")
    process = start_python("-m", "tests.fire.corruptions", *words)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    assert f"{len(kinds)} of {len(kinds)} corruptions answered, 0 failed" in output
    for kind in kinds:
        assert re.search(rf"^{re.escape(kind)} +[1-9]", output, re.MULTILINE), kind
