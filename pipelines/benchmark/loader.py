"""The loader of PyTorch's pose trainers: one example at a time in NumPy and OpenCV.

It reads a picture, cuts out the person's square, rotated and coloured, normalises it and draws one
Gaussian per joint; a DataLoader runs it in one process per core. The draws are those of the
pytorch_pose augmentation. The square is cut in one of two ways: "published" takes the steps of
pytorch-pose and its descendants, each over the whole picture or the whole square; "one_warp" is the
fastest that we could write, a single cv2.warpAffine of bytes.
"""

from __future__ import annotations

import os

import cv2
import numpy as np

from pipelines.benchmark import Part, usable_cores

MEAN = np.array([0.4404, 0.4440, 0.4327], np.float32)
BATCHES = 5  # per step


class Examples:
    """Augmented examples of a table that ``workload`` wrote; indices wrap around its length."""

    def __init__(self, folder: str, table: str, size: int, sigma: float, steps: str):
        """Read ``table`` ("photographs" or "crops"); ``steps``: "published" or "one_warp".

        ``size``: side of the network input, px; ``sigma``: of the Gaussians, heatmap px.
        """
        columns = np.load(os.path.join(folder, f"{table}.npz"), allow_pickle=False)
        self.columns = {key: columns[key] for key in columns.files}
        self.folder, self.size, self.sigma = os.path.join(folder, table), size, sigma
        self.cut_square = {"published": _published, "one_warp": _one_warp}[steps]

    def __len__(self) -> int:
        """Practically endless, for the DataLoader."""
        return 1 << 40

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Picture [3, size, size], heatmaps [J, size / 4, size / 4], weight [J], all float32."""
        random = np.random.default_rng(index)
        scale = np.clip(1 + 0.25 * random.normal(), 0.75, 1.25)
        turn = np.clip(30 * random.normal(), -60, 60) if random.random() < 0.6 else 0.0
        color = random.uniform(0.8, 1.2, 3).astype(np.float32)
        return self.example(index, scale, np.deg2rad(turn), random.random() < 0.5, color)

    def example(self, index: int, scale: float, angle: float, mirrored: bool, color: np.ndarray):
        """The example with these draws; see ``__getitem__``."""
        row = index % len(self.columns["names"])
        name, center, side, joints = (
            self.columns[key][row] for key in ("names", "center", "side", "joints")
        )
        state = self.columns["state"][row]
        image = cv2.imread(os.path.join(self.folder, str(name)))
        crop = (center, side * scale, angle, mirrored, self.size)
        picture, matrix = self.cut_square(image, color, *crop), _matrix(*crop)
        points = joints @ matrix[:, :2].T + matrix[:, 2]
        if mirrored:
            points, state = points[self.columns["mirror"]], state[self.columns["mirror"]]
        heatmaps, weight = _targets(points, state, self.size // 4, self.sigma)
        picture = picture - MEAN
        return np.ascontiguousarray(picture.transpose(2, 0, 1)), heatmaps, weight


def _matrix(center, side: float, angle: float, mirrored: bool, size: int) -> np.ndarray:
    """[2, 3] float64, picture px to network input px."""
    zoom = size / side
    cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
    linear = np.array([[cos, -sin], [sin, cos]])
    matrix = np.c_[linear, (size - 1) / 2 - linear @ center]
    if mirrored:
        matrix[0] *= -1
        matrix[0, 2] += size - 1
    return matrix


def _float(image: np.ndarray, color: np.ndarray) -> np.ndarray:
    """BGR bytes to coloured RGB in [0, 1]."""
    picture = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
    return np.clip(picture * color, 0, 1)


def _one_warp(image, color, center, side, angle, mirrored, size) -> np.ndarray:
    matrix = _matrix(center, side, angle, mirrored, size)
    return _float(cv2.warpAffine(image, matrix, (size, size)), color)


def _published(image, color, center, side, angle, mirrored, size) -> np.ndarray:
    """Colour and mirror the photograph, shrink it, cut a padded square, rotate, trim and resize it.

    The steps of pytorch-pose's loader in OpenCV's faster versions, in float32.
    """
    picture = _float(image, color)
    if mirrored:
        picture, angle = np.ascontiguousarray(picture[:, ::-1]), -angle
        center = [picture.shape[1] - 1 - center[0], center[1]]
    zoom = side / size
    if zoom >= 2:
        picture = cv2.resize(picture, None, fx=1 / zoom, fy=1 / zoom)
        center, side = (np.add(center, 0.5) / zoom) - 0.5, size
    pad = int(np.ceil(side * (np.sqrt(2) - 1) / 2)) if angle else 0
    square = _cut(picture, center, int(round(side)) + 2 * pad)
    if angle:
        middle, width = (len(square) - 1) / 2, len(square)
        turn = cv2.getRotationMatrix2D((middle, middle), -np.rad2deg(angle), 1.0)
        square = cv2.warpAffine(square, turn, (width, width))[pad : width - pad, pad : width - pad]
    return cv2.resize(square, (size, size))


def _cut(picture: np.ndarray, center, width: int) -> np.ndarray:
    """[width, width, 3] around ``center``, zeros beyond the picture."""
    square = np.zeros((width, width, 3), np.float32)
    x, y = (int(round(c - (width - 1) / 2)) for c in center)
    part = picture[max(y, 0) : max(y + width, 0), max(x, 0) : max(x + width, 0)]
    top, left = max(-y, 0), max(-x, 0)
    square[top : top + part.shape[0], left : left + part.shape[1]] = part
    return square


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


def per_example(settings: dict, folder: str, table: str, steps: str) -> Part:
    """Batches out of a DataLoader with one process per core."""
    import torch

    examples = Examples(folder, table, settings["size"], settings["sigma"], steps)
    batches = torch.utils.data.DataLoader(
        examples,
        settings["global_batch_size"],
        sampler=range(1 << 40),
        num_workers=usable_cores(),
        worker_init_fn=_one_thread,
    )
    iterator = iter(batches)

    def run(steps: int) -> None:
        for _ in range(BATCHES * steps):
            next(iterator)

    return Part(run, BATCHES * settings["global_batch_size"], lead_in=1)
