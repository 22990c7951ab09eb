"""scripts/predict.py's work: the inputs and the file of boxes, predicted, and what is printed."""

from __future__ import annotations

import collections
import dataclasses
import os
import sys

from pipelines import checkpoints
from pipelines.data import picture_sizes
from pipelines.data.picture_sizes import Fit
from pipelines.inference import box_files, media
from pipelines.inference import boxes as people_boxes
from pipelines.inference.media_options import MediaOptions
from pipelines.inference.predict_media import Input, Run
from pipelines.inference.predictor import Predictor
from pipelines.inference.writers import Results, drawn_paths
from pipelines.io import check_writable

WITHOUT_BOXES = (
    "no --boxes: each picture shows one person, who is looked for from its middle. Give boxes of "
    "several people, and of people smaller than half of their picture."
)

_TURNED = {
    True: "turned as viewers show {them}, by EXIF orientation or a video's metadata",
    False: "not turned, though EXIF orientation or metadata says so: by --noupright, or because "
    "the annotated size is the stored one",
}


def run(inputs: list[str], listed: list[str], options: MediaOptions) -> int:
    """Predict the inputs, write the results, print the problems.

    Args:
      inputs: see ``media.expand``.
      listed: lines of standard input.
      options: see ``MediaOptions``.

    Returns:
      Exit code: 0, 1 if an input, a box or a name in the file of boxes could not be used, or 130
      after Ctrl-C; what was predicted until then is written.

    Raises FileNotFoundError, ValueError, OSError: nothing can be predicted or written.
    """
    options = dataclasses.replace(options, checkpoint=options.checkpoint or checkpoints.PRETRAINED)
    check_writable(options.output)
    pairs, others = media.expand(inputs, listed, options.output)
    sources = _inputs(pairs, options.output)
    category = _category(options)
    boxes, unknown = _boxes(sources, options, category["id"])
    fits = _fits(boxes, sources)
    predictor = Predictor.load(
        options.checkpoint,
        heatmaps=options.heatmaps,
        recuts=options.recuts,
        engine=options.engine,
    )
    print(WITHOUT_BOXES if boxes is None else _describe(boxes))
    ids = boxes.ids.values() if boxes else ()
    first_id = max([0, *(key for key in ids if isinstance(key, int))]) + 1
    try:
        with Results(options.output, predictor.skeleton, category, first_id) as results:
            work = Run(predictor, options, boxes, results, fits)
            _report_boxes(work, unknown)
            _predict_all(work, sources)
    except KeyboardInterrupt:
        print("interrupted: what was predicted so far is written", file=sys.stderr)
        return 130
    _report(work, others)
    return int(bool(work.problems))


def _category(options: MediaOptions) -> dict:
    """COCO's id and name of what the run predicts, with the id of --category if given."""
    folder, _ = checkpoints.split_path(options.checkpoint)
    category, given = checkpoints.read_category(folder), options.category
    key = int(given) if given.isdecimal() else given
    return {**category, "id": key} if given else category


def _boxes(
    sources: list[Input], options: MediaOptions, category: int | str
) -> tuple[people_boxes.Boxes | None, list[str]]:
    """Boxes by input path, and the names in their file that match no input."""
    if not options.boxes:
        return None, []
    file = box_files.read(options.boxes, options.annotations, category, options.min_score)
    boxes, unknown = people_boxes.match(file, [source.path for source in sources])
    if not boxes.people:
        raise ValueError(f"no name in {options.boxes} matches an input: {_few([*file.people])}")
    return boxes, unknown


def _fits(boxes: people_boxes.Boxes | None, sources: list[Input]) -> dict[str, Fit]:
    """Picture's path -> its real size compared with the annotated one, where there is one."""
    stills = {source.path for source in sources if not media.is_video(source.path)}
    sizes = {path: size for path, size in boxes.sizes.items() if path in stills} if boxes else {}
    fits = picture_sizes.compare("", sizes, {path: boxes.corners([path]) for path in sizes})
    exchanged = {p: fit for p, fit in fits.items() if fit.kind == picture_sizes.EXCHANGED}
    for note in picture_sizes.notes(exchanged):
        print(note)
    return fits


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _inputs(pairs: list[tuple[str, str]], output: str) -> list[Input]:
    targets = drawn_paths(output, [name for _, name in pairs])
    originals = {os.path.abspath(path) for path, _ in pairs}
    clashes = [target for target in targets if os.path.abspath(target) in originals]
    if clashes:
        raise ValueError(
            f"--output={output} would overwrite the input {clashes[0]}; choose another"
        )
    counts = collections.Counter(name for _, name in pairs)
    return [
        Input(path, name if counts[name] == 1 else path, target)
        for (path, name), target in zip(pairs, targets)
    ]


def _predict_all(work: Run, inputs: list[Input]) -> None:
    stills = [source for source in inputs if not media.is_video(source.path)]
    if stills:
        work.pictures(stills)
    for source in inputs:
        if media.is_video(source.path):
            work.video(source)


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _describe(boxes: people_boxes.Boxes) -> str:
    count = _counted(sum(map(len, boxes.people.values())), "box", "boxes")
    left = "".join(f"; left out: {n:,} {reason}" for reason, n in boxes.left_out.items())
    return f"{count} for {_counted(len(boxes.people), 'input')}{left}"


def _report_boxes(work: Run, unknown: list[str]) -> None:
    """Print what in the file of boxes cannot be used."""
    path = work.options.boxes
    for sentence in work.boxes.problems if work.boxes else ():
        work.problem(path, sentence)
    if unknown:
        number = _counted(len(unknown), "name matches no input", "names match no input")
        work.problem(path, f"{path}: {number}: {_few(unknown)}")


def _report(work: Run, others: int) -> None:
    results, output = work.results, work.options.output
    if others:
        print(f"{_counted(others, 'file')} in the folders without a picture's extension")
    _report_turned(work.turned)
    if work.without_box:
        number = _counted(work.without_box, "picture has", "pictures have")
        print(f"{number} no boxes and thus no people")
    if work.problems:
        number, names = _counted(len(work.problems), "input"), _few(list(work.problems))
        print(f"error: {number} had problems: {names}", file=sys.stderr)
    people = _counted(results.people, "person", "people")
    print(f"{people} in {_counted(results.images, 'image')} -> {output}/predictions.json and .csv")


def _report_turned(turned: collections.Counter) -> None:
    """Print how many pictures and videos were turned, and how many were not."""
    for done, text in _TURNED.items():
        kinds = [kind for kind in ("picture", "video") if turned[kind, done]]
        number = sum(turned[kind, done] for kind in kinds)
        counts = " and ".join(_counted(turned[kind, done], kind) for kind in kinds)
        if kinds:
            print(f"{counts} {text.format(them='it' if number == 1 else 'them')}")
