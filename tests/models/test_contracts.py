"""What a model asks of its networks, and what it says of its parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import diffusion
from genjax.models import contracts, ddpm, edm, loss_aware, vdm

SHAPE = (4, 4, 1)
BUILDS = {
    "ddpm": lambda network: ddpm.build(network, diffusion.cosine_schedule(20), SHAPE),
    "edm": lambda network: edm.build(network, SHAPE),
    "vdm": lambda network: vdm.build(network, SHAPE),
}


class Network(nn.Module):
    """One layer between two of a kind."""

    layer: nn.Module | None = None

    @nn.compact
    def __call__(self, x, t):
        return nn.Dense(1)(x if self.layer is None else self.layer(x))


@pytest.mark.parametrize("name", BUILDS)
def test_a_network_that_keeps_or_draws_more_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match="network: expected params as the only variables, got batch_stats as well"):
        BUILDS[name](Network(nn.BatchNorm(use_running_average=True)))
    with pytest.raises(ValueError, match="network: expected a network that draws nothing by itself.*genjax.nn.dropout"):
        BUILDS[name](Network(nn.Dropout(0.5, deterministic=False)))


@pytest.mark.parametrize("name", BUILDS)
def test_the_optimizer_of_a_model_without_running_statistics_is_the_one_given(name):
    adam = optax.adam(1e-3)
    assert BUILDS[name](Network()).optimizer(adam) is adam


def test_the_optimizer_of_loss_aware_times_moves_the_table_by_its_own_rate():
    model = loss_aware.build(BUILDS["ddpm"](Network()), 20)
    params = model.init(jax.random.key(0))
    optimizer = model.optimizer(optax.sgd(0.0))
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    assert np.allclose(updates["squares"], -0.01) and not np.any(updates["network"]["Dense_0"]["kernel"])


def test_labels_are_asked_for_where_there_are_classes():
    batch = {"image": jnp.zeros((2, *SHAPE)), "label": jnp.array([0, 2])}
    assert contracts.labels(batch, 0) is None and contracts.trial_labels(0) is None
    assert np.array_equal(contracts.labels(batch, 3), [0, 2]) and contracts.trial_labels(3).shape == (1,)
    with pytest.raises(ValueError, match="label: expected whole numbers from 0 to 1, got 2 at 1"):
        contracts.labels(batch, 2)
    with pytest.raises(ValueError, match="needs label"):
        contracts.labels({"image": batch["image"]}, 3)
