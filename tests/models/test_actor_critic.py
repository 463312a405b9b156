"""Actor-critic: gradients against enumeration, advantages against their definitions, and what is learned."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import envs
from genjax.envs import tables
from genjax.models import actor_critic, policy_gradient
from genjax.nn import mlp
from genjax.theory import mdp
from genjax.training import state, steps

KEY = jax.random.key(0)


def build(env, hidden=(), **more):
    return actor_critic.build(mlp.MLP(env.num_actions, hidden, 0.01), mlp.MLP(1, hidden), env, **more)


def series(seed, n=12):
    source = np.random.default_rng(seed)
    terminated = source.random(n) < 0.2
    truncated = ~terminated & (source.random(n) < 0.2)
    numbers = (jnp.asarray(source.normal(size=n), jnp.float32) for _ in range(3))
    return *numbers, jnp.asarray(terminated), jnp.asarray(truncated)


@pytest.mark.parametrize("seed", range(3))
def test_advantages_are_those_of_the_definition(seed):
    """Σ_l (γλ)^l δ_{t+l} within the episode, by loops; λ = 0 is TD, λ = 1 the return with a bootstrap less V."""
    reward, value, after, terminated, truncated = series(seed)
    r, v, w, over, cut = (np.asarray(x, float) for x in (reward, value, after, terminated, truncated))
    delta = r + 0.9 * (1 - over) * w - v
    for gae_lambda in (0.0, 0.7, 1.0):
        estimate = policy_gradient.advantages(reward, value, after, terminated, truncated, 0.9, gae_lambda)
        for t in range(12):
            total, weight = 0.0, 1.0
            for i in range(t, 12):
                total += weight * delta[i]
                weight *= 0.9 * gae_lambda
                if over[i] or cut[i]:
                    break
            assert np.isclose(estimate[t], total, atol=1e-5)
    one = policy_gradient.advantages(reward, value, after, terminated, truncated, 0.9, 1.0)
    for t in range(12):
        end = next((i for i in range(t, 12) if over[i] or cut[i]), 11)
        back = sum(0.9 ** (i - t) * r[i] for i in range(t, end + 1)) + 0.9 ** (end - t + 1) * (1 - over[end]) * w[end]
        # λ = 1 needs V along the way to be the same function: take V(s_{t+1}) = next value
        assert np.isclose(one[t] + v[t] + _drift(v, w, t, end), back, atol=1e-4)


def _drift(v, w, t, end):
    """What telescoping leaves over where V(s_{i+1}) differs from the next value, as in random numbers it does."""
    return sum(0.9 ** (i + 1 - t) * (v[i + 1] - w[i]) for i in range(t, end))


def test_a_time_limit_is_not_the_end_of_the_world():
    ones = jnp.ones(1)
    estimate = lambda terminated: policy_gradient.advantages(
        ones, 0 * ones, 10 * ones, jnp.array([terminated]), jnp.array([not terminated]), 0.9, 0.95
    )
    assert estimate(True)[0] == 1 and estimate(False)[0] == 10


def enumerate_gradient(env_tables, logits, discount):
    """∇ of Σ over all walks of P(walk) · return, by differentiating the sum itself."""
    onward, reward = jnp.asarray(env_tables.transition), jnp.asarray(env_tables.reward)

    def objective(logits):
        pi = jax.nn.softmax(logits)
        policy = jnp.einsum("sa,sat->st", pi, onward) * jnp.asarray(~env_tables.terminal)
        values = jnp.linalg.solve(jnp.eye(len(policy)) - discount * policy, (pi * reward).sum(1))
        return jnp.asarray(env_tables.initial) @ values

    return jax.grad(objective)(logits)


@pytest.mark.parametrize("rung", [4, 5])
@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_the_policy_gradient_is_unbiased_whatever_the_baseline(rung, offset):
    """A bandit with one and with two states, exactly: E[∇ log π (r - b)] over all outcomes is ∇J."""
    env, given = envs.ladder(rung), tables.ladder_mdp(rung)
    model = build(env, ent_coef=0.0, vf_coef=0.0, normalise=False)
    params = jax.jit(model.init)(KEY)
    kernel = jax.random.normal(KEY, (env.observation_dim, env.num_actions))
    params["policy"]["Dense_0"]["kernel"] = kernel
    logits = kernel  # of one-hot observations
    total = jax.tree.map(jnp.zeros_like, params["policy"])
    for s, a in itertools.product(range(env.observation_dim - 1), range(env.num_actions)):
        weight = float(given.initial[s] * jax.nn.softmax(logits[s])[a])
        batch = {
            "observation": jnp.eye(env.observation_dim)[s][None],
            "action": jnp.array([a]),
            "log_prob": jnp.zeros(1),
            "advantage": jnp.array([given.reward[s, a] - offset], jnp.float32),
            "target": jnp.zeros(1),
        }
        slope = jax.grad(lambda p, batch=batch: model.loss(KEY, p, batch)[0])(params)["policy"]
        total = jax.tree.map(lambda t, g, weight=weight: t - weight * g, total, slope)
    exact = enumerate_gradient(given, logits, 0.0)
    assert np.allclose(total["Dense_0"]["kernel"], exact, atol=1e-6) and np.abs(exact).max() > 1e-2


def test_the_losses_are_those_of_the_papers():
    """PPO's clipped objective (eq. 7), one action at a time; and A2C's, which ignores the old probabilities."""
    rng = np.random.default_rng(0)
    p, old, advantage = rng.uniform(0.05, 1, 40), rng.uniform(0.05, 1, 40), rng.normal(size=40)
    gains, outside = [], 0
    for ratio, a in zip(p / old, advantage, strict=True):
        gains.append(min(ratio * a, min(max(ratio, 0.8), 1.2) * a))
        outside += not 0.8 <= ratio <= 1.2
    arrays = [jnp.asarray(x, jnp.float32) for x in (np.log(p), advantage, np.log(old))]
    loss, fraction = policy_gradient.policy_loss(*arrays, 0.2)
    assert np.isclose(loss, -np.mean(gains), rtol=1e-5) and np.isclose(fraction, outside / 40) and 0 < outside < 40
    loss, fraction = policy_gradient.policy_loss(*arrays)
    assert np.isclose(loss, -np.mean(np.log(p) * advantage), rtol=1e-5) and fraction == 0


def test_advantages_are_standardised_over_all_devices():
    x = jnp.asarray(np.random.default_rng(1).normal(3, 2, (4, 5)), jnp.float32)
    whole = policy_gradient.standardise(x)
    assert abs(whole.mean()) < 1e-6 and abs(whole.std() - 1) < 1e-5
    assert np.allclose(jax.vmap(lambda x: policy_gradient.standardise(x, "i"), axis_name="i")(x), whole, atol=1e-6)
    assert not np.allclose(jax.vmap(policy_gradient.standardise)(x), whole, atol=0.1)


def test_ppo_on_a_fresh_rollout_is_the_policy_gradient_and_is_clipped_beyond():
    env = envs.chain()
    plain, clipped = build(env, (8,)), build(env, (8,), clip_eps=0.2)
    params = jax.jit(plain.init)(KEY)
    batch = jax.jit(plain.sample_batch)(KEY, state.create(params, optax.sgd(1.0)), {})
    slopes = [jax.jit(jax.grad(lambda p, m=m: m.loss(KEY, p, batch)[0]))(params) for m in (plain, clipped)]
    for a, b in zip(*map(jax.tree.leaves, slopes), strict=True):
        assert np.allclose(a, b, atol=1e-6)
    far = {**batch, "log_prob": batch["log_prob"] - jnp.log(1.5)}  # every ratio 1.5
    better, worse = ({**far, "advantage": sign * jnp.ones_like(far["advantage"])} for sign in (1.0, -1.0))
    policy = lambda batch: jax.grad(lambda p: clipped.loss(KEY, p, batch)[1]["policy"])(params)["policy"]
    flat = lambda tree: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))
    assert flat(policy(better)) == 0 and flat(policy(worse)) > 1e-4
    assert clipped.loss(KEY, params, far)[1]["moved"] == 1


def test_a_ratio_beyond_the_numbers_leaves_loss_and_slopes_finite():
    """Without an advantage the loss is 0 and so is its slope; an action too probable is still made less so."""
    model = build(envs.chain(), clip_eps=0.2, ent_coef=0.0, vf_coef=0.0)
    params = jax.jit(model.init)(KEY)

    @jax.jit
    def slopes(old, advantage):
        batch = {"observation": jnp.eye(5)[:1], "action": jnp.array([1]), "target": jnp.zeros(1)}
        batch |= {"log_prob": old[None], "advantage": advantage[None]}
        value, slope = jax.value_and_grad(lambda p: model.loss(KEY, p, batch)[0])(params)
        return value, optax.tree.norm(slope), slope["policy"]["Dense_0"]["bias"]

    for old, advantage in itertools.product((-200.0, -1e4, 0.0), (0.0, 1.0, -1.0)):
        value, norm, step = slopes(jnp.float32(old), jnp.float32(advantage))
        assert np.isfinite(value) and np.isfinite(norm)
        if advantage == 0:
            assert value == 0 and not step.any()
        elif advantage < 0 and old < -1:
            assert step[1] > 0 > step[0]  # descent takes the second action's logit down


def test_the_ratio_is_bounded_however_far_the_policy_has_moved():
    ratio = jax.vmap(jax.value_and_grad(policy_gradient.probability_ratio))
    value, slope = ratio(jnp.array([0.0, 0, 0, -200, -jnp.inf]), jnp.array([-200.0, -1e9, -jnp.inf, 0, 0]))
    assert np.allclose(value, [np.exp(30)] * 3 + [0, 0]) and np.allclose(slope[:2], np.exp(30)) and not slope[2:].any()


def test_neither_loss_leaks_into_the_other_player():
    env = envs.chain()
    model = build(env, (8,), ent_coef=0.0)
    params = jax.jit(model.init)(KEY)
    batch = jax.jit(model.sample_batch)(KEY, state.create(params, optax.sgd(1.0)), {})
    slope = lambda name: jax.jit(jax.grad(lambda p: model.loss(KEY, p, batch)[1][name]))(params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(slope("policy")["value"]))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(slope("value")["policy"]))


def test_a_rollout_depends_on_the_key_the_step_and_the_copy_only():
    env = envs.cartpole()
    few, many = (
        build(env, num_envs=2, num_steps=20, normalise=False),
        build(env, num_envs=4, num_steps=20, normalise=False),
    )
    now = state.create(jax.jit(few.init)(KEY), optax.sgd(1.0))
    a, b = (jax.jit(m.sample_batch)(KEY, now, {}) for m in (few, many))
    assert np.allclose(a["observation"], b["observation"][:40], atol=1e-6)
    later = jax.jit(few.sample_batch)(KEY, now._replace(step=now.step + 1), {})
    assert not np.allclose(a["observation"], later["observation"])


def rolled_out(model, num_updates, start, params):
    """Batches [n t ....] of a policy that does not learn."""
    sample = jax.jit(model.sample_batch)
    now, batches = state.create(params, optax.set_to_zero(), model.carry(start)), []
    for _ in range(num_updates):
        batch, carry = sample(KEY, now, {})
        batches.append({name: array.reshape(3, -1, *array.shape[1:]) for name, array in batch.items()})
        now = now._replace(step=now.step + 1, carry=carry)
    return {name: np.concatenate([batch[name] for batch in batches], 1) for name in batches[0]}


def test_rollouts_that_go_on_visit_the_same_steps_whatever_their_length():
    """Four rollouts of 15 steps are one of 60, through several episodes; those from a reset are not."""
    env = envs.cartpole()
    sized = lambda num_steps, **more: build(env, (4,), num_envs=3, num_steps=num_steps, normalise=False, **more)
    params = jax.jit(sized(15).init)(KEY)
    short, whole = (rolled_out(sized(n, start="continue"), 60 // n, KEY, params) for n in (15, 60))
    for name in ("observation", "action", "log_prob"):
        assert np.allclose(short[name], whole[name], atol=1e-6), name
    assert np.abs(np.diff(whole["observation"][..., 2])).max() > 0.1  # the pole is upright again: a new episode
    assert not np.allclose(whole["observation"][:, ::15], whole["observation"][:, :1], atol=0.1)
    late = short["target"][:, 14], whole["target"][:, 14]  # at the cut the future is the value function's
    assert not np.allclose(*late, atol=1e-6)


def test_rollouts_that_go_on_need_the_running_environments():
    goes_on = build(envs.chain(), num_envs=2, num_steps=3, start="continue")
    params, optimizer = goes_on.init(KEY), optax.sgd(0.1)
    run = steps.repeat(steps.gradient_step(goes_on.loss, optimizer), goes_on.sample_batch, 2)
    with pytest.raises(ValueError, match=r"make the state by create\(params, optimizer, model.carry\(key\)\)"):
        run(KEY, state.create(params, optimizer), {})
    resets = build(envs.chain(), num_envs=2, num_steps=3)
    assert resets.carry(KEY) == ()
    run = steps.repeat(steps.gradient_step(resets.loss, optimizer), resets.sample_batch, 2)
    with pytest.raises(ValueError, match="carry: expected what sample_batch returns"):
        run(KEY, state.create(params, optimizer, goes_on.carry(KEY)), {})


@pytest.mark.slow
def test_short_rollouts_that_go_on_learn_to_balance_the_pole():
    env = envs.cartpole()
    model = build(env, (64, 64), num_envs=16, num_steps=128, start="continue", clip_eps=0.2)
    optimizer = model.optimizer(optax.adam(1e-3))
    step = steps.minibatch_updates(steps.gradient_step(model.loss, optimizer), 4, 256)
    begin = state.create(jax.jit(model.init)(KEY), optimizer, model.carry(KEY))
    end = jax.jit(steps.repeat(step, model.sample_batch, 150))(KEY, begin, {})[0]
    returns, _ = jax.jit(model.evaluate_episodes)(jax.random.split(KEY, 64), end.params)
    assert returns.mean() > 400


def test_the_best_policy_of_a_chain_is_found_and_its_values():
    given = tables.chain_mdp()
    exact, actions = mdp.policy_iteration(given, 0.9)
    model = build(envs.chain(), (16,), num_envs=16, num_steps=100, discount=0.9, gae_lambda=0.9, ent_coef=0.0)
    optimizer = model.optimizer(optax.adam(1e-2))
    train = jax.jit(steps.repeat(steps.gradient_step(model.loss, optimizer), model.sample_batch, 300))
    end = train(KEY, state.create(jax.jit(model.init)(KEY), optimizer), {})[0]
    observations = jnp.eye(5)
    assert np.array_equal(np.argmax(model.logits(end.params, observations), -1), actions)
    assert np.allclose(model.values(end.params, observations), exact, rtol=0.1)


@pytest.mark.parametrize("rung", range(1, 6))
def test_every_rung_of_the_ladder_is_climbed(rung):
    given = tables.ladder_mdp(rung)
    exact, actions = mdp.policy_iteration(given, 0.9)
    model = build(envs.ladder(rung), num_envs=8, num_steps=16, discount=0.9, ent_coef=0.0, clip_eps=0.2)
    optimizer = model.optimizer(optax.adam(0.03))
    step = steps.minibatch_updates(steps.gradient_step(model.loss, optimizer), 2, 64)
    end = jax.jit(steps.repeat(step, model.sample_batch, 150))(
        KEY, state.create(jax.jit(model.init)(KEY), optimizer), {}
    )[0]
    alive = ~given.terminal
    observations = jnp.eye(len(exact))
    assert np.allclose(np.asarray(model.values(end.params, observations))[alive], exact[alive], atol=0.1)
    assert np.array_equal(np.argmax(model.logits(end.params, observations), -1)[alive], actions[alive])
    assert end.step == 150


LITTLE = build(envs.chain())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build(envs.chain(), num_envs=0), "num_envs: expected at least 1, got 0"),
        (lambda: build(envs.chain(), start="anew"), "start: expected"),
        *(
            (lambda name=name, value=value: build(envs.chain(), **{name: value}), f"{name}: expected")
            for name, values in {
                "discount": (1.5, -0.1, float("nan")),
                "gae_lambda": (-1, 1.01, float("nan")),
                "clip_eps": (-1, 0.0, float("inf"), float("nan")),
                "ent_coef": (-0.1, float("nan")),
                "vf_coef": (-1, float("inf")),
                "num_envs": (-1,),
                "num_steps": (0,),
            }.items()
            for value in values
        ),
        (lambda: LITTLE.logits({}, jnp.zeros((2, 4))), "observations: expected 5 numbers each"),
        (lambda: LITTLE.values({}, jnp.full((1, 5), jnp.nan)), "observations: expected finite numbers, got nan"),
        (lambda: LITTLE.logits({}, jnp.zeros((2, 5), int)), "observations: expected floating-point numbers, got int32"),
        (lambda: policy_gradient.advantages(*(jnp.zeros(0),) * 3, *(jnp.zeros(0, bool),) * 2, 0.9, 0.9),
         "reward: expected at least 1"),
        (lambda: actor_critic.build(mlp.MLP(3), mlp.MLP(1), envs.chain()), r"policy: expected 2 outputs, got \(3,\)"),
        (lambda: actor_critic.build(mlp.MLP(2), mlp.MLP(2), envs.chain()), r"value: expected 1 outputs, got \(2,\)"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
