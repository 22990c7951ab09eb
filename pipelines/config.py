"""The one frozen Config; absl flags take their names, defaults and help from it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from absl import flags

from hourglass import heatmap, model
from hourglass.optimizer import OPTIMIZERS, SCHEDULES
from hourglass.skeleton import Skeleton
from pipelines import cli, devices
from pipelines.data import augmentation, targets
from pipelines.data.annotations import SPLITS


def _flag(
    default: Any,
    help_text: str,
    choices: tuple[str, ...] = (),
    free: bool = False,
    group: str = "",
) -> Any:
    # free: may change between two runs in one workdir, because training does not depend on it.
    # group: of --help; it holds this field and those that follow, until another one begins.
    metadata = {"help": help_text, "choices": choices, "free": free, "group": group}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run depends on. Lengths are epochs here and steps inside ``run``."""

    workdir: str = _flag(
        "runs/hg_s2", "folder of this run: checkpoints, logs, results", free=True, group="Run"
    )
    records: str = _flag(
        "data/records", "folder written by scripts/make_tfrecords.py", free=True, group="Data"
    )

    stacks: int = _flag(2, "hourglasses, each supervised", group="Network")
    blocks: int = _flag(1, "residual blocks at each place of an hourglass")
    channels: int = _flag(256, "width of the trunk")
    low_channels: int = _flag(0, "width of an hourglass below its first grid; 0 = channels")
    depth: int = _flag(4, "how often an hourglass halves its grid")
    size: int = _flag(256, "side of the network input, px; heatmaps are a quarter of it")
    stem: str = _flag("newell", "published first layers", model.STEMS)
    block: str = _flag("residual", "kind of block", model.BLOCKS)
    norm: str = _flag("batch", "normalisation; group does not depend on the batch", model.NORMS)
    sync_bn: bool = _flag(
        False, "batch norm over all replicas together", group="Precision and devices"
    )
    precision: str = _flag(
        "float32",
        "arithmetic of the layers; auto: mixed_bfloat16 where the GPU or CPU has it, else float32",
        ("auto", *model.PRECISIONS),
    )

    batch: int = _flag(6, "examples per step over all replicas", group="Data")
    accumulate: int = _flag(
        1,
        "parts of each replica's share of the batch, computed one after the other to save memory; "
        "batch norm then takes its statistics from one part",
        free=True,
        group="Precision and devices",
    )
    remat: bool = _flag(
        False, "less memory: the backward pass computes each stack again", free=True
    )
    xla: bool = _flag(False, "compile forward and backward pass with XLA", free=True)
    recipe: str = _flag(
        "pytorch_pose", "published augmentation", tuple(augmentation.RECIPES), group="Data"
    )
    occluded: str = _flag(
        "train",
        "occluded joints: train = like visible ones, ignore = weight 0, zero = an empty map",
        targets.OCCLUDED,
    )
    sigma: float = _flag(1.0, "standard deviation of the target Gaussians, heatmap px")
    round_centers: bool = _flag(False, "Gaussians on whole pixels, as the references draw them")
    shuffle_buffer: int = _flag(0, "records shuffled at a time; 0 = all of them", free=False)
    cache_gb: float = _flag(
        4.0,
        "training records up to this size are read once and kept in memory, still compressed; "
        "larger ones are read again in every epoch, and so are all with 0",
        free=True,
    )

    optimizer: str = _flag(
        "rmsprop", "rmsprop (torch's formula) or adamw", OPTIMIZERS, group="Optimisation"
    )
    learning_rate: float = _flag(2.5e-4, "highest learning rate")
    schedule: str = _flag("step", "fall of the learning rate", SCHEDULES)
    drops: str = _flag("0.7,0.9", "step schedule: fractions of the training where the rate drops")
    drop_factor: float = _flag(0.1, "step schedule: factor at each drop")
    warmup: float = _flag(0.0, "epochs of linear warm-up")
    weight_decay: float = _flag(0.0, "adamw: decoupled weight decay of kernels")
    clip_norm: float = _flag(0.0, "largest global gradient norm; 0 = no clipping")
    average: float = _flag(0.999, "decay of the weight average; 0 = none")
    epochs: float = _flag(100.0, "length of the training")
    steps: int = _flag(0, "length in steps instead of epochs; 0 = use --epochs")
    seed: int = _flag(0, "of initial weights, order and augmentation")
    deterministic: bool = _flag(
        False,
        "same bits in every run on one machine; slower, and the wait for data is not measured",
    )
    init_from: str = _flag("", "run to take initial weights from; its joints may differ")

    strategy: str = _flag(
        "auto",
        "devices to train on; multi_worker = all machines of TF_CONFIG",
        ("auto", "one", "mirrored", "multi_worker"),
        free=True,
        group="Precision and devices",
    )
    logical_devices: int = _flag(0, "split the CPU into so many devices", free=True)
    steps_per_call: int = _flag(50, "most steps per tf.function call", free=True, group="Run")
    evaluate_every: float = _flag(1.0, "epochs between validations", free=True)
    bn_people: int = _flag(
        1000,
        "training people from whom batch norm's statistics are taken anew for each validation and "
        "the best checkpoint; 0 = moving averages, which lag behind while the rate is high",
        free=True,
    )
    log_every: int = _flag(50, "steps between TensorBoard scalars", free=True)
    profile: str = _flag(
        "", "steps start:stop to write a TensorFlow profiler trace of, for TensorBoard", free=True
    )
    keep: int = _flag(3, "checkpoints kept beside the best", free=True)

    checkpoint: str = _flag(
        "", "run or checkpoint; default: --workdir", free=True, group="Evaluation"
    )
    split: str = _flag("validation", "which people", SPLITS, free=True)
    weights: str = _flag("best", "kind of weights", ("best", "averaged", "raw"), free=True)
    evaluation_batch: int = _flag(32, "examples per step", free=True)
    flip: bool = _flag(True, "average with the mirrored picture", free=True)
    test_scales: str = _flag("1", "crop sides, as factors, whose heatmaps are averaged", free=True)
    decode: str = _flag(
        "auto",
        "joints from heatmaps; auto = as the weights expect, which is quarter for ours",
        ("auto", *heatmap.DECODERS),
        free=True,
    )


_RULES = {
    "stacks": lambda v: v >= 1,
    "batch": lambda v: v >= 1,
    "evaluation_batch": lambda v: v >= 1,
    "steps_per_call": lambda v: v >= 1,
    "accumulate": lambda v: v >= 1,
    "profile": lambda v: not v or 0 <= span(v)[0] < span(v)[1],
    "log_every": lambda v: v >= 1,
    "keep": lambda v: v >= 1,
    "sigma": lambda v: 0 < v < math.inf,
    "learning_rate": lambda v: 0 < v < math.inf,
    "epochs": lambda v: 0 < v < math.inf,
    "evaluate_every": lambda v: 0 < v < math.inf,
    "drop_factor": lambda v: 0 < v <= 1,
    "average": lambda v: 0 <= v < 1,
    "seed": lambda v: 0 <= v < 2**31,
    "steps": lambda v: v >= 0,
    "warmup": lambda v: 0 <= v < math.inf,
    "cache_gb": lambda v: 0 <= v < math.inf,
    "weight_decay": lambda v: 0 <= v < math.inf,
    "clip_norm": lambda v: 0 <= v < math.inf,
    "shuffle_buffer": lambda v: v >= 0,
    "logical_devices": lambda v: v >= 0,
    "bn_people": lambda v: v >= 0,
    "drops": lambda v: all(0 < drop < 1 for drop in fractions(v)),
    "test_scales": lambda v: fractions(v) and all(0.25 <= scale <= 4 for scale in fractions(v)),
}
_RULE_TEXTS = {
    "stacks batch evaluation_batch steps_per_call log_every keep accumulate": "must be 1 or more",
    "sigma learning_rate epochs evaluate_every": "must be above 0 and finite",
    "drop_factor": "must be above 0 and at most 1",
    "average": "must be at least 0 and below 1",
    "steps shuffle_buffer logical_devices bn_people": "must not be negative",
    "warmup weight_decay clip_norm cache_gb": "must not be negative, and finite",
    "seed": "must be between 0 and 2147483647",
    "profile": "must be two steps, the first below the second, such as 100:110",
    "drops": "must be fractions between 0 and 1, separated by commas, such as 0.7,0.9",
    "test_scales": "must be one or more numbers from 0.25 to 4, separated by commas: 1.0,0.9,1.1",
}


def fractions(text: str) -> list[float]:
    """Numbers in a comma-separated list; ValueError names what is not a number."""
    return [float(part) for part in text.split(",") if part.strip()]


def span(text: str) -> tuple[int, int]:
    """(start, stop) of "start:stop", (0, 0) of ""; ValueError for anything else."""
    start, stop = text.split(":") if text else ("0", "0")
    return int(start), int(stop)


def _holds(name: str, value: Any) -> bool:
    try:
        return _RULES[name](value)
    except ValueError:
        return False


_DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define_flags() -> None:
    """Define one absl flag per field of Config, with its rule as a validator."""
    title = ""
    for field in dataclasses.fields(Config):
        help_text, choices = field.metadata["help"], field.metadata["choices"]
        title = field.metadata["group"] or title
        with cli.group(title):
            if choices:
                flags.DEFINE_enum(field.name, field.default, list(choices), help_text)
            else:
                _DEFINE[type(field.default)](field.name, field.default, help_text)
    for names, text in _RULE_TEXTS.items():
        for name in names.split():
            flags.register_validator(name, lambda v, name=name: _holds(name, v), message=text)


def from_flags() -> Config:
    """Config of the parsed flags; --precision=auto is this machine's."""
    names = [field.name for field in dataclasses.fields(Config)]
    values = {name: flags.FLAGS[name].value for name in names}
    if values["precision"] == "auto":
        values["precision"] = devices.fast_precision()
    return Config(**values)


def to_flagfile(config: Config) -> str:
    """The text of a flagfile that gives this Config again."""
    lines = ["# Runs this run again: python train_main.py --flagfile=<this file>"]
    for name, value in dataclasses.asdict(config).items():
        text = str(value).lower() if isinstance(value, bool) else value
        lines.append(f"--{name}={text}")
    return "\n".join(lines) + "\n"


def differences(flagfile: str, config: Config) -> list[str]:
    """Fields that training depends on and that differ between a flagfile's text and ``config``.

    A field that the file lacks is newer than it: its default is what versions before it did.
    """
    before, now = _values(to_flagfile(Config())) | _values(flagfile), _values(to_flagfile(config))
    return [
        f"--{field.name}: {before[field.name]} there, {now[field.name]} here"
        for field in dataclasses.fields(Config)
        if not field.metadata["free"] and before[field.name] != now[field.name]
    ]


def _values(flagfile: str) -> dict[str, str]:
    return dict(line[2:].split("=", 1) for line in flagfile.splitlines() if line[:2] == "--")


def build_arguments(config: Config, skeleton: Skeleton) -> dict:
    """Arguments of ``hourglass.model.build`` that a Config means."""
    names = "stacks blocks channels low_channels depth size stem block norm sync_bn precision seed"
    return {"joints": len(skeleton), **{name: getattr(config, name) for name in names.split()}}
