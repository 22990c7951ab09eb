"""Write a data set's people as TFRecord shards and dataset.json.

python scripts/make_tfrecords.py

reads MPII from data/mpii if it is there, and draws synthetic people otherwise.

python scripts/make_tfrecords.py --dataset=coco --annotations=FILE --images=FOLDER --head=RULE

reads any keypoint file in COCO's format: people with other joints, animals, things.

python scripts/make_tfrecords.py --dataset=yolo --annotations=data.yaml --head=RULE
python scripts/make_tfrecords.py --dataset=labelme --annotations=FOLDER --head=RULE

read YOLO-pose data sets, and folders of labelme's JSON files.
"""

from __future__ import annotations

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import rich.console
import rich.table
import rich.text
from absl import flags

from pipelines import cli
from pipelines.data.annotations import Annotated
from pipelines.data.cropping import Geometry
from pipelines.data.readers import coco, instances, mpii, synthetic
from pipelines.data.readers.table import READERS
from pipelines.data.synthetic import scene
from pipelines.data.tfrecords import JPEG_QUALITY, DatasetInfo
from pipelines.data.write_tfrecords import convert
from pipelines.io import check_writable, read_whole, write_atomically

SYNTHETIC = os.path.join("data", "synthetic")

_FLAGS = flags.FLAGS
with cli.group("Data"):
    flags.DEFINE_enum(
        "dataset",
        "auto",
        ("auto", *READERS),
        "auto = mpii where data/mpii has it, else synthetic",
    )
    flags.DEFINE_string(
        "images",
        "",
        "folder of the photographs; default: images beside the annotation file, or its folder",
    )
    flags.DEFINE_string(
        "annotations",
        "",
        "annotation file, labelme: folder; default: looked for beside --images or in data/DATASET",
    )
    flags.DEFINE_bool(
        "allow_missing_images", False, "leave out people whose photograph is not there"
    )
    flags.DEFINE_bool(
        "upright",
        False,
        "turn photographs as their EXIF orientation says, where no annotated size tells",
    )
    flags.DEFINE_integer("people", 3600, "synthetic people to draw", lower_bound=2)
with cli.group("Records"):
    flags.DEFINE_string("records", "data/records", "folder to write to")
    flags.DEFINE_bool(
        "overwrite", False, "replace the records that are there; redraw synthetic people"
    )
    flags.DEFINE_integer("shards", 0, "files per split; 0 = one per 512 people", lower_bound=0)
    flags.DEFINE_integer("workers", 0, "processes; 0 = one per core", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "of the order of the records, and of synthetic people", 0)
with cli.group("Stored crops"):
    flags.DEFINE_float(
        "context",
        Geometry.context,
        "a stored crop covers this many sides of a person's crop",
        lower_bound=1,
        upper_bound=8,
    )
    flags.DEFINE_integer(
        "side",
        Geometry.side,
        "most px that the side of a person's crop takes when stored",
        lower_bound=8,
        upper_bound=4096,
    )
    flags.DEFINE_integer("jpeg_quality", JPEG_QUALITY, "of the crops", 1, 100)

_KEYPOINTS = ("coco", "yolo", "labelme")
_TWO_FILES = ("coco", "labelme")
# Flag -> the data sets that have it, and its meaning.
_TEXTS = {
    "category": (_KEYPOINTS, "the one to take, where there are several"),
    "joints": (("yolo", "labelme"), "A,B,C: names in the rows' order (yolo), labels to take"),
    "mirror_pairs": (
        _KEYPOINTS,
        "A:B,C:D, pairs that do not follow from the joints' names; A:A: no counterpart",
    ),
    "head": (
        _KEYPOINTS,
        "unit of PCKh: joint:A,joint:B (their distance) or box:F (F x the box's longer side)",
    ),
    "validation_annotations": (_TWO_FILES, "second annotation file or folder, for validation"),
    "validation_images": (_TWO_FILES, "folder of its pictures; default: --images"),
}
with cli.group(f"--dataset={', '.join(_KEYPOINTS)} only"):
    for _name, (_sets, _meaning) in _TEXTS.items():
        flags.DEFINE_string(_name, "", _meaning)
    flags.DEFINE_float(
        "validation_fraction", None, "of the pictures; default 0.1 without validation annotations"
    )
    flags.DEFINE_integer("split_seed", 0, "of the choice of these pictures")
    flags.DEFINE_bool(
        "rescale_annotations", False, "move positions to pictures of another size than annotated"
    )
_ONLY = {
    **{name: sets for name, (sets, _) in _TEXTS.items()},
    "validation_fraction": _KEYPOINTS,
    "split_seed": _KEYPOINTS,
    "rescale_annotations": _TWO_FILES,
}
# Those that a reader takes under the same name.
_OPTIONS = [name for name in _ONLY if name not in ("validation_images", "rescale_annotations")]
# Pictures and annotations lie in one folder, which --images names.
_ONE_FOLDER = ("yolo", "labelme")


def main() -> int:
    """Read, convert, report; every foreseen failure is one sentence and exit code 1."""
    try:
        check_writable(_FLAGS.records)
        info, written = _convert(_annotated_and_images())
    except (ValueError, OSError) as error:
        print(f"make_tfrecords: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make_tfrecords: interrupted; nothing was written", file=sys.stderr)
        return 130
    if not written:
        print(f"{info.folder} already holds exactly these records: nothing to do")
    rich.console.Console().print(_table(info))
    if info.not_turned:
        print(
            f"{info.not_turned:,} photographs carry an EXIF orientation, which is ignored: "
            "if they were annotated as viewers show them, convert with --upright"
        )
    return 0


def _annotated_and_images() -> tuple[Annotated, str]:
    dataset = _FLAGS.dataset
    for name, sets in _ONLY.items():
        if _FLAGS[name].present and dataset not in sets:
            raise ValueError(f"--{name} belongs to --dataset={', '.join(sets)}, not to {dataset}")
    given = _FLAGS.images or _FLAGS.annotations
    if dataset == "auto":
        if given:
            raise ValueError(
                f"--images and --annotations need --dataset={{{','.join(READERS)}}} too"
            )
        dataset = _choose()
    if dataset == "synthetic" and not given:
        annotations = _synthetic_people()
    else:
        annotations = _FLAGS.annotations or _find(dataset, _FLAGS.images)
    images = _FLAGS.images or _images(dataset, annotations)
    if dataset in _KEYPOINTS:
        return _keypoints(dataset, annotations, images)
    return READERS[dataset].read(annotations), images


def _images(dataset: str, annotations: str) -> str:
    """Folder of the photographs where --images doesn't name it."""
    if dataset in _ONE_FOLDER:
        return annotations if os.path.isdir(annotations) else os.path.dirname(annotations) or "."
    images = os.path.join(_home(annotations), "images")
    if dataset == "coco" and not os.path.isdir(images):
        return _home(annotations) or "."
    return images


def _keypoints(dataset: str, annotations: str, images: str) -> tuple[Annotated, str]:
    options = {name: _FLAGS[name].value for name in _OPTIONS if dataset in _ONLY[name]}
    if dataset in _TWO_FILES:
        images, options["folders"] = _two_folders(dataset, images)
        options["rescale"] = _FLAGS.rescale_annotations
    annotated = READERS[dataset].read(annotations, images=images, **options)
    print(instances.describe(annotated))
    return annotated, images


def _two_folders(dataset: str, images: str) -> tuple[str, tuple[str, str]]:
    """Folder that holds all pictures, and in it those of training and validation."""
    second = _FLAGS.validation_images
    if second and not _FLAGS.validation_annotations:
        raise ValueError("--validation_images needs --validation_annotations too")
    if _FLAGS.validation_annotations and not _FLAGS.images and dataset in _ONE_FOLDER:
        second = second or _images(dataset, _FLAGS.validation_annotations)
    return coco.shared_root(images, second) if second else (images, ("", ""))


def _choose() -> str:
    if _present("mpii", os.path.join("data", "mpii")):
        return "mpii"
    print(
        f"There is no MPII in data/mpii, so these are {_FLAGS.people:,} synthetic people instead. "
        "For MPII, put its photographs into data/mpii/images and its annotations beside that folder"
        f" as data/mpii/{mpii.FILES[0]} (also read: {', '.join(mpii.FILES[1:])})"
    )
    return "synthetic"


def _present(dataset: str, folder: str) -> list[str]:
    paths = [os.path.join(folder, name) for name in READERS[dataset].FILES]
    return [path for path in paths if os.path.exists(path)]


def _find(dataset: str, images: str) -> str:
    """Annotation file by the images folder, or in data/DATASET when none was named."""
    home = os.path.dirname(images.rstrip("/")) if images else os.path.join("data", dataset)
    if images and dataset in _ONE_FOLDER:
        home = images
    paths = _present(dataset, home)
    if not paths:
        raise FileNotFoundError(
            f"no annotations of {dataset} in {home or '.'} ({', '.join(READERS[dataset].FILES)}); "
            "put it there or name it with --annotations"
        )
    return paths[0]


def _home(annotations: str) -> str:
    """Folder that holds ``images``: the annotation file's, or the one above ``annot(ations)``."""
    folder = os.path.dirname(annotations)
    inner = os.path.basename(folder) in ("annot", "annotations", "mpii_human_pose_v1_u12_2")
    return os.path.dirname(folder) if inner else folder


def _synthetic_people() -> str:
    """Draw the people, unless the same ones are there already; return the annotation file."""
    annotations = os.path.join(SYNTHETIC, synthetic.FILES[0])
    marker = os.path.join(SYNTHETIC, "drawn.json")
    wanted = json.dumps({"people": _FLAGS.people, "seed": _FLAGS.seed}).encode()
    if not _FLAGS.overwrite and os.path.exists(annotations) and os.path.exists(marker):
        if read_whole(marker) == wanted:
            print(f"Using the synthetic people in {SYNTHETIC}")
            return annotations
    if os.path.exists(marker):
        os.remove(marker)
    workers = _FLAGS.workers or os.cpu_count()
    annotations = scene.generate(SYNTHETIC, _FLAGS.people, _FLAGS.seed, workers)
    write_atomically(marker, wanted)
    return annotations


def _convert(source: tuple[Annotated, str]) -> tuple[DatasetInfo, bool]:
    annotated, images = source
    for note in annotated.notes:
        print(f"Note: {note}")
    return convert(
        annotated,
        images,
        _FLAGS.records,
        geometry=Geometry(_FLAGS.context, _FLAGS.side),
        shards=_FLAGS.shards,
        workers=_FLAGS.workers,
        seed=_FLAGS.seed,
        quality=_FLAGS.jpeg_quality,
        allow_missing_images=_FLAGS.allow_missing_images,
        upright=_FLAGS.upright,
        overwrite=_FLAGS.overwrite,
    )


def _table(info: DatasetInfo) -> rich.table.Table:
    """People written per split, and people left out by reason."""
    title = rich.text.Text(f"{info.name} in {info.folder}")  # its brackets are no markup
    result = rich.table.Table(title=title, title_justify="left")
    for column in ("", "people", "shards", "MB"):
        result.add_column(column, justify="right" if column else "left")
    for split, part in info.splits.items():
        size = sum(shard["bytes"] for shard in part["shards"]) / 1e6
        result.add_row(split, f"{part['people']:,}", str(len(part["shards"])), f"{size:,.1f}")
    result.add_section()
    for reason, count in (info.left_out or {"none": 0}).items():
        result.add_row(rich.text.Text(f"left out: {reason}"), f"{count:,}", "", "")
    return result


if __name__ == "__main__":
    cli.run(main)
