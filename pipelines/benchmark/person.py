"""A person in a photograph -> joints: the network in pretrained/, and MediaPipe Pose.

Each is measured as its users get it: ours cuts the box out of the photograph and averages with the
mirrored picture; MediaPipe, which looks for the person itself, gets the person cut out already.
"""

from __future__ import annotations

import importlib
import os

import cv2
import numpy as np

from pipelines.benchmark import Part
from pipelines.benchmark.rounds import ROOT
from pipelines.data import image_io
from pipelines.inference import boxes
from pipelines.inference.predictor import Predictor

# The photograph of README, and its person in docs/street.csv: x, y, width, height, px.
PHOTOGRAPH, BOX = os.path.join(ROOT, "docs", "street.jpg"), (273, 130, 144, 254)

# px; MediaPipe's own input has 256.
SIDE = 256


def ours(settings: dict, folder: str, batch: int) -> Part:
    """``batch`` people at a time, by ``Predictor`` as it is loaded without arguments."""
    predictor = Predictor.load(batch_size=batch)
    photograph, _ = image_io.read(PHOTOGRAPH)

    def run(steps: int) -> None:
        for _ in range(steps):
            predictor([photograph] * batch, [[BOX]] * batch)

    return Part(run, batch)


def _cut_out(photograph: np.ndarray) -> np.ndarray:
    """[SIDE, SIDE, 3] uint8 RGB: the square that ours predicts."""
    person = boxes.person(BOX, photograph.shape[1], photograph.shape[0])
    zoom = SIDE / person.side
    shift = 0.5 * (SIDE - 1) - zoom * person.center
    matrix = np.column_stack([zoom * np.eye(2), shift])
    return np.ascontiguousarray(cv2.warpAffine(photograph, matrix, (SIDE, SIDE)))


def mediapipe_pose(settings: dict, folder: str) -> Part:
    """One person at a time, by the full model, which the package contains."""
    pose = importlib.import_module("mediapipe").solutions.pose.Pose(
        static_image_mode=True, model_complexity=1, min_detection_confidence=0.1
    )
    picture = _cut_out(image_io.read(PHOTOGRAPH)[0])

    def run(steps: int) -> None:
        for _ in range(steps):
            # It is faster where it finds nobody.
            if pose.process(picture).pose_landmarks is None:
                raise ValueError(f"MediaPipe does not find the person of {PHOTOGRAPH}")

    return Part(run, 1)
