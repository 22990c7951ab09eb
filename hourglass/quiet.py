"""TensorFlow starts without its log messages; errors, its own and ours, still appear.

TF_CPP_MIN_LOG_LEVEL, which TensorFlow's C++ reads, hides most of them. The others are filtered out
while TensorFlow is imported and while XLA starts. Users who set the variable get what it asks for:
0 shows everything.

Flags are parsed too late for this, and any module may be the first to import TensorFlow: hence a
hook on its import.
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
    """Make TensorFlow start quietly; does nothing if it has been imported already."""
    # The add-ons announce the end of their development on every import. Users of this project
    # cannot do anything about it; BUILD_NOTES.md explains what we do.
    warnings.filterwarnings("ignore", message=r"\s*TensorFlow Addons", category=UserWarning)
    # Once per machine it warns that building its font cache takes more than five seconds.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _TensorFlowFinder())


class _TensorFlowFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow, and filters the log while it is imported."""

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
    """The variable's value; where unset, it is set for this process and its children.

    3 without a GPU: there XLA's streams log "SetPriority unimplemented" as an error, and the GPU
    build logs that there is no driver, though real failures raise exceptions as well. With a GPU
    only the log names a missing or wrong library or driver, hence 2.
    """
    text = os.environ.setdefault(LEVEL, "2" if _sees_gpu() else "3")
    return int(text) if text.isdigit() else 0


def _sees_gpu() -> bool:
    """Whether there is an NVIDIA driver and GPUs are not hidden, without loading it."""
    driver = os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi")
    return bool(driver) and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")


def _filter(level: int) -> list[str]:
    """The command that drops log lines below ``level``.

    The libraries of 2.21 log while they are loaded, before the variable is read.
    """
    hidden = f"[{_SEVERITIES[:level]}]"
    forms = (rf"{hidden}[0-9]{{4}} [0-9:.]+ +[0-9]+ [^ ]+\] ", rf"[0-9-]+ [0-9:.]+: {hidden} ")
    lines = [f"^({'|'.join([*forms, _CONTINUED, _ABSL])})", _ALWAYS]
    return ["grep", "-avE", "|".join(lines)]


@contextlib.contextmanager
def stderr_through(command: list[str]) -> Iterator[subprocess.Popen | None]:
    """Pipe what is written to file descriptor 2, also by C++, through ``command``.

    A process of its own, because it still prints what it received if this one aborts. If it cannot
    be started, nothing is filtered.

    Yields:
      That process, or None; if killed, it prints nothing.
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
    """Show what is written to file descriptor 2 only if an error or a crash ends the block."""
    hold = 'text=$(cat); [ -z "$text" ] || printf "%s\\n" "$text"'
    with stderr_through(["sh", "-c", hold]) as process:
        yield
        if process is not None:
            process.kill()


@functools.cache
def start_xla() -> None:
    """Compile something small, once, before XLA compiles anything else.

    A process logs its first compilation, in 2.15 whatever the variable's value.
    """
    import tensorflow as tf

    level = _level()
    if level < 2 or not tf.__version__.startswith("2.15."):
        return
    with stderr_through(_filter(level)), tf.init_scope(), tf.device("cpu:0"):
        tf.function(lambda: tf.constant(1.0) + 1.0, jit_compile=True, autograph=False)()
