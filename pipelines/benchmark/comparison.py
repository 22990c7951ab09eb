"""What is compared with what, and the figures to reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pipelines.benchmark import BF16, FP32, Task, usable_cores
from pipelines.config import Config
from pipelines.data.tfrecords import JPEG_QUALITY
from pipelines.export import formats

PARTS = ("input", "augment", "train", "infer", "convert", "end_to_end", "predict", "person")

_PRODUCTS = ("matrix product (TensorFlow)", "matrix product (PyTorch)")


@dataclasses.dataclass(frozen=True)
class Group:
    """Tasks that are measured in alternation."""

    name: str
    config: Config
    tasks: list[Task]


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure: the ratio of ``over`` to ``under`` in one group.

    Attributes:
      part, against: as the table names them.
      group: name of the group.
      over: task.
      under: tasks; the best of them counts.
      kind: of the ratio: "rate", of units/s; "peak", of FLOP/s; "memory", of peak memory.
      reach: the figure's target; None without one.
      most: whether the target is a maximum instead of a minimum.
    """

    part: str
    against: str
    group: str
    over: str
    under: tuple[str, ...]
    kind: str
    reach: float | None = None
    most: bool = False


class Tasks:
    """Makes the tasks of one Config."""

    def __init__(self, config: Config, joints: int, peers: bool = True, ceilings: bool = True):
        """``joints``: of the records; ``peers``, ``ceilings``: whether to make their tasks."""
        self.settings = dataclasses.asdict(config)
        self.joints, self.peers, self.ceilings = joints, peers, ceilings
        self.bf16 = config.precision == BF16

    def training(self, name: str, function: str, cores: int = 0) -> list[Task]:
        """One of our own parts that ``train_main.py`` runs, with its huge pages."""
        return [Task(name, f"parts.{function}", self.settings, {}, cores, huge_pages=True)]

    def other(self, name: str, function: str) -> list[Task]:
        """One of our own parts that other commands run."""
        return [Task(name, f"parts.{function}", self.settings)]

    def per_core(self, name: str, function: str) -> list[Task]:
        """One of our own parts with one logical device per core, if the batch can be divided."""
        cores = usable_cores()
        settings = {**self.settings, "logical_devices": cores}
        divisible = cores > 1 and self.settings["global_batch_size"] % cores == 0
        return [Task(name, f"parts.{function}", settings, huge_pages=True)] if divisible else []

    def predicting(self) -> list[Task]:
        """Predicting a folder of pictures, and its halves alone and one after the other."""
        names = {"predict": "whole", "its reading": "reading", "its network": "network"}
        names["its halves in turn"] = "halves"
        return [Task(k, f"predicting.{function}", self.settings) for k, function in names.items()]

    def person(self) -> list[Task]:
        """People of a photograph, many and one at a time, and MediaPipe's."""
        batches = {"person": 32, "person, one at a time": 1}
        ours = [
            Task(name, "person.ours", self.settings, {"batch": batch})
            for name, batch in batches.items()
        ]
        return [*ours, *self._peer("MediaPipe", "person.mediapipe_pose", needs=("mediapipe",))]

    def _ceiling(
        self, name: str, function: str, cores: int = 0, needs=(), **arguments
    ) -> list[Task]:
        task = Task(name, f"ceilings.{function}", self.settings, arguments, cores, needs, True)
        return [task] if self.ceilings else []

    def _peer(
        self, name: str, function: str, huge_pages=False, needs=("torch",), **arguments
    ) -> list[Task]:
        task = Task(name, function, self.settings, arguments, 0, needs, huge_pages)
        return [task] if self.peers else []

    def decode(self, cores: int = 0) -> list[Task]:
        """Ceilings of input."""
        return [
            *self._ceiling("decode (OpenCV)", "decode_opencv", cores),
            *self._ceiling("decode (TensorFlow)", "decode_tensorflow", cores, ("tensorflow",)),
        ]

    def products(self) -> list[Task]:
        """Ceilings of train and infer."""
        torch = ("torch",) if self.peers else ()
        return [
            *self._ceiling(
                "matrix product (TensorFlow)", "product_tensorflow", needs=("tensorflow",)
            ),
            *(self._ceiling("matrix product (PyTorch)", "product_torch", needs=torch) * len(torch)),
        ]

    def convolutions(self) -> list[Task]:
        """A training step's convolutions alone."""
        return self._ceiling("convolutions alone", "convolutions", needs=("tensorflow",))

    def bare_conversion(self) -> list[Task]:
        """Ceiling of convert."""
        return self._ceiling("bare conversion", "bare_conversion", quality=JPEG_QUALITY)

    def _network(self, name, function, channels_last: bool, bf16, compiled: bool, huge_pages=False):
        options = {"channels_last": channels_last, "bf16": bf16, "compiled": compiled}
        return self._peer(name, function, huge_pages, joints=self.joints, **options)

    def torch_training(self, compiled: bool) -> list[Task]:
        """Peers of train, in the settings' precision; with torch.compile if ``compiled``.

        PyTorch by default, and with huge pages, which its users do not get unless they ask.
        """
        function, kind = "peers.training", " bf16 autocast" if self.bf16 else ""
        name = f"torch channels_last{kind}"
        last = self._network(f"torch compile{kind}", function, True, self.bf16, True)
        return [
            *self._network(name, function, True, self.bf16, False),
            *self._network(f"{name}, huge pages", function, True, self.bf16, False, True),
            *(last if compiled else []),
        ]

    def torch_inference(self, compiled: bool) -> list[Task]:
        """Peers of infer, in the settings' precision; with torch.compile if ``compiled``."""
        if not self.bf16:
            kinds = (("torch channels_last", True, ""),)
        else:
            kinds = (
                ("torch channels_last bf16 autocast", True, "autocast"),
                ("torch channels_last bf16 weights", True, "weights"),
            )
        function, kind = "peers.inference", "weights" if self.bf16 else ""
        eager = [self._network(name, function, *options, False) for name, *options in kinds]
        last = self._network("torch compile", function, True, kind, True)
        return [*sum(eager, []), *(last if compiled else [])]

    def engines(self) -> list[Task]:
        """Peers of infer in other programs' engines; ONNX Runtime's is float32 always."""
        names = {"openvino": "OpenVINO bf16" if self.bf16 else "OpenVINO", "onnx": "ONNX Runtime"}
        peers = [
            self._peer(name, "engines.inference", needs=formats.packages(kind), engine=kind)
            for kind, name in names.items()
        ]
        return sum(peers, [])

    def loaders(self) -> list[Task]:
        """Peers of input and augment together."""
        kinds = {
            "loader as published": ("photographs", "published"),
            "loader of photographs": ("photographs", "one_warp"),
            "loader of crops": ("crops", "one_warp"),
        }
        function = "loader.per_example"
        peers = [self._peer(k, function, table=t, steps=steps) for k, (t, steps) in kinds.items()]
        return sum(peers, [])


def chosen(
    parts: Sequence[str], config: Config, joints: int, peers: bool, ceilings: bool
) -> list[Group]:
    """One group of the requested parts, with everything that they are compared with."""
    tasks = Tasks(config, joints, peers, ceilings)
    blocks = {
        "input": [*tasks.training("input", "read"), *tasks.decode()],
        "augment": tasks.training("augment", "augment_crops"),
        "train": [
            *tasks.training("train", "step"),
            *tasks.torch_training(True),
            *tasks.convolutions(),
        ],
        "infer": [
            *tasks.other("infer", "inference"),
            *tasks.torch_inference(True),
            *tasks.engines(),
        ],
        "convert": [*tasks.other("convert", "conversion"), *tasks.bare_conversion()],
        "end_to_end": tasks.training("end_to_end", "end_to_end"),
        "predict": tasks.predicting(),
        "person": tasks.person(),
    }
    if "train" in parts and "infer" in parts:  # the same names for other work
        blocks["train"] = [_renamed(task, "train: ") for task in blocks["train"]]
        blocks["infer"] = [_renamed(task, "infer: ") for task in blocks["infer"]]
    both = "input" in parts and "augment" in parts
    extra = (
        [*tasks.training("input + augment", "read_and_augment"), *tasks.loaders()] if both else []
    )
    products = tasks.products() if {"train", "infer"} & set(parts) else []
    ours = [task for part in PARTS if part in parts for task in blocks[part]]
    return [Group("parts", config, [*ours, *extra, *products])]


# Our task -> names of the tasks it is compared with, whole or their first words.
_COMPARED_WITH = {
    "input": ("decode",),
    "input + augment": ("loader",),
    "train": ("torch", "train: torch"),
    "infer": ("torch", "infer: torch", "OpenVINO", "ONNX Runtime"),
    "convert": ("bare",),
    "end_to_end": ("train",),
    "predict": ("its halves",),
    "person": ("MediaPipe",),
    "person, one at a time": ("MediaPipe",),
}


def pairs(group: Group) -> list[Row]:
    """Rows without a target: each of our parts compared with each of its peers and ceilings."""
    names, rows = [task.name for task in group.tasks], []
    for ours in names:
        for other in names:
            if any(f"{other} ".startswith(f"{name} ") for name in _COMPARED_WITH.get(ours, ())):
                rows.append(Row(ours, other, group.name, ours, (other,), "rate"))
        if ours in ("train", "infer") and set(_PRODUCTS) & set(names):
            rows.append(Row(ours, "matrix product", group.name, ours, _PRODUCTS, "peak"))
    return rows


def as_defined(group: Group, joints: int) -> bool:
    """Whether a group of ``everything`` has the settings for which its rows are defined."""
    same = next(g for g in everything(Config(), set(), joints) if g.name == group.name)
    return all(
        getattr(same.config, field.name) == getattr(group.config, field.name)
        for field in dataclasses.fields(Config)
        if not field.metadata["may_change"]
    )


def _renamed(task: Task, prefix: str) -> Task:
    peer = task.name.startswith("torch")
    return dataclasses.replace(task, name=prefix + task.name) if peer else task


def _training_group(config: Config, joints: int, whole: bool) -> list[Task]:
    # torch.compile takes minutes on a CPU: only once for training and once for inference.
    tasks = Tasks(config, joints)
    around = [
        *tasks.per_core("train, a device per core", "step"),
        *tasks.training("end_to_end", "end_to_end"),
        *tasks.training("augment", "augment_crops"),
    ]
    return [
        *tasks.training("train", "step"),
        *(around if whole else []),
        *tasks.torch_training(compiled=whole),
        *tasks.convolutions(),
        *tasks.products(),
    ]


def _inference_group(config: Config, joints: int) -> list[Task]:
    tasks = Tasks(config, joints)
    peers = tasks.torch_inference(compiled=tasks.bf16)
    return [*tasks.other("infer", "inference"), *peers, *tasks.engines(), *tasks.products()]


def _remat_group(config: Config) -> Group:
    kinds = {
        "train": {"remat": False},
        "train --remat": {"remat": True},
        "train, batch 1": {"remat": False, "global_batch_size": 1},
        "train --remat, batch 1": {"remat": True, "global_batch_size": 1},
    }
    settings = {name: dataclasses.replace(config, **kind) for name, kind in kinds.items()}
    tasks = [Tasks(c, 0).training(name, "step") for name, c in settings.items()]
    return Group("memory", config, sum(tasks, []))


def everything(config: Config, given: set[str], joints: int) -> list[Group]:
    """The groups behind ``ROWS``.

    Each row is defined at its own settings; flags in ``given`` (set by the user) replace them,
    except for the precision and for the single picture of the latency.
    """

    def settings(precision: str, **defined) -> Config:
        defined = {"channels": 256, "size": 256, **defined}
        defaults = {key: value for key, value in defined.items() if key not in given}
        return dataclasses.replace(config, precision=precision, **defaults)

    bf16, fp32 = (settings(kind, stacks=2, global_batch_size=8) for kind in (BF16, FP32))
    single = dataclasses.replace(fp32, global_batch_size=1)
    large = settings(BF16, stacks=8, global_batch_size=6)
    small = settings(FP32, stacks=2, channels=96, size=128, global_batch_size=32)
    plain = Tasks(fp32, joints)
    pair = [
        *plain.training("input + augment", "read_and_augment"),
        *plain.training("input", "read"),
        *plain.decode(),
        *plain.loaders(),
    ]
    return [
        Group("input, one core", fp32, [*plain.training("input", "read", 1), *plain.decode(1)]),
        Group("input, all cores", fp32, pair),
        Group("convert", fp32, [*plain.other("convert", "conversion"), *plain.bare_conversion()]),
        Group("train, bf16", bf16, _training_group(bf16, joints, whole=True)),
        Group("train, float32", fp32, _training_group(fp32, joints, whole=False)),
        Group("infer, bf16", bf16, _inference_group(bf16, joints)),
        Group("infer, one picture, float32", single, _inference_group(single, joints)),
        _remat_group(large),
        Group("person", small, Tasks(small, joints).person()),
    ]


_AUTO = "torch channels_last bf16 autocast"
_LAST = "torch channels_last"

ROWS = (
    Row("train, bf16", "PyTorch channels_last bf16 autocast", "train, bf16", "train", (_AUTO,),
        "rate", 1.25),
    Row("train, bf16", "the same with huge pages, which only we set", "train, bf16", "train",
        (f"{_AUTO}, huge pages",), "rate"),
    Row("train, bf16, a device per core", "PyTorch channels_last bf16 autocast", "train, bf16",
        "train, a device per core", (_AUTO,), "rate"),
    Row("train, bf16: share of dense bf16 peak", "matrix product in the same run", "train, bf16",
        "train", _PRODUCTS, "peak", 0.75),
    Row("train, bf16: share of TensorFlow's peak", "its matrix product in the same run",
        "train, bf16", "train", _PRODUCTS[:1], "peak"),
    Row("its convolutions alone: share of dense bf16 peak", "matrix product in the same run",
        "train, bf16", "convolutions alone", _PRODUCTS, "peak"),
    Row("infer, bf16: share of dense bf16 peak", "matrix product in the same run", "infer, bf16",
        "infer", _PRODUCTS, "peak"),
    Row("input + augmentation, all cores, same crops", "the same loader on the stored crops",
        "input, all cores", "input + augment", ("loader of crops",), "rate"),
    Row("train, float32", "PyTorch channels_last float32", "train, float32", "train", (_LAST,),
        "rate", 1.25),
    Row("train, float32", "the same with huge pages, which only we set", "train, float32", "train",
        (f"{_LAST}, huge pages",), "rate"),
    Row("infer, bf16", "PyTorch channels_last bf16, inference mode, the faster of two",
        "infer, bf16", "infer", (_AUTO, "torch channels_last bf16 weights"), "rate", 1.4),
    Row("infer, batch 1 latency, float32", "PyTorch channels_last float32",
        "infer, one picture, float32", "infer", (_LAST,), "rate", 1.4),
    Row("infer, bf16", "OpenVINO bf16", "infer, bf16", "infer", ("OpenVINO bf16",), "rate", 1.0),
    Row("infer, bf16", "ONNX Runtime, float32: it has no bf16 on CPUs", "infer, bf16", "infer",
        ("ONNX Runtime",), "rate", 1.0),
    Row("infer, batch 1 latency, float32", "OpenVINO float32", "infer, one picture, float32",
        "infer", ("OpenVINO",), "rate", 1.0),
    Row("infer, batch 1 latency, float32", "ONNX Runtime float32", "infer, one picture, float32",
        "infer", ("ONNX Runtime",), "rate", 1.0),
    Row("a person, 32 at a time, pretrained/people", "MediaPipe Pose, full model", "person",
        "person", ("MediaPipe",), "rate", 1.0),
    Row("a person, one at a time, pretrained/people", "MediaPipe Pose, full model", "person",
        "person, one at a time", ("MediaPipe",), "rate", 1.0),
    Row("input, per core, to a decoded batch", "bare decode of the same bytes, the faster of two",
        "input, one core", "input", ("decode (OpenCV)", "decode (TensorFlow)"), "rate", 0.90),
    Row("input + augmentation, all cores", "per-example loader in the published steps, all cores",
        "input, all cores", "input + augment", ("loader as published",), "rate", 8.0),
    Row("input + augmentation, all cores", "per-example loader with one warp, all cores",
        "input, all cores", "input + augment", ("loader of photographs",), "rate", 8.0),
    Row("bare decode of the same crops, all cores", "per-example loader with one warp, all cores",
        "input, all cores", "decode (TensorFlow)", ("loader of photographs",), "rate"),
    Row("augmentation on the device", "time of the training step, bf16", "train, bf16", "train",
        ("augment",), "rate", 0.03, most=True),
    Row("end to end", "training step alone", "train, bf16", "end_to_end", ("train",), "rate",
        0.97),
    Row("convert", "read + decode + resize + encode alone, all cores", "convert", "convert",
        ("bare conversion",), "rate", 0.85),
    Row("memory of training hg_s8", "without --remat", "memory", "train --remat", ("train",),
        "memory", 0.5, most=True),
    Row("memory of training hg_s8, batch 1", "batch 6, both without --remat", "memory",
        "train, batch 1", ("train",), "memory"),
    Row("memory of training hg_s8, batch 1, --remat", "batch 6 with --remat", "memory",
        "train --remat, batch 1", ("train --remat",), "memory"),
    Row("time of training hg_s8 with --remat", "without --remat", "memory", "train",
        ("train --remat",), "rate", 1.35, most=True),
)  # fmt: skip
