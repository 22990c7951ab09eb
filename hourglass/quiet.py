"""TensorFlow starts without its notices; its errors, and ours, still appear.

TF_CPP_MIN_LOG_LEVEL, which TensorFlow's C++ reads, hides most of them. What it doesn't reach is
dropped while TensorFlow is imported and while XLA starts. A user who sets the variable gets what he
asked for: 0 shows everything.

No flag of the command line can come in time, and few files would be the first to import TensorFlow
on every way into the project: hence all this happens when TensorFlow is imported, whoever does it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator

LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # 0: everything, 1: no notices, 2: nor warnings, 3: nor errors

_SEVERITIES = "IWE"
# 2.15 logs both as errors: its GPU build the first on every import, XLA on a CPU the second.
_ALWAYS = "Unable to register cu(DNN|FFT|BLAS) factory|SetPriority unimplemented"
_CONTINUED = "To enable the following instructions: "
_ABSL = "WARNING: All log messages before absl::InitializeLog"


def start() -> None:
    """Have TensorFlow start quietly; does nothing where it is imported already."""
    # The add-ons announce the end of their development on every import; BUILD_NOTES.md says what we
    # do about it, and a user of this project cannot do anything.
    warnings.filterwarnings("ignore", message=r"\s*TensorFlow Addons", category=UserWarning)
    # It warns of a font cache that takes more than five seconds to build, once per machine.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _AtTensorFlow())


class _AtTensorFlow(importlib.abc.MetaPathFinder):
    """Finds TensorFlow where it is, and adds what stands before and after its import."""

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            spec.loader.exec_module = _quietly(spec.loader.exec_module)
        return spec


def _quietly(load):
    def exec_module(module) -> None:
        level = _level()
        with stderr_through(_filter(level)) if level >= 2 else contextlib.nullcontext():
            load(module)

    return exec_module


def _level() -> int:
    """What the variable asks for; set for this process and those it starts, unless it was.

    3 where there is no GPU: XLA's streams on a CPU log "SetPriority unimplemented" as an error, and
    the GPU build that there is no driver. What TensorFlow cannot do there it raises as an exception
    besides. Where there is a GPU, its log is the only place that names a missing or wrong library
    or driver, hence 2.
    """
    text = os.environ.setdefault(LEVEL, "2" if _sees_gpu() else "3")
    return int(text) if text.isdigit() else 0


def _sees_gpu() -> bool:
    """Whether there is an NVIDIA driver and GPUs are not hidden; asks neither."""
    driver = os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi")
    return bool(driver) and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")


def _filter(level: int) -> list[str]:
    """The command that drops lines below ``level``.

    The libraries of 2.21 log while they are loaded, before one of them reads the variable.
    """
    hidden = f"[{_SEVERITIES[:level]}]"
    forms = (rf"{hidden}[0-9]{{4}} [0-9:.]+ +[0-9]+ [^ ]+\] ", rf"[0-9-]+ [0-9:.]+: {hidden} ")
    lines = [f"^({'|'.join([*forms, _CONTINUED, _ABSL])})", _ALWAYS]
    return ["grep", "-avE", "|".join(lines)]


@contextlib.contextmanager
def stderr_through(command: list[str]) -> Iterator[subprocess.Popen | None]:
    """What is written to file descriptor 2, also by C++, passes through ``command`` for a while.

    A process of its own, because it still prints what it got where this one aborts. Where it cannot
    be started nothing changes.

    Yields:
      That process; killed, it prints nothing.
    """
    sys.stderr.flush()
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2)
    except OSError:
        yield None
        return
    own = os.dup(2)
    os.dup2(process.stdin.fileno(), 2)
    try:
        yield process
    finally:
        sys.stderr.flush()
        os.dup2(own, 2)
        os.close(own)
        process.stdin.close()
        process.wait()


@contextlib.contextmanager
def stderr_on_failure() -> Iterator[None]:
    """What is written to file descriptor 2 is shown only where an error, or a crash, ends this."""
    hold = 'text=$(cat); [ -z "$text" ] || printf "%s\\n" "$text"'
    with stderr_through(["sh", "-c", hold]) as process:
        yield
        if process is not None:
            process.kill()


@functools.cache
def start_xla() -> None:
    """Compile something small, once: call it before anything is compiled by XLA.

    The first compilation of a process says so, in 2.15 through a log that reads no variable.
    """
    import tensorflow as tf

    level = _level()
    if level < 2 or not tf.__version__.startswith("2.15."):
        return
    with stderr_through(_filter(level)), tf.init_scope(), tf.device("cpu:0"):
        tf.function(lambda: tf.constant(1.0) + 1.0, jit_compile=True)()
