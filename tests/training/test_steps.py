"""Training steps: epochs, averages over devices, the moving average, evaluation."""

import json
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import random
from genjax.training import parallel, state, steps

KEY = jax.random.key(0)
ROWS = {"x": jnp.arange(23), "y": jnp.arange(23) * 2}


def at_step(step):
    return state.TrainState(jnp.int32(step), (), (), ())


@pytest.mark.parametrize("batch_size", [1, 4, 23, 30])
def test_every_epoch_visits_every_row_once(batch_size):
    sample_batch = jax.jit(steps.rows(batch_size))
    visited = np.concatenate([sample_batch(KEY, at_step(i), ROWS)["x"] for i in range(23 * 3)])[: 23 * 3]
    epochs = visited.reshape(3, 23)
    assert np.array_equal(np.sort(epochs), np.tile(np.arange(23), (3, 1)))
    assert not np.array_equal(epochs[0], epochs[1])


def test_rows_stay_together_and_depend_on_seed_and_step_only():
    sample_batch = steps.rows(4)
    batch = sample_batch(KEY, at_step(7), ROWS)
    assert np.array_equal(batch["y"], 2 * batch["x"])
    assert np.array_equal(batch["x"], jax.jit(sample_batch)(KEY, at_step(7), ROWS)["x"])
    assert not np.array_equal(batch["x"], sample_batch(jax.random.key(1), at_step(7), ROWS)["x"])


def quadratic(key, params, batch):
    noise = random.normal(random.example_keys(key, len(batch["x"])), ())
    return jnp.mean((params["w"] - batch["x"] / 10 + 0.1 * noise) ** 2), {"size": jnp.float32(len(batch["x"]))}


def test_a_step_is_sgd_by_hand_and_ema_follows():
    optimizer = optax.sgd(0.5)
    start = state.create({"w": jnp.float32(3.0)}, optimizer)
    batch = {"x": jnp.array([0.0, 10.0])}
    after, metrics = steps.gradient_step(quadratic, optimizer, ema_decay=0.9)(KEY, start, batch)
    noise = random.normal(random.example_keys(KEY, 2), ())
    gradient = np.mean(2 * (3.0 - np.array([0.0, 1.0]) + 0.1 * noise))
    assert np.allclose(after.params["w"], 3.0 - 0.5 * gradient, rtol=1e-6)
    assert np.allclose(after.ema_params["w"], 0.1 * 3.0 + 0.9 * after.params["w"], rtol=1e-6)  # 1/10 at the first step
    assert np.allclose(metrics["grad_norm"], abs(gradient), rtol=1e-6) and after.step == 1
    assert set(metrics) == {"loss", "grad_norm", "size"}


def test_the_average_forgets_the_start_while_it_warms_up():
    """d_n = min(d, (1 + n) / (10 + n)): the start weighs Π d_n = 9! n! / (n + 9)!, then d at every step."""
    optimizer = optax.set_to_zero()
    start = state.create({"w": jnp.float32(0.0)}, optimizer)._replace(ema_params={"w": jnp.float32(1.0)})
    step = steps.gradient_step(quadratic, optimizer, ema_decay=0.9)
    run = lambda num, carry: jax.jit(steps.repeat(step, steps.rows(4), num))(KEY, carry, ROWS)[0]
    for num in (1, 5, 81, 100):  # (1 + n) / (10 + n) is 0.9 at n = 80
        weight = np.prod([min(0.9, (1 + n) / (10 + n)) for n in range(num)])
        assert np.allclose(run(num, start).ema_params["w"], weight, rtol=1e-4)
    assert run(40, start).ema_params["w"] == run(23, run(17, start)).ema_params["w"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: steps.rows(0), "batch_size: expected at least 1, got 0"),
        (lambda: steps.rows(4)(KEY, at_step(0), {"x": jnp.zeros((0, 2))}), "data: expected arrays with as many rows"),
        (
            lambda: steps.rows(4)(KEY, at_step(0), {"x": jnp.zeros(2), "y": jnp.zeros(3)}),
            "data: expected arrays with as",
        ),
        (lambda: steps.repeat(lambda *_: 0, steps.rows(1), -1), "num_steps: expected at least 0, got -1"),
        (lambda: steps.minibatch_updates(lambda *_: 0, 0, 2), "num_epochs: expected at least 1, got 0"),
        (lambda: steps.minibatch_updates(lambda *_: 0, 2, 0), "batch_size: expected at least 1, got 0"),
        (
            lambda: steps.minibatch_updates(lambda *_: 0, 2, 2)(KEY, at_step(0), {"x": jnp.zeros(0)}),
            "batch: expected arrays with",
        ),
        (lambda: steps.evaluate(quadratic, 0), "batch_size: expected at least 1, got 0"),
        (lambda: steps.evaluate(quadratic, 4)(KEY, {}, {"x": jnp.zeros(0)}), "data: expected arrays with as many rows"),
        (lambda: parallel.check_split(8, 0), "num_devices: expected at least 1, got 0"),
    ],
)
def test_no_rows_and_no_steps_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_step_at_all_leaves_the_state_as_it_was():
    optimizer = optax.sgd(0.1)
    start = state.create({"w": jnp.float32(3.0)}, optimizer)
    end, metrics = steps.repeat(steps.gradient_step(quadratic, optimizer), steps.rows(4), 0)(KEY, start, ROWS)
    assert end.step == 0 and end.params["w"] == 3.0 and metrics["loss"].shape == (0,)


def test_without_ema_the_average_is_the_parameters():
    optimizer = optax.adam(0.1)
    after, _ = steps.gradient_step(quadratic, optimizer)(
        KEY, state.create({"w": jnp.float32(3.0)}, optimizer), {"x": jnp.ones(2)}
    )
    assert after.ema_params["w"] == after.params["w"]
    with pytest.raises(ValueError, match="ema_decay"):
        steps.gradient_step(quadratic, optimizer, ema_decay=1.0)


def test_a_run_may_be_cut_anywhere():
    optimizer = optax.adam(0.1)
    step, sample_batch = steps.gradient_step(quadratic, optimizer, ema_decay=0.5), steps.rows(4)
    run = lambda num, carry: jax.jit(steps.repeat(step, sample_batch, num))(KEY, carry, ROWS)
    start = state.create({"w": jnp.float32(3.0)}, optimizer)
    whole, metrics = run(12, start)
    half, first = run(5, start)
    rest, second = run(7, half)
    assert jax.tree.all(jax.tree.map(np.array_equal, whole, rest))
    assert np.array_equal(metrics["loss"], np.concatenate([first["loss"], second["loss"]]))


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_evaluation_does_not_depend_on_the_batch_size(batch_size):
    params = {"w": jnp.float32(0.7)}
    got = jax.jit(steps.evaluate(quadratic, batch_size))(KEY, params, ROWS)["loss"]
    noise = np.asarray(random.normal(random.example_keys(KEY, 23), ()))
    assert np.allclose(got, np.mean((0.7 - np.arange(23) / 10 + 0.1 * noise) ** 2), rtol=1e-5)


def counting(key, state, data):
    """Batches of a number that counts the batches, in the carry."""
    return steps.Carried({"x": state.carry["count"][None]}, {"count": state.carry["count"] + 10.0})


def test_a_carry_goes_on_from_batch_to_batch_and_over_a_cut():
    optimizer = optax.sgd(0.1)
    counted = lambda key, params, batch: (jnp.sum(0 * params["w"]), {"x": batch["x"][0], "more": batch["more"][0]})
    step = steps.minibatch_updates(steps.gradient_step(counted, optimizer), 2, 1)
    sample_batch = steps.with_schedule(counting, "more", lambda i: -i)
    run = lambda num, now: jax.jit(steps.repeat(step, sample_batch, num))(KEY, now, {})
    start = state.create({"w": jnp.float32(3.0)}, optimizer, {"count": jnp.float32(5.0)})
    end, metrics = run(4, start)
    assert metrics["x"].tolist() == [5, 15, 25, 35] and metrics["more"].tolist() == [0, -1, -2, -3]
    assert end.carry["count"] == 45 and end.step == 4
    rest, metrics = run(2, run(2, start)[0])
    assert rest.carry["count"] == 45 and metrics["x"].tolist() == [25, 35]
    for carry in ({"count": jnp.int32(5)}, {"count": jnp.float32(5.0), "other": jnp.zeros(2)}):
        with pytest.raises(ValueError, match="carry: expected what sample_batch returns, {'count': 'float32"):
            run(1, start._replace(carry=carry))
    with pytest.raises(ValueError, match="carry: expected what sample_batch returns, \\(\\); the state has"):
        steps.repeat(step, steps.rows(4), 1)(KEY, start, ROWS)
    assert not jax.tree.leaves(state.create({"w": jnp.float32(3.0)}, optimizer).carry)  # no leaf in a checkpoint


def test_batches_that_do_not_split_are_refused_with_those_that_do():
    with pytest.raises(ValueError, match="batch_size 100 does not split over 8 devices; use 96 or 104"):
        parallel.check_split(100, 8)
    with pytest.raises(ValueError, match="use 8"):
        parallel.check_split(0, 8)
    parallel.check_split(96, 8)


ON_EIGHT_DEVICES = """
    import json
    import flax.linen as nn, jax, jax.numpy as jnp, numpy as np, optax
    from genjax import diffusion, envs
    from genjax.models import actor_critic, ddpm
    from genjax.nn import convolution, dropout, mlp
    from genjax.training import parallel, state, steps

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, t, keys=None):
            h = nn.silu(nn.GroupNorm(2)(convolution.Conv(8, (3, 3))(x) + nn.Dense(8)(t[:, None] / 50.0)[:, None, None]))
            return convolution.Conv(1, (3, 3))(dropout.Dropout(0.2)(h, keys))

    model = ddpm.build(Network(), diffusion.linear_schedule(50), (8, 8, 1))
    optimizer, key = optax.adam(1e-3), jax.random.key(0)
    rows = {"image": jax.random.normal(key, (40, 8, 8, 1))}

    def train(num_devices):
        devices = jax.devices()[:num_devices]
        step = steps.gradient_step(model.loss, optimizer, ema_decay=0.9, axis_name=parallel.AXIS)
        run = parallel.distribute(steps.repeat(step, steps.rows(16, axis_name=parallel.AXIS), 10), devices)
        carry, data = parallel.replicate((state.create(model.init(key), optimizer), rows), devices)
        losses = []
        for _ in range(5):
            carry, metrics = run(key, carry, data)
            losses.append(np.asarray(metrics["loss"]))
        return jax.device_get(parallel.unreplicate(carry)), np.concatenate(losses)

    alone = jax.jit(steps.repeat(steps.gradient_step(model.loss, optimizer, ema_decay=0.9), steps.rows(16), 50))
    end, metrics = jax.device_get(alone(key, state.create(model.init(key), optimizer), rows))
    reference = end, metrics["loss"]
    largest = lambda run, other: max(np.max(np.abs(x - y)).item() for x, y in zip(*map(jax.tree.leaves, (run, other))))
    far = lambda run: largest(run, reference)
    answer = {n: far(train(n)) for n in (1, 2, 8)}

    def act(num_devices):
        # Rollouts that go on, of a policy that learns, in 8 copies of the environment.
        axis = parallel.AXIS if num_devices else None
        network = lambda outputs: mlp.MLP(outputs, (8,), 0.01)
        players = actor_critic.build(
            network(2), network(1), envs.cartpole(), num_envs=8, num_steps=5, start="continue", axis_name=axis
        )
        optimizer = players.optimizer(optax.sgd(0.1))
        run = steps.repeat(steps.gradient_step(players.loss, optimizer, axis_name=axis), players.sample_batch, 8)
        carry = state.create(players.init(key), optimizer, players.carry(key))
        if not num_devices:
            return jax.device_get(jax.jit(run)(key, carry, {}))
        devices = jax.devices()[:num_devices]
        end, metrics = parallel.distribute(run, devices)(key, parallel.replicate(carry, devices), {})
        return jax.device_get((parallel.unreplicate(end), metrics))

    alone = act(0)
    answer |= {f"rollouts {n}": largest(act(n), alone) for n in (2, 8)}
    jax.lax.pmean = lambda tree, axis: tree
    answer["forgotten"] = far(train(2))
    print(json.dumps(answer))
"""


def test_one_two_and_eight_devices_agree_and_a_forgotten_average_shows():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ON_EIGHT_DEVICES)], env=env, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    for agreement in ("1", "2", "8", "rollouts 2", "rollouts 8"):
        assert answer[agreement] <= 1e-5, answer
    assert answer["forgotten"] > 1e-4


def test_stratified_places_are_even_over_the_batch_and_uniform_over_steps():
    sample_batch = jax.jit(steps.with_stratified_times(steps.rows(8), "time"))
    data = {"x": jnp.arange(40.0)}
    times = np.stack([sample_batch(KEY, create_at(step), data)["time"] for step in range(200)])
    assert np.allclose(np.diff(np.sort(times, 1), axis=1), 1 / 8, atol=1e-6)
    assert times.min() >= 0 and times.max() < 1
    assert abs(times[:, 0].mean() - 0.5) < 4 * 0.289 / np.sqrt(200) and np.std(times[:, 0]) > 0.2


def create_at(step):
    return state.TrainState(jnp.asarray(step), {}, {}, ())
