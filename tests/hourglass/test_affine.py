import functools
import math

import cv2
import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from hourglass import affine

BOTH = pytest.mark.parametrize("run", [lambda f: f, tf.function], ids=["eager", "graph"])
COMPILED = functools.partial(tf.function, jit_compile=True)
# The one kernel of GPUs and exports, and the gathers that XLA compiles on CPUs.
WARPS = pytest.mark.parametrize(
    "warp",
    [
        affine.warp,
        tf.function(affine.warp),
        affine.warp_gathered,
        COMPILED(affine.warp_gathered),
    ],
    ids=["eager", "graph", "gathered", "xla"],
)
FEW = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)

# A window of a stored crop, as augmentation draws it: centre, side, turn, mirrored or not.
POSITION = st.tuples(*[st.floats(-50, 400, allow_subnormal=False)] * 2)
ANGLE = st.floats(-math.pi, math.pi, allow_subnormal=False)
WINDOWS = st.tuples(POSITION, st.floats(100, 600), ANGLE, st.booleans())
POINTS = st.lists(POSITION, min_size=1, max_size=5)


def _matrix(window, size=256):
    center, side, angle, mirrored = window
    matrix = affine.window_to_input(_floats(center), _floats(side), size, angle)
    return affine.compose(matrix, affine.mirror(size)) if mirrored else matrix


def _floats(values):
    return tf.constant(values, tf.float32)


@BOTH
def test_apply_maps_points_by_hand(run):
    # x' = 2x - y + 5, y' = 3y + 1
    matrix = _floats([[2, -1, 5], [0, 3, 1]])
    points = _floats([[0, 0], [1, 0], [0, 1], [10, 20]])
    mapped = run(affine.apply)(matrix, points)
    np.testing.assert_array_equal(mapped, [[5, 1], [7, 1], [4, 4], [5, 61]])


@BOTH
def test_apply_takes_one_matrix_for_all_or_one_each(run):
    points = _floats([[[1, 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [5, 6]]])
    shift, double = [[1, 0, 10], [0, 1, 20]], [[2, 0, 0], [0, 2, 0]]
    shifted = [[11, 22], [13, 24], [15, 26]]
    both = run(affine.apply)(_floats([shift, double]), points)
    np.testing.assert_array_equal(both, [shifted, [[2, 4], [6, 8], [10, 12]]])
    np.testing.assert_array_equal(run(affine.apply)(_floats(shift), points), [shifted, shifted])


@BOTH
def test_compose_reads_in_the_order_of_application(run):
    double, shift = _floats([[2, 0, 0], [0, 2, 0]]), _floats([[1, 0, 1], [0, 1, -3]])
    compose = run(affine.compose)
    np.testing.assert_array_equal(compose(double, shift), [[2, 0, 1], [0, 2, -3]])
    np.testing.assert_array_equal(compose(shift, double), [[2, 0, 2], [0, 2, -6]])
    np.testing.assert_array_equal(compose(affine.identity(), shift), shift)
    batch = compose(tf.stack([double, shift]), shift)
    np.testing.assert_array_equal(batch, [[[2, 0, 1], [0, 2, -3]], [[1, 0, 2], [0, 1, -6]]])


@BOTH
def test_invert_by_hand(run):
    stretch, turn = [[2, 0, 4], [0, 4, -8]], [[0, -1, 5], [1, 0, 3]]
    inverse = run(affine.invert)(_floats([stretch, turn]))
    np.testing.assert_array_equal(inverse, [[[0.5, 0, -2], [0, 0.25, 2]], [[0, 1, -3], [-1, 0, 5]]])


@FEW
@hypothesis.given(WINDOWS, POINTS)
def test_a_map_and_its_inverse_return_every_point(window, points):
    matrix = _matrix(window)
    there = affine.apply(matrix, _floats(points))
    np.testing.assert_allclose(affine.apply(affine.invert(matrix), there), points, atol=2e-3)
    np.testing.assert_allclose(
        affine.compose(matrix, affine.invert(matrix)), affine.identity(), atol=1e-3
    )


@FEW
@hypothesis.given(WINDOWS, WINDOWS, POINTS)
def test_a_composed_map_does_what_its_parts_do(first, second, points):
    first, second = _matrix(first), _matrix(second)
    parts = affine.apply(second, affine.apply(first, _floats(points)))
    whole = affine.apply(affine.compose(first, second), _floats(points))
    np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=5e-3)


@BOTH
def test_resample_keeps_pixel_centres_where_they_are_in_the_picture(run):
    # A heatmap pixel is a block of 4 x 4 input pixels: block 0 covers [-0.5, 3.5], middle 1.5.
    on_input = _floats([[-0.5, 1.5], [5.5, 253.5], [255.5, 0.0]])
    on_heatmap = [[-0.5, 0.0], [1.0, 63.0], [63.5, -0.375]]
    np.testing.assert_array_equal(
        run(lambda points: affine.resample(points, 0.25))(on_input), on_heatmap
    )
    np.testing.assert_array_equal(
        run(lambda points: affine.resample(points, 4.0))(_floats(on_heatmap)), on_input
    )


def test_resample_agrees_with_the_window_of_the_whole_input():
    points = _floats([[3.0, 7.25], [100.0, 255.0]])
    matrix = affine.window_to_input(_floats([127.5, 127.5]), _floats(256.0), 64)
    np.testing.assert_allclose(affine.apply(matrix, points), affine.resample(points, 0.25))


@BOTH
def test_mirror_exchanges_the_first_and_the_last_column(run):
    mirrored = run(lambda points: affine.apply(affine.mirror(256), points))
    points = _floats([[0, 3], [255, 4], [127.5, 5], [-0.5, 6]])
    np.testing.assert_array_equal(mirrored(points), [[255, 3], [0, 4], [127.5, 5], [255.5, 6]])
    np.testing.assert_array_equal(mirrored(mirrored(points)), points)


@BOTH
def test_window_to_input_by_hand(run):
    matrix = run(lambda c, s: affine.window_to_input(c, s, 64))(
        _floats([[100, 50], [31.5, 31.5]]), _floats([128, 64])
    )
    # Scale 64 / 128; the centre lands on 31.5, the middle of 64 pixels.
    np.testing.assert_array_equal(matrix[0], [[0.5, 0, -18.5], [0, 0.5, 6.5]])
    np.testing.assert_array_equal(matrix[1], affine.identity())
    assert matrix.dtype == tf.float32


@FEW
@hypothesis.given(WINDOWS, st.sampled_from([64, 128, 256]))
def test_window_corners_are_the_outer_edges_of_the_input(window, size):
    center, side, angle, _ = window
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [0, 0]]) * side / 2
    # Corners of the window as it stands in the source, turned back by the angle.
    corners = np.array(center) + corners @ turn
    edge, middle = size - 0.5, (size - 1) / 2
    matrix = affine.window_to_input(_floats(center), _floats(side), size, _floats(angle))
    mapped = affine.apply(matrix, _floats(corners))
    want = [[-0.5, -0.5], [edge, -0.5], [edge, edge], [-0.5, edge], [middle, middle]]
    np.testing.assert_allclose(mapped, want, atol=2e-3)


def test_a_positive_angle_turns_the_picture_clockwise():
    quarter = affine.window_to_input(_floats([10, 10]), _floats(21.0), 21, _floats(math.pi / 2))
    right_of_centre, below_centre = _floats([[15, 10]]), [[10, 15]]
    np.testing.assert_allclose(affine.apply(quarter, right_of_centre), below_centre, atol=1e-5)


@WARPS
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_warp_by_whole_pixels_copies_them(warp, dtype):
    image = np.random.default_rng(0).integers(0, 256, [1, 5, 7, 3]).astype(dtype)
    shift = _floats([[[1, 0, 2], [0, 1, -1]]])  # two to the right, one up
    warped = warp(tf.constant(image), shift, 8)
    want = np.zeros([1, 8, 8, 3], dtype)
    want[0, :4, 2:] = image[0, 1:, :6]
    assert warped.dtype == tf.float32
    np.testing.assert_array_equal(warped, want)


@WARPS
def test_warp_interpolates_between_neighbours_and_fades_to_black(warp):
    image = _floats([[10, 20], [30, 41]])[None, :, :, None]
    shift = _floats([[[1, 0, 0.5], [0, 1, 0.5]]])
    want = np.array([[2.5, 7.5, 5.0], [10.0, 25.25, 15.25], [7.5, 17.75, 10.25]])
    np.testing.assert_array_equal(warp(image, shift, 3)[0, :, :, 0], want)
    of_bytes = warp(tf.cast(image, tf.uint8), shift, 3)
    np.testing.assert_array_equal(of_bytes[0, :, :, 0], want)


@WARPS
def test_warp_by_the_mirror_is_the_reversed_picture(warp):
    image = tf.random.stateless_uniform([1, 9, 9, 2], [1, 2])
    warped = warp(image, affine.mirror(9)[None], 9)
    np.testing.assert_array_equal(warped, image[:, :, ::-1])


@WARPS
def test_warp_gives_each_example_its_own_map(warp):
    images = tf.random.stateless_uniform([2, 6, 6, 1], [3, 4])
    maps = tf.stack([affine.identity(), affine.mirror(6)])
    warped = warp(images, maps, 6)
    np.testing.assert_array_equal(warped[0], images[0])
    np.testing.assert_array_equal(warped[1], images[1, :, ::-1])


@WARPS
def test_warp_has_a_static_shape_when_the_batch_size_is_unknown(warp):
    shapes = []

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 20, 24, 3], tf.uint8),
            tf.TensorSpec([None, 2, 3], tf.float32),
        ]
    )
    def traced(images, matrix):
        warped = warp(images, matrix, 16)
        shapes.append(warped.shape.as_list())
        return warped

    traced(tf.zeros([2, 20, 24, 3], tf.uint8), tf.stack([affine.identity()] * 2))
    assert shapes == [[None, 16, 16, 3]]


def _dot(x, y, height, width, sigma=4.0):
    rows, columns = np.mgrid[:height, :width]
    return 255.0 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))


def _centroid(image):
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(image * columns).sum(), (image * rows).sum()]) / image.sum()


@WARPS
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize(
    ("center", "side", "angle", "mirrored"),
    [
        ((70.0, 60.0), 128.0, 0.0, False),
        ((71.3, 58.9), 101.0, 0.0, True),
        ((66.2, 63.7), 140.0, 0.7, False),
        ((75.5, 55.1), 90.0, -2.1, True),
    ],
)
def test_warp_moves_pixels_where_apply_moves_points(warp, dtype, center, side, angle, mirrored):
    # Two dots, one per channel, far enough from the edges to be seen whole.
    dots = [(61.3, 66.8), (80.6, 48.2)]
    image = np.stack([_dot(x, y, 120, 144) for x, y in dots], -1)[None].astype(dtype)
    matrix = _matrix((center, side, angle, mirrored), 128)
    warped = warp(tf.constant(image), matrix[None], 128)[0].numpy()
    centroids = [_centroid(warped[..., channel].astype(np.float64)) for channel in (0, 1)]
    np.testing.assert_allclose(centroids, affine.apply(matrix, _floats(dots)), atol=0.02)


@FEW
@hypothesis.given(WINDOWS)
@hypothesis.example(((10.0, 690.0), 500.0, 0.6, True))  # a corner of the crop is in sight
def test_the_gpu_kernel_and_the_compiled_gathers_give_the_same_pixels(window):
    image = np.random.default_rng(1).integers(0, 256, [1, 724, 724, 3]).astype(np.uint8)
    matrix = _matrix(window)[None]
    of_kernel = affine.warp(tf.constant(image), matrix, 256)
    of_loop = _COMPILED_LOOP(tf.constant(image), matrix, 256)
    # White noise, where each step of float32 at 700 px, 6e-5 px, shows at full contrast: XLA of
    # TensorFlow 2.21 contracts products and sums otherwise, and reaches 1.4e-4.
    levels = 1e-4 if tf.__version__.startswith("2.15.") else 2e-4
    np.testing.assert_allclose(of_kernel, of_loop, rtol=0, atol=levels * 255)


_COMPILED_LOOP = COMPILED(affine.warp_gathered)


@WARPS
@pytest.mark.parametrize("side", [0.0, 1e-30, 1e30, math.nan])
def test_warp_through_a_degenerate_map_reads_nothing_outside(warp, side):
    matrix = affine.window_to_input(_floats([[10, 10]]), _floats([side]), 32)
    warped = warp(tf.ones([1, 20, 20, 3], tf.uint8), matrix, 32).numpy()
    assert warped.shape == (1, 32, 32, 3)
    known = warped[np.isfinite(warped)]
    assert ((known >= 0) & (known <= 1)).all()


def test_coordinates_never_meet_a_matrix_product():
    # GPUs take matrix products of float32 in TF32: ten bits, half a pixel at 1,000 px.
    def everything(images, matrix, points):
        whole = affine.compose(matrix, affine.window_to_input(points[:, 0], points[:, 0, 0], 8))
        return affine.apply(affine.invert(whole), points), (
            affine.warp(images, whole, 8),
            affine.warp_gathered(images, whole, 8),
        )

    images, points = tf.zeros([2, 20, 24, 3], tf.uint8), tf.ones([2, 5, 2])
    graph = tf.function(everything).get_concrete_function(
        images, tf.stack([affine.identity()] * 2), points
    )
    kinds = {operation.type for operation in graph.graph.get_operations()}
    assert "Mul" in kinds and not {kind for kind in kinds if "MatMul" in kind or "Einsum" in kind}


@pytest.mark.parametrize("window", [((40.0, 30.0), 64.0, 0.0, False), ((25, 33), 70, 0.5, True)])
def test_warp_agrees_with_opencv(window):
    # OpenCV 4.x rounds source positions to 1/32 px; on a smooth picture that is under a grey level.
    noise = np.random.default_rng(2).uniform(0, 255, [60, 80, 3]).astype(np.float32)
    image = cv2.GaussianBlur(noise, (0, 0), 3)
    matrix = _matrix(window, 48)
    want = cv2.warpAffine(
        image, matrix.numpy().astype(np.float64), (48, 48), flags=cv2.INTER_LINEAR
    )
    ours = affine.warp(tf.constant(image[None]), matrix[None], 48)[0].numpy()
    whole = affine.warp(tf.ones_like(image)[None], matrix[None], 48)[0].numpy() > 0.999
    assert whole.mean() > 0.5
    assert np.abs(ours - want)[whole].max() < 0.5
    # Where the picture ends both fade to black within one pixel, steeply.
    assert np.abs(ours - want).max() < 255 / 32
