"""Every kind of file that the product reads, undamaged, and the commands that read them.

A world is a folder of such files; commands run in a copy of it, with relative paths.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import pathlib
import typing

import cv2
import h5py
import numpy as np
import scipy.io

from hourglass.skeleton import MPII
from pipelines import checkpoint_files, checkpoints
from pipelines.config import to_flagfile
from pipelines.data import input_pipeline, tfrecords
from pipelines.data.annotations import LABELLED
from pipelines.evaluation import evaluate, prediction_files
from tests.fire import killed
from tests.helpers.people import draw_person, tiny, write_records
from tests.helpers.prediction_files import write_truth
from tests.helpers.processes import ROOT
from tests.helpers.release_mat import annorect_of, write_mat
from tests.helpers.toys import TOY_PAIRS, draw_toys
from tests.helpers.truth_files import joints_of, tompson

CHECKSUM, JSON, LOOSE = "checksum", "JSON", "loose"


class Command(typing.NamedTuple):
    """Words after ``python``, and a function without arguments of what the command left behind."""

    words: tuple[str, ...]
    outcome: typing.Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A file that is damaged.

    Attributes:
      kind: its row in the table of results.
      world: of ``WORLDS``.
      path: in the world; a pattern where the name is not known.
      command: of ``COMMANDS``.
      noticed: CHECKSUM: any damage that changes the outcome must be announced; JSON: any but other
        values; LOOSE: only damages that leave no file of the kind.
      names: words one of which an answer may have instead of the file's name.
      without: damages that are not tried.
    """

    kind: str
    world: str
    path: str
    command: str
    noticed: str = LOOSE
    names: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


# ---- worlds


def people(count: int) -> list[tuple]:
    """Return (photograph, centre, scale, joints with flags) of people, 1-based px as MPII's."""
    drawn = [draw_person(k, "p", k, MPII)[1] for k in range(count)]
    return [
        (
            who.image,
            np.rint(who.center + 1).tolist(),
            who.side / 250,
            np.column_stack([np.rint(who.joints + 1), who.state == LABELLED]).tolist(),
        )
        for who in drawn
    ]


def bearpaw(image: str, center: list, scale: float, joints: list) -> dict:
    return {
        "img_paths": image,
        "people_index": 1.0,
        "isValidation": float(image == "p4.jpg"),
        "objpos": center,
        "scale_provided": scale,
        "joint_self": joints,
        "head_box": [20, 20, 60, 60],
    }


def hrnet(image: str, center: list, scale: float, joints: list) -> dict:
    return {
        "image": image,
        "center": center,
        "scale": scale,
        "joints": [joint[:2] for joint in joints],
        "joints_vis": [joint[2] for joint in joints],
    }


def _photographs(folder: str, count: int) -> None:
    pathlib.Path(folder).mkdir()
    for k in range(count):
        cv2.imwrite(f"{folder}/p{k}.jpg", draw_person(k, "p", k, MPII)[0][..., ::-1])


def _run() -> None:
    """A training that was killed as its last validation began, with its records."""
    info, _ = write_records(pathlib.Path("records"), {"train": 24, "validation": 10})
    config = tiny(pathlib.Path("run"), info, deterministic=True)
    pathlib.Path("my.flags").write_text(to_flagfile(config))
    where = "pipelines.training.validator:Validator._validate"
    killed.main(where, "2", "before", str(ROOT / "train_main.py"), "--flagfile=my.flags")


def _media() -> None:
    """Pictures, a video, and their people's boxes in each format."""
    pathlib.Path("pictures").mkdir()
    names = [f"p{k}.{kind}" for k, kind in enumerate(("jpg", "png", "webp", "tif"))]
    boxes = {name: [[60, 50, 80, 120]] for name in names}
    for k, name in enumerate(names):
        cv2.imwrite(f"pictures/{name}", draw_person(k, "p", k, MPII)[0][..., ::-1])
    film = cv2.VideoWriter("walk.avi", cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (200, 220))
    for k in range(6):
        film.write(draw_person(k, "p", k, MPII)[0])
    film.release()
    _write_json("boxes.json", boxes)
    rows = [f"{name},{','.join(map(str, box))}" for name in names for box in boxes[name]]
    pathlib.Path("boxes.csv").write_text("\n".join(rows) + "\n")
    images = [
        {"id": k + 1, "file_name": n, "width": 200, "height": 220} for k, n in enumerate(names)
    ]
    found = [
        {"image_id": k + 1, "category_id": 1, "bbox": boxes[n][0], "score": 0.9}
        for k, n in enumerate(names)
    ]
    _write_json("detections.json", found)
    _write_json("people.json", {"images": images, "annotations": [], "categories": []})


def _scores() -> None:
    """Predictions of the records' people in each format, and two truths."""
    info = tfrecords.read_info("records")
    moved = np.random.default_rng(0).normal(0, 0.3, (10, 16))
    own = prediction_files.read(write_truth("predictions.json", info, moved))
    prediction_files.write_mat("predictions.mat", own)
    prediction_files.write_h5("predictions.h5", own)
    joints = joints_of(10)
    tompson("truth.mat", joints)
    np.save("preds.npy", joints + 3)


def _weights() -> None:
    """The run's weights as a PyTorch file."""
    from pipelines.export.pytorch import files

    files.export_run("run", "princeton", "net.pth")


def _coco() -> None:
    draw_toys(pathlib.Path("."), 5)


def _mpii() -> None:
    """The four formats of MPII's annotations."""
    found = people(5)
    _photographs("images", 5)
    _write_json("bearpaw.json", [bearpaw(*one) for one in found])
    _write_json("hrnet_train.json", [hrnet(*one) for one in found])
    write_mat("release.mat", [(one[0], 1, annorect_of({1: one[1:]})) for one in found])
    joints = np.array([one[3] for one in found])
    with h5py.File("newell_train.h5", "w") as file:
        file["imgname"] = np.array([one[0].encode() for one in found])
        file["person"] = np.zeros(5)
        file["center"] = np.array([one[1] for one in found])
        file["scale"] = np.array([1.25 * one[2] for one in found])
        file["part"], file["visible"] = joints[..., :2], joints[..., 2]
        file["normalize"] = np.full(5, 33.0)


def _lsp() -> None:
    """1,004 people, of whom five have a photograph."""
    _photographs("images", 5)
    names = [f"im{number:04d}.jpg" for number in (1, 2, 3, 4, 1004)]
    for k, name in enumerate(names):
        pathlib.Path(f"images/p{k}.jpg").rename(f"images/{name}")
    joints = np.random.default_rng(0).uniform(40, 180, (3, 14, 1004))
    joints[2] = joints[2] > 160
    scipy.io.savemat("joints.mat", {"joints": joints}, do_compression=True)


def _write_json(path: str, document: object) -> None:
    pathlib.Path(path).write_text(json.dumps(document))


TORCH = importlib.util.find_spec("torch") is not None

# World -> its parts, each made by a process of its own.
WORLDS = {
    "run": (_run, _media, _scores, *((_weights,) if TORCH else ())),
    "coco": (_coco,),
    "mpii": (_mpii,),
    "lsp": (_lsp,),
}


# ---- outcomes


def _digest(values: dict) -> str:
    digest = hashlib.sha256()
    for name in sorted(values):
        digest.update(name.encode() + np.asarray(values[name]).tobytes())
    return digest.hexdigest()


def _trained() -> dict:
    last, best = checkpoint_files.latest("run/checkpoints"), checkpoints.find("run/best")
    parts = {
        part: _digest(checkpoints.values(prefix, part))
        for prefix in (last, best)
        for part in ("model", "averaged")
    }
    return {**parts, "last": last, "best": best, "note": checkpoints.read_best("run")}


def _scored() -> dict:
    results = _read_json("scored/results.json")
    files = [path.name for path in pathlib.Path("scored").iterdir()]
    return {"files": sorted(files), "PCKh": results["PCKh@0.5"], "people": results["people"]}


def _evaluated() -> dict:
    return {**_scored(), "predictions": _read_json("scored/predictions.json")}


def _predicted() -> dict:
    drawn = [str(path) for path in pathlib.Path("predicted").rglob("*.*")]
    files = {name: _read_json(f"predicted/{name}.json") for name in ("predictions", "images")}
    return {"drawn": sorted(drawn), **files}


def _plotted() -> str:
    return _hash("curves.png")


def _converted() -> dict:
    left_out = pathlib.Path("out/left_out.json")
    info = tfrecords.read_info("out")
    for split in info.splits:
        if info.splits[split]["people"]:
            tfrecords.check_shards(info, split)
            labels = input_pipeline.labels(info, split)
            points = evaluate.to_image(labels, labels["joints"])
            assert np.isfinite(points).all() and np.isfinite(labels["side"]).all()
    parts = json.loads(info.to_json())
    return {**parts, "ids": _read_json(str(left_out)) if left_out.exists() else {}}


def _imported() -> str:
    return _digest(checkpoints.values("imported/checkpoints/ckpt-0", "model"))


def _hash(path: str) -> str:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def _read_json(path: str) -> object:
    return json.loads(pathlib.Path(path).read_text())


# ---- commands


def _convert(dataset: str, annotations: str, *more: str) -> Command:
    words = (f"--dataset={dataset}", f"--annotations={annotations}", "--images=images", *more)
    records = ("--records=out", "--side=32", "--workers=1")
    return Command(("scripts/make_tfrecords.py", *words, *records), _converted)


def _predict(*words: str) -> Command:
    start = ("scripts/predict.py", "--checkpoint=run", "--output=predicted")
    return Command((*start, *words), _predicted)


def _score(predictions: str, truth: str) -> Command:
    words = (f"--predictions={predictions}", f"--ground_truth={truth}", "--output=scored")
    return Command(("eval_main.py", *words), _scored)


COMMANDS = {
    "train": Command(("train_main.py", "--flagfile=my.flags"), _trained),
    "evaluate": Command(
        ("eval_main.py", "--flagfile=my.flags", "--checkpoint=run", "--workdir=scored"), _evaluated
    ),
    "predict": _predict("--boxes=boxes.json", "pictures"),
    "predict csv": _predict("--boxes=boxes.csv", "pictures"),
    "predict coco": _predict("--boxes=detections.json", "--annotations=people.json", "pictures"),
    "predict video": _predict("walk.avi"),
    "score json": _score("predictions.json", "records"),
    "score mat": _score("predictions.mat", "records"),
    "score h5": _score("predictions.h5", "records"),
    "score foreign": _score("preds.npy", "truth.mat"),
    "plot": Command(("scripts/plot_runs.py", "run", "--output=curves.png"), _plotted),
    "import": Command(
        ("scripts/import_torch.py", "--input=net.pth", "--output=imported", "--size=32"), _imported
    ),
    "coco": _convert("coco", "annotations.json", "--head=box:0.1", f"--mirror_pairs={TOY_PAIRS}"),
    "bearpaw": _convert("mpii", "bearpaw.json"),
    "hrnet": _convert("mpii", "hrnet_train.json"),
    "mat": _convert("mpii", "release.mat"),
    "newell": _convert("mpii", "newell_train.h5"),
    "lsp": _convert("lsp", "joints.mat", "--allow_missing_images"),
}

_CKPT = ("ckpt-12",)
_BEST = ("ckpt-6", "run/best")
_PICTURES = ("p0.jpg", "p1.png", "p2.webp", "p3.tif")
# A folder of pictures is listed: one that is gone is not missed. --flagfile=<(...) is a pipe, and
# an empty flagfile a valid one.
_LISTED, _PIPE = ("deleted",), ("fifo", "emptied")

SUBJECTS = (
    Subject("flagfile", "run", "my.flags", "train", names=("--",), without=_PIPE),
    Subject("flags.txt", "run", "run/flags.txt", "train"),
    Subject("model.json", "run", "run/model.json", "train", JSON),
    Subject("model.json", "run", "run/model.json", "predict", JSON),
    Subject("validated.json", "run", "run/validated.json", "train", JSON),
    Subject("training.lock", "run", "run/training.lock", "train", JSON),
    Subject("list of checkpoints", "run", "run/checkpoints/checkpoint", "train"),
    Subject("checkpoint", "run", "run/checkpoints/ckpt-12.index", "train", CHECKSUM, _CKPT),
    Subject("checkpoint", "run", "run/checkpoints/ckpt-12.data-*", "train", CHECKSUM, _CKPT),
    Subject("best", "run", "run/best/best.json", "evaluate", JSON, _BEST),
    Subject("best", "run", "run/best/best.json", "train", JSON, _BEST),
    Subject("best", "run", "run/best/checkpoint", "train", LOOSE, _BEST),
    Subject("best", "run", "run/best/ckpt-6.index", "evaluate", CHECKSUM, _BEST),
    Subject("best", "run", "run/best/ckpt-6.data-*", "predict", CHECKSUM, _BEST),
    Subject("event file", "run", "run/logs/events.*", "plot", CHECKSUM, ("run/logs",)),
    Subject("dataset.json", "run", "records/dataset.json", "train", JSON),
    Subject("dataset.json", "run", "records/dataset.json", "evaluate", JSON),
    Subject("shard", "run", "records/train-00001-of-*", "train", CHECKSUM),
    Subject("shard", "run", "records/validation-00001-of-*", "evaluate", CHECKSUM),
    Subject("COCO annotations", "coco", "annotations.json", "coco", JSON),
    Subject("MPII annotations", "mpii", "bearpaw.json", "bearpaw", JSON),
    Subject("MPII annotations", "mpii", "hrnet_train.json", "hrnet", JSON),
    Subject("MPII annotations", "mpii", "release.mat", "mat"),
    Subject("MPII annotations", "mpii", "newell_train.h5", "newell"),
    Subject("LSP annotations", "lsp", "joints.mat", "lsp"),
    Subject("photograph", "coco", "images/1.jpg", "coco"),
    Subject("boxes", "run", "boxes.json", "predict", JSON, _PICTURES),
    Subject("boxes", "run", "boxes.csv", "predict csv", LOOSE, _PICTURES),
    Subject("boxes", "run", "detections.json", "predict coco", JSON, _PICTURES),
    Subject("boxes", "run", "people.json", "predict coco", JSON, _PICTURES),
    *(Subject("picture", "run", f"pictures/{p}", "predict", without=_LISTED) for p in _PICTURES),
    Subject("video", "run", "walk.avi", "predict video"),
    Subject("predictions", "run", "predictions.json", "score json", JSON),
    Subject("predictions", "run", "predictions.mat", "score mat"),
    Subject("predictions", "run", "predictions.h5", "score h5"),
    Subject("predictions", "run", "preds.npy", "score foreign"),
    Subject("truth", "run", "truth.mat", "score foreign"),
    Subject("PyTorch weights", "run", "net.pth", "import", CHECKSUM),
)
