"""Drawn people: what is drawn, what is annotated, and that the two agree."""

import json
import pathlib

import cv2
import numpy as np
import pytest

from hourglass.skeleton import MPII
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED
from pipelines.data.readers import mpii
from pipelines.data.synthetic import figure, paint, scene

SHAPE = (300, 260)


def upright(**angles) -> dict:
    """Arms and legs straight down, apart from the angles given."""
    pose = {
        name: 0.0 for name in ("lean", "side_lean", "twist", "head_pitch", "head_yaw", "head_roll")
    }
    for side in ("right", "left"):
        pose.update({f"{side}_{n}": 0.0 for n in figure.LIMITS if n not in pose})
        pose.update({f"{side}_shoulder_abduct": 15.0, f"{side}_hip_abduct": 8.0})
    return {**pose, **angles}


def lengths() -> dict:
    return figure.draw_lengths(np.random.default_rng(0))


def stand(yaw: float = 0.0, **angles) -> figure.Figure:
    return figure.place(
        lengths(), upright(**angles), figure.turn(figure.FORWARD, figure.RIGHT, yaw)
    )


def draw(body: figure.Figure, seed: int = 0):
    """The person alone on gray: canvas, part names, joints (x, y, nearness), view."""
    view = paint.View(np.array([130.0, 140.0]), 200.0)
    rgb, cloth = np.full((*SHAPE, 3), 0.5, np.float32), np.ones(SHAPE, np.float32)
    canvas = paint.Canvas(rgb, cloth, np.zeros(3))  # light from everywhere
    solids = [s for s in paint.dress(np.random.default_rng(seed), body) if s.name != "long_hair"]
    canvas.draw(solids, view)
    joints = np.c_[view.project(body.joints()), view.stature * body.joints()[:, 2]]
    return canvas, [s.name for s in solids], joints, view


def seen(body: figure.Figure, front=None) -> dict:
    canvas, names, joints, view = draw(body)
    front = np.zeros(SHAPE, bool) if front is None else front
    flags = scene.visible_joints(joints, canvas.part, canvas.nearness, names, front, view.stature)
    return dict(zip(MPII.joints, flags))


def angle(a, b) -> float:
    return np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)))


@pytest.fixture(scope="module")
def people():
    rng = np.random.default_rng(5)
    return [
        figure.place(figure.draw_lengths(rng), figure.draw_pose(rng), np.eye(3)) for _ in range(300)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic")
    scene.generate(str(path), people=13, seed=4, workers=1)
    return path


@pytest.fixture(scope="module")
def pictures():
    return [scene.picture(11, index) for index in range(80)]


def test_turn_takes_one_axis_towards_another():
    np.testing.assert_allclose(figure.turn(1, 2, 90) @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(figure.turn(1, 2, 90) @ [0, 0, 1], [0, -1, 0], atol=1e-12)


def test_bones_have_anatomical_lengths_and_both_sides_are_alike(people):
    bones = {
        "upper_arm": ("shoulder", "elbow"),
        "forearm": ("elbow", "wrist"),
        "thigh": ("hip", "knee"),
        "shin": ("knee", "ankle"),
    }
    for body in people:
        for name, (start, end) in bones.items():
            right, left = (
                np.linalg.norm(body.points[f"{s}_{end}"] - body.points[f"{s}_{start}"])
                for s in ("right", "left")
            )
            low, high = figure.LENGTHS[name]
            assert right == pytest.approx(left) and 0.93 * low < right < 1.07 * high
        shoulders = body.points["right_shoulder"] - body.points["left_shoulder"]
        assert 0.19 < np.linalg.norm(shoulders) < 0.24


def test_a_straight_person_is_one_stature_tall_above_the_soles():
    body = figure.place(lengths(), upright(right_hip_abduct=0, left_hip_abduct=0), np.eye(3))
    tall = body.points["head_top"][1] - body.points["right_ankle"][1]
    assert tall + body.lengths["sole"] == pytest.approx(1, abs=1e-3)  # a neck leans forwards


def test_elbows_and_knees_bend_one_way_only_and_within_their_limits(people):
    for body in people:
        p = body.points
        for side in ("right", "left"):
            thigh, shin = (
                p[f"{side}_{a}"] - p[f"{side}_{b}"] for a, b in (("knee", "hip"), ("ankle", "knee"))
            )
            upper, fore = (
                p[f"{side}_{a}"] - p[f"{side}_{b}"]
                for a, b in (("elbow", "shoulder"), ("wrist", "elbow"))
            )
            assert 1.99 <= angle(thigh, shin) <= 140.01 and 1.99 <= angle(upper, fore) <= 145.01
            assert shin @ body.frames[f"{side}_thigh"][:, 2] < 0  # the heel goes backwards
            assert fore @ body.frames[f"{side}_upper_arm"][:, 2] > 0  # the hand goes forwards


def test_poses_stay_inside_the_limits_and_are_many():
    rng = np.random.default_rng(2)
    poses = [figure.draw_pose(rng) for _ in range(400)]
    for pose in poses:
        for name, value in pose.items():
            if name != "legs":
                low, high = figure.LIMITS[name.replace("right_", "").replace("left_", "")]
                assert low <= value <= high, name
    assert len({pose["legs"] for pose in poses}) == 9
    assert sum(pose["lean"] > 25 for pose in poses) > 10
    assert sum(pose["right_shoulder_flex"] > 120 for pose in poses) > 40
    assert {p["legs"] for p in poses if p["right_knee"] > 60 and p["right_hip_flex"] > 60} >= {
        "sit",
        "run",
    }


@pytest.mark.parametrize(("yaw", "sign"), [(0, 1), (180, -1)])
def test_the_right_side_is_image_left_from_the_front_and_image_right_from_the_back(yaw, sign):
    x = paint.View(np.zeros(2), 200.0).project(stand(yaw).joints())[:, 0]
    for joint in ("shoulder", "hip", "wrist", "ankle"):
        right, left = x[MPII.index(f"right_{joint}")], x[MPII.index(f"left_{joint}")]
        assert sign * (left - right) > 10


def test_the_face_is_painted_on_the_front_only():
    def skin(yaw):
        body = stand(yaw)
        canvas, names, _, _ = draw(body)
        head = paint.dress(np.random.default_rng(0), body)[names.index("head")]
        pixels = canvas.rgb[canvas.part == 1 + names.index("head")]
        far = np.linalg.norm(pixels - head.face["skin"], axis=1)
        return (far < np.linalg.norm(pixels - head.face["hair"], axis=1)).mean()

    assert skin(0) > 0.6 > 0.3 > skin(180)  # the rest is nape and ears


def test_clothes_tell_front_from_back_and_not_left_from_right():
    """A mirrored picture must be a picture of the mirrored person."""
    body = stand()
    for seed in range(60):
        parts = {s.name: s for s in paint.dress(np.random.default_rng(seed), body)}
        for limb in ("upper_arm", "forearm", "thigh", "shin"):
            right, left = parts[f"right_{limb}"], parts[f"left_{limb}"]
            np.testing.assert_array_equal(right.color, left.color)
            assert len(right.marks) == len(left.marks)
        for name in ("chest", "pelvis", "right_upper_arm", "left_thigh"):
            front, (_, _, angle, _, back) = parts[name].color, parts[name].marks[0]
            assert angle == np.pi
            assert np.mean(front) > np.mean(back) + 0.1, (seed, name)


def test_nothing_is_hidden_when_a_person_stands_frontally_alone():
    assert all(seen(stand()).values())


def test_an_object_in_front_hides_exactly_the_joints_under_it():
    body = stand()
    _, _, joints, _ = draw(body)
    mask = np.zeros(SHAPE, np.uint8)
    for name in ("right_knee", "left_wrist"):
        x, y = joints[MPII.index(name), :2]
        cv2.rectangle(mask, (int(x) - 6, int(y) - 6), (int(x) + 6, int(y) + 6), 255, -1)
    hidden = {name for name, shown in seen(body, mask > 0).items() if not shown}
    assert hidden == {"right_knee", "left_wrist"}


def test_the_far_side_is_hidden_behind_the_near_side():
    body = stand(90, right_shoulder_flex=60.0, left_shoulder_flex=60.0)  # facing image left
    flags, near, far = seen(body), "left", "right"
    assert all(flags[f"{near}_{j}"] for j in ("shoulder", "elbow", "wrist", "hip", "knee"))
    assert not any(flags[f"{far}_{j}"] for j in ("shoulder", "elbow", "hip", "knee"))


def test_a_forearm_held_before_the_trunk_is_seen_and_behind_the_back_is_not():
    bent = {"right_shoulder_flex": 10.0, "right_shoulder_twist": 70.0, "right_elbow": 95.0}
    assert seen(stand(0, **bent))["right_wrist"]
    assert not seen(stand(180, **bent))["right_wrist"]


def test_joints_outside_the_picture_are_not_seen():
    canvas, names, joints, view = draw(stand())
    joints[0, :2] = (-3, 10)
    front = np.zeros(SHAPE, bool)
    flags = scene.visible_joints(joints, canvas.part, canvas.nearness, names, front, 200.0)
    assert not flags[0] and flags[1:].all()


@pytest.mark.parametrize(("depth", "shown"), [(15, True), (30, False)])
def test_a_joint_deep_behind_its_own_trunk_is_hidden(depth, shown):
    joints = np.tile([5.0, 5.0, 0.0], (16, 1))
    part, nearness = np.ones((10, 10), np.uint8), np.full((10, 10), float(depth))
    front = np.zeros((10, 10), bool)
    flags = scene.visible_joints(joints, part, nearness, ["chest"], front, stature=200.0)
    assert flags[MPII.index("right_shoulder")] == shown
    assert not flags[MPII.index("right_knee")]  # the chest is no part of a knee


def test_of_two_crossing_parts_the_nearer_one_is_drawn_on_either_side():
    def tube(name, tilt, color):
        axis = np.array([0.2, 0, tilt])
        up = axis / np.linalg.norm(axis)
        axes = np.stack([[0, 1, 0], up, np.cross([0, 1, 0], up)], axis=1)
        width = np.full(3, 0.03)
        return paint.Solid(name, -axis, axis, axes, width, width, width[:2], np.array(color))

    solids = [tube("red", 0.2, (1, 0, 0)), tube("blue", -0.2, (0, 0, 1))]
    rgb = np.zeros((100, 200, 3), np.float32)
    canvas = paint.Canvas(rgb, np.ones((100, 200), np.float32), np.zeros(3))
    canvas.draw(solids, paint.View(np.array([100.0, 50.0]), 200.0))
    # Image left is the positive first axis: there the red one comes towards the viewer.
    assert canvas.part[50, 75] == 1 and canvas.part[50, 125] == 2
    assert rgb[50, 75, 0] > 0.9 > 0.1 > rgb[50, 75, 2] and rgb[50, 125, 2] > 0.9


def test_every_joint_lies_on_its_own_body_part():
    canvas, names, joints, _ = draw(stand())
    for name, meeting in (
        ("left_wrist", "left_forearm left_hand"),
        ("right_knee", "right_thigh right_shin"),
    ):
        x, y = np.rint(joints[MPII.index(name), :2]).astype(int)
        assert names[canvas.part[y, x] - 1] in meeting.split()


@pytest.mark.parametrize("yaw", [0, 50, 90, 180, 250])
def test_the_head_outline_holds_the_drawn_head(yaw):
    body = stand(yaw, head_pitch=20.0, head_roll=15.0)
    canvas, names, _, view = draw(body)
    low, high = paint.head_outline(body, view)
    rows, columns = np.nonzero(canvas.part == 1 + names.index("head"))
    assert low[0] - 1 <= columns.min() <= low[0] + 2 and high[0] - 2 <= columns.max() <= high[0] + 1
    assert low[1] - 1 <= rows.min() <= low[1] + 2 and rows.max() <= high[1] + 1


def test_head_boxes_are_as_large_as_mpiis(pictures):
    """On MPII 0.6 x the diagonal is 0.75 x the distance from head top to upper neck."""
    ratios = []
    for _, entry in pictures:
        x1, y1, x2, y2 = entry["head_box"]
        # A mean head is 0.155 of a stature, which is 200 px times the (jittered) scale.
        ratios.append(0.6 * np.hypot(x2 - x1, y2 - y1) / (0.155 * 200 * entry["scale_provided"]))
    assert np.median(ratios) == pytest.approx(0.75, abs=0.02)
    assert 0.65 < min(ratios) and max(ratios) < 0.9


def test_crops_hold_nearly_all_joints_and_few_joints_are_hidden_or_cut_off(pictures):
    held = labelled = hidden = 0
    for _, entry in pictures:
        joints = np.array(entry["joint_self"])
        joints = joints[joints[:, 0] > 0]
        scale = entry["scale_provided"]
        offset = joints[:, :2] - entry["objpos"] - [0, 15 * scale]
        held += (np.abs(offset).max(1) <= 125 * scale).sum()
        labelled, hidden = labelled + len(joints), hidden + (joints[:, 2] == 0).sum()
    assert held / labelled > 0.985
    assert 0.08 < hidden / labelled < 0.2
    assert 0.9 < labelled / (16 * len(pictures)) < 1


def test_pictures_have_the_annotated_size_and_joints_lie_inside(pictures):
    for rgb, entry in pictures:
        assert rgb.dtype == np.uint8
        assert rgb.shape == (entry["img_height"], entry["img_width"], 3)
        joints = np.array(entry["joint_self"])
        missing = (joints == 0).all(1)
        assert (joints[~missing, :2] >= 1).all()
        assert (joints[~missing, :2] <= [entry["img_width"], entry["img_height"]]).all()


def test_the_schema_is_the_bearpaw_one(folder):
    entries = json.loads((folder / "annotations.json").read_text())
    assert set(entries[0]) == {
        "dataset", "isValidation", "img_paths", "img_width", "img_height", "objpos", "joint_self",
        "scale_provided", "joint_others", "scale_provided_other", "objpos_other", "annolist_index",
        "people_index", "numOtherPeople", "head_box",
    }  # fmt: skip
    assert [e["isValidation"] for e in entries] == [0.0] * 11 + [1.0] * 2
    assert [e["img_paths"] for e in entries] == sorted(
        p.name for p in (folder / "images").iterdir()
    )
    for entry in entries:
        image = cv2.imread(str(folder / "images" / entry["img_paths"]))
        assert image.shape[:2] == (entry["img_height"], entry["img_width"])
    assert {p.name for p in folder.iterdir()} == {"images", "annotations.json"}


def contents(folder: pathlib.Path) -> dict:
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_files_depend_on_the_seed_and_not_on_the_number_of_workers(folder, tmp_path):
    scene.generate(str(tmp_path / "two"), people=13, seed=4, workers=2)
    assert contents(tmp_path / "two") == contents(folder)
    scene.generate(str(tmp_path / "other"), people=13, seed=5, workers=1)
    other = contents(tmp_path / "other")
    assert all(other[name] != data for name, data in contents(folder).items())


def test_drawing_anew_leaves_no_older_people_in_the_annotations(tmp_path):
    scene.generate(str(tmp_path), people=3, seed=1, workers=1)
    path = scene.generate(str(tmp_path), people=2, seed=1, workers=1)
    assert len(json.loads(pathlib.Path(path).read_text())) == 2


@pytest.mark.parametrize("bad", [{"people": 0}, {"workers": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_refused_by_name(tmp_path, bad):
    arguments = {"people": 2, "seed": 0, "workers": 1, **bad}
    with pytest.raises(ValueError, match=f"{next(iter(bad))} is {next(iter(bad.values()))}"):
        scene.generate(str(tmp_path / "none"), **arguments)
    assert not (tmp_path / "none").exists()


def test_the_mpii_reader_finds_the_truth(folder):
    annotated = mpii.read(str(folder / "annotations.json"), name="synthetic")
    entries = json.loads((folder / "annotations.json").read_text())
    by_image = {person.image: person for person in annotated.people}
    assert annotated.name == "synthetic" and len(by_image) == len(entries) == 13
    for entry in entries:
        person, truth = by_image[entry["img_paths"]], np.array(entry["joint_self"])
        labelled = truth[:, 0] > 0
        states = np.where(labelled, np.where(truth[:, 2] == 1, LABELLED, OCCLUDED), MISSING)
        np.testing.assert_array_equal(person.state, states)
        np.testing.assert_allclose(person.joints[labelled], truth[labelled, :2] - 1)
        scale = entry["scale_provided"]
        np.testing.assert_allclose(person.center, np.array(entry["objpos"]) - 1 + [0, 15 * scale])
        assert person.side == pytest.approx(250 * scale)
        x1, y1, x2, y2 = entry["head_box"]
        assert person.head_size == pytest.approx(0.6 * np.hypot(x2 - x1, y2 - y1))
        assert person.split == ("validation" if entry["isValidation"] else "train")
