"""Pictures as annotation files name them -> paths in the images folder."""

from __future__ import annotations

import collections
import os
import pathlib
import posixpath
from collections.abc import Iterable

import tensorflow as tf


def present(images: str, names: Iterable[str]) -> set[str]:
    """Return those names, relative to ``images``, that exist."""
    names, entries = set(names), set()
    for folder in {os.path.dirname(name) for name in names}:  # one listing, not 25,204 look-ups
        if tf.io.gfile.isdir(os.path.join(images, folder)):
            listed = tf.io.gfile.listdir(os.path.join(images, folder))
            entries.update(os.path.join(folder, entry) for entry in listed)
    return names & entries


def is_inside(name: str) -> bool:
    """Whether a name, with either slash, stays inside the folder that it is relative to."""
    windows = pathlib.PureWindowsPath(name)
    return not (windows.drive or windows.root or ".." in windows.parts)


def locate(images: str, annotations: str, names: Iterable[str]) -> dict[str, str]:
    """Map the names of an annotation file to paths in the images folder.

    The first that exists is taken: the name as it is; with slashes for backslashes and without a
    leading drive, / or ..; that, seen from the annotation file's folder or the one above; the only
    file of that base name, if no other picture has it. Names without any keep the second form.

    Args:
      images: the folder; nothing outside it is ever looked at.
      annotations: path of the annotation file.
      names: as it has them.

    Raises ValueError when two names lead to one file.
    """
    names = sorted(set(names))
    choices = {name: candidates(name, images, annotations) for name in names}
    there = present(images, {path for paths in choices.values() for path in paths})
    located = {}
    for name, paths in choices.items():
        found = [path for path in paths if path in there]
        if found:
            located[name] = found[0]
    rest = [name for name in names if name not in located]
    if rest and tf.io.gfile.isdir(images):
        located.update(_by_base_name(images, rest, set(located.values())))
    _check_apart(located)
    return {name: located.get(name, stripped(name)) for name in names}


def notes(paths: dict[str, str]) -> tuple[str, ...]:
    """Return a sentence on the pictures that lie elsewhere than their names say, if there are any.

    ``paths``: as ``locate`` returns them.
    """
    moved = [f"{name} -> {found}" for name, found in paths.items() if name != found]
    if not moved:
        return ()
    examples = ", ".join(moved[:3]) + (", ..." if len(moved) > 3 else "")
    return (f"{len(moved):,} of {len(paths):,} pictures have other names: {examples}",)


def candidates(name: str, images: str, annotations: str) -> list[str]:
    """Paths in the images folder that a name may mean, by ``locate``'s rules but the last."""
    relative = stripped(name)
    folder = os.path.dirname(annotations) or "."
    homes = [folder, os.path.join(folder, "..")]
    seen = [within(os.path.join(home, relative), images) for home in homes]
    as_is = [name] if is_inside(name) else []
    return [path for path in (*as_is, relative, *seen) if path]


def stripped(name: str) -> str:
    """Return a name with slashes for backslashes and without a leading drive, / or .."""
    parts = posixpath.normpath(name.replace("\\", "/")).split("/")
    if parts[0].endswith(":"):
        parts = parts[1:]
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "unnamed"


def within(path: str, images: str) -> str:
    """Return ``path`` relative to ``images``; "" when it isn't inside."""
    scheme, path = _split(path)
    root_scheme, root = _split(images)
    inside = scheme == root_scheme and path.startswith(root.rstrip("/") + "/")
    return path[len(root.rstrip("/")) + 1 :] if inside else ""


def _split(path: str) -> tuple[str, str]:
    """Return the scheme ("" for a local path) and the rest without . and .. parts."""
    scheme, mark, rest = path.rpartition("://")
    return scheme, posixpath.normpath(rest) if mark else os.path.abspath(rest)


def _by_base_name(images: str, names: list[str], taken: set[str]) -> dict[str, str]:
    wanted = collections.Counter(map(_base, names))
    paths = collections.defaultdict(list)
    for folder, _, files in tf.io.gfile.walk(images):
        for file in set(files) & set(wanted):
            paths[file].append(os.path.relpath(os.path.join(folder, file), images))
    return {
        name: paths[_base(name)][0]
        for name in names
        if wanted[_base(name)] == 1
        and len(paths[_base(name)]) == 1
        and paths[_base(name)][0] not in taken
    }


def _base(name: str) -> str:
    return os.path.basename(stripped(name))


def _check_apart(located: dict[str, str]) -> None:
    first = {}
    for name, path in located.items():
        path = posixpath.normpath(path)
        if path in first:
            raise ValueError(
                f"the pictures {first[path]!r} and {name!r} both lead to {path}; give each picture "
                "one name of its own, relative to the images folder"
            )
        first[path] = name
