"""Integrals over the plane whose peaks have to be found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.theory import quadrature

DEVIATIONS = [(1, 1, 0), (0.1, 0.1, 0), (0.009, 0.009, 0), (1e-3, 1e-3, 0), (1, 0.01, 0.7), (1, 1e-3, 0.3)]


def gaussians(means, covariances):
    """Log densities of N(mean, covariance), each of mass one."""
    inverse, norm = np.linalg.inv(covariances), np.linalg.slogdet(2 * np.pi * np.asarray(covariances))[1] / 2
    off = lambda z: z - jnp.asarray(means)
    return lambda z: -0.5 * jnp.einsum("bi,bij,bj->b", off(z), jnp.asarray(inverse), off(z)) - jnp.asarray(norm)


def turned(first, second, angle):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turn @ np.diag([first**2, second**2]) @ turn.T


def test_masses_of_gaussians_of_any_width_are_one():
    means = 0.5 * np.random.default_rng(1).normal(size=(len(DEVIATIONS), 2))
    with jax.enable_x64(True):
        density = gaussians(means, np.stack([turned(*each) for each in DEVIATIONS]))
        integral = jax.jit(lambda: quadrature.log_integral(density, len(means), width=8.0))()
        assert integral.converged.all() and np.abs(integral.log_value).max() < 1e-6


def test_two_narrow_peaks_far_apart_are_both_counted():
    with jax.enable_x64(True):
        one, other = (gaussians(np.array([mean]), [1e-4 * np.eye(2)]) for mean in ([1.0, 1.0], [-1.013, 0.37]))
        both = lambda z: jnp.logaddexp(one(z), other(z))
        integral = jax.jit(lambda: quadrature.log_integral(both, 1, num_points=72))()
        assert integral.converged.all() and abs(integral.log_value[0] - np.log(2)) < 1e-6


def test_mass_beyond_the_first_window_is_found():
    with jax.enable_x64(True):
        integral = quadrature.log_integral(gaussians(np.array([[7.0, 0.0]]), [0.01 * np.eye(2)]), 1, num_points=48)
        assert integral.converged.all() and abs(integral.log_value[0]) < 1e-6


def test_what_is_not_resolved_is_said():
    """A density that is rough at every scale: a step, along no axis."""
    rough = lambda z: jnp.where(jnp.sin(50 * z[:, 0]) * jnp.sin(70 * z[:, 1]) > 0.1, 0.0, -60.0)
    integral = jax.jit(lambda: quadrature.log_integral(rough, 1, num_points=9, tolerance=1e-6))()
    assert not integral.converged[0] and integral.error[0] > 1e-6


@pytest.mark.parametrize("wrong", [{"num": 0}, {"num_points": 3}, {"width": 0.0}, {"tolerance": -1.0}])
def test_bad_input_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        quadrature.log_integral(lambda z: z[:, 0], **({"num": 1} | wrong))
