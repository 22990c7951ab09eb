"""Parity with PyTorch where it is not installed: golden weights, pictures and what became of them.

``python tests/helpers/torch_twins.py`` (with PyTorch 2.13, CPU) wrote tests/golden/torch_*.npz from
the twins: 8 channels, 2 stacks, 16 joints, 64 px, every weight and statistic drawn at random.
"""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from hourglass import model
from pipelines import checkpoints
from pipelines.export.pytorch import layouts
from tests.helpers.torch_networks import float64, gradients

DATA = pathlib.Path(__file__).parents[1] / "golden"
LAYOUTS = ("pytorch_pose", "princeton")
SMALL = {"joints": 3, "stacks": 2, "blocks": 1, "channels": 8, "depth": 2}


def shapes_of(network) -> dict[str, tuple[int, ...]]:
    named = checkpoints.by_name(network.variables)
    return {name: tuple(variable.shape) for name, variable in named.items()}


def unpack(names, shapes, values) -> dict[str, np.ndarray]:
    """Name -> array of a flat vector."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return {str(n): part.reshape(shape) for n, part, shape in zip(names, parts, shapes)}


class Golden:
    """A golden file's arrays, and our network with its weights."""

    def __init__(self, layout: str):
        self.layout = layout
        with np.load(DATA / f"torch_{layout}.npz", allow_pickle=False) as file:
            self.file = dict(file)
        shapes = [tuple(int(n) for n in s.split(",") if n) for s in self.file["shapes"]]
        self.tensors = unpack(self.file["names"], shapes, self.file["values"])
        self.images = self.file["pictures"].astype(np.float32) / np.float32(255) - np.float32(0.45)
        actual = {name: array.shape for name, array in self.tensors.items()}
        self.arguments = layouts.architecture(layout, actual)
        self.network = model.build(**self.arguments, size=64)
        self.shapes = shapes_of(self.network)
        self.named = layouts.names(layout, self.arguments, self.shapes)
        self.ours, self.kept = self.take(self.tensors)
        self.reset()

    def take(self, tensors):
        return layouts.from_torch(self.layout, self.arguments, tensors, self.shapes)

    def reset(self):
        for name, variable in checkpoints.by_name(self.network.variables).items():
            variable.assign(self.ours[name])

    def gradients(self) -> dict[str, np.ndarray]:
        """Of one step in training mode and float64, by their names, in their order of axes."""
        slopes = gradients(float64(self.network, self.arguments), self.images, self.file["target"])
        return {self.named[name]: theirs(slope) for name, slope in slopes.items()}


def theirs(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


@pytest.fixture(scope="module", params=LAYOUTS)
def golden(request) -> Golden:
    return Golden(request.param)


@pytest.fixture
def tensors(golden) -> dict[str, np.ndarray]:
    """The golden tensors, to damage."""
    return dict(golden.tensors)


class TestParity:
    def test_the_architecture_is_read_off_the_tensors(self, golden):
        stem = {"pytorch_pose": "pytorch_pose", "princeton": "newell"}[golden.layout]
        want = {"joints": 16, "stacks": 2, "blocks": 1, "channels": 8, "depth": 4, "stem": stem}
        assert golden.arguments == want

    def test_heatmaps_in_evaluation_mode(self, golden):
        golden.reset()
        heatmaps = golden.network(golden.images[:2], training=False)
        np.testing.assert_allclose(np.stack(heatmaps), golden.file["heatmaps"], rtol=0, atol=1e-4)
        assert golden.file["heatmaps"].std() > 0.05

    def test_gradients_in_training_mode(self, golden):
        golden.reset()
        names = [str(name) for name in golden.file["gradient_names"]]
        shapes = [golden.tensors[name].shape for name in names]
        want, actual = unpack(names, shapes, golden.file["gradients"]), golden.gradients()
        assert set(actual) == set(want)
        largest = max(np.abs(slope).max() for slope in want.values())
        for name, slope in want.items():
            # A bias before batch norm has no gradient but rounding.
            allowed = 1e-5 * np.abs(slope).max() + 1e-7 * largest
            np.testing.assert_allclose(actual[name], slope, rtol=0, atol=allowed, err_msg=name)

    def test_batch_norm_after_three_steps(self, golden):
        """torch keeps the unbiased variance; so does TensorFlow's fused batch norm."""
        golden.reset()
        for _ in range(3):
            golden.network(golden.images, training=True)
        variables = checkpoints.by_name(golden.network.variables)
        actual = {golden.named[name]: v.numpy() for name, v in variables.items()}
        names = [n for n in golden.tensors if "running_" in n]
        shapes = [golden.tensors[n].shape for n in names]
        for name, want in unpack(names, shapes, golden.file["statistics"]).items():
            assert not np.allclose(want, golden.tensors[name], rtol=1e-3)
            allowed = 1e-3 * np.abs(want).max()
            np.testing.assert_allclose(actual[name], want, rtol=0, atol=allowed, err_msg=name)

    def test_the_way_back_is_bit_for_bit(self, golden):
        back = layouts.to_torch(golden.layout, golden.arguments, golden.ours, golden.kept)
        assert set(back) == set(golden.tensors)
        for name, array in back.items():
            assert array.shape == golden.tensors[name].shape
            assert array.astype(np.float32).tobytes() == golden.tensors[name].tobytes(), name

    def test_what_decides_nothing_is_zero_where_it_is_not_known(self, golden):
        back = layouts.to_torch(golden.layout, golden.arguments, golden.ours, {})
        assert set(back) == set(golden.tensors)
        spare = {name for name in back if not back[name].any()}
        assert spare == set(golden.kept)
        skips = [name for name in spare if "skip_layer" in name]
        # 14 blocks of equal width in each stack (13 and the head) and one in the stem.
        assert len(skips) == {"pytorch_pose": 0, "princeton": 2 * (2 * 14 + 1)}[golden.layout]


class TestOtherSizes:
    @pytest.mark.parametrize("layout", layouts.LAYOUTS)
    @pytest.mark.parametrize(
        "changes", [{}, {"stacks": 1, "depth": 1}, {"stacks": 3}, {"blocks": 2}, {"channels": 12}]
    )
    def test_there_and_back(self, layout, changes):
        """Names alone must tell every size; the twins have two of them."""
        arguments = {**SMALL, **changes, "stem": layouts.LAYOUTS[layout].stem}
        if layout == "princeton" and arguments["blocks"] > 1:
            pytest.skip("princeton-vl's hourglass has one block per branch")
        network = model.build(**arguments, size=32)
        ours = {n: v.numpy() for n, v in checkpoints.by_name(network.variables).items()}
        tensors = layouts.to_torch(layout, arguments, ours, {})
        actual, prefix = layouts.recognise(f"module.{name}" for name in tensors)
        assert prefix == "module." and actual == layout.replace("anibali", "pytorch_pose")
        shapes = {name: array.shape for name, array in tensors.items()}
        assert layouts.architecture(actual, shapes) == arguments
        restored, _ = layouts.from_torch(actual, arguments, tensors, shapes_of(network))
        assert set(restored) == set(ours)
        assert all(restored[name].tobytes() == ours[name].tobytes() for name in ours)


class TestRejections:
    def test_missing_and_surplus_tensors_are_named(self, golden, tensors):
        gone = [name for name in tensors if name.endswith("bn2.running_var")][0]
        del tensors[gone]
        tensors["extra.weight"] = np.zeros(3, np.float32)
        with pytest.raises(ValueError) as error:
            golden.take(tensors)
        assert f"missing: 1 ({gone})" in str(error.value)
        assert "unknown: 1 (extra.weight)" in str(error.value)

    def test_counters_of_batches_may_be_missing(self, golden, tensors):
        old = {n: t for n, t in tensors.items() if "num_batches" not in n}
        assert len(old) < len(tensors)
        ours, _ = golden.take(old)
        assert set(ours) == set(golden.ours)

    def test_another_shape_is_named_with_it(self, golden, tensors):
        name = golden.named["stem_1_conv1.bias"]
        tensors[name] = np.zeros(5, np.float32)
        with pytest.raises(ValueError, match=rf"another shape.*{name} \(5,\)"):
            golden.take(tensors)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_weights_that_are_no_numbers(self, golden, tensors, value):
        name = golden.named["stack1_heatmaps.kernel"]
        tensors[name] = tensors[name].copy()
        tensors[name][3, 2] = value
        with pytest.raises(ValueError, match=f"NaN or infinite values: 1 .{name}"):
            golden.take(tensors)

    def test_a_negative_variance(self, golden, tensors):
        name = golden.named["stem_bn.moving_variance"]
        tensors[name] = -tensors[name]
        with pytest.raises(ValueError, match=f"variances below 0: 1 .{name}"):
            golden.take(tensors)

    def test_other_networks(self):
        with pytest.raises(ValueError, match="neither score.0.weight nor outs.0.conv.weight"):
            layouts.recognise(["fc.weight", "conv1.weight"])
        with pytest.raises(ValueError, match=r"begin with 'module.': 1 \(conv1.weight\)"):
            layouts.recognise(["module.score.0.weight", "conv1.weight"])

    def test_an_absurd_number_in_a_name_is_no_endless_loop(self, golden):
        shapes = {name: array.shape for name, array in golden.tensors.items()}
        head = {"pytorch_pose": "score.{}.weight", "princeton": "outs.{}.conv.weight"}
        shapes[head[golden.layout].format(999_999_999)] = (16, 8, 1, 1)
        with pytest.raises(ValueError, match="missing or numbered with gaps"):
            layouts.architecture(golden.layout, shapes)

    def test_networks_that_the_layout_cannot_be(self, golden):
        other = {"pytorch_pose": "newell", "princeton": "pytorch_pose"}[golden.layout]
        arguments = {**golden.arguments, "stem": other}
        with pytest.raises(ValueError, match="export it to a layout with that stem"):
            layouts.to_torch(golden.layout, arguments, golden.ours, {})
        mobile = model.build(**{**SMALL, "stem": golden.arguments["stem"]}, size=16, block="mobile")
        with pytest.raises(ValueError, match="has no tensor for .*depthwise"):
            layouts.names(golden.layout, SMALL, shapes_of(mobile))
        arguments = {**golden.arguments, "bn_epsilon": 1e-3}
        with pytest.raises(ValueError, match="epsilon 1e-05, this network 0.001"):
            layouts.to_torch(golden.layout, arguments, golden.ours, {})
        if golden.layout == "princeton":
            with pytest.raises(ValueError, match="1 residual block per branch, not 2"):
                layouts.names("princeton", {**SMALL, "blocks": 2}, [])
