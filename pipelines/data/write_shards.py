"""Crops of photographs -> shards under partial names, on every core."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import signal
import threading
import typing

import cv2
import numpy as np
import tensorflow as tf
import tqdm

from pipelines.data import image_io
from pipelines.data.annotations import Person
from pipelines.data.cropping import Geometry, crop
from pipelines.data.tfrecords import encode, sha256

PARTIAL = ".partial"

_ROOT = str(pathlib.Path(__file__).resolve().parents[2])


class Task(typing.NamedTuple):
    """One shard to write.

    Attributes:
      path: its path, but for the checksum that goes into its name when it is written.
      people: in order.
      images: folder of the photographs.
      decided: photograph -> whether to turn it by its EXIF orientation, where its size tells.
      upright: whether to turn the others.
    """

    path: str
    people: list[Person]
    images: str
    decided: dict[str, bool]
    upright: bool


class Written(typing.NamedTuple):
    """A shard's entry for dataset.json, reason -> ids, and EXIF orientations ignored undecided."""

    entry: dict
    left_out: dict[str, list[str]]
    not_turned: set[str]


def tasks_of(
    plan: dict[str, list[Person]],
    images: str,
    records: str,
    decided: dict[str, bool],
    upright: bool,
) -> list[Task]:
    """Return the tasks of a plan, shard file name -> people; see ``Task``."""
    tasks = []
    for name, people in plan.items():
        own = {one.image: decided[one.image] for one in people if one.image in decided}
        tasks.append(Task(os.path.join(records, name), people, images, own, upright))
    return tasks


def write(shards: list[Task], geometry: Geometry, quality: int, workers: int) -> list[Written]:
    """Write every shard under the partial name of its entry."""
    pool, done, stop = _start_pool(min(workers or os.cpu_count(), len(shards)))
    try:
        tasks = [pool.submit(_write_shard, shard, geometry, quality) for shard in shards]
        _show_progress(tasks, done, sum(len(shard.people) for shard in shards))
        return [task.result() for task in tasks]
    except concurrent.futures.process.BrokenProcessPool as error:
        raise ChildProcessError(
            "a worker process died, most likely for want of memory; use fewer --workers"
        ) from error
    except tf.errors.OpError as error:
        folder = os.path.dirname(shards[0].path)
        raise OSError(f"cannot write to {folder}: {error.message}") from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _start_pool(workers: int) -> tuple:
    """Return the pool, its shared count of people written, and the event that stops it."""
    # A fork server imports TensorFlow once for all workers; to fork this process would copy its
    # threads' locks. OpenCV reads its limit on import, that is in the fork server.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(image_io.MAX_PIXELS))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hourglass", "tensorflow", "cv2"])
    done, stop = context.Value("q", 0), context.Event()
    _start_fork_server()
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(done, stop)
    )
    return pool, done, stop


def _start_fork_server() -> None:
    # With SIGINT blocked, as in its workers from birth: Ctrl-C is the parent's, which sets stop.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _project_on_path():
            multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _project_on_path():
    """For a fork server, which finds hourglass only so: with it TensorFlow starts quietly."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_ROOT, before]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _show_progress(tasks: list, done, total: int) -> None:
    with tqdm.tqdm(total=total, unit=" people", smoothing=0.05) as bar:
        waiting = set(tasks)
        while waiting:
            finished, waiting = concurrent.futures.wait(waiting, timeout=0.2)
            bar.update(done.value - bar.n)
            for task in finished:
                task.result()  # the first failure ends the run


def _start_worker(done, stop) -> None:
    global _done, _stop
    _done, _stop = done, stop
    cv2.setNumThreads(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    # Workers of a killed parent would otherwise wait for tasks for ever.
    multiprocessing.parent_process().join()
    os._exit(1)


def _write_shard(task: Task, geometry: Geometry, quality: int) -> Written:
    """Write one shard under the partial name of its entry."""
    partial, written, left_out, not_turned = task.path + PARTIAL, 0, {}, set()
    name, image, problem = None, None, ""
    with tf.io.TFRecordWriter(partial) as writer:
        for person in task.people:
            if _stop.is_set():
                break
            if person.image != name:
                name = person.image
                path = os.path.join(task.images, name)
                image, ignored, problem = _try_read(path, task.decided.get(name, task.upright))
                if ignored and name not in task.decided:
                    not_turned.add(name)
            if problem:
                left_out.setdefault(problem, []).append(person.id)
            else:
                square, crop_to_image = crop(image, person, geometry)
                writer.write(encode(person, square, crop_to_image, quality))
                written += 1
            with _done.get_lock():
                _done.value += 1
    return Written(_name(task.path, written), left_out, not_turned)


def _name(path: str, people: int) -> dict:
    """Name a written shard after its content; return its entry for dataset.json.

    No shard is ever replaced by another one under its name: whoever reads an older set by its
    names gets that set, or misses a file.
    """
    partial, digest = path + PARTIAL, sha256(path + PARTIAL)
    stem, kind = os.path.splitext(path)
    named = f"{stem}-{digest[:8]}{kind}"
    tf.io.gfile.rename(partial, named + PARTIAL, overwrite=True)
    return {
        "file": os.path.basename(named),
        "people": people,
        "bytes": tf.io.gfile.stat(named + PARTIAL).length,
        "sha256": digest,
    }


def _try_read(path: str, upright: bool) -> tuple[np.ndarray | None, bool, str]:
    try:
        image, orientation = image_io.read(path, upright)
        return image, orientation != 1 and not upright, ""
    except FileNotFoundError:
        return None, False, "photograph not a file"
    except ValueError as error:
        return None, False, str(error)
