"""Joints by name; mirror pairs, limbs and PCKh groups are derived from the names or given."""

from __future__ import annotations

import dataclasses
import re
from operator import index

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


# Where a name has no separator: LeftEye, leftEye, LEye.
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}


def _words(name: str) -> tuple[str, ...]:
    """Words of a name in lower case: "LeftEye", "left_eye" and "Left eye" are the same."""
    return tuple(word.lower() for word in re.split(r"[\W_]+", _CAMEL.sub("_", name)) if word)


def side(joint: str) -> str:
    """Return "left" or "right" if a joint's name contains that word or its initial, else "".

    Any case, anywhere: left_eye, R_Knee, front_left_paw, ear-r, LeftEar; not "cleft" or "tail".
    """
    words = [word for word in _words(joint) if word in _OTHER]
    return {"l": "left", "r": "right"}.get(words[0], words[0]) if words else ""


def _without_side(name: str) -> str:
    return "_".join(word for word in _words(name) if word not in _OTHER)


def _mirror_by_name(joints: tuple[str, ...]) -> tuple[int | None, ...]:
    """Each joint's mirror image; itself for a name without a side, None if it has no partner."""
    indices = {_words(name): j for j, name in enumerate(joints)}
    return tuple(
        indices.get(tuple(_OTHER.get(word, word) for word in _words(name))) if side(name) else j
        for j, name in enumerate(joints)
    )


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """An ordered joint set. Index j everywhere means ``joints[j]``.

    Two sets with the same joints in the same order are equal, even with other pairs and bones.

    Attributes:
      joints: J names.
      pairs: joint indices that are swapped in a mirrored picture; the other joints are their own
        mirror images. None: derived from the names, see ``side``.
      bones: joint indices to connect by lines. None: derived from the names that are known.

    Raises ValueError for an empty set, a repeated name, a left joint without a right one when
    ``pairs`` is None, or for pairs and bones with indices outside this set.
    """

    joints: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...] | None = dataclasses.field(default=None, compare=False)
    bones: tuple[tuple[int, int], ...] | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self):
        """Validate once, so that all derived properties exist."""
        if not self.joints or len(set(self.joints)) != len(self.joints):
            raise ValueError(f"joints must be one or more different names, not {self.joints}")
        for a, b in (*(self.pairs or ()), *(self.bones or ())):
            if not (0 <= min(a, b) and max(a, b) < len(self.joints) and a != b):
                raise ValueError(f"{(a, b)} are not two of {len(self.joints)} joints, from 0")
        if self.pairs is None:
            self._check_names()
        elif len({j for pair in self.pairs for j in pair}) != 2 * len(self.pairs):
            raise ValueError(f"a joint has two mirror images in the pairs {self.pairs}")

    def _check_names(self) -> None:
        mirror = _mirror_by_name(self.joints)
        unpaired = [name for name, other in zip(self.joints, mirror) if other is None]
        if unpaired:
            raise ValueError(f"joints without their mirror image: {unpaired}; name both sides")
        same = [self.joints[j] for j, other in enumerate(mirror) if mirror[other] != j]
        if same:
            raise ValueError(f"joints with the same name but for spelling: {same}; rename one")

    @classmethod
    def from_parts(cls, parts: dict) -> Skeleton:
        """Build the set from the dict of ``to_parts``; pairs and limbs may be absent.

        Raises KeyError, TypeError or ValueError for an invalid dict.
        """
        names, given = parts["joints"], [parts.get(key) for key in ("mirror_pairs", "limbs")]
        if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names):
            raise ValueError("joints should be a list of names")
        pairs, bones = (
            v if v is None else tuple((index(a), index(b)) for a, b in v) for v in given
        )
        return cls(tuple(names), pairs, bones)

    def to_parts(self) -> dict:
        """The set as a dict for JSON: joints, mirror_pairs, limbs."""
        pairs = [[a, b] for a, b in enumerate(self.mirror) if a < b]
        return {
            "joints": list(self.joints),
            "mirror_pairs": pairs,
            "limbs": [list(limb) for limb in self.limbs],
        }

    def __len__(self) -> int:
        """Return J, the number of joints."""
        return len(self.joints)

    def index(self, name: str) -> int:
        """Index of a joint by name; ValueError when the set has no such joint."""
        return self.joints.index(name)

    @property
    def mirror(self) -> tuple[int, ...]:
        """[J] permutation: joint j of a mirrored picture is joint ``mirror[j]`` of the original."""
        if self.pairs is None:
            return _mirror_by_name(self.joints)
        other = {a: b for pair in self.pairs for a, b in (pair, pair[::-1])}
        return tuple(other.get(j, j) for j in range(len(self.joints)))

    @property
    def limbs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of joint indices to connect by lines, without duplicates of a bone."""
        if self.bones is not None:
            return self.bones
        return tuple((self.index(a), self.index(b)) for a, b in _BONES if self._draws(a, b))

    def _draws(self, a: str, b: str) -> bool:
        if a not in self.joints or b not in self.joints:
            return False
        torso = {"right_hip": "pelvis", "right_shoulder": "thorax", "left_shoulder": "thorax"}
        return not (b in ("left_hip", "right_hip") and torso.get(a) in self.joints)

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """PCKh table columns -> joint indices, of a pair the right joint first.

        MPII's and LSP's joints: the published columns. Any other set: a column for each mirror
        pair, named as its joints without the side, and one for each joint that has no pair.
        """
        if {name for bone in _BONES for name in bone}.issuperset(self.joints):
            return {
                group: tuple(self.index(name) for name in names)
                for group, names in _GROUPS.items()
                if all(name in self.joints for name in names)
            }
        columns = {}
        for j, other in enumerate(self.mirror):
            if j <= other:
                ends = sorted({j, other}, key=lambda end: side(self.joints[end]) != "right")
                columns[self._column(ends, columns)] = tuple(ends)
        return columns

    def _column(self, ends: list[int], taken: dict) -> str:
        names = [self.joints[end] for end in ends]
        common = {_without_side(name) for name in names}
        name = common.pop() if len(names) == 2 and len(common) == 1 else ""
        return name if name and name not in (*self.joints, *taken) else "/".join(names)


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
