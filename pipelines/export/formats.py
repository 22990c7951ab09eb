"""The export formats: writers, and loaders that use each format's own runtime.

A loaded export is a function of pictures [B, size, size, 3] to heatmaps [B, h, w, J] float32.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from hourglass import bn_folding, quiet
from pipelines import checkpoints, optional
from pipelines.inference import openvino_engine
from pipelines.io import read_whole, temporary_folder, write_atomically

QUANTIZE = ("none", "float16", "int8")

# Format -> its kinds of quantization besides "none".
QUANTIZED = {
    "tflite": ("float16", "int8"),
    "openvino": ("float16", "int8"),
    "run": ("float16",),
}

# Format and quantization -> packages of `make export-tools` that these need.
_PACKAGES = {
    ("onnx", "none"): ("onnx", "tf2onnx", "onnxruntime"),
    ("openvino", "none"): ("openvino",),
    ("openvino", "float16"): ("openvino",),
    ("openvino", "int8"): ("openvino", "nncf"),
}

# The files in the folder of an OpenVINO export: graph and weights.
_PAIR = ("model.xml", "model.bin")

# The newest that both tf2onnx with TensorFlow 2.15 and onnxruntime for Python 3.9 support well.
OPSET = 17


def write_savedmodel(path: str, signatures: dict, variables) -> None:
    """Write functions with input signatures, and the variables that they use, as a SavedModel."""
    module = tf.Module()
    # Only the variables: Keras would store the functions of all its layers a second time.
    module.kept = list(variables)
    tf.saved_model.save(module, path, {k: f.get_concrete_function() for k, f in signatures.items()})


def write_tflite(path: str, function, quantize: str, pictures: np.ndarray | None = None) -> None:
    """Write a TensorFlow Lite file.

    Args:
      path: of the file.
      function: of ``signatures.heatmaps``.
      quantize: "none"; "float16": weights are stored as float16; "int8": computed in int8, except
        that input and output stay float32 (or uint8).
      pictures: [N, size, size, 3] to measure int8's ranges on.

    Raises ValueError for an int8 file that TensorFlow Lite cannot run.
    """
    # Frozen first: otherwise the converter needs the object that owns the variables.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module())
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        converter.representative_dataset = lambda: ([picture[None]] for picture in pictures)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with warnings.catch_warnings(), quiet.stderr_on_failure(), _own_temporary_files():
        warnings.simplefilter("ignore")  # it asks for ranges despite representative_dataset
        data = converter.convert()
    if quantize == "int8":
        _check_ranges(data)
    write_atomically(path, data)


@contextlib.contextmanager
def _own_temporary_files():
    """Where Python's temporary files are removed even after a kill: the converter's are models."""
    with temporary_folder() as folder:
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            yield
        finally:
            tempfile.tempdir = before


_TRIAL = """
import sys, tensorflow as tf
tf.lite.Interpreter(model_content=sys.stdin.buffer.read()).allocate_tensors()
"""


def _check_ranges(data: bytes) -> None:
    # In a process of its own: TensorFlow Lite aborts instead of raising on a tensor that was
    # constant over all pictures (a dead ReLU) and has a range of about zero.
    trial = subprocess.run([sys.executable, "-c", _TRIAL], input=data, capture_output=True)
    if trial.returncode:
        raise ValueError(
            f"TensorFlow Lite cannot run the int8 file (exit code {trial.returncode}): some layer "
            "has the same output for all training people, a range that 8 bits cannot represent; "
            "train longer, or export with --quantize=float16"
        )


def packages(kind: str, quantize: str = "none") -> tuple[str, ...]:
    """Packages of `make export-tools` that a format with a kind of quantization needs."""
    return _PACKAGES.get((kind, quantize), ())


def check_installed(kind: str, quantize: str) -> None:
    """Raise OSError if one of ``packages`` is missing."""
    for name in packages(kind, quantize):
        optional.load(name)


def write_onnx(path: str, function) -> None:
    """Write an ONNX file: "images" to "heatmaps". Raises OSError if tf2onnx is not installed."""
    tf2onnx = optional.load("tf2onnx")
    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as on import
        proto, _ = tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=OPSET
        )
    for node in proto.graph.node:
        if node.op_type == "Resize":
            _plain_resize(node)
    write_atomically(path, proto.SerializeToString())


def _plain_resize(node) -> None:
    """Resize in a mode that every runtime supports, instead of TensorFlow's deprecated one."""
    modes = {"coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}
    for attribute in node.attribute:
        if attribute.name in modes:
            attribute.s = modes[attribute.name]


def write_openvino(path: str, function, quantize: str, pictures: np.ndarray | None = None) -> None:
    """Write a folder with OpenVINO's two files: "images" to "heatmaps".

    Args:
      path: of the folder; the files have the names that ``load_openvino`` expects.
      function: of ``signatures.heatmaps``.
      quantize: "none"; "float16": weights are stored as float16; "int8": convolutions are computed
        in int8.
      pictures: [N, size, size, 3] to measure int8's ranges on.

    Raises OSError if openvino, or for int8 nncf, is not installed.
    """
    network = openvino_engine.convert(function)
    if quantize == "int8":
        network = _in_int8(network, pictures)
    with temporary_folder() as folder:
        graph = os.path.join(folder, _PAIR[0])
        halved = quantize == "float16"
        optional.load("openvino").save_model(network, graph, compress_to_fp16=halved)
        for name in _PAIR:
            write_atomically(os.path.join(path, name), read_whole(os.path.join(folder, name)))


def _in_int8(network, pictures: np.ndarray):
    """OpenVINO's model with int8 convolutions: symmetric weights, ranges of all else measured."""
    nncf = optional.load("nncf")
    dataset = nncf.Dataset([picture[None] for picture in pictures])
    return nncf.quantize(network, dataset, subset_size=len(pictures))


def load_savedmodel(path: str):
    """Signature "heatmaps" of a SavedModel as a function of pictures."""
    loaded = tf.saved_model.load(path)  # which owns the variables
    return lambda images: loaded.signatures["heatmaps"](images=tf.constant(images))["heatmaps"]


def load_frozen(path: str):
    """Frozen graph as a function of pictures."""
    graph = tf.compat.v1.GraphDef.FromString(read_whole(path))
    imported = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(graph, name=""), [])
    pruned = imported.prune("images:0", "heatmaps:0")
    return lambda images: pruned(tf.constant(images))


def load_tflite(path: str):
    """TensorFlow Lite file in its interpreter, as a function of pictures."""
    data = read_whole(path)
    with warnings.catch_warnings(), quiet.stderr_on_failure():
        warnings.simplefilter("ignore")  # later releases recommend another package on every use
        interpreter = tf.lite.Interpreter(model_content=data)
        interpreter.allocate_tensors()  # names the library that it computes with
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images) -> np.ndarray:
        images = np.asarray(images)
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(source["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return run


def load_onnx(path: str):
    """ONNX file in onnxruntime on the CPU, as a function of pictures.

    Raises OSError if onnxruntime is not installed.
    """
    runtime = optional.load("onnxruntime")
    session = runtime.InferenceSession(read_whole(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["heatmaps"], {"images": np.asarray(images)})[0]


def load_openvino(path: str, precision: str = "f32"):
    """OpenVINO's files in its runtime on the CPU, as a function of pictures.

    Args:
      path: of the folder.
      precision: see ``openvino_engine.compile_model``.

    Raises OSError if openvino is not installed.
    """
    core = optional.load("openvino").Core()
    network = core.read_model(*(read_whole(os.path.join(path, name)) for name in _PAIR))
    return openvino_engine.compile_model(network, precision)


def load_run(path: str):
    """The network of a run's folder as a function of pictures."""
    network = bn_folding.fold(checkpoints.load_network(path)[0])
    heatmaps = tf.function(lambda images: network(images, training=False)[-1], autograph=False)
    return lambda images: heatmaps(tf.convert_to_tensor(images)).numpy()


LOAD = {
    "savedmodel": load_savedmodel,
    "tflite": load_tflite,
    "onnx": load_onnx,
    "frozen": load_frozen,
    "openvino": load_openvino,
    "run": load_run,
}


FORMATS = tuple(LOAD)


def size_of(path: str) -> int:
    """Bytes of a file or of everything in a folder."""
    if not tf.io.gfile.isdir(path):
        return tf.io.gfile.stat(path).length
    names = [os.path.join(folder, n) for folder, _, files in tf.io.gfile.walk(path) for n in files]
    return sum(tf.io.gfile.stat(name).length for name in names)
