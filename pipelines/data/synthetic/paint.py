"""People as they are seen: clothes, hair and faces, and one body drawn with true visibility."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from pipelines.data.synthetic.figure import FORWARD, RIGHT, SIDES, UP, Figure


@dataclasses.dataclass(frozen=True)
class Solid:
    """One body part: an elliptic tube with rounded ends, start and end in viewer axes, statures.

    Attributes:
      lateral, depth: half-widths [3] along the tube (quadratic Bezier), to the part's right and
        forward.
      caps: [2] how far each end bulges past ``start`` and ``end``.
      color: [3] RGB in [0, 1]; ``pattern``: (kind, second colour, period in statures) or None.
      marks: (from, to, azimuth, half-angle, RGB): patches on the surface, along the tube in
        [0, 1], azimuth in radians from the part's forward, positive to the person's right.
      face: the head's colours, or None for every other part.
    """

    name: str
    start: np.ndarray
    end: np.ndarray
    frame: np.ndarray
    lateral: np.ndarray
    depth: np.ndarray
    caps: np.ndarray
    color: np.ndarray
    pattern: tuple | None = None
    marks: tuple = ()
    face: dict | None = None


@dataclasses.dataclass(frozen=True)
class View:
    """Parallel projection: the pelvis at ``origin`` [2] image px, ``stature`` in image px."""

    origin: np.ndarray
    stature: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """[..., 3] viewer axes, statures -> [..., 2] image px (x, y)."""
        return self.origin - self.stature * np.asarray(points)[..., :2]


class Canvas:
    """What one person is drawn on: the picture and, per pixel, which part is nearest.

    Attributes:
      rgb: [H, W, 3] float32 in [0, 1], shared with the scene behind.
      part: [H, W] uint8, 0 where nothing of this person is, else 1 + index in the list drawn.
      nearness: [H, W] float32, image px towards the viewer from the pelvis; -inf where part is 0.
      cloth: [H, W] float32 around 1, the folds and weave of everything drawn.
      light: [3] viewer axes; its length is the share of directed light.
    """

    def __init__(self, rgb: np.ndarray, cloth: np.ndarray, light: np.ndarray):
        """Start with ``rgb`` and no person, which is then drawn over in place."""
        self.rgb, self.cloth, self.light = rgb, cloth, light
        self.part = np.zeros(rgb.shape[:2], np.uint8)
        self.nearness = np.full(rgb.shape[:2], -np.inf, np.float32)

    def draw(self, solids: list[Solid], view: View) -> None:
        """Draw all parts; what is nearer hides what is farther, pixel by pixel."""
        order = np.argsort([(s.start + s.end)[FORWARD] for s in solids], kind="stable")
        for index in order:
            self._draw_solid(solids[index], 1 + int(index), view)

    def _draw_solid(self, solid: Solid, label: int, view: View) -> None:
        tube = _Tube(solid, view)
        window = tube.window(self.part.shape)
        if window is None:
            return
        cover, near, normal, u = tube.cover(window)
        shown = cover * (near > self.nearness[window])
        albedo = _face(solid, normal, tube) if solid.face else _cloth(solid, u, normal[0], tube)
        light = tube.to_image_axes(self.light)
        shade = sum(a * n for a, n in zip(light, normal))
        shade = (1.02 - np.linalg.norm(self.light)) + np.maximum(shade, -0.12)
        albedo *= (shade * self.cloth[window])[..., None]
        rgb = self.rgb[window]
        albedo -= rgb
        albedo *= shown[..., None]
        rgb += albedo
        solid_pixels = shown > 0.5
        self.part[window][solid_pixels] = label
        self.nearness[window][solid_pixels] = near[solid_pixels]


class _Tube:
    """A solid's outline in image px: axes along and across, half-widths, azimuth of its front."""

    def __init__(self, solid: Solid, view: View):
        px = view.stature
        self.start, end = view.project(solid.start), view.project(solid.end)
        self.near = px * np.array([solid.start[FORWARD], solid.end[FORWARD]])
        self.length = float(np.linalg.norm(end - self.start))
        up = solid.frame[:, UP]
        along = end - self.start if self.length > 0.5 else -up[:2] + [0, 1e-6]
        along = along / np.linalg.norm(along)
        self.along, self.across = along, np.array([-along[1], along[0]])
        front = self.to_image_axes(solid.frame[:, FORWARD])
        right = self.to_image_axes(solid.frame[:, RIGHT])
        self.front = np.arctan2(front[0], front[2])
        self.hand = np.sign(np.sin(np.arctan2(right[0], right[2]) - self.front)) or 1.0
        c, s = np.cos(self.front), np.sin(self.front)
        self.half = px * np.hypot(solid.lateral * c, solid.depth * s)
        self.thick = px * np.hypot(solid.lateral * s, solid.depth * c)
        tilt = np.sqrt(max(0.0, 1 - up[FORWARD] ** 2))
        self.caps = np.hypot(px * solid.caps * tilt, self.thick[[0, 2]] * up[FORWARD])
        self.end = end

    def to_image_axes(self, vector: np.ndarray) -> np.ndarray:
        """[3] viewer axes -> (across, along, towards the viewer)."""
        xy = -vector[:2]
        return np.array([xy @ self.across, xy @ self.along, vector[FORWARD]])

    def window(self, shape) -> tuple | None:
        reach = max(self.half.max(), self.caps.max()) + 1
        low = np.floor(np.minimum(self.start, self.end) - reach).astype(int)
        high = np.ceil(np.maximum(self.start, self.end) + reach).astype(int) + 1
        low, high = np.maximum(low, 0), np.minimum(high, [shape[1], shape[0]])
        return None if (high <= low).any() else (slice(low[1], high[1]), slice(low[0], high[0]))

    def cover(self, window):
        """Per pixel: share covered, nearness in px, (across, along, out) normal, position along."""
        y = (np.arange(window[0].start, window[0].stop) - self.start[1]).astype(np.float32)[:, None]
        x = (np.arange(window[1].start, window[1].stop) - self.start[0]).astype(np.float32)[None]
        shapes = (self.along, self.across, self.half, self.thick)
        along, across, half, thick = (shape.astype(np.float32) for shape in shapes)
        s, t = x * along[0] + y * along[1], x * across[0] + y * across[1]
        u = np.clip(s / np.float32(max(self.length, 1e-3)), 0, 1) if self.length > 0.5 else 0 * s
        past = s - u * np.float32(self.length)
        cap = np.where(past < 0, *self.caps.astype(np.float32))
        v = 1 - u
        width = v * v * half[0] + 2 * u * v * half[1] + u * u * half[2]
        t, past = t / width, past / cap
        square = t * t + past * past
        cover = np.clip((1 - np.sqrt(square)) * np.minimum(width, cap) + 0.5, 0, 1)
        out = np.sqrt(np.maximum(1 - square, 0))
        deep = v * thick[0] + u * thick[2]
        near = v * np.float32(self.near[0]) + u * np.float32(self.near[1]) + deep * out
        return cover, near, (t, past, out), u


def _cloth(solid: Solid, u, across, tube: _Tube) -> np.ndarray:
    """[h, w, 3] RGB of a tube's surface, wrapped around it."""
    albedo = np.empty(u.shape + (3,), np.float32)
    albedo[:] = solid.color
    if solid.pattern is None and not solid.marks:
        return albedo
    azimuth = tube.hand * (np.arcsin(np.clip(across, -1, 1)) - np.float32(tube.front))
    azimuth = np.remainder(azimuth + np.pi, 2 * np.pi) - np.pi
    if solid.pattern is not None:
        kind, second, period = solid.pattern
        length = np.linalg.norm(solid.end - solid.start)
        rings = np.remainder(u * (length / period), 1) < 0.45
        lines = np.remainder(azimuth * (solid.lateral[1] / period), 1) < 0.4
        albedo[{"hoops": rings, "stripes": lines, "checks": rings ^ lines}[kind]] = second
    for start, stop, where, half, color in solid.marks:
        near = np.abs(np.remainder(azimuth - where + np.pi, 2 * np.pi) - np.pi) <= half
        albedo[(u >= start) & (u <= stop) & near] = color
    return albedo


def _face(solid: Solid, normal, tube: _Tube) -> np.ndarray:
    """[h, w, 3] RGB of a head, from each pixel's direction in the head's own axes."""
    face, frame = solid.face, solid.frame
    brows = 0.4 * face["skin"] + 0.6 * face["hair"]
    axes = [tube.to_image_axes(frame[:, axis]).astype(np.float32) for axis in range(3)]
    right, up, forward = (sum(a * n for a, n in zip(axis, normal)) for axis in axes)
    albedo = np.empty(right.shape + (3,), np.float32)
    albedo[:] = face["skin"]
    side = np.abs(right)
    ahead = forward > 0
    albedo[(side > 0.86) & (np.abs(up + 0.05) < 0.22)] *= 0.82  # ears
    albedo[ahead & (side < 0.1) & (up < 0.12) & (up > -0.28)] *= 0.84  # nose
    if face["beard"]:
        albedo[ahead & (up < -0.32) & (up - 0.5 * side < -0.3)] = face["hair"]
    albedo[ahead & (side < 0.3) & (np.abs(up + 0.5) < 0.07)] = face["lips"]
    albedo[ahead & (np.abs(side - 0.37) < 0.17) & (np.abs(up - 0.1) < 0.075)] = (0.9, 0.92, 0.9)
    albedo[ahead & (np.abs(side - 0.37) < 0.1) & (np.abs(up - 0.1) < 0.075)] = face["eyes"]
    albedo[ahead & (np.abs(side - 0.37) < 0.22) & (np.abs(up - 0.29) < 0.045)] = brows
    albedo[forward < face["hairline"] + 0.95 * up] = face["hair"]
    if face["hat"] is not None:
        albedo[up > 0.38 - 0.1 * forward] = face["hat"]
    return albedo


_SKIN = (
    (242, 208, 182),
    (226, 180, 146),
    (198, 144, 108),
    (164, 112, 78),
    (120, 78, 54),
    (84, 54, 40),
)
_HAIR = ((28, 24, 22), (52, 36, 26), (92, 62, 38), (150, 112, 62), (196, 160, 100), (120, 116, 112))

# Half-widths in statures, along the tube: (lateral, depth, caps).
_WIDTHS = {
    "thigh": ((0.050, 0.050, 0.035), (0.050, 0.050, 0.035), (0.050, 0.035)),
    "shin": ((0.035, 0.041, 0.024), (0.035, 0.041, 0.024), (0.035, 0.024)),
    "foot": ((0.024, 0.032, 0.022), (0.026, 0.022, 0.014), (0.024, 0.020)),
    "upper_arm": ((0.034, 0.034, 0.026), (0.034, 0.034, 0.026), (0.034, 0.026)),
    "forearm": ((0.027, 0.029, 0.018), (0.027, 0.029, 0.018), (0.027, 0.018)),
    "hand": ((0.016, 0.028, 0.016), (0.014, 0.018, 0.012), (0.014, 0.018)),
    "pelvis": ((0.078, 0.096, 0.086), (0.056, 0.068, 0.060), (0.020, 0.040)),
    "chest": ((0.083, 0.124, 0.088), (0.062, 0.080, 0.056), (0.020, 0.036)),
    "neck": ((0.036, 0.029, 0.029), (0.034, 0.029, 0.029), (0.010, 0.020)),
    "head": ((0.054, 0.054, 0.054), (0.062, 0.062, 0.062), (0.071, 0.071)),
    "nose": ((0.007, 0.009, 0.010), (0.007, 0.009, 0.010), (0.006, 0.007)),
    "long_hair": ((0.050, 0.056, 0.036), (0.022, 0.030, 0.018), (0.030, 0.020)),
    "backpack": ((0.080, 0.098, 0.076), (0.040, 0.046, 0.040), (0.020, 0.030)),
}


def head_centre(figure: Figure) -> np.ndarray:
    """[3] centre of the head's ellipsoid, viewer axes, statures."""
    axes = figure.frames["head"]
    rise = figure.lengths["head"] - _WIDTHS["head"][2][0]
    return figure.points["upper_neck"] + rise * axes[:, UP] + 0.012 * axes[:, FORWARD]


def head_outline(figure: Figure, view: View) -> np.ndarray:
    """[2, 2] float64 image px: least and greatest (x, y) of the head's ellipsoid."""
    radii = np.array([_WIDTHS["head"][0][0], _WIDTHS["head"][2][0], _WIDTHS["head"][1][0]])
    reach = view.stature * np.linalg.norm(figure.frames["head"][:2] * radii, axis=1)
    centre = view.project(head_centre(figure))
    return np.stack([centre - reach, centre + reach])


def _cloth_color(rng: np.random.Generator) -> np.ndarray:
    hue, saturation = rng.uniform(0, 360), rng.beta(1.6, 1.8)
    hsv = np.array([[[hue, saturation, rng.uniform(0.18, 0.95)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]


def _contrast(rng: np.random.Generator, color: np.ndarray) -> np.ndarray:
    other = _cloth_color(rng)
    if np.abs(other - color).max() > 0.4:
        return other
    return np.full(3, 0.93 if color.mean() < 0.5 else 0.06)


def _pattern(rng: np.random.Generator, color: np.ndarray):
    if rng.random() < 0.6:
        return None
    second = 0.55 * color + 0.45 * _cloth_color(rng)
    return str(rng.choice(["hoops", "stripes", "checks"])), second, rng.uniform(0.025, 0.07)


_TINT = {"front": (0.95, 0.72, 0.30), "behind": (0.08, 0.12, 0.42)}


class _Wardrobe:
    """What one person wears, drawn once; front and back differ.

    On real people faces, hands and gait tell front from back and so left from right, which takes
    a network hours to learn. Here clothes are warm and light in front and cool and dark behind, so
    that minutes are enough. A cue on one side only, such as a red right sleeve, would be wrong:
    mirror augmentation makes it a red left one.
    """

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        tone, mix = divmod(rng.uniform(0, len(_SKIN) - 1.001), 1)
        lighter, darker = np.array(_SKIN[int(tone) : int(tone) + 2]) / 255
        self.skin = (1 - mix) * lighter + mix * darker
        self.hair = np.array(_HAIR[rng.integers(len(_HAIR))]) / 255 * rng.uniform(0.8, 1.2)
        self.shirt, self.trousers, self.shoes = (_cloth_color(rng) for _ in range(3))
        self.shirt_pattern = _pattern(rng, self.shirt)
        self.trouser_pattern = _pattern(rng, self.trousers) if rng.random() < 0.4 else None
        self.sleeve = rng.choice([0.45, 0.7, 1.0, 2.0], p=[0.25, 0.2, 0.1, 0.45])
        self.leg = rng.choice([0.55, 0.9, 2.0], p=[0.2, 0.12, 0.68])
        self.tint = {way: np.clip(_TINT[way] + rng.normal(0, 0.05, 3), 0, 1) for way in _TINT}
        self.banded = {"arm": rng.random() < 0.3, "leg": rng.random() < 0.3}
        self.accent = {"arm": _contrast(rng, self.shirt), "leg": _contrast(rng, self.trousers)}
        self.girth = rng.uniform(0.88, 1.2)
        self.loose = {"arm": rng.uniform(1.0, 1.2), "leg": rng.uniform(1.0, 1.25)}

    def limb(self, limb: str, which: int):
        """Colour, pattern and marks of the upper (which = 0) or lower (1) part of a limb."""
        color = self.shirt if limb == "arm" else self.trousers
        pattern = self.shirt_pattern if limb == "arm" else self.trouser_pattern
        reach = (self.sleeve if limb == "arm" else self.leg) - which
        marks = [self.back(color)]
        if self.banded[limb]:
            middle = 0.28 if which == 0 and limb == "arm" else 0.45
            marks.append((middle - 0.12, middle + 0.12, 0.0, np.pi, self.accent[limb]))
        if reach < 1:
            marks.append((reach, 1.0, 0.0, np.pi, self.skin))
        return self.tinted(color, "front"), pattern, tuple(marks)

    def tinted(self, color: np.ndarray, way: str) -> np.ndarray:
        """A cloth's colour in "front" or "behind"."""
        return 0.45 * color + 0.55 * self.tint[way]

    def back(self, color: np.ndarray) -> tuple:
        """The mark that makes the back half of a part dark."""
        return (0.0, 1.0, np.pi, 0.5 * np.pi, self.tinted(color, "behind"))

    def chest_marks(self) -> tuple:
        """Front: collar and buttons, print or straps. Back: a yoke, a number or nothing."""
        front, accent = self.rng.integers(4), self.accent["arm"]
        marks = [self.back(self.shirt), (0.9, 1.0, 0.0, 0.5, self.skin)]
        if front == 0:
            marks.append((0.0, 0.92, 0.0, 0.09, accent))
        elif front == 1:
            marks.append((0.45, 0.75, 0.0, 0.55, accent))
            marks.append((0.53, 0.67, 0.0, 0.4, 0.5 * accent + 0.5 * self.shirt))
        elif front == 2:
            marks += [(0.35, 1.0, where, 0.16, accent) for where in (-0.75, 0.75)]
        else:
            marks += [(0.6, 0.78, 0.55, 0.25, accent), (0.0, 0.08, 0.0, np.pi, accent)]
        if self.rng.random() < 0.4:
            marks.append((0.8, 0.9, np.pi, 1.1, accent))
        return tuple(marks)

    def face(self) -> dict:
        """Colours of the head."""
        rng = self.rng
        return {
            "skin": self.skin,
            "hair": self.hair,
            "lips": self.skin * [0.82, 0.55, 0.55],
            "eyes": (0.12, 0.1, 0.1),
            "beard": rng.random() < 0.2,
            "hairline": rng.uniform(-0.35, -0.15),
            "hat": _cloth_color(rng) if rng.random() < 0.2 else None,
        }


def dress(rng: np.random.Generator, figure: Figure) -> list[Solid]:
    """All visible parts of a person, in clothes drawn from ``rng``."""
    worn = _Wardrobe(rng)
    solids = [
        _trunk_part(worn, figure, name) for name in ("pelvis", "chest", "neck", "head", "nose")
    ]
    if rng.random() < 0.3:
        solids.append(_trunk_part(worn, figure, "long_hair"))
    if rng.random() < 0.12:
        solids.append(_trunk_part(worn, figure, "backpack"))
    for side in SIDES:
        solids += _limb_parts(worn, figure, side)
    return solids


def _sized(name: str, factor: float) -> dict:
    lateral, depth, caps = (factor * np.array(widths) for widths in _WIDTHS[name])
    return {"lateral": lateral, "depth": depth, "caps": caps}


def _trunk_part(worn: _Wardrobe, figure: Figure, name: str) -> Solid:
    start, end, frame = _trunk_ends(figure)[name]
    color, pattern, marks, face = worn.skin, None, (), None
    if name == "pelvis":
        color, pattern = worn.tinted(worn.trousers, "front"), worn.trouser_pattern
        marks = (worn.back(worn.trousers),)
    elif name == "chest":
        color, pattern = worn.tinted(worn.shirt, "front"), worn.shirt_pattern
        marks = worn.chest_marks()
    elif name == "head":
        face = worn.face()
    elif name == "long_hair":
        color = worn.hair
    elif name == "backpack":
        color = worn.accent["leg"]
        marks = ((0.5, 0.8, np.pi, 0.6, 0.7 * color),)
    size = _sized(name, worn.girth if name in ("pelvis", "chest", "backpack") else 1)
    return Solid(name, start, end, figure.frames[frame], **size, color=color, pattern=pattern,
                 marks=marks, face=face)  # fmt: skip


def _trunk_ends(figure: Figure) -> dict:
    """Part -> (start, end, the frame it follows)."""
    chest, pelvis, head = (figure.frames[name] for name in ("chest", "pelvis", "head"))
    spine, centre = figure.points["thorax"], head_centre(figure)
    return {
        "pelvis": (
            pelvis @ [0, 0.3 * figure.lengths["trunk"], 0],
            pelvis @ [0, -0.03, 0],
            "pelvis",
        ),
        "chest": (0.17 * spine, 0.97 * spine, "chest"),
        "neck": (0.96 * spine, figure.points["upper_neck"] + head @ [0, 0.01, 0], "neck"),
        "head": (centre, centre, "head"),
        "nose": (centre + head @ [0, 0.004, 0.06], centre + head @ [0, -0.014, 0.066], "head"),
        "long_hair": (centre + head @ [0, 0, -0.04], spine + chest @ [0, -0.035, -0.065], "neck"),
        "backpack": (
            0.9 * spine + chest @ [0, 0, -0.105],
            0.3 * spine + chest @ [0, 0, -0.11],
            "chest",
        ),
    }


_LIMBS = (
    ("upper_arm", "shoulder", "elbow", "arm", 0),
    ("forearm", "elbow", "wrist", "arm", 1),
    ("thigh", "hip", "knee", "leg", 0),
    ("shin", "knee", "ankle", "leg", 1),
)


def _limb_parts(worn: _Wardrobe, figure: Figure, side: str) -> list[Solid]:
    points, frames, parts = figure.points, figure.frames, []
    for part, start, end, limb, which in _LIMBS:
        name = f"{side}_{part}"
        color, pattern, marks = worn.limb(limb, which)
        covered = (worn.sleeve if limb == "arm" else worn.leg) >= which + 1
        size = _sized(part, worn.girth * (worn.loose[limb] if covered else 1))
        ends = points[f"{side}_{start}"], points[f"{side}_{end}"]
        look = {"color": color, "pattern": pattern, "marks": marks}
        parts.append(Solid(name, *ends, frames[name], **size, **look))
    for part, start, end, color in (
        ("hand", "wrist", "hand", worn.skin),
        ("foot", "heel", "toe", worn.shoes),
    ):
        name = f"{side}_{part}"
        ends = points[f"{side}_{start}"], points[f"{side}_{end}"]
        parts.append(Solid(name, *ends, frames[name], **_sized(part, 1), color=color))
    return parts
