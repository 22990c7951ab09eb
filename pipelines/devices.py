"""The devices of a run: this machine's, or those of all machines in TF_CONFIG."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sysconfig

import numpy as np
import tensorflow as tf

EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:12345", "10.0.0.2:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def training_strategy(kind: str, logical_devices: int = 0) -> tf.distribute.Strategy:
    """Strategy for training: of all machines of TF_CONFIG for "multi_worker", else of this one.

    With "multi_worker" it returns when all workers have joined; TensorFlow waits for an hour.

    Args:
      kind: a value of --strategy.
      logical_devices: as in ``make_strategy``.

    Raises:
      ValueError: TF_CONFIG contradicts ``kind``, or is invalid.
    """
    text = os.environ.get("TF_CONFIG", "")
    if kind == "multi_worker":
        if logical_devices:
            raise ValueError("--logical_devices is for one machine, not --strategy=multi_worker")
        return _join(*read_tf_config(text))
    if _names_others(text):
        raise ValueError(
            f"TF_CONFIG names several workers, but --strategy={kind} trains on one machine alone; "
            "use --strategy=multi_worker, or unset TF_CONFIG"
        )
    return make_strategy(kind, logical_devices)


def read_tf_config(text: str) -> tuple[list[str], int]:
    """Addresses of all workers, the chief's first, and this process's index among them.

    The chief is that of the "chief" job if the cluster has one, else the first worker.

    Raises:
      ValueError: not the JSON that MultiWorkerMirroredStrategy needs.
    """
    try:
        config = json.loads(text or "{}")
        cluster, task = dict(config.get("cluster", {})), dict(config.get("task", {}))
        jobs = [job for job in ("chief", "worker") if job in cluster]
        addresses = [address for job in jobs for address in cluster[job]]
    except (ValueError, TypeError, AttributeError) as error:
        raise _wrong(text, f"it must be a JSON object ({error})") from error
    if not addresses or len(jobs) < len(cluster) or len(cluster.get("chief", ["one"])) != 1:
        raise _wrong(text, 'its "cluster" must list "worker" addresses, and at most one "chief"')
    for address in addresses:
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise _wrong(text, f"{address!r} is not an address like host:port")
    if len(set(addresses)) < len(addresses):
        raise _wrong(text, "it lists an address twice")
    job, index = task.get("type"), task.get("index")
    if job not in jobs or type(index) is not int or not 0 <= index < len(cluster[job]):
        valid = " or ".join(f'"{job}" and 0 to {len(cluster[job]) - 1}' for job in jobs)
        raise _wrong(text, f'its "task" must be this process\'s "type" and "index", {valid}')
    return addresses, addresses.index(cluster[job][index])


def _names_others(text: str) -> bool:
    try:
        return len(read_tf_config(text)[0]) > 1
    except ValueError:
        return False


def _wrong(text: str, rule: str) -> ValueError:
    return ValueError(
        f"TF_CONFIG={text or '(not set)'}: {rule}; set it on each machine, with its own index, "
        f"such as TF_CONFIG='{EXAMPLE}', or use --strategy=auto to train on this machine alone"
    )


def _join(addresses: list[str], worker: int) -> tf.distribute.Strategy:
    port = int(addresses[worker].rpartition(":")[2])
    try:
        # TensorFlow would share the port with another process, and both would wait forever.
        socket.create_server(("", port)).close()
    except OSError as error:
        raise ValueError(
            f"port {port} of {addresses[worker]}, worker {worker} in TF_CONFIG, cannot be used "
            f"({error}); give each process its own index, or stop what uses the port"
        ) from error
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    others = ", ".join(a for i, a in enumerate(addresses) if i != worker) or "no others"
    print(f"worker {worker} of {len(addresses)}, waiting for {others}", flush=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ValueError(f"--strategy=multi_worker: {error}; use a fresh process") from error


def is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    """Whether several processes train together, which must all run the same collectives."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run's folder: it is the only one, or the first worker."""
    if not is_multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (first, 0)


def gather(strategy: tf.distribute.Strategy, numbers: list[int]) -> np.ndarray:
    """All workers' numbers [W, n] int64, the chief's first; all must call this together."""
    if not is_multi_worker(strategy):
        return np.array([numbers], np.int64)

    def own_row(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
        table = np.zeros([context.num_replicas_in_sync, len(numbers)], np.int64)
        table[context.replica_id_in_sync_group] = numbers
        return tf.constant(table)

    # A sum, because strategy.gather traces a new function on every call.
    rows = strategy.experimental_distribute_values_from_function(own_row)
    table = strategy.reduce(tf.distribute.ReduceOp.SUM, rows, axis=None).numpy()
    return table[:: len(strategy.experimental_local_results(rows))]


@contextlib.contextmanager
def naming_lost_workers():
    """Report the loss of another worker, which is noticed within seconds, in one sentence.

    Raises:
      ConnectionError: in place of TensorFlow's error.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if "/job:" not in error.message:
            raise
        raise ConnectionError(
            f"another worker is gone or cannot be reached ({error.message.splitlines()[0]}); "
            "restart all workers with the same command: they resume from the last checkpoint"
        ) from error


def make_strategy(kind: str, logical_devices: int = 0) -> tf.distribute.Strategy:
    """Strategy over this machine's devices.

    Args:
      kind: "one" device, all "mirrored", or "auto": mirrored if there are several of them.
        "multi_worker" is "auto" here: evaluation uses one machine.
      logical_devices: split the CPU into this many devices and use these; with "auto" only
        without a GPU. Each runs its operations on its own share of the cores: small networks
        train faster with one device per core.

    Raises:
      ValueError: logical devices with kind "one", or after TensorFlow has started.
    """
    if logical_devices and kind == "one":
        raise ValueError("--logical_devices needs --strategy=mirrored or auto, not one")
    gpus = tf.config.list_physical_devices("GPU")
    if logical_devices and (kind == "mirrored" or not gpus):
        return tf.distribute.MirroredStrategy(_split_cpu(logical_devices))
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if kind == "mirrored" or (kind != "one" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")


def _split_cpu(count: int) -> list[str]:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or []) != count:
        try:
            parts = [tf.config.LogicalDeviceConfiguration()] * count
            tf.config.set_logical_device_configuration(cpu, parts)
            cores = max(1, (os.cpu_count() or 1) // count)
            tf.config.threading.set_intra_op_parallelism_threads(cores)
        except RuntimeError as error:
            raise ValueError(f"--logical_devices={count}: {error}; use a fresh process") from error
    return [f"/cpu:{i}" for i in range(count)]


def _cuda_folders() -> list[str]:
    """Where XLA looks for CUDA's files: XLA_FLAGS, the pip packages, CUDA's installation."""
    given = re.findall(r"--xla_gpu_cuda_data_dir=(\S+)", os.environ.get("XLA_FLAGS", ""))
    packages = os.path.join(sysconfig.get_path("purelib"), "nvidia", "cuda_nvcc")
    return [*given, packages, os.environ.get("CUDA_HOME", "/usr/local/cuda"), "/opt/cuda"]


def check_xla(gpus: list) -> None:
    """Check that XLA can compile for these GPUs; otherwise it fails in the middle of a step.

    Raises:
      ValueError: CUDA's libdevice, which XLA links against, is missing.
    """
    folders = _cuda_folders()
    paths = [os.path.join(root, "nvvm", "libdevice", "libdevice.10.bc") for root in folders]
    if gpus and not any(map(os.path.exists, paths)):
        raise ValueError(
            "--xla on a GPU needs CUDA's nvvm/libdevice/libdevice.10.bc, which is in none of "
            f"{', '.join(folders)}; install the GPU requirements (BUILD=gpu make venv), set "
            "XLA_FLAGS=--xla_gpu_cuda_data_dir=FOLDER, or leave --xla out"
        )


def fast_precision(cpu_info: str = "/proc/cpuinfo") -> str:
    """The fast precision of this machine: mixed_bfloat16 if GPU or CPU has bf16, else float32.

    Other CPUs emulate bf16 in software, several times slower than float32.

    Args:
      cpu_info: Linux' file about the CPU; absent on macOS.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        fast = details.get("compute_capability", (0, 0)) >= (8, 0)
    elif os.path.exists(cpu_info):
        with open(cpu_info) as file:
            fast = bool({"avx512_bf16", "amx_bf16"} & set(file.read().split()))
    else:
        fast = False
    return "mixed_bfloat16" if fast else "float32"


def round_up(batch: int, strategy: tf.distribute.Strategy) -> int:
    """The smallest batch size from ``batch`` up that divides equally among the replicas."""
    replicas = strategy.num_replicas_in_sync
    return -(-batch // replicas) * replicas
