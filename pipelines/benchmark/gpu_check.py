"""What ``scripts/check_gpu.py`` measures: section by section, within a number of seconds.

TensorFlow runs in processes of their own only, by the benchmark's parts: one that crashes, runs out
of memory or out of time costs its own row.
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
    """How large everything is.

    Attributes:
      name: "gpu", "cpu" or "smallest".
      network: fields of a Config.
      people: photographs to draw and convert.
      compared: batch of the comparison with float64.
      runs: stacks -> (batch, precision, XLA), the most telling first.
      each: batch of one device where several are used.
      pace: how long is measured.
    """

    name: str
    network: dict
    people: int
    compared: int
    runs: dict[int, list[tuple[int, str, bool]]]
    each: int
    pace: rounds.Pace


_PACE = rounds.Pace(repeats=3, seconds=1.5, steps=0, limit=0.0)
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
        _PACE,
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
        dataclasses.replace(_PACE, repeats=2),
    ),
    "smallest": Sizes(
        "smallest",
        {"stacks": 1, "channels": 8, "size": 32, "depth": 1, "ema_decay": 0.0},
        12,
        2,
        {2: [(2, BF16, False), (2, FP32, True)], 8: []},
        2,
        rounds.Pace(repeats=2, seconds=0.0, steps=1, limit=0.0),
    ),
}

# Section -> share of the time by whose end it is over; what one leaves, the later ones have.
SHARES = {
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
      folder: empty at first; gets the records.
      seconds: for all sections together.
      torch_python: interpreter that has PyTorch; "" = our own.
      say: function(text) that shows what is going on.
      start: when all of it began, by ``time.monotonic``.
      found: section -> its results, as far as there are any.
    """

    sizes: Sizes
    folder: str
    seconds: float
    torch_python: str = ""
    say: Callable[[str], None] = lambda text: None
    start: float = dataclasses.field(default_factory=time.monotonic)
    found: dict[str, dict] = dataclasses.field(default_factory=dict)

    def left(self, section: str) -> float:
        """Seconds until the section must be over."""
        return self.start + SHARES[section] * self.seconds - time.monotonic()

    def settings(self, stacks: int, batch: int, precision: str, **more) -> dict:
        """Fields of a Config."""
        own = {
            "stacks": stacks,
            "global_batch_size": batch,
            "precision": precision,
            "strategy": "one",
        }
        made = self.found["records"]
        if "failed" in made:
            raise ValueError(f"there are no records: {made['failed']}")
        return {"records": made["records"], **own, **self.sizes.network, **more}

    def ask(self, section: str, task: Task) -> dict:
        """Facts of a task without timing."""
        return _in_time(self.left(section), lambda left: rounds.ask(task, self.folder, left)[0])

    def time(self, section: str, task: Task) -> dict:
        """A task's rate, as ``rounds.measure`` returns it."""

        def measure(left: float) -> dict:
            pace = dataclasses.replace(self.sizes.pace, limit=left)
            return rounds.measure([task], self.folder, pace)[task.name]

        self.say(f"  {task.name}")
        return _in_time(self.left(section), measure)

    def times(self, section: str, tasks: list[Task]) -> dict[str, dict]:
        """Rates of tasks, one after the other while there is time."""
        return {task.name: self.time(section, task) for task in tasks}


LEAST_SECONDS = 5.0  # shorter is no time to start a process


def _in_time(left: float, work: Callable[[float], dict]) -> dict:
    if left < LEAST_SECONDS:
        return {"failed": "left out, time was over; --minutes gives more"}
    found = work(left)
    if found.get("failed", "").startswith("no answer within"):
        return {"failed": f"{found['failed']}; --minutes gives more"}
    return found


def _gpus(check: Check) -> int:
    """GPUs that TensorFlow sees."""
    return len(check.found["machine"]["tensorflow"].get("gpus", []))


_HIDDEN = {"CUDA_VISIBLE_DEVICES": "-1"}

# ---- sections


def machine(folder: str, limit: float) -> dict:
    """Driver, GPUs and TensorFlow's build; "unseen": why TensorFlow does not see the GPUs.

    ``folder``: any; ``limit``: seconds for each of two processes.
    """
    start, facts = time.monotonic(), gpu_machine.look()
    loud = {"TF_CPP_MIN_LOG_LEVEL": "0"}
    task = Task("TensorFlow", "gpu_machine.tensorflow", {}, environment=loud)
    library, _ = rounds.ask(Task("driver", "gpu_machine.driver", {}), folder, limit)
    build, log = rounds.ask(task, folder, limit)
    said = gpu_machine.telling(log)
    facts = {**facts, "driver_library": library, "tensorflow": {**build, "said": said}}
    remedy = gpu_machine.unseen(facts)
    unseen = {"why": remedy.why, "do": remedy.do} if remedy else None
    seconds = round(time.monotonic() - start, 1)
    return {**facts, "unseen": unseen, "remarks": gpu_machine.remarks(facts), "seconds": seconds}


def records(check: Check) -> dict:
    """Photographs and records to measure on, drawn."""
    arguments = {"people": check.sizes.people}
    # TensorFlow need not see a GPU for that.
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
    """Where the operations of a real training step ran."""
    batch = check.sizes.each * max(1, _gpus(check))
    settings = check.settings(2, batch, BF16, strategy="auto")
    return check.ask("placement", Task("placement", "gpu_placement.training_step", settings))


def reading(check: Check) -> dict:
    """Pictures that the input pipeline delivers on one core and on all."""
    settings = check.settings(2, check.sizes.each, FP32)
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
    """A real training's speed and how much of it is waiting for data."""
    batch, precision, _ = check.sizes.runs[2][0]
    settings = check.settings(2, batch * max(1, _gpus(check)), precision, strategy="auto")
    task = Task("training on records", "parts.end_to_end", settings, huge_pages=True)
    return {"parts": check.times("data wait", [task])}


def visible(count: int, value: str | None) -> str:
    """CUDA_VISIBLE_DEVICES for the first ``count`` GPUs of those that ``value`` leaves."""
    names = value.split(",") if value else [str(k) for k in range(count)]
    return ",".join(names[:count])


def _counts(most: int) -> list[int]:
    """1, 2, 4, ... and ``most``."""
    return sorted({most, *(2**k for k in range(10) if 2**k <= most)})


def devices(check: Check) -> dict:
    """The step on 1 to N GPUs, the batch of each the same; without a GPU on a device per core."""
    gpus = _gpus(check)
    kind, tasks = "GPUs" if gpus else "logical CPU devices", []
    for count in _counts(gpus or usable_cores()):
        logical = 0 if gpus or count == 1 else count
        more = {"strategy": "auto", "logical_devices": logical}
        settings = check.settings(2, check.sizes.each * count, BF16, **more)
        only = {"CUDA_VISIBLE_DEVICES": visible(count, os.environ.get("CUDA_VISIBLE_DEVICES"))}
        environment = only if gpus else {}
        tasks.append(Task(f"{count} {kind}", "parts.step", settings, environment=environment))
    if len(tasks) == 1:
        return {"failed": f"one of the {kind}: nothing to compare"}
    return {"parts": check.times("devices", tasks)}


def torch(check: Check) -> dict:
    """PyTorch's step on the same network, batch and precision."""
    batch, precision, _ = check.sizes.runs[2][0]
    settings = check.settings(2, batch, precision)
    # The twin reads every field that says what the network is.
    whole = {"blocks": 1, "stem": "newell", "block": "residual", "norm": "batch", "low_channels": 0}
    tasks = []
    # Compiling takes two minutes at any size.
    for compiled in (False,) if check.sizes.name == "smallest" else (False, True):
        how = {"joints": 16, "channels_last": True, "bf16": True, "compiled": compiled}
        how["device"] = "cuda" if _gpus(check) else "cpu"
        name = f"PyTorch, batch {batch}, bf16, channels_last{', compiled' if compiled else ''}"
        task = Task(name, "peers.training", {**settings, **whole}, how, needs=("torch",))
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
    """All sections, behind ``check.found["machine"]``.

    Returns:
      section -> what it found, with its "seconds"; {"failed": why} where it found nothing.
    """
    for name, section in SECTIONS.items():
        check.say(name)
        start = time.monotonic()
        try:
            result = section(check)
        except Exception as error:  # one section less, not no report
            result = {"failed": str(error) if isinstance(error, ValueError) else repr(error)}
        check.found[name] = {**result, "seconds": round(time.monotonic() - start, 1)}
    return check.found


def problems(found: dict[str, dict]) -> list[str]:
    """What makes the check fail: GPUs that TensorFlow does not see, and wrong results."""
    unseen = found["machine"].get("unseen")
    seen = [f"TensorFlow does not see the GPU: {unseen['why']}. {unseen['do']}"] if unseen else []
    broken = found["machine"]["tensorflow"].get("broken")
    seen += [f"TensorFlow cannot compute on the GPU: {broken}"] if broken else []
    return seen + [one for section in found.values() for one in section.get("wrong", [])]
