"""Steps of CartPole per second, and training an actor-critic on it: our kernels vmapped against Gymnasium's loops."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, peers, workload
from genjax import envs
from genjax.theory import markov
from genjax.training import state, steps
from train import actor_critic

Variant = harness.Variant


class Size(NamedTuple):
    """Numbers of copies of the environment, steps of each, steps of Gymnasium's loop; copies and steps of a rollout."""

    copies: int
    steps: int
    loop: int
    rollout: tuple[int, int]


SIZES = {
    "toy": Size(4, 20, 50, (2, 10)),
    "cpu": Size(1024, 500, 20_000, (16, 500)),
    "gpu": Size(65_536, 500, 20_000, (1024, 500)),
}


def cases(size: Size, device: str) -> Iterator[harness.Case]:
    """Yield the cases."""
    yield _stepping(size)
    yield _learning(size, device)


def _stepping(size: Size) -> harness.Case:
    gym = peers.adapter("gym")
    init, step = envs.episodes(envs.cartpole(), lambda key, observation: jax.random.randint(key, (), 0, 2))

    def rollout(key: Any, copies: int) -> Any:
        def one(key: Any) -> Any:
            """Count the episodes that end."""

            def has_ended(key: Any, carry: Any, _: Any) -> tuple[Any, Any]:
                carry, transition = step(key, carry, None)
                return carry, transition.terminated | transition.truncated

            return markov.simulate(has_ended, key, init(key), length=size.steps)[1].sum()

        return jax.vmap(one)(jax.random.split(key, copies)).sum()

    run = jax.jit(rollout, static_argnums=1)
    key = jax.random.key(workload.SEED)
    scan = lambda num: lambda: run(key, num).block_until_ready()
    variants = [
        Variant(f"genjax: {num} copies in one scan", functools.partial(scan, num), num * size.steps)
        for num in dict.fromkeys((size.copies, 1))
    ]
    if gym:
        variants.append(Variant("Gymnasium: a loop", lambda: lambda: gym.steps(size.loop), size.loop))
        copies = min(size.copies, 1024)
        variants.append(
            Variant(
                f"Gymnasium: {copies} copies in its own vector",
                lambda: lambda: gym.vector_steps(copies, size.steps),
                copies * size.steps,
            )
        )

    def check(outputs: Any) -> dict[str, float]:
        if not gym:
            return {}
        rng = np.random.default_rng(workload.SEED)
        states, actions = rng.uniform(-0.2, 0.2, (100, 4)), rng.integers(0, 2, 100)
        env_step = jax.jit(jax.vmap(envs.cartpole().step))
        after, _ = env_step(jax.random.split(key, 100), jnp.asarray(states, jnp.float32), jnp.asarray(actions))
        return {"states after a step, Gymnasium": harness.close(after, gym.dynamics(states, actions), 1e-5, "CartPole")}

    return harness.Case("CartPole, random actions", "step", size.copies * size.steps, variants, check)


def _learning(size: Size, device: str) -> harness.Case:
    """Time an update of A2C: a rollout and its gradient step."""
    copies, length = size.rollout
    config = actor_critic.Config(batch_size=copies, rollout_length=length)
    model, optimizer = actor_critic.model(config), actor_critic.build(config).optimizer
    params = jax.jit(model.init)(jax.random.key(workload.SEED))
    key = jax.random.key(workload.SEED)
    first = state.create(params, optimizer, model.carry(key))
    update = jax.jit(steps.repeat(steps.gradient_step(model.loss, optimizer), model.sample_batch, 1))

    def pytorch() -> harness.Run:
        notes, learner = peers.adapter("notes"), peers.adapter("a2c")
        return learner.learner(
            params,
            copies,
            length,
            rate=config.lr,
            discount=config.discount,
            gae_lambda=config.gae_lambda,
            where=notes.device(device),
        )

    def check(outputs: Any) -> dict[str, float]:
        notes, learner = peers.adapter("notes"), peers.adapter("a2c")
        if not (notes and learner):
            return {}
        x = workload.noise((8, 4))
        expected = jax.jit(model.logits)(params, jnp.asarray(x))
        policy, _ = learner.networks(params, notes.device(device))
        logits = notes.numpy(policy(notes.tensor(x, notes.device(device))))
        return {"logits of the policy, PyTorch": harness.close(logits, expected, 1e-3, "policy")}

    variants = [Variant("genjax: rollout and gradient in one program", lambda: lambda: _wait(update(key, first, {})))]
    variants += [Variant("PyTorch and Gymnasium: a loop", pytorch)] if peers.adapter("a2c") else []
    name = f"A2C on CartPole, {copies} copies of {length} steps and one gradient step"
    return harness.Case(name, "update", 1, variants, check)


def _wait(result: Any) -> Any:
    return jax.block_until_ready(result[0].params)
