"""The production samplers on exact denoisers of Gaussian data, where every number has a closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import diffusion, random
from genjax.diffusion import process, samplers

MEAN, DEVIATION = 0.4, 0.5
LINEAR = diffusion.linear_schedule(1000)
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def exact(schedule, mean=MEAN, deviation=DEVIATION):
    """E[ε|x_t] for data N(mean, deviation²)."""

    def denoise(x, t):
        alpha_bar = diffusion.at(schedule.alpha_bar, t, x)
        return jnp.sqrt(1 - alpha_bar) * (x - jnp.sqrt(alpha_bar) * mean) / (alpha_bar * deviation**2 + 1 - alpha_bar)

    return denoise


def law(make, denoise, monkeypatch, start=(0.0, 1.0)):
    """Mean and deviation of what the sampler draws, exactly: it is affine in x_T and in the noise of every step.

    Example 0 starts at the mean with no noise; example 1 one deviation away; example 2 + j gets unit noise at time j
    alone. The squares of the differences from example 0 add up to the variance.
    """
    times = []

    def spying(x, t):
        times[:] = [t[0]]
        return denoise(x, t)

    def unit_noise(keys, shape, dtype):
        return (jnp.arange(keys.shape[0]) == times[0] + 2).astype(dtype)

    monkeypatch.setattr(samplers.random, "normal", unit_noise)
    x_T = jnp.full(LINEAR.num_steps + 2, start[0]).at[1].add(start[1])
    x_0 = np.asarray(make(spying)(KEY, x_T))
    return x_0[0], np.sqrt(np.sum((x_0[1:] - x_0[0]) ** 2))


def ancestral_law(monkeypatch, denoise=None, schedule=LINEAR, start=(0.0, 1.0), **options):
    make = lambda d: diffusion.ancestral(d, schedule, clip=False, **options)
    return law(make, denoise or exact(schedule), monkeypatch, start)


def test_ancestral_small_variance(monkeypatch):
    assert ancestral_law(monkeypatch, variance="small") == pytest.approx((0.399995964, 0.496110080), abs=1e-9)


def test_ancestral_large_variance(monkeypatch):
    assert ancestral_law(monkeypatch, variance="large") == pytest.approx((0.399995964, 0.500751510), abs=1e-9)


def test_ancestral_with_the_optimal_variance_draws_the_data_law(monkeypatch):
    """Bao et al. 2022, Theorem 1: σ² = β̃ + c_0² Var(x_0|x_t), from the exact q(x_T)."""
    beta, alpha_bar, alpha_bar_prev = LINEAR
    x0_weight = np.sqrt(alpha_bar_prev) * beta / (1 - alpha_bar)
    spread = DEVIATION**2 * (1 - alpha_bar) / (alpha_bar * DEVIATION**2 + 1 - alpha_bar)
    variance = LINEAR.posterior_variance + x0_weight**2 * spread
    end = alpha_bar[-1]
    start = np.sqrt(end) * MEAN, np.sqrt(end * DEVIATION**2 + 1 - end)
    # The last step adds no noise; the variance it leaves out is that of x_0 given x at time 0.
    mean, deviation = ancestral_law(monkeypatch, variance=variance, start=start)
    assert mean == pytest.approx(MEAN, abs=1e-12)
    assert deviation**2 + variance[0] == pytest.approx(DEVIATION**2, abs=1e-12)


@pytest.mark.parametrize(
    ("mean", "deviation", "variance", "expected"),
    [
        (0.0, 1.0, "large", (0.0, np.sqrt(1 - 1e-4))),
        (0.0, 1.0, "small", (0.0, 0.99552367)),
        (0.3, 0.0, "small", (0.3, 0.0)),
    ],
)
def test_ancestral_on_standard_normal_and_on_a_point(mean, deviation, variance, expected, monkeypatch):
    got = ancestral_law(monkeypatch, exact(LINEAR, mean, deviation), variance=variance)
    assert got == pytest.approx(expected, abs=1e-8)


def _wrong_posterior(wrong):
    def posterior(schedule, x0, x_t, t):
        right = process.Posterior(*RIGHT_POSTERIOR(schedule, x0, x_t, t))
        return right._replace(mean=wrong(schedule, right.mean, x0, x_t, t))

    return posterior


RIGHT_POSTERIOR = process.posterior
MUTANTS = {  # what goes wrong, and the law it leads to
    "time one too late": (
        (0.399285, 0.493087),
        lambda: dict(denoise=lambda x, t: exact(LINEAR)(x, jnp.minimum(t + 1, 999))),
    ),
    "time one too early": (
        (0.400712, 0.499112),
        lambda: dict(denoise=lambda x, t: exact(LINEAR)(x, jnp.maximum(t - 1, 0))),
    ),
    "deviation for variance": ((0.399996, 0.029595), lambda: dict(variance=LINEAR.posterior_variance**2)),
    "large for small": ((0.399996, 0.500752), lambda: dict(variance="large")),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_law_tells_every_mutant_apart(name, monkeypatch):
    wrong, options = MUTANTS[name]
    got = ancestral_law(monkeypatch, **({"variance": "small"} | options()))
    assert got == pytest.approx(wrong, abs=2e-5)
    assert max(abs(got[0] - 0.399995964), abs(got[1] - 0.496110080)) > 1e-6


@pytest.mark.parametrize(
    "wrong",
    [
        lambda s, mean, x0, x_t, t: mean * jnp.sqrt(1 - diffusion.at(s.beta, t, x_t)),  # 1/√α left out
        lambda s, mean, x0, x_t, t: jnp.sqrt(diffusion.at(s.alpha_bar_prev, t, x_t)) * x0,  # x_t left out
    ],
)
def test_the_law_tells_a_wrong_posterior_apart(wrong, monkeypatch):
    monkeypatch.setattr(samplers.process, "posterior", _wrong_posterior(wrong))
    mean, deviation = ancestral_law(monkeypatch)
    assert max(abs(mean - 0.399995964), abs(deviation - 0.496110080)) > 1e-6


def test_the_last_step_adds_no_noise_whatever_its_variance(monkeypatch):
    variance = LINEAR.posterior_variance.copy()
    variance[0] = 1.0
    assert ancestral_law(monkeypatch, variance=variance) == pytest.approx((0.399995964, 0.496110080), abs=1e-9)


@pytest.mark.parametrize(
    ("spacing", "means", "deviations"),
    [
        ("leading", (0.397540, 0.398213, 0.398548, 0.398648), (0.374129, 0.433735, 0.472439, 0.485981)),
        ("trailing", None, (0.369955, 0.431367, 0.471403, 0.485447)),
        ("linspace", None, (0.361612, 0.430452, 0.471915, None)),
    ],
)
def test_ddim_on_sub_grids(spacing, means, deviations):
    for i, num_steps in enumerate((10, 20, 50, 100)):
        sample = diffusion.ddim(exact(LINEAR), LINEAR, num_steps=num_steps, spacing=spacing, clip=False)
        zero, one = np.asarray(sample(KEY, jnp.array([0.0, 1.0])))
        if means:
            assert zero == pytest.approx(means[i], abs=1e-5)
        if deviations[i]:
            assert one - zero == pytest.approx(deviations[i], abs=1e-5)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_ddim_with_eta_one_on_all_steps_is_ancestral(spacing):
    x_T = jax.random.normal(KEY, (5, 3))
    step_by_step = diffusion.ancestral(exact(LINEAR), LINEAR, variance="small", clip=False)(KEY, x_T)
    implicit = diffusion.ddim(exact(LINEAR), LINEAR, num_steps=1000, eta=1.0, spacing=spacing, clip=False)(KEY, x_T)
    assert np.allclose(implicit, step_by_step, atol=1e-10)


@pytest.mark.parametrize("num_steps", [1, 7, 10, 13, 21, 50, 999, 1000])
def test_timesteps_equal_the_published_formulas(num_steps):
    """The formulas of Lin et al. 2024, Table 2, as diffusers writes them."""
    trailing = (np.round(np.arange(1000, 0, -1000 / num_steps)) - 1).astype(int)[:num_steps]
    leading = (np.arange(num_steps) * (1000 // num_steps)).round()[::-1]
    linspace = np.linspace(0, 999, num_steps).round()[::-1].astype(int)
    assert diffusion.timesteps(1000, num_steps, "trailing").tolist() == trailing.tolist()
    assert diffusion.timesteps(1000, num_steps, "leading").tolist() == leading.tolist()
    assert diffusion.timesteps(1000, num_steps, "linspace").tolist() == linspace.tolist()


def test_thirteen_timesteps_as_a_list():
    expected = [999, 922, 845, 768, 691, 614, 537, 461, 384, 307, 230, 153, 76]
    assert diffusion.timesteps(1000, 13, "trailing").tolist() == expected
    assert diffusion.timesteps(1000, 13, "leading").tolist() == list(range(912, -1, -76))


@pytest.mark.parametrize("num_steps", [13, 21])
def test_each_step_lands_on_the_next_time_of_the_list_and_the_last_on_clean_images(num_steps):
    """On the noiseless path x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε the true ε keeps DDIM on it: visited times can be read off."""
    x0, noise = 0.3, 0.8
    times = diffusion.timesteps(1000, num_steps, "linspace")
    sample = diffusion.ddim(
        lambda x, t: jnp.full_like(x, noise), LINEAR, num_steps=num_steps, spacing="linspace", clip=False
    )
    start = diffusion.diffuse(LINEAR, jnp.array([x0]), jnp.array([999]), jnp.array([noise]))
    end, frames = sample(KEY, start, keep=range(num_steps))
    visited = [diffusion.diffuse(LINEAR, jnp.array([x0]), jnp.array([t]), jnp.array([noise]))[0] for t in times]
    assert np.allclose(frames[:, 0], visited, atol=1e-9) and np.allclose(end, x0, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "first", "expected"),
    [("noise", 1e-4, 172.0067), ("v", 1e-4, 52.5302), ("noise", 0.01, 149.8295)],
)
def test_ddim_reproduces_the_values_diffusers_tests_itself_with(kind, first, expected):
    """huggingface/diffusers, tests/schedulers/test_scheduler_ddim.py: ten steps on a dummy sample and model."""
    schedule = diffusion.linear_schedule(1000, first, 0.02)
    x_T = jnp.moveaxis(jnp.arange(768.0).reshape(3, 8, 8, 4) / 768, -1, 0)

    def denoise(x, t):
        out = x * (t / (t + 1)).reshape(-1, 1, 1, 1)
        return out if kind == "noise" else diffusion.from_v(schedule, out, x, t).noise

    x_0 = diffusion.ddim(denoise, schedule, num_steps=10, spacing="leading")(KEY, x_T)
    assert float(jnp.abs(x_0).sum()) == pytest.approx(expected, abs=1e-3)


SAMPLERS = [
    partial(diffusion.ancestral, schedule=diffusion.linear_schedule(20)),
    partial(diffusion.ddim, schedule=diffusion.linear_schedule(20), num_steps=7, eta=0.5),
]


def _count(jaxpr, name):
    inner = [
        p
        for eqn in jaxpr.eqns
        for v in eqn.params.values()
        for p in jax.tree.leaves(v, is_leaf=_is_jaxpr)
        if _is_jaxpr(p)
    ]
    return sum(eqn.primitive.name == name for eqn in jaxpr.eqns) + sum(
        _count(getattr(j, "jaxpr", j), name) for j in inner
    )


def _is_jaxpr(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


@pytest.mark.parametrize("make", SAMPLERS)
@pytest.mark.parametrize("keep", [None, (0, 3, 7)])
def test_the_chain_is_one_scan_and_never_calls_back(make, keep):
    denoise = lambda x, t: 0.1 * x * t[:, None]
    jaxpr = jax.make_jaxpr(lambda key, x: make(denoise)(key, x, keep))(KEY, jnp.ones((2, 3))).jaxpr
    assert _count(jaxpr, "scan") == 1 and _count(jaxpr, "while") == 0
    assert not any(_count(jaxpr, name) for name in ("pure_callback", "io_callback", "debug_callback"))


@pytest.mark.parametrize("make", SAMPLERS)
def test_image_i_depends_on_key_and_i_only(make):
    denoise = lambda x, t: 0.1 * x
    sample = make(denoise)
    x_T = jax.random.normal(KEY, (8, 4))
    whole = sample(KEY, x_T)
    assert np.array_equal(sample(KEY, x_T[:3]), whole[:3])
    assert np.array_equal(sample(random.example_keys(KEY, 3, first=5), x_T[5:]), whole[5:])
    assert not np.array_equal(whole[0], sample(jax.random.key(1), x_T)[0])


@pytest.mark.parametrize("make", SAMPLERS)
def test_samplers_jit_vmap_and_differentiate(make):
    x_T = jax.random.normal(KEY, (3, 4))
    run = lambda scale: make(lambda x, t: scale * jnp.tanh(x), clip=False)(KEY, x_T).sum()
    assert np.allclose(jax.jit(run)(0.3), run(0.3), atol=1e-12)
    assert np.allclose(jax.vmap(run)(jnp.array([0.1, 0.3])), [run(0.1), run(0.3)], atol=1e-12)
    slope = (run(0.3 + 1e-6) - run(0.3 - 1e-6)) / 2e-6
    assert np.allclose(jax.grad(run)(0.3), slope, rtol=1e-6)


def test_kept_frames_are_those_of_the_chain():
    schedule = diffusion.linear_schedule(6)
    denoise = lambda x, t: 0.1 * x
    x_T = jax.random.normal(KEY, (2, 3))
    end, frames = diffusion.ancestral(denoise, schedule)(KEY, x_T, keep=(6, 0, 3))
    assert np.array_equal(frames[0], end) and np.array_equal(frames[1], x_T)
    assert np.array_equal(end, diffusion.ancestral(denoise, schedule)(KEY, x_T))
    assert not np.array_equal(frames[2], end)


def test_a_chain_carries_at_least_float32():
    for dtype, carried in ((jnp.float32, jnp.float32), (jnp.float64, jnp.float64), (jnp.bfloat16, jnp.float32)):
        for make in SAMPLERS:
            assert make(lambda x, t: 0.1 * x)(KEY, jnp.ones((2, 3), dtype)).dtype == carried


def test_clipping_keeps_images_in_range():
    for make in SAMPLERS:
        wild = make(lambda x, t: -5 * x)(KEY, 3 * jnp.ones((4, 3)))
        assert jnp.abs(wild).max() <= 1 + 1e-12


@pytest.mark.parametrize("num_steps", [1, 2])
def test_the_shortest_schedules_are_finite(num_steps):
    schedule = diffusion.linear_schedule(num_steps)
    for sample in (
        diffusion.ancestral(exact(schedule), schedule),
        diffusion.ddim(exact(schedule), schedule, num_steps=1),
    ):
        assert jnp.isfinite(sample(KEY, jnp.ones((2, 3)))).all()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda d, s: diffusion.ancestral(d, s, variance="medium"), "variance"),
        (lambda d, s: diffusion.ancestral(d, s, variance=np.ones(3)), "variance"),
        (lambda d, s: diffusion.ddim(d, s, num_steps=0), "num_steps"),
        (lambda d, s: diffusion.ddim(d, s, num_steps=21), "num_steps"),
        (lambda d, s: diffusion.ddim(d, s, num_steps=5, eta=1.5), "eta"),
        (lambda d, s: diffusion.ddim(d, s, num_steps=5, spacing="even"), "spacing"),
        (lambda d, s: diffusion.ddim(d, s, num_steps=5)(KEY, jnp.ones((1, 2)), keep=(6,)), "keep"),
    ],
)
def test_impossible_samplers_are_refused(call, word):
    with pytest.raises((ValueError, TypeError), match=word):
        call(lambda x, t: x, diffusion.linear_schedule(20))
