"""Conversion of weights between our names and those of three PyTorch implementations.

Layouts are the tensor names of bearpaw/pytorch-pose, anibali/pytorch-stacked-hourglass (the same
network) and princeton-vl/pytorch_stacked_hourglass. Every tensor is mapped by name; one without a
counterpart is an error, never a guess.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from pipelines.data.preprocessing import MEAN

# Variable of a Keras layer -> tensor of the PyTorch module that it corresponds to.
_TENSORS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


_EPSILON = 1e-5  # of the batch norms of all of them


class Pair(typing.NamedTuple):
    """A layer of ours and the PyTorch module with the same weights.

    Attributes:
      ours: name of the layer.
      theirs: name of the module.
      skip_of: for a skip convolution the prefix of its residual block, else "".
    """

    ours: str
    theirs: str
    skip_of: str = ""


Pairs = Iterator[Pair]


def _residual(ours: str, theirs: str, conv: str, skip: str) -> Pairs:
    for k in "123":
        yield Pair(f"{ours}_bn{k}", f"{theirs}.bn{k}")
        yield Pair(f"{ours}_conv{k}", f"{theirs}.conv{k}{conv}")
    yield Pair(f"{ours}_skip", f"{theirs}.{skip}", skip_of=ours)


def _branches(stack: int, depth: int) -> Iterator[tuple[int, str, str]]:
    """(level, branch, our layers' prefix) of one hourglass, from the largest grid down."""
    name = f"stack{stack}_hourglass"
    for level in range(depth, 0, -1):
        name += f"_{level}"
        for branch in ("skip", "down", "up") + (("middle",) if level == 1 else ()):
            yield level, branch, f"{name}_{branch}"


def _pytorch_pose_pairs(stacks: int, blocks: int, depth: int) -> Pairs:
    def residual(ours: str, theirs: str) -> Pairs:
        return _residual(ours, theirs, "", "downsample.0")

    yield Pair("stem_conv", "conv1")
    yield Pair("stem_bn", "bn1")
    for k in (1, 2, 3):
        yield from residual(f"stem_{k}", f"layer{k}.0")
    order = ("skip", "down", "up", "middle")
    for s in range(stacks):
        for b in range(blocks):
            for level, branch, ours in _branches(s, depth):
                theirs = f"hg.{s}.hg.{level - 1}.{order.index(branch)}.{b}"
                yield from residual(f"{ours}_{b}", theirs)
            yield from residual(f"stack{s}_head_{b}", f"res.{s}.{b}")
        yield Pair(f"stack{s}_linear", f"fc.{s}.0")
        yield Pair(f"stack{s}_linear_bn", f"fc.{s}.1")
        yield Pair(f"stack{s}_heatmaps", f"score.{s}")
        yield Pair(f"stack{s}_features_back", f"fc_.{s}")
        yield Pair(f"stack{s}_heatmaps_back", f"score_.{s}")


def _princeton_pairs(stacks: int, blocks: int, depth: int) -> Pairs:
    def residual(ours: str, theirs: str) -> Pairs:
        return _residual(ours, theirs, ".conv", "skip_layer.conv")

    if blocks != 1:
        raise ValueError(f"layout princeton has 1 residual block per branch, not {blocks}")
    yield Pair("stem_conv", "pre.0.conv")
    yield Pair("stem_bn", "pre.0.bn")
    for k, index in ((1, 1), (2, 3), (3, 4)):
        yield from residual(f"stem_{k}", f"pre.{index}")
    names = {"skip": "up1", "down": "low1", "middle": "low2", "up": "low3"}
    for s in range(stacks):
        for level, branch, ours in _branches(s, depth):
            theirs = f"hgs.{s}.0" + ".low2" * (depth - level)
            yield from residual(f"{ours}_0", f"{theirs}.{names[branch]}")
        yield from residual(f"stack{s}_head_0", f"features.{s}.0")
        yield Pair(f"stack{s}_linear", f"features.{s}.1.conv")
        yield Pair(f"stack{s}_linear_bn", f"features.{s}.1.bn")
        yield Pair(f"stack{s}_heatmaps", f"outs.{s}.conv")
        yield Pair(f"stack{s}_features_back", f"merge_features.{s}.conv.conv")
        yield Pair(f"stack{s}_heatmaps_back", f"merge_preds.{s}.conv.conv")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names of one implementation, and the preprocessing and decoder of its weights.

    Attributes:
      pairs: function(stacks, blocks, depth) -> every ``Pair`` of layer and module.
      stem: of ``hourglass.model.STEMS``.
      mean: RGB subtracted from [0, 1] pictures.
      decoder: one of ``heatmap.DECODERS``.
      prefix: of every name in the files of its training script.
      wrapped: whether those files contain the weights under "state_dict".
      spare_skips: whether blocks that need no skip convolution have an unused one.
    """

    pairs: Callable[[int, int, int], Pairs]
    stem: str
    mean: tuple[float, float, float]
    decoder: str
    prefix: str
    wrapped: bool
    spare_skips: bool = False


LAYOUTS = {
    # pose/models/hourglass.py, saved by example/main.py within DataParallel.
    "pytorch_pose": Layout(_pytorch_pose_pairs, "pytorch_pose", MEAN, "hourglass", "module.", True),
    # src/stacked_hourglass/model.py; its hg1, hg2 and hg8 are plain state_dicts.
    "anibali": Layout(_pytorch_pose_pairs, "pytorch_pose", MEAN, "hourglass", "", False),
    # models/posenet.py, saved by train.py within Trainer and DataParallel; data/MPII/dp.py
    # divides by 255 and subtracts nothing.
    "princeton": Layout(
        _princeton_pairs, "newell", (0.0, 0.0, 0.0), "hourglass", "model.module.", True, True
    ),
}

# A tensor that is always in one layout and never in another.
_MARKS = {"pytorch_pose": "score.0.weight", "princeton": "outs.0.conv.weight"}


def some(names: Iterable[str], most: int = 6) -> str:
    """The number of names and the first few, for a message."""
    names = sorted(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} ({', '.join(names[:most])}{rest})"


def recognise(names: Iterable[str]) -> tuple[str, str]:
    """(layout, prefix of every name) of a checkpoint's tensors.

    "anibali" has the names of "pytorch_pose" and is returned as such.

    Raises ValueError for tensors of another network.
    """
    names = list(names)
    for layout, mark in _MARKS.items():
        matches = [n for n in names if n == mark or n.endswith("." + mark)]
        if matches:
            prefix = min(matches, key=len)[: -len(mark)]
            others = [name for name in names if not name.startswith(prefix)]
            if others:
                raise ValueError(f"not all tensors begin with {prefix!r}: {some(others)}")
            return layout, prefix
    marks = " nor ".join(_MARKS.values())
    raise ValueError(
        f"neither {marks} is among its {len(names)} tensors, so it is not a stacked hourglass of "
        "pytorch-pose, anibali or princeton-vl"
    )


def _highest(pattern: str, names: Iterable[str]) -> int:
    """1 + the highest number that the pattern's group matches in any name."""
    names = list(names)
    numbers = [int(match[1]) for match in (re.match(pattern, name) for name in names) if match]
    # More than the number of tensors: an absurd name must not become an endless loop.
    if not numbers or max(numbers) >= len(names):
        raise ValueError(f"its tensors {pattern} are missing or numbered with gaps")
    return 1 + max(numbers)


def architecture(layout: str, shapes: dict[str, tuple[int, ...]]) -> dict:
    """Arguments of ``hourglass.model.build``, inferred from names and shapes of the tensors.

    Args:
      layout: "pytorch_pose" or "princeton".
      shapes: tensor name without prefix -> shape.

    Raises:
      ValueError: required tensors are missing.
    """
    names = list(shapes)
    if layout == "princeton":
        stacks, blocks, square = _highest(r"outs\.(\d{1,9})\.", names), 1, "features.0.1.conv"
        inner = [re.match(r"hgs\.0\.0((?:\.low2)*)\.low1\.", name) for name in names]
        depth = 1 + max((match[1].count(".low2") for match in inner if match), default=0)
        head = "outs.0.conv"
    else:
        stacks, square = _highest(r"score\.(\d{1,9})\.", names), "fc.0.0"
        blocks = _highest(r"res\.0\.(\d{1,9})\.", names)
        depth = _highest(r"hg\.0\.hg\.(\d{1,9})\.", names)
        head = "score.0"
    joints = _conv_shape(shapes, head)[0]
    # From a square tensor: a large width needs a large file, not only a large number in a name.
    channels = _conv_shape(shapes, square)[0]
    if _conv_shape(shapes, square)[:2] != (channels, channels):
        raise ValueError(f"{square}.weight should be square, not {shapes[square + '.weight']}")
    return {
        "joints": joints,
        "stacks": stacks,
        "blocks": blocks,
        "channels": channels,
        "depth": depth,
        "stem": LAYOUTS[layout].stem,
    }


def _conv_shape(shapes: dict, module: str) -> tuple[int, ...]:
    shape = tuple(shapes.get(f"{module}.weight", ()))
    if len(shape) != 4:
        raise ValueError(f"{module}.weight is missing or not a convolution: shape {shape}")
    return shape


def names(layout: str, arguments: dict, variables: Iterable[str]) -> dict[str, str]:
    """Our variable name -> their tensor name, for every variable of a network.

    Args:
      layout: key of ``LAYOUTS``.
      arguments: of ``hourglass.model.build``.
      variables: names as ``checkpoints.by_name`` gives them.

    Raises:
      ValueError: variables without a tensor in the layout.
    """
    modules = {pair.ours: pair.theirs for pair in _pairs(layout, arguments)}
    named, unknown = {}, []
    for variable in variables:
        layer, _, part = variable.rpartition(".")
        if layer in modules and part in _TENSORS:
            named[variable] = f"{modules[layer]}.{_TENSORS[part]}"
        else:
            unknown.append(variable)
    if unknown:
        raise ValueError(
            f"layout {layout} has no tensor for {some(unknown)}; it supports networks of --block="
            "residual with batch norm and one width"
        )
    return named


def _pairs(layout: str, arguments: dict) -> Pairs:
    return LAYOUTS[layout].pairs(arguments["stacks"], arguments["blocks"], arguments["depth"])


def unused(layout: str, arguments: dict, shapes: dict[str, tuple[int, ...]]) -> dict:
    """Their tensors without effect, which have no variable here, as zeros by name.

    These are batch norm's counters of batches, and in princeton-vl's blocks of equal width a skip
    convolution that is created but never called.

    Args:
      layout: key of ``LAYOUTS``.
      arguments: of ``hourglass.model.build``.
      shapes: our variable name -> shape.
    """
    zeros = {}
    for pair in _pairs(layout, arguments):
        if f"{pair.ours}.gamma" in shapes:
            zeros[f"{pair.theirs}.num_batches_tracked"] = np.zeros([], np.int64)
        first_norm = f"{pair.skip_of}_bn1.gamma"
        spare = LAYOUTS[layout].spare_skips and pair.skip_of and first_norm in shapes
        if spare and f"{pair.ours}.kernel" not in shapes:
            width = shapes[first_norm][0]
            zeros[f"{pair.theirs}.weight"] = np.zeros([width, width, 1, 1], np.float32)
            zeros[f"{pair.theirs}.bias"] = np.zeros([width], np.float32)
    return zeros


def _to_ours(array: np.ndarray) -> np.ndarray:
    """Kernels [out, in, h, w] -> [h, w, in, out]; all else unchanged."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _to_theirs(array: np.ndarray) -> np.ndarray:
    """Kernels [h, w, in, out] -> [out, in, h, w]; all else unchanged."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def from_torch(
    layout: str, arguments: dict, tensors: dict[str, np.ndarray], shapes: dict
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights by our variable names, and the tensors without effect by theirs.

    Args:
      layout: key of ``LAYOUTS``.
      arguments: of ``hourglass.model.build``.
      tensors: their name without prefix -> array.
      shapes: our variable name -> shape.

    Raises:
      ValueError: naming what is missing, left over, of another shape, or not a number.
    """
    named, idle = names(layout, arguments, shapes), unused(layout, arguments, shapes)
    needed = set(named.values()) | {n for n in idle if not n.endswith("num_batches_tracked")}
    # Files of PyTorch before 0.4.1 have no counters.
    _check_names(needed, set(named.values()) | set(idle), set(tensors))
    ours = {variable: _to_ours(tensors[theirs]) for variable, theirs in named.items()}
    rest = {name: tensors[name] for name in idle if name in tensors}
    wrong = [
        f"{named[name]} {tensors[named[name]].shape}"
        for name, array in ours.items()
        if array.shape != tuple(shapes[name])
    ]
    wrong += [
        f"{name} {array.shape}" for name, array in rest.items() if array.shape != idle[name].shape
    ]
    if wrong:
        raise ValueError(f"tensors of another shape than the rest of the network: {some(wrong)}")
    _check_values({theirs: tensors[theirs] for theirs in named.values()})
    return ours, rest


def _check_names(needed: set[str], known: set[str], present: set[str]) -> None:
    parts = []
    if needed - present:
        parts.append(f"missing: {some(needed - present)}")
    if present - known:
        parts.append(f"unknown: {some(present - known)}")
    if parts:
        raise ValueError(f"its tensors are not those of a stacked hourglass: {'; '.join(parts)}")


def _check_values(tensors: dict[str, np.ndarray]) -> None:
    bad = [name for name, array in tensors.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(f"tensors with NaN or infinite values: {some(bad)}")
    bad = [n for n, array in tensors.items() if n.endswith("running_var") and (array < 0).any()]
    if bad:
        raise ValueError(f"variances below 0: {some(bad)}")


def to_torch(
    layout: str, arguments: dict, weights: dict[str, np.ndarray], kept: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Tensors by their names without prefix; the inverse of ``from_torch``.

    Args:
      layout: key of ``LAYOUTS``.
      arguments: of ``hourglass.model.build``.
      weights: our variable name -> array.
      kept: the tensors without effect that ``from_torch`` returned; missing ones become zeros.

    Raises:
      ValueError: a network that the layout does not support.
    """
    if arguments["stem"] != LAYOUTS[layout].stem:
        raise ValueError(
            f"layout {layout} has --stem={LAYOUTS[layout].stem}, this network "
            f"{arguments['stem']}; export it to a layout with that stem"
        )
    if arguments.get("bn_epsilon", _EPSILON) != _EPSILON:
        raise ValueError(
            f"layout {layout} has batch norms with epsilon {_EPSILON:g}, this network "
            f"{arguments['bn_epsilon']:g}, so the file's heatmaps would differ; export a network "
            f"that was trained with --bn_epsilon={_EPSILON:g}"
        )
    shapes = {name: array.shape for name, array in weights.items()}
    theirs = names(layout, arguments, weights)
    tensors = {theirs[name]: _to_theirs(array) for name, array in weights.items()}
    idle = unused(layout, arguments, shapes)
    kept = {n: a for n, a in kept.items() if n in idle and a.shape == idle[n].shape}
    return {**tensors, **idle, **kept}
