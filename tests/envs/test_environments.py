"""Environments: those of Gymnasium step for step, tables with exact values, and ends that are told apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import envs
from genjax.envs import tables
from genjax.theory import mdp

KEY = jax.random.key(0)


@pytest.mark.parametrize(("name", "gym_name"), [("cartpole", "CartPole-v1"), ("acrobot", "Acrobot-v1")])
def test_trajectories_are_those_of_gymnasium(name, gym_name):
    gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    oracle, env = gymnasium.make(gym_name).unwrapped, envs.ENVIRONMENTS[name]()
    with jax.enable_x64(True):
        step = jax.jit(env.step)
        for seed in range(5):
            oracle.reset(seed=seed)
            state = jnp.asarray(np.array(oracle.state, np.float64))
            assert np.allclose(env.observe(state), oracle._get_ob() if name == "acrobot" else oracle.state, atol=1e-7)
            for i, action in enumerate(np.random.default_rng(seed).integers(0, env.num_actions, 200)):
                observation, reward, terminated, _, _ = oracle.step(int(action))
                state, (got, ended) = step(KEY, state, jnp.asarray(action))
                assert np.allclose(env.observe(state), observation, atol=1e-6), (seed, i)
                assert float(got) == reward and bool(ended) == terminated
                if terminated:
                    break
    spec = gymnasium.spec(gym_name)
    assert env.max_steps == spec.max_episode_steps


@pytest.mark.parametrize("name", envs.ENVIRONMENTS)
def test_every_environment_fits_its_own_description(name):
    env = envs.ENVIRONMENTS[name]()
    act = lambda key, observation: jax.random.randint(key, (), 0, env.num_actions)
    init, step = envs.episodes(env, act)
    keys = jax.random.split(KEY, 300)
    run = jax.jit(lambda key: jax.lax.scan(lambda carry, key: step(key, carry, None), init(key), keys)[1])
    transitions = run(KEY)
    assert transitions.observation.shape == (300, env.observation_dim) and np.isfinite(transitions.observation).all()
    assert set(np.unique(transitions.action)) == set(range(env.num_actions))
    over = np.asarray(transitions.terminated | transitions.truncated)
    on = ~over[:-1]
    assert np.array_equal(transitions.next_observation[:-1][on], transitions.observation[1:][on])
    assert not (transitions.terminated & transitions.truncated).any()
    ends = np.flatnonzero(over)
    lengths = np.diff(ends, prepend=-1)
    assert lengths.max(initial=0) <= env.max_steps
    assert all(lengths[i] == env.max_steps for i, end in enumerate(ends) if transitions.truncated[end])


def test_the_last_observation_is_of_the_episode_that_ended():
    """A cart that is always pushed right drops its pole: that is the next observation, and then comes a new start."""
    init, step = envs.episodes(envs.cartpole(), lambda key, observation: jnp.ones((), jnp.int32))
    keys = jax.random.split(KEY, 40)
    transitions = jax.lax.scan(lambda carry, key: step(key, carry, None), init(KEY), keys)[1]
    end = int(np.argmax(transitions.terminated))
    assert 5 < end < 15 and abs(transitions.next_observation[end, 2]) > 12 * np.pi / 180
    assert np.abs(transitions.observation[end + 1]).max() <= 0.05 and transitions.reward[end] == 1


def test_the_values_of_tables_are_those_of_long_simulation():
    chain = tables.chain_mdp()
    probabilities = np.array([[0.3, 0.7]] * 5)
    exact = mdp.policy_values(chain, probabilities, 0.9)
    env = tables.tabular(chain, max_steps=10_000)
    log_policy = jnp.log(jnp.asarray(probabilities))

    def discounted(key):
        policy = lambda key, observation: jax.random.categorical(key, log_policy[jnp.argmax(observation)])
        init, step = envs.episodes(env, policy)
        keys = jax.random.split(key, 120)
        transitions = jax.lax.scan(lambda carry, key: step(key, carry, None), init(key), keys)[1]
        return jnp.sum(transitions.reward * 0.9 ** jnp.arange(120))

    returns = jax.jit(jax.vmap(discounted))(jax.random.split(KEY, 4000))
    assert abs(returns.mean() - exact[0]) < 4 * returns.std() / 4000**0.5


def test_the_best_policies_are_those_one_can_see():
    _, actions = mdp.policy_iteration(tables.chain_mdp(), 0.9)
    assert np.array_equal(actions, [1, 1, 1, 1, 1])  # looks ahead
    _, near = mdp.policy_iteration(tables.chain_mdp(), 0.3)
    assert near[0] == 0 and near[-1] == 1  # does not
    values, _ = mdp.policy_iteration(tables.grid_mdp(4), 1.0)
    row, column = np.divmod(np.arange(16), 4)
    steps = (3 - row) + (3 - column)
    assert np.allclose(values[:-1], -steps[:-1])
    for rung, expected in ((1, [1]), (2, [1, -1]), (3, [0.9, 1]), (4, [1]), (5, [1, 1])):
        values = mdp.policy_iteration(tables.ladder_mdp(rung), 0.9)[0]
        assert np.allclose(values[: len(expected)], expected)


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.95])
def test_policy_iteration_meets_bellmans_equation_and_no_policy_is_better(discount):
    source = np.random.default_rng(0)
    process = mdp.MDP(source.dirichlet(np.ones(6), (6, 3)), source.normal(size=(6, 3)), np.eye(6)[0], np.zeros(6, bool))
    values, actions = mdp.policy_iteration(process, discount)
    assert np.allclose(values, mdp.action_values(process, values, discount).max(1), atol=1e-10)
    assert np.allclose(values, mdp.policy_values(process, np.eye(3)[actions], discount), atol=1e-9)
    for _ in range(50):
        other = mdp.policy_values(process, source.dirichlet(np.ones(3), 6), discount)
        assert (other <= values + 1e-9).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (
                lambda n=n, action=action: envs.ENVIRONMENTS[n]().step(KEY, envs.ENVIRONMENTS[n]().reset(KEY), action),
                "action: exp",
            )
            for n in ("cartpole", "acrobot", "chain", "grid")
            for action in (-1, 4, 1.0, np.nan, np.array([0, 1]))
        ),
        (lambda: envs.chain().step(KEY, jnp.array(5), 0), "state: expected whole numbers from 0 to 4, got 5"),
        (lambda: envs.chain(1), "length: expected at least 2, got 1"),
        (lambda: envs.chain(slip=1.2), "slip: expected numbers from 0 to 1, got 1.2"),
        (lambda: envs.grid(1), "side: expected at least 2, got 1"),
        (lambda: tables.tabular(tables.chain_mdp(), max_steps=0), "max_steps: expected at least 1, got 0"),
        (
            lambda: envs.episodes(envs.chain()._replace(max_steps=0), lambda key, observation: 0),
            "max_steps: expected at least 1, got 0",
        ),
        (lambda: tables.ladder_mdp(6), "rung: expected 1 to 5, got 6"),
        (lambda: mdp.policy_iteration(tables.chain_mdp(), 1.0), "discount: 1 does not converge here"),
        (lambda: mdp.policy_iteration(tables.chain_mdp(), 1.5), "discount: expected 0 to 1, got 1.5"),
        (
            lambda: tables.tabular(tables.chain_mdp()._replace(initial=np.ones(5))),
            "initial: the probabilities sum to 5",
        ),
        (lambda: tables.tabular(tables.chain_mdp()._replace(initial=np.ones(4) / 4)), r"got .*\(4,\)"),
    ],
)
def test_bad_input_is_refused(call, message, monkeypatch):
    with pytest.raises(ValueError, match=message):
        call()
