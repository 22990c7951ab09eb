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
from pipelines.inference.media_options import MediaOptions
from pipelines.inference.options import InferenceOptions
from pipelines.inference.predict_media import Input, Run, ahead
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
    return network, info, InferenceOptions(flip=config.flip)


def _predictor(config: Config) -> Predictor:
    network, info, options = _network(config)
    return Predictor(network, info.skeleton, info.geometry, options)


def whole(settings: dict, folder: str) -> Part:
    """Picture files -> predictions.json, each whole picture one person."""
    predictor, given = _predictor(Config(**settings)), _inputs(folder)

    def predict() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as target:
            with Results(target, predictor.skeleton, 1, 1) as results:
                run = Run(predictor, MediaOptions(output=target, draw=False), None, results)
                run.pictures(given)
        if results.people != len(given):
            raise ValueError(f"{results.people} people in {len(given)} pictures")

    return _repeated(predict, len(given))


def _reader(predictor: Predictor, given: list[Input]):
    """A function that reads and cuts all pictures, as predicting does; crops as they come."""
    run = Run(predictor, MediaOptions(output="", draw=False), None, None)

    def crop(one: Input):
        picture = run.read(one)
        if picture.problems:
            raise ValueError(f"{one.path}: {picture.problems[0]}")
        return picture.crops[0]

    return lambda: ahead(crop, given, predictor.batch_size)


def _read(crops) -> None:
    for _ in crops():  # let go at once, as a pipeline does
        pass


def _answering(predictor: Predictor, config: Config, crops):
    """A function that gives ready crops to the network, in full batches."""
    network, info, options = _network(config)
    size = predictor.batch_size
    predict = compiled.make_predict(network, info.skeleton.mirror, options, batch_size=size)
    canvas = predictor.geometry.canvas
    squares = np.zeros((len(crops), canvas, canvas, 3), np.uint8)
    for square, crop in zip(squares, crops):
        square[: len(crop.square), : len(crop.square)] = crop.square
    centers = np.array([crop.center for crop in crops], np.float32)
    sides = np.array([crop.side for crop in crops], np.float32)
    batches = [
        [part[start : start + size] for part in (squares, centers, sides)]
        for start in range(0, len(crops), size)
    ]

    def answer() -> None:
        for batch in batches:
            for part in predict(*batch):
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
