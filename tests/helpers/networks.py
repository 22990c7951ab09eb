"""Networks as training leaves them."""

import numpy as np


def far_from_identity(network, seed=0):
    """The network with norms as no initialisation has them: factors of both signs, 0.1 to 9."""
    draw = np.random.default_rng(seed)
    for variable in network.variables:
        shape = variable.shape
        if "gamma" in variable.name:
            variable.assign(draw.uniform(0.5, 2, shape) * draw.choice([-1, 1], shape))
        elif "moving_variance" in variable.name:
            variable.assign(draw.uniform(0.05, 5, shape))
        elif "moving_mean" in variable.name or "beta" in variable.name:
            variable.assign(draw.normal(0, 1, shape))
    return network
