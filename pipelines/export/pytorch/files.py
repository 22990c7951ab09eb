"""PyTorch's checkpoint files <-> folders of runs. The only module that needs PyTorch.

Files are read with ``torch.load(weights_only=True)``: nothing in them is executed.
"""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import tensorflow as tf

from hourglass import model
from hourglass.skeleton import Skeleton
from pipelines import checkpoints
from pipelines.export.pytorch import layouts
from pipelines.export.pytorch.layouts import LAYOUTS, some
from pipelines.io import check_file_writable, check_writable, read_whole, write_atomically

# Before 2.6 files could run code despite weights_only (CVE-2025-32434).
OLDEST = (2, 6)


def _torch():
    try:
        import torch
    except ImportError as error:
        raise OSError(
            "PyTorch is not installed; `make torch` adds its CPU build to .venv, or: "
            "pip install -r requirements-torch.txt"
        ) from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST:
        raise OSError(
            f"PyTorch {torch.__version__} reads files unsafely; install 2.6 or later (`make torch`)"
        )
    return torch


def read(path: str) -> dict[str, np.ndarray]:
    """Tensors of a .pth or .pth.tar file by name: its "state_dict", or the whole file.

    Returns:
      Name -> array; floating point ones as float32, which represents every half-precision number.

    Raises:
      FileNotFoundError, OSError: no file, or no PyTorch.
      ValueError: a damaged checkpoint, or one that needs to run code.
    """
    torch, data = _torch(), read_whole(path)
    try:
        _check_sums(data)
        whole = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # A third-party parser may raise anything on an untrusted file.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ValueError(
            f"{path} cannot be read as PyTorch weights ({reason[:200]}); it is damaged, or "
            "contains more than tensors. Nothing in it was run. Save only its state_dict with the "
            "program that wrote it, or download it again"
        ) from error
    state = whole.get("state_dict", whole) if isinstance(whole, dict) else whole
    if not isinstance(state, dict) or not state:
        raise ValueError(f"{path} contains no weights by name (a {type(state).__name__})")
    others = [f"{k!r:.60}" for k, v in state.items() if not _is_tensor(torch, k, v)]
    if others:
        raise ValueError(f"{path} contains entries that are not named tensors: {some(others)}")
    # A view can have any shape over a few bytes.
    needed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if needed > len(data):
        raise ValueError(f"{path}: its tensors need {needed} bytes, the file has {len(data)}")
    return {name: _array(torch, tensor) for name, tensor in state.items()}


def _check_sums(data: bytes) -> None:
    """Compare the checksums of a file of PyTorch 1.6 or later, which PyTorch itself ignores."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            damaged = file.testzip()
        if damaged:
            raise ValueError(f"the checksum of {damaged} is another")


def _is_tensor(torch, name, value) -> bool:
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.int64)
    dense = isinstance(value, torch.Tensor) and value.layout == torch.strided
    return isinstance(name, str) and dense and value.dtype in kinds and value.device.type == "cpu"


def _array(torch, tensor) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def write(path: str, tensors: dict[str, np.ndarray], layout: str) -> None:
    """Write tensors as the layout's training script does, whole or not at all.

    Raises OSError if PyTorch is not installed or the file cannot be written.
    """
    torch, names = _torch(), LAYOUTS[layout]
    # Copies, in C order: PyTorch takes neither arrays that are read-only nor NumPy's scalars.
    copies = {name: np.array(array, order="C") for name, array in tensors.items()}
    state = {names.prefix + name: torch.from_numpy(copy) for name, copy in copies.items()}
    whole = {"epoch": 0, "best_acc": 0.0, "state_dict": state} if names.wrapped else state
    buffer = io.BytesIO()
    torch.save(whole, buffer)
    write_atomically(path, buffer.getvalue())


def import_run(source: str, output: str, skeleton: Skeleton, size: int = 256) -> dict:
    """Create a run's folder with one checkpoint from a PyTorch checkpoint file.

    Args:
      source: .pth file of pytorch-pose, anibali or princeton-vl.
      output: folder, which must not exist or be empty; it appears whole or not at all.
      skeleton: the joints of its heatmaps, in order.
      size: side of the network input, px; not determined by the weights.

    Returns:
      Arguments of ``hourglass.model.build``, and "layout".

    Raises:
      FileNotFoundError, OSError, ValueError: a file that cannot be read, is another network or
        has other joints; an output that exists.
    """
    if tf.io.gfile.exists(output) and (
        not tf.io.gfile.isdir(output) or tf.io.gfile.listdir(output)
    ):
        raise ValueError(f"{output} exists already; choose another --output")
    check_writable(os.path.dirname(output.rstrip("/")))
    tensors = read(source)
    try:
        layout, arguments, network, kept = _fill(tensors, skeleton, size)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    parts = {
        "build": arguments,
        **skeleton.to_parts(),
        "data": {"imported": os.path.basename(source), "layout": layout},
        "expects": {"mean": LAYOUTS[layout].mean, "decode": LAYOUTS[layout].decoder},
    }
    checkpoints.write_run(output, parts, network, kept)
    return {"layout": layout, **arguments}


def _fill(tensors: dict, skeleton: Skeleton, size: int):
    """(layout, arguments of build, network with these weights, tensors without effect)."""
    layout, prefix = layouts.recognise(tensors)
    tensors = {name[len(prefix) :]: array for name, array in tensors.items()}
    inferred = layouts.architecture(layout, {n: a.shape for n, a in tensors.items()})
    if inferred["joints"] != len(skeleton):
        raise ValueError(
            f"it has heatmaps of {inferred['joints']} joints, the given skeleton has "
            f"{len(skeleton)}; name the one that it was trained on with --skeleton"
        )
    arguments = {**inferred, "size": size, "block": "residual", "sync_bn": False}
    arguments.update(precision="float32", seed=0)
    network = model.build(**arguments)
    variables = checkpoints.by_name(network.variables)
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    weights, kept = layouts.from_torch(layout, arguments, tensors, shapes)
    for name, variable in variables.items():
        variable.assign(weights[name])
    return layout, arguments, network, kept


def export_run(path: str, layout: str, output: str, weights: str = "best") -> int:
    """Write a run's weights as a PyTorch checkpoint file; the inverse of ``import_run``.

    Args:
      path: folder of a run or one checkpoint, as for evaluation.
      layout: key of ``LAYOUTS``.
      output: .pth file.
      weights: "best", "averaged" or "raw".

    Returns:
      Number of tensors written.

    Raises:
      FileNotFoundError, OSError, ValueError: no such run, or a network that the layout lacks
        tensors for.
    """
    check_file_writable(output)
    folder, _ = checkpoints.split_path(path)
    arguments, _ = checkpoints.read_network(folder)
    prefix = checkpoints.find(path)
    values = checkpoints.values(prefix, checkpoints.part_of(prefix, weights))
    tensors = layouts.to_torch(layout, arguments, values, checkpoints.values(prefix, "kept"))
    write(output, tensors, layout)
    return len(tensors)
