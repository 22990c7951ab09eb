"""List the GPU kernels of the installed TensorFlow, for tests/training/test_placement.py.

    python scripts/list_gpu_kernels.py --output=tests/golden

needs TensorFlow's GPU build (requirements-gpu.txt) but no GPU: the build registers its kernels on
any machine. The file is named after TensorFlow's version. Each line is a kernel:

    operation <tab> attribute=type,type attribute=type ... <tab> arguments kept in host memory

TensorFlow uses the kernel of an operation's first line that matches its types: kernels for GPUs
precede those for any device. Kernels that differ in one attribute's types share a line.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import flags

from pipelines import cli
from pipelines.io import write_atomically


def _types(constraint) -> str:
    import tensorflow as tf

    types = {tf.as_dtype(number).name for number in constraint.allowed_values.list.type}
    return ",".join(sorted(types))


def _merge(kernels: list[tuple[dict, str]], name: str) -> list[tuple[dict, str]]:
    """Join kernels that differ in the types of attribute ``name`` only."""
    merged: dict[tuple, tuple[dict, str]] = {}
    for types, hosts in kernels:
        others = (tuple((key, types[key]) for key in types if key != name), name in types, hosts)
        first = merged.setdefault(others, ({**types}, hosts))[0]
        if name in types:
            first[name] = ",".join(sorted({*first[name].split(","), *types[name].split(",")}))
    return list(merged.values())


def _lines(operation: str, kernels: list) -> list[str]:
    rows = [
        (
            {one.name: _types(one) for one in sorted(kernel.constraint, key=lambda one: one.name)},
            " ".join(sorted(kernel.host_memory_arg)),
        )
        for kernel in kernels
    ]
    for name in sorted({name for types, _ in rows for name in types}):
        rows = _merge(rows, name)
    written = [(" ".join("=".join(one) for one in types.items()), hosts) for types, hosts in rows]
    return ["\t".join((operation, *row)) for row in sorted(written)]


def kernels_of_this_build() -> list[str]:
    """Lines of all operations that GPUs can run; ValueError for a build without GPU kernels."""
    import tensorflow as tf
    from tensorflow.python.framework import kernels

    if not tf.test.is_built_with_cuda():
        raise ValueError("this is TensorFlow's CPU build; install the GPU's: BUILD=gpu make venv")
    by_device = {"GPU": {}, "DEFAULT": {}}
    for kernel in kernels.get_all_registered_kernels().kernel:
        if kernel.device_type in by_device:
            by_device[kernel.device_type].setdefault(kernel.op, []).append(kernel)
    lines = [
        line
        for operation in sorted({*by_device["GPU"], *by_device["DEFAULT"]})
        for kind in ("GPU", "DEFAULT")
        for line in _lines(operation, by_device[kind].get(operation, []))
    ]
    return list(dict.fromkeys(lines))


def main() -> None:
    """Write one file for the installed TensorFlow."""
    import tensorflow as tf

    lines = kernels_of_this_build()
    path = os.path.join(flags.FLAGS.output, f"gpu_kernels_{tf.__version__}.tsv")
    head = [
        f"# GPU kernels of tensorflow {tf.__version__}, written by",
        "#   python scripts/list_gpu_kernels.py",
    ]
    write_atomically(path, "\n".join([*head, *lines, ""]).encode())
    print(f"{path}: {len(lines)} lines")


if __name__ == "__main__":
    with cli.group("File"):
        flags.DEFINE_string("output", "tests/golden", "folder to write to")
    cli.run(main)
