"""CartPole and Acrobot, step for step those of Gymnasium (CartPole-v1, Acrobot-v1)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genjax.envs.environment import Action, Environment, Step, check_action
from genjax.types import Key

State = Float[Array, "4"]


def cartpole() -> Environment:
    """A pole on a cart that is pushed left or right (Barto, Sutton & Anderson 1983): 1 for each step that it stands.

    State and observation: position x, its rate, angle θ from upright, its rate. Over when |x| > 2.4 or |θ| > 12°;
    truncated after 500 steps. Euler steps of 0.02 s.
    """

    def reset(key: Key) -> State:
        return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)

    def step(key: Key, state: State, action: Action) -> tuple[State, Step]:
        check_action(action, 2)
        x, v, theta, omega = state
        gravity, half, pole, total, tau = 9.8, 0.5, 0.1, 1.1, 0.02
        force = jnp.where(action == 1, 10.0, -10.0)
        sin, cos = jnp.sin(theta), jnp.cos(theta)
        push = (force + pole * half * omega**2 * sin) / total
        turn = (gravity * sin - cos * push) / (half * (4 / 3 - pole * cos**2 / total))
        speed_up = push - pole * half * turn * cos / total
        state = state + tau * jnp.stack([v, speed_up, omega, turn])
        fallen = (jnp.abs(state[0]) > 2.4) | (jnp.abs(state[2]) > 12 * jnp.pi / 180)
        return state, Step(jnp.ones((), state.dtype), fallen)

    return Environment(reset, step, lambda state: state, 2, 4, 500)


def acrobot() -> Environment:
    """Two links that hang from a bar, of which only the joint between is driven (Sutton 1996): swing the tip up.

    State: angles θ1 of the first link from hanging down and θ2 of the second from the first, and their rates;
    observation: cosines and sines of the angles, and the rates. Torque -1, 0 or 1; -1 for each step until the tip is
    one link above the bar; truncated after 500 steps. Runge-Kutta steps of 0.2 s.
    """

    def reset(key: Key) -> State:
        return jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1)

    def motion(state: State, torque: Float[Array, ""]) -> State:
        first, second, rate1, rate2 = state
        inertia = 1.0  # of both links, whose masses and lengths are 1 and whose centres are at 1/2
        d1 = 0.25 + (1 + 0.25 + jnp.cos(second)) + 2 * inertia
        d2 = 0.25 + 0.5 * jnp.cos(second) + inertia
        weight2 = 0.5 * 9.8 * jnp.cos(first + second - jnp.pi / 2)
        weight1 = 1.5 * 9.8 * jnp.cos(first - jnp.pi / 2) + weight2
        phi1 = -0.5 * rate2**2 * jnp.sin(second) - rate2 * rate1 * jnp.sin(second) + weight1
        turn2 = torque + d2 / d1 * phi1 - 0.5 * rate1**2 * jnp.sin(second) - weight2
        turn2 = turn2 / (0.25 + inertia - d2**2 / d1)
        return jnp.stack([rate1, rate2, -(d2 * turn2 + phi1) / d1, turn2])

    def step(key: Key, state: State, action: Action) -> tuple[State, Step]:
        check_action(action, 3)
        torque, tau = jnp.asarray(action, state.dtype) - 1, 0.2
        k1 = motion(state, torque)
        k2 = motion(state + tau / 2 * k1, torque)
        k3 = motion(state + tau / 2 * k2, torque)
        k4 = motion(state + tau * k3, torque)
        angles, rates = jnp.split(state + tau / 6 * (k1 + 2 * k2 + 2 * k3 + k4), 2)
        angles = (angles + jnp.pi) % (2 * jnp.pi) - jnp.pi
        limit = jnp.array([4 * jnp.pi, 9 * jnp.pi], state.dtype)
        state = jnp.concatenate([angles, jnp.clip(rates, -limit, limit)])
        up = -jnp.cos(angles[0]) - jnp.cos(angles[0] + angles[1]) > 1
        return state, Step(jnp.where(up, 0.0, -1.0).astype(state.dtype), up)

    def observe(state: State) -> Float[Array, "6"]:
        first, second, rate1, rate2 = state
        return jnp.stack([jnp.cos(first), jnp.sin(first), jnp.cos(second), jnp.sin(second), rate1, rate2])

    return Environment(reset, step, observe, 3, 6, 500)
