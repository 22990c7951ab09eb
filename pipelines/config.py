"""The frozen Config of a run; absl flags take their names, defaults and help from it."""

from __future__ import annotations

import dataclasses

from hourglass import heatmap, model
from hourglass.optimizer import OPTIMIZERS, SCHEDULES
from hourglass.skeleton import Skeleton
from pipelines import cli, devices
from pipelines.cli import option
from pipelines.data import augmentation, targets
from pipelines.data.annotations import SPLITS


def fractions(text: str) -> list[float]:
    """Numbers in a comma-separated list; ValueError names an invalid one."""
    return [float(part) for part in text.split(",") if part.strip()]


def span(text: str) -> tuple[int, int]:
    """(start, stop) of "start:stop", (0, 0) of ""; ValueError for anything else."""
    start, stop = text.split(":") if text else ("0", "0")
    return int(start), int(stop)


def _fractions_between_0_and_1(text: str) -> bool:
    return all(0 < fraction < 1 for fraction in fractions(text))


def _crop_scales(text: str) -> bool:
    return bool(fractions(text)) and all(0.25 <= scale <= 4 for scale in fractions(text))


def _span(text: str) -> bool:
    return not text or 0 <= span(text)[0] < span(text)[1]


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run depends on. Lengths are epochs here and steps inside ``run``.

    Fields marked ``may_change`` may change when a run is resumed, because the trained weights do
    not depend on them.
    """

    workdir: str = option(
        "runs/hg_s2", "folder of this run: checkpoints, logs, results", may_change=True, group="Run"
    )
    records: str = option(
        "data/records", "folder written by scripts/make_tfrecords.py", may_change=True, group="Data"
    )

    network: str = option(
        "hourglass", "kind of network", choices=tuple(model.NETWORKS), group="Network"
    )
    stacks: int = option(2, "hourglasses, each supervised", lower=1)
    blocks: int = option(1, "residual blocks at each grid of an hourglass")
    channels: int = option(256, "width of the trunk")
    low_channels: int = option(0, "width of an hourglass below its first grid; 0 = channels")
    depth: int = option(4, "times that an hourglass halves its grid")
    size: int = option(256, "side of the network input, px; heatmaps are a quarter of it")
    stem: str = option("newell", "published first layers", choices=model.STEMS)
    block: str = option("residual", "kind of block", choices=model.BLOCKS)
    norm: str = option(
        "batch", "normalisation; group does not depend on the batch", choices=model.NORMS
    )
    sync_bn: bool = option(
        False, "batch norm over all replicas together", group="Precision and devices"
    )
    precision: str = option(
        "float32",
        "arithmetic of the layers; auto: mixed_bfloat16 where the GPU or CPU has it, else float32",
        choices=("auto", *model.PRECISIONS),
    )

    global_batch_size: int = option(
        6, "examples per step over all replicas", lower=1, group="Data", formerly="batch"
    )
    accumulation_steps: int = option(
        1,
        "parts of each replica's share of the batch, computed sequentially to save memory; batch "
        "norm then takes its statistics from one part",
        lower=1,
        may_change=True,
        group="Precision and devices",
        formerly="accumulate",
    )
    remat: bool = option(
        False,
        "less memory: the backward pass recomputes each stack",
        may_change=True,
    )
    xla: bool = option(False, "compile forward and backward pass with XLA", may_change=True)
    augmentation: str = option(
        "pytorch_pose",
        "named set of augmentations; newell and pytorch_pose are published",
        choices=tuple(augmentation.AUGMENTATIONS),
        group="Data",
        formerly="recipe",
    )
    occluded: str = option(
        "train",
        "occluded joints: train = like visible ones, ignore = weight 0, zero = an empty map",
        choices=targets.OCCLUDED,
    )
    sigma: float = option(
        1.0, "standard deviation of the target Gaussians, heatmap px", rule=cli.POSITIVE
    )
    round_centers: bool = option(False, "Gaussians on whole pixels, as the references draw them")
    shuffle_buffer: int = option(0, "records shuffled at a time; 0 = all of them", lower=0)
    cache_gb: float = option(
        4.0,
        "training records up to this size are read once and kept in memory, still compressed; "
        "larger ones are read in every epoch; 0 = always read",
        rule=cli.NOT_NEGATIVE,
        may_change=True,
    )

    optimizer: str = option(
        "rmsprop", "rmsprop (torch's formula) or adamw", choices=OPTIMIZERS, group="Optimisation"
    )
    learning_rate: float = option(2.5e-4, "highest learning rate", rule=cli.POSITIVE)
    lr_schedule: str = option(
        "step", "fall of the learning rate", choices=SCHEDULES, formerly="schedule"
    )
    lr_milestones: str = option(
        "0.7,0.9",
        "step schedule: fractions of the training where the rate drops",
        rule=(
            _fractions_between_0_and_1,
            "must be fractions between 0 and 1, separated by commas, such as 0.7,0.9",
        ),
        formerly="drops",
    )
    lr_drop_factor: float = option(
        0.1,
        "step schedule: factor at each milestone",
        rule=(lambda value: 0 < value <= 1, "must be above 0 and at most 1"),
        formerly="drop_factor",
    )
    warmup_epochs: float = option(
        0.0, "epochs of linear warm-up", rule=cli.NOT_NEGATIVE, formerly="warmup"
    )
    weight_decay: float = option(
        0.0, "adamw: decoupled weight decay of kernels", rule=cli.NOT_NEGATIVE
    )
    clip_norm: float = option(
        0.0, "largest global gradient norm; 0 = no clipping", rule=cli.NOT_NEGATIVE
    )
    ema_decay: float = option(
        0.999,
        "decay of the exponential moving average of the weights; 0 = none",
        rule=(lambda value: 0 <= value < 1, "must be at least 0 and below 1"),
        formerly="average",
    )
    epochs: float = option(100.0, "length of the training", rule=cli.POSITIVE)
    steps: int = option(0, "length in steps instead of epochs; 0 = use --epochs", lower=0)
    seed: int = option(0, "of initial weights, order and augmentation", lower=0, upper=2**31 - 1)
    deterministic: bool = option(
        False,
        "bit-identical runs on one machine; slower, and the wait for data is not measured",
    )
    init_from: str = option("", "run to take initial weights from; its joints may differ")

    strategy: str = option(
        "auto",
        "devices to train on; multi_worker = all machines of TF_CONFIG",
        choices=("auto", "one", "mirrored", "multi_worker"),
        may_change=True,
        group="Precision and devices",
    )
    logical_devices: int = option(
        0, "split the CPU into this many devices; 0 = no", lower=0, may_change=True
    )
    evaluate_every: float = option(
        1.0, "epochs between validations", rule=cli.POSITIVE, may_change=True, group="Run"
    )
    precise_bn_examples: int = option(
        1000,
        "training examples from which batch norm's statistics are recomputed for each validation "
        "and the best checkpoint; 0 = moving averages, which lag behind while the rate is high",
        lower=0,
        may_change=True,
        formerly="bn_people",
    )
    log_every: int = option(50, "steps between TensorBoard scalars", lower=1, may_change=True)
    profile: str = option(
        "",
        "steps start:stop to write a TensorFlow profiler trace of, for TensorBoard",
        rule=(_span, "must be two steps, the first below the second, such as 100:110"),
        may_change=True,
    )
    max_checkpoints: int = option(
        3, "checkpoints kept in addition to the best", lower=1, may_change=True, formerly="keep"
    )

    checkpoint: str = option(
        "", "run or checkpoint; default: --workdir", may_change=True, group="Evaluation"
    )
    split: str = option("validation", "people to evaluate", choices=SPLITS, may_change=True)
    weights: str = option(
        "best", "kind of weights", choices=("best", "averaged", "raw"), may_change=True
    )
    evaluation_batch_size: int = option(
        32, "examples per step", lower=1, may_change=True, formerly="evaluation_batch"
    )
    flip: bool = option(True, "average with the mirrored picture", may_change=True)
    test_scales: str = option(
        "1",
        "crop sides, as factors; the heatmaps are averaged",
        rule=(
            _crop_scales,
            "must be one or more numbers from 0.25 to 4, separated by commas: 1.0,0.9,1.1",
        ),
        may_change=True,
    )
    decoder: str = option(
        "auto",
        "joints from heatmaps; auto = as the weights expect, which is quarter for ours",
        choices=("auto", *heatmap.DECODERS),
        may_change=True,
        formerly="decode",
    )

    bn_momentum: float = option(
        0.9,
        "share of batch norm's moving averages that a step keeps",
        rule=(lambda value: 0 <= value < 1, "must be at least 0 and below 1"),
        group=cli.EXPERIMENT,
    )
    bn_epsilon: float = option(
        1e-5,
        "added to batch norm's variances",
        rule=(lambda value: 0 < value < 1, "must be above 0 and below 1"),
    )
    rmsprop_rho: float = option(
        0.99,
        "rmsprop: share of the mean square that a step keeps",
        rule=(lambda value: 0 <= value < 1, "must be at least 0 and below 1"),
    )
    rmsprop_epsilon: float = option(
        1e-8, "rmsprop: added to the root of the mean square", rule=cli.POSITIVE
    )
    rmsprop_epsilon_inside: bool = option(
        False, "rmsprop: added inside the root, as Keras in TensorFlow 2.15 does"
    )


# Flags of earlier versions without a successor, and why they are not needed.
REMOVED = {"steps_per_call": "each call takes about two seconds' worth of steps"}


def define_flags() -> None:
    """Define one absl flag per field of Config."""
    cli.define(Config, removed=REMOVED)


def from_flags() -> Config:
    """Config of the parsed flags; --precision=auto is resolved for this machine."""
    config = cli.parsed(Config)
    if config.precision == "auto":
        return dataclasses.replace(config, precision=devices.fast_precision())
    return config


def to_flagfile(config: Config) -> str:
    """The text of a flagfile that reproduces this Config."""
    lines = ["# Repeats this run: python train_main.py --flagfile=<this file>"]
    for name, value in dataclasses.asdict(config).items():
        text = str(value).lower() if isinstance(value, bool) else value
        lines.append(f"--{name}={text}")
    return "\n".join(lines) + "\n"


def from_flagfile(text: str) -> Config:
    """Config of a flagfile's text, in which the rules for values are not checked."""
    kinds = {"int": int, "float": float, "str": str, "bool": lambda value: value != "false"}
    types = {field.name: kinds[field.type] for field in dataclasses.fields(Config)}
    return Config(**{name: types[name](value) for name, value in _values(text).items()})


def differences(flagfile: str, config: Config) -> list[str]:
    """Fields that training depends on and that differ between a flagfile's text and ``config``.

    A field that the file lacks is newer than the file: its default is what older versions did.
    """
    before, now = _values(to_flagfile(Config())) | _values(flagfile), _values(to_flagfile(config))
    return [
        f"--{field.name}: {before[field.name]} there, {now[field.name]} here"
        for field in dataclasses.fields(Config)
        if not field.metadata["may_change"] and before[field.name] != now[field.name]
    ]


def _values(flagfile: str) -> dict[str, str]:
    lines = (line[2:].partition("=") for line in flagfile.splitlines() if line[:2] == "--")
    return {cli.current_name(Config, name): value for name, _, value in lines}


def build_arguments(config: Config, skeleton: Skeleton) -> dict:
    """Arguments of ``hourglass.model.build`` from a Config."""
    names = "network stacks blocks channels low_channels depth size stem block norm sync_bn"
    names = [*names.split(), "precision", "seed", "bn_momentum", "bn_epsilon"]
    return {"joints": len(skeleton), **{name: getattr(config, name) for name in names}}
