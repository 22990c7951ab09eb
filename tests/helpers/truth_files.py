"""Small ground truth files of the published kinds."""

import numpy as np
import scipy.io

BOX = (11, 11, 41, 51)


def joints_of(people, seed=0):
    """[people, 16, 2] 1-based whole px; everybody stands 600 px right of the one before."""
    joints = np.random.default_rng(seed).integers(20, 300, (people, 16, 2)).astype(float)
    return joints + np.arange(people)[:, None, None] * (600.0, 0.0)


def tompson(path, joints, missing=None, **more):
    """Write a ``detections_our_format.mat``."""
    missing = np.zeros(joints.shape[:2]) if missing is None else missing
    boxes = np.tile(np.reshape(BOX, (2, 2, 1)), len(joints)).astype(float)
    arrays = {"pos_gt_src": joints.transpose(1, 2, 0), "jnt_missing": np.uint8(missing.T)}
    scipy.io.savemat(path, {**arrays, "headboxes_src": boxes, **more})
    return str(path)
