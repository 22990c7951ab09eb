"""Keras 2 under a TensorFlow that would take Keras 3, and what is said where that was chosen."""

import os
import subprocess
import sys

import pytest
import tensorflow as tf

from tests.helpers.forked import ROOT

later = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="TensorFlow 2.15, of Python 3.9 to 3.11, has no Keras 3"
)


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**env, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_keras_is_2():
    assert not tf.keras.Model.__module__.startswith("keras.src.models")
    assert issubclass(tf.keras.optimizers.legacy.Adam, tf.keras.optimizers.legacy.Optimizer)


@pytest.mark.parametrize(
    ("first", "package"), [("", "hourglass"), ("import tensorflow; ", "pipelines")]
)
def test_each_package_chooses_it(first, package):
    code = f"{first}import {package}; import tensorflow as tf; print(tf.keras.optimizers.legacy)"
    result = run(code)
    assert result.returncode == 0, result.stderr


@later
@pytest.mark.parametrize("package", ["hourglass", "pipelines"])
def test_the_users_choice_of_keras_3_gets_a_sentence(package):
    result = run(f"import {package}", TF_USE_LEGACY_KERAS="0")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "ImportError: TF_USE_LEGACY_KERAS=0 asks for Keras 3, but this needs Keras 2; "
        "unset TF_USE_LEGACY_KERAS"
    )


@later
def test_keras_3_in_use_gets_a_sentence():
    result = run("import tensorflow as tf; tf.keras.layers; import hourglass")
    assert result.returncode == 1
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith("ImportError: TensorFlow uses Keras 3 in this program already")
    assert "import hourglass first" in sentence
