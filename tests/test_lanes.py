"""Checkpoints of TensorFlow 2.15 with tensorflow-addons and of 2.21 with tf_keras: each is read and
trained on by both. ``PYTHONPATH=. python tests/test_lanes.py`` in each environment wrote them to
tests/golden: the state after 3 steps of each optimizer, and sums over what one more step makes of
it.
"""

import json
import pathlib
import sys
import tarfile
import tempfile

import numpy as np
import pytest
import tensorflow as tf

from hourglass import model, optimizer
from pipelines import checkpoints

DATA = pathlib.Path(__file__).parent / "golden"
WRITERS = ("tensorflow-2.15", "tensorflow-2.21")
BUILD = {"joints": 2, "stacks": 1, "channels": 8, "depth": 1, "size": 32}
STEPS = 3


def make(name: str) -> tuple:
    """(state, one step) of a tiny training; a step is a function without arguments."""
    network, averaged = (model.build(**BUILD, seed=seed) for seed in (1, 2))
    chosen = optimizer.build(name, lambda: tf.constant(1e-3), 0.5 if name == "adamw" else 0.0)
    variables = network.trainable_variables
    optimizer.create_slots(chosen, variables)
    count = tf.Variable(0, trainable=False, dtype=tf.int64)
    options = {"decay_var_list": optimizer.decayed(variables)} if name == "adamw" else {}
    draw = np.random.default_rng(3)
    images = tf.constant(draw.normal(size=[2, 32, 32, 3]), tf.float32)
    # Random, because real gradients of a bias before batch norm are rounding errors, which differ.
    gradients = [tf.constant(draw.normal(size=v.shape), tf.float32) for v in variables]

    @tf.function
    def step():
        network(images, training=True)  # moves batch norm's statistics
        chosen.apply_gradients(zip(gradients, variables), **options)
        optimizer.update_average(averaged.variables, network.variables, tf.constant(0.9))
        count.assign_add(1)

    state = checkpoints.state(count, network, averaged, chosen)
    assert state.save_counter == 0  # makes it, as training's CheckpointManager does
    return state, step


def contents(state: tf.train.Checkpoint, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint of the state, by their names in the file."""
    reader = tf.train.load_checkpoint(state.write(str(folder / "now")))
    names = sorted(reader.get_variable_to_shape_map())
    return {n: reader.get_tensor(n) for n in names if n != "_CHECKPOINTABLE_OBJECT_GRAPH"}


def sums(held: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Of each entry the sum of its values and of their squares."""
    return {
        n: [float(np.sum(v)), float(np.sum(v.astype(np.float64) ** 2))] for n, v in held.items()
    }


@pytest.fixture(scope="module", params=WRITERS)
def written(request, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp(request.param)
    with tarfile.open(DATA / f"{request.param}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_a_checkpoint_of_either_is_read_and_trained_on(tmp_path, written, name):
    recorded = json.loads((written / f"{name}.json").read_text())
    state, step = make(name)
    checkpoints.restore(state, str(written / name))
    before = sums(contents(state, tmp_path))
    assert before == recorded["before"]
    step()
    after = sums(contents(state, tmp_path))
    assert after.keys() == recorded["after"].keys()
    for key, want in recorded["after"].items():
        np.testing.assert_allclose(after[key], want, rtol=1e-4, atol=1e-5, err_msg=key)
    assert after != before


def write(folder: pathlib.Path, name: str) -> None:
    """The state after ``STEPS`` steps, and its sums and those after one more."""
    state, step = make(name)
    for _ in range(STEPS):
        step()
    before = sums(contents(state, folder))
    state.write(str(folder / name))
    step()
    after = sums(contents(state, folder))
    (folder / f"{name}.json").write_text(json.dumps({"before": before, "after": after}))


def main() -> None:
    """Write the archive of this TensorFlow."""
    version = ".".join(tf.__version__.split(".")[:2])
    with tempfile.TemporaryDirectory() as folder:
        for name in optimizer.OPTIMIZERS:
            write(pathlib.Path(folder), name)
        with tarfile.open(DATA / f"tensorflow-{version}.tar.xz", "w:xz") as archive:
            for file in sorted(pathlib.Path(folder).glob("[ra]*")):
                archive.add(file, file.name)


if __name__ == "__main__":
    sys.exit(main())
