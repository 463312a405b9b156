"""The normal above a threshold, against numbers of 80 digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.theory import families, gaussian, tails

# z, hazard, mean excess, variance: mpmath, from erfc at 80 digits; beyond 1000 from 400 terms of the fraction
EXACT = np.array([
    (-20.0, 5.52094836216e-88, 20.0, 1.0),
    (-3.0, 0.00443783904213, 3.00443783904, 0.986666788458),
    (0.0, 0.797884560803, 0.797884560803, 0.363380227632),
    (2.25, 2.59640253869, 0.346402538687, 0.100599569146),
    (2.75, 3.05177350825, 0.301773508248, 0.0790556020375),
    (5.0, 5.18650396713, 0.186503967126, 0.0326964346171),
    (40.0, 40.0249688472, 0.0249688472073, 0.000622668378591),
    (1e4, 10000.0001, 9.9999998e-5, 9.9999994e-9),
    (1e15, 1e15, 1e-15, 1e-30),
])  # fmt: skip


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 5e-5), (np.float64, 1e-10)])
def test_hazard_excess_and_variance_and_their_slopes(dtype, rtol):
    with jax.enable_x64(dtype is np.float64):
        z = jnp.asarray(EXACT[:, 0], dtype)
        values = jax.jit(lambda z: (tails.hazard(z), tails.mean_excess(z), tails.variance(z)))(z)
        slopes = jax.jit(jax.vmap(lambda z: (jax.grad(tails.hazard)(z), jax.grad(tails.mean_excess)(z))))(z)
        cut = families.TruncatedNormal(-3 * z, jnp.full_like(z, 3))
        moments = cut.mean / 3, cut.variance / 9
    _, hazard, excess, variance = EXACT.T
    for value, exact in zip(values, (hazard, excess, variance), strict=True):
        assert np.allclose(value, exact, rtol=rtol, atol=1e-45)
    assert np.allclose(slopes, (hazard * excess, -variance), rtol=rtol, atol=1e-45)
    assert np.allclose(moments, (excess, variance), rtol=rtol, atol=0)


def test_the_ends_of_the_line():
    ends = jnp.array([-jnp.inf, jnp.inf])
    assert np.array_equal(gaussian.inverse_log_cdf(jnp.array([-jnp.inf, 0])), ends)
    assert np.array_equal(gaussian.log_cdf(ends), [-jnp.inf, 0])
    assert np.array_equal(tails.hazard(ends), [0, jnp.inf]) and np.array_equal(tails.mean_excess(ends), [jnp.inf, 0])
    far = jnp.array(-3e38)
    assert np.isclose(gaussian.log_cdf(gaussian.inverse_log_cdf(far)), far, rtol=1e-6)
    with pytest.raises(ValueError, match="log_p: expected numbers from -inf to 0, got 0.1"):
        gaussian.inverse_log_cdf(jnp.array(0.1))
    assert gaussian.expm1_minus_x(jnp.array(jnp.inf)) == jnp.inf
