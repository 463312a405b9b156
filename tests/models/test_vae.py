"""The VAE where everything can be computed: linear networks are probabilistic principal component analysis."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from genjax import data
from genjax.models import vae
from genjax.nn import convnet, mlp
from genjax.theory import estimates, gaussian, pixels, variational
from genjax.training import state, steps

KEY = jax.random.key(0)
SHAPE = (2, 3, 1)
STD = 0.2


def linear(latent_dim=2):
    encoder, decoder = mlp.Encoder(2 * latent_dim, hidden=()), mlp.Decoder(SHAPE, hidden=())
    return vae.build(encoder, decoder, pixels.gaussian(STD), SHAPE)


def ppca(orthogonal):
    """Decoder x = W z + b, the exact posterior N(M⁻¹ Wᵀ (x - b), σ² M⁻¹) M = WᵀW + σ² I, and draws."""
    rng = np.random.default_rng(3)
    w = 0.15 * np.linalg.qr(rng.standard_normal((6, 2)))[0] * [1.0, 0.6]
    if not orthogonal:
        w = w @ np.array([[1.0, 0.7], [0.0, 1.0]])
    b = 0.1 * rng.standard_normal(6)
    m = w.T @ w + STD**2 * np.eye(2)
    gain, covariance = np.linalg.solve(m, w.T), STD**2 * np.linalg.inv(m)
    x = np.clip(rng.standard_normal((50, 2)) @ w.T + b + STD * rng.standard_normal((50, 6)), -1, 1)
    log_p = scipy.stats.multivariate_normal(b, w @ w.T + STD**2 * np.eye(6)).logpdf(x)
    return w, b, gain, covariance, x, log_p


def as_params(w, b, gain, log_variance):
    """Networks that compute W z + b, and as q(z|x) the posterior's mean with the given variances."""
    kernel = np.concatenate([2 * gain.T, np.zeros((6, 2))], 1)  # of (x + 1) / 2
    bias = np.concatenate([-gain @ (b + 1), log_variance])
    encoder, decoder = {"kernel": kernel, "bias": bias}, {"kernel": w.T, "bias": b}
    tree = {"encoder": {"Dense_0": encoder}, "decoder": {"Dense_0": decoder}}
    return jax.tree.map(jnp.asarray, tree)


def test_with_the_exact_posterior_every_weight_is_the_evidence():
    w, b, gain, covariance, x, log_p = ppca(orthogonal=True)
    with jax.enable_x64(True):
        params = as_params(w, b, gain, np.log(np.diag(covariance)))
        batch = {"image": jnp.asarray(x.reshape(-1, *SHAPE))}
        weights = jax.jit(lambda key: linear().log_weights(key, params, batch, 20))(KEY)
        assert np.allclose(weights, log_p, atol=1e-9)
        exact = jax.jit(lambda batch: vae.log_evidence(linear(), params, batch, num_points=120, width=7.0))(batch)
        assert np.allclose(exact, log_p, atol=1e-6)
        loss, metrics = linear().loss(KEY, params, batch)
        assert np.isclose(loss, metrics["distortion"] + metrics["rate"], rtol=1e-12)


def test_the_gap_of_the_elbo_is_the_divergence_to_the_posterior():
    """A diagonal q cannot be the correlated posterior; what it lacks is D(q‖p(z|x)), by the closed form."""
    w, b, gain, covariance, x, log_p = ppca(orthogonal=False)
    with jax.enable_x64(True):
        params = as_params(w, b, gain, np.log(np.diag(covariance)) - 0.3)
        batch = {"image": jnp.asarray(x.reshape(-1, *SHAPE))}
        weights = jax.jit(lambda key: linear().log_weights(key, params, batch, 4000))(KEY)
        elbo = estimates.estimate(weights)
        q = linear().encode(params, batch["image"])
        posterior = gaussian.from_covariance(jnp.asarray((x - b) @ gain.T), jnp.asarray(covariance)[None])
        gap = gaussian.kl(q, posterior)
        assert gap.min() > 0.05
        assert np.abs((elbo.mean - (log_p - gap)) / elbo.standard_error).max() < 4.5
        loss = jax.jit(jax.vmap(lambda key: linear().loss(key, params, batch)[0]))(jax.random.split(KEY, 400))
        z = (loss.mean() + np.mean(log_p - np.asarray(gap))) / (loss.std() / 20)
        assert abs(z) < 4  # the KL in closed form estimates the same bound


def test_the_bound_rises_with_k_to_the_evidence():
    w, b, gain, covariance, x, log_p = ppca(orthogonal=False)
    with jax.enable_x64(True):
        params = as_params(w, b, gain, np.log(np.diag(covariance)) + 0.8)
        batch = {"image": jnp.asarray(x.reshape(-1, *SHAPE))}
        weights = jax.jit(lambda key: linear().log_weights(key, params, batch, 3200))(KEY)
        bounds = []
        for k in (1, 5, 50):
            each = variational.importance_weighted_bound(weights.reshape(k, -1, len(x)))  # [3200/k b]
            bounds.append(float((each.mean(0) - log_p).mean()))
        assert bounds[0] < bounds[1] - 0.02 < bounds[2] - 0.02 and -0.02 < bounds[2] < 0.005


def test_trained_it_spans_the_principal_components_and_reaches_their_likelihood():
    """Tipping & Bishop 1999: the maximum of pPCA's likelihood has W in the span of the leading eigenvectors."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    x = rng.standard_normal((400, 6)) * [0.35, 0.28, *[STD] * 4] @ basis.T
    x = np.clip(x - x.mean(0), -1, 1)
    model, optimizer = linear(), optax.adam(optax.cosine_decay_schedule(0.02, 12_000))
    run = jax.jit(steps.repeat(steps.gradient_step(model.loss, optimizer), steps.rows(400), 12_000))
    end, _ = run(
        KEY, state.create(model.init(KEY), optimizer), {"image": jnp.asarray(x.reshape(-1, *SHAPE), jnp.float32)}
    )
    w = np.asarray(end.params["decoder"]["Dense_0"]["kernel"], float).T
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    leading = vectors[:, np.argsort(-values)[:2]]
    cosines = np.linalg.svd(leading.T @ np.linalg.qr(w)[0], compute_uv=False)
    assert np.arccos(np.clip(cosines, -1, 1)).max() < 0.05
    best = leading * np.sqrt(np.sort(values)[:-3:-1] - STD**2)
    law = lambda w: scipy.stats.multivariate_normal(x.mean(0), w @ w.T + STD**2 * np.eye(6)).logpdf(x).mean()
    assert law(best) - 2e-3 < law(w) <= law(best) + 1e-9


@functools.cache
def trained():
    """A little VAE of black and white digits."""
    model = vae.build(mlp.Encoder(4, (32,)), mlp.Decoder((8, 8, 1), (32,)), pixels.bernoulli(), (8, 8, 1))
    images = data.binarize(KEY, data.scale(data.digits().train["image"]))
    optimizer = optax.adam(3e-3)
    run = jax.jit(steps.repeat(steps.gradient_step(model.loss, optimizer), steps.rows(64), 400))
    end, _ = run(KEY, state.create(model.init(KEY), optimizer), {"image": images})
    return model, end.params, {"image": images[:16]}


def test_no_bound_is_above_the_quadrature():
    model, params, batch = trained()
    exact = jax.jit(functools.partial(vae.log_evidence, model))(params, batch)
    finer = jax.jit(functools.partial(vae.log_evidence, model, num_points=120, width=6.0))(params, batch)
    assert np.abs(exact - finer).max() < 0.01
    weights = jax.jit(lambda key: model.log_weights(key, params, batch, 2000))(KEY)
    bound = estimates.estimate(weights)
    assert np.all(bound.mean <= exact + 4 * bound.standard_error) and (exact - bound.mean).mean() > 0.05
    tight = variational.importance_weighted_bound(weights)
    assert abs(np.mean(tight - exact)) < 0.05 and np.all(tight >= bound.mean)


def test_the_quadrature_finds_posteriors_however_narrow():
    """Posteriors of deviations from 1 to 1e-3, along two directions, against the closed form of the linear model.

    log N(x; 0, W Wᵀ + σ² I); the posterior's deviations are (1 + w_i² / σ²)^-½ for orthogonal columns of length w_i.
    """
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.standard_normal((6, 2)))[0]

    @jax.jit
    def evidence(std, params, images):
        model = vae.build(mlp.Encoder(4, ()), mlp.Decoder(SHAPE, ()), pixels.gaussian(std), SHAPE)
        return vae.log_evidence(model, params, {"image": images}, num_points=48, width=7.0)

    narrowest = []
    with jax.enable_x64(True):
        for lengths, std in (([1e-3, 1e-3], 0.2), ([0.5, 0.5], 0.2), ([0.5, 0.5], 5e-4), ([0.3, 3e-3], 5e-3)):
            w = directions * lengths @ np.array([[0.6, -0.8], [0.8, 0.6]])
            x = np.clip(rng.standard_normal((3, 2)) @ w.T * 0.5 + std * rng.standard_normal((3, 6)), -1, 1)
            params = as_params(w, np.zeros(6), np.zeros((2, 6)), np.zeros(2))
            log_evidence = evidence(std, params, jnp.asarray(x.reshape(-1, *SHAPE)))
            exact = scipy.stats.multivariate_normal(np.zeros(6), w @ w.T + std**2 * np.eye(6)).logpdf(x)
            assert np.abs(log_evidence - exact).max() < 1e-5, (lengths, std)
            narrowest.append((1 + (max(lengths) / std) ** 2) ** -0.5)
    assert max(narrowest) > 0.99 and min(narrowest) <= 1e-3


def test_an_integral_that_does_not_stand_still_is_not_given():
    model, params, batch = trained()
    evidence = functools.partial(vae.log_evidence, model, num_points=9, tolerance=1e-12)
    with pytest.raises(ValueError, match="num_points: 9 do not resolve the posterior of image 0"):
        evidence(params, {"image": batch["image"][:2]})
    assert np.isnan(jax.jit(evidence)(params, {"image": batch["image"][:2]})).any()


def test_image_i_is_drawn_from_its_own_key():
    model, params, _ = trained()
    sample, loss = jax.jit(model.sample, static_argnums=2), jax.jit(model.loss)
    whole = sample(KEY, params, 6)
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(6))
    assert np.allclose(whole[4:], sample(keys[4:], params, 2), atol=1e-6)
    batch = {"image": jnp.asarray(trained()[2]["image"][:6])}
    alone = [loss(keys[i : i + 1], params, {"image": batch["image"][i : i + 1]})[0] for i in range(6)]
    assert np.isclose(loss(KEY, params, batch)[0], np.mean(alone), rtol=1e-5)


def test_beta_and_free_bits():
    q = gaussian.DiagGaussian(jnp.array([[0.0, 2.0, 0.1]]), jnp.array([[0.0, -1.0, 0.05]]))
    each = [
        float(gaussian.kl_standard(gaussian.DiagGaussian(m[None], s[None])))
        for m, s in zip(*map(jnp.ravel, q), strict=True)
    ]
    assert np.isclose(vae.rate(q)[0], sum(each), rtol=1e-5)
    assert np.isclose(vae.rate(q, 0.5)[0], sum(max(value, 0.5) for value in each), rtol=1e-5)

    model, params, batch = trained()
    networks = (mlp.Encoder(4, (32,)), mlp.Decoder((8, 8, 1), (32,)), pixels.bernoulli(), (8, 8, 1))
    loss, metrics = jax.jit(vae.build(*networks, beta=3.0).loss)(KEY, params, batch)
    assert np.isclose(loss, metrics["distortion"] + 3 * metrics["rate"], rtol=1e-6)
    scheduled, _ = jax.jit(model.loss)(KEY, params, batch | {"beta": jnp.full(len(batch["image"]), 3.0)})
    assert np.isclose(scheduled, loss, rtol=1e-6)


def test_warm_up_follows_the_step():
    draw = steps.with_schedule(steps.rows(4), "beta", optax.linear_schedule(0.0, 2.0, 10))
    at = lambda i: draw(KEY, state.TrainState(jnp.int32(i), (), (), ()), {"image": jnp.zeros((9, 1))})
    assert [float(at(i)["beta"][0]) for i in (0, 5, 10, 50)] == [0, 1, 2, 2] and at(3)["beta"].shape == (4,)


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_a_conditional_model_depends_on_its_label(network):
    shape = (8, 8, 1)
    parts = (mlp.Encoder(4, (16,), 10), mlp.Decoder(shape, (16,), 10))
    if network == "conv":
        parts = (convnet.Encoder(4, (8,), (16,), 10), convnet.Decoder(shape, (8,), (16,), 10))
    model = vae.build(*parts, pixels.bernoulli(), shape)
    params, sample = jax.jit(model.init)(KEY), jax.jit(model.sample, static_argnums=2)
    labels = jnp.arange(3)
    assert sample(KEY, params, 3, labels).shape == (3, *shape)
    assert not np.allclose(sample(KEY, params, 3, labels), sample(KEY, params, 3, labels + 1))
    with pytest.raises(ValueError, match="batch: a conditional model needs label"):
        model.loss(KEY, params, {"image": jnp.zeros((2, *shape))})
    with pytest.raises(ValueError, match="labels: expected one of 10 classes for each example"):
        model.sample(KEY, params, 3)
    images, z = jnp.zeros((2, *shape)), jnp.zeros((2, 2))
    for call in (
        lambda labels: model.sample(KEY, params, 2, labels),
        lambda labels: model.encode(params, images, labels),
        lambda labels: model.decode(params, z, labels),
        lambda labels: model.loss(KEY, params, {"image": images, "label": labels}),
        lambda labels: model.log_joint(params, {"image": images, "label": labels}, z),
        lambda labels: model.log_weights(KEY, params, {"image": images, "label": labels}, 1),
    ):
        with pytest.raises(ValueError, match="expected whole numbers from 0 to 9, got 10 at 1"):
            call([0, 10])
        with pytest.raises(ValueError, match="expected whole numbers from 0 to 9, got -1 at 0"):
            call(np.array([-1, 3]))
        with pytest.raises(ValueError, match="expected one for each of 2 images"):
            call(jnp.zeros(3, int))


def test_encoder_and_decoder_equal_pytorchs():
    torch = pytest.importorskip("torch")
    shape = (28, 28, 1)
    model = vae.build(mlp.Encoder(4), mlp.Decoder(shape), pixels.bernoulli(), shape)
    params, images = model.init(KEY), jax.random.uniform(KEY, (3, *shape), minval=-1)
    tensor = lambda array: torch.tensor(np.array(array))
    dense = lambda layer, x: torch.nn.functional.linear(x, tensor(layer["kernel"]).T, tensor(layer["bias"]))
    network = lambda p, x: dense(p["Dense_1"], dense(p["Dense_0"], x).relu())
    mean, log_variance = network(params["encoder"], tensor((images + 1) / 2).flatten(1)).chunk(2, 1)
    q = model.encode(params, images)
    assert np.allclose(q.mean, mean, atol=1e-5) and np.allclose(2 * q.log_std, log_variance, atol=1e-5)
    again = network(params["decoder"], mean).sigmoid().reshape(3, *shape)
    assert np.allclose((model.decode(params, q.mean) + 1) / 2, again, atol=1e-5)
    batch = {"image": images}
    z = tensor(q.mean)
    expected = -torch.nn.functional.binary_cross_entropy_with_logits(
        network(params["decoder"], z), tensor((images + 1) / 2).flatten(1), reduction="none"
    ).sum(1) + torch.distributions.Normal(0, 1).log_prob(z).sum(1)
    assert np.allclose(model.log_joint(params, batch, q.mean), expected, rtol=1e-5)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"decoder: expected outputs of shape \(8, 8, 2\), got \(8, 8, 1\)"):
        vae.build(mlp.Encoder(4), mlp.Decoder((8, 8, 1)), pixels.discretized_logistic(), (8, 8, 1))
    with pytest.raises(ValueError, match="at least 2 features"):
        vae.build(mlp.Encoder(0), mlp.Decoder((8, 8, 1)), pixels.bernoulli(), (8, 8, 1))
    model, params, batch = trained()
    with pytest.raises(ValueError, match="num_samples: expected at least 1, got 0"):
        model.log_weights(KEY, params, batch, 0)
    with pytest.raises(ValueError, match=r"pixels in \[-1, 1\], got 0 to 255"):
        model.loss(KEY, params, {"image": 127.5 * (batch["image"] + 1)})
    for wrong, message in (
        (batch["image"].astype(jnp.uint8), "got uint8; genjax.data.scale"),
        (jnp.full((2, 8, 8, 1), jnp.inf), "expected finite numbers, got inf"),
        (batch["image"][:0], "expected at least 1"),
        (batch["image"][:, :4], r"expected images of shape \[b, 8, 8, 1\]"),
    ):
        for call in (
            lambda images: model.loss(KEY, params, {"image": images}),
            lambda images: model.encode(params, images),
        ):
            with pytest.raises(ValueError, match=message):
                call(wrong)
    with pytest.raises(ValueError, match="num: expected at least 1, got 0"):
        model.sample(KEY, params, 0)
    with pytest.raises(ValueError, match=r"z: expected vectors of shape \[b, 2\]"):
        model.decode(params, jnp.zeros((3, 3)))
    for name in ("beta", "free_bits"):
        for value in (-1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=f"{name}: expected finite numbers of at least 0"):
                vae.build(mlp.Encoder(4), mlp.Decoder((8, 8, 1)), pixels.bernoulli(), (8, 8, 1), **{name: value})
    three = linear(3)
    with pytest.raises(ValueError, match="expected two latents, for a grid over them; got 3"):
        vae.log_evidence(three, three.init(KEY), {"image": jnp.zeros((1, *SHAPE))})
