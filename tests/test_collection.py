"""Test ids are the same in every process: xdist aborts where two workers collected different ones.

A parameter with an id made from its value must not contain the time, an address, a set's order or a
temporary folder; pytest.param(..., id="...") names it where it does.
"""

import os
import subprocess
import sys

import pytest

from tests.helpers.forked import ROOT


def collected(**changes: str) -> list[str]:
    """Ids in a process of its own, in their order; each takes seconds, so clocks tick between."""
    words = ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    answer = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, **changes},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return [line for line in answer.stdout.splitlines() if "::" in line]


@pytest.mark.slow
@pytest.mark.fire
def test_ids_hold_neither_time_nor_hash_seed_nor_temporary_folders(tmp_path):
    first = collected(PYTHONHASHSEED="1")
    second = collected(PYTHONHASHSEED="2", TMPDIR=str(tmp_path), TZ="Asia/Tokyo")
    assert len(first) > 1000
    assert [pair for pair in zip(first, second) if pair[0] != pair[1]] == []
    assert len(first) == len(second)
