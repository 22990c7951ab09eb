import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from hourglass import optimizer

BOTH = pytest.mark.parametrize("run", [lambda f: f, tf.function], ids=["eager", "graph"])
FEW = hypothesis.settings(max_examples=20, deadline=None, derandomize=True)


def _rates(run, at, **settings):
    rate = run(lambda step: optimizer.learning_rate(step, **settings))
    return [float(rate(tf.constant(step, tf.int64))) for step in at]


@BOTH
def test_the_step_schedule_by_hand(run):
    rates = _rates(
        run,
        [0, 49, 50, 79, 80, 1000],
        base=2.5e-4,
        schedule="step",
        steps=100,
        milestones=(50, 80),
        drop_factor=0.2,
    )
    np.testing.assert_allclose(rates, [2.5e-4, 2.5e-4, 5e-5, 5e-5, 1e-5, 1e-5], rtol=1e-6)


@BOTH
def test_warm_up_rises_linearly_to_the_base(run):
    settings = {"base": 1.0, "schedule": "step", "steps": 100, "warmup": 4}
    np.testing.assert_allclose(_rates(run, range(6), **settings), [0.25, 0.5, 0.75, 1, 1, 1])


@BOTH
def test_a_drop_inside_the_warm_up_counts_too(run):
    settings = {"base": 1.0, "schedule": "step", "steps": 100, "warmup": 4, "milestones": (2,)}
    np.testing.assert_allclose(_rates(run, range(5), **settings), [0.25, 0.5, 0.075, 0.1, 0.1])


@BOTH
def test_the_cosine_schedule_by_hand(run):
    settings = {"base": 2.0, "schedule": "cosine", "steps": 12}
    rates = _rates(run, [0, 3, 4, 6, 9, 12, 50], **settings)
    root = np.sqrt(0.5)
    np.testing.assert_allclose(rates, [2, 1 + root, 1.5, 1, 1 - root, 0, 0], atol=1e-6)


@BOTH
def test_the_cosine_begins_after_the_warm_up(run):
    settings = {"base": 1.0, "schedule": "cosine", "steps": 12, "warmup": 2, "milestones": (3,)}
    rates = _rates(run, [0, 1, 2, 7, 12], **settings)
    np.testing.assert_allclose(rates, [0.5, 1, 1, 0.5, 0], atol=1e-6)


@FEW
@hypothesis.given(
    st.sampled_from(optimizer.SCHEDULES),
    st.integers(1, 10**6),
    st.integers(0, 100),
    st.integers(0, 10**6),
)
def test_a_rate_is_between_0_and_the_base(schedule, steps, warmup, step):
    settings = {"base": 1.0, "schedule": schedule, "steps": steps, "warmup": warmup}
    (rate,) = _rates(lambda f: f, [step], milestones=(steps // 2,), **settings)
    assert 0.0 <= rate <= 1.0


def test_the_rate_can_be_read_from_a_counter_inside_a_graph():
    step = tf.Variable(0, dtype=tf.int64)

    @tf.function
    def rate():
        return optimizer.learning_rate(step, base=1.0, schedule="step", steps=10, milestones=[5])

    assert rate() == 1.0
    step.assign(5)
    np.testing.assert_allclose(rate(), 0.1, rtol=1e-6)


def test_unknown_names_are_rejected():
    with pytest.raises(ValueError, match=r"schedule 'plateau' is not one of \('step', 'cosine'\)"):
        optimizer.learning_rate(tf.constant(0), base=1.0, schedule="plateau", steps=1)
    with pytest.raises(ValueError, match=r"optimizer 'sgd' is not one of \('rmsprop', 'adamw'\)"):
        optimizer.build("sgd", lambda: 0.1)
    with pytest.raises(ValueError, match=r"weight_decay 0.1 needs optimizer adamw"):
        optimizer.build("rmsprop", lambda: 0.1, weight_decay=0.1)


def _torch_rmsprop(weight, gradients, rate, rho=0.99, epsilon=1e-8):
    """torch.optim.RMSprop(alpha=rho, eps=epsilon), written out in float64."""
    square = np.zeros_like(weight)
    for gradient in gradients:
        square = rho * square + (1 - rho) * gradient**2
        weight = weight - rate * gradient / (np.sqrt(square) + epsilon)
    return weight


def _after(opt, weight, gradients, run=tf.function):
    variable = tf.Variable(weight, dtype=tf.float32)

    @run
    def step(gradient):
        opt.apply_gradients([(gradient, variable)])

    for gradient in gradients:
        step(tf.constant(gradient, tf.float32))
    return variable.numpy()


@BOTH
def test_rmsprop_is_torchs_on_the_tiny_gradients_of_heatmaps(run):
    # The trap: the newer Keras RMSprop of TensorFlow 2.15 has epsilon inside the square root and
    # goes 28 times as slowly.
    gradients = [np.array([1e-5])] * 50
    want = _torch_rmsprop(np.zeros(1), gradients, 2.5e-4)
    ours = _after(optimizer.build("rmsprop", lambda: 2.5e-4), [0.0], gradients, run)
    np.testing.assert_allclose(ours, want, rtol=1e-5)
    np.testing.assert_allclose(ours, [-0.0332], atol=5e-5)
    trap = tf.keras.optimizers.RMSprop(2.5e-4, rho=0.99, epsilon=1e-8)
    np.testing.assert_allclose(_after(trap, [0.0], gradients, run), [-0.0012], atol=5e-5)


@pytest.mark.parametrize("size", [1e-8, 1e-5, 1e-2, 10.0])
def test_rmsprop_is_torchs_at_every_size_of_gradient(size):
    draw = np.random.default_rng(5)
    start, gradients = draw.normal(size=7), draw.normal(size=[50, 7]) * size
    ours = _after(optimizer.build("rmsprop", lambda: 1e-3), start, gradients)
    np.testing.assert_allclose(ours, _torch_rmsprop(start, gradients, 1e-3), atol=2e-6)


@BOTH
@pytest.mark.parametrize("size", [1e-5, 1e-2, 10.0])
def test_rmsprop_with_epsilon_inside_the_root_is_tensorflows(run, size):
    draw = np.random.default_rng(5)
    start, gradients = draw.normal(size=7), draw.normal(size=[30, 7]) * size
    settings = {"rho": 0.9, "epsilon": 1e-7}
    theirs = _after(tf.keras.optimizers.RMSprop(1e-3, **settings), start, gradients, run)
    ours = optimizer.build("rmsprop", lambda: 1e-3, **settings, epsilon_inside=True)
    np.testing.assert_allclose(_after(ours, start, gradients, run), theirs, atol=1e-6)
    outside = optimizer.build("rmsprop", lambda: 1e-3, **settings)
    want = _torch_rmsprop(start, gradients, 1e-3, 0.9, 1e-7)
    np.testing.assert_allclose(_after(outside, start, gradients, run), want, atol=2e-6)


def test_rmsprop_does_not_round_a_small_gradient_by_the_large_one_before():
    # The kernel also keeps a momentum, m + (g - m): 1e-4 after 1.0 is off there by 3e-4 of itself.
    gradients = [np.array([1.0]), np.array([1e-4])]
    first = _after(optimizer.build("rmsprop", lambda: 1.0), [10.0], gradients[:1])  # lands near 0
    both = _after(optimizer.build("rmsprop", lambda: 1.0), [10.0], gradients)
    np.testing.assert_allclose(first - both, 1e-4 / (0.0099 + 1e-10) ** 0.5, rtol=1e-5)


def _adamw(weight, gradients, rate, decay):
    """Loshchilov and Hutter 2019, algorithm 2, with Kingma and Ba's epsilon-hat."""
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for t, gradient in enumerate(gradients, 1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        corrected = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weight = weight - rate * decay * weight - corrected * mean / (np.sqrt(square) + 1e-8)
    return weight


@BOTH
def test_adamw_decays_kernels_and_nothing_else(run):
    draw = np.random.default_rng(6)
    names = ["conv/kernel", "dw/depthwise_kernel", "conv/bias", "bn/gamma", "bn/beta"]
    start, gradients = draw.normal(size=[5, 3]), draw.normal(size=[50, 5, 3]) * 1e-3
    # Kernels have axes for input and output channels, and all else has one.
    shapes = [[1, 1, 1, 3], [1, 1, 3, 1], [3], [3], [3]]
    variables = [
        tf.Variable(values.reshape(shape), dtype=tf.float32, name=name)
        for name, values, shape in zip(names, start, shapes)
    ]
    opt = optimizer.build("adamw", lambda: tf.constant(0.01), weight_decay=0.5)
    optimizer.create_slots(opt, variables)
    decayed = optimizer.decayed(variables)
    assert [v.name for v in decayed] == ["conv/kernel:0", "dw/depthwise_kernel:0"]

    @run
    def step(now):
        shaped = [tf.reshape(g, shape) for g, shape in zip(tf.unstack(now), shapes)]
        opt.apply_gradients(zip(shaped, variables), decay_var_list=decayed)

    for now in gradients:
        step(tf.constant(now, tf.float32))
    for j, variable in enumerate(variables):
        want = _adamw(start[j], gradients[:, j], 0.01, 0.5 if j < 2 else 0.0)
        np.testing.assert_allclose(variable.numpy().ravel(), want, atol=1e-5, err_msg=names[j])


def test_only_adamw_has_a_weight_decay():
    # The training loop asks this before it names the decayed variables.
    assert hasattr(optimizer.build("adamw", lambda: 0.1, 0.1), "weight_decay")
    assert not hasattr(optimizer.build("rmsprop", lambda: 0.1), "weight_decay")


def test_weight_decay_reaches_the_copies_of_a_mirrored_kernel():
    # The optimizer updates each replica's copy, which is another variable than the mirrored one.
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        variables = [tf.Variable([[1.0]], name="kernel"), tf.Variable([1.0], name="bias")]
        opt = optimizer.build("adamw", lambda: tf.constant(0.1), weight_decay=0.5)
        optimizer.create_slots(opt, variables)
    decayed = optimizer.decayed(variables)

    def step():
        opt.apply_gradients([(tf.zeros_like(v), v) for v in variables], decay_var_list=decayed)

    tf.function(lambda: strategy.run(step))()
    np.testing.assert_allclose([v.numpy().item() for v in variables], [0.95, 1.0], rtol=1e-6)


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_the_rate_is_read_anew_at_every_step_of_one_trace(name):
    rate, traces = tf.Variable(0.0), []
    variable = tf.Variable([1.0], name="kernel")
    opt = optimizer.build(name, rate.read_value, 0.1 if name == "adamw" else 0.0)
    optimizer.create_slots(opt, [variable])

    @tf.function
    def step():
        traces.append(1)
        opt.apply_gradients([(tf.constant([0.5]), variable)])

    step()
    assert variable.numpy() == 1.0  # neither moved nor decayed at rate 0
    rate.assign(0.01)
    step()
    assert variable.numpy() < 0.995
    assert len(traces) == 1


@pytest.mark.parametrize(("name", "slots"), [("rmsprop", 2), ("adamw", 2)])
def test_create_slots_makes_all_of_the_state(name, slots):
    variables = [tf.Variable([1.0], name="a"), tf.Variable([2.0], name="b")]
    opt = optimizer.build(name, lambda: 0.1)
    optimizer.create_slots(opt, variables)
    before = [v.name for v in opt.variables()]
    assert len(before) == 1 + slots * len(variables)  # the count of steps, and the slots
    opt.apply_gradients([(tf.constant([1.0]), v) for v in variables])
    assert [v.name for v in opt.variables()] == before


@BOTH
def test_the_decay_of_the_average_ramps_up(run):
    decay = run(lambda step: optimizer.average_decay(0.999, step))
    steps = [0, 8, 89, 990, 8990, 10**6]
    decays = [decay(tf.constant(step, tf.int64)) for step in steps]
    np.testing.assert_allclose(decays, [0.1, 0.5, 90 / 99, 0.991, 0.999, 0.999], rtol=1e-6)


@BOTH
def test_an_average_moves_towards_its_variable(run):
    averages = [tf.Variable([1.0, 0.0]), tf.Variable(5.0)]
    variables = [tf.Variable([3.0, 10.0]), tf.Variable(5.0)]
    run(lambda decay: optimizer.update_average(averages, variables, decay))(tf.constant(0.9))
    np.testing.assert_allclose(averages[0], [1.2, 1.0], rtol=1e-6)
    assert averages[1].numpy() == 5.0
    np.testing.assert_array_equal(variables[0], [3.0, 10.0])


def test_averages_under_mirrored_strategy(two_replicas):
    """Copy by copy; statistics differ between replicas, and the mean of their averages counts."""
    with two_replicas.scope():
        average, weight = (tf.Variable([start, 0.0]) for start in (1.0, 3.0))
        kind = {
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.MEAN,
            "trainable": False,
        }
        average_mean, moving_mean = (tf.Variable(0.0, **kind) for _ in range(2))
    for copy, value in zip(moving_mean.values, (2.0, 6.0)):
        copy.assign(value)

    def update(averages, variables):
        step = tf.function(lambda decay: optimizer.update_average(averages, variables, decay))
        step(tf.constant(0.9))
        return step.get_concrete_function(tf.constant(0.9)).graph.get_operations()

    update([average_mean], [moving_mean])
    np.testing.assert_allclose(average_mean.read_value(), 0.4, rtol=1e-6)
    operations = update([average], [weight])
    np.testing.assert_allclose([copy.numpy() for copy in average.values], [[1.2, 0.0]] * 2)
    made = [op for op in operations if op.type not in ("Placeholder", "NoOp")]
    assert len(made) <= 2 * 5 + 2, "tracing a training takes seconds for them"


def test_averages_of_a_sequence_are_its_exponential_average():
    values = np.random.default_rng(7).normal(size=40)
    average, variable = tf.Variable(100.0), tf.Variable(0.0)
    want = 100.0
    for step, value in enumerate(values):
        variable.assign(value)
        decay = optimizer.average_decay(0.8, tf.constant(step))
        optimizer.update_average([average], [variable], decay)
        want += (1 - min(0.8, (1 + step) / (10 + step))) * (value - want)
    np.testing.assert_allclose(average, want, rtol=1e-5)
    assert abs(want) < 2  # the first value, far off, is forgotten


@BOTH
def test_clip_scales_all_gradients_by_one_factor(run):
    gradients = [tf.constant([3.0, 0.0]), tf.constant([[0.0], [4.0]])]  # norm 5
    clipped, norm = run(lambda g: optimizer.clip(g, 1.0))(gradients)
    np.testing.assert_allclose(norm, 5.0)
    np.testing.assert_allclose(clipped[0], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(clipped[1], [[0.0], [0.8]], rtol=1e-6)


@BOTH
@pytest.mark.parametrize("limit", [None, 0.0, 5.5])
def test_gradients_below_the_limit_or_without_one_stay(run, limit):
    gradients = [tf.constant([3.0, 0.0]), tf.constant([[0.0], [4.0]])]
    clipped, norm = run(lambda g: optimizer.clip(g, limit))(gradients)
    np.testing.assert_allclose(norm, 5.0)
    for after, before in zip(clipped, gradients):
        np.testing.assert_allclose(after, before, rtol=1e-6)


def test_the_norm_of_a_broken_gradient_is_not_finite():
    _, norm = optimizer.clip([tf.constant([1.0, float("nan")])], 1.0)
    assert not np.isfinite(norm)
