"""The diffusion process without networks: schedules, q(x_t|x_0), its posterior, predictions, samplers.

Time counts from 0 to T - 1: x_t has passed t + 1 noising steps. x_T, where a reverse chain starts, is N(0, 1).
"""

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
from genjax.diffusion.samplers import (
    Denoise,
    Sample,
    ancestral,
    chain,
    ddim,
    ddim_on_grid,
    respace,
    variance_preserving,
)
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
    "ToPrediction",
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
    "ddim_on_grid",
    "invert",
    "karras",
    "karras_times",
    "linear_schedule",
    "min_snr",
    "on_times",
    "q_step",
    "pndm",
    "posterior",
    "to_prediction",
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
    "with_learned_variance",
    "rescale_zero_terminal_snr",
]

__dir__ = attach(__name__, __all__)[1]
