"""Predicting a folder of pictures, and its two halves alone: reading and cropping, the network.

``whole`` is what scripts/predict.py does with --nodraw. ``halves`` does the same work without a
pipeline: it reads and crops all pictures on all cores, then passes the crops to the network. Where
the same cores do both, a pipeline cannot be much faster, and the difference is its overhead.
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

# Maximum in each step: several full batches of the network.
MAX_PICTURES = 128
_CATEGORY = {"id": 1, "name": "person"}


def _inputs(folder: str) -> list[Input]:
    names = [person.image for person in workload.photographs(folder).people][:MAX_PICTURES]
    return [Input(os.path.join(folder, "photographs", name), name, "") for name in names]


def _network(config: Config):
    info = tfrecords.read_info(config.records)
    network = bn_folding.fold(model.build(**build_arguments(config, info.skeleton)))
    return network, info, InferenceOptions(flip=config.flip)


def _predictor(config: Config) -> Predictor:
    network, info, options = _network(config)
    return Predictor(network, info.skeleton, info.geometry, options, recuts=0)


def whole(settings: dict, folder: str) -> Part:
    """Picture files -> predictions.json, each whole picture one person, cut once."""
    predictor, inputs = _predictor(Config(**settings)), _inputs(folder)

    def predict() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as target:
            with Results(target, predictor.skeleton, _CATEGORY) as results:
                run = Run(predictor, MediaOptions(output=target, draw=False), None, results)
                run.pictures(inputs)
        if results.people != len(inputs):
            raise ValueError(f"{results.people} people in {len(inputs)} pictures")

    return _repeated(predict, len(inputs))


def _reader(predictor: Predictor, inputs: list[Input]):
    """A function that reads and crops all pictures, as prediction does; it yields the crops."""
    run = Run(predictor, MediaOptions(output="", draw=False), None, None)

    def crop(source: Input):
        picture = run.read(source)
        if picture.problems:
            raise ValueError(f"{source.path}: {picture.problems[0]}")
        return picture.crops[0]

    return lambda: ahead(crop, inputs, predictor.batch_size)


def _read(crops) -> None:
    for _ in crops():  # released at once, as in a pipeline
        pass


def _make_predict_crops(predictor: Predictor, config: Config, crops):
    """A function that passes crops to the network, in full batches."""
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

    def predict_crops() -> None:
        for batch in batches:
            for part in predict(*batch):
                part.numpy()

    return predict_crops


def reading(settings: dict, folder: str) -> Part:
    """Picture files -> crops, on all cores."""
    inputs = _inputs(folder)
    crops = _reader(_predictor(Config(**settings)), inputs)
    return _repeated(lambda: _read(crops), len(inputs))


def network(settings: dict, folder: str) -> Part:
    """Crops -> joints."""
    config, inputs = Config(**settings), _inputs(folder)
    predictor = _predictor(config)
    return _repeated(
        _make_predict_crops(predictor, config, [*_reader(predictor, inputs)()]), len(inputs)
    )


def halves(settings: dict, folder: str) -> Part:
    """Reading all pictures, then predicting all crops."""
    config, inputs = Config(**settings), _inputs(folder)
    predictor = _predictor(config)
    crops = _reader(predictor, inputs)
    predict_crops = _make_predict_crops(predictor, config, [*crops()])

    def both() -> None:
        _read(crops)
        predict_crops()

    return _repeated(both, len(inputs))


def _repeated(work, pictures: int) -> Part:
    def run(steps: int) -> None:
        for _ in range(steps):
            work()

    return Part(run, pictures)
