import json

import pytest

from hourglass.skeleton import LSP, MPII, Skeleton, side

# The order of the published files (MPII's ids 0-15; LSP's README).
MPII_ORDER = (
    "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax upper_neck "
    "head_top right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist"
).split()
LSP_TO_MPII = {
    0: 0,
    1: 1,
    2: 2,
    3: 3,
    4: 4,
    5: 5,
    6: 10,
    7: 11,
    8: 12,
    9: 13,
    10: 14,
    11: 15,
    13: 9,
}


def test_published_orders():
    assert list(MPII.joints) == MPII_ORDER and len(MPII) == 16
    assert len(LSP) == 14 and LSP.index("neck") == 12
    assert {LSP.index(n): MPII.index(n) for n in LSP.joints if n in MPII.joints} == LSP_TO_MPII


def test_mirror_pairs():
    # pytorch-pose's MPII matched parts: (0,5) (1,4) (2,3) (10,15) (11,14) (12,13).
    assert MPII.mirror == (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)
    assert LSP.mirror == (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13)


@pytest.mark.parametrize("skeleton", [MPII, LSP], ids=["mpii", "lsp"])
def test_mirroring_twice_changes_nothing_and_keeps_limbs(skeleton):
    mirror = skeleton.mirror
    assert [mirror[mirror[j]] for j in range(len(skeleton))] == list(range(len(skeleton)))
    limbs = {frozenset(limb) for limb in skeleton.limbs}
    assert {frozenset(mirror[j] for j in limb) for limb in limbs} == limbs


def test_limbs_of_mpii_are_a_tree():
    limbs = MPII.limbs
    assert len(limbs) == len(set(limbs)) == 15
    reached = {MPII.index("pelvis")}
    for _ in limbs:
        reached |= {j for limb in limbs if reached & set(limb) for j in limb}
    assert reached == set(range(16))
    assert (2, 3) not in limbs and (
        12,
        2,
    ) not in limbs  # the torso is drawn once, through the pelvis


def test_limbs_of_lsp_draw_the_torso_as_a_box():
    assert {(8, 12), (9, 12), (12, 13), (2, 3), (8, 2), (9, 3)} < set(LSP.limbs)
    assert len(LSP.limbs) == 14


def test_groups():
    assert MPII.groups == {
        "head": (9,),
        "shoulder": (12, 13),
        "elbow": (11, 14),
        "wrist": (10, 15),
        "hip": (2, 3),
        "knee": (1, 4),
        "ankle": (0, 5),
    }
    assert LSP.groups["head"] == (13,) and LSP.groups["wrist"] == (6, 11)
    assert Skeleton(("left_wrist", "right_wrist")).groups == {"wrist": (1, 0)}


@pytest.mark.parametrize("joints", [(), ("nose", "nose"), ("nose", "left_eye")])
def test_rejects_sets_that_cannot_work(joints):
    with pytest.raises(ValueError):
        Skeleton(joints)


def test_index_of_a_joint_that_is_not_there():
    with pytest.raises(ValueError):
        LSP.index("pelvis")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("left_eye", "left"),
        ("R_Knee", "right"),
        ("front_left_paw", "left"),
        ("ear-r", "right"),
        ("LeftEar", "left"),
        ("REar", "right"),
        ("cleft", ""),
        ("tail", ""),
        ("l1", ""),
        ("bright spot", ""),
    ],
)
def test_side_is_a_word_of_the_name(name, expected):
    assert side(name) == expected


def test_other_sets_have_a_column_for_each_pair_and_each_single_joint():
    names = ("nose", "left_eye", "right_eye", "l_paw", "r_paw", "paw", "wing a", "wing b")
    pairs = ((1, 2), (3, 4), (6, 7))
    assert Skeleton(names, pairs).groups == {
        "nose": (0,),
        "eye": (2, 1),
        "r_paw/l_paw": (4, 3),
        "paw": (5,),
        "wing a/wing b": (6, 7),
    }


def test_stated_pairs_and_limbs():
    one = Skeleton(("left_fin", "a", "b"), ((2, 1),), ((0, 2),))
    assert one.mirror == (0, 2, 1) and one.limbs == ((0, 2),)
    assert one == Skeleton(("left_fin", "a", "b"), ()) != Skeleton(("left_fin", "b", "a"), ())


@pytest.mark.parametrize(
    "one", [MPII, LSP, Skeleton(("left_fin", "a", "b"), ((1, 2),), ((0, 2), (1, 2)))]
)
def test_described_and_built_again(one):
    parts = json.loads(json.dumps(one.to_parts()))
    rebuilt = Skeleton.from_parts(parts)
    assert (rebuilt, rebuilt.mirror, rebuilt.limbs) == (one, one.mirror, one.limbs)
    assert rebuilt.groups == one.groups


def test_a_description_by_names_alone():
    assert Skeleton.from_parts({"joints": list(LSP.joints)}).mirror == LSP.mirror


@pytest.mark.parametrize("given", [((0, 2),), ((-1, 0),), ((0, 0),), ((0, 1), (1, 0))])
def test_rejects_pairs_of_other_joints(given):
    with pytest.raises(ValueError):
        Skeleton(("a", "b"), given)


def test_rejects_limbs_of_other_joints():
    with pytest.raises(ValueError, match="not two of 2 joints"):
        Skeleton(("a", "b"), (), ((0, 2),))
