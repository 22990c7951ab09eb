"""The machine and the versions of a measurement; needs no TensorFlow."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys

from pipelines.benchmark import usable_cores
from pipelines.benchmark.rounds import ROOT

_PACKAGES = (
    *("tensorflow", "tensorflow-cpu", "keras", "numpy", "opencv-python-headless"),
    *("torch", "openvino", "onnxruntime"),
)
_VARIABLES = ("TF_NUM_", "TF_ENABLE_", "TF_XLA_", "XLA_", "OMP_", "MKL_", "ONEDNN_", "KMP_")
# Instruction sets that determine the speed of matrix products.
_FAST = "avx2 fma avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_tile amx_bf16 amx_int8".split()


def describe(gpus: list[str]) -> dict:
    """Machine, versions and variables of this run."""
    model, instructions = _processor()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "commit": _commit(),
        "machine": platform.platform(),
        "cpu": model,
        "cores": usable_cores(),
        "instructions": [name for name in _FAST if name in instructions],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus,
        "load_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES if _version(name)},
        "variables": {
            key: value for key, value in sorted(os.environ.items()) if key.startswith(_VARIABLES)
        },
    }


def _processor() -> tuple[str, set[str]]:
    if not os.path.exists("/proc/cpuinfo"):
        return platform.processor(), set()
    with open("/proc/cpuinfo") as file:
        pairs = [line.split(":", 1) for line in file if ":" in line]
    fields = {key.strip(): value.strip() for key, value in reversed(pairs)}
    return fields.get("model name", platform.processor()), set(fields.get("flags", "").split())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    words = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown: no git"
    return done.stdout.strip() or "unknown: not a git checkout"
