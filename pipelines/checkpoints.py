"""Training state <-> files, keyed by variable name, and a checkpoint's network.

A run's folder contains ``model.json`` (everything needed to rebuild the network), checkpoints of
the whole state under ``checkpoints/`` and the best one by validation PCKh under ``best/``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os

import tensorflow as tf

from hourglass import heatmap, model
from hourglass.skeleton import Skeleton
from pipelines import checkpoint_files
from pipelines.data.cropping import Geometry
from pipelines.data.preprocessing import MEAN
from pipelines.data.tfrecords import DatasetInfo
from pipelines.io import read_whole, write_atomically

# The network that comes with the project; pretrained/README.md says what it can and cannot do.
PRETRAINED = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "pretrained", "people"
)

NETWORK_FILE = "model.json"
BEST_FILE = "best.json"

# Kind of weights -> part of a checkpoint.
PARTS = {"raw": "model", "averaged": "averaged"}


def by_name(variables) -> dict[str, tf.Variable]:
    """Variables by name: checkpoints do not depend on the order of layers."""
    return {variable.name.split(":")[0].replace("/", "."): variable for variable in variables}


def state(step, network, averaged, optimizer) -> tf.train.Checkpoint:
    """Everything that training changes; ``averaged`` may be None.

    The position in the data needs no entry: it is step * batch.
    """
    parts = {"step": step, "model": _group(network.variables)}
    if optimizer is not None:
        parts["optimizer"] = optimizer
    if averaged is not None:
        parts["averaged"] = _group(averaged.variables)
    return tf.train.Checkpoint(**parts)


def _group(variables) -> tf.train.Checkpoint:
    group = tf.train.Checkpoint()
    group.variables = by_name(variables)
    return group


def write_network(folder: str, arguments: dict, info: DatasetInfo, mean=MEAN) -> None:
    """Write model.json: arguments of ``hourglass.model.build``, joints, data, mean and geometry."""
    parts = {"build": arguments, **info.skeleton.to_parts(), "data": _fingerprint(info)}
    expects = {"mean": mean, "geometry": dataclasses.asdict(info.geometry)}
    coco = info.settings.get("coco")
    category = {"category": {"id": coco["category_id"], "name": coco["category"]}} if coco else {}
    _write_parts(folder, {**parts, "expects": expects, **category})


def _write_parts(folder: str, parts: dict) -> None:
    write_atomically(os.path.join(folder, NETWORK_FILE), json.dumps(parts, indent=1).encode())


def write_run(
    folder: str,
    parts: dict,
    network: tf.keras.Model,
    kept: dict | None = None,
    kind: tf.DType = tf.float32,
) -> None:
    """Create a run's folder with one set of weights and nothing else, whole or not at all.

    Args:
      folder: must not exist, or be empty.
      parts: of model.json.
      network: with the weights.
      kept: further arrays by name, for a later export; ``values(prefix, "kept")`` reads them.
      kind: of number that kernels are stored as. Vectors stay as they are: they take little room,
        and small variances of batch norm lie below float16's range.
    """
    partial = folder.rstrip("/") + ".partial"
    weights = {
        name: tf.Variable(tf.cast(v, kind) if len(v.shape) > 1 else v)
        for name, v in by_name(network.variables).items()
    }
    state = tf.train.Checkpoint(model=tf.train.Checkpoint(), kept=tf.train.Checkpoint())
    state.model.variables = weights
    state.kept.variables = {name: tf.Variable(array) for name, array in (kept or {}).items()}
    try:
        if tf.io.gfile.exists(partial):
            tf.io.gfile.rmtree(partial)
        saved = os.path.join(partial, "checkpoints")
        tf.train.CheckpointManager(state, saved, 1).save(checkpoint_number=0)
        _write_parts(partial, parts)
        if tf.io.gfile.exists(folder):
            tf.io.gfile.rmtree(folder)
        tf.io.gfile.rename(partial, folder)
    except tf.errors.OpError as error:
        if tf.io.gfile.exists(partial):
            tf.io.gfile.rmtree(partial)
        raise OSError(f"cannot write {folder}: {error.message}; choose another path") from error


def _fingerprint(info: DatasetInfo) -> dict:
    sums = [shard["sha256"] for shard in info.splits["train"]["shards"]]
    digest = hashlib.sha256("".join(sums).encode()).hexdigest()
    return {"name": info.name, "people": info.count("train"), "sha256": digest}


def check_data(folder: str, info: DatasetInfo) -> None:
    """Check that a run resumes on the records that it was trained on.

    The position in the data is an index into these. Raises ValueError naming both.
    """
    before, now = read_parts(folder).get("data"), _fingerprint(info)
    if before != now:
        raise ValueError(
            f"{folder} was trained on other records ({before}, as its {NETWORK_FILE} says) than "
            f"{info.folder} ({now}); "
            "resume it with those, or choose another --workdir"
        )


def read_parts(folder: str) -> dict:
    """All that model.json of the run in ``folder`` holds.

    Raises FileNotFoundError without a model.json, ValueError for an invalid one.
    """
    path = os.path.join(folder, NETWORK_FILE)
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(
            f"{folder} contains no trained network ({path} is missing); give the folder of a run, "
            "such as runs/demo, or train one with train_main.py"
        )
    try:
        parts = json.loads(read_whole(path))
        kinds = {"build": dict, "expects": dict, "category": dict}
        wrong = [key for key, kind in kinds.items() if not isinstance(parts.get(key, {}), kind)]
        if wrong or "build" not in parts:
            raise ValueError(f"{', '.join(wrong) or 'build'} should be an object")
        joints, count = parts["build"].get("joints"), len(Skeleton.from_parts(parts))
        if type(joints) is not int or joints != count:  # True is an int, too
            raise ValueError(f"build has {joints!r} joints, joints has {count}")
        return parts
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} does not describe a network: {error!r}; restore it") from error


def read_network(folder: str) -> tuple[dict, Skeleton]:
    """Arguments of ``hourglass.model.build`` and joints of the run in ``folder``.

    Raises FileNotFoundError without a model.json, ValueError for an invalid one.
    """
    parts = read_parts(folder)
    return dict(parts["build"]), Skeleton.from_parts(parts)


def read_expected(folder: str) -> tuple[tuple[float, ...], str]:
    """(RGB mean [3] subtracted from [0, 1] pictures, decoder or "") that the weights expect.

    Raises ValueError for an invalid mean; else as ``read_network``.
    """
    expects = read_parts(folder).get("expects", {})
    mean, decoder = expects.get("mean", MEAN), expects.get("decode", "")
    numbers = isinstance(mean, (list, tuple)) and all(isinstance(v, (int, float)) for v in mean)
    if not numbers or len(mean) != 3 or not all(-1e6 < value < 1e6 for value in mean):
        text = f"{folder}/{NETWORK_FILE}: mean {mean!r:.80} should be 3 numbers; restore it"
        raise ValueError(text)
    if decoder not in ("", *heatmap.DECODERS):
        text = f"{folder}/{NETWORK_FILE}: there is no decoder {decoder!r:.80}; restore it"
        raise ValueError(text)
    return tuple(mean), decoder


def read_geometry(folder: str) -> Geometry:
    """Crop geometry of the weights' training records, to crop other pictures the same way.

    Imported and older runs lack it: then the default context, and the default ratio of crop to
    network input, 362 px to 256.

    Raises ValueError for an invalid geometry; else as ``read_network``.
    """
    parts = read_parts(folder)
    written = parts.get("expects", {}).get("geometry")
    try:
        if written is None:
            return Geometry(side=round(Geometry.side * parts["build"]["size"] / 256))
        return Geometry(float(written["context"]), int(written["side"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{folder}/{NETWORK_FILE}: geometry {written!r} is invalid ({error!r}); restore it"
        ) from error


def read_category(folder: str) -> dict[str, int | str]:
    """COCO's "id" and "name" of what the run in ``folder`` predicts.

    Only COCO's data sets have them; for others, and runs from before they were kept: 1, "person".

    Raises ValueError for an invalid one; else as ``read_network``.
    """
    parts = read_parts(folder)
    data = parts.get("data")
    name = str(data.get("name", "")) if isinstance(data, dict) else ""
    default = name[len("coco ") :] if name.startswith("coco ") else "person"
    category = parts.get("category", {"id": 1, "name": default})
    key, name = category.get("id"), category.get("name")
    if isinstance(key, bool) or not isinstance(key, (int, str)) or not isinstance(name, str):
        raise ValueError(
            f"{folder}/{NETWORK_FILE}: category {category!r:.80} should be an id and a name; "
            "restore it"
        )
    return {"id": key, "name": name}


def split_path(path: str) -> tuple[str, str]:
    """Split the path of a run, its best/ or one checkpoint.

    Args:
      path: such as ``runs/demo``, ``runs/demo/best`` or ``runs/demo/checkpoints/ckpt-300``.

    Returns:
      The run's folder, and the prefix of a checkpoint or "".
    """
    path = path.rstrip("/")
    if os.path.basename(path) == "best":
        path = best(os.path.dirname(path)) or path
    if os.path.basename(path) == "checkpoints":
        path = checkpoint_files.latest(path) or path
    if tf.io.gfile.exists(path + ".index"):
        return os.path.dirname(os.path.dirname(path)), path
    return path, ""


def find(path: str) -> str:
    """Prefix of the checkpoint that a path means: itself, else the best, else the latest.

    Raises FileNotFoundError where there is none, or where best.json names one that is gone.
    """
    folder, prefix = split_path(path)
    prefix = prefix or best(folder) or checkpoint_files.latest(os.path.join(folder, "checkpoints"))
    if prefix:
        return prefix
    raise FileNotFoundError(
        f"no checkpoint in {path}: looked for best/ and checkpoints/ there; "
        "train first, or name another run with --checkpoint"
    )


def best(folder: str) -> str | None:
    """Prefix of a run's best checkpoint, the one that best.json names; None without that note.

    Raises FileNotFoundError where its files are gone; another checkpoint is never taken unasked.
    """
    note = read_best(folder)
    if not note:
        return None
    prefix = os.path.join(folder, "best", f"ckpt-{note['step']}")
    if prefix not in checkpoint_files.complete(os.path.join(folder, "best")):
        raise FileNotFoundError(
            f"{prefix}.* is missing or incomplete, though {BEST_FILE} beside it names it as the "
            f"best; restore it, or name a checkpoint of {folder}/checkpoints"
        )
    return prefix


def read_best(folder: str) -> dict:
    """best.json of a run: "step", "weights" ("model" or "averaged") and "mean14"; {} without it.

    Raises ValueError for a damaged one.
    """
    path = os.path.join(folder, "best", BEST_FILE)
    if not tf.io.gfile.exists(path):
        return {}
    try:
        note = json.loads(read_whole(path))
        kinds = {"step": int, "weights": str, "mean14": (int, float)}
        if all(isinstance(note[key], kind) for key, kind in kinds.items()):
            return note
        raise ValueError("of other types")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}); delete the folder {folder}/best: the next best "
            "validation writes it again"
        ) from error


def values(prefix: str, part: str) -> dict[str, tf.Tensor]:
    """Tensors of "model" or "averaged" in a checkpoint by variable name; {} where it has none.

    Raises ValueError for files that are not a whole checkpoint.
    """
    start, end = f"{part}/variables/", "/.ATTRIBUTES/VARIABLE_VALUE"
    try:
        with checkpoint_files.readable(prefix) as path:
            reader = tf.train.load_checkpoint(path)
            keys = [key for key in reader.get_variable_to_shape_map() if key.startswith(start)]
            names = {key: key[len(start) : -len(end)] for key in keys}
            # The optimizer's slots lie below their variables; TensorFlow doubles dots in a name.
            return {
                n.replace("..", "."): reader.get_tensor(k) for k, n in names.items() if "/" not in n
            }
    except (tf.errors.OpError, OSError, RuntimeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{prefix} cannot be read as a checkpoint ({str(error).splitlines()[0]}); use an "
            "earlier one from the run's checkpoints/ folder"
        ) from error


def restore(whole: tf.train.Checkpoint, prefix: str) -> None:
    """Restore the whole state; file and state must match value for value.

    Raises ValueError for a damaged checkpoint or one of another configuration.
    """
    try:
        with checkpoint_files.readable(prefix) as path:
            status = whole.restore(path)
            status.assert_existing_objects_matched().assert_consumed()
    except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
        raise ValueError(
            f"{prefix} cannot be resumed ({str(error)[:200]}); start another --workdir from it by "
            f"--init_from, or delete its files, {prefix}.*, to resume from the one before"
        ) from error


def save_best(whole: tf.train.Checkpoint, folder: str, step: int, results: dict) -> bool:
    """Save this state under best/ if its validation mean14 PCKh@0.5 is the highest so far.

    Args:
      whole: the state.
      folder: of the run.
      step: of the state.
      results: kind of weights ("raw", "averaged") -> results; may be empty.

    Returns:
      Whether it is the best.
    """
    if not results:
        return False
    means = {kind: part["PCKh@0.5"]["mean14"] for kind, part in results.items()}
    kind = max(means, key=means.get)
    before = read_best(folder)
    if before and before["mean14"] >= means[kind]:
        return False
    best_folder = os.path.join(folder, "best")
    manager = checkpoint_files.manager(whole, best_folder, keep=None)
    prefix = checkpoint_files.save(manager, step)
    part = PARTS[kind]
    text = json.dumps({"step": step, "weights": part, "mean14": means[kind]})
    # From here on it is the best: until now the note names the one before, which is still there.
    write_atomically(os.path.join(best_folder, BEST_FILE), text.encode())
    checkpoint_files.remove_all_but(prefix)
    return True


def remove_all_but_best(folder: str) -> None:
    """Remove from a run's best/ what a killed process left beside the best checkpoint."""
    prefix = os.path.join(folder, "best", f"ckpt-{read_best(folder).get('step')}")
    if prefix in checkpoint_files.complete(os.path.join(folder, "best")):
        checkpoint_files.remove_all_but(prefix)


def load(prefix: str, network: tf.keras.Model, part: str) -> None:
    """Assign a checkpoint's "model" or "averaged" weights to a network of the same shape.

    Raises ValueError naming every variable that is missing, left over or of another shape.
    """
    stored, wanted = values(prefix, part), by_name(network.variables)
    wrong = sorted(set(stored) ^ set(wanted))
    wrong += [n for n in wanted if n in stored and wanted[n].shape != stored[n].shape]
    if wrong:
        raise ValueError(
            f"{prefix} does not fit the network: {len(wrong)} variables differ, such as "
            f"{', '.join(wrong[:4])}; stacks, channels, blocks, stem and joints must be the same"
        )
    for name, variable in wanted.items():
        variable.assign(stored[name])


def of_joints(arguments: dict) -> set[str]:
    """Names of the variables that belong to particular joints: the heads and their consumers.

    These are the layers with another shape in the same network with one more joint.

    Args:
      arguments: of ``hourglass.model.build``.
    """
    one_more = {**arguments, "joints": arguments["joints"] + 1}
    ours, other = (by_name(model.build(**a).variables) for a in (arguments, one_more))
    layers = {name.rpartition(".")[0] for name in ours if ours[name].shape != other[name].shape}
    return {name for name in ours if name.rpartition(".")[0] in layers}


def start_from(prefix: str, network: tf.keras.Model, fresh: set[str]) -> None:
    """Initialise a network with weights of another run, its averaged weights if it has them.

    Args:
      prefix: checkpoint of the other run.
      network: to assign them to.
      fresh: names of variables to leave unchanged: for another joint set those ``of_joints``,
        because the head of another joint with the same index would be silently wrong.

    Raises ValueError if any other variable differs: the trunks are then not the same.
    """
    stored = values(prefix, "averaged") or values(prefix, "model")
    wanted = by_name(network.variables)
    trunk = {name: v for name, v in wanted.items() if name not in fresh}
    wrong = [n for n, v in trunk.items() if n not in stored or stored[n].shape != v.shape]
    if wrong:
        raise ValueError(
            f"--init_from {prefix} is another network: {', '.join(wrong[:4])} "
            "are absent or of another shape; stacks, blocks, channels and stem must be the same"
        )
    for name, variable in trunk.items():
        variable.assign(stored[name])


def kind_of(part: str) -> str:
    """The kind of weights, "raw" or "averaged", in a part of a checkpoint."""
    return next(kind for kind, its_part in PARTS.items() if its_part == part)


def part_of(prefix: str, weights: str) -> str:
    """Part of a checkpoint, "model" or "averaged", for the weights "best", "averaged" or "raw".

    "best" is the better in validation (best.json next to the best checkpoint), else the average.

    Raises ValueError for averaged weights of a run without them.
    """
    if weights == "raw":
        return "model"
    folder, name = os.path.split(prefix)
    note = read_best(os.path.dirname(folder)) if os.path.basename(folder) == "best" else {}
    if weights == "best" and name == f"ckpt-{note.get('step')}":
        return note["weights"]
    if values(prefix, "averaged"):
        return "averaged"
    if weights == "averaged":
        raise ValueError(
            f"{prefix} contains no averaged weights (--ema_decay was 0); use --weights=raw"
        )
    return "model"


def load_network(path: str, precision: str = "float32", weights: str = "best"):
    """Network of a run, its best/ or a checkpoint, with its weights.

    Returns:
      Keras model, its Skeleton, the checkpoint's prefix, and "model" or "averaged".

    Raises:
      FileNotFoundError, ValueError: there is none, or it is damaged.
    """
    folder, _ = split_path(path)
    arguments, skeleton = read_network(folder)
    try:
        network = model.build(**{**arguments, "sync_bn": False, "precision": precision})
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise ValueError(f"{folder}/{NETWORK_FILE}: {error}; restore it") from error
    prefix = find(path)
    part = part_of(prefix, weights)
    load(prefix, network, part)
    return network, skeleton, prefix, part


def load_for(info, path: str, precision: str = "float32", weights: str = "best"):
    """Network, prefix and part as ``load_network``; its joints must be those of the records.

    Raises:
      FileNotFoundError, ValueError: as ``load_network``, and for other joints.
    """
    folder, _ = split_path(path)
    _, skeleton = read_network(folder)
    if skeleton != info.skeleton:
        raise ValueError(
            f"the network in {folder} has {len(skeleton)} joints {skeleton.joints}, the records "
            f"in {info.folder} have {len(info.skeleton)}: {info.skeleton.joints}; name records of "
            "the same joints"
        )
    network, _, prefix, part = load_network(path, precision, weights)
    return network, prefix, part
