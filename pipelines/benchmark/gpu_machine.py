"""Driver, GPUs and TensorFlow's build, with remedies where TensorFlow does not see the GPUs."""

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

# nvidia-smi's fields -> our names.
_FIELDS = {
    "name": "name",
    "driver_version": "driver",
    "memory.total": "memory_mb",
    "memory.used": "used_mb",
    "compute_cap": "compute_capability",
}
# A fixed list, because reports are public and NVIDIA_API_KEY is a variable, too.
_VARIABLES = re.compile(
    r"(CUDA_\w+|XLA_\w+|NCCL_\w+|LD_LIBRARY_PATH|NVIDIA_VISIBLE_DEVICES|"
    r"TF_(XLA|FORCE|ENABLE|DISABLE|NUM|GPU|CUDNN|USE|CPU)_\w+)"
)
_PACKAGES = re.compile(r"tensorflow.*|tf.keras|keras|numpy|torch|triton|nvidia-.*", re.IGNORECASE)
# Lines of TensorFlow's log about using or ignoring a GPU.
_GPU_LINE = re.compile(
    r"dlopen|could not (find|load)|cuinit|skipping registering|compute capability|libdevice|"
    r"minimum required|cuda_error|driver version",
    re.IGNORECASE,
)
BUSY_MB = 500  # of a GPU's memory in use before we start; a desktop takes less


# ---- the machine


def inspect() -> dict:
    """The machine without TensorFlow: gpus, gpus_there, driver, variables, packages."""
    gpus, error = _query_nvidia_smi()
    listed = len(glob.glob("/proc/driver/nvidia/gpus/*"))
    names = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {
        "gpus": gpus,
        "gpus_there": max(len(gpus), listed, _count_on_pci_bus()),
        "driver": gpus[0]["driver"] if gpus else "",
        "nvidia_smi": error,
        "container": any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv"))),
        "variables": {k: v for k, v in sorted(os.environ.items()) if _VARIABLES.fullmatch(k)},
        "packages": {k: v for k, v in sorted(names.items()) if k and _PACKAGES.fullmatch(k)},
    }


def _query_nvidia_smi() -> tuple[list[dict], str]:
    """GPUs and "", or [] and the error."""
    if not shutil.which("nvidia-smi"):
        return [], "nvidia-smi is not on PATH"
    command = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
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


def _count_on_pci_bus() -> int:
    """Number of NVIDIA GPUs on the PCI bus, with or without a driver."""
    count = 0
    for path in glob.glob("/sys/bus/pci/devices/*"):
        try:
            with open(f"{path}/vendor") as vendor, open(f"{path}/class") as kind:
                count += vendor.read().strip() == "0x10de" and kind.read().startswith("0x03")
        except OSError:
            continue
    return count


def driver(settings: dict, folder: str) -> Part:
    """The driver library's "cuda" (newest supported CUDA, "12.2"), "cu_init" and "count".

    In its own process: a broken driver may end it.
    """
    details = {"cuda": "", "cu_init": None, "count": 0}
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        details["error"] = str(error)
        return Part(lambda steps: None, 1, details=lambda: details)
    number = ctypes.c_int(0)
    details["cu_init"] = library.cuInit(0)
    if library.cuDriverGetVersion(ctypes.byref(number)) == 0:
        details["cuda"] = f"{number.value // 1000}.{number.value % 1000 // 10}"
    if details["cu_init"] == 0 and library.cuDeviceGetCount(ctypes.byref(number)) == 0:
        details["count"] = number.value
    return Part(lambda steps: None, 1, details=lambda: details)


def tensorflow(settings: dict, folder: str) -> Part:
    """TensorFlow's build and the GPUs that it sees; "broken": its error when multiplying on one."""
    import tensorflow as tf

    from pipelines import devices

    build = tf.sysconfig.get_build_info()
    gpus = tf.config.list_physical_devices("GPU")
    logical = tf.config.list_logical_devices("GPU") if gpus else []
    broken = _error(lambda: [_multiply(tf, gpu.name) for gpu in logical])
    xla = _error(lambda: devices.check_xla(logical))
    models = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    details = {
        "version": tf.__version__,
        "cuda_build": bool(build.get("is_cuda_build")),
        "cuda": build.get("cuda_version", ""),
        "cudnn": build.get("cudnn_version", ""),
        "compute_capabilities": list(build.get("cuda_compute_capabilities", [])),
        "gpus": [
            {
                "name": model.get("device_name", "unknown"),
                "compute_capability": ".".join(map(str, model.get("compute_capability", ()))),
            }
            for model in models
        ],
        "broken": broken,
        "xla": xla,
    }
    return Part(lambda steps: None, 1, details=lambda: details)


def _multiply(tf, device: str) -> None:
    with tf.device(device):
        tf.matmul(tf.ones([64, 64]), tf.ones([64, 64])).numpy()


def _error(work: Callable[[], object]) -> str:
    """The error of ``work``, or ""."""
    try:
        work()
    except Exception as error:  # TensorFlow's errors have no common class
        return " ".join(str(error).split())[:300]
    return ""


def gpu_lines(log: str) -> list[str]:
    """Lines of TensorFlow's log about GPUs, without the time in front, without repetitions."""
    lines = [line.strip() for line in log.splitlines() if _GPU_LINE.search(line)]
    return list(dict.fromkeys(re.sub(r"^.*?\S+\.(cc|h|py):\d+\] ", "", line) for line in lines))


# ---- remedies


def _logged(machine: dict, pattern: str) -> bool:
    lines = machine["tensorflow"].get("said", [])
    return any(re.search(pattern, line, re.IGNORECASE) for line in lines)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _hidden(machine: dict) -> bool:
    """Whether CUDA_VISIBLE_DEVICES hides all GPUs: empty, -1, or numbers beyond the last one."""
    value = machine["variables"].get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return False
    first = value.split(",")[0].strip()
    return first in ("", "-1", "none", "void", "NoDevFiles") or (
        first.isdigit() and int(first) >= machine["gpus_there"]
    )


def _driver_too_old(machine: dict) -> bool:
    """Whether the driver's CUDA has an older major version than the build's."""
    supported, needed = machine["driver_library"].get("cuda"), machine["tensorflow"].get("cuda")
    return bool(supported and needed) and _version(supported)[:1] < _version(needed)[:1]


def _mismatch(machine: dict) -> bool:
    return "mismatch" in machine["nvidia_smi"] or machine["driver_library"].get("cu_init") == 803


def _no_driver(machine: dict) -> bool:
    return machine["driver_library"].get("cu_init") is None and not _mismatch(machine)


@dataclasses.dataclass(frozen=True)
class Remedy:
    """A reason why TensorFlow sees no GPU, whether it applies, and what to do."""

    why: str
    applies: Callable[[dict], bool]
    do: str


# The first that applies is the one to try; later ones may be its consequences.
REMEDIES = (
    Remedy(
        "TensorFlow does not start",
        lambda f: "failed" in f["tensorflow"],
        "rebuild the environment: make clean, then BUILD=gpu make venv",
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
        "the driver was updated, but its old kernel module is still loaded",
        _mismatch,
        "reboot",
    ),
    Remedy(
        "the GPUs' fabric manager is not running (CUDA error 802)",
        lambda f: f["driver_library"].get("cu_init") == 802,
        "sudo systemctl enable --now nvidia-fabricmanager, in the same version as the driver",
    ),
    Remedy(
        "the driver is too old for TensorFlow's CUDA",
        _driver_too_old,
        "install the driver 525.60.13 or newer for CUDA 12, and reboot",
    ),
    Remedy(
        "the driver does not start (an error of cuInit)",
        lambda f: f["driver_library"].get("cu_init") not in (0, None),
        "sudo modprobe nvidia_uvm, or reboot; then dmesg | grep -i nvrm shows the error",
    ),
    Remedy(
        "the GPU is older than TensorFlow's build supports",
        lambda f: _logged(f, "minimum required|ignoring visible gpu"),
        "use a GPU of a newer generation, or TensorFlow built from source for this one",
    ),
    Remedy(
        "LD_LIBRARY_PATH may put other CUDA libraries before those in .venv",
        lambda f: _logged(f, "dlopen|could not load") and "LD_LIBRARY_PATH" in f["variables"],
        "unset LD_LIBRARY_PATH and try again",
    ),
    Remedy(
        "CUDA's libraries are not found",
        lambda f: _logged(f, "dlopen|could not load"),
        "reinstall them: make clean, then BUILD=gpu make venv",
    ),
    Remedy(
        "the reason is unknown; TensorFlow's log is below",
        lambda f: True,
        "report it with this file",
    ),
)


def unseen(machine: dict) -> Remedy | None:
    """Why TensorFlow does not see the machine's GPUs; None if it sees one or there is none.

    ``machine``: ``inspect``'s result with "driver_library" (``driver``'s details) and "tensorflow"
    (``tensorflow``'s, with "said": lines of its log).
    """
    if not machine["gpus_there"] or machine["tensorflow"].get("gpus"):
        return None
    return next(remedy for remedy in REMEDIES if remedy.applies(machine))


def remarks(machine: dict) -> list[str]:
    """Remarks on a machine on which TensorFlow sees GPUs."""
    lines, seen = [], machine["tensorflow"].get("gpus", [])
    if seen and len(seen) < machine["gpus_there"]:
        visible = machine["variables"].get("CUDA_VISIBLE_DEVICES", "not set")
        lines.append(
            f"TensorFlow sees {len(seen)} of {machine['gpus_there']} GPUs; CUDA_VISIBLE_DEVICES is "
            f"{visible}"
        )
    if _logged(machine, "not built with CUDA kernel binaries|jit-compiled from PTX"):
        lines.append(
            "the GPU is newer than this TensorFlow: its first start compiles kernels for up to "
            "half an hour, once; a newer TensorFlow (Python 3.12 or later) supports it"
        )
    for gpu in machine["gpus"] if seen else []:
        if gpu.get("used_mb", "").isdigit() and int(gpu["used_mb"]) > BUSY_MB:
            lines.append(f"{gpu['used_mb']} MB of {gpu['name']} were in use at the start")
    if machine["tensorflow"].get("xla"):
        lines.append(machine["tensorflow"]["xla"])
    return lines
