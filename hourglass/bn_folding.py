"""Batch norms folded into convolutions, for inference: the same joints for less arithmetic.

The layers of the Keras graph are read, rewritten and rebuilt, so that only ``hourglass.model``
defines the topology and a new block needs nothing here. Unknown layers are left unchanged.
"""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import tensorflow as tf

layers = tf.keras.layers


@dataclasses.dataclass(frozen=True)
class _Node:
    """A layer to be built: its class, configuration, weights and the keys of its inputs."""

    kind: type
    config: dict
    weights: tuple[np.ndarray, ...]
    inputs: tuple[str, ...]


_Graph = dict[str, _Node]  # by layer name, in topological order


def _read(network: tf.keras.Model) -> _Graph:
    producer = {id(layer.output): layer.name for layer in network.layers}
    graph = {}
    for layer in network.layers:
        inputs = () if isinstance(layer, layers.InputLayer) else tf.nest.flatten(layer.input)
        keys = tuple(producer[id(tensor)] for tensor in inputs)
        weights = tuple(layer.get_weights())
        graph[layer.name] = _Node(type(layer), layer.get_config(), weights, keys)
    return graph


def _pruned(graph: _Graph, output: str) -> _Graph:
    """The nodes that ``output`` depends on: earlier stacks' heads are dropped."""
    wanted = {output}
    for key in reversed(graph):
        if key in wanted:
            wanted.update(graph[key].inputs)
    return {key: node for key, node in graph.items() if key in wanted}


def _uses(graph: _Graph) -> collections.Counter:
    return collections.Counter(key for node in graph.values() for key in node.inputs)


def _folded(conv: _Node, norm: _Node) -> _Node:
    """One convolution equivalent to ``conv`` followed by the batch norm ``norm``."""
    weights = [np.float64(array) for array in norm.weights]
    gamma = weights.pop(0) if norm.config["scale"] else 1.0
    beta = weights.pop(0) if norm.config["center"] else 0.0
    mean, variance = weights
    factor = gamma / np.sqrt(variance + norm.config["epsilon"])
    kernel, bias = conv.weights if conv.config["use_bias"] else (*conv.weights, 0.0)
    # Of these kernels the second to last axis is the output channels.
    second = issubclass(conv.kind, (layers.DepthwiseConv2D, layers.Conv2DTranspose))
    weights = kernel * (factor[:, None] if second else factor), (bias - mean) * factor + beta
    return dataclasses.replace(conv, config={**conv.config, "use_bias": True}, weights=weights)


def _fold_norms(graph: _Graph) -> _Graph:
    uses, folded = _uses(graph), dict(graph)
    for key, norm in graph.items():
        before = graph[norm.inputs[0]] if issubclass(norm.kind, layers.BatchNormalization) else None
        kinds = (layers.Conv2D, layers.DepthwiseConv2D)
        convolves = before and issubclass(before.kind, kinds)
        if convolves and _linear(before) and uses[norm.inputs[0]] == 1:
            folded[key] = _folded(before, norm)
            del folded[norm.inputs[0]]
    return folded


def _linear(conv: _Node) -> bool:
    return conv.config["activation"] == "linear"


def _is_matrix(node: _Node) -> bool:
    """Whether a node is a plain 1x1 convolution: a matrix and a bias for each pixel."""
    if not issubclass(node.kind, layers.Conv2D) or not _linear(node):
        return False
    config = node.config
    plain = config["groups"] == 1 and config["use_bias"]
    return plain and config["kernel_size"] == (1, 1) and config["strides"] == (1, 1)


def _chain(graph: _Graph, key: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Input of the chain of 1x1 convolutions that ends at ``key``; its matrix [in, out], bias."""
    node = graph[key]
    kernel, bias = (np.float64(array) for array in node.weights)
    matrix, source = kernel[0, 0], node.inputs[0]
    if not _is_matrix(graph[source]):
        return source, matrix, bias
    source, first, first_bias = _chain(graph, source)
    return source, first @ matrix, first_bias @ matrix + bias


def _merge(graph: _Graph) -> _Graph:
    """Merge the 1x1 convolutions of one source that are added together into one convolution.

    At the end of a stack these are ``features_back`` and ``heatmaps_back``.
    """
    uses, merged = _uses(graph), dict(graph)
    for key, node in graph.items():
        terms = [k for k in node.inputs if _is_matrix(graph[k]) and uses[k] == 1]
        chains = [_chain(graph, term) for term in terms]
        sources = {source for source, _, _ in chains}
        if node.kind is layers.Add and 1 < len(terms) < len(node.inputs) and len(sources) == 1:
            weights = sum(c[1] for c in chains)[None, None], sum(c[2] for c in chains)
            # It replaces the first: the order stays topological, and all have the same width.
            conv = dataclasses.replace(graph[terms[0]], weights=weights, inputs=(*sources,))
            kept = tuple(k for k in node.inputs if k not in terms[1:])
            merged[terms[0]], merged[key] = conv, dataclasses.replace(node, inputs=kept)
    return merged


def _build(graph: _Graph, output: str) -> tf.keras.Model:
    tensors = {}
    for key, node in graph.items():
        layer = node.kind.from_config(node.config)
        inputs = [tensors[k] for k in node.inputs]
        tensors[key] = layer(inputs if len(inputs) > 1 else inputs[0]) if inputs else layer.output
        layer.set_weights(node.weights)
    sources = [tensors[key] for key, node in graph.items() if not node.inputs]
    network = tf.keras.Model(sources[0], (tensors[output],), name="folded_hourglass")
    network.trainable = False  # reaches only layers that exist already
    return network


@tf.autograph.experimental.do_not_convert  # see model.build
def fold(network: tf.keras.Model) -> tf.keras.Model:
    """Rewrite a network for inference, with its current weights.

    - A batch norm right after a convolution is folded into its kernel and bias (in float64). One
      after an addition or a pooling stays: fused with the ReLU after it, TensorFlow's inference
      kernel is at least as fast as a scale and a shift. Group norm stays.
    - The two re-projections at a stack's end, both linear in its features, are merged.
    - Earlier stacks' heatmaps are not computed.

    Args:
      network: from ``hourglass.model.build``; not modified.

    Returns:
      Keras model: [B, size, size, 3] float32 normalised RGB -> tuple of one tensor
      [B, size / 4, size / 4, J] float32, the last stack's heatmaps.
    """
    graph = _read(network)
    output = next(name for name in graph if network.get_layer(name).output is network.outputs[-1])
    graph = _merge(_fold_norms(_pruned(graph, output)))
    return _build(_pruned(graph, output), output)
