"""Learning rates: every trainer warms up, decays and clips as its settings say, in the updates that it makes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train import actor_critic, ae, gan
from train.run import config, optimizers

STEPS = 12


def moves(transformation, params, num):
    """How far each update moves each leaf, at gradients of 1: Adam moves by the rate, since m̂ / √v̂ = 1."""
    state, found = transformation.init(params), []
    for _ in range(num):
        updates, state = transformation.update(jax.tree.map(jnp.ones_like, params), state, params)
        found.append({part: float(-jax.tree.leaves(tree)[0].ravel()[0]) for part, tree in updates.items()})
    return {part: np.array([one[part] for one in found]) for part in found[0]}


def expected(peak, warmup, schedule, steps):
    """The rate at each step, by hand: a line from 0, then the peak or half a cosine to 0 at the last step."""
    rest = np.clip((np.arange(steps) - warmup) / (STEPS - warmup), 0, 1)
    after = peak * 0.5 * (1 + np.cos(np.pi * rest)) if schedule == "cosine" else np.full(steps, peak)
    return np.where(np.arange(steps) < warmup, peak * np.arange(steps) / max(warmup, 1), after)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0, 4])
def test_the_rate_is_the_one_by_hand(schedule, warmup):
    settings = ae.Config(steps=STEPS, lr=0.1, warmup=warmup, schedule=schedule)
    transformation, rate = optimizers.adam(settings)
    rates = expected(0.1, warmup, schedule, STEPS)
    assert np.allclose([rate(i) for i in range(STEPS)], rates, atol=1e-6)
    assert np.allclose(moves(transformation, {"all": jnp.zeros(1)}, STEPS)["all"], rates, atol=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_both_players_warm_up_and_the_generator_follows_the_steps_it_moves_at(schedule):
    settings = gan.Config(
        steps=STEPS, lr=0.1, critic_lr=0.3, warmup=4, schedule=schedule, n_critic=2, beta1=0.9,
    )  # fmt: skip
    transformation, rate = gan._optimizer(settings, gan.model(settings, (8, 8, 1)))
    params = {"generator": {"w": jnp.zeros(1)}, "discriminator": {"w": jnp.zeros(1)}}
    found = moves(transformation, params, STEPS)
    assert np.allclose(found["discriminator"], expected(0.3, 4, schedule, STEPS), atol=1e-5)
    rates = expected(0.1, 4, schedule, STEPS)
    assert np.allclose(found["generator"], np.where(np.arange(STEPS) % 2 == 1, rates, 0), atol=1e-5)
    assert np.allclose([rate(i) for i in range(STEPS)], rates, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_policy_and_value_warm_up_over_rollouts(algorithm):
    """PPO here makes 2 visits of 3 minibatches, 6 updates a step: at update u the rate is that of step u / 6."""
    settings = actor_critic.Config(
        algorithm=algorithm, steps=STEPS, lr=0.1, value_lr=0.2, warmup=4, batch_size=2, rollout_length=6, num_epochs=2,
        minibatch_size=4,
    )  # fmt: skip
    updates = 6 if algorithm == "ppo" else 1
    transformation, rate = actor_critic._optimizer(settings, actor_critic.model(settings))
    found = moves(transformation, {"policy": {"w": jnp.zeros(1)}, "value": {"w": jnp.zeros(1)}}, STEPS * updates)
    at = np.arange(STEPS * updates) / updates
    for part, peak in (("policy", 0.1), ("value", 0.2)):
        assert np.allclose(found[part], peak * np.minimum(at / 4, 1), atol=1e-5)
    assert np.allclose([rate(i) for i in range(STEPS)], 0.1 * np.minimum(np.arange(STEPS) / 4, 1), atol=1e-6)


def test_gradients_are_clipped_before_adam():
    """Of gradients (3, 4), 5 long, clipped to 1: the first moment after a step is a tenth of (.6, .8)."""
    transformation, _ = optimizers.adam(config.Run(grad_clip=1.0))
    params = jnp.zeros(2)
    state = transformation.update(jnp.array([3.0, 4.0]), transformation.init(params), params)[1]
    moments = [part.mu for part in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState))
               if isinstance(part, optax.ScaleByAdamState)]  # fmt: skip
    assert np.allclose(moments[0], [0.06, 0.08])
