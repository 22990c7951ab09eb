"""The loader that PyTorch's pose trainers have: one example at a time in NumPy and OpenCV.

Read a picture, warp the person's square through one cv2.warpAffine, colour, normalise, draw one
Gaussian per joint; a DataLoader runs it in as many processes as there are cores. (The published
loaders warp in several passes and take longer.) The draws are those of the pytorch_pose recipe.
"""

from __future__ import annotations

import os

import cv2
import numpy as np

from pipelines.benchmark import Part

MEAN = np.array([0.4404, 0.4440, 0.4327], np.float32)
BATCHES = 5  # per step


class Examples:
    """Augmented examples of a table that ``workload`` wrote; index i is taken modulo its length."""

    def __init__(self, folder: str, table: str, size: int, sigma: float):
        """``table`` is "photographs" or "crops"; ``size`` px of the network input."""
        columns = np.load(os.path.join(folder, f"{table}.npz"), allow_pickle=False)
        self.columns = {key: columns[key] for key in columns.files}
        self.folder, self.size, self.sigma = os.path.join(folder, table), size, sigma

    def __len__(self) -> int:
        """Endless, as far as a DataLoader is concerned."""
        return 1 << 40

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Picture [3, size, size], heatmaps [J, size / 4, size / 4], weight [J], all float32."""
        random = np.random.default_rng(index)
        scale = np.clip(1 + 0.25 * random.normal(), 0.75, 1.25)
        turn = np.clip(30 * random.normal(), -60, 60) if random.random() < 0.6 else 0.0
        color = random.uniform(0.8, 1.2, 3).astype(np.float32)
        return self.example(index, scale, np.deg2rad(turn), random.random() < 0.5, color)

    def example(self, index: int, scale: float, angle: float, mirrored: bool, color: np.ndarray):
        """The example with the given draws; see ``__getitem__``."""
        row = index % len(self.columns["names"])
        one = {key: self.columns[key][row] for key in ("names", "center", "side", "joints")}
        state = self.columns["state"][row]
        image = cv2.imread(os.path.join(self.folder, str(one["names"])))
        matrix = _matrix(one["center"], one["side"] * scale, angle, mirrored, self.size)
        warped = cv2.warpAffine(image, matrix, (self.size, self.size))
        picture = cv2.cvtColor(warped, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
        picture = np.clip(picture * color, 0, 1) - MEAN
        points = one["joints"] @ matrix[:, :2].T + matrix[:, 2]
        if mirrored:
            points, state = points[self.columns["mirror"]], state[self.columns["mirror"]]
        heatmaps, weight = _targets(points, state, self.size // 4, self.sigma)
        return np.ascontiguousarray(picture.transpose(2, 0, 1)), heatmaps, weight


def _matrix(center, side: float, angle: float, mirrored: bool, size: int) -> np.ndarray:
    """[2, 3] float64 map of the picture to the network input."""
    zoom = size / side
    cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
    linear = np.array([[cos, -sin], [sin, cos]])
    matrix = np.c_[linear, (size - 1) / 2 - linear @ center]
    if mirrored:
        matrix[0] *= -1
        matrix[0, 2] += size - 1
    return matrix


def _targets(points, state, size: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians cut off at 3 sigma, one patch per joint, as the published loaders draw them."""
    heatmaps = np.zeros((len(points), size, size), np.float32)
    weight = np.zeros(len(points), np.float32)
    reach = int(np.ceil(3 * sigma))
    for j, (x, y) in enumerate((points + 0.5) / 4 - 0.5):
        left, top = int(round(x)) - reach, int(round(y)) - reach
        columns = np.arange(max(left, 0), min(left + 2 * reach + 1, size))
        rows = np.arange(max(top, 0), min(top + 2 * reach + 1, size))
        if not state[j] or not len(columns) or not len(rows):
            continue
        square = (columns - x)[None, :] ** 2 + (rows - y)[:, None] ** 2
        patch = np.exp(-square / (2 * sigma**2))
        heatmaps[j, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = patch
        weight[j] = 1.0
    return heatmaps, weight


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)


def per_example(settings: dict, folder: str, table: str) -> Part:
    """Batches out of a DataLoader with one process per core."""
    import torch

    examples = Examples(folder, table, settings["size"], settings["sigma"])
    batches = torch.utils.data.DataLoader(
        examples,
        settings["batch"],
        sampler=range(1 << 40),
        num_workers=len(os.sched_getaffinity(0)),
        worker_init_fn=_one_thread,
    )
    iterator = iter(batches)

    def run(steps: int) -> None:
        for _ in range(BATCHES * steps):
            next(iterator)

    return Part(run, BATCHES * settings["batch"], lead_in=1)
