"""Prediction files of drawn people."""

import numpy as np

from pipelines.data import input_pipeline
from pipelines.evaluation import evaluate, prediction_files


def write_truth(path, info, offsets, ids=None, skeleton=None, split="validation"):
    """Predictions: the truth moved to the right by ``offsets`` [N, J] head sizes."""
    labels = input_pipeline.labels(info, split)
    joints = evaluate.to_image(labels, labels["joints"])
    size = np.nan_to_num(labels["head_size"], nan=1.0).astype(np.float64)
    joints[..., 0] += offsets * size[:, None]
    ids = [name.decode() for name in labels["id"]] if ids is None else ids
    keep = np.arange(len(ids))
    joints, rows = joints[keep][:, : len(skeleton or info.skeleton)], labels["row"][keep]
    confidence = np.full(joints.shape[:2], 0.75)
    predictions = prediction_files.in_published_order(
        ids, rows, joints, confidence, skeleton or info.skeleton, info.origin
    )
    prediction_files.write_json(str(path), predictions)
    return str(path)
