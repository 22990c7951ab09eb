"""Driver, GPUs and TensorFlow's build, and what to do where TensorFlow does not see the GPUs."""

from __future__ import annotations

import ctypes
import dataclasses
import glob
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Callable

from pipelines.benchmark import Part

# What nvidia-smi is asked for: its name of a field -> ours.
_FIELDS = {
    "name": "name",
    "driver_version": "driver",
    "memory.total": "memory_mb",
    "memory.used": "used_mb",
    "compute_cap": "compute_capability",
}
# By name, for reports are public and NVIDIA_API_KEY is a variable, too.
_VARIABLES = re.compile(
    r"(CUDA_\w+|XLA_\w+|NCCL_\w+|LD_LIBRARY_PATH|NVIDIA_VISIBLE_DEVICES|"
    r"TF_(XLA|FORCE|ENABLE|DISABLE|NUM|GPU|CUDNN|USE|CPU)_\w+)"
)
_PACKAGES = re.compile(r"tensorflow.*|tf.keras|keras|numpy|torch|triton|nvidia-.*", re.IGNORECASE)
# Lines of TensorFlow's log that say why a GPU is or is not used.
_TELLING = re.compile(
    r"dlopen|could not (find|load)|cuinit|skipping registering|compute capability|libdevice|"
    r"minimum required|cuda_error|driver version",
    re.IGNORECASE,
)
BUSY_MB = 500  # of a GPU's memory in use before we start: more than a desktop takes


# ---- facts


def look() -> dict:
    """What the machine has, without TensorFlow: gpus, gpus_there, driver, variables, packages."""
    gpus, error = _ask_nvidia_smi()
    listed = len(glob.glob("/proc/driver/nvidia/gpus/*"))
    names = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {
        "gpus": gpus,
        "gpus_there": max(len(gpus), listed, _on_the_bus()),
        "driver": gpus[0]["driver"] if gpus else "",
        "nvidia_smi": error,
        "container": any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv"))),
        "variables": {k: v for k, v in sorted(os.environ.items()) if _VARIABLES.fullmatch(k)},
        "packages": {k: v for k, v in sorted(names.items()) if k and _PACKAGES.fullmatch(k)},
    }


def _ask_nvidia_smi() -> tuple[list[dict], str]:
    """GPUs and "", or none and what is wrong."""
    if not shutil.which("nvidia-smi"):
        return [], "nvidia-smi is not on PATH"
    words = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi: {error}"
    if done.returncode:
        return [], " ".join((done.stdout + done.stderr).split()) or f"exit code {done.returncode}"
    return read_nvidia_smi(done.stdout), ""


def read_nvidia_smi(text: str) -> list[dict]:
    """GPUs in nvidia-smi's lines "name, driver, total MB, used MB, compute capability"."""
    rows = [
        [part.strip() for part in line.split(",")] for line in text.splitlines() if line.strip()
    ]
    return [dict(zip(_FIELDS.values(), row)) for row in rows]


def _on_the_bus() -> int:
    """NVIDIA's GPUs on the PCI bus, with or without a driver."""
    found = 0
    for path in glob.glob("/sys/bus/pci/devices/*"):
        try:
            with open(f"{path}/vendor") as vendor, open(f"{path}/class") as kind:
                found += vendor.read().strip() == "0x10de" and kind.read().startswith("0x03")
        except OSError:
            continue
    return found


def driver(settings: dict, folder: str) -> Part:
    """What the driver's library says: "cuda" (newest CUDA it takes, "12.2"), "cu_init", "count".

    In a process of its own: a broken driver may end it.
    """
    facts = {"cuda": "", "cu_init": None, "count": 0}
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        facts["error"] = str(error)
        return Part(lambda steps: None, 1, facts=lambda: facts)
    number = ctypes.c_int(0)
    facts["cu_init"] = library.cuInit(0)
    if library.cuDriverGetVersion(ctypes.byref(number)) == 0:
        facts["cuda"] = f"{number.value // 1000}.{number.value % 1000 // 10}"
    if facts["cu_init"] == 0 and library.cuDeviceGetCount(ctypes.byref(number)) == 0:
        facts["count"] = number.value
    return Part(lambda steps: None, 1, facts=lambda: facts)


def tensorflow(settings: dict, folder: str) -> Part:
    """TensorFlow's build, and the GPUs that it sees and can multiply on."""
    import tensorflow as tf

    from pipelines import devices

    build = tf.sysconfig.get_build_info()
    gpus = tf.config.list_physical_devices("GPU")
    logical = tf.config.list_logical_devices("GPU") if gpus else []
    for gpu in logical:
        with tf.device(gpu.name):
            tf.matmul(tf.ones([64, 64]), tf.ones([64, 64])).numpy()
    try:
        devices.check_xla(logical)
        xla = ""
    except ValueError as error:
        xla = str(error)
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    facts = {
        "version": tf.__version__,
        "cuda_build": bool(build.get("is_cuda_build")),
        "cuda": build.get("cuda_version", ""),
        "cudnn": build.get("cudnn_version", ""),
        "compute_capabilities": list(build.get("cuda_compute_capabilities", [])),
        "gpus": [
            {
                "name": one.get("device_name", "unknown"),
                "compute_capability": ".".join(map(str, one.get("compute_capability", ()))),
            }
            for one in details
        ],
        "xla": xla,
    }
    return Part(lambda steps: None, 1, facts=lambda: facts)


def telling(log: str) -> list[str]:
    """Lines of TensorFlow's log about GPUs, without the time in front, each once."""
    lines = [line.strip() for line in log.splitlines() if _TELLING.search(line)]
    return list(dict.fromkeys(re.sub(r"^.*?\S+\.(cc|h|py):\d+\] ", "", line) for line in lines))


# ---- remedies


def _said(facts: dict, pattern: str) -> bool:
    said = facts["tensorflow"].get("said", [])
    return any(re.search(pattern, line, re.IGNORECASE) for line in said)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _hidden(facts: dict) -> bool:
    """Whether CUDA_VISIBLE_DEVICES leaves no GPU: empty, -1, or numbers beyond the last one."""
    value = facts["variables"].get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return False
    first = value.split(",")[0].strip()
    return first in ("", "-1", "none", "void", "NoDevFiles") or (
        first.isdigit() and int(first) >= facts["gpus_there"]
    )


def _driver_too_old(facts: dict) -> bool:
    """Only CUDA's major version counts: the driver's must be the build's or newer."""
    takes, needs = facts["driver_library"].get("cuda"), facts["tensorflow"].get("cuda")
    return bool(takes and needs) and _version(takes)[:1] < _version(needs)[:1]


def _mismatch(facts: dict) -> bool:
    return "mismatch" in facts["nvidia_smi"] or facts["driver_library"].get("cu_init") == 803


def _no_driver(facts: dict) -> bool:
    return facts["driver_library"].get("cu_init") is None and not _mismatch(facts)


@dataclasses.dataclass(frozen=True)
class Remedy:
    """Why TensorFlow sees no GPU, when that is so, and what to do."""

    why: str
    holds: Callable[[dict], bool]
    do: str


# The first that holds is the one to try; the others may follow from it.
REMEDIES = (
    Remedy(
        "TensorFlow cannot be imported",
        lambda f: "failed" in f["tensorflow"],
        "make the environment afresh: make clean, then BUILD=gpu make venv",
    ),
    Remedy(
        "TensorFlow's CPU build is installed",
        lambda f: not f["tensorflow"].get("cuda_build"),
        "install the GPU build: BUILD=gpu make venv",
    ),
    Remedy(
        "CUDA_VISIBLE_DEVICES hides every GPU",
        _hidden,
        "unset CUDA_VISIBLE_DEVICES, or name GPUs that exist, counted from 0",
    ),
    Remedy(
        "the container was started without the GPUs",
        lambda f: _no_driver(f) and f["container"],
        "start it with docker run --gpus all, which needs the NVIDIA Container Toolkit on the host",
    ),
    Remedy(
        "no NVIDIA driver is installed",
        _no_driver,
        "install the driver, 525.60.13 or newer (Ubuntu: sudo ubuntu-drivers install), and reboot",
    ),
    Remedy(
        "the driver was updated and its old kernel module still runs",
        _mismatch,
        "reboot",
    ),
    Remedy(
        "the GPUs' fabric manager does not run (CUDA error 802)",
        lambda f: f["driver_library"].get("cu_init") == 802,
        "sudo systemctl enable --now nvidia-fabricmanager, of the driver's own version",
    ),
    Remedy(
        "the driver is too old for TensorFlow's CUDA",
        _driver_too_old,
        "install the driver 525.60.13 or newer for CUDA 12, and reboot",
    ),
    Remedy(
        "the driver does not start (an error of cuInit)",
        lambda f: f["driver_library"].get("cu_init") not in (0, None),
        "sudo modprobe nvidia_uvm, or reboot; then dmesg | grep -i nvrm says what is wrong",
    ),
    Remedy(
        "the GPU is older than TensorFlow's build supports",
        lambda f: _said(f, "minimum required|ignoring visible gpu"),
        "use a GPU of a newer generation, or TensorFlow built from source for this one",
    ),
    Remedy(
        "LD_LIBRARY_PATH may put other CUDA libraries in front of those in .venv",
        lambda f: _said(f, "dlopen|could not load") and "LD_LIBRARY_PATH" in f["variables"],
        "unset LD_LIBRARY_PATH and try again",
    ),
    Remedy(
        "CUDA's libraries are not found",
        lambda f: _said(f, "dlopen|could not load"),
        "install them into .venv afresh: make clean, then BUILD=gpu make venv",
    ),
    Remedy(
        "TensorFlow's log, below, is all that is known",
        lambda f: True,
        "report it with this file",
    ),
)


def unseen(facts: dict) -> Remedy | None:
    """Why TensorFlow does not see the GPUs that are there; None where it sees one or none is there.

    ``facts``: what ``look`` returned with "driver_library" (``driver``'s facts) and "tensorflow"
    (``tensorflow``'s, with "said": lines of its log).
    """
    if not facts["gpus_there"] or facts["tensorflow"].get("gpus"):
        return None
    return next(remedy for remedy in REMEDIES if remedy.holds(facts))


def remarks(facts: dict) -> list[str]:
    """What is worth knowing though TensorFlow sees GPUs."""
    found, seen = [], facts["tensorflow"].get("gpus", [])
    if seen and len(seen) < facts["gpus_there"]:
        visible = facts["variables"].get("CUDA_VISIBLE_DEVICES", "not set")
        found.append(
            f"TensorFlow sees {len(seen)} of {facts['gpus_there']} GPUs; CUDA_VISIBLE_DEVICES is "
            f"{visible}"
        )
    if _said(facts, "not built with CUDA kernel binaries|jit-compiled from PTX"):
        found.append(
            "the GPU is newer than this TensorFlow: its first start compiles for up to half an "
            "hour, once; a newer TensorFlow (Python 3.12 or later) knows it"
        )
    for gpu in facts["gpus"] if seen else []:
        if gpu.get("used_mb", "").isdigit() and int(gpu["used_mb"]) > BUSY_MB:
            found.append(f"{gpu['used_mb']} MB of {gpu['name']} were in use before this began")
    if facts["tensorflow"].get("xla"):
        found.append(facts["tensorflow"]["xla"])
    return found
