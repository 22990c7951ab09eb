"""How the reference pipelines place pictures and heatmaps, in a few lines of NumPy and OpenCV each.

Written from the published rules, to be compared with what the references' own code answered (see
``golden/reference_data.npz``). Evaluation only: no scale, rotation, mirror or colour drawn.

All take MPII's 1-based columns, the centre and side already adjusted (15 px down, 1.25 wider), and
answer 0-based: where a photograph's pixel lands in the 256 px picture ([2, 3] matrix), the picture
itself, and the pixel of the 64 px heatmap on which a joint's Gaussian stands.
"""

from __future__ import annotations

import cv2
import numpy as np

INPUT, HEATMAP = 256, 64


def truncated(values):
    """As ``int`` does: towards zero, hence up for a window that starts before the photograph."""
    return np.trunc(values).astype(int)


def stretch(first, last):
    """[2, 3] photograph px to input px of the window of whole pixels from first up to last."""
    zoom = INPUT / (np.asarray(last) - first)
    return np.column_stack([np.diag(zoom), (0.5 - np.asarray(first)) * zoom - 0.5])


def cut(image, first, last):
    """The window of whole pixels, black beyond the photograph, resized bilinearly to the input."""
    (x0, y0), (x1, y1) = first, last
    window = np.zeros((y1 - y0, x1 - x0, 3), image.dtype)
    height, width = image.shape[:2]
    seen = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    top, left = max(-y0, 0), max(-x0, 0)
    window[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
    return cv2.resize(window, (INPUT, INPUT), interpolation=cv2.INTER_LINEAR)


class PytorchPose:
    """bearpaw/pytorch-pose: its crop starts a 256th of the side and a pixel away from the middle.

    People wider than 512 px: the photograph is shrunk first, to a whole number of pixels, while the
    centre is divided by the exact factor.
    """

    sigma, radius = 1, 3

    @staticmethod
    def picture(image, center, side):
        height, width = image.shape[:2]
        shrink = np.eye(3)
        if side / INPUT >= 2:
            factor = side / INPUT
            size = (int(width // factor), int(height // factor))
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
            zoom = np.array(size) / (width, height)
            shrink[[0, 1], [0, 1]], shrink[:2, 2] = zoom, 0.5 * zoom - 0.5
            center, side = center / factor, side / factor
        pixel = side / INPUT
        first = truncated(center - side / 2 - pixel) + 1
        last = truncated(center + side / 2 - pixel) + 1
        return cut(image, first, last), stretch(first, last) @ shrink

    @staticmethod
    def peaks(joints, center, side):
        return truncated((joints - center) * HEATMAP / side + HEATMAP / 2)


class Princeton:
    """princeton-vl's PyTorch code: 1-based centres and joints used on 0-based pictures.

    Joints are cut to whole pixels of the input, then of the heatmap.
    """

    sigma, radius = 1, 4

    @staticmethod
    def picture(image, center, side):
        first, last = truncated(center - side / 2), truncated(center + side / 2)
        return cut(image, first, last), stretch(first, last)

    @staticmethod
    def peaks(joints, center, side):
        in_input = truncated((joints - center) * INPUT / side + INPUT / 2)
        return truncated(in_input * HEATMAP / INPUT)


class HRNet:
    """HRNet: one bilinear warp, centre on 128 (not 127.5); heatmap px are input px / 4, rounded."""

    sigma, radius = 2, 6

    @staticmethod
    def picture(image, center, side):
        zoom = INPUT / side
        shift = INPUT / 2 - (center - 1) * zoom
        matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
        return cv2.warpAffine(image, matrix, (INPUT, INPUT), flags=cv2.INTER_LINEAR), matrix

    @staticmethod
    def peaks(joints, center, side):
        in_input = (joints - center) * INPUT / side + INPUT / 2
        return truncated(in_input * HEATMAP / INPUT + 0.5)


class NewellLua:
    """Newell's Torch7 code (pose-hg-train, src/util), read and not run: joints only.

    One is taken from the 1-based joint but not from the 1-based centre.
    """

    @staticmethod
    def peaks(joints, center, side):
        return truncated((joints - 1 - center) * HEATMAP / side + HEATMAP / 2)


def heatmap(peak, sigma, radius):
    """[64, 64] Gaussian on a whole pixel, cut off ``radius`` px from it."""
    away = np.arange(HEATMAP) - np.asarray(peak)[:, None]
    along = np.where(np.abs(away) <= radius, np.exp(-(away**2) / (2 * sigma**2)), 0)
    return along[1][:, None] * along[0]


RULES = {"pytorch_pose": PytorchPose, "princeton": Princeton, "hrnet": HRNet}
