"""Factorisations one after the other: the values and slopes of JAX's own, and no batched call of LAPACK on CPU."""

import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import solve_triangular

from genjax import lapack
from genjax.nn import mlp
from genjax.theory import gaussian, likelihood, markov

ROOT = pathlib.Path(__file__).parent.parent
KEY = jax.random.key(0)


def positive(key, *shape):
    root = jax.random.normal(key, shape, float)
    return root @ root.mT + jnp.eye(shape[-1])


def test_values_and_slopes_are_those_of_jax_alone_and_in_batches():
    with jax.enable_x64(True):
        a, b = positive(KEY, 3, 2, 3, 3), jax.random.normal(KEY, (2, 3, 2), float)
        low = jnp.linalg.cholesky(a)
        wide = jnp.broadcast_to(b, (3, 2, 3, 2))
        for ours, theirs, args in [
            (lapack.cholesky, jnp.linalg.cholesky, (a,)),
            (lapack.solve, jnp.linalg.solve, (a, wide)),
            (lapack.solve_lower, lambda m, x: solve_triangular(m, x, lower=True), (low, wide)),
            (
                lambda m, x: lapack.solve_lower(m, x, transposed=True),
                lambda m, x: solve_triangular(m, x, lower=True, trans="T"),
                (low, wide),
            ),
        ]:
            found = jax.jit(lambda *args, run=ours: (run(*args), jax.vmap(run)(*args)))(*args)
            np.testing.assert_array_equal(found, [theirs(*args)] * 2)
            loss = lambda run: lambda *given: jnp.sum(jnp.sin(run(*given)))
            slopes = lambda run: jax.jit(jax.grad(loss(run), range(len(args))))(*args)  # noqa: B023
            for one, other in zip(slopes(ours), slopes(theirs), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)
        np.testing.assert_array_equal(jax.jit(lapack.solve_lower)(low, b), jax.jit(lapack.solve_lower)(low, wide))


def test_a_matrix_that_is_not_positive_definite_has_no_factor():
    assert np.isnan(lapack.cholesky(-jnp.eye(2))).any()


def toss(logit, x):
    return jnp.where(x, jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit))


P = gaussian.FullGaussian(jnp.zeros((5, 3)), jnp.linalg.cholesky(positive(KEY, 5, 3, 3).astype(np.float32)))
CHAINS = jax.random.dirichlet(KEY, jnp.ones(3), (5, 3))
BATCHED = {
    "orthogonal": (lambda: jax.vmap(lambda key: mlp.MLP(2).init(key, jnp.zeros((1, 4))))(jax.random.split(KEY, 5))),
    "kl": lambda: gaussian.kl(P, P),
    "kl under vmap": lambda: jax.vmap(gaussian.kl)(P, P),
    "its gradient": lambda: jax.grad(lambda p: gaussian.kl(p, P).sum())(P),
    "product": lambda: gaussian.product(P, P),
    "condition": lambda: gaussian.condition(P, jnp.array([1]), jnp.zeros((5, 1))),
    "stationary": lambda: jax.vmap(markov.stationary)(CHAINS),
    "fit": lambda: jax.vmap(lambda x: likelihood.fit(toss, 0.0, x))(jnp.arange(10) < jnp.array([[3], [7]])),
}


@pytest.mark.parametrize("name", BATCHED)
def test_no_program_for_cpu_holds_a_batched_call_of_lapack(name):
    """Every call of LAPACK in the lowered program is of one matrix: its operands have at most two axes."""
    text = jax.jit(BATCHED[name]).lower().as_text()
    calls = [line for line in text.splitlines() if "@lapack_" in line]
    assert calls
    for line in calls:
        shapes = re.findall(r"tensor<((?:\d+x)*)[a-z]+\d+>", line.split(" : ")[-1])
        assert max(shape.count("x") for shape in shapes) <= 2, line


def test_the_check_above_finds_a_batched_call():
    text = jax.jit(jnp.linalg.cholesky).lower(jnp.ones((5, 3, 3))).as_text()
    (line,) = [line for line in text.splitlines() if "@lapack_" in line]
    assert "5x3x3" in line.split(" : ")[-1]


def test_nothing_else_calls_lapack_through_jax():
    """Such a call would be a batch under ``vmap``. Norms of vectors are sums; a program's own numpy is one call."""
    wrong = re.compile(r"(jnp|jax\.numpy|jax\.scipy)\.linalg( import|\.(?!norm))|initializers\.orthogonal")
    for folder in ("genjax", "train", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert path.name == "lapack.py" or not wrong.search(path.read_text(encoding="utf-8")), path


STARTS = """
import sys
import jax
from train import actor_critic
from train.run import sweep
from train.run.programs import Programs
settings = actor_critic.Config(num_seeds=10, hidden=(64, 64, 64))
ensemble = sweep.ensemble(settings)
task = actor_critic.build(settings, (1, 1, 1))
start = jax.jit(lambda: Programs(lambda value: task, ensemble).start(*ensemble.keys_and_values))
for _ in range(100):
    jax.block_until_ready(start())
"""


def test_a_hundred_starts_of_members_come_to_an_end():
    """With the threads of a command; where the decompositions were batched, three of eight such processes hung."""
    env = {"JAX_PLATFORMS": "cpu", "PATH": "", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", STARTS], cwd=ROOT, env=env, check=True, timeout=120)
