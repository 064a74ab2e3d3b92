"""Advantage actor-critic: returns, losses, the model by step and by sequence, and training."""

import concurrent.futures
import functools
import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from test_maze import PlainMaze

import keras_mnm
from keras_mnm import backend, rl

B, T, FEATURES = 3, 7, 12
OPTIONS = {"return_sequences": True, "return_state": True}
CORES = {
    "mnm-p": lambda: keras_mnm.MNM(8, 6, 2, **OPTIONS),
    "mnm-g": lambda: keras_mnm.MNM(8, 6, 2, write_rule="gradient", **OPTIONS),
    "lstm-salu": lambda: keras_mnm.SALU(8, 6, 2, slots=T, **OPTIONS),
    "lstm-salu, slots by the sequence": lambda: keras_mnm.SALU(8, 6, 2, **OPTIONS),
    "lstm": lambda: keras.layers.LSTM(8, **OPTIONS),
    "plastic": lambda: keras_mnm.Plastic(8, **OPTIONS),
    "homogeneous": lambda: keras_mnm.Plastic(8, homogeneous=True, **OPTIONS),
    "minimal": lambda: keras.layers.RNN(MinimalCell(), **OPTIONS),
}


@keras.saving.register_keras_serializable(package="test_a2c")
class MinimalCell(keras.layers.Layer):
    """No more than Keras asks of a cell."""

    state_size = 8

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 8), regularizer="l2")

    def call(self, inputs, states):
        output = ops.tanh(ops.matmul(inputs, self.kernel) - states[0])
        return output, output


def make_model(core="mnm-p", features=FEATURES):
    keras.utils.set_random_seed(0)  # of what is not trained, φ_0
    model = rl.ActorCritic(CORES[core](), num_actions=4)
    model.build((None, T, features))
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(rng.uniform(-0.5, 0.5, weight.shape))
    return model


def observations(seed=1):
    return np.random.default_rng(seed).standard_normal((B, T, FEATURES)).astype("float32")


def numpy(nest):
    return keras.tree.map_structure(ops.convert_to_numpy, nest)


def close(one, other, tolerance=1e-5):
    for a, b in zip(keras.tree.flatten(numpy(one)), keras.tree.flatten(numpy(other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_returns_match_plain_loops():
    rng = np.random.default_rng(0)
    rewards, final = rng.standard_normal((B, T)), rng.standard_normal(B)
    discounts = rng.integers(2, size=(B, T)).astype(float)
    expected, plain = np.empty((B, T)), np.empty((B, T))
    for b in range(B):
        after, total = final[b], 0.0
        for t in reversed(range(T)):
            after = rewards[b, t] + 0.9 * discounts[b, t] * after
            total = rewards[b, t] + 0.9 * total
            expected[b, t], plain[b, t] = after, total
    close(rl.discounted_returns(rewards, 0.9, final, discounts), expected, 1e-6)
    close(rl.discounted_returns(rewards, 0.9), plain, 1e-6)


def test_losses_match_plain_loops():
    rng = np.random.default_rng(0)
    logits, values = rng.standard_normal((B, T, 4)), rng.standard_normal((B, T))
    actions, returns = rng.integers(4, size=(B, T)), rng.standard_normal((B, T))
    weights = rng.integers(2, size=(B, T)).astype(float)
    numbers = rng.random((B, T))
    for mask, sample_weight in ((None, None), (weights > 0, None), (weights > 0, numbers)):
        policy = value = concentration = 0.0
        counts = np.ones((B, T)) if mask is None else mask.astype(float)
        weights = counts if sample_weight is None else counts * sample_weight
        for b, t in np.ndindex(B, T):
            chances = softmax(logits[b, t])
            advantage = returns[b, t] - values[b, t]
            policy -= weights[b, t] * np.log(chances[actions[b, t]]) * advantage
            value += weights[b, t] * advantage**2
            concentration += weights[b, t] * (chances**2).sum()
        expected = np.array([policy, value, concentration]) / counts.sum()
        padding = ((actions, -1), (values, np.nan), (returns, np.nan))
        padded = [x if mask is None else np.where(mask, x, nothing) for x, nothing in padding]
        if sample_weight is not None:
            sample_weight = np.where(mask, sample_weight, np.nan)
        found = rl.a2c_losses(logits, padded[1], padded[0], padded[2], mask, sample_weight)
        close(list(found), list(expected), 1e-6)
    nothing = rl.a2c_losses(logits, values, actions, returns, np.zeros((B, T), bool))
    assert [float(loss) for loss in nothing] == [0.0, 0.0, 0.0]


def test_returns_of_whole_numbers_and_an_action_that_is_ruled_out():
    assert ops.convert_to_numpy(rl.discounted_returns([[0, 0, 8]], 0.5)).tolist() == [[2, 4, 8]]
    logits = [[0.0, 0.0, -np.inf]]
    close(rl.log_probabilities(logits, [1]), np.log([0.5]))
    given = [ops.convert_to_tensor(logits)]
    function = lambda arguments: ops.sum(rl.log_probabilities(arguments[0], [1]))
    close(keras_mnm.backend.gradient(function, given)[0], np.array([[-0.5, 0.5, 0.0]]))


def test_gradients_are_those_of_advantage_actor_critic():
    """The policy follows `(π - a) (R - V)`, the critic `2 (V - R)`, and neither the other's."""
    rng = np.random.default_rng(0)
    logits, values = rng.standard_normal((B, T, 4)), rng.standard_normal((B, T))
    actions, returns = rng.integers(4, size=(B, T)), rng.standard_normal((B, T))

    def loss(arguments):
        losses = rl.a2c_losses(*arguments, actions, returns)
        return losses.policy + 10.0 * losses.value

    arguments = [ops.convert_to_tensor(logits), ops.convert_to_tensor(values)]
    d_logits, d_values = keras_mnm.backend.gradient(loss, arguments)
    advantage = returns - values
    expected = (softmax(logits) - np.eye(4)[actions]) * advantage[..., None] / (B * T)
    close(d_logits, expected, 1e-6)
    close(d_values, -20.0 * advantage / (B * T), 1e-6)


def test_actions_are_chosen_by_their_probabilities():
    logits = np.log([[0.1, 0.2, 0.3, 0.4]])
    uniform = (np.arange(1000) + 0.5) / 1000
    actions = ops.convert_to_numpy(rl.choose(np.repeat(logits, 1000, 0), uniform))
    assert np.bincount(actions).tolist() == [100, 200, 300, 400]


@pytest.mark.parametrize("core", CORES)
def test_steps_equal_the_whole_sequence(core):
    check_steps(make_model(core))


@pytest.mark.parametrize("core", ["mnm-p", "plastic"])
def test_steps_equal_the_whole_sequence_under_a_mixed_policy(core):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        check_steps(make_model(core))
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_model_may_begin_by_a_step(tmp_path):
    core = keras_mnm.MNM(8, **OPTIONS)
    model, x = rl.ActorCritic(core, 4), observations()
    logits, values, _ = model.step(x[:, 0], model.get_initial_state(B))
    expected = model(x[:, :1])
    close([logits[:, None], values[:, None]], list(expected[:2]))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    close(list(loaded(x[:, :1])[:2]), list(expected[:2]))


def check_steps(model):
    x = observations()
    states, steps = model.get_initial_state(B), []
    for t in range(T):
        logits, values, states = model.step(x[:, t], states)
        steps.append((logits, values))
    logits, values = (ops.stack(parts, axis=1) for parts in zip(*steps))
    close([logits, values, states], list(model(x)))


@pytest.mark.parametrize("core", CORES)
def test_saved_and_loaded(core, tmp_path):
    model, x = make_model(core), observations()
    model.save(tmp_path / "model.keras")
    close(keras.saving.load_model(tmp_path / "model.keras")(x), model(x), 0)
    keras_mnm.save_to_preset(model, tmp_path / "mine", "A maze runner.")
    close(keras_mnm.from_preset("mine", source=tmp_path)(x), model(x), 0)


def test_a_compiled_step_is_the_optimizers():
    """Clipping, schedule and moments counted in; a learning rate that is set later counts, too."""
    rng, shapes = np.random.default_rng(0), [(3, 4), (4,)]
    gradients = [[rng.normal(size=shape).astype("float32") for shape in shapes] for _ in range(4)]

    def trained(make_step, learning_rate, later=None):
        variables = [keras.Variable(np.ones(shape, "float32")) for shape in shapes]
        optimizer = keras.optimizers.Adam(learning_rate, global_clipnorm=1.0)
        optimizer.build(variables)
        step = make_step(optimizer, variables)
        for count, values in enumerate(gradients):
            if count == 2 and later:
                optimizer.learning_rate = later
            step([ops.convert_to_tensor(value) for value in values])
        assert int(optimizer.iterations) == len(gradients)
        return [numpy(variable.value) for variable in variables]

    plain = lambda optimizer, variables: lambda gradients: optimizer.apply(gradients, variables)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 5)
    for options in ((schedule,), (0.1, 0.01)):
        found = trained(backend.compiled_step, *options)
        for one, other in zip(found, trained(plain, *options)):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("core", ["mnm-p", "lstm"])
def test_an_episode_in_mid_sequence_begins_with_an_empty_memory(core):
    model, x = make_model(core), observations()
    first = np.zeros((B, T), bool)
    first[0, 3] = first[1, 5] = True
    logits, values, states = model.call_with_resets(x, first)
    for sample, start in enumerate([3, 5, 0]):
        for part in filter(len, (range(start), range(start, T))):
            expected = model(x[sample : sample + 1, part.start : part.stop])
            close(logits[sample, part.start : part.stop], expected[0][0])
            close(values[sample, part.start : part.stop], expected[1][0])
        ends = [s[sample : sample + 1] for s in states]
        if core == "mnm-p":  # the sums of the meta objective are those of all steps
            ends, expected = (list(model.core.cell.unpack_state(s)) for s in (ends, expected[2]))
            assert numpy(ends[4])[0, 1] == T
            close(ends[:4], expected[:4])
        else:
            close(ends, expected[2])


def test_absent_steps_change_nothing():
    model, x = make_model(), observations()
    present = np.ones((B, T), bool)
    present[0, 2:4] = present[1, :2] = False
    expected = model(x, mask=present)
    stepwise = model.call_with_resets(x, np.zeros((B, T), bool), present)
    logits = numpy([expected[0], stepwise[0]])
    close(logits[0][present], logits[1][present])
    close(stepwise[2][1:], expected[2][1:])
    assert ops.convert_to_numpy(expected[2][-1])[:, 1].tolist() == [T - 2, T - 2, T]


def test_meta_loss():
    model, x = make_model(), observations()
    states = model(x)[2]
    meta = ops.convert_to_numpy(states[-1])
    assert (meta[:, 1] == T).all()
    close(model.meta_loss(states), np.mean(meta[:, 0]) / T, 1e-6)
    assert float(make_model("lstm").meta_loss([])) == 0


def test_the_meta_loss_has_the_weight_of_the_core():
    x, losses = observations(), []
    for weight in (1.0, 0.25):
        keras.utils.set_random_seed(0)
        core = keras_mnm.MNM(8, 6, 2, meta_loss_weight=weight, **OPTIONS)
        model = rl.ActorCritic(core, 4)
        losses.append(numpy(model.meta_loss(model(x)[2])))
    assert losses[1] == pytest.approx(0.25 * losses[0], rel=1e-5)


def test_meta_loss_of_a_plain_loop_over_the_cell():
    model, x = make_model(), observations()
    plain = rl.ActorCritic(keras.layers.RNN(keras_mnm.MNMCell(8, 6, 2), **OPTIONS), 4)
    plain.build((None, T, FEATURES))
    plain.core.cell.set_weights(model.core.cell.get_weights())
    for name in ("policy", "value"):
        getattr(plain, name).set_weights(getattr(model, name).get_weights())
    close(plain(x), model(x))
    close(plain.meta_loss(plain(x)[2]), model.meta_loss(model(x)[2]))
    assert numpy(plain.meta_loss(plain(x)[2])) > 0


@pytest.mark.parametrize("core", ["mnm-p", "lstm"])
def test_losses_are_taken_in_full_precision(core):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        run = trainer(core)
        logits, values, _ = run.model(observations())
        assert all(keras.backend.standardize_dtype(y.dtype) == "float32" for y in (logits, values))
        assert np.isfinite(run.update()["loss"])
    finally:
        keras.config.set_dtype_policy("float32")


def test_rollout_is_played_by_the_rules_and_by_the_policy():
    maze, model = rl.Maze(episode_steps=20), make_model()
    chance = rl.draw_chance(3, batch_size=5, steps=20)
    episodes = rl.rollout(model, maze, chance)
    logits, _, _ = model(episodes.observations)
    actions = ops.convert_to_numpy(episodes.actions)
    for t in range(20):
        expected = rl.choose(logits[:, t], chance.actions[t])
        np.testing.assert_array_equal(actions[:, t], ops.convert_to_numpy(expected))
    for b in range(5):
        twin = PlainMaze(chance.goals[b], episode_steps=20)
        for t in range(20):
            close(episodes.observations[b, t], np.array(twin.observe()), 1e-6)
            assert int(episodes.agents[b, t]) == 11 * twin.agent[0] + twin.agent[1]
            twin.step(actions[b, t], chance.landings[t, b])
            assert float(episodes.rewards[b, t]) == pytest.approx(twin.reward)
        assert int(episodes.goals[b]) == 11 * twin.goal[0] + twin.goal[1]


def test_episodes_are_measured_once_and_are_none_of_trainings():
    maze = rl.Maze(size=7, episode_steps=40)
    rewards = rl.total_rewards(None, maze, 60, parallel=20)
    assert not np.array_equal(rewards[:20], rewards[20:40])
    first_of_training = rl.rollout(None, maze, rl.draw_chance((0, 0), 20, 40))
    assert not np.allclose(rewards[:20], numpy(first_of_training.rewards).sum(axis=1))


def test_chance_depends_on_its_seed_alone():
    one, two, other = (
        np.concatenate([c.goals, c.actions.ravel(), c.landings.ravel()])
        for c in (rl.draw_chance(seed, 4, 10) for seed in ((1, 5), (1, 5), (1, 6)))
    )
    np.testing.assert_array_equal(one, two)
    assert not (one == other).any()
    assert len(np.unique(one)) == len(one) == 84


@pytest.mark.parametrize("rule", ["local", "gradient"])
def test_replaying_what_was_played_changes_nothing(rule):
    """Outputs, states and gradients, over several chunks of which the last is padded."""
    core = keras_mnm.MNM(8, 6, 3, write_rule=rule, **OPTIONS)
    model, maze = rl.ActorCritic(core, 4), rl.Maze(episode_steps=23)
    model.build((None, 23, FEATURES))
    start, chance = maze.reset(np.float32([0.3, 0.6])), rl.draw_chance(0, 2, 23)

    def act(mazes, logits, uniform):
        after = maze.step(mazes, rl.choose(logits, uniform[:, 0]), uniform[:, 1])
        return after, (maze.observe(mazes), logits)

    uniform = ops.stack([chance.actions, chance.landings], axis=-1)
    (x, logits), tape = model.play(maze.observe, act, start, uniform, FEATURES)
    x, logits = ops.swapaxes(x, 0, 1), ops.swapaxes(logits, 0, 1)
    assert tape is not None

    def run(values):
        with keras.StatelessScope(list(zip(model.trainable_variables, values))):
            outputs = model(x)
            loss = sum(ops.sum(ops.sin(y)) for y in keras.tree.flatten(outputs))
            return loss, outputs

    weights = [variable.value for variable in model.trainable_variables]
    plain = keras_mnm.backend.value_and_gradient(run, weights)
    with model.replaying(tape):
        replayed = keras_mnm.backend.value_and_gradient(run, weights)
    close(plain[0][1][0], logits)
    close(replayed, plain, 1e-4)

    # The numbers are the tape's, in this thread, up to its end.
    shape, ((hidden, *rest), residuals) = tape
    other = shape, ([hidden + 1.0, *rest], residuals)
    before = numpy(model(x)[0])
    with model.replaying(tape):
        with pytest.raises(KeyError), model.replaying(other):
            assert np.abs(numpy(model(x)[0]) - before).max() > 1e-3
            with concurrent.futures.ThreadPoolExecutor(1) as threads:
                close(threads.submit(model, x).result()[0], before)
            raise KeyError
        close(model(x)[0], before)
        with pytest.raises(ValueError, match=r"\[T, B, features\] = \[23, 2, 12\].*\[22, 2, 12\]"):
            model(x[:, 1:])
        for options in ({"mask": np.ones((2, 23), bool)}, {"states": model.get_initial_state(2)}):
            with pytest.raises(ValueError, match="the initial state, without a mask"):
                model(x, **options)
    with pytest.raises(KeyError), model.replaying(other):
        raise KeyError
    close(model(x)[0], before)


def test_a_memory_without_a_fused_form_is_played_step_by_step():
    core = keras_mnm.MNM(8, 6, 2, recall_delay=1, **OPTIONS)
    model, maze, chance = rl.ActorCritic(core, 4), rl.Maze(), rl.draw_chance(3, B, 5)
    model.build((None, 5, FEATURES))
    episodes, tape = rl.training._play(model, maze, chance)
    assert tape is None
    logits = model(episodes.observations)[0]
    for step in range(5):
        chosen = rl.choose(logits[:, step], chance.actions[step])
        np.testing.assert_array_equal(numpy(episodes.actions)[:, step], numpy(chosen))


def test_torch_records_no_gradient_of_what_is_played():
    if keras.backend.backend() != "torch":
        pytest.skip("the other backends record none outside of a gradient")
    model, maze = make_model(), rl.Maze(episode_steps=T)
    _, (_, tape) = rl.training._play(model, maze, rl.draw_chance(0, 2, T))
    floats = [x for x in keras.tree.flatten(tape) if x.is_floating_point()]
    assert floats
    assert not any(x.requires_grad for x in floats)


def trainer(core="mnm-p", seed=0, optimizer=None, **options):
    maze = rl.Maze(episode_steps=10)
    optimizer = optimizer or keras.optimizers.Adam(0.01)
    return rl.Trainer(make_model(core), maze, optimizer, parallel=4, seed=seed, **options)


@pytest.mark.parametrize("core", ["mnm-p", "mnm-g", "plastic"])
def test_an_update_goes_down_the_slope_of_its_loss(core):
    """The change of every weight against the loss, written anew from single steps."""
    objective = rl.A2CObjective(discount=0.8, value=0.3, concentration=0.2)
    run = trainer(core, optimizer=keras.optimizers.SGD(1.0), objective=objective)
    model, variables = run.model, run.model.trainable_variables
    chance = rl.draw_chance((0, 0), 4, 10)
    episodes = rl.rollout(model, run.maze, chance)
    returns = np.zeros((4, 11))
    for t in reversed(range(10)):
        returns[:, t] = ops.convert_to_numpy(episodes.rewards)[:, t] + 0.8 * returns[:, t + 1]
    actions = ops.convert_to_numpy(episodes.actions)
    baseline = []

    def loss():
        states, total = model.get_initial_state(4), 0.0
        for t in range(10):
            logits, values, states = model.step(episodes.observations[:, t], states)
            chances, values = softmax(numpy(logits).astype(float)), numpy(values).astype(float)
            if len(baseline) <= t:
                baseline.append(values)  # held fixed in the policy's part
            policy = -np.log(chances[range(4), actions[:, t]]) * (returns[:, t] - baseline[t])
            value = 0.3 * (returns[:, t] - values) ** 2
            total += np.mean(policy + value + 0.2 * (chances**2).sum(1)) / 10
        if core.startswith("mnm"):
            meta = numpy(model.core.cell.unpack_state(states).meta)
            total += np.mean(meta[:, 0] / meta[:, 1])
        return total

    before, first_loss = [numpy(v) for v in variables], loss()
    logs = run.update()
    assert logs["loss"] == pytest.approx(first_loss, rel=1e-4)
    changes = [numpy(v) - b for v, b in zip(variables, before)]
    assert all(np.abs(change).max() > 0 for change in changes)
    for index, change in enumerate(changes):
        size = 1e-2 / float(np.abs(change).max())
        values = []
        for sign in (1, -1):
            variables[index].assign(before[index] + sign * size * change)
            others = [i for i in range(len(before)) if i != index]
            for i in others:
                variables[i].assign(before[i])
            values.append(loss())
        variables[index].assign(before[index])
        slope = (values[0] - values[1]) / (2 * size)
        expected = -np.sum(np.square(change, dtype=float))
        assert slope == pytest.approx(expected, rel=0.02, abs=3e-6 / size), variables[index].path


def test_a_run_depends_on_its_seed_alone_and_goes_on_where_it_was_left(tmp_path):
    whole, again = trainer("lstm", seed=1), trainer("lstm", seed=1)
    logs = [whole.update() for _ in range(3)]
    assert logs[0]["reward"] != logs[1]["reward"]
    assert again.update() == logs[0]
    again.model.save(tmp_path / "model.keras")
    optimizer = keras.optimizers.Adam(0.01)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    resumed = rl.Trainer(loaded, again.maze, optimizer, parallel=4, seed=1)
    for variable, value in zip(optimizer.variables, again.optimizer.variables):
        variable.assign(value)
    assert resumed.episodes == 4
    assert [resumed.update() for _ in range(2)] == logs[1:]
    close(resumed.model.get_weights(), whole.model.get_weights(), 0)
    assert whole.episodes == 12


def test_threads_change_nothing():
    check_threads("lstm")


def test_threads_replay_what_they_played():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("takes long, and the tape itself is compared on each backend")
    check_threads("mnm-p")


def check_threads(core):
    one, two = trainer(core, threads=1), trainer(core, threads=2)
    for _ in range(3):
        assert two.update() == pytest.approx(one.update(), rel=1e-4)
    close(two.model.get_weights(), one.model.get_weights())


def test_regularizers_count():
    run = trainer("minimal", optimizer="sgd")
    penalty = 0.01 * np.square(ops.convert_to_numpy(run.model.core.cell.kernel)).sum()
    close(run.model.regularization_loss(), penalty)
    logs = run.update()
    parts = logs["policy_loss"] + 0.1 * logs["value_loss"] + 0.1 * logs["concentration"]
    assert logs["loss"] == pytest.approx(parts + penalty, rel=1e-5)
    assert float(make_model("lstm").regularization_loss()) == 0.0


def test_a_model_that_was_never_called_is_built_for_the_maze():
    model = rl.ActorCritic(keras.layers.LSTM(8, **OPTIONS), num_actions=4)
    maze = rl.Maze(episode_steps=5)
    rewards = rl.total_rewards(model, maze, episodes=3)
    assert len(model.weights) == 7
    np.testing.assert_array_equal(rl.total_rewards(model, maze, episodes=3), rewards)


def test_learns_to_find_the_goal_again():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("once is enough")
    keras.utils.set_random_seed(0)
    model = rl.ActorCritic(keras.layers.LSTM(16, **OPTIONS), 4)
    maze = rl.Maze(size=7, episode_steps=20)
    run = rl.Trainer(model, maze, keras.optimizers.Adam(0.01), parallel=64)
    rewards = [run.update()["reward"] for _ in range(250)]
    assert np.mean(rewards[-10:]) > np.mean(rewards[:10]) + 8


TRAIN_ON_JAX = """
import sys, keras, test_a2c
run = test_a2c.trainer()
run.model.set_weights(keras.saving.load_model(sys.argv[1]).get_weights())
print([run.update()["loss"] for _ in range(2)])
run.model.save(sys.argv[1])
"""


def test_jax_trains_alike_and_its_weights_are_taken(tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("compares JAX with TensorFlow, from there")
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed; it is the extra 'jax'")
    run, path = trainer(), tmp_path / "model.keras"
    run.model.save(path)
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_ON_JAX, str(path)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=os.path.dirname(__file__),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    losses = [run.update()["loss"] for _ in range(2)]
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(losses, rel=1e-4)
    loaded, x = keras.saving.load_model(path), observations()
    close(softmax(numpy(loaded(x)[0])), softmax(numpy(run.model(x)[0])), 1e-4)


def backwards_core():
    return keras_mnm.MNM(8, go_backwards=True, **OPTIONS)


def cudnn_core():
    core = CORES["lstm"]()
    core.supports_jit = False  # as Keras sets it on a GPU
    return core


def stacked_core():
    return keras.layers.RNN([keras.layers.LSTMCell(8), keras.layers.GRUCell(8)], **OPTIONS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rl.ActorCritic(keras.layers.LSTM(3), 4), "pass return_sequences=True"),
        (lambda: rl.ActorCritic(CORES["lstm"](), 0), "`num_actions`.*0"),
        (lambda: rl.ActorCritic(backwards_core(), 4), "leave out go_backwards=True"),
        (lambda: rl.ActorCritic(stacked_core(), 4), "must run one cell"),
        (lambda: rl.ActorCritic(cudnn_core(), 4), "pass use_cudnn=False"),
        (lambda: trainer(objective=rl.A2CObjective(concentration=-0.1)), "`concentration`.*-0.1"),
        (
            lambda: trainer(optimizer=keras.optimizers.Adam(gradient_accumulation_steps=2)),
            "gradient_accumulation_steps=2; leave that out",
        ),
        (lambda: make_model().build((None, 12)), r"Received shape \(None, 12\)"),
        (lambda: trainer(objective=rl.A2CObjective(discount=2.0)), "`discount`.*2.0"),
        (lambda: trainer(seed=-1), "`seed`.*-1"),
        (lambda: trainer(threads=3), "threads=3, parallel=4"),
        (
            lambda: trainer(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())),
            "pass its inner optimizer",
        ),
        (lambda: trainer(objective=(0.9, 0.1, 0.1)), "`objective` must be an A2CObjective"),
        (lambda: rl.discounted_returns([[1.0]], 1.5), "`discount`.*1.5"),
        (lambda: rl.log_probabilities([[0.0, 0.0]], [2]), "from 0 to 1.*from 2 to 2"),
        (lambda: rl.total_rewards(make_model("lstm"), 11, 1), "`maze` must be.*11"),
        (lambda: rl.total_rewards(None, 11, 1), "`maze` must be.*11"),
        (lambda: rl.rollout(None, 11, rl.draw_chance(0, 1, 3)), "`maze` must be.*11"),
        (lambda: rl.Trainer(make_model("lstm"), rl.Maze(), None), "`optimizer`.*None"),
        (lambda: trainer(seed=2**32), "`seed`.*less than"),
        (lambda: keras_mnm.Plastic(8, homogeneous="no"), "`homogeneous`.*False, True.*'no'"),
        (lambda: rl.draw_chance((0, 2**32), 1, 1), "`seed`.*less than 2..32.*4294967296"),
        (lambda: rl.total_rewards(None, rl.Maze(), 1, seed=-1), "`seed`.*-1"),
        (
            lambda: rl.rollout(None, rl.Maze(episode_steps=20), rl.draw_chance(0, 1, 30)),
            "at most 20 steps.*30",
        ),
        (
            lambda: rl.ActorCritic(keras.layers.LSTM(3, stateful=True, **OPTIONS), 4),
            "leave out stateful=True",
        ),
        (lambda: rl.log_probabilities([[0.0, 0.0]], [-1]), "from 0 to 1.*from -1 to -1"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def other_actions(count):
    return rl.ActorCritic(CORES["lstm"](), count)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: other_actions(3), "the 4 actions.*Received a model of 3"),
        (lambda: other_actions(5), "the 4 actions.*Received a model of 5"),
        (lambda: make_model("lstm", features=16), "take the 12 numbers.*built for 16"),
        (lambda: keras.Sequential(), "must be a keras_mnm.rl.ActorCritic.*Sequential"),
    ],
)
def test_models_that_do_not_fit_the_maze(make, message):
    maze = rl.Maze(episode_steps=5)
    for use in (
        lambda model: rl.rollout(model, maze, rl.draw_chance(0, 2, 5)),
        lambda model: rl.total_rewards(model, maze, 2),
        lambda model: rl.Trainer(model, maze, keras.optimizers.Adam(), 2),
    ):
        with pytest.raises(ValueError, match=message):
            use(make())


def test_dropout_and_activity_regularizers_of_a_core_have_no_effect(monkeypatch):
    monkeypatch.setattr(backend, "compile", lambda function: function)
    monkeypatch.setattr(backend, "compiled_step", lambda *_: lambda gradients: None)
    logs = []
    for more in ({}, {"dropout": 0.5, "recurrent_dropout": 0.5, "activity_regularizer": "l2"}):
        make = functools.partial(keras.layers.LSTM, 8, **more, **OPTIONS)
        monkeypatch.setitem(CORES, "core", make)
        logs.append(trainer("core").update())
    assert logs[1] == pytest.approx(logs[0], rel=1e-5)
