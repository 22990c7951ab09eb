"""Stacked hourglass networks in PyTorch, written from the paper and the published tensor names.

Independent of pipelines/torch_weights.py: they are what the imported weights are compared with.
``PytorchPose`` has the tensors of bearpaw/pytorch-pose and anibali/pytorch-stacked-hourglass,
``Princeton`` those of princeton-vl/pytorch_stacked_hourglass, at any width.

    python tests/helpers/torch_twins.py

writes tests/golden/torch_*.npz, by which parity is tested where PyTorch is not installed.
"""

from __future__ import annotations

import pathlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Pre-activation bottleneck: BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1, and the skip."""

    def __init__(self, before: int, after: int, skip: str, wrap, always: bool):
        super().__init__()
        half = after // 2
        for k, (a, b, kernel) in enumerate([(before, half, 1), (half, half, 3), (half, after, 1)]):
            self.add_module(f"bn{k + 1}", nn.BatchNorm2d(a))
            self.add_module(f"conv{k + 1}", wrap(nn.Conv2d(a, b, kernel, padding=kernel // 2)))
        self.skip = skip if before != after else None
        if before != after or always:
            self.add_module(skip, wrap(nn.Conv2d(before, after, 1), skip=True))

    def forward(self, x):
        y = x
        for k in "123":
            y = self.get_submodule(f"conv{k}")(F.relu(self.get_submodule(f"bn{k}")(y)))
        return y + (self.get_submodule(self.skip)(x) if self.skip else x)


def half_size(x):
    return F.max_pool2d(x, 2)


def double_size(x):
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


class PytorchPose(nn.Module):
    """Stem 7x7, layer1, pool, layer2, layer3; hg[stack].hg[level][skip, down, up(, middle)]."""

    def __init__(self, stacks=2, blocks=1, channels=8, joints=16, depth=4):
        super().__init__()
        c = channels

        def chain(before, count=1):
            after = (before, *[c] * count)
            return nn.Sequential(*(self._block(a, c) for a, _ in zip(after, range(count))))

        self.depth = depth
        self.conv1, self.bn1 = nn.Conv2d(3, c // 4, 7, 2, 3), nn.BatchNorm2d(c // 4)
        self.layer1 = nn.Sequential(self._block(c // 4, c // 2))
        self.layer2, self.layer3 = chain(c // 2), chain(c)
        levels = [[4 if level == 0 else 3 for level in range(depth)] for _ in range(stacks)]
        self.hg = nn.ModuleList(nn.Module() for _ in levels)
        for stack, branches in zip(self.hg, levels):
            stack.hg = nn.ModuleList(
                nn.ModuleList(chain(c, blocks) for _ in range(count)) for count in branches
            )
        self.res = nn.ModuleList(chain(c, blocks) for _ in levels)
        self.fc = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, c, 1), nn.BatchNorm2d(c)) for _ in levels
        )
        self.score = nn.ModuleList(nn.Conv2d(c, joints, 1) for _ in levels)
        self.fc_ = nn.ModuleList(nn.Conv2d(c, c, 1) for _ in levels[1:])
        self.score_ = nn.ModuleList(nn.Conv2d(joints, c, 1) for _ in levels[1:])

    @staticmethod
    def _block(before, after):
        def wrap(conv, skip=False):
            return nn.Sequential(conv) if skip else conv

        return Block(before, after, "downsample", wrap, always=False)

    def _hourglass(self, levels, level, x):
        branches = levels[level]
        low = branches[1](half_size(x))
        low = self._hourglass(levels, level - 1, low) if level else branches[3](low)
        return branches[0](x) + double_size(branches[2](low))

    def forward(self, x):
        """[B, 3, H, W] -> list of [B, J, H / 4, W / 4]."""
        x = half_size(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        x, outputs = self.layer3(self.layer2(x)), []
        for s, hourglass in enumerate(self.hg):
            y = self.res[s](self._hourglass(hourglass.hg, self.depth - 1, x))
            y = F.relu(self.fc[s](y))
            outputs.append(self.score[s](y))
            if s + 1 < len(self.hg):
                x = x + self.fc_[s](y) + self.score_[s](outputs[-1])
        return outputs


def _named(**modules) -> nn.Module:
    holder = nn.Module()
    for name, module in modules.items():
        holder.add_module(name, module)
    return holder


class _Wrapped(nn.Module):
    """A convolution called .conv, and batch norm called .bn after it where there is one."""

    def __init__(self, conv, norm: bool = False):
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels) if norm else None

    def forward(self, x):
        x = self.conv(x)
        return x if self.bn is None else self.bn(x)


class Princeton(nn.Module):
    """Stem "newell"; hgs[stack][0].up1, .low1, .low2 (recursive), .low3; every block has a skip."""

    def __init__(self, stacks=2, channels=8, joints=16, depth=4):
        super().__init__()
        c = channels
        self.pre = nn.Sequential(
            _Wrapped(nn.Conv2d(3, c // 4, 7, 2, 3), norm=True),
            self._block(c // 4, c // 2),
            nn.MaxPool2d(2),
            self._block(c // 2, c // 2),
            self._block(c // 2, c),
        )
        self.hgs = nn.ModuleList(nn.Sequential(self._levels(c, depth)) for _ in range(stacks))
        self.features = nn.ModuleList(
            nn.Sequential(self._block(c, c), _Wrapped(nn.Conv2d(c, c, 1), norm=True))
            for _ in range(stacks)
        )
        self.outs = nn.ModuleList(_Wrapped(nn.Conv2d(c, joints, 1)) for _ in range(stacks))
        back = range(stacks - 1)
        self.merge_features = nn.ModuleList(_named(conv=_Wrapped(nn.Conv2d(c, c, 1))) for _ in back)
        self.merge_preds = nn.ModuleList(
            _named(conv=_Wrapped(nn.Conv2d(joints, c, 1))) for _ in back
        )

    @staticmethod
    def _block(before, after):
        def wrap(conv, skip=False):
            return _Wrapped(conv)

        return Block(before, after, "skip_layer", wrap, always=True)

    def _levels(self, c, depth):
        low2 = self._levels(c, depth - 1) if depth > 1 else self._block(c, c)
        blocks = (self._block(c, c) for _ in range(3))
        return _named(**dict(zip(("up1", "low1", "low3"), blocks)), low2=low2)

    def _hourglass(self, level, x):
        low = level.low1(half_size(x))
        low = level.low2(low) if isinstance(level.low2, Block) else self._hourglass(level.low2, low)
        return level.up1(x) + double_size(level.low3(low))

    def forward(self, x):
        """[B, 3, H, W] -> list of [B, J, H / 4, W / 4]."""
        x, outputs = F.relu(self.pre[0](x)), []
        for k in (1, 2, 3, 4):
            x = self.pre[k](x)
        for s, hourglass in enumerate(self.hgs):
            y = self.features[s][0](self._hourglass(hourglass[0], x))
            y = F.relu(self.features[s][1](y))
            outputs.append(self.outs[s](y))
            if s + 1 < len(self.hgs):
                x = x + self.merge_preds[s].conv(outputs[-1]) + self.merge_features[s].conv(y)
        return outputs


def scramble(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every tensor, batch norm's too, so that no mix-up of two goes unnoticed."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            tensor.fill_(7)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=draw)
        elif tensor.ndim == 4:
            limit = tensor[0].numel() ** -0.5  # as PyTorch draws them
            tensor.uniform_(-limit, limit, generator=draw)
        else:  # biases, scales and shifts of batch norm, running means
            tensor.uniform_(-0.2, 0.2, generator=draw)
            is_scale = name.endswith("weight")
            tensor.add_(1.0 if is_scale else 0.0)
    return network


def passed_on(images, network: nn.Module) -> list:
    """Heatmaps, [B, H, W, J] each, of pictures [B, size, size, 3]."""
    return [y.permute(0, 2, 3, 1) for y in network(torch.as_tensor(images).permute(0, 3, 1, 2))]


def gradients(network: nn.Module, images, target) -> dict[str, torch.Tensor]:
    """Of the sum over stacks of the mean squared error, in training mode, by parameter name.

    Computed in the number type of the network's weights.
    """
    network.train().zero_grad()
    kind = next(network.parameters()).dtype
    images, target = torch.as_tensor(images).to(kind), torch.as_tensor(target).to(kind)
    sum(F.mse_loss(y, target) for y in passed_on(images, network)).backward()
    used = ((n, p.grad) for n, p in network.named_parameters() if p.grad is not None)
    return {name: gradient.clone() for name, gradient in used}


def statistics(network: nn.Module) -> dict[str, torch.Tensor]:
    """Batch norm's running means and variances by name."""
    return {n: t.clone() for n, t in network.state_dict().items() if "running_" in n}


TWINS = {"pytorch_pose": PytorchPose, "princeton": Princeton}


def golden(layout: str) -> dict[str, np.ndarray]:
    """tests/golden/torch_<layout>.npz: weights of a twin and what it makes of pictures."""
    network = scramble(TWINS[layout](stacks=2, channels=8))
    weights = {n: t.numpy().copy() for n, t in network.state_dict().items()}
    y, x, channel = np.mgrid[:64, :64, :24]
    wave = np.sin(x * (0.11 + 0.02 * channel) + y * (0.31 - 0.01 * channel) + channel)
    pictures = (127.5 + 127.5 * wave).astype(np.uint8).reshape(64, 64, 8, 3).transpose(2, 0, 1, 3)
    images = pictures.astype(np.float32) / 255.0 - 0.45
    target = np.zeros([8, 16, 16, 16], np.float32)
    for b, j in np.ndindex(8, 16):
        target[b, (3 * b + j) % 16, (b + 5 * j) % 16, j] = 1.0
    with torch.no_grad():
        heatmaps = torch.stack(passed_on(images[:2], network.eval())).numpy()
    # In float64: a narrow network in training mode multiplies float32's rounding to per cents.
    network = network.double()
    slopes = gradients(network, images, target)
    for _ in range(2):
        gradients(network, images, target)
    return {
        "names": np.array(list(weights)),
        "shapes": np.array([",".join(map(str, w.shape)) for w in weights.values()]),
        "values": np.concatenate([w.ravel().astype(np.float32) for w in weights.values()]),
        "pictures": pictures,
        "target": target,
        "heatmaps": heatmaps,
        "gradient_names": np.array(list(slopes)),
        "gradients": np.concatenate([s.float().numpy().ravel() for s in slopes.values()]),
        "statistics": np.concatenate([s.float().numpy() for s in statistics(network).values()]),
    }


if __name__ == "__main__":
    for layout in TWINS:
        path = pathlib.Path(__file__).parents[1] / "golden" / f"torch_{layout}.npz"
        np.savez_compressed(path, **golden(layout))
        print(path, path.stat().st_size)
