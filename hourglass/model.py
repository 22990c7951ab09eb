"""The stacked hourglass network as a Keras graph (Newell et al., ECCV 2016, arXiv 1603.06937).

Two stems are published. "newell" is the authors' own (64, 128, pool, 128, 256 channels);
"pytorch_pose" doubles the channels one block earlier (64, 128, pool, 256, 256).
"""

from __future__ import annotations

import dataclasses
import functools
import zlib

import tensorflow as tf

from hourglass.layers import BatchNorm, Pointwise, Recomputed, Upsample

STEMS = ("newell", "pytorch_pose")
BLOCKS = ("residual", "mobile")
NORMS = ("batch", "group")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")  # float16 needs loss scaling
STRIDE = 4  # network input px per heatmap px

layers = tf.keras.layers


@dataclasses.dataclass(frozen=True)
class _Maker:
    """What all layers share: precision, initial seed, kind of norm and block, rematerialisation."""

    precision: str
    seed: int
    sync_bn: bool
    block: str
    norm: str
    remat: bool
    bn_momentum: float
    bn_epsilon: float

    def _uniform(self, fan_in: int, name: str) -> tf.keras.initializers.Initializer:
        # PyTorch's default: U(+-1/sqrt(fan_in)) for kernel and bias alike. The seed comes from the
        # layer's name, so that equal layers of two networks start equal whatever else they contain.
        limit = fan_in**-0.5
        seed = zlib.crc32(f"{self.seed}/{name}".encode())
        return tf.keras.initializers.RandomUniform(-limit, limit, seed=seed)

    def conv(self, x, filters: int, kernel: int, name: str, stride: int = 1):
        if stride > 1:
            # PyTorch pads both sides equally; "same" pads pictures of even size asymmetrically.
            x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad", dtype=self.precision)(x)
        fan_in = kernel * kernel * x.shape[-1]
        wide = kernel == 1 and min(filters, x.shape[-1]) >= 128  # narrower it does not pay
        kind = Pointwise if wide else layers.Conv2D
        return kind(
            filters,
            kernel,
            stride,
            "valid" if stride > 1 else "same",
            kernel_initializer=self._uniform(fan_in, f"{name}/kernel"),
            bias_initializer=self._uniform(fan_in, f"{name}/bias"),
            name=name,
            dtype=self.precision,
        )(x)

    def depthwise(self, x, name: str):
        return layers.DepthwiseConv2D(
            3,
            padding="same",
            use_bias=False,
            depthwise_initializer=self._uniform(9, f"{name}/kernel"),
            name=name,
            dtype=self.precision,
        )(x)

    def bn_relu(self, x, name: str):
        if self.norm == "group":
            x = self.group_norm(x, name.replace("bn", "gn"))
            return layers.ReLU(name=f"{name}_relu", dtype=self.precision)(x)
        x = BatchNorm(
            momentum=self.bn_momentum,
            epsilon=self.bn_epsilon,
            synchronized=self.sync_bn,
            name=name,
            dtype=self.precision,
        )(x)
        return layers.ReLU(name=f"{name}_relu", dtype=self.precision)(x)

    def group_norm(self, x, name: str):
        # 32 groups as published, or the most that leave two channels in each: a single channel on a
        # small grid would be normalised to nothing. Names differ from batch norm's, so that
        # --init_from never mixes up their scales. Always float32: Keras accumulates the variance in
        # the layer's own type.
        width = x.shape[-1]
        groups = next(g for g in (32, 16, 8, 4, 2, 1) if width % g == 0 and width >= 2 * g)
        return layers.GroupNormalization(groups, epsilon=1e-5, name=name, dtype="float32")(x)

    def pool(self, x, name: str):
        return layers.MaxPool2D(2, name=name, dtype=self.precision)(x)

    def upsample(self, x, name: str):
        return Upsample(name=name, dtype=self.precision)(x)

    def add(self, inputs, name: str):
        return layers.Add(name=name, dtype=self.precision)(inputs)

    def body(self, x, filters: int, name: str):
        """Pre-activation bottleneck: residual branch of one block."""
        half = filters // 2
        x = self.conv(self.bn_relu(x, f"{name}_bn1"), half, 1, f"{name}_conv1")
        x = self.bn_relu(x, f"{name}_bn2")
        if self.block == "mobile":
            x = self.depthwise(x, f"{name}_depthwise")
            return self.conv(self.bn_relu(x, f"{name}_bn3"), filters, 1, f"{name}_conv3")
        x = self.conv(x, half, 3, f"{name}_conv2")
        return self.conv(self.bn_relu(x, f"{name}_bn3"), filters, 1, f"{name}_conv3")

    def residual(self, x, filters: int, name: str):
        body = self.body(x, filters, name)
        skip = x if x.shape[-1] == filters else self.conv(x, filters, 1, f"{name}_skip")
        return self.add([skip, body], f"{name}_add")

    def stored_or_recomputed(self, part, x, name: str) -> list:
        """Outputs of ``part(x)``, recomputed in the backward pass if ``remat`` is set."""
        if not self.remat:
            return tf.nest.flatten(part(x))
        inner = tf.keras.Input(x.shape[1:], dtype=x.dtype)
        outputs = part(inner)
        recomputed = Recomputed(inner, outputs, name=f"{name}_recomputed", dtype=self.precision)
        return tf.nest.flatten(recomputed(x))

    def residuals(self, x, filters: int, count: int, name: str):
        for block in range(count):
            x = self.residual(x, filters, f"{name}_{block}")
        return x


def _stem(make: _Maker, images, stem: str, channels: int):
    quarter, half = channels // 4, channels // 2
    x = make.bn_relu(make.conv(images, quarter, 7, "stem_conv", stride=2), "stem_bn")
    x = make.pool(make.residual(x, half, "stem_1"), "stem_pool")
    x = make.residual(x, half if stem == "newell" else channels, "stem_2")
    return make.residual(x, channels, "stem_3")


def _hourglass(make: _Maker, x, channels: int, low: int, blocks: int, depth: int, name: str):
    name = f"{name}_{depth}"
    skip = make.residuals(x, channels, blocks, f"{name}_skip")
    inner = make.residuals(make.pool(x, f"{name}_pool"), low, blocks, f"{name}_down")
    if depth > 1:
        inner = _hourglass(make, inner, low, low, blocks, depth - 1, name)
    else:
        inner = make.residuals(inner, low, blocks, f"{name}_middle")
    inner = make.residuals(inner, channels, blocks, f"{name}_up")
    return make.add([skip, make.upsample(inner, f"{name}_upsample")], f"{name}_add")


def _stack(
    make: _Maker,
    x,
    *,
    channels: int,
    low: int,
    blocks: int,
    depth: int,
    joints: int,
    name: str,
    last: bool,
) -> list:
    """[heatmaps] of the stack with the input ``x``; unless it is the last, also the next input."""
    features = _hourglass(make, x, channels, low, blocks, depth, f"{name}_hourglass")
    features = make.residuals(features, channels, blocks, f"{name}_head")
    features = make.conv(features, channels, 1, f"{name}_linear")
    features = make.bn_relu(features, f"{name}_linear_bn")
    heatmaps = make.conv(features, joints, 1, f"{name}_heatmaps")
    if last:
        return [heatmaps]
    features = make.conv(features, channels, 1, f"{name}_features_back")
    maps = make.conv(heatmaps, channels, 1, f"{name}_heatmaps_back")
    return [heatmaps, make.add([x, features, maps], f"{name}_sum")]


# More than any network that trains; a damaged file must not take all memory.
_MOST = {"stacks": 64, "blocks": 64, "depth": 10, "joints": 1024, "channels": 4096, "size": 4096}


def _check(
    stacks: int, blocks: int, channels: int, low_channels: int, depth: int, joints: int, size: int
):
    for name, value in (("stacks", stacks), ("blocks", blocks), ("depth", depth)):
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, not {value}")
    if joints < 1:
        raise ValueError(f"joints must be 1 or more, not {joints}")
    for name, value in (("channels", channels), ("low_channels", low_channels)):
        if value < 8 or value % 4:
            raise ValueError(f"{name} must be a multiple of 4 from 8 up, not {value}")
    given = {"stacks": stacks, "blocks": blocks, "depth": depth, "joints": joints, "size": size}
    for name, value in {**given, "channels": max(channels, low_channels)}.items():
        if value > _MOST[name]:
            raise ValueError(f"{name} must be {_MOST[name]} or less, not {value}")
    step = STRIDE * 2**depth
    if size < step or size % step:
        raise ValueError(
            f"size must be a multiple of {step} px for depth {depth} "
            f"({STRIDE} px per heatmap px, halved {depth} times), not {size}"
        )


def _check_names(stem: str, block: str, norm: str, precision: str):
    rules = (("stem", stem, STEMS), ("block", block, BLOCKS), ("norm", norm, NORMS))
    for name, value, allowed in (*rules, ("precision", precision, (*PRECISIONS, "float64"))):
        if value not in allowed:
            raise ValueError(f"{name} {value!r} is not one of {allowed}")


def _check_batch_norm(momentum: float, epsilon: float):
    if not 0 <= momentum < 1:
        raise ValueError(f"bn_momentum must be at least 0 and below 1, not {momentum}")
    if not 0 < epsilon < 1:
        raise ValueError(f"bn_epsilon must be above 0 and below 1, not {epsilon}")


def stacked_hourglass(
    *,
    joints: int,
    stacks: int = 2,
    blocks: int = 1,
    channels: int = 256,
    low_channels: int = 0,
    depth: int = 4,
    size: int = 256,
    stem: str = "newell",
    block: str = "residual",
    norm: str = "batch",
    sync_bn: bool = False,
    precision: str = "float32",
    seed: int = 0,
    remat: bool = False,
    bn_momentum: float = 0.9,
    bn_epsilon: float = 1e-5,
) -> tf.keras.Model:
    """The stacked hourglass; its initial weights follow PyTorch's rule, ``seed`` and layer names.

    Args:
      joints: J, heatmaps per stack.
      stacks: hourglasses, each supervised.
      blocks: residual blocks per branch and grid of the hourglass, and in each head.
      channels: width of the trunk; the bottleneck's inner width is half of it.
      low_channels: width below an hourglass' first grid, where width costs little; 0: as
        ``channels``. (CornerNet's hourglass widens, too: Law and Deng 2018, arXiv 1808.01244.)
      depth: times that an hourglass halves its grid.
      size: side of the square input, px.
      stem: one of ``STEMS``.
      block: one of ``BLOCKS``; "mobile" replaces the 3x3 convolution by a depthwise one.
      norm: one of ``NORMS``; "group" normalises each example on its own (Wu and He 2018), so that
        the result depends neither on the batch nor on the number of replicas.
      sync_bn: batch norm over all replicas instead of each replica's own examples.
      precision: Keras dtype policy, one of ``PRECISIONS``, or "float64" as a reference.
      seed: of the initial weights.
      remat: training stores only the input of each stack and recomputes the rest in the backward
        pass (Chen et al. 2016, arXiv 1604.06174), so that one stack's activations are in memory at
        a time: less memory, more time, the same variables and results.
      bn_momentum: share of batch norm's moving averages that a step keeps. PyTorch's momentum 0.1
        counts the other way round.
      bn_epsilon: added to batch norm's variances; the default is PyTorch's.

    Returns:
      Keras model: [B, size, size, 3] float32 normalised RGB -> tuple of ``stacks`` tensors
      [B, size / 4, size / 4, J] float32 heatmaps.

    Raises:
      ValueError: an invalid argument.
    """
    _check(stacks, blocks, channels, low_channels or channels, depth, joints, size)
    _check_names(stem, block, norm, precision)
    _check_batch_norm(bn_momentum, bn_epsilon)
    make = _Maker(precision, seed, sync_bn, block, norm, remat, bn_momentum, bn_epsilon)
    images = tf.keras.Input([size, size, 3], name="images")
    x, outputs = [_stem(make, images, stem, channels)], []
    sizes = {"channels": channels, "low": low_channels or channels}
    sizes |= {"blocks": blocks, "depth": depth, "joints": joints}
    for stack in range(stacks):
        name, last = f"stack{stack}", stack == stacks - 1
        part = functools.partial(_stack, make, **sizes, name=name, last=last)
        heatmaps, *x = make.stored_or_recomputed(part, *x, name)
        outputs.append(layers.Activation("linear", dtype="float32", name=f"{name}_out")(heatmaps))
    # A tuple: Keras unwraps a list of length 1, and [-1] would be the last picture of the batch.
    return tf.keras.Model(images, tuple(outputs), name="stacked_hourglass")


# Networks by name: functions with the arguments of ``stacked_hourglass``, of which they may ignore
# some, and the same kind of result. docs/extending.md adds one.
NETWORKS = {"hourglass": stacked_hourglass}


@tf.autograph.experimental.do_not_convert  # of the layers' calls, which takes seconds
def build(*, joints: int, network: str = "hourglass", **arguments) -> tf.keras.Model:
    """Build a network of ``NETWORKS``.

    Args:
      joints: J, heatmaps per stack.
      network: key of ``NETWORKS``.
      **arguments: of ``stacked_hourglass``.

    Returns:
      Keras model: [B, size, size, 3] float32 normalised RGB -> tuple of a tensor for each stack
      [B, size / 4, size / 4, J] float32 heatmaps.

    Raises:
      ValueError: an invalid argument, or a network with other outputs.
    """
    if network not in NETWORKS:
        raise ValueError(f"network {network!r} is not one of {tuple(NETWORKS)}")
    built = NETWORKS[network](joints=joints, **arguments)
    grid = built.input_shape[1] // STRIDE
    outputs = [(tuple(tensor.shape), tensor.dtype.name) for tensor in built.outputs]
    valid = all(output == ((None, grid, grid, joints), "float32") for output in outputs)
    if not valid or not isinstance(built.output, tuple):
        raise ValueError(
            f"network {network!r} must return a tuple of float32 heatmaps "
            f"[B, {grid}, {grid}, {joints}], one for each stack; it returns {outputs}"
        )
    return built
