import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from hourglass import affine, heatmap
from hourglass.skeleton import LSP, MPII

BOTH = pytest.mark.parametrize("run", [lambda f: f, tf.function], ids=["eager", "graph"])
FEW = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)


def _places(low, high):
    position = st.floats(low, high, allow_subnormal=False)
    return st.lists(st.tuples(position, position), min_size=1, max_size=6)


def _direct(joints, size, sigma):
    rows, columns = np.mgrid[:size, :size]
    x, y = np.asarray(joints, np.float64)[:, 0], np.asarray(joints, np.float64)[:, 1]
    squared = (columns[..., None] - x) ** 2 + (rows[..., None] - y) ** 2
    return np.exp(-squared / (2 * sigma**2))


def _render(joints, size=64, sigma=1.0, rounded=False):
    return heatmap.render(tf.constant(joints, tf.float32)[None], size, sigma, rounded)


def _decode(heatmaps, method="quarter"):
    return heatmap.decode(heatmaps, method)[0][0].numpy()


@BOTH
def test_a_gaussian_by_hand(run):
    half, one, two, five = np.exp([-0.5, -1.0, -2.0, -2.5])
    rendered = run(lambda joints: heatmap.render(joints, 3, 1.0))(tf.constant([[[1.0, 0.0]]]))
    want = [[half, 1, half], [one, half, one], [five, two, five]]
    assert rendered.dtype == tf.float32
    np.testing.assert_allclose(rendered[0, :, :, 0], want, rtol=1e-6)


def test_every_joint_has_its_own_channel_and_every_person_their_own_map():
    joints = [[[3, 1], [0, 7], [5, 5]], [[6, 2], [2, 6], [7, 0]]]
    rendered = heatmap.render(tf.constant(joints, tf.float32), 8, 1.0).numpy()
    assert rendered.shape == (2, 8, 8, 3)
    peaks = [(b, y, x, j) for b in range(2) for j, (x, y) in enumerate(joints[b])]
    assert sorted(zip(*np.nonzero(rendered == 1.0))) == sorted(peaks)


@FEW
@hypothesis.given(_places(-20, 80), st.floats(0.5, 4))
def test_the_product_of_two_factors_is_the_direct_formula(joints, sigma):
    rendered = _render(joints, 64, sigma)[0]
    np.testing.assert_allclose(rendered, _direct(joints, 64, sigma), atol=1e-6)


@FEW
@hypothesis.given(st.lists(st.tuples(*[st.integers(0, 511)] * 2), min_size=1, max_size=6))
def test_the_peak_is_1_at_the_subpixel_position(positions):
    # A position in eighths of a pixel is a whole pixel of a grid 8 times as fine.
    joints = affine.resample(tf.constant(positions, tf.float32), 1 / 8)
    fine = _render(affine.resample(joints, 8.0), 512, 8.0).numpy()[0]
    for j, (x, y) in enumerate(positions):
        assert fine[y, x, j] == 1.0 and np.count_nonzero(fine[..., j] == 1.0) == 1


@pytest.mark.parametrize("position", [(-200.0, 30.0), (1e6, -1e6), (30.0, 1e20)])
def test_a_joint_far_outside_leaves_an_empty_map(position):
    np.testing.assert_array_equal(_render([position]), np.zeros([1, 64, 64, 1]))


@BOTH
def test_rounded_centres_are_those_of_the_references(run):
    # int(x + 0.5): HRNet and mmpose; math.floor(x + 0.5): Newell. Halves go up, never to even.
    joints = tf.constant([[[10.49, 10.5], [11.5, 12.5], [0.0, -0.3]]])
    rendered = run(lambda j: heatmap.render(j, 16, 1.0, rounded=True))(joints)
    whole = heatmap.render(tf.constant([[[10.0, 11.0], [12.0, 13.0], [0.0, 0.0]]]), 16, 1.0)
    np.testing.assert_array_equal(rendered, whole)


@BOTH
def test_decode_by_hand(run):
    maps = np.zeros([1, 3, 5, 2], np.float32)  # not square: rows and columns cannot be mixed up
    maps[0, 1, 3, 0], maps[0, 1, 2, 0], maps[0, 2, 3, 0] = 0.9, 0.2, 0.1
    maps[0, 1, 1, 1], maps[0, 1, 2, 1], maps[0, 0, 1, 1] = 0.7, 0.3, 0.6
    maps = tf.constant(maps)
    joints, confidence = run(heatmap.decode)(maps)
    # Joint 0: larger to the left and below. Joint 1: larger to the right and above.
    np.testing.assert_array_equal(joints, [[[2.75, 1.25], [1.25, 0.75]]])
    np.testing.assert_array_equal(confidence, np.float32([[0.9, 0.7]]))
    joints, confidence = run(lambda m: heatmap.decode(m, "argmax"))(maps)
    np.testing.assert_array_equal(joints, [[[3, 1], [1, 1]]])
    np.testing.assert_array_equal(confidence, np.float32([[0.9, 0.7]]))


def test_equal_neighbours_move_nothing():
    maps = np.zeros([1, 5, 5, 1], np.float32)
    maps[0, 2, 2] = 1.0
    np.testing.assert_array_equal(_decode(tf.constant(maps)), [[2, 2]])
    np.testing.assert_array_equal(_decode(tf.ones([1, 5, 5, 1])), [[0, 0]])


def test_a_peak_on_the_border_moves_along_it_only():
    maps = np.zeros([1, 4, 6, 4], np.float32)
    # Flattened, the last pixel of a row is beside the first of the next: they are no neighbours.
    maps[0, 1, 5, 0], maps[0, 2, 0, 0], maps[0, 2, 5, 0] = 1.0, 0.9, 0.2
    maps[0, 2, 0, 1], maps[0, 1, 5, 1], maps[0, 1, 0, 1] = 1.0, 0.9, 0.2
    maps[0, 0, 2, 2], maps[0, 0, 3, 2], maps[0, 1, 2, 2] = 1.0, 0.5, 0.9
    maps[0, 3, 5, 3], maps[0, 3, 4, 3], maps[0, 2, 5, 3] = 1.0, 0.9, 0.9
    want = [[5, 1.25], [0, 1.75], [2.25, 0], [5, 3]]
    np.testing.assert_array_equal(_decode(tf.constant(maps)), want)


def test_decode_finds_what_render_drew_by_hand():
    joints = [[10.3, 20.0], [9.8, 0.2], [40.1, 63.4]]
    rendered = _render(joints)
    np.testing.assert_array_equal(_decode(rendered, "argmax"), [[10, 20], [10, 0], [40, 63]])
    np.testing.assert_array_equal(_decode(rendered), [[10.25, 20], [9.75, 0], [40.25, 63]])


@BOTH
@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.75, 3.0])
@pytest.mark.parametrize(("method", "bound"), [("argmax", 0.5), ("quarter", 0.25)])
def test_the_error_of_encoding_and_decoding_is_bounded(run, sigma, method, bound):
    # Every fraction of a pixel, in steps of 1/64, away from the border.
    steps = np.arange(0, 64, dtype=np.float32) / 64
    joints = np.stack([20 + steps, 40 - 3 * steps], -1)
    rendered = _render(joints, 64, sigma)
    errors = np.abs(run(lambda m: heatmap.decode(m, method))(rendered)[0][0].numpy() - joints)
    assert errors.max() <= bound
    # Uniform errors: half the bound on average, and none of it a bias.
    np.testing.assert_allclose(errors.mean(), bound / 2, atol=0.02)
    assert np.abs((_decode(rendered, method) - joints).mean()) < 0.02


@FEW
@hypothesis.given(_places(-0.5, 63.49), st.floats(0.7, 3))
def test_the_error_is_half_a_pixel_at_the_border_and_a_quarter_inside(joints, sigma):
    joints = np.array(joints, np.float32)
    rendered = _render(joints, 64, sigma)
    peaks = _decode(rendered, "argmax")
    assert np.abs(peaks - joints).max() <= 0.5 + 1e-3  # a tie to 7 digits may fall either way
    errors = np.abs(_decode(rendered) - joints)
    on_border = (peaks == 0) | (peaks == 63)
    assert np.where(on_border, 0, errors).max() <= 0.25 + 1e-3
    assert errors.max() <= 0.5 + 1e-3


@FEW
@hypothesis.given(_places(1, 62), st.sampled_from(("argmax", "quarter")))
def test_a_rounded_map_decodes_to_its_pixel(joints, method):
    rendered = _render(joints, rounded=True)
    np.testing.assert_array_equal(_decode(rendered, method), np.floor(np.float32(joints) + 0.5))


def test_the_confidence_is_the_height_of_the_peak():
    heights = tf.constant([0.25, 1.0, 0.5])
    rendered = _render([[3, 4], [10, 11], [20, 21]]) * heights
    np.testing.assert_allclose(heatmap.decode(rendered)[1], [heights], rtol=1e-6)


def test_decode_works_with_a_batch_size_unknown_to_the_graph():
    decode = tf.function(
        heatmap.decode, input_signature=[tf.TensorSpec([None, 8, 8, 2], tf.float32)]
    )
    joints = [[[2, 3], [4, 5]], [[6, 1], [1, 6]], [[3, 3], [5, 2]]]
    decoded, confidence = decode(heatmap.render(tf.constant(joints, tf.float32), 8, 1.0))
    np.testing.assert_array_equal(decoded, joints)
    assert confidence.shape == (3, 2)


def test_an_unknown_decoder_is_rejected():
    with pytest.raises(ValueError, match=r"'nearest'.*not one of.*'argmax', 'quarter'"):
        heatmap.decode(tf.zeros([1, 4, 4, 1]), "nearest")


@BOTH
def test_to_input_returns_the_middle_of_the_block(run):
    decoded = run(lambda joints: heatmap.to_input(joints, 4))(
        tf.constant([[0.0, 63.0], [1.25, -0.5]])
    )
    np.testing.assert_array_equal(decoded, [[1.5, 253.5], [6.5, -0.5]])


@BOTH
@pytest.mark.parametrize("skeleton", [MPII, LSP], ids=["mpii", "lsp"])
def test_unmirror_undoes_the_mirror_of_picture_and_joints(run, skeleton):
    joints = np.random.default_rng(3).uniform(0, 31, [2, len(skeleton), 2]).astype(np.float32)
    # What a perfect network shows for the mirrored picture: the right ankle where the left was.
    mirrored = affine.apply(affine.mirror(32), joints[:, skeleton.mirror])
    maps = heatmap.render(mirrored, 32, 1.0)
    unmirror = run(lambda m: heatmap.unmirror(m, skeleton.mirror))
    np.testing.assert_allclose(unmirror(maps), heatmap.render(joints, 32, 1.0), atol=1e-5)
    np.testing.assert_array_equal(unmirror(unmirror(maps)), maps)


def test_the_maps_of_a_symmetric_pose_stay_put():
    right = np.random.default_rng(4).uniform(0, 15, [16, 2]).astype(np.float32)
    joints = np.empty_like(right)
    for j, other in enumerate(MPII.mirror):
        joints[j] = right[j] if j < other else [31 - right[other, 0], right[other, 1]]
        if j == other:
            joints[j] = [15.5, right[j, 1]]
    maps = _render(joints, 32)
    np.testing.assert_allclose(heatmap.unmirror(maps, MPII.mirror), maps, atol=1e-6)


def test_unmirror_moves_single_pixels():
    maps = np.zeros([1, 2, 4, 3], np.float32)
    maps[0, 1, 0, 0], maps[0, 0, 1, 1], maps[0, 1, 3, 2] = 1, 2, 3
    want = np.zeros([1, 2, 4, 3], np.float32)
    want[0, 1, 3, 2], want[0, 0, 2, 1], want[0, 1, 0, 0] = 1, 2, 3  # joints 0 and 2 are a pair
    np.testing.assert_array_equal(heatmap.unmirror(tf.constant(maps), (2, 1, 0)), want)
