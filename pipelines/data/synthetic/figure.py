"""A jointed human figure: proportions of people, poses within joint limits, joints in space.

Two frames of reference. A body part's own axes are (right, up, forward) of the person. The
viewer's axes, in which everything is placed, are the same for a person who faces the viewer:
(image left, image up, towards the viewer), in statures.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from hourglass.skeleton import MPII

RIGHT, UP, FORWARD = 0, 1, 2
SIDES = {"right": 1.0, "left": -1.0}

# Bone lengths in statures (Drillis & Contini's segment table, opened up for person-to-person
# variation). The first six stand on top of each other and are scaled to add up to one.
LENGTHS = {
    "head": (0.145, 0.165),
    "neck": (0.040, 0.055),
    "trunk": (0.265, 0.295),
    "thigh": (0.232, 0.258),
    "shin": (0.222, 0.248),
    "sole": (0.034, 0.042),
    "upper_arm": (0.160, 0.182),
    "forearm": (0.138, 0.156),
    "half_shoulders": (0.098, 0.116),
    "half_hips": (0.050, 0.062),
}
_STACKED = ("head", "neck", "trunk", "thigh", "shin", "sole")

# Degrees. Positive: lean and flexion go forwards, abduction goes outwards, shoulder_twist turns
# the bent forearm inwards, elbow and knee bend the only way they can.
LIMITS = {
    "lean": (-20, 85),
    "side_lean": (-25, 25),
    "twist": (-30, 30),
    "head_pitch": (-45, 45),
    "head_yaw": (-65, 65),
    "head_roll": (-30, 30),
    "shoulder_flex": (-50, 178),
    "shoulder_abduct": (0, 160),
    "shoulder_twist": (-70, 85),
    "elbow": (2, 145),
    "hip_flex": (-25, 115),
    "hip_abduct": (-8, 50),
    "hip_twist": (-35, 20),
    "knee": (2, 140),
    "ankle": (-20, 40),
}
_TRUNK = tuple(LIMITS)[:6]
_LIMB = tuple(LIMITS)[6:]

# Ranges of angles. A pair of ranges goes to one side each, which side by chance.
_LEGS = {
    "stand": (4, {"hip_flex": (-4, 6), "hip_abduct": (0, 11), "knee": (2, 9)}),
    "relaxed": (
        2,
        {"hip_flex": ((-3, 3), (5, 22)), "hip_abduct": (2, 14), "knee": ((2, 5), (12, 42))},
    ),
    "straddle": (1, {"hip_flex": (-5, 8), "hip_abduct": (15, 38), "knee": (2, 20)}),
    "walk": (
        4,
        {"hip_flex": ((15, 34), (-22, -6)), "hip_abduct": (0, 5), "knee": ((4, 18), (12, 45))},
    ),
    "run": (
        3,
        {"hip_flex": ((40, 80), (-22, 0)), "hip_abduct": (0, 7), "knee": ((60, 110), (15, 85))},
    ),
    "lunge": (
        1,
        {"hip_flex": ((45, 75), (-22, -5)), "hip_abduct": (2, 12), "knee": ((50, 85), (10, 45))},
    ),
    "kick": (
        1,
        {"hip_flex": ((-6, 5), (35, 95)), "hip_abduct": (0, 25), "knee": ((2, 18), (4, 60))},
    ),
    "squat": (1, {"hip_flex": (60, 100), "hip_abduct": (10, 35), "knee": (70, 120)}),
    "sit": (3, {"hip_flex": (72, 96), "hip_abduct": (2, 20), "knee": (60, 100)}),
}
_ARMS = {
    "down": (5, {"shoulder_flex": (-12, 14), "shoulder_abduct": (5, 22), "elbow": (4, 35)}),
    "on hips": (
        2,
        {
            "shoulder_flex": (-25, -5),
            "shoulder_abduct": (38, 55),
            "shoulder_twist": (45, 75),
            "elbow": (85, 115),
        },
    ),
    "up": (3, {"shoulder_flex": (140, 178), "shoulder_abduct": (5, 45), "elbow": (4, 70)}),
    "one up": (
        3,
        {
            "shoulder_flex": ((120, 175), (-15, 20)),
            "shoulder_abduct": (5, 40),
            "elbow": ((4, 95), (4, 60)),
        },
    ),
    "wide": (
        2,
        {
            "shoulder_flex": (-10, 15),
            "shoulder_abduct": (55, 120),
            "elbow": (2, 70),
            "shoulder_twist": (-70, 0),
        },
    ),
    "crossed": (
        1,
        {
            "shoulder_flex": (18, 38),
            "shoulder_abduct": (8, 20),
            "shoulder_twist": (60, 80),
            "elbow": (88, 112),
        },
    ),
    "reach": (1.5, {"shoulder_flex": (45, 105), "shoulder_abduct": (0, 30), "elbow": (4, 70)}),
    "phone": (
        1,
        {
            "shoulder_flex": ((25, 55), (-8, 12)),
            "shoulder_abduct": (8, 35),
            "elbow": ((115, 142), (5, 45)),
        },
    ),
    "swing": (
        2,
        {"shoulder_flex": ((-42, -12), (15, 50)), "shoulder_abduct": (5, 15), "elbow": (15, 100)},
    ),
}


def turn(a: int, b: int, degrees: float) -> np.ndarray:
    """[3, 3] rotation that takes axis ``a`` towards axis ``b``."""
    matrix = np.eye(3)
    angle = np.radians(degrees)
    matrix[[a, b], [a, b]] = np.cos(angle)
    matrix[b, a], matrix[a, b] = np.sin(angle), -np.sin(angle)
    return matrix


def draw_lengths(rng: np.random.Generator) -> dict[str, float]:
    """Bone lengths of one person, statures; keys as in ``LENGTHS``. Both sides are alike."""
    lengths = {name: rng.uniform(*limits) for name, limits in LENGTHS.items()}
    total = sum(lengths[name] for name in _STACKED)
    return {n: v / total if n in _STACKED else v for n, v in lengths.items()}


def _choice(rng, weighted: dict):
    weights = np.array([entry[0] for entry in weighted.values()], float)
    return list(weighted)[rng.choice(len(weights), p=weights / weights.sum())]


def _draw_ranges(rng, ranges: dict, first: int, pose: dict) -> None:
    for name, limits in ranges.items():
        pair = limits if isinstance(limits[0], tuple) else (limits, limits)
        for side, chosen in zip(SIDES, pair if first == 0 else pair[::-1]):
            pose[f"{side}_{name}"] = rng.uniform(*chosen)


def draw_pose(rng: np.random.Generator) -> dict[str, float]:
    """Draw joint angles in degrees, inside ``LIMITS``: ``lean``, ``right_knee``, ``left_knee``...

    The key ``legs`` holds the name of the leg posture (a str), for the scene to add a seat.
    """
    legs = _choice(rng, _LEGS)
    arms = "swing" if legs in ("walk", "run") and rng.random() < 0.6 else _choice(rng, _ARMS)
    pose = {name: rng.normal(0, 6) for name in _TRUNK}
    pose.update({f"{side}_{name}": rng.normal(0, 5) for side in SIDES for name in _LIMB})
    leading = rng.integers(2)
    _draw_ranges(rng, _LEGS[legs][1], leading, pose)
    # The arm opposite to the leading leg swings forwards.
    _draw_ranges(rng, _ARMS[arms][1], leading if arms == "swing" else rng.integers(2), pose)
    _bend_trunk(rng, legs, pose)
    pose["head_yaw"] += rng.normal(0, 18)
    pose["head_pitch"] += rng.uniform(-8, 12) - 0.5 * pose["lean"]
    for name in pose:
        low, high = LIMITS[name.split("_", 1)[1] if name.startswith(tuple(SIDES)) else name]
        pose[name] = float(np.clip(pose[name], low, high))
    return {**pose, "legs": legs}


def _bend_trunk(rng, legs: str, pose: dict) -> None:
    bends = legs not in ("sit", "kick") and rng.random() < 0.06
    pose["lean"] += {"run": 10, "squat": 25, "lunge": 8}.get(legs, 2) + bends * rng.uniform(25, 65)
    if bends:  # arms keep hanging, or reach further down
        for side in SIDES:
            pose[f"{side}_shoulder_flex"] += rng.uniform(0.7, 1.1) * pose["lean"]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A posed body, in statures, viewer axes (image left, up, towards the viewer).

    Attributes:
      points: name -> [3]; MPII's joint names and the ends of hands and feet.
      frames: body part -> [3, 3], columns (right, up, forward) of that part.
      lengths: as from ``draw_lengths``.
    """

    points: dict[str, np.ndarray]
    frames: dict[str, np.ndarray]
    lengths: dict[str, float]

    def joints(self) -> np.ndarray:
        """[16, 3] float64 in MPII's order, statures."""
        return np.stack([self.points[name] for name in MPII.joints])


def place(lengths: dict[str, float], pose: dict[str, float], root: np.ndarray) -> Figure:
    """Forward kinematics. ``root`` [3, 3] turns the whole body; the pelvis is the origin."""
    chest = root @ turn(UP, FORWARD, pose["lean"]) @ turn(UP, RIGHT, pose["side_lean"])
    chest = chest @ turn(FORWARD, RIGHT, pose["twist"])
    head = chest @ turn(FORWARD, RIGHT, pose["head_yaw"]) @ turn(UP, FORWARD, pose["head_pitch"])
    head = head @ turn(UP, RIGHT, pose["head_roll"])
    pelvis = root @ turn(UP, FORWARD, 0.5 * pose["lean"])
    neck = chest @ turn(UP, FORWARD, 8 + 0.4 * pose["head_pitch"])
    points = {"pelvis": np.zeros(3), "thorax": lengths["trunk"] * chest[:, UP]}
    points["upper_neck"] = points["thorax"] + lengths["neck"] * neck[:, UP]
    points["head_top"] = points["upper_neck"] + lengths["head"] * head[:, UP]
    frames = {"pelvis": pelvis, "chest": chest, "neck": neck, "head": head}
    for side in SIDES:
        _place_arm(side, lengths, pose, points, frames)
        _place_leg(side, root, lengths, pose, points, frames)
    return Figure(points, frames, lengths)


def _place_arm(side, lengths, pose, points, frames) -> None:
    out, chest = SIDES[side], frames["chest"]
    flex, abduct = pose[f"{side}_shoulder_flex"], pose[f"{side}_shoulder_abduct"]
    upper = chest @ turn(UP, FORWARD, -flex) @ turn(UP, RIGHT, -out * abduct)
    upper = upper @ turn(FORWARD, RIGHT, -out * pose[f"{side}_shoulder_twist"])
    fore = upper @ turn(UP, FORWARD, -pose[f"{side}_elbow"])
    lift = 0.03 * max(flex, abduct) / 160 - 0.018  # a raised arm takes the shoulder with it
    shoulder = points["thorax"] + chest @ [out * lengths["half_shoulders"], lift, 0]
    points[f"{side}_shoulder"] = shoulder
    points[f"{side}_elbow"] = shoulder - lengths["upper_arm"] * upper[:, UP]
    points[f"{side}_wrist"] = points[f"{side}_elbow"] - lengths["forearm"] * fore[:, UP]
    points[f"{side}_hand"] = points[f"{side}_wrist"] - 0.058 * fore[:, UP]
    frames.update({f"{side}_upper_arm": upper, f"{side}_forearm": fore, f"{side}_hand": fore})


def _place_leg(side, root, lengths, pose, points, frames) -> None:
    out = SIDES[side]
    thigh = root @ turn(UP, FORWARD, -pose[f"{side}_hip_flex"])
    thigh = thigh @ turn(UP, RIGHT, -out * pose[f"{side}_hip_abduct"])
    thigh = thigh @ turn(FORWARD, RIGHT, -out * pose[f"{side}_hip_twist"])
    shin = thigh @ turn(UP, FORWARD, pose[f"{side}_knee"])
    foot = shin @ turn(FORWARD, UP, -pose[f"{side}_ankle"])
    hip = frames["pelvis"][:, RIGHT] * out * lengths["half_hips"]
    points[f"{side}_hip"] = hip
    points[f"{side}_knee"] = hip - lengths["thigh"] * thigh[:, UP]
    ankle = points[f"{side}_knee"] - lengths["shin"] * shin[:, UP]
    points[f"{side}_ankle"] = ankle
    sole = ankle - 0.45 * lengths["sole"] * foot[:, UP]
    points[f"{side}_heel"] = sole - 0.016 * foot[:, FORWARD]
    points[f"{side}_toe"] = sole + 0.092 * foot[:, FORWARD] - 0.008 * foot[:, UP]
    # A foot's long axis is its forward axis, so its instep takes the place of "forward".
    foot = np.stack([foot[:, RIGHT], -foot[:, FORWARD], foot[:, UP]], axis=1)
    frames.update({f"{side}_thigh": thigh, f"{side}_shin": shin, f"{side}_foot": foot})
