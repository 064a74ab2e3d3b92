"""The maze and the actor-critic in TF-Agents."""

import importlib.util
import json
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("TF-Agents runs on TensorFlow alone", allow_module_level=True)
if importlib.util.find_spec("tf_agents") is None:
    pytest.skip("TF-Agents is not installed; it is the extra 'rl'", allow_module_level=True)

import tensorflow as tf

import keras_mnm
from keras_mnm import rl
from keras_mnm.rl import tf_agents

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tf_agents.drivers.dynamic_step_driver import DynamicStepDriver
    from tf_agents.metrics.tf_metrics import AverageReturnMetric
    from tf_agents.networks.q_network import QNetwork
    from tf_agents.networks.q_rnn_network import QRnnNetwork
    from tf_agents.policies.policy_saver import PolicySaver
    from tf_agents.replay_buffers.tf_uniform_replay_buffer import TFUniformReplayBuffer
    from tf_agents.specs import tensor_spec
    from tf_agents.trajectories import StepType, from_transition
    from tf_agents.utils import common

STEPS, B = 6, 4
pytestmark = pytest.mark.filterwarnings("ignore:distutils Version classes", "ignore:Encoding a")


def make_environment(parallel=B, seed=0):
    return tf_agents.MazeEnvironment(parallel, rl.Maze(episode_steps=STEPS), seed)


def make_model(core="mnm-p"):
    keras.utils.set_random_seed(0)
    options = {"return_sequences": True, "return_state": True}
    cores = {
        "lstm": lambda: keras.layers.LSTM(8, **options),
        "mnm-p": lambda: keras_mnm.MNM(8, 6, 2, **options),
        "mnm-g": lambda: keras_mnm.MNM(8, 6, 2, write_rule="gradient", **options),
        "plastic": lambda: keras_mnm.Plastic(8, **options),
    }
    model = rl.ActorCritic(cores[core](), 4)
    model.build((None, STEPS, 12))
    for weight in model.trainable_variables:
        weight.assign(keras.random.uniform(weight.shape, -0.5, 0.5))
    return model


def make_agent(model, environment, optimizer=None, **options):
    return tf_agents.A2CAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        model,
        optimizer or keras.optimizers.Adam(0.01),
        train_step_counter=tf.Variable(0, dtype=tf.int64),
        **options,
    )


def collect(environment, policy, steps):
    """A trajectory `[B, steps]`, boundaries counted in."""
    time_step, state, parts = (
        environment.current_time_step(),
        policy.get_initial_state(environment.batch_size),
        [],
    )
    for _ in range(steps):
        action = policy.action(time_step, state)
        next_step = environment.step(action.action)
        parts.append(from_transition(time_step, action._replace(state=()), next_step))
        time_step, state = next_step, action.state
    return tf.nest.map_structure(lambda *xs: tf.stack(xs, axis=1), *parts)


def test_time_steps_follow_the_dynamics():
    environment = make_environment()
    maze, first = environment.maze, environment.current_time_step()
    assert (first.step_type.numpy() == StepType.FIRST).all()
    np.testing.assert_array_equal(first.observation, maze.observe(environment._state))
    for count in range(1, STEPS + 1):
        before = rl.MazeState(*(tf.identity(v) for v in environment._state))
        time_step = environment.step([0, 1, 2, 3])
        after = maze.step(before, [0, 1, 2, 3], tf.zeros(B))
        np.testing.assert_array_equal(time_step.reward, after.reward)
        agent = environment._state.agent  # who reaches the goal lands by the environment's chance
        expected = maze.observe(after._replace(agent=tf.identity(agent)))
        np.testing.assert_array_equal(time_step.observation, expected)
        moved = (after.reward <= 0).numpy()
        np.testing.assert_array_equal(agent.numpy()[moved], after.agent.numpy()[moved])
        last = count == STEPS
        assert (time_step.step_type.numpy() == (StepType.LAST if last else StepType.MID)).all()
        assert (time_step.discount.numpy() == (0.0 if last else 1.0)).all()
    again = environment.step([0, 1, 2, 3])
    assert (again.step_type.numpy() == StepType.FIRST).all()
    assert not again.reward.numpy().any()
    assert (environment._state.agent.numpy() == maze.center).all()
    seeds = [make_environment(64, seed)._state.goal.numpy().tolist() for seed in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_policy_has_the_probabilities_of_the_model_and_empties_its_memory():
    environment, model = make_environment(), make_model()
    policy = tf_agents.policy(model, environment)
    trajectory = collect(environment, policy, 2 * (STEPS + 1))
    state, logits = policy.get_initial_state(B), []
    for t in range(2 * (STEPS + 1)):
        time_step = tf_agents.TimeStep(
            trajectory.step_type[:, t],
            trajectory.reward[:, t],
            trajectory.discount[:, t],
            trajectory.observation[:, t],
        )
        step = policy.distribution(time_step, state)
        state = step.state
        logits.append(step.action.logits)
    logits = tf.stack(logits, axis=1)
    for start in (0, STEPS + 1):  # the last step of an episode sees its end
        episode = slice(start, start + STEPS + 1)
        expected = model(trajectory.observation[:, episode])[0]
        np.testing.assert_allclose(logits[:, episode], expected, rtol=1e-4, atol=1e-5)
    chances = tf_agents.tfp.distributions.Categorical(logits=logits).probs_parameter()
    first = policy.distribution(environment.reset(), policy.get_initial_state(B)).action
    assert first.dtype == environment.action_spec().dtype
    expected = tf.nn.softmax(model(environment.current_time_step().observation[:, None])[0][:, 0])
    np.testing.assert_allclose(first.probs_parameter(), expected, rtol=1e-5)
    np.testing.assert_allclose(chances[:, 0], expected, rtol=1e-5)


ON_JAX = """
import json, sys
import keras, numpy
from keras_mnm import rl
model = keras.saving.load_model(sys.argv[1])
rl.Trainer(model, rl.Maze(episode_steps=6), "sgd", parallel=4).update()
model.save(sys.argv[1])
logits = model.step(numpy.load(sys.argv[2]), model.get_initial_state(4))[0]
print(json.dumps(keras.ops.convert_to_numpy(keras.ops.softmax(logits)).tolist()))
"""


def test_policy_of_a_model_trained_on_jax(tmp_path):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed; it is the extra 'jax'")
    environment, path, seen = make_environment(), tmp_path / "m.keras", tmp_path / "seen.npy"
    model = make_model("lstm")
    model.save(path)
    time_step = environment.reset()
    np.save(seen, time_step.observation)
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX, str(path), str(seen)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    trained = keras.saving.load_model(path)
    assert any((a != b).any() for a, b in zip(trained.get_weights(), model.get_weights()))
    policy = tf_agents.policy(trained, environment)
    found = policy.distribution(time_step, policy.get_initial_state(B)).action
    expected = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(found.probs_parameter(), expected, rtol=1e-4)


@pytest.mark.parametrize("core", ["mnm-p", "mnm-g", "lstm", "plastic"])
def test_gradients_are_those_of_the_trainer(core):
    """An agent that is given the trainer's episodes, behind a boundary or twice, learns alike."""
    model = make_model(core)
    chance = rl.draw_chance((0, 0), B, STEPS)
    environment = make_environment()
    episodes = rl.rollout(model, environment.maze, chance)
    before = [variable.numpy() for variable in model.trainable_variables]
    objective = rl.A2CObjective(0.8, 0.3, 0.2)
    optimizer = keras.optimizers.SGD(1.0)
    logs = rl.Trainer(model, environment.maze, optimizer, B, objective).update()
    expected = [one - v.numpy() for one, v in zip(before, model.trainable_variables)]
    for variable, value in zip(model.trainable_variables, before):
        variable.assign(value)

    agent = make_agent(model, environment, objective=objective)
    whole = collect(environment, agent.collect_policy, STEPS)._replace(
        observation=episodes.observations, action=episodes.actions, reward=episodes.rewards
    )
    behind = tf.nest.map_structure(lambda x: tf.concat([x[:, :1], x], axis=1), whole)
    boundary = np.arange(STEPS + 1) == 0
    behind = behind._replace(
        step_type=tf.where(boundary, StepType.LAST, behind.step_type),
        next_step_type=tf.where(boundary, StepType.FIRST, behind.next_step_type),
        discount=tf.where(boundary, 1.0, behind.discount),
    )
    twice = tf.nest.map_structure(lambda *xs: tf.concat(xs, axis=1), whole, behind)
    trailing = collect(environment, agent.collect_policy, 1)  # any observation will do
    trailing = trailing._replace(
        step_type=tf.fill((B, 1), StepType.LAST),
        next_step_type=tf.fill((B, 1), StepType.FIRST),
        discount=tf.ones((B, 1)),
    )
    before_boundary = tf.nest.map_structure(lambda *xs: tf.concat(xs, 1), whole, trailing)
    twice_and_boundary = tf.nest.map_structure(lambda *xs: tf.concat(xs, 1), twice, trailing)
    slow, by_step = [], agent._by_step
    agent._by_step = lambda *arguments: slow.append(0) or by_step(*arguments)
    # Whole episodes take the fast form, with a boundary before or behind them.
    fast, others = (whole, behind, before_boundary), (twice, twice_and_boundary)
    for experience in (*fast, *others):
        (loss, _), found = agent._gradients(experience, None)
        assert float(loss) == pytest.approx(logs["loss"], rel=1e-4)
        for one, other in zip(found, expected):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
        if experience is fast[-1]:
            assert not slow
    assert len(slow) >= len(others)
    assert float(agent.loss(twice).loss) == pytest.approx(logs["loss"], rel=1e-4)


def test_an_episode_ended_by_a_time_limit_may_lack_its_boundary():
    """Two episodes without one between them, each bootstrapped at its own last step."""
    environment, model = make_environment(), make_model("lstm")
    agent = make_agent(model, environment)
    experience = collect(environment, agent.collect_policy, 2 * (STEPS + 1))
    steps = [t for t in range(2 * (STEPS + 1)) if t % (STEPS + 1) < STEPS]
    experience = tf.nest.map_structure(lambda x: tf.gather(x, steps, axis=1), experience)
    experience = experience._replace(
        reward=tf.random.normal(experience.reward.shape, seed=0),
        discount=tf.ones_like(experience.discount),
    )
    total, rewards = 0.0, experience.reward.numpy()
    for start in (0, STEPS):
        values = model(experience.observation[:, start : start + STEPS])[1].numpy()
        returns = values[:, STEPS - 1]
        for t in reversed(range(STEPS - 1)):
            returns = rewards[:, start + t] + 0.9 * returns
            total += ((returns - values[:, t]) ** 2).mean() / (2 * (STEPS - 1))
    for parts in (agent._gradients(experience, None)[0][1], agent.loss(experience).extra):
        assert float(parts["value_loss"]) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("episodes", [1, 2])
def test_an_episode_ended_by_a_time_limit_is_bootstrapped_at_its_boundary(episodes):
    """The fast form and the slow one against returns by hand; nothing leaks over a boundary."""
    environment, model = make_environment(), make_model()
    agent = make_agent(model, environment)
    steps = STEPS + 1
    experience = collect(environment, agent.collect_policy, episodes * steps)
    experience = experience._replace(
        reward=tf.random.normal(experience.reward.shape, seed=0),
        discount=tf.ones_like(experience.discount),
    )
    rewards, observations = experience.reward.numpy(), experience.observation
    total, policy = 0.0, 0.0
    for start in range(0, episodes * steps, steps):
        logits, values, _ = model(observations[:, start : start + steps])
        log_chances, values = tf.nn.log_softmax(logits).numpy(), values.numpy()
        returns = values[:, STEPS]
        for t in reversed(range(STEPS)):
            returns = rewards[:, start + t] + 0.9 * returns
            advantage = returns - values[:, t]
            chosen = log_chances[range(B), t, experience.action[:, start + t]]
            total += (advantage**2).mean() / (episodes * STEPS)
            policy -= (chosen * advantage).mean() / (episodes * STEPS)
    for parts in (agent._gradients(experience, None)[0][1], agent.loss(experience).extra):
        assert float(parts["value_loss"]) == pytest.approx(total, rel=1e-4)
        assert float(parts["policy_loss"]) == pytest.approx(policy, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    "spec",
    [
        tensor_spec.BoundedTensorSpec((), tf.int64, 0, 4),
        tensor_spec.BoundedTensorSpec((), tf.int64, 1, 4),
        tensor_spec.BoundedTensorSpec((1,), tf.int64, 0, 3),
        tensor_spec.BoundedTensorSpec((), tf.float32, 0, 3),
        tf.TensorSpec((), tf.int64),
    ],
)
def test_action_specs_that_do_not_fit(spec):
    observation = make_environment().observation_spec()
    with pytest.raises(ValueError, match="one integer, of shape.*from 0 to 3"):
        tf_agents.ActorCriticNetwork(observation, spec, make_model("lstm"))


@pytest.mark.parametrize(
    "spec", [tf.TensorSpec((3, 4)), {"seen": tf.TensorSpec((12,))}, tf.TensorSpec((None,))]
)
def test_observation_specs_that_do_not_fit(spec):
    with pytest.raises(ValueError, match="one shape .features,.*Received the spec"):
        tf_agents.ActorCriticNetwork(spec, make_environment().action_spec(), make_model("lstm"))


def test_models_and_optimizers_that_do_not_fit():
    environment = make_environment()
    with pytest.raises(ValueError, match="must be a keras_mnm.rl.ActorCritic"):
        tf_agents.policy("dictionary-4x1-mnm-p", environment)
    with pytest.raises(ValueError, match="the 12 numbers.*built for 16"):
        model = rl.ActorCritic(keras.layers.GRU(4, return_sequences=True, return_state=True), 4)
        model.build((None, None, 16))
        tf_agents.policy(model, environment)
    with pytest.raises(ValueError, match="Could not interpret optimizer"):
        make_agent(make_model("lstm"), environment, optimizer=tf.compat.v1.train.AdamOptimizer())
    with pytest.raises(ValueError, match="pass its inner optimizer"):
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
        make_agent(make_model("lstm"), environment, optimizer=optimizer)


def test_networks_of_tf_agents_have_weights():
    environment = make_environment()
    specs = environment.observation_spec(), environment.action_spec()
    for network in (QNetwork(*specs), QRnnNetwork(*specs, lstm_size=(4,))):
        network.create_variables()
        assert len(network.trainable_variables) >= 4


def test_a_trajectory_of_unknown_length():
    environment = make_environment()
    agent = make_agent(make_model("lstm"), environment)
    trajectory = collect(environment, agent.collect_policy, STEPS)
    unknown = tf.nest.map_structure(
        lambda x: tf.TensorSpec((B, None, *x.shape[2:]), x.dtype), trajectory
    )
    for learn in (agent.train, agent.loss):
        with pytest.raises(ValueError, match="of known length.*None"):
            tf.function(learn).get_concrete_function(unknown)


def test_actions_have_the_dtype_of_their_spec():
    environment = make_environment()
    spec = tensor_spec.BoundedTensorSpec((), tf.int64, 0, 3)
    network = tf_agents.ActorCriticNetwork(environment.observation_spec(), spec, make_model("lstm"))
    time_step = environment.reset()
    distribution, _ = network(time_step.observation, time_step.step_type)
    assert distribution.sample().dtype == tf.int64
    agent = tf_agents.A2CAgent(
        environment.time_step_spec(), spec, make_model("lstm"), keras.optimizers.Adam()
    )
    action = agent.collect_policy.action(time_step, agent.collect_policy.get_initial_state(B))
    assert action.action.dtype == tf.int64


def test_weights_are_checked():
    with pytest.raises(ValueError, match="`value`.*-1"):
        make_agent(make_model("lstm"), make_environment(), objective=rl.A2CObjective(value=-1))


def test_a_cut_episode_is_bootstrapped_and_weights_count():
    environment, model = make_environment(), make_model("lstm")
    agent = make_agent(model, environment)
    cut = collect(environment, agent.collect_policy, 4)
    _, values, _ = model(cut.observation)
    returns, rewards = values[:, 3].numpy(), cut.reward.numpy()
    total, advantages = 0.0, []
    for t in reversed(range(3)):
        returns = rewards[:, t] + 0.9 * returns
        advantages.append(returns - values[:, t].numpy())
        total += advantages[-1] ** 2 / 3
    assert float(agent.loss(cut).extra["value_loss"]) == pytest.approx(total.mean(), rel=1e-4)
    weights = tf.constant([0.0, 1.0, 0.0, 0.0])
    for weighted in (agent.loss(cut, weights=weights).extra, agent._gradients(cut, weights)[0][1]):
        assert float(weighted["value_loss"]) == pytest.approx(total[1] / 4, rel=1e-4)
    # Of the bias of the critic: no gradient goes through the value that bootstraps.
    place = [v is model.value.bias for v in model.trainable_variables].index(True)
    found = agent._gradients(cut, None)[1][place]
    assert float(found[0]) == pytest.approx(-0.2 * np.mean(advantages), rel=1e-3)
    for weights in (0.5, tf.fill((B, 4), 0.5)):
        halved = agent.loss(cut, weights=tf.constant(weights)).extra
        assert float(halved["value_loss"]) == pytest.approx(total.mean() / 2, rel=1e-4)


def test_a_trajectory_that_begins_within_an_episode_is_refused():
    environment = make_environment()
    agent = make_agent(make_model("lstm"), environment)
    trajectory = collect(environment, agent.collect_policy, STEPS)
    late = tf.nest.map_structure(lambda x: x[:, 1:], trajectory)
    for learn in (agent.train, agent.loss):
        with pytest.raises(tf.errors.InvalidArgumentError, match="collect whole ones"):
            learn(late)


def test_a_model_in_float64():
    environment = make_environment()
    core = keras.layers.LSTM(8, return_sequences=True, return_state=True, dtype="float64")
    agent = make_agent(rl.ActorCritic(core, 4, dtype="float64"), environment)
    trajectory = collect(environment, agent.collect_policy, STEPS)
    assert np.isfinite(agent.train(trajectory).loss)
    assert agent.collect_policy.get_initial_state(B)[0].dtype == tf.float64


def test_driver_metric_training_saver_and_checkpointer(tmp_path):
    environment, model = make_environment(), make_model()
    agent = make_agent(model, environment)
    agent.initialize()
    buffer = TFUniformReplayBuffer(agent.collect_data_spec, B, max_length=3 * STEPS)
    metric = AverageReturnMetric(batch_size=B, buffer_size=B)
    driver = DynamicStepDriver(
        environment, agent.collect_policy, [buffer.add_batch, metric], num_steps=B * STEPS
    )
    run = common.function(driver.run)
    for _ in range(2):
        environment.reset()
        run()
        experience = buffer.gather_all()
        buffer.clear()
        assert np.isfinite(agent.train(experience).loss)
    total = experience.reward.numpy().sum(1).mean()
    assert float(metric.result()) == pytest.approx(total, rel=1e-5)
    assert int(agent.train_step_counter) == 2
    assert len(agent.policy.variables()) == len(model.variables)

    time_step = environment.reset()
    for policy in (agent.collect_policy, agent.policy):
        PolicySaver(policy).save(str(tmp_path / "policy"))
        loaded = tf.saved_model.load(str(tmp_path / "policy"))
        step = loaded.action(time_step, loaded.get_initial_state(batch_size=B))
        expected = policy.action(time_step, policy.get_initial_state(B))
        for one, other in zip(step.state, expected.state):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(step.action, expected.action)  # of `policy`, which draws none

    keep = {"agent": agent, "step": agent.train_step_counter}
    common.Checkpointer(str(tmp_path / "checkpoint"), **keep).save(2)
    variables = [*model.variables, *agent.optimizer.variables]
    values = [v.numpy() for v in variables]
    for variable in variables:
        variable.assign(tf.zeros_like(variable.value))
    common.Checkpointer(str(tmp_path / "checkpoint"), **keep)
    for variable, value in zip(variables, values):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_policy_and_agent_from_a_preset(tmp_path, monkeypatch):
    model, environment = make_model(), make_environment()
    keras_mnm.save_to_preset(model, tmp_path / "mine", "A maze runner.")
    monkeypatch.setenv("KERAS_MNM_PRESETS", str(tmp_path))
    time_step = environment.reset()
    policy = tf_agents.policy("mine", environment)
    logits = policy.distribution(time_step, policy.get_initial_state(B)).action.logits
    expected = model.step(time_step.observation, model.get_initial_state(B))[0]
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    agent = make_agent("mine", environment)
    np.testing.assert_array_equal(agent.model.get_weights()[0], model.get_weights()[0])
    copy = agent.collect_policy._actor_network.copy()
    assert copy.model is not agent.model
    assert copy.state_spec == agent.collect_policy.policy_state_spec


def test_the_packaged_agent_earns_here_what_its_card_tells():
    environment = tf_agents.MazeEnvironment(64)
    metric = AverageReturnMetric(batch_size=64, buffer_size=64)
    policy = tf_agents.policy("maze-mnm-p", environment)
    steps = 64 * environment.maze.episode_steps
    driver = DynamicStepDriver(environment, policy, [metric], num_steps=steps)
    common.function(driver.run)()
    told = keras_mnm.list_presets()["maze-mnm-p"]["metrics"]
    error = told["std_reward"] / 64**0.5
    assert float(metric.result()) == pytest.approx(told["mean_reward"], abs=4 * error)
