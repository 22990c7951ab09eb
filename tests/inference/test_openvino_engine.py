"""A network computed by OpenVINO: TensorFlow's heatmaps, in predictions of any batch size."""

import dataclasses
import gc
import sys

import numpy as np
import pytest

from hourglass import bn_folding
from pipelines import checkpoints, optional
from pipelines.inference import compiled, openvino_engine
from pipelines.inference.media_options import MediaOptions
from pipelines.inference.options import InferenceOptions
from pipelines.inference.predictor import ENGINES, Predictor
from tests.helpers.processes import ROOT


@pytest.fixture(scope="module")
def network(trained):
    pytest.importorskip("openvino", reason="openvino is not installed: make export-tools")
    return bn_folding.fold(checkpoints.load_network(trained[0].workdir)[0])


def test_its_heatmaps_are_the_last_stacks(network):
    pictures = np.random.default_rng(0).uniform(-0.5, 0.5, (3, *network.input_shape[1:]))
    engine = openvino_engine.engine(network, "f32")
    assert engine.input_shape == network.input_shape
    assert engine.outputs[-1].shape == network.outputs[-1].shape
    wanted = network(pictures.astype(np.float32), training=False)[-1]
    np.testing.assert_allclose(engine(pictures.astype(np.float32))[-1], wanted, atol=1e-5)


def test_it_predicts_batches_of_every_size_for_as_long_as_it_is_used(network, info):
    """TensorFlow refers to Python functions weakly: what is compiled must keep the engine alive."""
    n, rng = info.geometry.canvas + 1, np.random.default_rng(1)
    crops = rng.integers(0, 256, (5, n, n, 3), np.uint8)
    batch = crops, np.full((5, 2), n / 2, np.float32), np.full(5, n / 1.5, np.float32)
    kinds = network, openvino_engine.engine(network, "f32")
    own, other = (
        compiled.make_predict(kind, info.skeleton.mirror, InferenceOptions(), batch_size=2)
        for kind in kinds
    )
    for count in (5, 1, 5):
        gc.collect()
        for want, got in zip(*(run(*(part[:count] for part in batch)) for run in (own, other))):
            np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_photograph_gives_the_same_joints(network):
    """The tolerance is for bf16, which OpenVINO takes where the processor has it."""
    picture = [f"{ROOT}/docs/street.jpg"]
    own, other = (Predictor.load(recuts=0, engine=name)(picture)[0][0] for name in ENGINES)
    np.testing.assert_allclose(other.confidence, own.confidence, atol=0.05)
    sure = own.confidence > 0.3
    assert sure.sum() >= 4
    np.testing.assert_allclose(other.joints[sure], own.joints[sure], atol=5)


def test_the_command_offers_every_engine():
    (field,) = (f for f in dataclasses.fields(MediaOptions) if f.name == "engine")
    assert tuple(field.metadata["choices"]) == tuple(ENGINES)


def test_without_the_package_it_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(OSError, match="openvino is not installed; `make export-tools` adds it"):
        Predictor.load(engine="openvino")
    with pytest.raises(OSError, match="no_such_package is not installed"):
        optional.load("no_such_package")
