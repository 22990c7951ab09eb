"""Skeletons, heatmaps and scored people as pictures: NumPy RGB in, NumPy RGB out.

The person's right side is drawn in warm colours, the left in cool ones, the middle in green, so
that swapped sides are obvious. The truth is a thin white line under the prediction.
"""

from __future__ import annotations

import cv2
import numpy as np

from hourglass.skeleton import Skeleton, side
from pipelines.io import write_atomically

_RIGHT, _LEFT, _MIDDLE = (255, 140, 40), (50, 160, 255), (90, 220, 90)
_TRUTH, _OUTLINE, _MISS = (255, 255, 255), (20, 20, 20), (255, 40, 70)
_PAPER, _INK = (24, 26, 30), (235, 237, 240)
_FONT = cv2.FONT_HERSHEY_DUPLEX

# OpenCV takes fixed-point positions: 4 bits are sixteenths of a pixel.
_BITS = 4
# Clips a diverged network's positions to OpenCV's integers, still far outside any picture.
_MAX_POSITION = 1e6


def _color(name: str) -> tuple[int, int, int]:
    return {"right": _RIGHT, "left": _LEFT, "": _MIDDLE}[side(name)]


def _limb_color(skeleton: Skeleton, a: int, b: int) -> tuple[int, int, int]:
    """The colour of the side that one or both ends are on; the middle's if they are on both."""
    colors = {_color(skeleton.joints[a]), _color(skeleton.joints[b])} - {_MIDDLE}
    return colors.pop() if len(colors) == 1 else _MIDDLE


def colors(skeleton: Skeleton) -> dict:
    """Colours of these pictures, RGB 0-255, for drawing with other tools.

    Returns:
      "joints", one per joint; "limbs", one per entry of ``skeleton.limbs``; "truth"; "miss".
    """
    return {
        "joints": [_color(name) for name in skeleton.joints],
        "limbs": [_limb_color(skeleton, a, b) for a, b in skeleton.limbs],
        "truth": _TRUTH,
        "miss": _MISS,
    }


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = np.rint(np.clip(point, -_MAX_POSITION, _MAX_POSITION) * 2**_BITS).astype(int).tolist()
    return x, y


def _line(image, start, end, color, width):
    cv2.line(image, _fixed(start), _fixed(end), color, width, cv2.LINE_AA, _BITS)


def _disc(image, center, radius, color, width=-1):
    radius = round(radius * 2**_BITS)
    cv2.circle(image, _fixed(center), radius, color, width, cv2.LINE_AA, _BITS)


def person(
    image: np.ndarray,
    joints: np.ndarray,
    skeleton: Skeleton,
    visible: np.ndarray | None = None,
    *,
    truth: bool = False,
) -> np.ndarray:
    """Draw one person.

    Args:
      image: [H, W, 3] uint8 RGB; not changed.
      joints: [J, 2] px of ``image``; joints that are not finite are omitted.
      skeleton: names the joints and limbs.
      visible: [J] bool, False omits a joint and its limbs; None draws all.
      truth: draw thin white lines instead of coloured limbs.

    Returns:
      [H, W, 3] uint8, a copy with the person on it.
    """
    image, joints = np.ascontiguousarray(image).copy(), np.asarray(joints, np.float64)
    shown = np.isfinite(joints).all(-1)
    if visible is not None:
        shown &= np.asarray(visible, bool)
    limbs = [(a, b) for a, b in skeleton.limbs if shown[a] and shown[b]]
    draw_pose = _draw_thin if truth else _draw_colored
    draw_pose(image, joints, skeleton, limbs, np.flatnonzero(shown))
    return image


def _draw_thin(image, joints, skeleton, limbs, shown):
    width = max(1, round(min(image.shape[:2]) / 300))
    for a, b in limbs:
        _line(image, joints[a], joints[b], _OUTLINE, width + 2)
    for a, b in limbs:
        _line(image, joints[a], joints[b], _TRUTH, width)
    for j in shown:
        _disc(image, joints[j], 1.2 * width, _TRUTH)


def _draw_colored(image, joints, skeleton, limbs, shown):
    width = max(1, round(min(image.shape[:2]) / 90))
    for a, b in limbs:
        _line(image, joints[a], joints[b], _OUTLINE, width + 2)
    for a, b in limbs:
        _line(image, joints[a], joints[b], _limb_color(skeleton, a, b), width)
    for j in shown:
        _disc(image, joints[j], width + 1, _OUTLINE)
        _disc(image, joints[j], width, _color(skeleton.joints[j]))


def heatmap_panel(image: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """Lay the strongest joint's heatmap over a dimmed picture.

    Args:
      image: [H, W, 3] uint8 RGB; not changed.
      heatmaps: [h, w, J] float, 1 at a certain joint; outside [0, 1] and NaN are clipped.

    Returns:
      [H, W, 3] uint8.
    """
    strength = np.nan_to_num(np.asarray(heatmaps, np.float32).max(axis=-1))
    height, width = image.shape[:2]
    strength = cv2.resize(strength, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    glow = cv2.applyColorMap(np.rint(strength * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    # The stronger the heatmap, the less of the dimmed photograph shows.
    weight = strength[..., None] ** 0.5
    blended = 0.55 * image * (1 - weight) + glow[..., ::-1] * weight
    return np.rint(blended).astype(np.uint8)


def people_grid(
    images: np.ndarray,
    truth: np.ndarray,
    truth_state: np.ndarray,
    predicted: np.ndarray,
    skeleton: Skeleton,
    errors: np.ndarray,
    columns: int = 4,
    title: str = "",
    threshold: float = 0.5,
) -> np.ndarray:
    """One picture of N people: prediction in colour, truth in white, misses ringed in red.

    Args:
      images: [N, H, W, 3] uint8 RGB, at least one.
      truth: [N, J, 2] px of ``images``.
      truth_state: [N, J]; joints of state 0 (missing) are not drawn.
      predicted: [N, J, 2] px of ``images``.
      skeleton: names the joints and limbs.
      errors: [N, J] in the score's unit, NaN for joints that are not scored; each caption counts
        those of at most ``threshold``.
      columns: people per row.
      title: one line above, ASCII; "" for none.
      threshold: largest error of a hit.

    Returns:
      [., ., 3] uint8 RGB; each person's cell at least 256 px wide and high.

    Raises:
      ValueError: no images.
    """
    if not len(images):
        raise ValueError("no people to draw: pass at least one image")
    cells = [
        _cell(image, *positions, skeleton, error, threshold)
        for image, *positions, error in zip(images, truth, truth_state, predicted, errors)
    ]
    return _titled(_tiled(cells, min(columns, len(cells))), title)


def _cell(image, truth, truth_state, predicted, skeleton, errors, threshold):
    factor = max(1.0, 256 / min(image.shape[:2]))
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    cell = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_CUBIC)
    truth, predicted = ((points + 0.5) * factor - 0.5 for points in (truth, predicted))
    cell = person(cell, truth, skeleton, truth_state > 0, truth=True)
    cell = person(cell, predicted, skeleton)
    for j in np.flatnonzero(errors > threshold):
        if np.isfinite(predicted[j]).all():
            _disc(cell, predicted[j], min(size) / 36, _MISS, max(1, min(size) // 170))
    scored = int((~np.isnan(errors)).sum())
    hits = int((errors <= threshold).sum())
    _caption(cell, f"{hits}/{scored}" if scored else "not scored")
    return cell


def _caption(cell: np.ndarray, text: str) -> None:
    """Write light text on a darkened plate in the cell's lower left corner; modifies the cell."""
    scale = min(cell.shape[:2]) / 480
    (width, height), below = cv2.getTextSize(text, _FONT, scale, 1)
    margin = height // 2 + 1
    plate = cell[-(height + below + 2 * margin) :, : width + 2 * margin]
    plate[:] = plate // 4
    baseline = (margin, cell.shape[0] - below - margin)
    cv2.putText(cell, text, baseline, _FONT, scale, _INK, 1, cv2.LINE_AA)


def _tiled(cells: list[np.ndarray], columns: int, gap: int = 4) -> np.ndarray:
    height, width = cells[0].shape[:2]
    rows = -(-len(cells) // columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, 3)
    page = np.full(shape, _PAPER, np.uint8)
    for k, cell in enumerate(cells):
        row, column = divmod(k, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        page[top : top + height, left : left + width] = cell
    return page


def _titled(page: np.ndarray, title: str) -> np.ndarray:
    if not title:
        return page
    scale, margin = 0.7, 12
    (width, height), below = cv2.getTextSize(title, _FONT, scale, 1)
    scale *= min(1.0, (page.shape[1] - 2 * margin) / width)
    strip = np.full((height + below + 2 * margin, page.shape[1], 3), _PAPER, np.uint8)
    cv2.putText(strip, title, (margin, margin + height), _FONT, scale, _INK, 1, cv2.LINE_AA)
    return np.concatenate([strip, page])


def write_png(path: str, rgb: np.ndarray) -> None:
    """Write [H, W, 3] uint8 RGB as PNG, whole or not at all; OSError when it cannot."""
    _, data = cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))
    write_atomically(path, data.tobytes())


def poses(
    image: np.ndarray,
    people: list,
    skeleton: Skeleton,
    zoom: float,
    min_confidence: float,
    *,
    panel,
):
    """Draw predicted people with each joint's confidence in percent.

    Args:
      image: [H, W, 3] uint8 RGB; not changed.
      people: each with joints [J, 2] px of the original picture, confidence [J], the side of the
        crop and heatmaps [h, w, J] over it, as ``pipelines.inference.predictor.Pose`` has them.
      skeleton: names the joints and limbs.
      zoom: px of ``image`` per px of the original.
      min_confidence: joints below it are omitted.
      panel: add a square on the right with each person's crop under its heatmaps.

    Returns:
      [H, W, 3] uint8, with the panel [H, W + H, 3].
    """
    drawn = np.ascontiguousarray(image).copy()
    for pose in people:
        joints = (pose.joints + 0.5) * zoom - 0.5
        visible = pose.confidence >= min_confidence
        _draw_in_its_region(drawn, joints, pose.confidence, skeleton, visible)
    return np.concatenate([drawn, _panel(image, people, zoom)], 1) if panel else drawn


def _draw_in_its_region(image, joints, confidence, skeleton, visible) -> None:
    """Draw into the joints' region of ``image``, so that line widths suit the person's size."""
    shown = joints[np.isfinite(joints).all(-1) & visible]
    if not len(shown):
        return
    low, high = shown.min(0), shown.max(0)
    margin = 0.15 * (high - low).max() + 4
    shape = np.array(image.shape[1::-1])
    left, top = np.clip(np.floor(low - margin), 0, shape - 1).astype(int)
    right, bottom = np.clip(np.ceil(high + margin), 1, shape).astype(int)
    region, joints = image[top:bottom, left:right], joints - (left, top)
    region[:] = person(region, joints, skeleton, visible)
    scale = min(region.shape[:2]) / 900
    if scale > 0.2:
        for joint, value in zip(joints[visible], confidence[visible]):
            _write_number(region, joint, f"{100 * value:.0f}", min(scale, 0.6))


def _write_number(image, point, text, scale) -> None:
    point = np.clip(point, -_MAX_POSITION, _MAX_POSITION)
    corner = tuple(np.rint(point + 12 * scale).astype(int).tolist())
    for color, width in ((_OUTLINE, 3), (_INK, 1)):
        cv2.putText(image, text, corner, _FONT, scale, color, width, cv2.LINE_AA)


def _panel(image: np.ndarray, people: list, zoom: float) -> np.ndarray:
    side = image.shape[0]
    page = np.full((side, side, 3), _PAPER, np.uint8)
    columns = max(1, int(np.ceil(np.sqrt(len(people)))))
    cell = side // columns
    for k, pose in enumerate(people[: columns * columns] if cell else []):
        row, column = divmod(k, columns)
        tile = page[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        tile[:] = heatmap_panel(_crop(image, pose, zoom, cell), pose.heatmaps)
    return page


def _crop(image: np.ndarray, pose, zoom: float, size: int) -> np.ndarray:
    scale = size / (pose.side * zoom)
    center = (pose.center + 0.5) * zoom - 0.5
    matrix = np.column_stack([np.eye(2) * scale, (size - 1) / 2 - center * scale])
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
