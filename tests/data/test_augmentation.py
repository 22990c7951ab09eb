"""One affine draw moves pixels and joints alike, is reproducible, and follows the publications."""

import numpy as np
import pytest
import tensorflow as tf

from hourglass.skeleton import MPII, Skeleton
from pipelines.data import augmentation, preprocessing, targets
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED
from pipelines.data.augmentation import AUGMENTATIONS

SIZE, CANVAS = 64, 96
WRISTS = Skeleton(("left_wrist", "right_wrist", "head_top"))

# Crop px, sub-pixel: left wrist in the red channel, right wrist in green, head top in blue.
PLACES = np.array([[30.3, 52.75], [61.6, 49.2], [47.5, 30.1]], np.float32)


def dots(people: int) -> dict:
    """Stored crops of black with one soft dot per joint, each in a channel of its own."""
    grid = np.arange(CANVAS)
    soft = [
        np.exp(-((grid[:, None] - y) ** 2 + (grid[None] - x) ** 2) / (2 * 2.0**2))
        for x, y in PLACES
    ]
    image = np.rint(250 * np.stack(soft, -1)).astype(np.uint8)
    return {
        "image": tf.constant(np.repeat(image[None], people, 0)),
        "joints": tf.constant(np.repeat(PLACES[None], people, 0)),
        "state": tf.constant([[LABELLED, OCCLUDED, MISSING]] * people, tf.int32),
        "center": tf.constant([[46.2, 44.9]] * people),
        "side": tf.constant([58.0] * people),
    }


def centroids(images: np.ndarray) -> np.ndarray:
    """[B, 3, 2] centre of mass (x, y) of each channel above the black of the picture's rim."""
    light = images + preprocessing.MEAN
    light = np.where(light > 0.02, light, 0.0)
    y, x = np.mgrid[: light.shape[1], : light.shape[2]]
    total = light.sum((1, 2))
    return np.stack([(light * g[None, ..., None]).sum((1, 2)) / total for g in (x, y)], -1)


def index(first, count):
    return tf.range(first, first + count, dtype=tf.int64)


def draws(name="newell", first=0, count=8, seed=3, batch=None):
    drawn = augmentation.draw(AUGMENTATIONS[name], seed, index(first, count), batch or count)
    return {key: value.numpy() for key, value in drawn.items()}


def fixed(people, scale=1.0, angle=0.0, mirror=False, color=1.0):
    return {
        "scale": tf.fill([people], scale),
        "angle": tf.fill([people], angle),
        "mirror": tf.fill([people], mirror),
        "color": tf.fill([people, 3], color),
    }


class TestDraw:
    def test_same_seed_and_step_give_the_same_bits(self):
        again, graph = draws(), tf.function(augmentation.draw, autograph=False)
        traced = graph(AUGMENTATIONS["newell"], 3, index(0, 8), 8)
        for key, value in draws().items():
            np.testing.assert_array_equal(value, again[key])
            np.testing.assert_array_equal(value, traced[key].numpy())

    @pytest.mark.parametrize("other", [{"seed": 4}, {"first": 8}])
    def test_another_seed_or_step_gives_others(self, other):
        assert not np.isin(draws(**other)["color"], draws()["color"]).any()

    def test_replicas_share_the_draw_of_the_whole_batch(self):
        whole = draws(first=16, count=8)
        halves = [draws(first=first, count=4, batch=8) for first in (16, 20)]
        for key, value in whole.items():
            # Vectorised functions may round otherwise where a batch ends.
            both = np.concatenate([half[key] for half in halves])
            np.testing.assert_allclose(value, both, rtol=3e-7)

    def test_examples_differ(self):
        assert len(np.unique(draws(count=64)["color"])) == 64 * 3

    @pytest.mark.parametrize(
        ("name", "limits", "at_limits", "rotated", "color"),
        [
            # 2^(0.25 N) within 2^+-0.5, that is 2 standard deviations: 4.6 % end at the limits.
            ("newell", (2**-0.5, 2**0.5), 0.0455, 0.4, (0.6, 1.4)),
            # 1 + 0.25 N within 1 +- 0.25, that is one standard deviation: 31.7 %.
            ("pytorch_pose", (0.75, 1.25), 0.317, 0.6, (0.8, 1.2)),
        ],
    )
    def test_published_parameters(self, name, limits, at_limits, rotated, color):
        many = draws(name, count=20_000)
        scale, angle = many["scale"], np.degrees(many["angle"])
        assert (scale.min(), scale.max()) == pytest.approx(limits)
        ends = np.isclose(scale, limits[0]) | np.isclose(scale, limits[1])
        assert ends.mean() == pytest.approx(at_limits, abs=0.01)
        spread = np.log2(scale) if name == "newell" else scale - 1
        assert np.mean(np.abs(spread) < 0.25 * 0.5) == pytest.approx(0.383, abs=0.01)
        assert np.mean(angle != 0) == pytest.approx(rotated, abs=0.01)
        turned = angle[angle != 0]
        assert (turned.min(), turned.max()) == pytest.approx((-60, 60))
        assert np.mean(np.abs(turned) < 15) == pytest.approx(0.383, abs=0.015)
        assert np.mean(np.abs(turned) > 59.99) == pytest.approx(0.0455, abs=0.01)
        assert many["mirror"].mean() == pytest.approx(0.5, abs=0.01)
        assert (many["color"].min(), many["color"].max()) == pytest.approx(color, abs=1e-3)
        assert many["color"].mean() == pytest.approx(1.0, abs=0.01)

    def test_gentle_people_stand_and_keep_their_size(self):
        many = draws("gentle", count=20_000)
        scale = many["scale"]
        assert (scale.min(), scale.max()) == pytest.approx((0.85, 1.15))
        # 1 + 0.1 N within 1.5 standard deviations: 13.4 % end at the limits.
        assert np.mean(np.abs(scale - 1) > 0.1499) == pytest.approx(0.134, abs=0.01)
        assert np.mean(np.abs(scale - 1) < 0.05) == pytest.approx(0.383, abs=0.01)
        assert not many["angle"].any()

    def test_draws_of_one_example_are_independent(self):
        """Also those of a batch's first example, where one seed for two tables would tie them."""
        first = [draws("pytorch_pose", first=4 * step, count=4) for step in range(400)]
        size = np.abs([one["scale"][0] - 1 for one in first])
        turned = np.array([one["angle"][0] != 0 for one in first])
        mirror = np.array([one["mirror"][0] for one in first])
        table = np.corrcoef([size, turned, mirror, *np.array([o["color"][0] for o in first]).T])
        assert np.abs(table - np.eye(6)).max() < 0.2

    def test_name_none_changes_nothing(self):
        still = draws("none", count=100)
        assert (still["scale"] == 1).all() and (still["angle"] == 0).all()
        assert not still["mirror"].any() and (still["color"] == 1).all()


class TestPixelsAndJointsMoveTogether:
    @pytest.mark.parametrize("name", ["none", "pytorch_pose", "newell"])
    def test_dots_land_under_their_joints(self, name):
        batch, people = dots(16), 16
        drawn = augmentation.draw(AUGMENTATIONS[name], 5, index(0, people), people)
        drawn = {**drawn, "color": tf.ones([people, 3])}
        pictures, matrix = augmentation.images(batch, SIZE, drawn)
        points, _ = targets.joints(batch, matrix, WRISTS.mirror, drawn["mirror"])
        found, mirrored = centroids(pictures.numpy()), drawn["mirror"].numpy()
        assert mirrored.any() == (name != "none")
        # Of a mirrored person the left wrist is what was painted as the right one.
        found[mirrored] = found[mirrored][:, [1, 0, 2]]
        whole = (np.abs(points - 31.5) < 22).all(-1)  # dots that the picture's rim does not cut
        assert whole.mean() > 0.7
        np.testing.assert_allclose(points.numpy()[whole], found[whole], atol=0.05)

    def test_evaluation_has_no_draw(self):
        batch = dots(2)
        pictures, matrix = preprocessing.images(batch, SIZE)
        points, state = targets.joints(batch, matrix, WRISTS.mirror)
        np.testing.assert_allclose(points.numpy(), centroids(pictures.numpy()), atol=0.05)
        np.testing.assert_array_equal(state, batch["state"])
        same, _ = augmentation.images(batch, SIZE, fixed(2))
        np.testing.assert_allclose(pictures, same, atol=1e-6)
        # By hand: the crop's centre comes to the middle, 58 crop px become 64.
        np.testing.assert_allclose(
            points[0, 0], 31.5 + (PLACES[0] - (46.2, 44.9)) * 64 / 58, atol=1e-4
        )

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            # A crop side twice as large shows everything half as big.
            ({"scale": 2.0}, lambda d: d * 0.5),
            # A quarter turn, clockwise on the screen: right becomes down.
            ({"angle": np.pi / 2}, lambda d: np.stack([-d[:, 1], d[:, 0]], -1)),
            ({"mirror": True}, lambda d: d[[1, 0, 2]] * (-1, 1)),
            (
                {"mirror": True, "angle": np.pi / 2},
                lambda d: np.stack([d[:, 1], d[:, 0]], -1)[[1, 0, 2]],
            ),
        ],
    )
    def test_by_hand(self, change, place):
        batch = dots(1)
        drawn = fixed(1, **change)
        matrix = augmentation.crop_to_input(batch, SIZE, drawn)
        points, state = targets.joints(batch, matrix, WRISTS.mirror, drawn["mirror"])
        offset = (PLACES - (46.2, 44.9)) * 64 / 58
        np.testing.assert_allclose(points[0], 31.5 + place(offset), atol=1e-4)
        swapped = [OCCLUDED, LABELLED, MISSING]
        assert state[0].numpy().tolist() == (
            swapped if change.get("mirror") else [LABELLED, OCCLUDED, MISSING]
        )

    def test_mirror_of_every_mpii_joint(self):
        joints = tf.constant(np.random.default_rng(0).uniform(0, 9, (2, 16, 2)), tf.float32)
        state = tf.constant(np.arange(32).reshape(2, 16), tf.int32)
        batch = {"joints": joints, "state": state}
        drawn = {**fixed(2), "mirror": tf.constant([True, False])}
        still = tf.constant([[[1.0, 0, 0], [0, 1, 0]]] * 2)
        points, after = targets.joints(batch, still, MPII.mirror, drawn["mirror"])
        swap = [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10]
        np.testing.assert_array_equal(points, np.stack([joints[0].numpy()[swap], joints[1]]))
        np.testing.assert_array_equal(after, np.stack([state[0].numpy()[swap], state[1]]))


class TestPictures:
    def test_color_multiplies_each_channel_and_stops_at_white(self):
        pixels = tf.constant([[[[100, 100, 200]]]], tf.uint8)
        draws = {"color": tf.constant([[0.5, 1.0, 1.4]])}
        change = augmentation.change_pixels
        picture = preprocessing.normalize(pixels, change=change, draws=draws).numpy()[0, 0, 0]
        expected = np.array([100 / 255 * 0.5, 100 / 255, 1.0]) - (0.4404, 0.4440, 0.4327)
        np.testing.assert_allclose(picture, expected, atol=1e-6)

    def test_evaluation_subtracts_the_mean_only(self):
        picture = preprocessing.normalize(tf.constant([[[[0, 127, 255]]]], tf.uint8)).numpy()[
            0, 0, 0
        ]
        expected = np.array([0, 127, 255]) / 255 - (0.4404, 0.4440, 0.4327)
        np.testing.assert_allclose(picture, expected, atol=1e-6)

    def test_pictures_are_warped_once_compiled_and_stay_uint8_until_then(self):
        graph = tf.function(lambda b, d: augmentation.images(b, SIZE, d)[0])
        graph = graph.get_concrete_function(dots(2), fixed(2)).graph
        (function,) = graph.as_graph_def().library.function
        assert function.attr["_XlaMustCompile"].b
        reads = [node for node in function.node_def if node.op == "GatherV2"]
        kinds = [node.attr["Tparams"].type for node in reads]
        assert kinds == [tf.uint8.as_datatype_enum] * 4

    def test_whole_step_is_the_same_eagerly_and_traced(self):
        def step(batch):
            drawn = augmentation.draw(AUGMENTATIONS["newell"], 5, index(8, 4), 4)
            pictures, matrix = augmentation.images(batch, SIZE, drawn)
            points, state = targets.joints(batch, matrix, WRISTS.mirror, drawn["mirror"])
            return pictures, *targets.targets(points, state, size=SIZE, sigma=1.0)

        for eager, traced in zip(step(dots(4)), tf.function(step)(dots(4))):
            np.testing.assert_allclose(eager, traced, atol=2e-6)
        for once, again in zip(tf.function(step)(dots(4)), tf.function(step)(dots(4))):
            np.testing.assert_array_equal(once, again)


class TestTargets:
    # Labelled, occluded, missing; then labelled: half a pixel left of the first pixel's edge, on
    # its edge, on the last pixel's far edge, far outside.
    POINTS = [[21.5, 33.5], [9.5, 41.5], [5.0, 5.0], [-0.6, 9], [-0.5, 9], [63.5, 9], [9, 400]]
    STATE = [LABELLED, OCCLUDED, MISSING, LABELLED, LABELLED, LABELLED, LABELLED]

    def make(self, **changes):
        points, state = tf.constant([self.POINTS]), tf.constant([self.STATE], tf.int32)
        settings = {"size": SIZE, "sigma": 1.0, **changes}
        heatmaps, weight = targets.targets(points, state, **settings)
        return heatmaps.numpy()[0], weight.numpy()[0].tolist()

    def test_weights_of_the_three_rules(self):
        assert self.make()[1] == [1, 1, 0, 0, 1, 0, 0]
        assert self.make(occluded="train")[1] == [1, 1, 0, 0, 1, 0, 0]
        assert self.make(occluded="ignore")[1] == [1, 0, 0, 0, 1, 0, 0]
        assert self.make(occluded="zero")[1] == [1, 1, 0, 0, 1, 0, 0]

    def test_maps_of_occluded_joints(self):
        assert self.make()[0][..., 1].max() > 0.9
        assert self.make(occluded="ignore")[0][..., 1].max() > 0.9
        assert self.make(occluded="zero")[0][..., 1].max() == 0
        assert self.make(occluded="zero")[0][..., 0].max() == 1

    def test_peaks_stand_where_the_joint_is(self):
        """Input px 21.5, 33.5 is heatmap px (21.5 + 0.5) / 4 - 0.5 = 5 and 8."""
        heatmaps, _ = self.make()
        assert heatmaps.shape == (16, 16, 7)
        assert np.unravel_index(heatmaps[..., 0].argmax(), (16, 16)) == (8, 5)
        assert heatmaps[8, 5, 0] == 1
        assert heatmaps[8, 6, 0] == pytest.approx(np.exp(-0.5))
        # Heatmap px 2 and 10 for the second joint; sigma 2 falls off four times as slowly.
        wide, _ = self.make(sigma=2.0)
        assert wide[10, 3, 1] == pytest.approx(np.exp(-0.125))

    def test_rounded_centres(self):
        points = tf.constant([[[22.5, 33.5]]])  # heatmap px 5.25, 8
        for rounded, peak in ((False, np.exp(-(0.25**2) / 2)), (True, 1.0)):
            heatmaps, _ = targets.targets(
                points, tf.constant([[LABELLED]]), size=SIZE, sigma=1.0, rounded=rounded
            )
            assert heatmaps[0, 8, 5, 0].numpy() == pytest.approx(peak)
