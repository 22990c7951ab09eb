"""Fixtures of several test files, and the order in which files are run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
import tensorflow as tf

from pipelines import devices
from pipelines.config import Config
from pipelines.data import tfrecords
from pipelines.data.annotations import Person
from pipelines.training import train
from tests.helpers.people import TRAIN, VALIDATION, once, tiny, write_records
from tests.helpers.processes import ROOT, start_python

# Two logical devices for every test: MirroredStrategy then has two replicas on any machine. This
# must come before TensorFlow's first operation.
_CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * 2)
if "PYTEST_XDIST_WORKER" in os.environ:  # the other core has tests of its own
    tf.config.threading.set_intra_op_parallelism_threads(1)


# Longest first: started last, one of these would run alone at the end. See TESTS in the Makefile.
LONG = (
    *("train", "torch", "export", "readme", "precise_bn", "write_tfrecords", "commands"),
    *("predictor", "torch_layouts", "checkpoint", "benchmark", "compiled", "placement"),
    *("openvino_engine", "train_step", "bn_folding", "model", "collection", "setup"),
    *("corruptions", "exports", "diagnosis", "lanes", "group_norm", "quiet", "modes"),
    *("multi_worker", "coco", "yolo", "labelme", "decode"),
)


def pytest_collection_modifyitems(items):
    order = {f"test_{name}": k for k, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> tuple[tfrecords.DatasetInfo, dict[str, list[Person]]]:
    """The record set that most tests read; must not be modified."""
    counts = {"train": TRAIN, "validation": VALIDATION}
    return once(tmp_path_factory, "drawn", lambda folder: write_records(folder, counts))


@pytest.fixture(scope="session")
def info(drawn) -> tfrecords.DatasetInfo:
    return drawn[0]


@pytest.fixture
def own_records(tmp_path):
    """A function that writes records which a test may damage; with counts of its own if given."""

    def write(name="records", counts=None, **changes) -> tfrecords.DatasetInfo:
        counts = counts or {"train": TRAIN, "validation": VALIDATION}
        return write_records(tmp_path / name, counts, **changes)[0]

    return write


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """Two logical CPUs. One for all tests: a second strategy would reuse the keys by which the
    first one's replicas find each other, and fail."""
    return devices.make_strategy("mirrored", 2)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, info) -> tuple[Config, str]:
    """A finished tiny run of two stacks, and what it printed; its folder must not be modified."""

    def make(folder: pathlib.Path) -> tuple[Config, str]:
        config = tiny(folder / "run", info, stacks=2)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert train.run(config) == 0
        return config, printed.getvalue()

    return once(tmp_path_factory, "trained", make)


@pytest.fixture
def run_python():
    """A function that runs lines of Python in a fresh process and returns what they print."""

    def run(code: str) -> str:
        process = start_python("-c", code)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        return output

    return run


@pytest.fixture(scope="session")
def fork_script():
    """A function (folder, script, words...) -> {"code", "output", "errors"}: see forked.py."""
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "helpers" / "forked.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(folder, script: str, *words: str) -> dict:
        server.stdin.write(json.dumps([str(folder), [script, *words]]) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    with server:
        yield run
