"""oneDNN's kernels, also on processors where TensorFlow by itself leaves them off."""

import os
import platform
import subprocess
import sys

import pytest

from hourglass import onednn
from tests.helpers.forked import ROOT

ASKS = "; from tensorflow.python.util import _pywrap_util_port as p; print(p.IsMklEnabled())"


def enabled(first: str, **environment: str) -> bool:
    env = {name: value for name, value in os.environ.items() if name != onednn.NAME}
    result = subprocess.run(
        [sys.executable, "-c", first + ASKS],
        env={**env, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()[-1] == "True"


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="TensorFlow has oneDNN on Linux and x86-64 only",
)
@pytest.mark.parametrize("package", ["hourglass", "pipelines"])
def test_each_package_turns_them_on(package):
    assert enabled(f"import {package}")


def test_the_users_choice_stays():
    assert not enabled("import hourglass", TF_ENABLE_ONEDNN_OPTS="0")


@pytest.mark.parametrize(
    ("machine", "value"), [("x86_64", "1"), ("AMD64", "1"), ("aarch64", None), ("arm64", None)]
)
def test_other_processors_keep_tensorflows_choice(monkeypatch, machine, value):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.delenv(onednn.NAME, raising=False)
    onednn.enable()
    assert os.environ.get(onednn.NAME) == value
    monkeypatch.delenv(onednn.NAME, raising=False)
