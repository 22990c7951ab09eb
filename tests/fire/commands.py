"""The commands that ``tests.fire.kills`` kills, on tiny data, and what must come out."""

from __future__ import annotations

import pathlib
import shutil
import typing
from collections.abc import Callable

import cv2

from hourglass.skeleton import MPII
from pipelines.config import to_flagfile
from tests.helpers import outcomes
from tests.helpers.people import draw_person, tiny, write_records
from tests.helpers.processes import ROOT
from tests.helpers.toys import TOY_PAIRS, draw_toys

SIZE = 32  # px, the side of the network's input


class Command(typing.NamedTuple):
    """A command in a folder of its own.

    Attributes:
      words: the script and its flags; relative paths are in that folder.
      outcome: that folder -> what must equal the uninterrupted command's.
      moments: patterns of paths in that folder; to appear or to change is a moment to kill at.
      window: seconds, the longest time between such a moment and the kill.
      kinds: of kills, see ``kills.Kill``.
      kills: at most so many before it may finish.
      start: folder whose content the command finds there.
    """

    words: tuple[str, ...]
    outcome: Callable[[pathlib.Path], dict]
    moments: tuple[str, ...]
    window: float = 0.3
    kinds: tuple[str, ...] = ("seconds", "moment", "operation")
    kills: int = 2
    start: pathlib.Path | None = None


class Inputs:
    """What the commands read: records, pictures, annotations, and a trained network."""

    def __init__(self, folder: pathlib.Path):
        """Write all but the network, whose run is to be copied to ``run``."""
        self.run, self.flags = folder / "run", folder / "flags"
        self.info, _ = write_records(folder / "records", {"train": 24, "validation": 10})
        # Without mirrored pictures, because most of the time is TensorFlow's compiling.
        config = tiny("run", self.info, deterministic=True, flip=False)
        self.flags.write_text(to_flagfile(config))
        self.pictures = folder / "pictures"
        for number in range(24):
            path = self.pictures / str(number % 3) / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image, _ = draw_person(number, "train", number, MPII)
            cv2.imwrite(str(path), image[..., ::-1])
        self.annotations = draw_toys(folder / "toys", count=60)
        write_records(folder / "others" / "records", {"train": 9, "validation": 3}, first=50)
        self.others = folder / "others"


def _script(name: str, *words: str) -> tuple[str, ...]:
    return (str(ROOT / name), *words)


def training(inputs: Inputs) -> Command:
    return Command(
        _script("train_main.py", f"--flagfile={inputs.flags}"),
        lambda folder: outcomes.of_training(folder / "run"),
        (
            *(r"run/(checkpoints|best)/ckpt-\d+_temp", r"run/(checkpoints|best)/checkpoint\.tmp.*"),
            *(r"run/(checkpoints|best)/ckpt-\d+\.(index|data.*)", r"run/best/best\.json"),
            *(r"run/validated\.json", r".*\.partial", r"run/logs/.*"),
        ),
        kills=5,
    )


def validation(inputs: Inputs) -> Command:
    """Training, killed only while it validates."""
    starts = (r"run/checkpoints/ckpt-(6|12)\.index",)
    return training(inputs)._replace(moments=starts, window=1.5, kinds=("moment",), kills=3)


def synthetic(inputs: Inputs) -> Command:
    words = ("--dataset=synthetic", "--people=40", "--side=64", "--records=records", "--shards=3")
    return Command(
        _script("scripts/make_tfrecords.py", *words),
        outcomes.of_files,
        (r"data/synthetic/.*", r".*\.partial", r".*\.tfrecord", r"records/.*\.json"),
    )


def coco(inputs: Inputs) -> Command:
    words = (f"--annotations={inputs.annotations}", f"--mirror_pairs={TOY_PAIRS}", "--head=box:0.5")
    more = ("--dataset=coco", "--records=records", "--shards=3", "--side=64")
    return Command(
        _script("scripts/make_tfrecords.py", *more, *words),
        outcomes.of_files,
        (r".*\.partial", r".*\.tfrecord", r"records/.*\.json"),
    )


def replacement(inputs: Inputs) -> Command:
    """Conversion over other records."""
    command = coco(inputs)
    return command._replace(words=(*command.words, "--overwrite"), start=inputs.others)


def predict(inputs: Inputs) -> Command:
    words = (f"--checkpoint={inputs.run}", "--output=out", str(inputs.pictures))
    return Command(
        _script("scripts/predict.py", *words),
        outcomes.of_files,
        (r".*\.partial", r"out/.*\.jpg", r"out/.*\.(json|csv)"),
    )


def evaluate(inputs: Inputs) -> Command:
    words = (f"--flagfile={inputs.flags}", f"--checkpoint={inputs.run}", "--workdir=out")
    return Command(
        _script("eval_main.py", *words),
        outcomes.of_files,
        (r".*\.partial", r"out/.*"),
    )


def _export(inputs: Inputs, output: str, *words: str) -> Command:
    where = (f"--checkpoint={inputs.run}", f"--records={inputs.info.folder}", f"--output={output}")
    return Command(
        _script("scripts/export.py", *where, "--people=6", "--noflip", *words),
        lambda folder: outcomes.of_export(folder / output, SIZE),
        (r".*\.partial.*", r"out/.*"),
    )


def savedmodel(inputs: Inputs) -> Command:
    return _export(inputs, "out/demo", "--format=savedmodel")


def tflite(inputs: Inputs) -> Command:
    return _export(inputs, "out/demo.tflite", "--format=tflite")


# Function -> how often it is drawn.
COMMANDS: dict[Callable[[Inputs], Command], int] = {
    training: 6,
    validation: 3,
    synthetic: 2,
    coco: 2,
    replacement: 2,
    predict: 2,
    evaluate: 2,
    savedmodel: 1,
    tflite: 1,
}

WITHOUT_NETWORK = {"synthetic", "coco", "replacement"}


def prepare(command: Command, folder: pathlib.Path) -> None:
    """Make the folder of one run of ``command``."""
    folder.mkdir(parents=True)
    if command.start:
        shutil.copytree(command.start, folder, dirs_exist_ok=True)
