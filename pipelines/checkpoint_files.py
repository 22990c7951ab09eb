"""Which checkpoints a folder holds, which of them are whole, and how one is opened.

The files decide, not the list that TensorFlow writes beside them: it can be lost, or name what was
never finished. A checkpoint is ckpt-STEP.index and its ckpt-STEP.data-K-of-N.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import tensorflow as tf

from pipelines.io import check_regular, temporary_folder

_FILE = re.compile(r"(ckpt-(\d+))\.(index|data-\d{5}-of-(\d{5}))")
_LEFTOVER = re.compile(r"(ckpt-\d+_temp|checkpoint\.tmp.*|.*\.partial)/?")


def complete(folder: str) -> list[str]:
    """Prefixes of the checkpoints in ``folder`` all of whose files are there, rising in steps."""
    files: dict[tuple[int, str], list] = {}
    for name in tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []:
        match = _FILE.fullmatch(name)
        if match:
            files.setdefault((int(match[2]), match[1]), []).append(match)
    return [
        os.path.join(folder, name)
        for (_, name), matches in sorted(files.items())
        if _is_complete(matches)
    ]


def _is_complete(matches: list[re.Match]) -> bool:
    shards = {int(match[4]) for match in matches if match[4]}
    indexed = any(match[3] == "index" for match in matches)
    return indexed and len(shards) == 1 and len(matches) == 1 + shards.pop()


def latest(folder: str) -> str | None:
    """Prefix of the complete checkpoint of the highest step; None without any."""
    return (complete(folder) or [None])[-1]


def manager(
    checkpoint: tf.train.Checkpoint, folder: str, keep: int | None
) -> tf.train.CheckpointManager:
    """What saves into ``folder`` and keeps the newest ``keep`` checkpoints; None for all.

    Raises OSError where TensorFlow's list there is a fifo or a folder: it would be waited for.
    """
    listed = os.path.join(folder, "checkpoint")
    if tf.io.gfile.exists(listed):
        check_regular(listed)
    return tf.train.CheckpointManager(checkpoint, folder, keep)


def save(manager: tf.train.CheckpointManager, step: int) -> str:
    """Save ckpt-STEP and return its prefix; OSError, with the reason, where that is impossible."""
    try:
        return manager.save(checkpoint_number=step)
    except tf.errors.OpError as error:
        reason = str(error.message).splitlines()[0].rpartition("}} ")[2]
        raise OSError(
            f"cannot save step {step} in {manager.directory}: {reason}; make space or choose "
            "another folder. What was saved before is whole: the same command resumes from it"
        ) from error


def damage(prefix: str) -> str:
    """What is wrong with a checkpoint, or "": every tensor is read, which checks its checksum."""
    try:
        with readable(prefix) as path:
            reader = tf.train.load_checkpoint(path)
            for key in reader.get_variable_to_shape_map():
                reader.get_tensor(key)
    except (tf.errors.OpError, OSError, RuntimeError, ValueError, IndexError) as error:
        return str(error).splitlines()[0]
    return ""


def newest_whole(folder: str, set_aside: bool = True) -> str | None:
    """Prefix of the newest checkpoint that is whole; None where the folder has none at all.

    Newer ones that are damaged are named, and renamed to damaged-ckpt-STEP.* unless another process
    does that (``set_aside`` False).

    Raises ValueError where all are damaged: a run must not begin again at step 0 unasked.
    """
    damaged: dict[str, str] = {}
    for prefix in reversed(complete(folder)):
        reason = damage(prefix)
        if not reason:
            for broken in damaged if set_aside else ():
                _set_aside(broken, damaged[broken])
            return prefix
        damaged[prefix] = reason
    if damaged:
        raise ValueError(
            f"no checkpoint in {folder} can be read ({next(iter(damaged.values()))}); restore one "
            f"of {', '.join(map(os.path.basename, damaged))}, or choose another --workdir"
        )
    return None


def _set_aside(prefix: str, reason: str) -> None:
    folder, step = os.path.split(prefix)
    print(f"{prefix} is damaged ({reason}); set aside as damaged-{step}.*")
    for name in tf.io.gfile.listdir(folder):
        if name.startswith(step + "."):
            source, target = (os.path.join(folder, start + name) for start in ("", "damaged-"))
            tf.io.gfile.rename(source, target, overwrite=True)


def remove_all_but(kept: str) -> None:
    """Remove every other checkpoint of ``kept``'s folder, and what a killed process left there."""
    folder, step = os.path.split(kept)
    for name in tf.io.gfile.listdir(folder):
        match = _FILE.fullmatch(name)
        if match and match[1] != step:
            tf.io.gfile.remove(os.path.join(folder, name))
    remove_leftovers(folder)


def remove_old(folder: str, keep: int) -> None:
    """Remove what is older than the newest checkpoint, but for ``keep`` complete ones.

    A process that is killed while it removes a checkpoint leaves a part of it, or all of it.
    """
    kept = [os.path.basename(prefix) for prefix in complete(folder)[-keep:]]
    for name in tf.io.gfile.listdir(folder) if kept else []:
        match = _FILE.fullmatch(name)
        if match and match[1] not in kept and int(match[2]) < int(kept[-1].rpartition("-")[2]):
            tf.io.gfile.remove(os.path.join(folder, name))


def remove_leftovers(folder: str) -> None:
    """Remove unfinished files of ``folder``; only for the one process that writes there."""
    for name in tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []:
        path = os.path.join(folder, name.rstrip("/"))
        if _LEFTOVER.fullmatch(name):
            (tf.io.gfile.rmtree if tf.io.gfile.isdir(path) else tf.io.gfile.remove)(path)


@contextlib.contextmanager
def readable(prefix: str) -> Iterator[str]:
    """Yield ``prefix`` under a name that TensorFlow can open.

    It takes a checkpoint's path for a pattern, in which brackets and backslashes mean something
    else.

    Raises OSError where one of its files is a fifo or a folder.
    """
    for name in tf.io.gfile.listdir(os.path.dirname(prefix) or "."):
        if name.startswith(os.path.basename(prefix) + "."):
            check_regular(os.path.join(os.path.dirname(prefix), name))
    if not re.search(r"[\[\]*?{}\\]", prefix) or "://" in prefix:
        yield prefix
        return
    folder, name = os.path.split(os.path.abspath(prefix))
    with temporary_folder() as temporary:
        link = os.path.join(temporary, "folder")
        os.symlink(folder, link)
        yield os.path.join(link, name)
