"""Predicting a folder of pictures, beside its two halves alone: reading and cutting, the network.

``whole`` is what scripts/predict.py does with --nodraw. ``halves`` does the same work without a
pipeline: first it reads and cuts all pictures on all cores, then it gives ready crops to the
network. Where the same cores do both, a pipeline cannot be much faster than that, and what
``whole`` lacks of it is its own cost.
"""

from __future__ import annotations

import os
import tempfile

import numpy as np

from hourglass import bn_folding, model
from pipelines.benchmark import Part, workload
from pipelines.config import Config, build_arguments
from pipelines.data import tfrecords
from pipelines.inference import compiled
from pipelines.inference.predict_media import Input, Options, Run, ahead
from pipelines.inference.predictor import Predictor
from pipelines.inference.writers import Results

# At most, in each step: several full batches of the network.
PICTURES = 128


def _inputs(folder: str) -> list[Input]:
    names = [person.image for person in workload.photographs(folder).people][:PICTURES]
    return [Input(os.path.join(folder, "photographs", name), name, "") for name in names]


def _network(config: Config):
    info = tfrecords.read_info(config.records)
    network = bn_folding.fold(model.build(**build_arguments(config, info.skeleton)))
    return network, info, {"flip": config.flip, "mirror": info.skeleton.mirror}


def _predictor(config: Config) -> Predictor:
    network, info, how = _network(config)
    return Predictor(network, info.skeleton, info.geometry, **how)


def whole(settings: dict, folder: str) -> Part:
    """Picture files -> predictions.json, each whole picture one person."""
    predictor, given = _predictor(Config(**settings)), _inputs(folder)

    def predict() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as target:
            with Results(target, predictor.skeleton, 1, 1) as results:
                run = Run(predictor, Options(target, draw=False), None, results)
                run.pictures(given)
        if results.people != len(given):
            raise ValueError(f"{results.people} people in {len(given)} pictures")

    return _repeated(predict, len(given))


def _reader(predictor: Predictor, given: list[Input]):
    """A function that reads and cuts all pictures, as predicting does; crops as they come."""
    run = Run(predictor, Options("", draw=False), None, None)

    def crop(one: Input):
        seen = run.read(one)
        if seen.problems:
            raise ValueError(f"{one.path}: {seen.problems[0]}")
        return seen.crops[0]

    return lambda: ahead(crop, given, predictor.largest)


def _read(crops) -> None:
    for _ in crops():  # let go at once, as a pipeline does
        pass


def _answering(predictor: Predictor, config: Config, crops):
    """A function that gives ready crops to the network, in full batches."""
    network, _, how = _network(config)
    run = compiled.of_crops(network, largest=predictor.largest, **how)
    canvas = predictor.geometry.canvas
    squares = np.zeros((len(crops), canvas, canvas, 3), np.uint8)
    for square, crop in zip(squares, crops):
        square[: len(crop.square), : len(crop.square)] = crop.square
    centers = np.array([crop.center for crop in crops], np.float32)
    sides = np.array([crop.side for crop in crops], np.float32)
    starts = range(0, len(crops), predictor.largest)
    batches = [
        [part[start : start + predictor.largest] for part in (squares, centers, sides)]
        for start in starts
    ]

    def answer() -> None:
        for batch in batches:
            for part in run(*batch):
                part.numpy()

    return answer


def reading(settings: dict, folder: str) -> Part:
    """Picture files -> crops, on all cores."""
    given = _inputs(folder)
    crops = _reader(_predictor(Config(**settings)), given)
    return _repeated(lambda: _read(crops), len(given))


def network(settings: dict, folder: str) -> Part:
    """Ready crops -> joints."""
    config, given = Config(**settings), _inputs(folder)
    predictor = _predictor(config)
    return _repeated(_answering(predictor, config, [*_reader(predictor, given)()]), len(given))


def halves(settings: dict, folder: str) -> Part:
    """Both, one after the other."""
    config, given = Config(**settings), _inputs(folder)
    predictor = _predictor(config)
    crops = _reader(predictor, given)
    answer = _answering(predictor, config, [*crops()])

    def both() -> None:
        _read(crops)
        answer()

    return _repeated(both, len(given))


def _repeated(work, pictures: int) -> Part:
    def run(steps: int) -> None:
        for _ in range(steps):
            work()

    return Part(run, pictures)
