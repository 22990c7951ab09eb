"""Our network and PyTorch's with the same weights, and PyTorch's files read and written.

Skipped where PyTorch is not installed (`make torch` installs it); with HOURGLASS_NEED_TORCH that
is an error.
"""

from __future__ import annotations

import json
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.forked import ROOT
from tests.helpers.people import tiny

if not os.environ.get("HOURGLASS_NEED_TORCH"):
    pytest.importorskip("torch", reason="PyTorch is not installed: make torch")

import torch

from hourglass import model, optimizer
from hourglass.skeleton import LSP, MPII
from pipelines import checkpoints
from pipelines.data import preprocessing
from pipelines.export.pytorch import files, layouts
from pipelines.training import run_dir, train
from tests.helpers import torch_twins
from tests.helpers.torch_networks import float64, gradients

pytestmark = pytest.mark.slow

# Title -> layout, arguments of the twin; 8 channels.
CASES = {
    "pytorch-pose, 2 stacks": ("pytorch_pose", {"stacks": 2}),
    "anibali, 1 stack of 2 blocks": ("anibali", {"stacks": 1, "blocks": 2}),
    "princeton-vl, 2 stacks": ("princeton", {"stacks": 2}),
}
BATCH, SIZE = 8, 64  # On the smallest grid, a pixel, batch norm still sees 8 numbers.


def make_twin(layout: str, **arguments):
    return torch_twins.TWINS[layout.replace("anibali", "pytorch_pose")](**arguments)


def save(path: pathlib.Path, layout: str, tensors: dict, **options) -> str:
    """A file as the layout's training script saves it."""
    names = layouts.LAYOUTS[layout]
    state = {names.prefix + name: tensor for name, tensor in tensors.items()}
    if names.wrapped:
        state = {"epoch": 3, "best_acc": torch.tensor(0.5), "state_dict": state, "arch": "hg"}
    torch.save(state, path, **options)
    return str(path)


class Pair:
    """A twin, the folder imported from its file, and the network of that folder."""

    def __init__(self, folder: pathlib.Path, title: str):
        self.title, (self.layout, self.arguments) = title, CASES[title]
        layout, arguments = self.layout, self.arguments
        self.twin = torch_twins.scramble(make_twin(layout, **arguments))
        self.tensors = {n: t.clone() for n, t in self.twin.state_dict().items()}
        self.folder = str(folder / "imported")
        source = save(folder / "weights.pth", layout, self.tensors)
        self.imported = files.import_run(source, self.folder, MPII, SIZE)
        self.network = model.build(**checkpoints.read_network(self.folder)[0])
        self.variables = checkpoints.by_name(self.network.variables)
        self.named = layouts.names(layout, self.imported, self.variables)
        random = np.random.default_rng(1)
        self.images = random.normal(0, 0.25, [BATCH, SIZE, SIZE, 3]).astype(np.float32)
        self.target = random.uniform(0, 1, [BATCH, SIZE // 4, SIZE // 4, 16]).astype(np.float32)
        self.reset()

    def ours(self, tensors: dict) -> dict[str, np.ndarray]:
        """Those of their tensors that we have, by our names, in our order of axes."""
        by_theirs = {theirs: name for name, theirs in self.named.items()}
        return {by_theirs[n]: ours(t.numpy()) for n, t in tensors.items() if n in by_theirs}

    def double(self) -> torch.nn.Module:
        """The twin as it was, in float64."""
        twin = make_twin(self.layout, **self.arguments)
        twin.load_state_dict(self.tensors)
        return twin.double()

    def reset(self):
        self.twin.load_state_dict(self.tensors)
        checkpoints.load(checkpoints.find(self.folder), self.network, "model")


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"), request.param)


def ours(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def compare(pair: Pair, what: str, actual: dict, want: dict, within: float, floor=0.0) -> None:
    """Every tensor's largest difference, as a share of its largest value, is at most ``within``.

    For tensors below ``floor``: as a share of that. Prints the worst one: a row
    of the parity table in docs/parity.md.
    """
    assert set(actual) == set(want)
    sizes = {name: max(np.abs(array).max(), floor) for name, array in want.items()}
    shares = {name: np.abs(actual[name] - want[name]).max() / sizes[name] for name in want}
    worst = max(shares, key=shares.get)
    print(f"| {pair.title} | {what} | {worst} | {shares[worst]:.1e} |")
    assert shares[worst] <= within


class TestParity:
    """Prints the parity table: pytest tests/export/test_torch.py -k TestParity -q -s."""

    def test_heatmaps_in_evaluation_mode(self, pair):
        pair.reset()
        with torch.no_grad():
            want = torch_twins.passed_on(pair.images, pair.twin.eval())
        actual = pair.network(pair.images, training=False)
        assert len(actual) == len(want) == pair.arguments["stacks"]
        assert all(heatmaps.std() > 0.05 for heatmaps in want)
        stacks = [f"stack {s}" for s in range(len(want))]
        actual = {stack: heatmaps.numpy() for stack, heatmaps in zip(stacks, actual)}
        want = {stack: heatmaps.numpy() for stack, heatmaps in zip(stacks, want)}
        compare(pair, "heatmaps", actual, want, within=1e-4)
        assert all(np.abs(actual[stack] - want[stack]).max() < 1e-4 for stack in stacks)

    def test_gradients_in_training_mode(self, pair):
        """In float64; see ``float64`` for the reason."""
        pair.reset()
        want = pair.ours(torch_twins.gradients(pair.double(), pair.images, pair.target))
        arguments = checkpoints.read_network(pair.folder)[0]
        actual = gradients(float64(pair.network, arguments), pair.images, pair.target)
        # A bias before batch norm has no gradient but rounding.
        floor = 1e-2 * max(np.abs(slope).max() for slope in want.values())
        compare(pair, "gradients", actual, want, within=1e-5, floor=floor)

    def test_gradients_in_float32_are_as_good_as_torchs(self, pair):
        """Both are rounded; the median tensor's error must not be larger than PyTorch's own."""
        pair.reset()
        exact = pair.ours(torch_twins.gradients(pair.double(), pair.images, pair.target))
        theirs = pair.ours(torch_twins.gradients(pair.twin, pair.images, pair.target))
        actual = gradients(pair.network, pair.images, pair.target)

        def median_error(slopes: dict) -> float:
            shares = [np.abs(slopes[n] - exact[n]).max() / np.abs(exact[n]).max() for n in exact]
            return float(np.median(shares))

        our_error, their_error = median_error(actual), median_error(theirs)
        print(
            f"| {pair.title} | float32 gradients, median: ours {our_error:.1e} | torch's ", end=""
        )
        print(f"| {their_error:.1e} |")
        assert our_error < 3 * their_error

    def test_batch_norm_after_three_steps(self, pair):
        """torch keeps the unbiased variance; so does TensorFlow's fused batch norm."""
        pair.reset()
        twin = pair.double()
        for k in range(3):
            images = pair.images * (1.0 + k)
            pair.network(images, training=True)
            with torch.no_grad():
                torch_twins.passed_on(images.astype(np.float64), twin.train())
        want = pair.ours(torch_twins.statistics(twin))
        before = pair.ours(torch_twins.statistics(pair.double()))
        assert not any(np.allclose(want[name], before[name], rtol=1e-3) for name in want)
        actual = {name: pair.variables[name].numpy() for name in want}
        compare(pair, "batch norm's statistics after 3 steps", actual, want, within=1e-3)

    @pytest.mark.fire
    def test_three_steps_of_rmsprop(self, pair):
        """Given equal gradients: torch's of three steps, each at the weights it has reached."""
        pair.reset()
        theirs = torch.optim.RMSprop(pair.twin.parameters(), lr=2.5e-4, alpha=0.99, eps=1e-8)
        opt = optimizer.build("rmsprop", lambda: tf.constant(2.5e-4))
        names = list(checkpoints.by_name(pair.network.trainable_variables))
        for _ in range(3):
            slopes = pair.ours(torch_twins.gradients(pair.twin, pair.images, pair.target))
            theirs.step()
            given = [(tf.constant(slopes[name]), pair.variables[name]) for name in names]
            opt.apply_gradients(given)
        reached = pair.ours({n: p.detach() for n, p in pair.twin.named_parameters()})
        start = pair.ours(pair.tensors)
        # Where the gradient is but rounding, epsilon holds the weight back, there as here.
        assert np.median([np.abs(reached[name] - start[name]).max() for name in names]) > 1e-3
        actual = {name: pair.variables[name].numpy() for name in names}
        want = {name: reached[name] for name in names}
        compare(pair, "weights after 3 steps of RMSprop", actual, want, within=1e-6)


class TestThereAndBack:
    def test_bit_for_bit(self, pair, tmp_path):
        path = str(tmp_path / "back.pth")
        count = files.export_run(pair.folder, pair.layout, path)
        saved = torch.load(path, weights_only=True)
        state = saved["state_dict"] if pair.layout != "anibali" else saved
        prefix = layouts.LAYOUTS[pair.layout].prefix
        assert count == len(state) == len(pair.tensors)
        for name, tensor in pair.tensors.items():
            assert state[prefix + name].dtype == tensor.dtype
            assert torch.equal(state[prefix + name], tensor), name
        fresh = make_twin(pair.layout, **pair.arguments)
        fresh.load_state_dict({name[len(prefix) :]: tensor for name, tensor in state.items()})

        second = tmp_path / "second"
        files.import_run(path, str(second), MPII, SIZE)
        values = checkpoints.values(checkpoints.find(str(second)), "model")
        assert set(values) == set(pair.variables)
        first = checkpoints.values(checkpoints.find(pair.folder), "model")
        assert all(values[name].tobytes() == first[name].tobytes() for name in values)

    def test_the_run_says_what_its_weights_expect(self, pair):
        mean, decode = checkpoints.read_expected(pair.folder)
        assert mean == ((0.0, 0.0, 0.0) if pair.layout == "princeton" else preprocessing.MEAN)
        assert decode == "hourglass"
        stem = "newell" if pair.layout == "princeton" else "pytorch_pose"
        arguments, skeleton = checkpoints.read_network(pair.folder)
        assert (arguments["stem"], arguments["size"], skeleton) == (stem, SIZE, MPII)

    def test_a_run_of_ours_goes_out(self, trained, tmp_path):
        """No file of theirs behind it: what decides nothing is zero, and the twin loads it."""
        config, _ = trained
        path = str(tmp_path / "ours.pth")
        files.export_run(config.workdir, "princeton", path, "raw")
        state = torch.load(path, weights_only=True)["state_dict"]
        twin = torch_twins.Princeton(stacks=2, channels=8, depth=1)
        twin.load_state_dict({n[len("model.module.") :]: tensor for n, tensor in state.items()})
        network = model.build(**checkpoints.read_network(config.workdir)[0])
        checkpoints.load(checkpoints.find(config.workdir), network, "model")
        images = np.random.default_rng(0).normal(0, 0.3, [2, 32, 32, 3]).astype(np.float32)
        with torch.no_grad():
            want = torch_twins.passed_on(images, twin.eval())
        for heatmaps, theirs in zip(network(images, training=False), want):
            np.testing.assert_allclose(heatmaps, theirs, rtol=0, atol=1e-4)

    def test_a_stem_of_another_layout_is_rejected(self, trained, tmp_path):
        with pytest.raises(ValueError, match="has --stem=pytorch_pose, this network newell"):
            files.export_run(trained[0].workdir, "anibali", str(tmp_path / "no.pth"))
        assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    """Of a small anibali network; copy it to damage it."""
    return torch_twins.scramble(torch_twins.PytorchPose(1, 1, 8, 16, 2)).state_dict()


class Trap:
    """An object that runs code when it is unpickled by a reader that runs code."""

    def __init__(self, marker: pathlib.Path):
        self.marker = marker

    def __reduce__(self):
        return (pathlib.Path.touch, (self.marker,))


class TestFiles:
    @pytest.fixture
    def rejected(self, tmp_path):
        """A function: importing this file must fail with these words and leave nothing."""

        def check(path, words: str, skeleton=MPII):
            with pytest.raises((ValueError, OSError), match=words) as error:
                files.import_run(str(path), str(tmp_path / "run"), skeleton, 32)
            assert str(path) in str(error.value)
            assert not list(tmp_path.glob("run*"))

        return check

    @pytest.mark.parametrize("layout", ["anibali", "pytorch_pose"])
    @pytest.mark.parametrize("modern", [True, False], ids=["zip", "before 1.6"])
    def test_both_formats_of_files(self, tensors, tmp_path, layout, modern):
        options = {"_use_new_zipfile_serialization": modern}
        path = save(tmp_path / "w.pth.tar", layout, tensors, **options)
        actual = files.read(path)
        prefix = "module." if layout == "pytorch_pose" else ""
        assert set(actual) == {prefix + name for name in tensors}
        assert all(np.array_equal(actual[prefix + n], t.numpy()) for n, t in tensors.items())

    def test_half_precision_is_read(self, tensors, tmp_path):
        halves = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
        actual = files.read(save(tmp_path / "w.pth", "anibali", halves))
        assert {a.dtype for a in actual.values()} == {np.dtype(np.float32), np.dtype(np.int64)}

    @pytest.mark.parametrize("modern", [True, False], ids=["zip", "before 1.6"])
    @pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.99])
    def test_truncated(self, tensors, tmp_path, rejected, modern, part):
        path = tmp_path / "w.pth"
        save(path, "anibali", tensors, _use_new_zipfile_serialization=modern)
        data = path.read_bytes()
        path.write_bytes(data[: int(part * len(data))])
        rejected(path, "cannot be read as PyTorch weights")

    def test_a_flipped_byte_in_a_weight(self, tensors, tmp_path, rejected):
        """PyTorch itself does not compare the checksums."""
        path = tmp_path / "w.pth"
        save(path, "anibali", tensors)
        data = bytearray(path.read_bytes())
        where = data.index(tensors["conv1.weight"].numpy().tobytes())
        data[where] ^= 1
        path.write_bytes(data)
        assert not torch.equal(torch.load(path)["conv1.weight"], tensors["conv1.weight"])
        rejected(path, "cannot be read as PyTorch weights .the checksum of .* is another")

    @pytest.mark.parametrize("modern", [True, False], ids=["zip", "before 1.6"])
    def test_code_in_a_file_does_not_run(self, tensors, tmp_path, rejected, modern):
        marker, path = tmp_path / "marker", tmp_path / "w.pth"
        state = {"state_dict": dict(tensors), "trap": Trap(marker)}
        torch.save(state, path, _use_new_zipfile_serialization=modern)
        rejected(path, "Nothing in it was run")
        assert not marker.exists()
        torch.load(path, weights_only=False)  # The trap does work.
        assert marker.exists()

    def test_a_bare_pickle_does_not_run(self, tmp_path, rejected):
        marker, path = tmp_path / "marker", tmp_path / "w.pth"
        path.write_bytes(pickle.dumps(Trap(marker)))
        rejected(path, "cannot be read as PyTorch weights")
        assert not marker.exists()
        pickle.loads(path.read_bytes())
        assert marker.exists()

    def test_missing_and_surplus_tensors(self, tensors, tmp_path, rejected):
        state = {n: t for n, t in tensors.items() if n != "hg.0.hg.1.2.0.conv2.weight"}
        path = save(tmp_path / "less.pth", "pytorch_pose", state)
        rejected(path, r"missing: 1 \(hg.0.hg.1.2.0.conv2.weight\)")
        path = save(tmp_path / "more.pth", "pytorch_pose", {**tensors, "fc_.0.bias": torch.ones(8)})
        rejected(path, r"unknown: 1 \(fc_.0.bias\)")

    def test_other_joints(self, tensors, tmp_path, rejected):
        path = save(tmp_path / "w.pth", "anibali", tensors)
        rejected(path, "heatmaps of 16 joints, the given skeleton has 14", LSP)

    def test_nan(self, tensors, tmp_path, rejected):
        name = "fc.0.0.weight"
        path = save(tmp_path / "w.pth", "anibali", {**tensors, name: tensors[name] * torch.nan})
        rejected(path, rf"NaN or infinite values: 1 \({name}\)")

    def test_a_view_of_more_than_the_file_holds(self, tensors, tmp_path, rejected):
        name = "fc.0.0.weight"
        wide = torch.zeros(1).expand(100_000, 100_000, 1, 1)
        path = save(tmp_path / "w.pth", "anibali", {**tensors, name: wide})
        rejected(path, "need .* bytes, the file has")

    def test_files_that_are_something_else(self, tensors, tmp_path, rejected):
        rejected(tmp_path / "none.pth", "no file at")
        for value, words in (
            ([1, 2], "contains no weights by name"),
            ({}, "contains no weights by name"),
            ({"epoch": 3}, "not named tensors"),
            ({"fc.weight": torch.ones(2)}, "not a stacked hourglass"),
            ({**tensors, "x": torch.ones(2, dtype=torch.float64)}, "not named tensors: 1 .'x'"),
        ):
            torch.save(value, tmp_path / "w.pth")
            rejected(tmp_path / "w.pth", words)
        with zipfile.ZipFile(tmp_path / "w.zip", "w") as file:
            file.writestr("data.txt", "hello")
        rejected(tmp_path / "w.zip", "cannot be read as PyTorch weights")

    def test_a_folder_that_is_taken_stays(self, tensors, tmp_path):
        path = save(tmp_path / "w.pth", "anibali", tensors)
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "mine.txt").write_text("mine")
        with pytest.raises(ValueError, match="exists already; choose another --output"):
            files.import_run(path, str(tmp_path / "run"), MPII, 32)
        assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine.txt"]

    def test_an_output_that_cannot_be_written(self, tensors, tmp_path):
        path = save(tmp_path / "w.pth", "anibali", tensors)
        with pytest.raises(OSError, match="cannot write .*choose another path"):
            files.import_run(path, path + "/run", MPII, 32)

    def test_an_unsafe_pytorch_is_rejected(self, tensors, tmp_path, monkeypatch):
        path = save(tmp_path / "w.pth", "anibali", tensors)
        monkeypatch.setattr(torch, "__version__", "2.5.1")
        with pytest.raises(OSError, match="PyTorch 2.5.1 reads files unsafely"):
            files.read(path)


def test_training_goes_on_from_imported_weights(tmp_path, info):
    """Fine-tuning keeps the input mean that the weights were trained with."""
    twin = torch_twins.scramble(torch_twins.Princeton(1, 8, 16, 1))
    path = save(tmp_path / "w.pth", "princeton", twin.state_dict())
    files.import_run(path, str(tmp_path / "imported"), MPII, 32)
    config = tiny(tmp_path / "run", info, steps=2, init_from=str(tmp_path / "imported"))
    assert run_dir.input_mean(config) == (0.0, 0.0, 0.0)
    assert train.run(config) == 0
    assert checkpoints.read_expected(config.workdir)[0] == (0.0, 0.0, 0.0)
    values = checkpoints.values(checkpoints.find(config.workdir), "model")
    start = ours(twin.outs[0].conv.weight.detach().numpy())
    assert 0 < np.abs(values["stack0_heatmaps.kernel"] - start).max() < 0.01


def test_an_imported_run_is_not_resumed_nor_overwritten(tmp_path, info):
    """It contains no optimizer: as --workdir it is rejected and unchanged."""
    twin = torch_twins.scramble(torch_twins.Princeton(1, 8, 16, 1))
    path = save(tmp_path / "w.pth", "princeton", twin.state_dict())
    folder = tmp_path / "imported"
    files.import_run(path, str(folder), MPII, 32)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(FileNotFoundError, match="flags.txt is missing.*--init_from"):
        train.run(tiny(folder, info, steps=2))
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_the_commands(tmp_path, info, fork_script):
    """Import, evaluate, export: what a user types."""

    def command(*words: str) -> tuple[int, str]:
        answer = fork_script(tmp_path, *words)
        output = answer["output"] + answer["errors"]
        assert "Traceback" not in output, output
        return answer["code"], output

    script = {name: str(ROOT / "scripts" / f"{name}_torch.py") for name in ("import", "export")}
    twin = torch_twins.scramble(torch_twins.Princeton(2, 8, 16, 1))
    save(tmp_path / "w.pth", "princeton", twin.state_dict())
    code, output = command(script["import"], "--input=w.pth", "--output=run", "--size=32")
    assert code == 0 and "layout princeton, --stacks=2 --blocks=1 --channels=8 --depth=1" in output
    flags = ("--checkpoint=run", "--workdir=scores", f"--records={info.folder}", "--strategy=one")
    code, output = command(str(ROOT / "eval_main.py"), *flags)
    assert code == 0 and "trained for" not in output
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert (results["people"], results["source"]["decoder"]) == (
        info.count("validation"),
        "hourglass",
    )
    code, output = command(str(ROOT / "eval_main.py"), *flags, "--decoder=quarter")
    assert code == 0 and "for --decoder=hourglass, not quarter" in output
    words = ("--checkpoint=run", "--layout=princeton", "--output=back.pth")
    code, output = command(script["export"], *words)
    assert code == 0, output
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(back["model.module." + n], t) for n, t in twin.state_dict().items())

    (tmp_path / "bad.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:1000])
    code, output = command(script["import"], "--input=bad.pth", "--output=bad")
    assert code == 1 and "error: bad.pth cannot be read as PyTorch weights" in output
    code, output = command(script["export"], "--checkpoint=none", *words[1:])
    assert code == 1 and "error: none contains no trained network" in output
