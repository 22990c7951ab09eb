"""The embedded data set: drawn people in photograph-like scenes, annotated as MPII annotates.

Nothing is estimated: joints come from the posed figure, and a joint is occluded where the drawing
itself shows another body part or an object in front of it.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os

import cv2
import numpy as np
import tqdm

from hourglass.skeleton import MPII
from pipelines.data.synthetic.figure import FORWARD, RIGHT, UP, draw_lengths, draw_pose, place, turn
from pipelines.data.synthetic.paint import Canvas, View, dress, head_outline

# One person in so many, the last ones, is for validation.
VALIDATION_SHARE = 6

# Parts that meet in a joint: seeing one of them at the joint's pixel is seeing the joint, unless
# the joint lies deeper behind that surface than BURIED statures (the far hip of a side view).
_MEETING = {
    "pelvis": ("pelvis", "chest", "right_thigh", "left_thigh"),
    "thorax": ("chest", "neck"),
    "upper_neck": ("neck", "head", "chest"),
    "head_top": ("head", "long_hair"),
    "wrist": ("forearm", "hand"),
    "elbow": ("upper_arm", "forearm"),
    "shoulder": ("upper_arm", "chest"),
    "hip": ("thigh", "pelvis", "chest"),
    "knee": ("thigh", "shin"),
    "ankle": ("shin", "foot"),
}
_BURIED = 0.105


def visible_joints(joints, part, nearness, names, front, stature) -> np.ndarray:
    """Which joints a viewer sees, read from the drawing.

    Args:
      joints: [16, 3] image px: x, y, nearness (towards the viewer from the pelvis), MPII's order.
      part: [H, W] uint8, 0 or 1 + index into ``names``: the person's nearest part per pixel.
      nearness: [H, W] float32 image px, of that part's surface.
      names: the person's parts.
      front: [H, W] bool, True where an object in front covers the person.
      stature: the person's height, image px.

    Returns [16] bool; False outside the picture.
    """
    height, width = part.shape
    seen = np.zeros(len(joints), bool)
    for index, (name, (x, y, near)) in enumerate(zip(MPII.joints, joints)):
        column, row = int(np.rint(x)), int(np.rint(y))
        if not (0 <= column < width and 0 <= row < height) or front[row, column]:
            continue
        label = part[row, column]
        buried = nearness[row, column] - near > _BURIED * stature
        seen[index] = label == 0 or (names[label - 1] in _meeting(name) and not buried)
    return seen


def _meeting(joint: str) -> tuple[str, ...]:
    side, _, rest = joint.partition("_")
    if side not in ("right", "left"):
        return _MEETING[joint]
    return tuple(n if n in ("chest", "pelvis") else f"{side}_{n}" for n in _MEETING[rest])


def _clouds(rng, shape, cells: int, channels: int = 3) -> np.ndarray:
    """[H, W, channels] float32 smooth noise around 0, about ``cells`` bumps across."""
    height, width = shape
    coarse = rng.random((max(2, cells * height // width), cells, channels), np.float32) - 0.5
    kind = cv2.INTER_CUBIC if cells < 20 else cv2.INTER_LINEAR
    smooth = cv2.resize(coarse, (width, height), interpolation=kind)
    return smooth.reshape(height, width, channels)


def _color(rng, saturation: float = 0.5, low: float = 40, high: float = 225) -> tuple:
    gray = rng.uniform(low, high)
    return tuple(np.clip(gray + saturation * rng.uniform(-90, 90, 3), 0, 255).tolist())


# What is behind and below people, RGB: sky over grass, street, beach, snow; wall over floor.
_PLACES = (
    ((150, 185, 225), (92, 118, 62)),
    ((185, 190, 198), (105, 105, 108)),
    ((130, 170, 215), (205, 182, 140)),
    ((200, 212, 228), (225, 228, 234)),
    ((214, 203, 184), (140, 100, 66)),
    ((168, 178, 172), (96, 92, 90)),
    ((92, 84, 80), (120, 84, 58)),
    ((72, 98, 64), (118, 128, 74)),
    ((60, 64, 76), (48, 44, 46)),
)


def _surface(rng, height: int, color) -> np.ndarray:
    """[height, 1, 3] float32: a colour that fades from top to bottom."""
    ends = np.array(color) + rng.normal(0, 14, (2, 3)) + rng.normal(0, 18, (2, 1))
    ends = ends.astype(np.float32)
    blend = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    return (1 - blend) * ends[0] + blend * ends[1]


def _backdrop(rng, shape, floor: float) -> np.ndarray:
    """[H, W, 3] float32 in [0, 1]: wall or sky over ground that begins above ``floor`` px."""
    height = shape[0]
    horizon = int(np.clip(floor * rng.uniform(0.6, 0.97), 0.3 * height, 0.95 * height))
    far, near = _PLACES[rng.integers(len(_PLACES))]
    relief = rng.uniform(10, 55) * _clouds(rng, shape, int(rng.integers(3, 9)), 1)
    relief += rng.uniform(10, 55) * _clouds(rng, shape, int(rng.integers(20, 90)), 1)
    image = relief + rng.uniform(4, 24) * _clouds(rng, shape, int(rng.integers(3, 9)))
    image[:horizon] += _surface(rng, horizon, far)
    image[horizon:] += _surface(rng, height - horizon, near)
    image = np.clip(image, 0, 255, out=image).astype(np.uint8)
    for decorate, chance in ((_stripes, 0.25), (_buildings, 0.5), (_foliage, 0.5), (_clutter, 0.6)):
        if rng.random() < chance:
            decorate(rng, image, horizon)
    if rng.random() < 0.7:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.2))
    return np.multiply(image, np.float32(1 / 255))


def _stripes(rng, image, horizon) -> None:
    step, color = int(rng.integers(8, 40)), _color(rng, 0.3)
    thick = max(1, int(step * rng.uniform(0.1, 0.5)))
    slope = rng.uniform(-20, 20)
    for at in range(-20, image.shape[1] + 20, step):
        cv2.line(image, (at, 0), (int(at + slope), horizon), color, thick, cv2.LINE_AA)


def _buildings(rng, image, horizon) -> None:
    for _ in range(rng.integers(1, 6)):
        w, h = rng.integers(25, 110), rng.integers(40, max(41, horizon))
        x = int(rng.integers(-30, image.shape[1]))
        cv2.rectangle(image, (x, int(horizon - h)), (int(x + w), horizon), _color(rng, 0.2), -1)
        step, pane = int(rng.integers(10, 24)), _color(rng, 0.2)
        for row in range(int(horizon - h + 5), horizon - step // 2, step):
            for column in range(x + 4, int(x + w) - step // 2, step):
                corner = (column + int(step * 0.55), row + int(step * 0.6))
                cv2.rectangle(image, (column, row), corner, pane, -1)


def _leaves(rng, image, centre, spread, count, palette) -> None:
    positions = np.rint(centre + rng.normal(0, 1, (count, 2)) * spread).astype(int).tolist()
    sizes = rng.integers(2, 8, (count, 2)).tolist()
    turns, tones = rng.uniform(0, 180, count), rng.uniform(0.55, 1.35, count)
    for (x, y), size, angle, tone in zip(positions, sizes, turns, tones):
        color = np.clip(tone * palette, 0, 255).tolist()
        cv2.ellipse(image, (x, y), tuple(size), angle, 0, 360, color, -1, cv2.LINE_AA)


def _greens(rng) -> np.ndarray:
    return np.array([rng.uniform(30, 120), rng.uniform(70, 150), rng.uniform(20, 70)])


def _foliage(rng, image, horizon) -> None:
    for _ in range(rng.integers(1, 4)):
        x, size = rng.uniform(0, image.shape[1]), rng.uniform(15, 45)
        y = horizon - rng.uniform(0, 110)
        cv2.line(image, (int(x), int(y)), (int(x), horizon), (70, 52, 40), int(size / 6) + 1)
        _leaves(rng, image, (x, y), (size, 0.7 * size), 60, _greens(rng))


def _clutter(rng, image, horizon) -> None:
    for _ in range(rng.integers(2, 9)):
        x, y = rng.uniform(0, image.shape[1]), rng.uniform(0.3 * horizon, image.shape[0])
        size = rng.uniform(5, 32, 2)
        if rng.random() < 0.6:
            box = cv2.boxPoints(((x, y), size.tolist(), rng.normal(0, 12)))
            cv2.fillConvexPoly(image, np.rint(box).astype(int), _color(rng), cv2.LINE_AA)
        else:
            axes = (int(size[0] / 2), int(size[1] / 2))
            cv2.ellipse(image, (int(x), int(y)), axes, 0, 0, 360, _color(rng), -1, cv2.LINE_AA)


def _pose_someone(rng):
    """Draw a person: the figure, turned as a photographer might see it, and its leg posture."""
    lengths, pose = draw_lengths(rng), draw_pose(rng)
    facing = rng.choice(3, p=[0.8, 0.12, 0.08])
    yaw = (rng.normal(0, 22), 180 + rng.normal(0, 22), rng.uniform(0, 360))[facing]
    roll = rng.normal(0, 6) if rng.random() < 0.97 else rng.uniform(-45, 45)
    root = (
        turn(UP, RIGHT, roll) @ turn(UP, FORWARD, rng.uniform(-6, 18)) @ turn(FORWARD, RIGHT, yaw)
    )
    return place(lengths, pose, root), pose["legs"]


def _main_view(rng, figure, shape) -> View:
    """Put the figure into the picture, whole as a rule, and now and then cut by its edge."""
    stature = rng.uniform(150, 215)
    corners = View(np.zeros(2), stature).project(np.stack(list(figure.points.values())))
    low, high = corners.min(0) - 0.04 * stature, corners.max(0) + 0.03 * stature
    size, picture = high - low, np.array(shape[::-1])
    at = (picture - size) * rng.uniform(0.05, 0.95, 2)
    at = np.where(size > picture, (picture - size) / 2, at)
    if rng.random() < 0.14:
        shown = rng.uniform(0.68, 0.93)
        edges = ((at[0], picture[1] - shown * size[1]), (-(1 - shown) * size[0], at[1]),
                 (picture[0] - shown * size[0], at[1]))  # fmt: skip
        at = np.array(edges[rng.choice(3, p=[0.6, 0.2, 0.2])])
    return View(at - low, stature)


def _beside(rng, view: View, shape) -> View:
    """Place someone behind: to the side, mostly smaller, with feet on about the same ground."""
    share = rng.uniform(0.45, 0.85) if rng.random() < 0.75 else rng.uniform(0.85, 1.05)
    stature = share * view.stature
    aside = rng.uniform(0.42, 0.95) * view.stature * rng.choice([-1, 1])
    lift = (1 - share) * rng.uniform(0.0, 0.5) * view.stature
    return View(view.origin + [aside, -lift + rng.normal(0, 6)], stature)


def _ground(rng, rgb, figure, view: View, legs: str) -> None:
    """Cast a shadow on the ground, and put a seat under those who sit."""
    points = view.project(np.stack(list(figure.points.values())))
    floor, stature = points[:, 1].max(), view.stature
    if legs == "sit":
        x, y = view.origin
        half, back = stature * rng.uniform(0.11, 0.2), stature * rng.uniform(0.0, 0.3)
        left, right = int(x - half), int(x + half)
        color = np.array(_color(rng, 0.4)) / 255
        cv2.rectangle(rgb, (left, int(y - back)), (right, int(floor)), (0.7 * color).tolist(), -1)
        cv2.rectangle(rgb, (left, int(y + 0.04 * stature)), (right, int(floor)), color.tolist(), -1)
    small = np.zeros((rgb.shape[0] // 4, rgb.shape[1] // 4), np.float32)
    x = points[points[:, 1] > floor - 0.2 * stature, 0].mean()
    axes = (int(0.045 * stature), max(1, int(0.01 * stature)))
    cv2.ellipse(small, (int(x / 4), int(floor / 4)), axes, 0, 0, 360, rng.uniform(0.2, 0.55), -1)
    shadow = cv2.resize(cv2.GaussianBlur(small, (0, 0), 2), rgb.shape[1::-1])
    rgb *= (1 - shadow)[..., None]


def _object_mask(rng, shape, target, stature: float):
    """[H, W] uint8 cover of a pole, rail, box, ball or bush near ``target`` px, and its colour."""
    mask = np.zeros(shape, np.uint8)
    kind = rng.integers(5)
    reach = stature * rng.uniform(0.025, 0.07)
    x, y = (int(v) for v in target + rng.normal(0, 0.35, 2) * reach)
    if kind == 0:
        ends = (int(x + rng.normal(0, 8)), -5), (int(x + rng.normal(0, 8)), shape[0] + 5)
        cv2.line(mask, *ends, 255, int(rng.integers(4, 9)), cv2.LINE_AA)
    elif kind == 1:
        ends = (-5, int(y + rng.normal(0, 5))), (shape[1] + 5, int(y + rng.normal(0, 5)))
        cv2.line(mask, *ends, 255, int(rng.integers(4, 8)), cv2.LINE_AA)
    elif kind == 2:
        box = ((x, y), (reach * rng.uniform(1, 3), reach * rng.uniform(1, 3)), rng.normal(0, 12))
        cv2.fillConvexPoly(mask, np.rint(cv2.boxPoints(box)).astype(int), 255, cv2.LINE_AA)
    elif kind == 3:
        cv2.circle(mask, (x, y), int(1.2 * reach), 255, -1, cv2.LINE_AA)
    else:
        centre, spread = (x, y + 0.6 * reach), (1.2 * reach, 0.7 * reach)
        _leaves(rng, mask, centre, spread, 30, np.array([1000.0]))
        return mask, _greens(rng)
    return mask, _color(rng, 0.4)


def _objects_in_front(rng, rgb, joints, stature: float) -> np.ndarray:
    """Draw 0-2 things over the person. Returns [H, W] bool, True where they cover."""
    shape = rgb.shape[:2]
    front = np.zeros(shape, bool)
    for _ in range(rng.choice(3, p=[0.82, 0.15, 0.03])):
        # The head stays free: photographs are taken so that faces show.
        limbs = [j for j in range(len(MPII)) if MPII.joints[j] not in ("head_top", "upper_neck")]
        mask, color = _object_mask(rng, shape, joints[rng.choice(limbs)], stature)
        texture = 1 + 0.5 * _clouds(rng, shape, 24, 1) + 0.4 * _clouds(rng, shape, 4, 1)
        cover = (mask.astype(np.float32) / 255)[..., None]
        rgb += ((np.array(color) / 255).astype(np.float32) * texture - rgb) * cover
        front |= mask > 127
    return front


def _photograph(rng, rgb) -> np.ndarray:
    """[H, W, 3] uint8 RGB: the scene as a camera records it, with light, blur and noise.

    ``rgb``, [H, W, 3] float32 in [0, 1], is used up.
    """
    shape = rgb.shape[:2]
    tint = rng.uniform(0.92, 1.08, 3).astype(np.float32) * np.float32(rng.uniform(225, 310))
    rgb *= 1 + rng.uniform(0.0, 0.35) * _clouds(rng, shape, 3, 1)
    rgb *= tint
    rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.3, 0.7))
    if rng.random() < 0.08:
        kernel = np.zeros((5, 5), np.float32)
        cv2.line(kernel, (0, int(rng.integers(5))), (4, int(rng.integers(5))), 1.0)
        rgb = cv2.filter2D(rgb, -1, kernel / kernel.sum())
    rgb += rng.standard_normal(shape, np.float32)[..., None] * np.float32(rng.uniform(0.5, 5))
    tones = 255 * (np.arange(256) / 255) ** rng.uniform(0.85, 1.15)
    return cv2.LUT(np.clip(rgb, 0, 255, out=rgb).astype(np.uint8), np.rint(tones).astype(np.uint8))


def _cloth_texture(rng, shape) -> np.ndarray:
    return (
        1 + 0.16 * _clouds(rng, shape, 40, 1)[..., 0] + 0.16 * _clouds(rng, shape, 110, 1)[..., 0]
    )


def picture(seed: int, index: int):
    """Draw picture ``index`` of the set ``seed``; the same two numbers give the same picture.

    Returns ``(rgb [H, W, 3] uint8, annotation)``: one entry of the bearpaw MPII schema plus
    ``head_box`` (x1, y1, x2, y2), all 1-based image px; joints outside the picture are [0, 0, 0].
    ``isValidation`` is 0: the set decides that.
    """
    rng = np.random.default_rng([seed, index])
    shape = (int(rng.integers(256, 321)), int(rng.integers(224, 337)))
    figure, legs = _pose_someone(rng)
    view = _main_view(rng, figure, shape)
    floor = view.project(np.stack(list(figure.points.values())))[:, 1].max()
    rgb, cloth = _backdrop(rng, shape, floor), _cloth_texture(rng, shape)
    light = np.array([rng.normal(0, 0.6), rng.uniform(0.2, 0.9), 1.0])
    light *= rng.uniform(0.35, 0.62) / np.linalg.norm(light)
    for _ in range(rng.choice(4, p=[0.55, 0.32, 0.1, 0.03])):
        other, posture = _pose_someone(rng)
        aside = _beside(rng, view, shape)
        _ground(rng, rgb, other, aside, posture)
        Canvas(rgb, cloth, light).draw(dress(rng, other), aside)
    _ground(rng, rgb, figure, view, legs)
    canvas, solids = Canvas(rgb, cloth, light), dress(rng, figure)
    canvas.draw(solids, view)
    joints = np.c_[view.project(figure.joints()), view.stature * figure.joints()[:, FORWARD]]
    front = _objects_in_front(rng, rgb, joints[:, :2], view.stature)
    names = [solid.name for solid in solids]
    seen = visible_joints(joints, canvas.part, canvas.nearness, names, front, view.stature)
    annotation = _annotation(rng, index, shape, joints[:, :2], seen, view.stature)
    low, high = head_outline(figure, view)
    margin = 0.036 * (high - low)  # as wide as MPII draws them
    annotation["head_box"] = np.round(np.r_[low - margin, high + margin] + 1, 2).tolist()
    return _photograph(rng, rgb), annotation


def _annotation(rng, index, shape, joints, seen, stature: float) -> dict:
    inside = (joints >= 0).all(1) & (joints <= np.array(shape[::-1]) - 1).all(1)
    self = np.c_[joints + 1, seen] * inside[:, None]
    scale = stature / 200 * float(np.clip(rng.normal(1, 0.03), 0.9, 1.1))
    # MPII's readers move the centre down by 15 * scale; about half of that lies in the raw one.
    middle = (joints.min(0) + joints.max(0)) / 2 + [0, -8 * scale] + rng.normal(0, 4, 2) * scale
    return {
        "dataset": "synthetic",
        "isValidation": 0.0,
        "img_paths": f"{index:06d}.jpg",
        "img_width": float(shape[1]),
        "img_height": float(shape[0]),
        "objpos": np.round(middle + 1, 2).tolist(),
        "joint_self": np.round(self, 2).tolist(),
        "scale_provided": round(scale, 4),
        "joint_others": [],
        "scale_provided_other": [],
        "objpos_other": [],
        "annolist_index": float(index + 1),
        "people_index": 1.0,
        "numOtherPeople": 0.0,
    }


def _one_thread() -> None:
    cv2.setNumThreads(1)  # the processes share the cores among them


def _encoded(index: int, seed: int):
    """Return ``(JPEG bytes, annotation)``; runs in worker processes."""
    rgb, annotation = picture(seed, index)
    quality = int(np.random.default_rng([seed, index, 1]).integers(60, 96))
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes(), annotation


def generate(folder: str, people: int, seed: int, workers: int) -> str:
    """Draw ``people`` pictures of one annotated person each; the last sixth is for validation.

    Writes ``folder/images/000000.jpg ...`` and then, whole or not at all,
    ``folder/annotations.json``: the bearpaw MPII schema plus ``head_box``. The files depend on
    ``people`` and ``seed`` alone, not on ``workers``, the number of processes.

    Returns the path of the annotation file. Raises ValueError for people, workers < 1, seed < 0.
    """
    for name, value, least in (("people", people, 1), ("workers", workers, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be {least} or more")
    import tensorflow as tf  # here, so that worker processes start without it

    from pipelines.io import write_atomically

    images, path = os.path.join(folder, "images"), os.path.join(folder, "annotations.json")
    tf.io.gfile.makedirs(images)
    if tf.io.gfile.exists(path):
        tf.io.gfile.remove(path)  # it must never lie with another set's images
    annotations = []
    for jpeg, annotation in _progress(people, seed, workers):
        write_atomically(os.path.join(images, annotation["img_paths"]), jpeg)
        annotation["isValidation"] = float(len(annotations) >= people - people // VALIDATION_SHARE)
        annotations.append(annotation)
    write_atomically(path, json.dumps(annotations).encode())
    return path


def _progress(people: int, seed: int, workers: int):
    show = functools.partial(tqdm.tqdm, total=people, unit=" people", desc="drawing people")
    draw = functools.partial(_encoded, seed=seed)
    if workers == 1:
        yield from show(map(draw, range(people)))
        return
    # Spawned, not forked: TensorFlow's threads do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(workers, _one_thread) as pool:
        yield from show(pool.imap(draw, range(people), chunksize=16))
