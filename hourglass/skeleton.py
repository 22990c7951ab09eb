"""Joints by name; mirror pairs, limbs and PCKh groups are derived from the names."""

from __future__ import annotations

import dataclasses

# Drawn wherever both ends exist in a joint set.
_BONES = (
    ("right_ankle", "right_knee"),
    ("right_knee", "right_hip"),
    ("left_ankle", "left_knee"),
    ("left_knee", "left_hip"),
    ("right_hip", "pelvis"),
    ("left_hip", "pelvis"),
    ("pelvis", "thorax"),
    ("thorax", "upper_neck"),
    ("upper_neck", "head_top"),
    ("neck", "head_top"),
    ("right_wrist", "right_elbow"),
    ("right_elbow", "right_shoulder"),
    ("left_wrist", "left_elbow"),
    ("left_elbow", "left_shoulder"),
    ("right_shoulder", "thorax"),
    ("left_shoulder", "thorax"),
    ("right_shoulder", "neck"),
    ("left_shoulder", "neck"),
    ("right_hip", "left_hip"),
    ("right_shoulder", "right_hip"),
    ("left_shoulder", "left_hip"),
)

# The columns of the published tables (pytorch-pose, HRNet): "head" is the head top alone.
_GROUPS = {
    "head": ("head_top",),
    "shoulder": ("right_shoulder", "left_shoulder"),
    "elbow": ("right_elbow", "left_elbow"),
    "wrist": ("right_wrist", "left_wrist"),
    "hip": ("right_hip", "left_hip"),
    "knee": ("right_knee", "left_knee"),
    "ankle": ("right_ankle", "left_ankle"),
}


def _other_side(name: str) -> str:
    for side, other in (("right", "left"), ("left", "right")):
        if name.startswith(side + "_"):
            return other + name[len(side) :]
    return name


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """An ordered joint set. Index j everywhere means ``joints[j]``.

    Raises ValueError for an empty set, a repeated name, or a left joint without its right one.
    """

    joints: tuple[str, ...]

    def __post_init__(self):
        """Check the names once, so that everything derived from them exists."""
        if not self.joints or len(set(self.joints)) != len(self.joints):
            raise ValueError(f"joints must be one or more different names, not {self.joints}")
        lonely = [name for name in self.joints if _other_side(name) not in self.joints]
        if lonely:
            raise ValueError(f"joints without their mirror image: {lonely}; name both sides")

    def __len__(self) -> int:
        """Return J, the number of joints."""
        return len(self.joints)

    def index(self, name: str) -> int:
        """Index of a joint by name; ValueError when the set has no such joint."""
        return self.joints.index(name)

    @property
    def mirror(self) -> tuple[int, ...]:
        """[J] permutation: joint j of a mirrored picture is joint ``mirror[j]`` of the original."""
        return tuple(self.joints.index(_other_side(name)) for name in self.joints)

    @property
    def limbs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of joint indices to draw as lines; never two lines for one bone."""
        return tuple((self.index(a), self.index(b)) for a, b in _BONES if self._draws(a, b))

    def _draws(self, a: str, b: str) -> bool:
        if a not in self.joints or b not in self.joints:
            return False
        torso = {"right_hip": "pelvis", "right_shoulder": "thorax", "left_shoulder": "thorax"}
        return not (b in ("left_hip", "right_hip") and torso.get(a) in self.joints)

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """PCKh table columns -> joint indices, for the joints that this set has."""
        return {
            group: tuple(self.index(name) for name in names)
            for group, names in _GROUPS.items()
            if all(name in self.joints for name in names)
        }


MPII = Skeleton(
    (
        "right_ankle",
        "right_knee",
        "right_hip",
        "left_hip",
        "left_knee",
        "left_ankle",
        "pelvis",
        "thorax",
        "upper_neck",
        "head_top",
        "right_wrist",
        "right_elbow",
        "right_shoulder",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
    )
)

LSP = Skeleton(
    (
        "right_ankle",
        "right_knee",
        "right_hip",
        "left_hip",
        "left_knee",
        "left_ankle",
        "right_wrist",
        "right_elbow",
        "right_shoulder",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "neck",
        "head_top",
    )
)
