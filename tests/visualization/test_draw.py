import os

import cv2
import numpy as np
import pytest

from hourglass.skeleton import LSP, MPII, Skeleton
from pipelines.visualization import draw

GREY = 128


def _blank(height=240, width=320):
    return np.full((height, width, 3), GREY, np.uint8)


def _standing(skeleton=MPII, seed=0):
    """Right joints in the left half of a 320 x 240 picture, left joints in the right half."""
    rng = np.random.default_rng(seed)
    joints = np.stack([np.full(len(skeleton), 160.0), np.linspace(20, 220, len(skeleton))], -1)
    for j, name in enumerate(skeleton.joints):
        joints[j, 0] += {"r": -80, "l": 80}.get(name[0], 0) if "_" in name else 0
    return joints + rng.uniform(-0.4, 0.4, joints.shape)


def _pixel(image, point):
    x, y = np.rint(point).astype(int)
    return image[y, x].astype(int)


@pytest.mark.parametrize("skeleton", [MPII, LSP])
def test_right_joints_are_warm_and_left_ones_cool(skeleton):
    joints = _standing(skeleton)
    image = draw.person(_blank(), joints, skeleton)
    for name, point in zip(skeleton.joints, joints):
        red, green, blue = _pixel(image, point)
        if name.startswith("right_"):
            assert red > blue + 100
        elif name.startswith("left_"):
            assert blue > red + 100
        else:
            assert green > max(red, blue) + 50


def test_mirrored_person_is_drawn_mirrored():
    joints = _standing()
    mirrored = np.array([319, 0]) + joints[list(MPII.mirror)] * [-1, 1]
    image = draw.person(_blank(), joints, MPII)
    twin = draw.person(_blank(), mirrored, MPII)[:, ::-1]
    # The same strokes with the sides' colours swapped: where one is drawn, so is the other.
    drawn, drawn_twin = ((a != GREY).any(-1) for a in (image, twin))
    assert (drawn != drawn_twin).mean() < 0.01 < drawn.mean()
    knee = joints[MPII.index("right_knee")]
    assert _pixel(image, knee)[0] > 200 and _pixel(twin, knee)[2] > 200


def test_limbs_join_their_joints_and_nothing_else_is_touched():
    joints = np.zeros((16, 2))
    visible = np.zeros(16, bool)
    for name, point in (("right_knee", [50, 50]), ("right_ankle", [50, 150])):
        joints[MPII.index(name)], visible[MPII.index(name)] = point, True
    image = draw.person(_blank(), joints, MPII, visible)
    assert image[100, 50, 0] > 200 and image[100, 50, 2] < 100
    rows, columns = np.nonzero((image != GREY).any(-1))
    assert 40 < rows.min() and rows.max() < 160 and 40 < columns.min() and columns.max() < 60


def test_positions_are_pixel_centres_and_finer_than_a_pixel():
    """The weighted centre of the paint is the joint's position, to a twentieth of a pixel."""
    one = Skeleton(("nose",))
    for x in (100.0, 100.25, 100.5, 100.75):
        image = draw.person(_blank(), np.array([[x, 60.0]]), one).astype(float)
        weight = np.abs(image - GREY).sum(-1)
        rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
        center = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
        np.testing.assert_allclose(center, [x, 60.0], atol=0.07)


def test_invisible_and_unknown_joints_are_omitted():
    joints = _standing()
    assert (draw.person(_blank(), joints, MPII, np.zeros(16, bool)) == GREY).all()
    assert (draw.person(_blank(), np.full((16, 2), np.nan), MPII) == GREY).all()


def test_positions_far_outside_do_not_break_it():
    joints = _standing()
    joints[0], joints[5] = [1e30, -1e30], [-1e9, 5]
    assert (draw.person(_blank(), joints, MPII) != GREY).any()


def test_truth_is_white_and_thinner():
    joints = _standing()
    truth = draw.person(_blank(), joints, MPII, truth=True)
    drawn, thin = ((a != GREY).any(-1).sum() for a in (draw.person(_blank(), joints, MPII), truth))
    assert thin < drawn
    assert (truth.max(-1) == truth.min(-1)).mean() == 1
    assert _pixel(truth, joints[MPII.index("left_knee")]).min() > 200


def test_strokes_grow_with_the_picture():
    small, large = _blank(240, 320), _blank(960, 1280)
    joints = _standing()
    share = [
        (draw.person(image, joints * factor, MPII) != GREY).any(-1).mean()
        for image, factor in ((small, 1), (large, 4))
    ]
    assert share[0] / 2 < share[1] < share[0] * 2


def test_inputs_are_not_modified():
    image, joints, maps = _blank(), _standing(), np.full((8, 8, 2), 0.5)
    image.setflags(write=False), joints.setflags(write=False), maps.setflags(write=False)
    draw.person(image, joints, MPII)
    draw.person(image[:, ::-1], joints, MPII)
    draw.heatmap_panel(image, maps)
    draw.people_grid(
        image[None], joints[None], np.full((1, 16), 2), joints[None], MPII, np.zeros((1, 16))
    )
    assert (image == GREY).all() and (joints == _standing()).all() and (maps == 0.5).all()


def test_heat_glows_at_its_position():
    maps = np.zeros((60, 80, 3), np.float32)
    maps[10, 20, 0], maps[50, 60, 2] = 1.0, 0.95
    panel = draw.heatmap_panel(_blank(), maps)
    assert panel.shape == (240, 320, 3) and panel.dtype == np.uint8
    # Heatmap pixel (20, 10) covers picture pixels 80..83, 40..43.
    for x, y in ((81, 41), (241, 201)):
        assert panel[y, x].astype(int).max() > 200
    assert (panel[120, 160] == round(GREY * 0.55)).all()


def test_heat_is_warm():
    red, _, blue = draw.heatmap_panel(_blank(), np.full((4, 4, 1), 0.5))[100, 100].astype(int)
    assert red > blue + 50


def test_heat_outside_the_scale_is_clipped():
    wild = np.array([[[np.nan], [-5.0]], [[7.0], [0.0]]], np.float32)
    tame = np.array([[[0.0], [0.0]], [[7.0], [0.0]]], np.float32)
    panel = draw.heatmap_panel(_blank(), wild)
    assert (panel[0, 0] == round(GREY * 0.55)).all()
    assert panel[-1, 0].max() > 200
    assert draw.heatmap_panel(_blank(), tame).shape == panel.shape


def _grid(people=5, side=64, title="", errors=None, columns=3, offset=0.0):
    images = np.full((people, side, side, 3), GREY, np.uint8)
    truth = np.tile(_standing() * side / 320, (people, 1, 1))
    errors = np.zeros((people, 16)) if errors is None else errors
    state = np.full((people, 16), 2)
    return draw.people_grid(images, truth, state, truth + offset, MPII, errors, columns, title)


def test_grid_holds_all_people_at_256_px():
    page = _grid(people=5, columns=3)
    assert page.shape == (2 * 260 + 4, 3 * 260 + 4, 3) and page.dtype == np.uint8
    cells = [page[r : r + 256, c : c + 256] for r in (4, 264) for c in (4, 264, 524)]
    assert all((cell == GREY).all(-1).mean() > 0.5 for cell in cells[:5])
    assert len(np.unique(cells[5].reshape(-1, 3), axis=0)) == 1


def test_grid_draws_joints_at_scaled_positions():
    page = _grid(people=1, side=64, columns=4)
    cell = page[4:260, 4:260]
    knee = (_standing() * 64 / 320)[MPII.index("right_knee")]
    x, y = np.rint((knee + 0.5) * 4 - 0.5).astype(int)
    assert cell[y, x, 0] > 200 and cell[y, x, 2] < 100


def test_grid_omits_missing_truth():
    truth, far = np.full((1, 16, 2), 32.0), np.full((1, 16, 2), np.nan)
    truth[0, MPII.index("head_top")] = [32, 5]
    state = np.full((1, 16), 2)
    drawn = []
    for state[0, MPII.index("head_top")] in (2, 0):
        images = np.full((1, 64, 64, 3), GREY, np.uint8)
        page = draw.people_grid(images, truth, state, far, MPII, np.full((1, 16), np.nan))
        drawn.append((page[4:100, 4:260] != GREY).any())
    assert drawn == [True, False]


def test_large_pictures_keep_their_size():
    assert _grid(people=1, side=300).shape == (308, 308, 3)


def test_misses_are_ringed():
    errors = np.zeros((1, 16))
    hit = _grid(people=1, side=256, errors=errors).astype(int)
    errors[0, MPII.index("left_wrist")] = 0.51
    missed = _grid(people=1, side=256, errors=errors).astype(int)
    changed = np.abs(hit - missed).sum(-1) > 60
    changed[230:] = False  # the caption differs as well
    rows, columns = np.nonzero(changed)
    wrist = (_standing() * 256 / 320)[MPII.index("left_wrist")] + 4
    np.testing.assert_allclose([columns.mean(), rows.mean()], wrist, atol=1.5)


def test_caption_counts_hits_among_scored():
    """Equal counts give equal plates; another count, or no scored joint, a different one."""
    errors = np.full((4, 16), np.nan)
    errors[0, :3], errors[1, 5:8], errors[2, :3] = [0.5, 0.1, 0.6], [0.6, 0.2, 0.3], [0.6, 0.6, 0]
    page = _grid(people=4, side=256, errors=errors, columns=4)
    plates = [page[234:260, 4 + 260 * k : 4 + 260 * k + 40].astype(int) for k in range(4)]
    assert (plates[0] == plates[1]).all()
    assert (plates[0] != plates[2]).any() and (plates[0] != plates[3]).any()
    assert plates[0].max() > 200 and plates[0].min() < 60


@pytest.mark.parametrize("title", ["short", "a very long title " * 20])
def test_title_is_above_and_fits(title):
    plain, titled = _grid(), _grid(title=title)
    strip = titled[: -plain.shape[0]].astype(int)
    assert (titled[-plain.shape[0] :] == plain).all()
    assert (strip > 150).any() and (strip[:, -10:] < 60).all()


def test_a_grid_without_images_is_an_error():
    with pytest.raises(ValueError, match="no people"):
        _grid(people=0)


def test_png_keeps_the_colours(tmp_path):
    image = np.zeros((5, 7, 3), np.uint8)
    image[..., 0], image[2, 3] = 200, [1, 2, 3]
    draw.write_png(str(tmp_path / "new" / "a.png"), image)
    assert os.listdir(tmp_path / "new") == ["a.png"]
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "a.png"))[..., ::-1], image)
