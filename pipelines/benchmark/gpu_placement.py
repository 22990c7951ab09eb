"""TensorFlow's placement of a training step's operations, read from the graphs that it ran."""

from __future__ import annotations

import collections
import math
import re

import tensorflow as tf
from tensorflow.python.eager import context

from pipelines import devices
from pipelines.benchmark import Part, parts
from pipelines.config import Config
from pipelines.data import tfrecords

MIN_BYTES = 4096  # smaller tensors on the host cost nothing
MAX_SHOWN = 20

_COPIES = ("_Send", "_HostSend")
# Bookkeeping added by TensorFlow's executor, which reads no tensor.
_CONTROL = {"NoOp", "_Send", "_HostSend", "_Recv", "_HostRecv"}


def sizes_of(graph_def) -> dict[str, int]:
    """Node's name -> bytes of its largest output, of a graph with ``add_shapes``; 0: unknown.

    Nodes of functions have the names they have inside these.
    """
    nodes = [*graph_def.node, *(n for f in graph_def.library.function for n in f.node_def)]
    sizes = {}
    for node in nodes:
        sizes[node.name] = max(sizes.get(node.name, 0), _largest(node))
    return sizes


def _largest(node) -> int:
    shapes = [tf.TensorShape(shape) for shape in node.attr["_output_shapes"].list.shape]
    elements = [math.prod(s.as_list()) if s.is_fully_defined() else 0 for s in shapes]
    return max((n * item for n, item in zip(elements, _items(node, len(shapes)))), default=0)


def _items(node, outputs: int) -> list[int]:
    """Bytes of one element of each output; 0 for resources and strings."""
    for attr in node.attr.values():
        if len(attr.list.type) == outputs:  # such as output_types of IteratorGetNext
            return [tf.as_dtype(kind).size or 0 for kind in attr.list.type]
    kinds = [
        node.attr[name].type for name in ("dtype", "DstT", "out_type", "T") if name in node.attr
    ]
    return [tf.as_dtype(kinds[0]).size or 0 if kinds else 0] * outputs


def _inner(name: str) -> str:
    """A node's name inside its function: inlining put the caller's name and a number in front."""
    return re.sub(r"^.*/_\d+/", "", name)


def _short(device: str) -> str:
    return device.rpartition("device:")[2]


def count(graphs: list, sizes: dict[str, int], min_bytes: int = MIN_BYTES) -> dict:
    """Count operations and copies by device.

    Args:
      graphs: GraphDefs as they ran, each node with its device.
      sizes: bytes of outputs by node name, see ``sizes_of``.
      min_bytes: smallest output that is large.

    Returns:
      operations: device -> count; copies: "from -> to" -> count between two devices; copied: the
      largest of them, [{"tensor", "from", "to", "bytes"}]; large: operations with large outputs on
      a CPU, [{"name", "op", "bytes"}], largest first; large_count of these; least: min_bytes.
    """
    operations, copies = collections.Counter(), collections.Counter()
    copied, large = [], []
    for node in (node for graph in graphs for node in graph.node):
        device = _short(node.device)
        if node.op in _COPIES:
            target = _short(node.attr["recv_device"].s.decode())
            source = _short(node.attr["send_device"].s.decode())
            if source != target:
                name = node.attr["_src"].s.decode()
                copies[f"{source} -> {target}"] += 1
                size = sizes.get(_inner(name), 0)
                copied.append({"tensor": name, "from": source, "to": target, "bytes": size})
        if node.op in _CONTROL:
            continue
        operations[device] += 1
        size = sizes.get(_inner(node.name), 0)
        if device.startswith("CPU") and size >= min_bytes:
            large.append({"name": node.name, "op": node.op, "bytes": size})
    by_size = {"key": lambda one: -one["bytes"]}
    return {
        "operations": dict(sorted(operations.items())),
        "copies": dict(sorted(copies.items())),
        "copied": sorted((c for c in copied if c["bytes"] >= min_bytes), **by_size)[:MAX_SHOWN],
        "large": sorted(large, **by_size)[:MAX_SHOWN],
        "large_count": len(large),
        "least": min_bytes,
    }


def training_step(settings: dict, folder: str) -> Part:
    """A real training step on records, and the devices of its operations."""
    config = Config(**settings)
    info = tfrecords.read_info(config.records)
    strategy = devices.make_strategy(config.strategy, config.logical_devices)
    iterator = parts.batches_of(config, info, strategy)
    train_steps, _ = parts.train_steps(config, info, strategy)
    counts = {}

    def run(steps: int) -> None:
        # Must come first: TensorFlow keeps the graphs only of functions that start after it.
        context.enable_run_metadata()
        train_steps(iterator, tf.constant(steps))
        meta = context.export_run_metadata()
        context.disable_run_metadata()
        traced = train_steps.get_concrete_function(iterator, tf.constant(1))
        sizes = sizes_of(traced.graph.as_graph_def(add_shapes=True))
        counts.update(count(list(meta.partition_graphs), sizes))

    return Part(run, config.global_batch_size, details=lambda: counts)
