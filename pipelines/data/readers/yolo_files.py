"""Where the pictures and labels of a YOLO data set lie: always inside its folder."""

from __future__ import annotations

import os
import posixpath

import tensorflow as tf

from pipelines.data import locate
from pipelines.data.readers import files
from pipelines.data.readers.yolo_yaml import DataFile

_SUFFIXES = (".bmp", ".dng", ".heic", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")
_LIST_LIMIT = 1 << 28
_LABEL_LIMIT = 1 << 22


def pictures(
    file: DataFile, entries: tuple[str, ...], root: str
) -> tuple[list[str], tuple[str, ...]]:
    """Return the pictures of folders and lists, relative to ``root``, sorted, each once; and notes.

    Nothing outside ``root`` is looked at: a path that leads out of it, as Roboflow's
    ``../train/images``, is looked for inside. Pictures of a list may not exist.

    Raises FileNotFoundError for a folder or list that is not there; ValueError for one that holds
    no picture.
    """
    names, notes = set(), ()
    for entry in entries:
        path = _resolve(file, entry, root)
        if path.lower().endswith(".txt"):
            listed = _listed(path, root)
            notes += locate.notes(listed)
        else:
            listed = {name: name for name in _in_folder(path, root)}
        if not listed:
            raise ValueError(f"{file.path}: there is no picture in {entry!r} ({path})")
        names.update(listed.values())
    return sorted(names), notes


def _resolve(file: DataFile, entry: str, root: str) -> str:
    """Path relative to ``root`` of a folder or list that data.yaml names."""
    joined = posixpath.join(file.root.replace("\\", "/"), entry.replace("\\", "/"))
    tried = [
        *locate.candidates(joined, root, file.path),
        *locate.candidates(entry, root, file.path),
    ]
    # /content/set/train/images of the machine that exported it: at least train/images must be left.
    parts = locate.stripped(entry).split("/")
    tried += ["/".join(parts[k:]) for k in range(1, len(parts) - 1)]
    for path in tried:
        if tf.io.gfile.exists(os.path.join(root, path)):
            return posixpath.normpath(path)
    raise FileNotFoundError(
        f"{file.path} names {entry!r}, which is not in {root}; only that folder is searched: put it"
        " there, correct the path, or name the data set's folder with --images"
    )


def _listed(path: str, root: str) -> dict[str, str]:
    """Picture as a list names it, without ./ -> its path relative to ``root``."""
    text = files.read_bytes(os.path.join(root, path), _LIST_LIMIT).decode("utf-8-sig")
    names = [line.strip().removeprefix("./") for line in text.splitlines() if line.strip()]
    if any("\0" in name for name in names):
        raise ValueError(f"{path} is not a list of pictures")
    located = locate.locate(root, os.path.join(root, path), names)
    return {name: posixpath.normpath(found) for name, found in located.items()}


def _in_folder(path: str, root: str) -> list[str]:
    names = []
    for folder, _, entries in tf.io.gfile.walk(os.path.join(root, path)):
        inner = locate.within(folder, root)
        found = [name for name in entries if name.lower().endswith(_SUFFIXES)]
        names += [posixpath.join(inner, name) for name in found]
    return names


def label_of(image: str) -> str:
    """Path of a picture's labels: .txt, and ``labels`` for the last folder called ``images``."""
    head, mark, tail = f"/{image}".rpartition("/images/")
    path = f"{head}/labels/{tail}" if mark else f"/{image}"
    return posixpath.splitext(path)[0].lstrip("/") + ".txt"


def labels_without_picture(images: list[str], root: str) -> list[str]:
    """Label files, relative to ``root``, in the pictures' labels folders that belong to none."""
    alone = []
    for folder in sorted({posixpath.dirname(image) for image in images}):
        labels = posixpath.dirname(label_of(posixpath.join(folder, "x.jpg")))
        if labels != folder and tf.io.gfile.isdir(os.path.join(root, labels)):
            entries = tf.io.gfile.listdir(os.path.join(root, folder))
            stems = {posixpath.splitext(name)[0] for name in entries}
            texts = tf.io.gfile.listdir(os.path.join(root, labels))
            texts = [name for name in sorted(texts) if name.endswith(".txt")]
            alone += [f"{labels}/{name}" for name in texts if name[: -len(".txt")] not in stems]
    return alone


def rows(path: str) -> list[str]:
    """Lines of a label file; ValueError with a reason when it is too large or not text."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            data = file.read(_LABEL_LIMIT + 1)
    except tf.errors.OpError as error:
        raise ValueError(f"not readable ({error.message})") from error
    if len(data) > _LABEL_LIMIT:
        raise ValueError(f"more than {_LABEL_LIMIT} bytes")
    return data.decode("utf-8-sig").splitlines()
