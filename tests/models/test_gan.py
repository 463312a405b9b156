"""GANs: the game of Goodfellow et al. 2014 in closed form, and two players who do not touch each other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.stats

from genjax.models import gan, gan_losses
from genjax.nn import adversarial, spectral
from genjax.theory import information
from genjax.training import state, steps

KEY = jax.random.key(0)
SHAPE = (8, 8, 1)


def build(game=gan.non_saturating, **more):
    spectrum = more.pop("spectral", False)
    generator = adversarial.Generator(SHAPE, (16,), more.pop("channels", ()), more.get("classes", 0))
    judge = adversarial.Discriminator((16,), (), more.pop("classes", 0), spectrum)
    return gan.build(generator, judge, game, SHAPE, latent_dim=4, **more)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_discriminator_of_tables_makes_the_value_a_jensen_shannon_divergence(seed):
    """Theorem 1; D* found by Newton's method on V, for each outcome by itself."""
    p, q = np.random.default_rng(seed).dirichlet(np.ones(6), 2)
    logit = np.zeros(6)
    for _ in range(50):
        d = 1 / (1 + np.exp(-logit))
        logit += (p * (1 - d) - q * d) / ((p + q) * d * (1 - d))
    d = 1 / (1 + np.exp(-logit))
    assert np.allclose(d, gan_losses.optimal_discriminator(p, q), atol=1e-10)
    value = (p * np.log(d) + q * np.log1p(-d)).sum()
    assert np.isclose(value, -np.log(4) + 2 * float(information.jensen_shannon(p, q)), atol=1e-6)


def test_the_value_of_two_gaussians_is_that_of_quadrature():
    real, fake = scipy.stats.norm(0, 1).pdf, scipy.stats.norm(1, 1).pdf
    best = lambda x: gan_losses.optimal_discriminator(np.array([real(x)]), np.array([fake(x)]))[0]
    value = scipy.integrate.quad(lambda x: real(x) * np.log(best(x)) + fake(x) * np.log(1 - best(x)), -12, 13)[0]
    assert abs(value - -1.163451396750) < 1e-9
    x = jax.random.normal(KEY, (200_000,))
    logit = lambda x: 0.5 - x  # log p(x) / q(x)
    assert abs(gan_losses.value(logit(x), logit(x + 1)) - value) < 4e-3


def test_games_are_those_of_their_papers():
    real, fake = jnp.array([0.3, -2.0, 30.0]), jnp.array([1.2, -0.4, -30.0])
    d = lambda logit: 1 / (1 + np.exp(-np.asarray(logit, float)))
    assert np.allclose(gan.minimax.discriminator(real, fake), -np.log(d(real)) - np.log1p(-d(fake)), atol=1e-5)
    assert np.allclose(gan.minimax.generator(fake[:2]), np.log1p(-d(fake[:2])), atol=1e-6)
    assert np.allclose(gan.non_saturating.generator(fake), -np.log(d(fake)), rtol=1e-5)
    assert np.allclose(gan.hinge.discriminator(real, fake), [0.7 + 2.2, 3 + 0.6, 0.0], atol=1e-6)
    assert np.allclose(gan.least_squares.discriminator(real, fake)[0], (0.49 + 1.44) / 2)
    slope = lambda game, x: float(jax.grad(lambda x: game.generator(x[None])[0])(jnp.float32(x)))
    for x in (-20.0, -1.0, 3.0):
        finite = (-np.log(d(x + 1e-4)) + np.log(d(x - 1e-4))) / 2e-4
        assert np.isclose(slope(gan.non_saturating, x), finite, atol=1e-4)
    assert abs(slope(gan.minimax, -20.0)) < 1e-8 and abs(slope(gan.non_saturating, -20.0)) > 0.99  # saturates; does not
    finite = [np.isfinite(slope(game, x)) for game in gan.LOSSES.values() for x in (-1e4, 0.0, 1e4)]
    assert all(finite)


def test_penalties_of_a_linear_critic_are_known():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 2)), jnp.float32)
    critic = lambda x: jnp.sum(w * x, (1, 2, 3))
    images = jax.random.normal(KEY, (5, 3, 4, 2))
    norm = float(jnp.linalg.norm(w.ravel()))
    assert np.allclose(gan_losses.gradient_penalty(critic, images), (norm - 1) ** 2, rtol=1e-5)
    assert np.allclose(gan_losses.r1(critic, images), norm**2 / 2, rtol=1e-5)
    unit = lambda x: critic(x) / norm
    assert np.allclose(gan_losses.gradient_penalty(unit, images), 0, atol=1e-6)


@pytest.mark.parametrize("game", gan.LOSSES)
def test_each_gradient_is_that_of_the_players_own_loss(game):
    """Written out: two losses, each differentiated in its own player's parameters alone."""
    model = build(gan.LOSSES[game], gp_weight=2.0, r1_weight=0.5)
    params = jax.jit(model.init)(KEY)
    images = jax.random.uniform(KEY, (6, *SHAPE), minval=-1)
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(6))
    streams = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
    noise = lambda i: jax.vmap(lambda key: jax.random.normal(key, (4,)))(streams[:, i])

    def judge(d, g):
        both = {"generator": g, "discriminator": d}
        fake = model.generate(both, noise(0))
        share = jax.vmap(lambda key: jax.random.uniform(key, (1, 1, 1)))(streams[:, 1])
        critic = lambda x: model.discriminate(both, x)
        game_loss = gan.LOSSES[game].discriminator(critic(images), critic(fake))
        slopes = gan_losses.gradient_penalty(critic, share * images + (1 - share) * fake)
        return jnp.mean(game_loss + 2.0 * slopes + 0.5 * gan_losses.r1(critic, images))

    def make(g, d):
        both = {"generator": g, "discriminator": d}
        return jnp.mean(gan.LOSSES[game].generator(model.discriminate(both, model.generate(both, noise(2)))))

    @jax.jit
    def compare(params):
        d_grad = jax.grad(judge)(params["discriminator"], params["generator"])
        g_grad = jax.grad(make)(params["generator"], params["discriminator"])
        both = jax.grad(lambda p: model.loss(KEY, p, {"image": images})[0])(params)
        return both, {"discriminator": d_grad, "generator": g_grad}

    gradient, expected = compare(params)
    for player in expected:
        pairs = list(zip(*map(jax.tree.leaves, (gradient[player], expected[player])), strict=True))
        assert all(np.allclose(a, b, atol=1e-6) for a, b in pairs) and max(np.abs(b).max() for _, b in pairs) > 1e-3


def test_a_players_turn_leaves_the_other_as_it_was():
    """Three steps of the discriminator for one of the generator: bit for bit, its optimizer's state included."""
    model = build(n_critic=3)
    optimizer = model.optimizer(optax.adam(1e-3))
    step = jax.jit(steps.gradient_step(model.loss, optimizer))
    now = state.create(jax.jit(model.init)(KEY), optimizer)
    images = {"image": jax.random.uniform(KEY, (6, *SHAPE), minval=-1)}
    same = lambda a, b: all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))
    moments = lambda s, player: s.opt_state.inner_states[player].inner_state
    turns = []
    for i in range(6):
        new = step(jax.random.fold_in(KEY, i), now, images)[0]
        turns.append(not same(now.params["generator"], new.params["generator"]))
        resting = moments(now, "generator").inner_state, moments(new, "generator").inner_state
        assert same(*resting) == (not turns[-1])
        assert not same(now.params["discriminator"], new.params["discriminator"])
        now = new
    assert turns == [False, False, True, False, False, True]
    frozen = build().optimizer(optax.adam(1e-3), optax.set_to_zero())
    new = jax.jit(steps.gradient_step(model.loss, frozen))(KEY, state.create(now.params, frozen), images)[0]
    assert same(new.params["discriminator"], now.params["discriminator"])


def test_the_running_vector_is_power_iteration_and_ends_at_the_largest_singular_value():
    model = build(spectral=True)
    optimizer = model.optimizer(optax.set_to_zero())
    step = jax.jit(steps.gradient_step(model.loss, optimizer))
    now = state.create(jax.jit(model.init)(KEY), optimizer)
    images = {"image": jax.random.uniform(KEY, (4, *SHAPE), minval=-1)}
    kernel = np.asarray(now.params["discriminator"]["dense_0"]["kernel"], float)
    u = np.asarray(now.params["discriminator"]["dense_0"]["u"], float)
    for _ in range(60):
        now = step(KEY, now, images)[0]
        v = kernel @ u
        u = kernel.T @ (v / np.linalg.norm(v))
        u /= np.linalg.norm(u)
        assert np.allclose(now.params["discriminator"]["dense_0"]["u"], u, atol=1e-5)
    layer = spectral.Dense(16)
    normed = layer.apply({"params": now.params["discriminator"]["dense_0"]}, jnp.eye(64), mutable=["aux_loss"])[0]
    bias = now.params["discriminator"]["dense_0"]["bias"]
    assert abs(np.linalg.norm(np.asarray(normed - bias, float), 2) - 1) < 2e-3


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30, 1e38])
def test_a_kernel_of_any_size_has_norm_one_or_none(scale):
    kernel = scale * np.diag([3.0, 2.0, 1.0, 0.5]).astype(np.float32)
    layer = spectral.Dense(4)
    params = layer.init(KEY, jnp.eye(4))["params"] | {"kernel": jnp.asarray(kernel)}
    for _ in range(30):
        _, u = spectral.power_iteration(jnp.asarray(kernel / np.float32(max(scale, 1e-30))), params["u"])
        params["u"] = u
    out, pullback = jax.vjp(lambda p: layer.apply({"params": p}, jnp.eye(4)), params)
    assert np.allclose(out, np.diag([1, 2 / 3, 1 / 3, 1 / 6]) * (scale > 0), atol=1e-3)
    assert np.isfinite(pullback(jnp.ones_like(out))[0]["kernel"]).all() and np.isclose(np.linalg.norm(params["u"]), 1)


@pytest.mark.parametrize("channels", [(), (8, 8)])
def test_an_image_depends_on_its_key_and_label_only(channels):
    model = build(channels=channels, classes=3)
    params, labels = jax.jit(model.init)(KEY), jnp.arange(6) % 3
    sample = jax.jit(model.sample, static_argnums=2)
    whole = sample(KEY, params, 6, labels)
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(2, 5))
    assert np.allclose(whole[2:5], sample(keys, params, 3, labels[2:5]), atol=1e-6)
    assert np.abs(whole).max() <= 1 and not np.allclose(whole[0], sample(KEY, params, 6, labels + 1)[0], atol=1e-3)


JUDGE = adversarial.Discriminator()
PLAIN = build()
PLAYERS = jax.jit(PLAIN.init)(KEY)


def test_the_best_answer_outside_of_both_supports_is_as_good_as_any():
    p, q = jnp.array([0.0, 3e38, 0.0, 4e-38]), jnp.array([0.0, 3e38, 1.0, 12e-38])
    assert np.allclose(gan_losses.optimal_discriminator(p, q), [0.5, 0.5, 0, 0.25], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build(n_critic=0), "n_critic: expected at least 1 step"),
        (lambda: gan.build(adversarial.Generator(SHAPE), JUDGE, gan.hinge, SHAPE, latent_dim=0), "latent_dim"),
        (lambda: gan.build(adversarial.Generator((4, 4, 1)), JUDGE, gan.hinge, SHAPE),
         r"generator: expected images of shape \(8, 8, 1\), got \(4, 4, 1\)"),
        (lambda: gan.build(adversarial.Generator((6, 6, 1), (8,), (8, 8)), JUDGE, gan.hinge, (6, 6, 1)),
         r"\(6, 6\) is not divisible by 4; use fewer channels, or images of \(8, 8\)"),
        (lambda: gan.build(adversarial.Generator(SHAPE, num_classes=3), JUDGE, gan.hinge, SHAPE),
         "discriminator: expected 3 classes"),
        (lambda: build(gp_weight=-1.0), "gp_weight: expected finite numbers of at least 0"),
        (lambda: build(r1_weight=float("nan")), "r1_weight: expected finite numbers of at least 0"),
        (lambda: PLAIN.sample(KEY, PLAYERS, 0), "num: expected at least 1, got 0"),
        (lambda: PLAIN.generate(PLAYERS, jnp.zeros((2, 5))), r"z: expected vectors of shape \[b, 4\]"),
        (lambda: PLAIN.discriminate(PLAYERS, jnp.zeros((2, *SHAPE), jnp.uint8)), "got uint8; genjax.data.scale"),
        (lambda: PLAIN.loss(KEY, PLAYERS, {"image": jnp.full((2, *SHAPE), jnp.nan)}), "expected finite numbers"),
        (lambda: PLAIN.loss(KEY, PLAYERS, {"image": jnp.zeros((0, *SHAPE))}), "expected at least 1"),
        (lambda: build(classes=2).sample(KEY, {}, 1, [2]), "labels: expected whole numbers from 0 to 1, got 2"),
        (lambda: gan_losses.optimal_discriminator(jnp.array([-0.1]), jnp.array([0.2])), "p: expected finite numbers"),
        (lambda: build(classes=2).loss(KEY, build(classes=2).init(KEY), {"image": jnp.zeros((2, *SHAPE))}),
         "batch: a conditional model needs label"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
