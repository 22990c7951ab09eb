"""Inference options: bounds, and the decoder that a checkpoint's weights expect."""

import math

import pytest

from hourglass import heatmap
from pipelines.data.preprocessing import MEAN
from pipelines.inference.options import InferenceOptions, for_weights


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decoder": "auto"}, "decoder 'auto' is unknown; choose one of argmax, quarter"),
        ({"sigma": 0.0}, "sigma must be above 0 and finite, not 0.0"),
        ({"sigma": math.inf}, "sigma must be above 0 and finite, not inf"),
        ({"sigma": math.nan}, "sigma must be above 0 and finite, not nan"),
        ({"scales": ()}, r"one or more from 0.25 to 4, not \(\)"),
        ({"scales": (1.0, 0.2)}, r"one or more from 0.25 to 4, not \(1.0, 0.2\)"),
        ({"scales": (4.1,)}, "one or more from 0.25 to 4"),
    ],
)
def test_values_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        InferenceOptions(**values)


@pytest.mark.parametrize("decoder", heatmap.DECODERS)
def test_bounds_are_allowed(decoder):
    InferenceOptions(decoder=decoder, scales=(0.25, 4.0), sigma=1e-3)


def test_auto_is_what_the_weights_expect_and_quarter_for_ours():
    assert for_weights((MEAN, "")) == InferenceOptions(True, "quarter", 1.0, (1.0,), MEAN)
    imported = ((0.0, 0.0, 0.0), "hourglass")
    assert for_weights(imported, flip=False, sigma=2.0, scales=(0.9,)) == InferenceOptions(
        False, "hourglass", 2.0, (0.9,), (0.0, 0.0, 0.0)
    )
    assert for_weights(imported, decoder="dark").decoder == "dark"
