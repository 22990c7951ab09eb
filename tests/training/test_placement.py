"""Every operation of a step has a GPU kernel for its types, and none waits for host memory.

Needs no GPU: graphs are traced as they are where there is one, and each operation is looked up in
the list of kernels that scripts/list_gpu_kernels.py wrote from TensorFlow's GPU build. CPUs stand
in for the devices; crops and the network's input have their real sizes.
"""

import collections
import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator

import pytest
import tensorflow as tf

from hourglass import bn_folding, heatmap, model, optimizer
from hourglass.skeleton import MPII
from pipelines import devices
from pipelines.data import augmentation, cropping, input_pipeline
from pipelines.export import signatures
from pipelines.inference import compiled, forward
from pipelines.inference.options import InferenceOptions
from pipelines.training import precise_bn, train_step
from pipelines.training.state import create_train_state

LARGE = 4096  # bytes in host memory that cost a copy and a wait in every step
UNKNOWN = 32  # examples, where a graph takes any number

ON_THE_HOST = {
    "IteratorGetNext": "tf.data delivers batches; they are copied ahead (inputs.AHEAD)",
    "IteratorGetNextAsOptional": "the same",
    "OptionalHasValue": "the same",
    "OptionalGetValue": "the same",
    "Timestamp": "the wait for data is measured by the host's clock",
}
CALLS = ("PartitionedCall", "StatefulPartitionedCall")  # what they call is looked at instead


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Types that it supports, by attribute, and the arguments that it keeps in host memory."""

    types: dict[str, list[str]]
    hosts: set[str]

    def fits(self, operation: tf.Operation) -> bool:
        return all(operation.get_attr(name).name in allowed for name, allowed in self.types.items())


@functools.cache
def gpu_kernels() -> dict[str, list[Kernel]]:
    path = pathlib.Path(__file__).parents[1] / "golden" / f"gpu_kernels_{tf.__version__}.tsv"
    assert path.exists(), "write it by scripts/list_gpu_kernels.py, with this version's GPU build"
    kernels = collections.defaultdict(list)
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            name, types, hosts = line.split("\t")
            pairs = (one.split("=") for one in types.split())
            kernel = Kernel({key: value.split(",") for key, value in pairs}, set(hosts.split()))
            kernels[name].append(kernel)
    return kernels


def _bytes(tensors) -> int:
    return sum(
        (tensor.dtype.size or 1) * math.prod(side or UNKNOWN for side in tensor.shape)
        for tensor in tensors
        if tensor.shape.rank is not None
    )


def _in_host_memory(operation: tf.Operation, kernel: Kernel) -> int:
    """Bytes of the arguments that the kernel keeps there."""
    total, definition = 0, operation.op_def
    sides = ((definition.input_arg, operation.inputs), (definition.output_arg, operation.outputs))
    for arguments, tensors in sides:
        first = 0
        for argument in arguments:
            count = operation.get_attr(argument.number_attr) if argument.number_attr else 1
            if argument.name in kernel.hosts:
                total += _bytes(tensors[first : first + count])
            first += count
    return total


def _called(operation: tf.Operation) -> Iterator[tf.Graph]:
    """Graphs of the functions that an operation calls."""
    for name in (attribute.name for attribute in operation.op_def.attr):
        value = operation.node_def.attr[name]
        for function in [value.func, *value.list.func]:
            if function.name:
                yield operation.graph._get_function(function.name).graph


def audit(graph: tf.Graph) -> list[str]:
    """A sentence for each operation without a GPU kernel; [] when there is none."""
    faults, seen, waiting = collections.Counter(), set(), [graph]
    while waiting:
        graph = waiting.pop()
        for operation in graph.get_operations():
            # Explicit: a served graph decodes files on the host.
            if operation.type in ON_THE_HOST or operation.device == "/device:CPU:0":
                continue
            if "_XlaMustCompile" in operation.node_def.attr:
                faults[f"compiled by XLA: {operation.type}"] += 1
                continue
            new = [called for called in _called(operation) if id(called) not in seen]
            seen.update(map(id, new))
            waiting += new
            if operation.type not in CALLS and not _folded(operation):
                faults.update(_faults(operation))
    return sorted(f"{count} x {fault}" for fault, count in faults.items())


def _folded(operation: tf.Operation) -> bool:
    """Whether TensorFlow folds it before the graph runs: all its inputs are constant."""
    inputs = list(operation.inputs)
    return bool(inputs) and all(tf.get_static_value(tensor) is not None for tensor in inputs)


def _faults(operation: tf.Operation) -> list[str]:
    name = f"{operation.type} {[tensor.dtype.name for tensor in operation.inputs]}"
    kernel = next((k for k in gpu_kernels()[operation.type] if k.fits(operation)), None)
    if kernel is None:
        return [f"no GPU kernel: {name}"]
    return [f"host memory: {name}"] if _in_host_memory(operation, kernel) > LARGE else []


@pytest.fixture(autouse=True)
def traced_for_a_gpu(monkeypatch):
    """TensorFlow reports a GPU, so that graphs are built as on a machine with one."""
    real = tf.config.list_logical_devices
    monkeypatch.setattr(
        tf.config,
        "list_logical_devices",
        lambda kind=None: ["GPU"] if kind == "GPU" else real(kind),
    )


GEOMETRY = cropping.Geometry()  # MPII's: crops of 724 px
CROPS = {
    "image": ([GEOMETRY.canvas, GEOMETRY.canvas, 3], tf.uint8),
    "center": ([2], tf.float32),
    "side": ([], tf.float32),
    "index": ([], tf.int64),
}
PEOPLE = {
    **CROPS,
    "joints": ([16, 2], tf.float32),
    "state": ([16], tf.int32),
    "head_size": ([], tf.float32),
    "crop_to_image": ([2, 3], tf.float64),
}
# Wide enough for pointwise convolutions with a gradient of their own, and shallow to trace fast.
NETWORK = {"joints": 16, "stacks": 2, "channels": 256, "depth": 1}


def batches(strategy, kinds: dict, count: int):
    """An iterator over endless batches of ones, distributed as training's are."""

    def of_worker(context):
        share = count // context.num_replicas_in_sync
        one = {key: tf.ones([share, *shape], kind) for key, (shape, kind) in kinds.items()}
        return tf.data.Dataset.from_tensors(one).repeat()

    return iter(strategy.distribute_datasets_from_function(of_worker, input_pipeline.PREFETCH))


def train_graph(strategy, precision="float32", remat=False, name="rmsprop", **modes) -> tf.Graph:
    rate = functools.partial(
        optimizer.learning_rate, base=1e-3, schedule="cosine", steps=100, warmup=10
    )
    build = {**NETWORK, "precision": precision, "remat": remat}
    state = create_train_state(strategy, build, rate, optimizer_name=name)
    batch = augmentation.BatchOptions("newell", 0, 32, 256, MPII.mirror, occluded="zero")
    options = train_step.StepOptions(batch, ema_decay=0.99, clip_norm=1.0, **modes)
    train_steps = train_step.make_train_steps(state, options)
    iterator = batches(strategy, PEOPLE, 32)
    return train_steps.get_concrete_function(iterator, tf.constant(2)).graph


@pytest.fixture(scope="module")
def one() -> tf.distribute.Strategy:
    return devices.make_strategy("one")


@pytest.mark.slow
@pytest.mark.parametrize(
    "modes",
    [
        {"precision": "mixed_float16", "accumulation_steps": 4, "name": "adamw"},
        *(
            pytest.param(modes, marks=pytest.mark.fire)
            for modes in (
                {},
                {"precision": "mixed_bfloat16"},
                {"precision": "mixed_float16"},
                {"remat": True},
                {"accumulation_steps": 4},
                {"name": "adamw"},
            )
        ),
    ],
    ids=lambda modes: "-".join(map(str, modes.values())) or "float32",
)
def test_training_step(one, modes):
    assert audit(train_graph(one, **modes)) == []


@pytest.mark.slow
def test_training_step_of_two_replicas(two_replicas):
    assert audit(train_graph(two_replicas)) == []


@pytest.mark.slow
@pytest.mark.fire
def test_training_step_with_xla_compiles_forward_and_backward_pass_only(one):
    assert audit(train_graph(one, xla=True)) == ["1 x compiled by XLA: StatefulPartitionedCall"]


def crop_specs(count=None) -> dict:
    return {key: tf.TensorSpec([count, *shape], kind) for key, (shape, kind) in CROPS.items()}


@pytest.fixture(scope="module")
def network() -> tf.keras.Model:
    return model.build(**NETWORK, precision="mixed_bfloat16")


@pytest.mark.parametrize("decode", heatmap.DECODERS)
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.9)], ids=["one scale", "two scales"])
def test_validation(one, network, decode, scales):
    options = InferenceOptions(decoder=decode, scales=scales)
    predict = forward.make_predict(one, network, MPII.mirror, options)
    assert audit(predict.get_concrete_function(crop_specs(32)).graph) == []


def test_precise_batch_norm(one, network):
    size = network.input_shape[1]
    options = augmentation.BatchOptions("newell", 0, 32, size, (), mean=(0.4, 0.4, 0.4))
    statistics = precise_bn._make_statistics(one, network, options)
    assert audit(statistics.get_concrete_function(crop_specs(32)).graph) == []


def test_compiled_prediction(network):
    options = InferenceOptions(decoder="subpixel")
    folded = bn_folding.fold(network)
    predict = compiled.make_predict(folded, MPII.mirror, options, heatmaps=True)
    image, center, side, _ = (spec for spec in crop_specs(32).values())
    function = predict._function(
        [tf.zeros(spec.shape, spec.dtype) for spec in (image, center, side)]
    )
    assert audit(function.graph) == []


@pytest.mark.parametrize("encoded", [True, False])
def test_served_joints_but_for_the_pictures_themselves(network, encoded):
    options = InferenceOptions(decoder="subpixel")
    folded = bn_folding.fold(network)
    function = signatures.joints(folded, GEOMETRY, MPII.mirror, options, encoded=encoded)
    assert audit(function.get_concrete_function().graph) == []


@pytest.mark.parametrize("preprocess", [True, False])
def test_served_heatmaps(network, preprocess):
    function = signatures.heatmaps(bn_folding.fold(network), preprocess, (0.4, 0.4, 0.4))
    assert audit(function.get_concrete_function().graph) == []


class TestAudit:
    def test_an_operation_without_a_kernel_is_named(self):
        graph = tf.function(lambda x: tf.gather(x, [0])).get_concrete_function(
            tf.TensorSpec([4], tf.uint8)
        )
        assert audit(graph.graph) == ["1 x no GPU kernel: GatherV2 ['uint8', 'int32', 'int32']"]

    def test_large_tensors_in_host_memory_are_named_also_in_loops(self):
        def count(x):
            return tf.while_loop(lambda x: x[0] < 9, lambda x: (x + 1,), (x,))

        graph = tf.function(count).get_concrete_function(tf.TensorSpec([2000], tf.int32)).graph
        assert "1 x host memory: AddV2 ['int32', 'int32']" in audit(graph)

    def test_small_ones_are_not(self):
        graph = tf.function(lambda x: x + 1).get_concrete_function(tf.TensorSpec([9], tf.int32))
        assert audit(graph.graph) == []

    def test_what_xla_compiles_is_named(self):
        inner = tf.function(lambda x: x + 1, jit_compile=True)
        graph = tf.function(lambda x: inner(x)).get_concrete_function(tf.TensorSpec([9])).graph
        assert audit(graph) == ["1 x compiled by XLA: PartitionedCall"]
