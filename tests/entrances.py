"""What each entrance of the library does with bad numbers: ``python tests/entrances.py`` writes ``docs/entrances.md``.

An entrance is a public function of ``genjax.theory``, ``metrics``, ``diffusion`` or ``models``, or a field of a model
or a sampler that it builds. Each is called with good arguments, and then with each of them spoiled: not a number,
infinite, empty, integers, unsigned bytes, negative, all equal, huge, tiny. What came is one word:

value    finite numbers; of integers and bytes the same as of floating-point numbers of their size
refused  a ValueError or TypeError that says something
nan      the input was not a number, or too large for float32, and the output says so
inf      an infinity, which the function documents or which is the right value
FAULT    anything else: finite numbers of what is none, a crash, other numbers of integers

The library runs here as users have it, without the tests' type checks.
"""

import argparse
import functools
import importlib
import inspect
import pathlib
import pkgutil
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genjax import diffusion as D
from genjax.diffusion import editing, edm, grids, guidance, objectives, predictions, process, samplers, schedules
from genjax.diffusion import likelihood as bounds
from genjax.envs import ENVIRONMENTS
from genjax.metrics import classes, distances, neighbours, roc
from genjax.models import (
    actor_critic,
    autoencoder,
    autoregressive,
    ddpm,
    gan_losses,
    loss_aware,
    policy_gradient,
    vae,
    vqvae,
)
from genjax.models import edm as edm_model
from genjax.models import vdm as vdm_model
from genjax.nn import mlp, pixelcnn, unet
from genjax.theory import (
    bayes,
    estimates,
    exponential_normal,
    families,
    gaussian,
    information,
    likelihood,
    markov,
    mcmc,
    mdp,
    pixels,
    simplex,
)

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "entrances.md"
KEY = jax.random.key(0)


class Entrance(NamedTuple):
    """A function with good arguments.

    Attributes:
      function: of keyword arguments.
      arguments: good ones.
    """

    function: Callable[..., Any]
    arguments: dict[str, Any]


ENTRANCES: dict[str, Entrance] = {}
APART = {
    "theory.huffman": "symbols and bytes: tests/theory/test_huffman.py",
    "theory.scans": "the engine of markov.simulate: tests/theory/test_markov.py",
    "theory.elimination": "what markov.stationary calls: tests/theory/test_markov.py",
    "theory.maximum": "takes functions: tests/theory/test_likelihood.py",
    "theory.quadrature": "takes functions: tests/theory/test_quadrature.py",
    "theory.series": "the arithmetic of information: tests/theory/test_information.py",
    "theory.tails": "the arithmetic of gaussian and families: tests/theory/test_gaussian.py",
    "theory.transitions": "what markov calls: tests/theory/test_markov.py",
    "theory.simplex.distribution": "the check itself",
    "theory.simplex.pair": "the check itself",
    "theory.simplex.same_outcomes": "the check itself",
    "theory.simplex.check_underflow": "the check itself",
    "theory.simplex.check_logits": "the check itself",
    "theory.simplex.as_floating": "the check itself",
    "theory.simplex.sum_tolerance": "the check itself",
    "theory.alphabets": "what huffman calls: tests/theory/test_huffman.py",
    "theory.levels.exp": "the arithmetic of pixels",
    "theory.levels.mean_level": "the arithmetic of pixels: tests/theory/test_pixels.py",
    "theory.levels.nearest": "the arithmetic of pixels",
    "theory.levels.check_num_levels": "the check itself",
    "metrics.distances.point_sets": "the check itself",
    "metrics.distances.power_of_two": "inside the distances",
    "theory.markov.simulate": "takes functions: tests/theory/test_markov.py",
    "theory.variational": "takes functions: tests/theory/test_variational.py",
    "theory.mcmc.metropolis_hastings": "takes functions: tests/theory/test_mcmc.py",
    "diffusion.chains": "takes functions: tests/diffusion/test_samplers.py",
    "diffusion.grids.check": "the check itself",
    "diffusion.grids.check_start": "the check itself",
    "diffusion.grids.is_steep": "what solvers ask of a grid",
    "diffusion.grids.places": "what solvers take of a grid",
    "diffusion.samplers.prepare": "inside the samplers",
    "diffusion.samplers.require_prediction": "inside the samplers",
    "diffusion.samplers.evaluate_denoiser": "inside the samplers",
    "diffusion.objectives.hybrid": "takes functions: tests/diffusion/test_objectives.py",
    "models.ddpm.hide_labels": "inside the loss: tests/models/test_ddpm.py",
    "models.edm.draw_sigma": "inside the loss: tests/models/test_edm.py",
    "models.loss_aware.probabilities": "inside the loss: tests/models/test_ddpm.py",
    "models.loss_aware.optimizer": "takes functions: tests/models/test_ddpm.py",
    "models.vdm_losses": "inside the loss: tests/models/test_vdm.py",
    "models.contracts": "asks about networks: the tests of every model",
    "models.gan_losses.penalty": "takes functions: tests/models/test_gan.py",
    "models.autoregressive.generate": "takes networks: tests/models/test_autoregressive.py",
    "models.vae.elbo_terms": "inside the loss: tests/models/test_vae.py",
    "models.vae.log_prior": "inside log_joint: tests/models/test_vae.py",
    "models.codebooks.codebook_loss": "inside the loss: tests/models/test_vqvae.py",
    "models.codebooks.batch_means": "inside the loss: tests/models/test_vqvae.py",
    "models.codebooks.smoothed_means": "inside a codebook: tests/models/test_vqvae.py",
    "models.codebooks.split_dead_codes": "inside the loss: tests/models/test_vqvae.py",
    "models.vqvae.commitment_loss": "inside the loss: tests/models/test_vqvae.py",
    "models.vqvae.perplexity": "inside the loss: tests/models/test_vqvae.py",
    "models.policy_gradient.probability_ratio": "inside the loss: tests/models/test_actor_critic.py",
    "models.gan.build": "takes networks: tests/models/test_gan.py",
    "models.vqvae.build": "takes networks: tests/models/test_vqvae.py",
    "models.policy_gradient.policy_loss": "inside the loss: tests/models/test_actor_critic.py",
    "models.policy_gradient.value_loss": "inside the loss: tests/models/test_actor_critic.py",
    "models.policy_gradient.standardise": "inside a batch: tests/models/test_actor_critic.py",
    "models.actor_critic.learning_batch": "takes functions: tests/models/test_actor_critic.py",
    "models.rollouts": "takes functions: tests/models/test_actor_critic.py",
}
"""Modules and functions that take no numbers, and where they are tested."""

IRRELEVANT = {
    ("theory.gaussian.entropy", "mean"),  # the entropy does not depend on it
    ("theory.gaussian.marginal", "mean"),  # its spoiled entry is not asked for
}
"""Arguments, or entries of them, that the result does not depend on, whatever they are."""
STILL = {("theory.mcmc.effective_sample_size", "chain", "equal")}
"""Where a result that is no number says, as documented, that there is none: a chain that never moves."""


def add(name: str, function: Callable[..., Any], **arguments: Any) -> None:
    """Enter a function under its name in the library."""
    ENTRANCES[name] = Entrance(function, arguments)


def f32(*values: Any) -> np.ndarray:
    """A good array."""
    return np.asarray(values if len(values) > 1 else values[0], np.float32)


P, Q = f32(0.2, 0.3, 0.5), f32(0.5, 0.25, 0.25)
TABLE = f32([[0.1, 0.2], [0.3, 0.4]])
CUBE = f32([[[0.1, 0.1], [0.05, 0.15]], [[0.2, 0.1], [0.1, 0.2]]])
CHAIN = f32([[0.9, 0.1], [0.3, 0.7]])
POINTS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
OTHERS = np.random.default_rng(1).normal(size=(10, 3)).astype(np.float32) + 0.5
MATRIX = f32([[2.0, 0.5], [0.5, 1.0]])


def theory() -> None:
    """``genjax.theory``."""
    for name in ("bits", "self_information", "self_information_bits"):
        add(f"theory.information.{name}", getattr(information, name), **{"nats" if name == "bits" else "p": P})
    add("theory.information.bits_per_dim", information.bits_per_dim, nats=f32(100.0, 90.0), num_dims=64)
    for name in ("entropy", "entropy_bits"):
        add(f"theory.information.{name}", getattr(information, name), p=P)
    for name in ("cross_entropy", "kl", "jensen_shannon"):
        for bits in ("", "_bits"):
            add(f"theory.information.{name}{bits}", getattr(information, name + bits), p=P, q=Q)
    for name in ("conditional_entropy", "mutual_information"):
        for bits in ("", "_bits"):
            add(f"theory.information.{name}{bits}", getattr(information, name + bits), joint=TABLE)
    add("theory.information.conditional_mutual_information", information.conditional_mutual_information, joint=CUBE)
    add("theory.information.entropy_from_logits", information.entropy_from_logits, logits=f32(0.0, 1.0, -1.0))
    add(
        "theory.information.cross_entropy_from_logits",
        information.cross_entropy_from_logits,
        p=P,
        logits=f32(0.0, 1.0, -1.0),
    )
    add(
        "theory.information.kl_from_logits",
        information.kl_from_logits,
        p_logits=f32(0.0, 1.0, -1.0),
        q_logits=f32(1.0, 0.0, 0.5),
    )
    add(
        "theory.information.binary_cross_entropy",
        information.binary_cross_entropy,
        y=f32(0.0, 1.0),
        logits=f32(0.5, -0.5),
    )
    add("theory.bayes.joint", bayes.joint, prior=f32(0.5, 0.5), conditional=f32([[0.2, 0.8], [0.7, 0.3]]))
    add("theory.bayes.marginal", bayes.marginal, table=TABLE, axes=(0,))
    add("theory.bayes.conditional", bayes.conditional, table=TABLE, given=(0,))
    add("theory.bayes.posterior", bayes.posterior, prior=f32(0.5, 0.5), likelihood=f32(0.2, 0.4))
    add(
        "theory.bayes.log_posterior",
        bayes.log_posterior,
        log_prior=f32(-0.7, -0.7),
        log_likelihood=f32(-2.0, -1.0),
    )
    add("theory.bayes.dependence", bayes.dependence, table=TABLE, x=0, y=1)
    add("theory.bayes.independent", bayes.independent, table=TABLE, x=0, y=1)
    add("theory.estimates.estimate", estimates.estimate, values=POINTS[:, 0])
    add("theory.estimates.kl_from_samples", estimates.kl_from_samples, log_p=POINTS[:, 0], log_q=POINTS[:, 1])
    counts = np.array([0, 1, 1, 2, 0], np.int32)
    add("theory.estimates.empirical", lambda x: estimates.empirical([x], [3]), x=counts)
    add("theory.estimates.entropy_from_samples", estimates.entropy_from_samples, samples=counts, size=3)
    add(
        "theory.estimates.mutual_information_from_samples",
        estimates.mutual_information_from_samples,
        x=counts,
        y=counts[::-1],
        sizes=(3, 3),
    )
    add("theory.exponential_normal.log_joint", exponential_normal.log_joint, z=f32(0.5, 1.0), x=2.0)
    add("theory.exponential_normal.log_evidence", exponential_normal.log_evidence, x=f32(0.5, 2.0))
    add("theory.exponential_normal.posterior", lambda x: exponential_normal.posterior(jnp.asarray(x)), x=f32(0.5, 2.0))
    for name in ("mean_field", "full_rank", "log_normal", "gamma", "truncated_normal"):
        add(f"theory.families.{name}", functools.partial(_drawn_of, getattr(families, name)), num_dims=2)
    diag = lambda mean, log_std: gaussian.DiagGaussian(jnp.asarray(mean), jnp.asarray(log_std))
    one = {"mean": f32(0.5, 1.0), "log_std": f32(0.1, -0.1)}
    for name in ("full", "entropy", "kl_standard"):
        add(
            f"theory.gaussian.{name}",
            lambda mean, log_std, name=name: getattr(gaussian, name)(diag(mean, log_std)),
            **one,
        )
    add("theory.gaussian.sample", lambda mean, log_std: gaussian.sample(KEY, diag(mean, log_std)), **one)
    add(
        "theory.gaussian.transport", lambda noise, **p: gaussian.transport(diag(**p), noise), noise=f32(0.3, 0.2), **one
    )
    add("theory.gaussian.log_prob", lambda x, **p: gaussian.log_prob(diag(**p), x), x=f32(0.3, 0.2), **one)
    for name in ("kl", "product"):
        add(
            f"theory.gaussian.{name}",
            lambda name=name, **p: getattr(gaussian, name)(diag(**p), diag(f32(0.0, 0.0), f32(0.2, 0.0))),
            **one,
        )
    add("theory.gaussian.from_covariance", gaussian.from_covariance, mean=f32(0.0, 1.0), covariance=MATRIX)
    full = lambda mean, covariance: gaussian.from_covariance(jnp.asarray(mean), jnp.asarray(covariance))
    both = {"mean": f32(0.0, 1.0), "covariance": MATRIX}
    add("theory.gaussian.marginal", lambda **p: gaussian.marginal(full(**p), jnp.array([1])), **both)
    add(
        "theory.gaussian.condition",
        lambda value, **p: gaussian.condition(full(**p), jnp.array([1]), value),
        value=f32([0.3]),
        **both,
    )
    for name in ("expm1_minus_x", "log_cdf", "inverse_mills_ratio"):
        add(f"theory.gaussian.{name}", getattr(gaussian, name), x=f32(-1.0, 0.0, 2.0))
    add("theory.gaussian.inverse_log_cdf", gaussian.inverse_log_cdf, log_p=f32(-0.1, -3.0))
    add("theory.likelihood.bernoulli", likelihood.bernoulli, successes=3, trials=10)
    add("theory.likelihood.categorical", likelihood.categorical, counts=f32(3.0, 4.0, 5.0))
    for name in ("gaussian", "full_gaussian"):
        add(f"theory.likelihood.{name}", getattr(likelihood, name), x=POINTS)
    for name in ("exponential", "poisson"):
        add(f"theory.likelihood.{name}", getattr(likelihood, name), x=np.abs(POINTS[:, 0]))
    log_prob = lambda mean, x: -0.5 * (x - mean) ** 2
    add("theory.likelihood.fit", lambda init, data: likelihood.fit(log_prob, init, data), init=0.0, data=POINTS[:, 0])
    add(
        "theory.likelihood.information",
        lambda params, data: likelihood.information(log_prob, params, data),
        params=0.0,
        data=POINTS[:, 0],
    )
    end = likelihood.fit(log_prob, 0.0, jnp.asarray(POINTS[:, 0]))
    add("theory.likelihood.confidence_interval", lambda level: likelihood.confidence_interval(end, level), level=0.95)
    add("theory.likelihood.ratio_test", likelihood.ratio_test, restricted=-10.0, full=-8.0, num_restrictions=1)
    tables = lambda reward: mdp.MDP(np.ones((2, 2, 2)) / 2, reward, np.ones(2) / 2, np.zeros(2, bool))
    reward = f32([[0.0, 1.0], [0.5, 0.2]])
    add("theory.mdp.check", lambda reward: mdp.check(tables(reward)), reward=reward)
    add(
        "theory.mdp.action_values",
        lambda reward, values, discount: mdp.action_values(tables(reward), values, discount),
        reward=reward,
        values=f32(0.0, 1.0),
        discount=0.9,
    )
    add(
        "theory.mdp.policy_values",
        lambda reward, policy, discount: mdp.policy_values(tables(reward), policy, discount),
        reward=reward,
        policy=f32([[0.5, 0.5], [0.2, 0.8]]),
        discount=0.9,
    )
    add(
        "theory.mdp.policy_iteration",
        lambda reward, discount: mdp.policy_iteration(tables(reward), discount),
        reward=reward,
        discount=0.9,
    )
    for name in ("stationary", "stationary_by_eigenvector", "stationary_by_power_iteration", "period", "mixing_time"):
        add(f"theory.markov.{name}", getattr(markov, name), transition=CHAIN)
    add("theory.markov.walk", lambda transition: markov.walk(transition)(KEY, 0, None), transition=CHAIN)
    add(
        "theory.markov.communicating_classes",
        lambda transition: markov.communicating_classes(transition) and 0.0,
        transition=CHAIN,
    )
    add("theory.markov.evolve", markov.evolve, transition=CHAIN, start=f32(1.0, 0.0), steps=3)
    add("theory.markov.total_variation", markov.total_variation, p=P, q=Q)
    add("theory.markov.detailed_balance", markov.detailed_balance, transition=CHAIN, distribution=f32(0.75, 0.25))
    for name in ("random_walk_metropolis", "langevin", "mala"):
        add(f"theory.mcmc.{name}", functools.partial(_mcmc_step, name), position=f32(0.5, 1.0), step_size=0.5)
    add("theory.mcmc.effective_sample_size", mcmc.effective_sample_size, chain=POINTS[:, 0])
    add("theory.levels.to_level", lambda images: pixels.to_level(jnp.asarray(images), 17), images=f32(-1.0, 0.0, 1.0))
    add("theory.levels.from_level", lambda level: pixels.from_level(jnp.asarray(level), 17), level=np.array([0, 3, 16]))
    grey = pixels.from_level(jnp.array([0, 3, 16, 5]), 17).reshape(1, 2, 2, 1)
    add("theory.levels.check_levels", lambda images: pixels.check_levels(images, 17), images=np.asarray(grey))
    add("theory.pixels.bits_per_dim", pixels.bits_per_dim, nats=f32(100.0, 90.0), shape=(8, 8, 1))
    add(
        "theory.levels.logistic_bin",
        pixels.logistic_bin,
        x=f32(0.0, 0.5),
        mean=f32(0.1, 0.1),
        log_scale=f32(-1.0, 0.0),
        half=0.1,
    )
    laws = {
        "bernoulli": (lambda: pixels.bernoulli(), 1, {}),
        "gaussian": (pixels.gaussian, 1, {"std": 0.5}),
        "discretized_logistic": (pixels.discretized_logistic, 2, {"num_levels": 17}),
        "categorical": (pixels.categorical, 17, {"num_levels": 17}),
        "mixture_of_logistics": (lambda **k: pixels.mixture_of_logistics(2, **k), 6, {"num_levels": 17}),
    }
    for name, (law, outputs, arguments) in laws.items():
        out = np.random.default_rng(2).normal(size=(1, 2, 2, outputs)).astype(np.float32)
        images = (
            np.where(np.asarray(grey) > 0, 1.0, -1.0).astype(np.float32) if name == "bernoulli" else np.asarray(grey)
        )
        add(f"theory.pixels.{name}", functools.partial(_pixel_law, law), outputs=out, images=images, **arguments)
    add("theory.simplex.check", lambda p: simplex.check("p", p), p=P)
    add("theory.simplex.check_probability", lambda p: simplex.check_probability("p", p), p=P)


def _drawn_of(family: Callable[[int], families.Family], num_dims: int) -> Any:
    built = family(num_dims)
    q = built.distribution(built.init)
    z = built.sample(KEY, q)
    return z, built.log_prob(q, z)


def _mcmc_step(name: str, position: Any, step_size: Any) -> Any:
    algorithm = getattr(mcmc, name)(lambda x: -jnp.sum(x**2) / 2, step_size)
    return algorithm.step(KEY, algorithm.init(position), None)[0]


def _pixel_law(law: Callable[..., pixels.Likelihood], outputs: Any, images: Any, **arguments: Any) -> Any:
    return law(**arguments).log_prob(jnp.asarray(outputs), jnp.asarray(images))


def metrics() -> None:
    """``genjax.metrics``."""
    add("metrics.classes.balance", classes.balance, classes=np.array([0, 1, 1, 2]), target=P)
    add("metrics.classes.modes", classes.modes, points=POINTS, centres=OTHERS[:3], radius=2.0)
    for name in ("frechet_distance", "energy_distance"):
        add(f"metrics.distances.{name}", getattr(distances, name), a=POINTS, b=OTHERS)
    add("metrics.distances.kernel_distance", functools.partial(distances.kernel_distance, KEY), a=POINTS, b=OTHERS)
    add("metrics.distances.standardise", distances.standardise, reference=POINTS)
    add("metrics.neighbours.prdc", neighbours.prdc, real=POINTS, generated=OTHERS, k=3)
    add("metrics.neighbours.memorization", neighbours.memorization, train=POINTS, heldout=OTHERS, generated=OTHERS[:4])
    add("metrics.neighbours.nearest_distances", neighbours.nearest_distances, points=POINTS, others=OTHERS)
    add("metrics.neighbours.kth_neighbour_distances", neighbours.kth_neighbour_distances, points=POINTS, k=3)
    add("metrics.neighbours.pairwise_distances", neighbours.pairwise_distances, a=POINTS, b=OTHERS)
    add("metrics.roc.curve", roc.curve, scores=POINTS[:, 0], positive=np.arange(12) % 3 == 0)


T = 10
SCHEDULE = schedules.cosine_schedule(T)
GRID = grids.on_times(SCHEDULE, grids.timesteps(T, 5, "trailing"))
IMAGES = np.tanh(np.random.default_rng(3).normal(size=(2, 4, 4, 1))).astype(np.float32)
NOISE = np.random.default_rng(4).normal(size=(2, 4, 4, 1)).astype(np.float32)
TIMES = np.array([2, 7], np.int32)


def denoise(x: Any, t: Any) -> Any:
    """The exact one of N(0, 1)."""
    return schedules.at(SCHEDULE.sqrt_one_minus_alpha_bar, t, x) * x


def steady(x: Any, t: Any) -> Any:
    """The exact one of N(0, 1) on any grid that is told something else than whole times."""
    return 0.5 * x


def process_and_samplers() -> None:
    """``genjax.diffusion``."""
    for name, arguments in {
        "linear_schedule": {"num_steps": 1000, "first": 1e-4, "last": 0.02},
        "cosine_schedule": {"num_steps": 10},
        "sigmoid_schedule": {"num_steps": 10},
    }.items():
        add(f"diffusion.schedules.{name}", getattr(schedules, name), **arguments)
    add("diffusion.schedules.from_beta", schedules.from_beta, beta=np.linspace(0.05, 0.9, 8))
    add("diffusion.schedules.rescale_zero_terminal_snr", lambda: schedules.rescale_zero_terminal_snr(SCHEDULE))
    add(
        "diffusion.schedules.at",
        lambda t: schedules.at(SCHEDULE.sqrt_alpha_bar, t, jnp.asarray(IMAGES)),
        t=TIMES,
    )
    for name in ("logarithm", "root"):
        add(f"diffusion.schedules.{name}", getattr(schedules, name), table=np.array([0.5, 1.0, 2.0]))
    add("diffusion.grids.timesteps", lambda num_steps: grids.timesteps(T, num_steps, "trailing"), num_steps=5)
    add("diffusion.grids.on_times", lambda times: grids.on_times(SCHEDULE, times), times=np.array([9, 5, 2]))
    add("diffusion.grids.karras", grids.karras, num_steps=5, sigma_min=0.002, sigma_max=80.0, rho=7.0)
    add(
        "diffusion.grids.karras_times",
        lambda num_steps, rho: grids.karras_times(SCHEDULE, num_steps, rho),
        num_steps=5,
        rho=7.0,
    )
    for name in ("diffuse", "q_step"):
        add(
            f"diffusion.process.{name}",
            lambda images, t, noise, name=name: getattr(process, name)(SCHEDULE, images, t, noise),
            images=IMAGES,
            t=TIMES,
            noise=NOISE,
        )
    add(
        "diffusion.process.posterior",
        lambda x0, x_t, t: process.posterior(SCHEDULE, x0, x_t, t),
        x0=IMAGES,
        x_t=NOISE,
        t=TIMES,
    )
    for name in ("posterior_variance_clipped", "fixed_large_variance"):
        add(f"diffusion.process.{name}", lambda name=name: getattr(process, name)(SCHEDULE))
    add(
        "diffusion.process.log_variance",
        lambda variance_interpolation, t: process.log_variance(SCHEDULE, variance_interpolation, t),
        variance_interpolation=np.abs(IMAGES),
        t=TIMES,
    )
    for name, argument in {"from_noise": "noise", "from_x0": "x0", "from_v": "v", "from_score": "score"}.items():
        add(
            f"diffusion.predictions.{name}",
            lambda name=name, argument=argument, **k: getattr(predictions, name)(
                SCHEDULE, k[argument], k["x_t"], k["t"]
            ),
            **{argument: NOISE, "x_t": IMAGES, "t": TIMES},
        )
    add(
        "diffusion.predictions.to_prediction",
        lambda output, x_t, t: predictions.to_prediction(SCHEDULE, output, x_t, t),
        output=NOISE,
        x_t=IMAGES,
        t=TIMES,
    )
    guess = lambda noise: predictions.from_noise(SCHEDULE, jnp.asarray(noise), jnp.asarray(IMAGES), TIMES)
    for name in ("to_v", "to_score"):
        add(
            f"diffusion.predictions.{name}",
            lambda noise, t, name=name: getattr(predictions, name)(SCHEDULE, guess(noise), t),
            noise=NOISE,
            t=TIMES,
        )
    add(
        "diffusion.predictions.with_learned_variance",
        lambda output, x_t, t: predictions.with_learned_variance(predictions.from_noise)(SCHEDULE, output, x_t, t),
        output=np.concatenate([NOISE, IMAGES], -1),
        x_t=IMAGES,
        t=TIMES,
    )
    chains: dict[str, Callable[..., Any]] = {
        "samplers.ancestral": lambda clip=True: samplers.ancestral(denoise, SCHEDULE, clip=clip),
        "samplers.ddim": lambda **k: samplers.ddim(denoise, SCHEDULE, **{"num_steps": 5, **k}),
        "samplers.ddim_on_grid": lambda **k: samplers.ddim_on_grid(denoise, GRID, **k),
        "solvers.dpm_solver": lambda **k: D.dpm_solver(denoise, GRID),
        "solvers.dpm_solver_sde": lambda **k: D.dpm_solver_sde(denoise, GRID),
        "solvers.heun": lambda **k: D.heun(denoise, GRID, **k),
        "pseudo.pndm": lambda **k: D.pndm(denoise, SCHEDULE, **{"num_steps": 5, **k}),
        "solvers.invert": lambda **k: D.invert(denoise, GRID, **k),
    }
    more = {
        "samplers.ddim": {"num_steps": 5, "eta": 0.5},
        "samplers.ddim_on_grid": {"eta": 0.5},
        "pseudo.pndm": {"num_steps": 5},
    }
    more |= {"solvers.heun": {"s_churn": 0.0, "s_noise": 1.0}, "solvers.invert": {"iterations": 2}}
    for name, chain in chains.items():
        add(f"diffusion.{name}", lambda x, chain=chain, **k: chain(**k)(KEY, x), x=NOISE, **more.get(name, {}))
    add(
        "diffusion.samplers.respace",
        lambda times, x: samplers.ancestral(*samplers.respace(denoise, SCHEDULE, times))(KEY, x),
        times=np.array([9, 5, 2]),
        x=NOISE,
    )
    add(
        "diffusion.samplers.variance_preserving",
        lambda sigma_min: bounds.prior(
            samplers.variance_preserving(steady, grids.karras(5, sigma_min))[1], jnp.asarray(IMAGES)
        ),
        sigma_min=0.01,
    )
    add("diffusion.samplers.clip_x0", lambda x0: samplers.clip_x0(jnp.asarray(x0), True), x0=3 * IMAGES)
    add(
        "diffusion.editing.repaint",
        lambda x, images, known, **k: editing.repaint(denoise, GRID, images, known, **k)(KEY, x),
        x=NOISE,
        images=IMAGES,
        known=(IMAGES > 0).astype(np.float32),
        resample=2,
        jump=1,
    )
    add("diffusion.editing.resample_schedule", editing.resample_schedule, num_steps=5, jump=2, resample=2)
    add(
        "diffusion.editing.sdedit",
        lambda images, strength: editing.sdedit(lambda grid: samplers.ddim_on_grid(denoise, grid), GRID, strength)(
            KEY, images
        ),
        images=IMAGES,
        strength=0.5,
    )
    add("diffusion.editing.slerp", editing.slerp, start=NOISE, end=IMAGES, fraction=0.3)
    add(
        "diffusion.edm.precondition",
        lambda x, sigma, sigma_data: edm.precondition(steady, sigma_data)(x, sigma),
        x=NOISE,
        sigma=f32(0.5, 2.0),
        sigma_data=0.5,
    )
    add("diffusion.edm.weight", edm.weight, sigma=f32(0.5, 2.0), sigma_data=0.5)
    add(
        "diffusion.guidance.classifier_free",
        lambda x, guidance_scale, rescale: guidance.classifier_free(denoise, steady, guidance_scale, rescale=rescale)(
            x, jnp.asarray(TIMES)
        ),
        x=NOISE,
        guidance_scale=2.0,
        rescale=0.5,
    )
    network = lambda x, t, labels: x * (1 + labels[:, None, None, None])
    add(
        "diffusion.guidance.classifier_free_batched",
        lambda x, labels, guidance_scale: guidance.classifier_free_batched(
            network, jnp.asarray(labels), 3, guidance_scale
        )(x, jnp.asarray(TIMES)),
        x=NOISE,
        labels=np.array([0, 2], np.int32),
        guidance_scale=2.0,
    )
    add(
        "diffusion.guidance.threshold",
        lambda x0, **k: guidance.threshold(**k)(jnp.asarray(x0)),
        x0=3 * IMAGES,
        percentile=99.0,
        smallest=1.0,
    )
    add("diffusion.likelihood.vlb", lambda images: bounds.vlb(denoise, SCHEDULE, KEY, images), images=IMAGES)
    add(
        "diffusion.likelihood.ode_log_likelihood",
        lambda images: bounds.ode_log_likelihood(denoise, SCHEDULE, KEY, images),
        images=IMAGES,
    )
    add("diffusion.likelihood.prior", lambda images: bounds.prior(SCHEDULE, images), images=IMAGES)
    add(
        "diffusion.likelihood.vlb_term",
        lambda noise, images, x_t, t: bounds.vlb_term(SCHEDULE, guess(noise), images, x_t, t),
        noise=NOISE,
        images=IMAGES,
        x_t=IMAGES,
        t=TIMES,
    )
    add(
        "diffusion.likelihood.log_decoder", bounds.log_decoder, images=IMAGES, mean=NOISE, log_std=NOISE, num_levels=256
    )
    add(
        "diffusion.likelihood.dequantise",
        lambda images, num_levels: bounds.dequantise(KEY, images, num_levels),
        images=IMAGES,
        num_levels=17,
    )
    errors = np.linspace(0.01, 0.9, T)
    add(
        "diffusion.optimal.optimal_timesteps",
        lambda squared_error, num_steps: bounds.optimal_timesteps(SCHEDULE, squared_error, num_steps),
        squared_error=errors,
        num_steps=5,
    )
    add(
        "diffusion.optimal.optimal_variance",
        lambda noise_squared: bounds.optimal_variance(SCHEDULE, noise_squared),
        noise_squared=errors,
    )
    add("diffusion.objectives.min_snr", lambda gamma: objectives.min_snr(SCHEDULE, gamma=gamma), gamma=5.0)
    for name, objective in {
        "simple": lambda: objectives.simple(ddpm.l2),
        "vlb": lambda: objectives.vlb(),
    }.items():
        add(f"diffusion.objectives.{name}", functools.partial(_objective, objective), images=IMAGES)


def _objective(objective: Callable[[], Any], images: Any) -> Any:
    keys = jax.random.split(KEY, 2)
    return ddpm.losses(denoise, SCHEDULE, keys, images, objective())


SHAPE = (4, 4, 1)
LABELS = np.array([0, 2], np.int32)


def models() -> None:
    """``genjax.models``."""
    for name in ("l1", "l2", "huber"):
        add(f"models.ddpm.{name}", getattr(ddpm, name), prediction=NOISE, noise=IMAGES)
    add("models.ddpm.losses", functools.partial(_objective, lambda: objectives.simple(ddpm.l2)), images=IMAGES)
    small = unet.UNet(
        channels=4,
        channel_mults=(1, 1),
        num_res_blocks=1,
        attention_resolutions=(),
        groups=2,
        image_channels=1,
        num_classes=3,
    )
    told = ddpm.build(small, SCHEDULE, SHAPE, num_classes=3)
    _model("models.ddpm.build", told, {"image": IMAGES, "label": LABELS})
    add(
        "models.ddpm.build",
        lambda **k: ddpm.build(small, SCHEDULE, SHAPE, **k) and 0.0,
        num_classes=3,
        p_uncond=0.1,
    )
    add("models.loss_aware.build", lambda floor: loss_aware.build(told, T, floor=floor) and 0.0, floor=0.001)
    sizes = {"sigma_data": 0.5, "p_mean": -1.2, "p_std": 1.2}
    add(
        "models.edm.losses",
        lambda images, **k: edm_model.losses(steady, jax.random.split(KEY, 2), images, **k),
        images=IMAGES,
        **sizes,
    )
    plain = small.clone(num_classes=0)
    add("models.edm.build", lambda **k: edm_model.build(plain, SHAPE, **k) and 0.0, **sizes)
    _model("models.edm.build", edm_model.build(plain, SHAPE), {"image": IMAGES})
    add("models.vdm.build", lambda **k: vdm_model.build(plain, SHAPE, **k) and 0.0, num_levels=17, num_steps=10)
    _model("models.vdm.build", vdm_model.build(plain, SHAPE, num_levels=17), {"image": IMAGES})
    encoder, decoder = mlp.Encoder(4, (8,), 3), mlp.Decoder(SHAPE, (8,), 3)
    law = pixels.gaussian(0.5)
    add("models.vae.build", lambda **k: vae.build(encoder, decoder, law, SHAPE, **k) and 0.0, beta=1.0, free_bits=0.0)
    add(
        "models.vae.rate",
        lambda mean, log_std, free_bits: vae.rate(gaussian.DiagGaussian(mean, log_std), free_bits),
        mean=POINTS,
        log_std=POINTS,
        free_bits=0.1,
    )
    made = vae.build(encoder, decoder, law, SHAPE)
    _model("models.vae.build", made, {"image": IMAGES, "label": LABELS})
    params = made.init(KEY)
    add(
        "models.vae.log_evidence",
        lambda image, label: vae.log_evidence(made, params, {"image": image, "label": label}),
        image=IMAGES,
        label=LABELS,
    )
    ae = autoencoder.build(mlp.Encoder(4, (8,)), mlp.Decoder(SHAPE, (8,)), SHAPE)
    add("models.autoencoder.build", lambda: ae and 0.0)
    _model("models.autoencoder.build", ae, {"image": IMAGES})
    add(
        "models.autoencoder.reconstruction_error",
        autoencoder.reconstruction_error,
        images=IMAGES,
        reconstructions=NOISE,
    )
    add("models.codebooks.gradient_codebook", lambda size: vqvae.gradient_codebook(size) and 0.0, size=8)
    add(
        "models.codebooks.ema_codebook",
        lambda **k: vqvae.ema_codebook(**k) and 0.0,
        size=8,
        decay=0.99,
        dead_code_threshold=0.0,
        epsilon=1e-5,
    )
    add("models.gan_losses.value", gan_losses.value, real=f32(0.5, 1.0), fake=f32(-0.5, 0.0))
    add("models.gan_losses.optimal_discriminator", gan_losses.optimal_discriminator, p=f32(0.5, 0.2), q=f32(0.1, 0.3))
    critic = lambda images: jnp.sum(images**2, (1, 2, 3))
    for name in ("gradient_penalty", "r1"):
        add(
            f"models.gan_losses.{name}",
            lambda images, name=name: getattr(gan_losses, name)(critic, images),
            images=IMAGES,
        )
    add("models.classifier.build", lambda: 0.0)
    add("models.autoregressive.check_prefix", autoregressive.check_prefix, known=np.arange(4)[:, None] < np.full(4, 2))
    pixel = autoregressive.build(
        pixelcnn.GatedPixelCNN(outputs=17, features=4, num_layers=1), pixels.categorical(17), SHAPE
    )
    add(
        "models.autoregressive.build",
        lambda temperature: (
            autoregressive.build(
                pixelcnn.GatedPixelCNN(outputs=17, features=4, num_layers=1),
                pixels.categorical(17),
                SHAPE,
                temperature=temperature,
            )
            and 0.0
        ),
        temperature=1.0,
    )
    levels = np.asarray(pixels.from_level(jnp.asarray(np.random.default_rng(5).integers(0, 17, (2, 4, 4, 1))), 17))
    pixel_params = pixel.init(KEY)
    add("models.autoregressive.build.log_prob", lambda images: pixel.log_prob(pixel_params, images), images=levels)
    series = {"reward": POINTS[:, 0], "value": POINTS[:, 1], "next_value": POINTS[:, 2]}
    ends = np.zeros(12, bool)
    add(
        "models.policy_gradient.advantages",
        lambda discount, gae_lambda, **k: policy_gradient.advantages(
            **{n: jnp.asarray(v) for n, v in k.items()},
            terminated=jnp.asarray(ends),
            truncated=jnp.asarray(ends),
            discount=discount,
            gae_lambda=gae_lambda,
        ),
        **series,
        discount=0.9,
        gae_lambda=0.9,
    )
    env = ENVIRONMENTS["cartpole"]()
    numbers = {
        "num_envs": 2,
        "num_steps": 4,
        "discount": 0.9,
        "gae_lambda": 0.9,
        "ent_coef": 0.01,
        "vf_coef": 0.5,
    }
    add(
        "models.actor_critic.build",
        lambda **k: actor_critic.build(mlp.MLP(env.num_actions, (4,)), mlp.MLP(1, (4,)), env, **k) and 0.0,
        **numbers,
        clip_eps=0.2,
    )


def _model(name: str, model: Any, batch: dict[str, Any]) -> None:
    """The loss of a model on its batch, and its draws."""
    params = model.init(KEY)
    add(f"{name}.loss", lambda **batch: model.loss(jax.random.split(KEY, 2), params, batch), **batch)


SPOILS: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "nan": lambda x: _first(x, np.nan),
    "inf": lambda x: _first(x, np.inf),
    "empty": lambda x: x[:0] if x.ndim else None,
    "int": lambda x: np.round(x * 4).astype(np.int32) if x.ndim else None,
    "uint8": lambda x: np.round(np.abs(x) * 4).astype(np.uint8) if x.ndim else None,
    "negative": lambda x: (-np.abs(x) - 1).astype(x.dtype),
    "equal": lambda x: np.full_like(x, x.reshape(-1)[0]) if x.ndim else None,
    "huge": lambda x: (x * 1e30).astype(x.dtype) if x.dtype.kind == "f" else np.full_like(x, 1000),
    "tiny": lambda x: (x * 1e-37).astype(x.dtype) if x.dtype.kind == "f" else None,
}


def _first(x: np.ndarray, value: float) -> np.ndarray | None:
    if x.dtype.kind != "f":
        return None
    x = x.copy()
    x.reshape(-1)[0] = value
    return x


def outcome(entrance_name: str, name: str, kind: str) -> str:
    """What came of an argument spoiled in one way; empty where that cannot be."""
    entrance = ENTRANCES[entrance_name]
    good = entrance.arguments[name]
    if isinstance(good, tuple):
        return ""
    scalar = np.ndim(good) == 0 and not isinstance(good, np.ndarray)
    array = np.asarray(good, None if isinstance(good, np.ndarray | int) else np.float32)
    if array.dtype == bool or (bad := SPOILS[kind](array)) is None:
        return ""
    given = bad.reshape(-1)[0].item() if scalar else bad
    word, found = _call(entrance, name, given)
    if word == "value" and kind == "nan" and (entrance_name, name) not in IRRELEVANT:
        return f"FAULT: finite numbers of nan, {found}"
    if word == "nan" and kind not in ("nan", "inf", "huge") and (entrance_name, name, kind) not in STILL:
        return "FAULT: nan of numbers"
    if word == "value" and kind in ("int", "uint8") and array.dtype.kind == "f":
        _, floats = _call(entrance, name, bad.astype(np.float32))
        same = jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, 1e-4, 1e-5, equal_nan=True), found, floats))
        return "value" if same else f"FAULT: {found} of integers, {floats} of the same floating-point numbers"
    return word


def _call(entrance: Entrance, name: str, given: Any) -> tuple[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = entrance.function(**{**entrance.arguments, name: given})
        found = [np.asarray(leaf) for leaf in jax.tree.leaves(out) if not _is_key(leaf)]
    except (ValueError, TypeError) as error:
        return ("refused" if str(error) else f"FAULT: {error!r} says nothing"), None
    except Exception as error:
        return f"FAULT: {type(error).__name__}: {str(error)[:80]}", None
    floats = [leaf for leaf in found if leaf.dtype.kind == "f" or leaf.dtype == jnp.bfloat16]
    if any(np.isnan(leaf.astype(np.float64)).any() for leaf in floats):
        return "nan", found
    return ("inf" if any(np.isinf(leaf.astype(np.float64)).any() for leaf in floats) else "value"), found


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def missing() -> list[str]:
    """Public functions of the library that are neither here nor apart."""
    found = []
    for package in ("theory", "metrics", "diffusion", "models"):
        for module in pkgutil.iter_modules(importlib.import_module(f"genjax.{package}").__path__):
            where = f"{package}.{module.name}"
            for name, function in vars(importlib.import_module(f"genjax.{where}")).items():
                own = getattr(function, "__module__", "") == f"genjax.{where}" and not inspect.isclass(function)
                if not callable(function) or not own or name.startswith("_"):
                    continue
                full = f"{where}.{name}"
                if not any(key == full or key.startswith(f"{full}.") for key in ENTRANCES) and not (
                    {full, where} & APART.keys()
                ):
                    found.append(full)
    return found


def fill() -> None:
    """Enter everything."""
    for group in (theory, metrics, process_and_samplers, models):
        group()


def rows(only: str = "") -> list[tuple[str, str, dict[str, str]]]:
    """Entrance, argument, and what came of each way to spoil it."""
    return [
        (name, argument, {kind: outcome(name, argument, kind) for kind in SPOILS})
        for name, entrance in ENTRANCES.items()
        if name.startswith(only)
        for argument in entrance.arguments
        if not isinstance(entrance.arguments[argument], tuple)
    ]


def page(found: list[tuple[str, str, dict[str, str]]]) -> str:
    """The table in Markdown."""
    assert __doc__ is not None
    lines = ["# What each entrance does with bad numbers", "", *_prose(), ""]
    lines += [f"| entrance | argument | {' | '.join(SPOILS)} |", "|---" * (2 + len(SPOILS)) + "|"]
    for name, argument, words in found:
        lines.append(f"| `{name}` | {argument} | {' | '.join(words.values())} |")
    lines += ["", "| without numbers | |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {why} |" for name, why in APART.items())]) + "\n"


def _prose() -> list[str]:
    text = """    python tests/entrances.py

Every public function of `genjax.theory`, `metrics`, `diffusion` and `models` is called with good arguments, and then
with one of them spoiled. `value`: finite numbers, the same of integers and bytes as of floating-point numbers of their
size. `refused`: a `ValueError` or `TypeError` that says why. `nan`: what came in was no number, not finite, or so large
that float32 overflows, and the result says so. `inf`: an infinity that is the right value, as -log 0.
`tests/test_every_entrance.py` holds the table to what happens."""
    return text.splitlines()


def main(argv: list[str]) -> int:
    """Write the page, and say what is wrong.

    Args:
      argv: the page, PAGE by default, and the beginning of the names to look at alone, which writes none.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=PAGE)
    parser.add_argument("--only", default="")
    settings = parser.parse_args(argv)
    fill()
    found = rows(settings.only)
    faults = [f"{n}({a}) {k}: {w}" for n, a, words in found for k, w in words.items() if w.startswith("FAULT")]
    faults += [f"{name}: no entrance in tests/entrances.py" for name in (() if settings.only else missing())]
    print("\n".join(fault.splitlines()[0] for fault in faults))
    if not settings.only:
        settings.out.parent.mkdir(exist_ok=True)
        settings.out.write_text(page(found), encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
