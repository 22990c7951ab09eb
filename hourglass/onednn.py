"""oneDNN's kernels on every x86 processor, not only on the newest.

TensorFlow turns them on by itself where the processor has AVX512_VNNI, AVX_VNNI, AMX or bf16. On
others, such as AMD's before Zen 4, a training step with them takes three quarters of the time
(docs/performance.md). Users who set the variable get what it asks for.
"""

import os
import platform

NAME = "TF_ENABLE_ONEDNN_OPTS"


def enable() -> None:
    """Turn them on for this process and its children; does nothing once TensorFlow is imported."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault(NAME, "1")
