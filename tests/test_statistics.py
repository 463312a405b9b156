"""Running statistics among the parameters: which they are, who moves them, and what is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import diffusion, statistics
from genjax.models import ddpm, gan, loss_aware, vqvae
from genjax.nn import adversarial, convnet
from genjax.theory import pixels
from genjax.training import state, steps

KEY = jax.random.key(0)
SHAPE = (8, 8, 1)
BATCH = {"image": jax.random.uniform(KEY, (6, *SHAPE), minval=-1)}


class Judge(nn.Module):
    """A discriminator with a parameter of its own that is called u, beside a spectral layer's."""

    @nn.compact
    def __call__(self, images, labels=None):
        u = self.param("u", nn.initializers.ones, (1,))
        return u * adversarial.Discriminator((4,), spectral=True, name="judge")(images)


class Network(nn.Module):
    """The least that predicts."""

    @nn.compact
    def __call__(self, x, t):
        return nn.Dense(1)(x)


def codes(codebook=None):
    codebook = codebook or vqvae.ema_codebook(16, decay=0.9)
    return vqvae.build(
        convnet.MapEncoder(4, (4,), 0), convnet.MapDecoder(1, (4,), 0), codebook, pixels.gaussian(0.5), SHAPE
    )


def players():
    return gan.build(adversarial.Generator(SHAPE, (4,)), Judge(), gan.hinge, SHAPE, latent_dim=3)


MODELS = {
    "vqvae": (codes, lambda inner: codes().optimizer(inner)),
    "gan": (players, lambda inner: players().optimizer(inner)),
    "ddpm": (
        lambda: loss_aware.build(ddpm.build(Network(), diffusion.linear_schedule(50), SHAPE), 50),
        lambda inner: loss_aware.optimizer(inner),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_no_other_optimizer_trains_a_model_with_statistics(name):
    build, own = MODELS[name]
    model = build()
    params = jax.jit(model.init)(KEY)
    assert isinstance(params, dict) and statistics.running(params)
    for other in (optax.adam(1e-3), optax.chain(optax.clip_by_global_norm(1.0), own(optax.adam(1e-3)))):
        with pytest.raises(ValueError, match="optimizer: .* are running statistics"):
            state.create(params, other)
        started = state.TrainState(jnp.int32(0), params, params, ())
        with pytest.raises(ValueError, match="optimizer: .* are running statistics"):
            steps.gradient_step(model.loss, other)(KEY, started, BATCH)
    if name != "ddpm":
        with pytest.raises(ValueError, match="params: expected .* marked"):
            model.loss(KEY, {**params}, BATCH)
    assert statistics.running(jax.tree.map(jnp.copy, params | {})) == statistics.running(params)

    optimizer = own(optax.sgd(0.01))
    start = state.create(params, optimizer)
    gradients = jax.jit(jax.grad(lambda p: model.loss(KEY, p, BATCH)[0]))(params)
    after, metrics = jax.jit(steps.gradient_step(model.loss, optimizer))(KEY, start, BATCH)
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)}
    rates = {"".join(f"['{part}']" for part in path): rate for path, rate in statistics.running(params).items()}
    real = np.sqrt(sum(float((leaf**2).sum()) for place, leaf in leaves.items() if place not in rates))
    assert np.isclose(metrics["grad_norm"], real, rtol=1e-4)
    for path, leaf in jax.tree_util.tree_leaves_with_path(after.params):
        place = jax.tree_util.keystr(path)
        before = dict((jax.tree_util.keystr(p), x) for p, x in jax.tree_util.tree_leaves_with_path(params))[place]
        assert np.allclose(leaf, before - rates.get(place, 0.01) * leaves[place], atol=1e-6), place


def test_a_parameter_is_known_by_its_mark_and_not_by_its_name():
    model = MODELS["gan"][0]()
    params = jax.jit(model.init)(KEY)
    at = statistics.running(params)
    assert ("discriminator", "u") not in at and ("discriminator", "judge", "dense_0", "u") in at


def test_shares_stay_shares():
    model = codes()
    optimizer = model.optimizer(optax.adam(1e-2))
    run = jax.jit(steps.repeat(steps.gradient_step(model.loss, optimizer), steps.rows(6), 20))
    end = run(KEY, state.create(model.init(KEY), optimizer), BATCH)[0]
    assert np.isclose(end.params["codebook"]["share"].sum(), 1, atol=1e-5)


def test_a_codebook_of_gradients_takes_any_optimizer():
    inner = optax.adam(1e-3)
    assert codes(vqvae.gradient_codebook(16)).optimizer(inner) is inner


def test_a_rate_above_one_is_refused():
    with pytest.raises(ValueError, match="rate of w: expected"):
        statistics.mark({"w": 1.0}, {("w",): 1.5})
