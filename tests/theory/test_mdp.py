"""Values of decision processes: of policies, of the best one, and near a discount of 1."""

import numpy as np
import pytest

from genjax.envs import tables
from genjax.theory import mdp
from genjax.theory.mdp import MDP

GRID, CHAIN = tables.grid_mdp(4), tables.chain_mdp()


def sweeps(process, discount, num):
    """Value iteration as it is written down, from V = 0."""
    onward = process.transition * ~process.terminal[:, None, None]
    values = np.zeros(len(process.reward))
    for _ in range(num):
        values = (process.reward * ~process.terminal[:, None] + discount * onward @ values).max(1)
    return values


def test_states_that_end_an_episode_are_worth_nothing():
    for discount in (1.0, 0.9, 0, 1):
        values, _ = mdp.policy_iteration(GRID, discount)
        assert values[-1] == 0 and values[0] == pytest.approx(-sum(discount**k for k in range(6)))
        assert np.all(mdp.action_values(GRID, values + 7, discount)[-1] == 0)
        steps = np.eye(4)[np.full(16, 1)] / 2 + np.eye(4)[np.full(16, 2)] / 2  # right or down, walls keep one there
        assert mdp.policy_values(GRID, steps, discount)[-1] == 0


@pytest.mark.parametrize("rest", [1e-2, 1e-5, 1e-9, 1e-12])
def test_no_discount_below_one_is_too_near(rest):
    """V (1 - γ) tends to the mean reward of going right always, up to the rounding ε / (1 - γ) of the equations."""
    values, actions = mdp.policy_iteration(CHAIN, 1 - rest)
    assert np.array_equal(actions, [1] * 5)
    assert np.allclose(values, mdp.policy_values(CHAIN, np.eye(2)[actions], 1 - rest), rtol=1e-6)
    mean = 9**4 / sum(9.0**i for i in range(5))  # π_i ∝ 9^i, and a reward of 1 in the last state
    assert values[0] * (1 - (1 - rest)) == pytest.approx(mean, abs=6 * rest + 1e-15 / rest)


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_against_many_sweeps_on_random_processes(discount):
    """Where the rewards are not above 0, sweeps from 0 converge whenever there is a limit, however an episode ends."""
    source, limits = np.random.default_rng(0), 0
    for _ in range(40):
        s, a = source.integers(1, 6), source.integers(1, 4)
        transition = source.dirichlet(np.full(s, 0.3), (s, a))
        transition = np.where(transition < 0.05, 0, transition)
        process = MDP(
            transition / transition.sum(-1, keepdims=True),
            source.integers(-2, 1, (s, a)),
            np.eye(s)[0],
            source.random(s) < 0.3,
        )
        half, whole = sweeps(process, discount, 2000), sweeps(process, discount, 4000)
        if np.allclose(half, whole, atol=1e-9):
            limits += 1
            assert np.allclose(mdp.policy_iteration(process, discount)[0], whole, atol=1e-8)
        else:
            with pytest.raises(ValueError, match="discount: 1 does not converge"):
                mdp.policy_iteration(process, discount)
    assert limits > 15


def test_an_end_far_away_is_found_without_a_discount():
    """1e-6 a step: a million steps of -1."""
    slow = MDP(np.array([[[1 - 1e-6, 1e-6]], [[0, 1]]]), np.full((2, 1), -1), np.eye(2)[0], np.array([False, True]))
    assert mdp.policy_iteration(slow, 1)[0] == pytest.approx([-1e6, 0], rel=1e-9)


def test_tables_in_single_precision_and_lists_keep_their_sums():
    single = MDP(*(np.asarray(t, np.float32) for t in CHAIN[:3]), CHAIN.terminal)
    exact = mdp.policy_iteration(CHAIN, 0.99999)[0]
    assert np.allclose(mdp.policy_iteration(single, 0.99999)[0], exact, rtol=1e-6)
    lists = MDP(*(t.tolist() for t in CHAIN))
    assert np.allclose(mdp.policy_iteration(lists, 0.99999)[0], exact, rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mdp.policy_iteration(CHAIN, float("nan")), "discount: expected 0 to 1, got nan"),
        (lambda: mdp.policy_values(CHAIN, np.full((5, 2), 0.5), 1), "discount: 1 does not converge"),
        (lambda: mdp.policy_values(CHAIN, np.ones((5, 2)), 0.9), "policy: row 0 sums to 2"),
        (lambda: mdp.policy_values(CHAIN, np.ones((5, 1)), 0.9), "policy: expected the shape"),
        (lambda: mdp.action_values(CHAIN, np.zeros(4), 0.9), "values: expected one of each of 5 states"),
        (lambda: mdp.action_values(CHAIN, np.full(5, np.nan), 0.9), "values: expected finite"),
        (lambda: mdp.policy_iteration(CHAIN, 0.9, tolerance=-1), "tolerance: expected"),
        (lambda: mdp.check(CHAIN._replace(reward=np.full((5, 2), np.inf))), "reward: expected finite"),
        (lambda: mdp.check(CHAIN._replace(reward=np.ones(5))), "process: expected transition"),
        (lambda: mdp.check(CHAIN._replace(terminal=np.zeros(5))), "terminal: expected truth values"),
        (lambda: mdp.check(MDP(*(np.zeros(n) for n in ((0, 0, 0), (0, 0), 0, 0)))), "process: expected"),
    ],
)
def test_what_is_no_process_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
