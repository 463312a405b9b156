"""CartPole and Acrobot; every step agrees with Gymnasium (CartPole-v1, Acrobot-v1)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genjax.envs.environment import Action, Environment, Step, check_action
from genjax.types import Key

State = Float[Array, "4"]


def cartpole() -> Environment:
    """A pole on a cart that is pushed left or right (Barto, Sutton & Anderson 1983): reward 1 for each step.

    State and observation: position x and its rate, angle θ from upright and its rate. Terminated when |x| > 2.4 or
    |θ| > 12°; truncated after 500 steps. Euler steps of 0.02 s.
    """

    def reset(key: Key) -> State:
        return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)

    def step(key: Key, state: State, action: Action) -> tuple[State, Step]:
        check_action(action, 2)
        x, v, theta, omega = state
        gravity, half_length, pole_mass, total_mass, tau = 9.8, 0.5, 0.1, 1.1, 0.02
        force = jnp.where(action == 1, 10.0, -10.0)
        sin, cos = jnp.sin(theta), jnp.cos(theta)
        temp = (force + pole_mass * half_length * omega**2 * sin) / total_mass
        theta_acc = (gravity * sin - cos * temp) / (half_length * (4 / 3 - pole_mass * cos**2 / total_mass))
        x_acc = temp - pole_mass * half_length * theta_acc * cos / total_mass
        state = state + tau * jnp.stack([v, x_acc, omega, theta_acc])
        terminated = (jnp.abs(state[0]) > 2.4) | (jnp.abs(state[2]) > 12 * jnp.pi / 180)
        return state, Step(jnp.ones((), state.dtype), terminated)

    return Environment(reset, step, lambda state: state, 2, 4, 500)


def acrobot() -> Environment:
    """Two links that hang from a bar; the joint between them is driven to swing the tip up (Sutton 1996).

    State: angle θ1 of the first link from hanging down, angle θ2 of the second link from the first, and their rates.
    Observation: cosines and sines of the angles, and the rates. Actions: torque -1, 0 or 1. Reward -1 for each step
    until the tip is one link above the bar; truncated after 500 steps. Runge-Kutta steps of 0.2 s.
    """

    def reset(key: Key) -> State:
        return jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1)

    def derivative(state: State, torque: Float[Array, ""]) -> State:
        theta1, theta2, omega1, omega2 = state
        inertia = 1.0  # of both links; their masses and lengths are 1, their centres of mass at 1/2
        d1 = 0.25 + (1 + 0.25 + jnp.cos(theta2)) + 2 * inertia
        d2 = 0.25 + 0.5 * jnp.cos(theta2) + inertia
        phi2 = 0.5 * 9.8 * jnp.cos(theta1 + theta2 - jnp.pi / 2)
        gravity1 = 1.5 * 9.8 * jnp.cos(theta1 - jnp.pi / 2) + phi2
        phi1 = -0.5 * omega2**2 * jnp.sin(theta2) - omega2 * omega1 * jnp.sin(theta2) + gravity1
        theta2_acc = torque + d2 / d1 * phi1 - 0.5 * omega1**2 * jnp.sin(theta2) - phi2
        theta2_acc = theta2_acc / (0.25 + inertia - d2**2 / d1)
        return jnp.stack([omega1, omega2, -(d2 * theta2_acc + phi1) / d1, theta2_acc])

    def step(key: Key, state: State, action: Action) -> tuple[State, Step]:
        check_action(action, 3)
        torque, tau = jnp.asarray(action, state.dtype) - 1, 0.2
        k1 = derivative(state, torque)
        k2 = derivative(state + tau / 2 * k1, torque)
        k3 = derivative(state + tau / 2 * k2, torque)
        k4 = derivative(state + tau * k3, torque)
        angles, rates = jnp.split(state + tau / 6 * (k1 + 2 * k2 + 2 * k3 + k4), 2)
        angles = (angles + jnp.pi) % (2 * jnp.pi) - jnp.pi
        limit = jnp.array([4 * jnp.pi, 9 * jnp.pi], state.dtype)
        state = jnp.concatenate([angles, jnp.clip(rates, -limit, limit)])
        terminated = -jnp.cos(angles[0]) - jnp.cos(angles[0] + angles[1]) > 1
        return state, Step(jnp.where(terminated, 0.0, -1.0).astype(state.dtype), terminated)

    def observe(state: State) -> Float[Array, "6"]:
        theta1, theta2, omega1, omega2 = state
        return jnp.stack([jnp.cos(theta1), jnp.sin(theta1), jnp.cos(theta2), jnp.sin(theta2), omega1, omega2])

    return Environment(reset, step, observe, 3, 6, 500)
