"""The sections of ``scripts/check_gpu.py``, measured within a number of seconds.

TensorFlow runs only in the processes of the benchmark's parts: one that crashes, runs out of memory
or out of time costs only its own row.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable

from pipelines.benchmark import BF16, FP16, FP32, Task, gpu_machine, rounds, usable_cores

_SHORT = {BF16: "bf16", FP16: "float16", FP32: "float32"}
PER_CORE = "input, one core"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of networks, batches and measurements.

    Attributes:
      name: "gpu", "cpu" or "smallest".
      network: fields of a Config.
      photographs: number to draw and convert.
      compared: batch of the comparison with float64.
      runs: stacks -> (batch, precision, XLA), the most informative first.
      per_device: batch of each device.
      timing: rounds and lengths of a measurement.
    """

    name: str
    network: dict
    photographs: int
    compared: int
    runs: dict[int, list[tuple[int, str, bool]]]
    per_device: int
    timing: rounds.Timing


_TIMING = rounds.Timing(repeats=3, seconds=1.5, steps=0, limit=0.0)
SIZES = {
    "gpu": Sizes(
        "gpu",
        {"channels": 256, "size": 256, "depth": 4},
        256,
        4,
        {
            2: [
                *((32, BF16, False), (32, FP32, False), (32, BF16, True), (6, BF16, False)),
                *((128, BF16, False), (32, FP16, False), (6, FP32, False), (32, FP32, True)),
                *((64, BF16, False), (16, BF16, False)),
            ],
            8: [(16, BF16, False), (16, FP32, False), (16, BF16, True), (6, BF16, False)],
        },
        32,
        _TIMING,
    ),
    "cpu": Sizes(
        "cpu",
        {"channels": 64, "size": 64, "depth": 2},
        48,
        2,
        {
            2: [(16, BF16, False), (16, FP32, False), (4, BF16, False), (16, BF16, True)],
            8: [(4, BF16, False)],
        },
        8,
        dataclasses.replace(_TIMING, repeats=2),
    ),
    "smallest": Sizes(
        "smallest",
        {"stacks": 1, "channels": 8, "size": 32, "depth": 1, "ema_decay": 0.0},
        12,
        2,
        {2: [(2, BF16, False), (2, FP32, True)], 8: []},
        2,
        rounds.Timing(repeats=2, seconds=0.0, steps=1, limit=0.0),
    ),
}

# Section -> fraction of the time at which it must end; time left over goes to the later ones.
DEADLINES = {
    "records": 0.06,
    "augmentation": 0.08,
    "network": 0.22,
    "placement": 0.3,
    "input": 0.34,
    "speed 2": 0.52,
    "data wait": 0.61,
    "devices": 0.71,
    "torch": 0.78,
    "speed 8": 1.0,
}


@dataclasses.dataclass
class Check:
    """One run of all sections.

    Attributes:
      sizes: see ``Sizes``.
      folder: initially empty; gets the records.
      seconds: for all sections together.
      torch_python: interpreter that has PyTorch; "" = our own.
      progress: function(text) that prints progress.
      start: start of the run, by ``time.monotonic``.
      results: section -> its result, of the sections that have run.
    """

    sizes: Sizes
    folder: str
    seconds: float
    torch_python: str = ""
    progress: Callable[[str], None] = lambda text: None
    start: float = dataclasses.field(default_factory=time.monotonic)
    results: dict[str, dict] = dataclasses.field(default_factory=dict)

    def left(self, section: str) -> float:
        """Seconds until the section must be over."""
        return self.start + DEADLINES[section] * self.seconds - time.monotonic()

    def settings(self, stacks: int, batch: int, precision: str, **more) -> dict:
        """Fields of a Config."""
        own = {
            "stacks": stacks,
            "global_batch_size": batch,
            "precision": precision,
            "strategy": "one",
        }
        records = self.results["records"]
        if "failed" in records:
            raise ValueError(f"there are no records: {records['failed']}")
        return {"records": records["records"], **own, **self.sizes.network, **more}

    def ask(self, section: str, task: Task) -> dict:
        """Details of a task, without timing."""
        return _in_time(self.left(section), lambda left: rounds.ask(task, self.folder, left)[0])

    def time(self, section: str, task: Task) -> dict:
        """A task's rate, as ``rounds.measure`` returns it."""

        def measure(left: float) -> dict:
            timing = dataclasses.replace(self.sizes.timing, limit=left)
            return rounds.measure([task], self.folder, timing)[task.name]

        self.progress(f"  {task.name}")
        return _in_time(self.left(section), measure)

    def times(self, section: str, tasks: list[Task]) -> dict[str, dict]:
        """Rates of tasks, one after the other, while there is time."""
        return {task.name: self.time(section, task) for task in tasks}


MIN_SECONDS = 5.0  # too short to start a process


def _in_time(left: float, work: Callable[[float], dict]) -> dict:
    if left < MIN_SECONDS:
        return {"failed": "skipped, out of time; raise --minutes"}
    result = work(left)
    if result.get("failed", "").startswith("no answer within"):
        return {"failed": f"{result['failed']}; raise --minutes"}
    return result


def _gpus(check: Check) -> int:
    """GPUs that TensorFlow sees."""
    return len(check.results["machine"]["tensorflow"].get("gpus", []))


_HIDDEN = {"CUDA_VISIBLE_DEVICES": "-1"}

# ---- sections


def machine(folder: str, limit: float) -> dict:
    """Driver, GPUs and TensorFlow's build; "unseen": why TensorFlow does not see the GPUs.

    ``folder``: any; ``limit``: seconds for each of two processes.
    """
    start, hardware = time.monotonic(), gpu_machine.inspect()
    verbose = {"TF_CPP_MIN_LOG_LEVEL": "0"}
    task = Task("TensorFlow", "gpu_machine.tensorflow", {}, environment=verbose)
    library, _ = rounds.ask(Task("driver", "gpu_machine.driver", {}), folder, limit)
    build, log = rounds.ask(task, folder, limit)
    build["said"] = gpu_machine.gpu_lines(log)
    state = {**hardware, "driver_library": library, "tensorflow": build}
    remedy = gpu_machine.unseen(state)
    unseen = {"why": remedy.why, "do": remedy.do} if remedy else None
    seconds = round(time.monotonic() - start, 1)
    return {**state, "unseen": unseen, "remarks": gpu_machine.remarks(state), "seconds": seconds}


def records(check: Check) -> dict:
    """Photographs and records to measure on, drawn."""
    arguments = {"count": check.sizes.photographs}
    # TensorFlow needs no GPU for that.
    task = Task("records", "workload.prepared", {}, arguments, environment=_HIDDEN)
    return check.ask("records", task)


def augmentation(check: Check) -> dict:
    """Warp and heatmaps against float64."""
    settings = check.settings(2, 2 * check.sizes.compared, FP32)
    return check.ask("augmentation", Task("warp", "gpu_compare.augment_crops", settings))


def network(check: Check) -> dict:
    """Forward pass, loss and gradients against float64, without and with TF32."""
    settings = check.settings(2, check.sizes.compared, FP32)
    plain = check.ask("network", Task("float32", "gpu_compare.network", settings))
    if "failed" in plain:
        return plain
    tf32 = check.ask("network", Task("TF32", "gpu_compare.network_tf32", settings))
    if "failed" in tf32:
        return {**plain, "note": f"with TF32: {tf32['failed']}"}
    both = {**plain["differences"], **tf32["differences"]}
    return {**plain, "differences": both, "wrong": plain["wrong"] + tf32["wrong"]}


def placement(check: Check) -> dict:
    """Devices on which a real training step's operations ran."""
    batch = check.sizes.per_device * max(1, _gpus(check))
    settings = check.settings(2, batch, BF16, strategy="auto")
    return check.ask("placement", Task("placement", "gpu_placement.training_step", settings))


def reading(check: Check) -> dict:
    """Rates of the input pipeline on one core and on all."""
    settings = check.settings(2, check.sizes.per_device, FP32)
    names = {PER_CORE: 1, "input, all cores": 0}
    tasks = [
        Task(name, "parts.read", settings, cores=cores, environment=_HIDDEN)
        for name, cores in names.items()
    ]
    return {"parts": check.times("input", tasks), "cores": usable_cores()}


def speed(check: Check, stacks: int) -> dict:
    """Training steps over batch, precision and XLA."""
    tasks = []
    for batch, precision, xla in check.sizes.runs[stacks]:
        name = f"hg_s{stacks}, batch {batch}, {_SHORT[precision]}{', XLA' if xla else ''}"
        tasks.append(Task(name, "parts.step", check.settings(stacks, batch, precision, xla=xla)))
    if not tasks:
        return {"failed": f"not at these sizes ({check.sizes.name})"}
    return {"parts": check.times(f"speed {stacks}", tasks)}


def data_wait(check: Check) -> dict:
    """A real training's speed and its data wait."""
    batch, precision, _ = check.sizes.runs[2][0]
    settings = check.settings(2, batch * max(1, _gpus(check)), precision, strategy="auto")
    task = Task("training on records", "parts.end_to_end", settings, huge_pages=True)
    return {"parts": check.times("data wait", [task])}


def visible(count: int, value: str | None) -> str:
    """CUDA_VISIBLE_DEVICES for the first ``count`` GPUs of those in ``value``."""
    names = value.split(",") if value else [str(k) for k in range(count)]
    return ",".join(names[:count])


def _counts(maximum: int) -> list[int]:
    """1, 2, 4, ... and ``maximum``."""
    return sorted({maximum, *(2**k for k in range(10) if 2**k <= maximum)})


def devices(check: Check) -> dict:
    """The step on 1 to N GPUs, with the same batch on each; without a GPU, on a device per core."""
    gpus = _gpus(check)
    kind, tasks = "GPUs" if gpus else "logical CPU devices", []
    for count in _counts(gpus or usable_cores()):
        logical = 0 if gpus or count == 1 else count
        more = {"strategy": "auto", "logical_devices": logical}
        settings = check.settings(2, check.sizes.per_device * count, BF16, **more)
        names = visible(count, os.environ.get("CUDA_VISIBLE_DEVICES"))
        environment = {"CUDA_VISIBLE_DEVICES": names} if gpus else {}
        tasks.append(Task(f"{count} {kind}", "parts.step", settings, environment=environment))
    if len(tasks) == 1:
        return {"failed": f"only one of the {kind}: nothing to compare"}
    return {"parts": check.times("devices", tasks)}


def torch(check: Check) -> dict:
    """PyTorch's step with the same network, batch and precision."""
    batch, precision, _ = check.sizes.runs[2][0]
    settings = check.settings(2, batch, precision)
    # The twin reads every field that defines the network.
    whole = {"blocks": 1, "stem": "newell", "block": "residual", "norm": "batch", "low_channels": 0}
    tasks = []
    # Compiling takes two minutes at any size.
    for compiled in (False,) if check.sizes.name == "smallest" else (False, True):
        options = {"joints": 16, "channels_last": True, "bf16": True, "compiled": compiled}
        options["device"] = "cuda" if _gpus(check) else "cpu"
        name = f"PyTorch, batch {batch}, bf16, channels_last{', compiled' if compiled else ''}"
        task = Task(name, "peers.training", {**settings, **whole}, options, needs=("torch",))
        tasks.append(dataclasses.replace(task, python=check.torch_python))
    return {"parts": check.times("torch", tasks)}


SECTIONS = {
    "records": records,
    "augmentation": augmentation,
    "network": network,
    "placement": placement,
    "input": reading,
    "speed 2": lambda check: speed(check, 2),
    "data wait": data_wait,
    "devices": devices,
    "torch": torch,
    "speed 8": lambda check: speed(check, 8),
}


def run(check: Check) -> dict[str, dict]:
    """Run all sections; ``check.results`` must hold "machine".

    Returns:
      section -> its result, with its "seconds"; {"failed": reason} where it has none.
    """
    for name, section in SECTIONS.items():
        check.progress(name)
        start = time.monotonic()
        try:
            result = section(check)
        except Exception as error:  # costs one section, not the report
            result = {"failed": str(error) if isinstance(error, ValueError) else repr(error)}
        check.results[name] = {**result, "seconds": round(time.monotonic() - start, 1)}
    return check.results


def problems(results: dict[str, dict]) -> list[str]:
    """Reasons to fail the check: GPUs that TensorFlow does not see, and wrong results."""
    unseen = results["machine"].get("unseen")
    lines = [f"TensorFlow does not see the GPU: {unseen['why']}. {unseen['do']}"] if unseen else []
    broken = results["machine"]["tensorflow"].get("broken")
    lines += [f"TensorFlow cannot compute on the GPU: {broken}"] if broken else []
    return lines + [line for result in results.values() for line in result.get("wrong", [])]
