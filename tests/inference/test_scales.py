"""Multi-scale test: heatmaps of several crop sizes, brought back into one frame and averaged."""

import numpy as np
import pytest
import tensorflow as tf

from hourglass import affine
from pipelines import devices
from pipelines.data import input_pipeline, preprocessing
from pipelines.evaluation import evaluate
from pipelines.inference import forward
from pipelines.inference.options import InferenceOptions
from tests.helpers.people import write_records
from tests.helpers.spots import SPOTS, dots_network, spots

SIDES = ("side", "center", "image", "index")


@pytest.fixture(scope="module")
def spotted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scales")
    return write_records(folder, {"validation": 10}, skeleton=SPOTS, draw=spots)


@pytest.fixture(scope="module")
def batch(spotted):
    return next(iter(input_pipeline.evaluation(spotted[0], "validation", batch=10)))


def make(network, options):
    strategy = devices.make_strategy("one")
    return strategy, forward.make_predict(strategy, network, SPOTS.mirror, options)


def averaged(network, batch, scales):
    """Heatmaps [B, h, w, 3] without the mirrored prediction."""
    options = InferenceOptions(flip=False, scales=scales)
    return forward.predict_scales(network, batch, SPOTS.mirror, options)[0]


def offsets(spotted, scales, flip=False):
    """[10, 3, 2] predicted less true joints, in crop sides."""
    info, people = spotted
    strategy, predict = make(dots_network(), InferenceOptions(flip=flip, scales=scales))
    dataset = input_pipeline.evaluation(info, "validation", batch=5)
    predicted, _ = evaluate.predict(
        strategy, predict, dataset, input_pipeline.labels(info, "validation")
    )
    return np.stack([(j - p.joints) / p.side for j, p in zip(predicted, people["validation"])])


class TestZoom:
    def test_by_hand(self):
        """Four px: the middle is 1.5; the last pixel's centre, 3, goes to 1.5 + 2 * 1.5."""
        moved = affine.apply(affine.zoom(4, 2.0), tf.constant([[1.5, 1.5], [3.0, 0.0]]))
        np.testing.assert_allclose(moved, [[1.5, 1.5], [4.5, -1.5]])


class TestMultiScale:
    @pytest.mark.parametrize("scales", [(1.25,), (0.8,), (1.0, 0.9, 1.1), (1.1, 1.5)])
    @pytest.mark.parametrize("flip", [False, True])
    def test_spots_stay_where_they_are(self, spotted, scales, flip):
        """Half a heatmap px is 1/32 of a side; one frame taken for another would be a tenth."""
        away = offsets(spotted, scales, flip)
        assert np.abs(away).max() < 1 / 32
        assert np.abs(away.mean((0, 1))).max() < 0.004

    def test_scale_one_is_the_plain_test(self, batch):
        network = dots_network()
        maps, matrix = forward.predict_scales(network, batch, SPOTS.mirror, InferenceOptions())
        images, plain_matrix = preprocessing.images(batch, 64)
        plain = forward.predict_heatmaps(network, images, SPOTS.mirror, True)
        np.testing.assert_array_equal(maps, plain)
        np.testing.assert_array_equal(matrix, plain_matrix)

    def test_naming_scale_one_twice_changes_nothing(self, batch):
        once, twice = (averaged(dots_network(), batch, scales) for scales in ((1.0,), (1.0, 1.0)))
        np.testing.assert_allclose(twice, once, atol=1e-5)

    def test_average_is_that_of_the_crops_that_reach(self, batch):
        """Maps of 1 everywhere stay 1 also at the rim, which the smaller crop does not see."""
        images = tf.keras.Input([64, 64, 3])
        ones = tf.keras.layers.AveragePooling2D(4)(images * 0.0 + 1.0)
        network = tf.keras.Model(images, [ones, ones])
        np.testing.assert_allclose(averaged(network, batch, (0.5, 1.0)), 1, atol=1e-6)
        maps = averaged(network, batch, (0.5,))
        assert maps[0, 0, 0, 0] == 0 and maps[0, 8, 8, 0] == 1  # outside all scales

    def test_one_trace_and_one_forward_pass_per_scale(self, spotted):
        info, _ = spotted
        for scales, passes in (((1.0,), 1), ((1.0, 0.9, 1.1), 3)):
            _, predict = make(dots_network(), InferenceOptions(flip=False, scales=scales))
            for batch in input_pipeline.evaluation(info, "validation", batch=5):
                predict(batch)
            assert predict.experimental_get_tracing_count() == 1
            graph = predict.get_concrete_function(batch).graph
            nodes = [n for f in graph.as_graph_def().library.function for n in f.node_def]
            nodes += list(graph.as_graph_def().node)
            assert sum(node.op == "AvgPool" for node in nodes) == passes
