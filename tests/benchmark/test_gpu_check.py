"""scripts/check_gpu.py: remedies, comparisons, placement, the report, and the command on a CPU."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from pipelines.benchmark import (
    environment,
    gpu_check,
    gpu_compare,
    gpu_machine,
    gpu_placement,
    gpu_report,
    rounds,
)
from pipelines.config import Config
from pipelines.data import augmentation
from tests.helpers.processes import start_python

# ---- what the machine has, and remedies

GPU = {
    "name": "NVIDIA H100",
    "driver": "535.104.05",
    "memory_mb": "81559",
    "used_mb": "4",
    "compute_capability": "9.0",
}
SEEN = {
    "gpus": [GPU],
    "gpus_there": 1,
    "driver": "535.104.05",
    "nvidia_smi": "",
    "container": False,
    "variables": {},
    "packages": {"tensorflow": "2.15.1"},
    "driver_library": {"cuda": "12.2", "cu_init": 0, "count": 1},
    "tensorflow": {
        "version": "2.15.1",
        "cuda_build": True,
        "cuda": "12.2",
        "cudnn": "8",
        "gpus": [{"name": "NVIDIA H100", "compute_capability": "9.0"}],
        "said": [],
        "broken": "",
        "xla": "",
    },
}


def unseen(**changes) -> dict:
    """A machine with a GPU that TensorFlow does not see; "part__key" changes an inner value."""
    machine = copy.deepcopy(SEEN)
    machine["tensorflow"]["gpus"] = []
    for name, value in changes.items():
        part, _, key = name.partition("__")
        if key:
            machine[part][key] = value
        else:
            machine[part] = value
    return machine


DLOPEN = ["Cannot dlopen some GPU libraries. Please make sure the missing libraries mentioned"]
NO_LIBRARY = {"cuda": "", "cu_init": None, "count": 0, "error": "libcuda.so.1: cannot open"}


@pytest.mark.parametrize(
    ("machine", "why", "do"),
    [
        (unseen(tensorflow={"failed": "ImportError"}), "does not start", "BUILD=gpu make venv"),
        (unseen(tensorflow__cuda_build=False), "CPU build", "BUILD=gpu make venv"),
        (unseen(variables={"CUDA_VISIBLE_DEVICES": ""}), "hides every GPU", "unset"),
        (unseen(variables={"CUDA_VISIBLE_DEVICES": "1"}), "hides every GPU", "unset"),
        (unseen(driver_library=NO_LIBRARY), "no NVIDIA driver", "525.60.13"),
        (unseen(driver_library=NO_LIBRARY, container=True), "container", "--gpus all"),
        (
            unseen(nvidia_smi="Failed to initialize NVML: Driver/library version mismatch"),
            "old kernel module",
            "reboot",
        ),
        (unseen(driver_library__cu_init=802), "fabric manager", "nvidia-fabricmanager"),
        (unseen(driver_library__cuda="11.8"), "too old", "525.60.13"),
        (unseen(driver_library__cu_init=999), "does not start", "nvidia_uvm"),
        (
            unseen(tensorflow__said=["Ignoring visible gpu device (device: 0, name: GeForce 960)"]),
            "older than",
            "newer generation",
        ),
        (unseen(tensorflow__said=DLOPEN), "libraries are not found", "BUILD=gpu make venv"),
        (
            unseen(tensorflow__said=DLOPEN, variables={"LD_LIBRARY_PATH": "/opt/cuda/lib64"}),
            "LD_LIBRARY_PATH",
            "unset LD_LIBRARY_PATH",
        ),
        (unseen(), "reason is unknown", "report"),
    ],
)
def test_why_tensorflow_sees_no_gpu_and_what_to_do(machine, why, do):
    remedy = gpu_machine.unseen(machine)
    assert why in remedy.why and do in remedy.do


def test_no_remedy_where_it_sees_the_gpu_or_there_is_none():
    assert gpu_machine.unseen(SEEN) is None and gpu_machine.remarks(SEEN) == []
    assert gpu_machine.unseen(unseen(gpus_there=0, tensorflow__cuda_build=False)) is None


def test_remarks_where_it_sees_gpus():
    ptx = "TensorFlow was not built with CUDA kernel binaries compatible with compute capability 12"
    machine = copy.deepcopy(SEEN)
    machine["gpus_there"], machine["variables"] = 2, {"CUDA_VISIBLE_DEVICES": "0"}
    machine["gpus"][0]["used_mb"], machine["tensorflow"]["said"] = "20480", [ptx]
    machine["tensorflow"]["xla"] = "--xla on a GPU needs libdevice"
    sees, newer, busy, xla = gpu_machine.remarks(machine)
    assert "1 of 2 GPUs; CUDA_VISIBLE_DEVICES is 0" in sees
    assert "newer than this TensorFlow" in newer and "20480 MB" in busy and "libdevice" in xla


def test_nvidia_smi_and_the_log_are_read():
    text = "NVIDIA H100, 535.104.05, 81559, 4, 9.0\nNVIDIA A100, 535.104.05, 40960, 0, 8.0\n"
    assert gpu_machine.read_nvidia_smi(text)[0] == GPU
    assert [gpu["name"] for gpu in gpu_machine.read_nvidia_smi(text)] == [
        "NVIDIA H100",
        "NVIDIA A100",
    ]
    stub = "cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used."
    log = f"2026-01-01 10:00:00.1: I external/local_tsl/tsl/cuda/{stub}\nsomething else\n"
    log += f"I0000 00:00:1795728618.953230    8775 {stub}\n"
    assert gpu_machine.gpu_lines(log) == [stub.partition("] ")[2]]


def test_a_report_holds_no_secret(monkeypatch):
    monkeypatch.setenv("NVIDIA_API_KEY", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    variables = gpu_machine.inspect()["variables"]
    assert variables["CUDA_VISIBLE_DEVICES"] == "0" and "NVIDIA_API_KEY" not in variables


# ---- comparisons


def settings(info, **changes) -> dict:
    small = dict(records=info.folder, stacks=1, channels=8, depth=1, size=32, global_batch_size=4)
    return dataclasses.asdict(Config(**{**small, "strategy": "one", **changes}))


def test_warp_and_heatmaps_are_float64_s(info):
    part = gpu_compare.augment_crops(settings(info), "")
    part.run(1)
    details = part.details()
    assert details["wrong"] == []
    assert 0 < details["differences"]["GPU"]["pictures"] < 5e-5


def test_a_warp_half_a_pixel_off_is_wrong(info, monkeypatch):
    made = augmentation.images

    def shifted(batch, size, draws, mean):
        pixels, matrix = made(batch, size, draws, mean)
        return pixels, matrix + [[0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]

    monkeypatch.setattr(augmentation, "images", shifted)
    part = gpu_compare.augment_crops(settings(info), "")
    part.run(1)
    assert "pictures on the GPU are" in part.details()["wrong"][0]


@pytest.mark.slow
def test_a_network_is_compared_with_float64(info, tmp_path):
    part = gpu_compare.network(settings(info), str(tmp_path))
    part.run(1)
    details = part.details()
    assert details["wrong"] == [] and details["differences"]["GPU float32"]["heatmaps"] > 0
    tf32 = gpu_compare.network_tf32(settings(info), str(tmp_path))
    tf32.run(1)
    assert tf32.details()["wrong"] == []
    assert tf32.details()["differences"]["GPU float32 with TF32"]["cosine"] > 0.999


def test_differences_are_relative_and_judged_by_the_cpu_s():
    exact = {key: np.array([3.0, 4.0]) for key in ("heatmaps", "loss", "gradient")}
    value = {**exact, "gradient": np.array([3.0, 4.5])}
    off = gpu_compare.difference(value, exact)
    assert (off["heatmaps"], off["gradient"]) == (0.0, pytest.approx(0.1))
    cpu = {"heatmaps": 0.0, "loss": 0.0, "gradient": 0.03}
    assert gpu_compare.judge("GPU float32", off, cpu) == []  # four times the CPU's are allowed
    (wrong,) = gpu_compare.judge("GPU float32", off, {**cpu, "gradient": 0.02})
    assert wrong == "GPU float32: the gradient is 0.1 off float64, more than 0.08"
    nan = {"heatmaps": np.nan, "loss": 0.0, "gradient": 0.0, "cosine": 1.0}
    assert len(gpu_compare.judge("GPU float32", nan, cpu)) == 1
    turned = {"heatmaps": 0.01, "loss": 0.0, "gradient": 1.0, "cosine": 0.5}
    assert gpu_compare.judge("GPU float32 with TF32", turned, {}) == [
        "GPU float32 with TF32: cosine 0.500"
    ]


# ---- placement


def run_graphs(function, *arguments) -> dict:
    """``gpu_placement.count`` of a function's first call."""
    context.enable_run_metadata()
    function(*arguments)
    meta = context.export_run_metadata()
    context.disable_run_metadata()
    traced = function.get_concrete_function(*arguments)
    sizes = gpu_placement.sizes_of(traced.graph.as_graph_def(add_shapes=True))
    return gpu_placement.count(list(meta.partition_graphs), sizes)


def test_operations_and_copies_of_a_function_that_really_ran():
    @tf.function
    def loop(x, steps):
        for _ in tf.range(steps):
            with tf.device("/cpu:1"):
                y = tf.linalg.matmul(x, x, name="there")
            with tf.device("/cpu:0"):
                x = tf.nn.relu(y, name="here")
        return x

    counts = run_graphs(loop, tf.random.stateless_uniform([64, 64], [0, 0]), tf.constant(2))
    assert set(counts["operations"]) == {"CPU:0", "CPU:1"}
    assert counts["copies"]["CPU:0 -> CPU:1"] >= 1 and counts["copies"]["CPU:1 -> CPU:0"] >= 1
    large = {one["name"].rpartition("/")[2]: one["bytes"] for one in counts["large"]}
    assert large["there"] == large["here"] == 64 * 64 * 4
    assert {one["bytes"] for one in counts["copied"]} == {64 * 64 * 4}


def node(graph, name: str, op: str, device: str, **texts) -> None:
    added = graph.node.add(name=name, op=op, device=f"/job:localhost/replica:0/task:0/{device}")
    for key, text in texts.items():
        added.attr[key].s = text.encode()


def test_what_a_gpu_s_graphs_are_counted_as():
    host, gpu = tf.compat.v1.GraphDef(), tf.compat.v1.GraphDef()
    node(host, "while/body/_1/gather", "GatherV2", "device:CPU:0")
    node(host, "while/body/_1/small", "Sub", "device:CPU:0")
    both = {"send_device": "/device:CPU:0", "recv_device": "/device:GPU:0"}
    node(host, "s", "_Send", "device:CPU:0", _src="while/body/_1/gather", **both)
    node(gpu, "r", "_Recv", "device:GPU:0", **both)
    node(gpu, "while/body/_1/conv", "Conv2D", "device:GPU:0")
    counts = gpu_placement.count([host, gpu], {"gather": 1 << 20, "small": 4, "conv": 1 << 20})
    assert counts["operations"] == {"CPU:0": 2, "GPU:0": 1}
    assert counts["copies"] == {"CPU:0 -> GPU:0": 1}
    assert [one["op"] for one in counts["large"]] == ["GatherV2"] and counts["large_count"] == 1
    assert counts["copied"][0]["bytes"] == 1 << 20


def test_bytes_follow_the_types_of_the_outputs(info):
    @tf.function
    def read(iterator):
        return tf.cast(next(iterator)["image"], tf.float32, name="floats")

    dataset = tf.data.Dataset.from_tensors({"id": "a", "image": np.zeros([9, 8], np.uint8)})
    traced = read.get_concrete_function(iter(dataset))
    sizes = gpu_placement.sizes_of(traced.graph.as_graph_def(add_shapes=True))
    assert sizes["IteratorGetNext"] == 72 and sizes["floats"] == 4 * 72


# ---- sections and the report


def check(tmp_path, seconds: float) -> gpu_check.Check:
    machine = {**SEEN, "unseen": None, "remarks": [], "seconds": 1.0}
    sizes = gpu_check.SIZES["smallest"]
    return gpu_check.Check(sizes, str(tmp_path), seconds, results={"machine": machine})


def test_sections_without_time_are_reported_as_skipped(tmp_path):
    results = gpu_check.run(check(tmp_path, 0.0))
    assert results["records"]["failed"] == "skipped, out of time; raise --minutes"
    assert (
        results["torch"]["failed"] == "there are no records: skipped, out of time; raise --minutes"
    )
    assert set(results) == {"machine", *gpu_check.SECTIONS} == set(gpu_report.TITLES)
    page = page_of(results)
    assert page.count("Not measured: ") == len(gpu_check.SECTIONS)
    assert "| NVIDIA H100, 81559 MB, 9.0 |" in page and "No problem found." in page


def page_of(results: dict, sizes: str = "gpu") -> str:
    about = {**environment.describe([]), "seconds": 12.3}
    json.dumps(gpu_report.as_json(about, results, sizes, []))
    return gpu_report.markdown(about, results, sizes, gpu_check.problems(results))


@pytest.mark.slow
def test_a_part_that_fails_costs_its_own_row(tmp_path):
    (tmp_path / "records").mkdir()
    one = check(tmp_path, 1e6)
    one.results["records"] = {"records": "/nowhere", "seconds": 0.0}
    result = gpu_check.reading(one)
    assert "no records in /nowhere" in result["parts"][gpu_check.PER_CORE]["failed"]
    page = page_of({**one.results, "input": {**result, "seconds": 1.0}})
    assert "| input, all cores | not measured: FileNotFoundError" in page


def test_figures_of_the_report():
    def rate(median: float, **details) -> dict:
        return {"median": median, "rates": [median], "peak_mb": 10.0, **details}

    ours = {
        "hg_s2, batch 32, bf16": rate(1000.0, gpu_peak_mb=[5000]),
        "hg_s2, batch 32, float32": {"failed": "OOM | when allocating"},
    }
    torch = {
        "PyTorch, batch 32, bf16, channels_last": rate(800.0, torch="2.8", device="cuda"),
    }
    results = {
        "machine": {**SEEN, "unseen": None, "remarks": [], "seconds": 1.0},
        "input": {"parts": {gpu_check.PER_CORE: rate(500.0)}, "cores": 16, "seconds": 2.0},
        "speed 2": {"parts": ours, "seconds": 3.0},
        "devices": {"parts": {"1 GPUs": rate(100.0), "2 GPUs": rate(190.0)}, "seconds": 3.0},
        "torch": {"parts": torch, "seconds": 3.0},
    }
    page = page_of(results)
    assert "takes 1,000 images/s, the decoding of 2.0 cores; this process has 16." in page
    assert "| hg_s2, batch 32, bf16 | 1,000.0 | 1,000.0 to 1,000.0 | GPU 5,000 |" in page
    assert "not measured: OOM / when allocating" in page
    assert "2 GPUs: 1.90 times one" in page
    assert "1.25 times as fast: hg_s2, batch 32, bf16" in page


def test_unseen_gpus_and_wrong_results_are_problems():
    remedy = {"why": "TensorFlow's CPU build is installed", "do": "BUILD=gpu make venv"}
    results = {"machine": {**unseen(), "unseen": remedy, "remarks": [], "seconds": 1.0}}
    assert len(gpu_check.problems(results)) == 1
    page = page_of(results)
    assert "**TensorFlow does not see the GPU: TensorFlow's CPU build is installed. BUILD=" in page
    assert page.count("Not measured: TensorFlow does not see the GPUs.") == len(gpu_check.SECTIONS)
    results["machine"]["unseen"] = None
    assert gpu_check.problems(results) == []
    results["machine"]["tensorflow"]["broken"] = "no kernel image"
    assert gpu_check.problems(results) == ["TensorFlow cannot compute on the GPU: no kernel image"]
    results["machine"]["tensorflow"]["broken"] = ""
    assert gpu_check.problems({**results, "network": {"wrong": ["the loss is off"]}}) == [
        "the loss is off"
    ]


def test_which_gpus_a_process_sees():
    assert gpu_check.visible(2, None) == "0,1" and gpu_check.visible(1, "3,5") == "3"
    assert gpu_check._counts(1) == [1] and gpu_check._counts(6) == [1, 2, 4, 6]


def test_a_process_has_its_task_s_variables_and_grows_its_memory(tmp_path):
    task = rounds.Task("t", "parts.none", {}, environment={"CUDA_VISIBLE_DEVICES": "1"})
    worker = rounds.Worker(task, str(tmp_path))
    with open(f"/proc/{worker.process.pid}/environ") as file:
        variables = file.read().split("\0")
    worker.close()
    assert {"CUDA_VISIBLE_DEVICES=1", "TF_FORCE_GPU_ALLOW_GROWTH=true"} <= set(variables)


def test_pytorch_without_a_gpu_is_not_compared_with_one():
    peers = pytest.importorskip("pipelines.benchmark.peers")
    if peers.torch.cuda.is_available():
        pytest.skip("this PyTorch has a GPU")
    options = {"joints": 16, "channels_last": True, "bf16": True, "compiled": False}
    with pytest.raises(ValueError, match="sees no GPU; name one that does by --torch_python"):
        peers.training({}, "", **options, device="cuda")


@pytest.mark.skipif(gpu_machine.inspect()["gpus_there"] > 0, reason="this hides the GPU")
@pytest.mark.slow
@pytest.mark.fire
def test_the_command(tmp_path):
    """On this CPU, at the smallest sizes; every section has a result."""
    process = start_python(
        "scripts/check_gpu.py", "--smallest", "--minutes=20", f"--output={tmp_path}/report"
    )
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, output
    page = (tmp_path / "report" / "report.md").read_text()
    results = json.loads((tmp_path / "report" / "report.json").read_text())
    assert page in output and "this shows that the command works" in page
    assert results["problems"] == [] and results["sizes"] == "smallest"
    left_out = {name for name, one in results["sections"].items() if "failed" in one}
    assert left_out == {"speed 8"}
    rates = [
        part
        for name in ("input", "speed 2", "data wait", "devices")
        for part in results["sections"][name]["parts"].values()
    ]
    assert len(rates) >= 6 and all(part["median"] > 0 for part in rates)
