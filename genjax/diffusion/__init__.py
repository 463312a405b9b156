"""The diffusion process without networks: schedules, q(x_t|x_0), its posterior, predictions, samplers.

Time counts from 0 to T - 1: x_t has passed t + 1 noising steps. x_T, where a reverse chain starts, is N(0, 1).
"""

from genjax.diffusion.editing import repaint, sdedit, slerp
from genjax.diffusion.grids import Grid, Part, Spacing, StartWarning, karras, karras_times, on_times, timesteps
from genjax.diffusion.guidance import classifier_free, classifier_free_batched, threshold
from genjax.diffusion.objectives import Objective, hybrid, min_snr, simple, vlb
from genjax.diffusion.predictions import (
    Predict,
    Prediction,
    Read,
    from_noise,
    from_score,
    from_v,
    from_x0,
    read,
    to_score,
    to_v,
    with_fraction,
)
from genjax.diffusion.process import Posterior, diffuse, one_step, posterior
from genjax.diffusion.samplers import Denoise, Sample, ancestral, chain, ddim, implicit, respace, variance_preserving
from genjax.diffusion.schedules import (
    Schedule,
    at,
    cosine_schedule,
    from_beta,
    linear_schedule,
    sigmoid_schedule,
    zero_terminal,
)
from genjax.diffusion.solvers import dpm_solver, dpm_solver_sde, heun, invert, pndm

__all__ = [
    "Denoise",
    "Grid",
    "Objective",
    "Part",
    "Posterior",
    "Predict",
    "Prediction",
    "Read",
    "Sample",
    "Schedule",
    "Spacing",
    "StartWarning",
    "ancestral",
    "at",
    "chain",
    "classifier_free",
    "classifier_free_batched",
    "cosine_schedule",
    "ddim",
    "diffuse",
    "dpm_solver",
    "dpm_solver_sde",
    "from_beta",
    "from_noise",
    "from_score",
    "from_v",
    "from_x0",
    "heun",
    "hybrid",
    "implicit",
    "invert",
    "karras",
    "karras_times",
    "linear_schedule",
    "min_snr",
    "on_times",
    "one_step",
    "pndm",
    "posterior",
    "read",
    "repaint",
    "respace",
    "sdedit",
    "sigmoid_schedule",
    "simple",
    "slerp",
    "threshold",
    "timesteps",
    "to_score",
    "to_v",
    "variance_preserving",
    "vlb",
    "with_fraction",
    "zero_terminal",
]
