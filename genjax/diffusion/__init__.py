"""The diffusion process without networks: schedules, q(x_t|x_0), its posterior, predictions, samplers, likelihoods.

Time counts from 0 to T - 1: x_t has passed t + 1 noising steps. x_T, where a reverse chain starts, is N(0, 1).
"""

from genjax.diffusion import editing, edm, likelihood
from genjax.diffusion.chains import Sample, Sampler, make_sampler
from genjax.diffusion.editing import repaint, sdedit, slerp
from genjax.diffusion.grids import Grid, PartialGrid, Spacing, StartWarning, karras, karras_times, on_times, timesteps
from genjax.diffusion.guidance import classifier_free, classifier_free_batched, threshold
from genjax.diffusion.objectives import Objective, hybrid, min_snr, simple, vlb
from genjax.diffusion.predictions import (
    Predict,
    Prediction,
    ToPrediction,
    from_noise,
    from_score,
    from_v,
    from_x0,
    to_prediction,
    to_score,
    to_v,
    with_learned_variance,
)
from genjax.diffusion.process import Posterior, diffuse, posterior, q_step
from genjax.diffusion.samplers import Denoise, ancestral, ddim, ddim_on_grid, respace, variance_preserving
from genjax.diffusion.schedules import (
    Schedule,
    at,
    cosine_schedule,
    from_beta,
    linear_schedule,
    rescale_zero_terminal_snr,
    sigmoid_schedule,
)
from genjax.diffusion.solvers import dpm_solver, dpm_solver_sde, heun, invert, pndm
from genjax.lazy import attach

__all__ = [
    "Denoise",
    "Grid",
    "Objective",
    "PartialGrid",
    "Posterior",
    "Predict",
    "Prediction",
    "Sample",
    "Sampler",
    "Schedule",
    "Spacing",
    "StartWarning",
    "ToPrediction",
    "ancestral",
    "at",
    "classifier_free",
    "classifier_free_batched",
    "cosine_schedule",
    "ddim",
    "ddim_on_grid",
    "diffuse",
    "dpm_solver",
    "dpm_solver_sde",
    "editing",
    "edm",
    "from_beta",
    "from_noise",
    "from_score",
    "from_v",
    "from_x0",
    "heun",
    "hybrid",
    "invert",
    "karras",
    "karras_times",
    "likelihood",
    "linear_schedule",
    "make_sampler",
    "min_snr",
    "on_times",
    "pndm",
    "posterior",
    "q_step",
    "repaint",
    "rescale_zero_terminal_snr",
    "respace",
    "sdedit",
    "sigmoid_schedule",
    "simple",
    "slerp",
    "threshold",
    "timesteps",
    "to_prediction",
    "to_score",
    "to_v",
    "variance_preserving",
    "vlb",
    "with_learned_variance",
]

__dir__ = attach(__name__, __all__)[1]
