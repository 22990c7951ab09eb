"""The PyTorch twin of the network, used as PyTorch's users do.

The twins themselves are those of the parity tests: tests/helpers/torch_twins.py.
"""

from __future__ import annotations

import importlib.util
import os
import types

import torch
from torch.nn import functional as F

from pipelines.benchmark import Part

_TWINS = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "helpers", "torch_twins.py")


def _twins() -> types.ModuleType:
    """The module of twins, with the fastest implementations of its operations."""
    spec = importlib.util.spec_from_file_location("torch_twins", os.path.abspath(_TWINS))
    twins = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(twins)
    # repeat_interleave would convert channels_last back to NCHW and slow the twin down.
    twins.double_size = lambda x: F.interpolate(x, scale_factor=2)
    twins.F = types.SimpleNamespace(
        relu=lambda x: F.relu(x, inplace=True), max_pool2d=F.max_pool2d, mse_loss=F.mse_loss
    )
    return twins


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def build(settings: dict, joints: int) -> torch.nn.Module:
    """The twin of the network of ``settings``, with PyTorch's own initial weights.

    Raises ValueError for a network without a twin.
    """
    blocks, stem = settings["blocks"], settings["stem"]
    kind = tuple(settings[name] for name in ("network", "block", "norm"))
    if kind != ("hourglass", "residual", "batch"):
        raise ValueError("the PyTorch twin needs --network=hourglass --block=residual --norm=batch")
    if stem == "newell" and blocks != 1:
        raise ValueError("the PyTorch twin of --stem=newell needs --blocks=1")
    if settings["low_channels"] not in (0, settings["channels"]):
        raise ValueError("the PyTorch twin needs --low_channels=0")
    names = {key: settings[key] for key in ("stacks", "channels", "depth")}
    torch.manual_seed(0)
    if stem == "newell":
        return _twins().Princeton(joints=joints, **names)
    return _twins().PytorchPose(joints=joints, blocks=blocks, **names)


def _layout(value, channels_last: bool):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return value.to(_device(), memory_format=layout)


def _pictures(settings: dict, channels_last: bool) -> torch.Tensor:
    size = settings["size"]
    return _layout(torch.rand(settings["global_batch_size"], 3, size, size) - 0.45, channels_last)


def _autocast(enabled: bool):
    return torch.autocast(_device(), dtype=torch.bfloat16, enabled=enabled)


def training(
    settings: dict,
    folder: str,
    joints: int,
    channels_last: bool,
    bf16: bool,
    compiled: bool,
    device: str = "",
) -> Part:
    """Forward, loss, backward and RMSprop on a fixed batch.

    It does less than our step: no augmentation, no PCKh and no average of the weights.

    Raises ValueError if ``device`` is "cuda" and this PyTorch has no GPU.
    """
    if device == "cuda" != _device():
        raise ValueError("this PyTorch sees no GPU; name one that does by --torch_python")
    torch.backends.cudnn.benchmark = True  # as TensorFlow chooses the fastest algorithm
    network = _layout(build(settings, joints), channels_last).train()
    images, size = _pictures(settings, channels_last), settings["size"] // 4
    target = _layout(torch.rand(settings["global_batch_size"], joints, size, size), channels_last)
    weight = torch.ones(settings["global_batch_size"], joints, 1, 1, device=_device())
    opt = torch.optim.RMSprop(network.parameters(), lr=1e-4, alpha=0.99, eps=1e-8)
    forward = torch.compile(network) if compiled else network

    def run(steps: int) -> None:
        for _ in range(steps):
            opt.zero_grad()
            with _autocast(bf16):
                outputs = forward(images)
            loss = sum((weight * (y.float() - target) ** 2).mean() for y in outputs)
            loss.backward()
            opt.step()
        loss.item()

    return Part(run, settings["global_batch_size"], details=_details)


def _details() -> dict:
    """{"device", "torch"}, and on a GPU "gpu_peak_mb", used by PyTorch."""
    details = {"device": _device(), "torch": torch.__version__}
    if _device() == "cuda":
        details["gpu_peak_mb"] = [round(torch.cuda.max_memory_allocated() / 2**20)]
    return details


def inference(
    settings: dict, folder: str, joints: int, channels_last: bool, bf16: str, compiled: bool
) -> Part:
    """Normalised pictures -> the last stack's heatmaps in host memory, one call per batch.

    ``bf16``: "" for float32, "autocast", or "weights" for a network stored in bfloat16.
    """
    network = _layout(build(settings, joints), channels_last).eval()
    images = _pictures(settings, channels_last)
    if bf16 == "weights":
        network, images = network.to(torch.bfloat16), images.to(torch.bfloat16)
    forward = torch.compile(network) if compiled else network

    @torch.inference_mode()
    def run(steps: int) -> None:
        for _ in range(steps):
            with _autocast(bf16 == "autocast"):
                heatmaps = forward(images)[-1]
            heatmaps.float().cpu().numpy()

    return Part(run, settings["global_batch_size"])
