"""Train a policy and its value function: ``python -m train.actor_critic --config cartpole``."""

import dataclasses
import difflib
import pathlib
from collections.abc import Callable
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from genjax import data, envs, random
from genjax.models import actor_critic
from genjax.nn import mlp
from genjax.theory import mdp
from genjax.training import parallel, steps
from genjax.types import Batch, Kernel, Key, Metrics, Params, Scalar
from train.run import command, conditions, config, environments, images, optimizers, plots, process, sources
from train.run.recipe import Recipe
from train.run.task import Task

FRAMES = 10
"""Frames of an episode in the figure of a report."""
LARGEST = 10**8
"""Steps of a rollout, in all copies of the environment together."""


@dataclasses.dataclass(frozen=True)
class Config(config.Run):
    """Train an actor-critic (Sutton & Barto 2018): A2C (Mnih et al. 2016) or PPO (Schulman et al. 2017).

    A step is a rollout of the current policy in ``batch_size`` copies of the environment, and the gradient steps on it.
    The held-out loss is minus the mean return of ``episodes`` whole episodes.
    """

    config: str = "cartpole"
    """Name of a file in train/configs/actor_critic/, path of a .toml, or a run's config.json."""
    env: str = "cartpole"
    """Environment: cartpole, acrobot, chain, grid, or ladder1 to ladder5."""
    algorithm: Literal["a2c", "ppo"] = "a2c"
    """a2c takes one gradient step on a rollout, ppo several with the clipped objective."""
    rollout_length: int = 500
    """Number of steps of a rollout in each copy of the environment."""
    start: Literal["reset", "continue"] = "reset"
    """Beginning of a rollout: a new episode in each copy of the environment, or where the last rollout stopped."""
    discount: float = 0.99
    """Discount γ of a reward one step later."""
    gae_lambda: float = 0.95
    """λ of the generalised advantage (Schulman et al. 2016): 0 looks one step ahead, 1 at the whole return."""
    ent_coef: float = 0.01
    """Weight of the policy's entropy in the loss."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the dense layers of both networks."""
    value_lr: float = 0.0
    """Learning rate of the value function; 0 takes that of the policy."""
    clip_eps: float = 0.2
    """Clip range ε of PPO's probability ratio."""
    num_epochs: int = 4
    """Number of passes of PPO over a rollout."""
    minibatch_size: int = 256
    """Number of transitions in a gradient step of PPO."""
    eval_episodes: int = 32
    """Number of episodes played for a report."""

    GROUPS: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("value_lr", "num_epochs", "minibatch_size"), "training"),
        "eval_episodes": "run",
    }
    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        name: conditions.needs(algorithm="ppo") for name in ("clip_eps", "num_epochs", "minibatch_size")
    }

    def problems(self) -> list[str]:
        """List everything wrong with the values."""
        problems = super().problems() + config.at_least(
            self,
            dict.fromkeys(("rollout_length", "num_epochs", "minibatch_size", "eval_episodes", "hidden"), 1)
            | dict.fromkeys(("ent_coef", "value_lr"), 0),
        )
        if self.batch_size * self.rollout_length > LARGEST:
            problems.append(
                f"batch_size, rollout_length: expected a product of at most {LARGEST}, the steps that are kept at once"
            )
        for name in ("discount", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name}: expected 0 to 1, got {getattr(self, name)}")
        if not self.clip_eps > 0:
            problems.append(f"clip_eps: expected a positive number, got {self.clip_eps}")
        return problems + self._environment_problems()

    def _environment_problems(self) -> list[str]:
        if self.env == "chain" and self.discount == 1:
            return ["discount: expected below 1, as the chain never ends and its values would not be finite"]
        if self.env in envs.ENVIRONMENTS:
            return []
        close = difflib.get_close_matches(self.env, envs.ENVIRONMENTS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return [f"env: expected one of {', '.join(envs.ENVIRONMENTS)}; got {self.env}{hint}"]


def model(settings: Config, shape: None = None, axis_name: str | None = None) -> actor_critic.ActorCritic:
    """Make the model of the settings.

    Args:
      settings: settings of the run.
      shape: None, as environments have no images.
      axis_name: name of the axis of devices; None for one device.
    """
    env = envs.ENVIRONMENTS[settings.env]()
    return actor_critic.build(
        mlp.MLP(env.num_actions, settings.hidden, 0.01),
        mlp.MLP(1, settings.hidden, 1.0),
        env,
        num_envs=settings.batch_size,
        num_steps=settings.rollout_length,
        discount=settings.discount,
        gae_lambda=settings.gae_lambda,
        ent_coef=settings.ent_coef,
        vf_coef=1.0,
        clip_eps=settings.clip_eps if settings.algorithm == "ppo" else None,
        start=settings.start,
        axis_name=axis_name,
    )


def build(settings: Config, shape: None = None) -> Task:
    """Make the training task of the settings; a row of the data set stands for a copy of the environment."""
    trained = model(settings, axis_name=parallel.AXIS)

    def evaluate(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        episode_keys = random.example_keys(key, batch["row"].shape[0])
        returns, lengths = trained.evaluate_episodes(episode_keys, params)
        return -returns.mean(), {"return": returns.mean(), "length": lengths.mean(dtype=jnp.float32)}

    def minibatch_updates(step: Kernel) -> Kernel:
        return steps.minibatch_updates(step, settings.num_epochs, settings.minibatch_size)

    optimizer, learning_rate = _optimizer(settings, trained)
    task = Task(
        init=trained.init,
        optimizer=optimizer,
        learning_rate=learning_rate,
        sample_batch=trained.sample_batch,
        loss=trained.loss,
        evaluate=evaluate,
        write_figures=_figures(settings, trained),
        curves=("policy", "value"),
        carry=trained.carry if settings.start == "continue" else None,
    )
    return task._replace(wrap_step=minibatch_updates) if settings.algorithm == "ppo" else task


def _optimizer(
    settings: Config, trained: actor_critic.ActorCritic
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    updates = 1
    if settings.algorithm == "ppo":
        num_minibatches = settings.batch_size * settings.rollout_length // settings.minibatch_size
        updates = settings.num_epochs * max(num_minibatches, 1)
    step = lambda count: count / updates
    policy, rate = optimizers.adam(settings, step=step)
    value, _ = optimizers.adam(settings, settings.value_lr or settings.lr, step=step)
    return trained.optimizer(policy, value), rate


def _load(settings: Config) -> data.Dataset:
    """Make a row for each copy of the environment, and one for each episode of a report."""
    rows = lambda num: {"row": np.arange(num, dtype=np.int32)}
    return data.Dataset(settings.env, rows(settings.batch_size), rows(settings.eval_episodes))


SOURCE = sources.Source(
    lambda settings: None,
    lambda settings: None,
    _load,
    lambda settings, dataset: f"environment:{settings.env}",
    has_images=False,
)
"""Rows without content: environments make their own data."""


def _figures(settings: Config, trained: actor_critic.ActorCritic) -> images.Figures:
    plane = environments.PLANES.get(settings.env)
    write = _table_figures(settings, trained) if plane is None else _plane_figures(settings, trained, plane)

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        plots.band(folder.parent / "returns.png", folder.parent / "metrics.jsonl", "return", "return of an episode")
        write(folder, params)

    return write_figures


Evaluate = Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]


def _evaluate(trained: actor_critic.ActorCritic) -> Evaluate:
    """Return ``(params, observations) -> (probabilities of the actions, values)``."""
    return jax.jit(
        lambda params, observation: (
            jax.nn.softmax(trained.logits(params, observation)),
            trained.values(params, observation),
        )
    )


def _plane_figures(
    settings: Config, trained: actor_critic.ActorCritic, plane: environments.Plane
) -> Callable[[pathlib.Path, Params], None]:
    env, evaluate = envs.ENVIRONMENTS[settings.env](), _evaluate(trained)

    @jax.jit
    def episode(params: Params) -> tuple[jax.Array, jax.Array]:
        """Return observations [t o], and which of them are of the first episode."""
        act = lambda key, observation: jax.random.categorical(key, trained.logits(params, observation))
        start, kernel = envs.episodes(env, act)
        run = lambda carry, key: kernel(key, carry, None)
        keys = jax.random.split(jax.random.key(settings.seed), env.max_steps)
        transitions = jax.lax.scan(run, start(jax.random.key(settings.seed)), keys)[1]
        ended = jnp.cumsum(transitions.terminated | transitions.truncated)
        return transitions.observation, jnp.concatenate([jnp.zeros(1, ended.dtype), ended[:-1]]) == 0

    def write(folder: pathlib.Path, params: Params) -> None:
        x, y = (np.linspace(-reach, reach, 61) for reach in plane.reach)
        probabilities, values = evaluate(params, jnp.asarray(plane.observe(*np.meshgrid(x, y)), jnp.float32))
        shown = {f"probability of {plane.action}": np.asarray(probabilities[..., -1]), "value": np.asarray(values)}
        plots.surfaces(folder / "latest.png", x, y, shown, plane.labels)
        observations, is_first = map(np.asarray, episode(params))
        chosen = np.linspace(0, is_first.sum() - 1, FRAMES).astype(int)
        frames = [plane.draw(observations[i]) for i in chosen]
        plots.lines(folder / "rollout.png", frames, [str(i) for i in chosen], plane.size)

    return write


def _table_figures(settings: Config, trained: actor_critic.ActorCritic) -> Callable[[pathlib.Path, Params], None]:
    env, evaluate = envs.ENVIRONMENTS[settings.env](), _evaluate(trained)

    def write(folder: pathlib.Path, params: Params) -> None:
        probabilities, values = map(np.asarray, evaluate(params, jnp.eye(env.observation_dim)))
        exact = mdp.policy_iteration(environments.TABLES[settings.env](), settings.discount)[0]
        with plots.figure(folder / "latest.png", 1, 2) as ((left, right),):
            left.bar(range(len(exact)), values, alpha=0.7, label="learned")
            left.plot(range(len(exact)), exact, "o", color=plots.COLOURS[1], label="of the best policy, exact")
            left.set(xlabel="state", ylabel="value")
            for action, column in enumerate(probabilities.T):
                right.plot(range(len(exact)), column, "o-", label=f"action {action}")
            right.set(xlabel="state", ylabel="probability", ylim=(-0.05, 1.05), xticks=range(len(exact)))

    return write


RECIPE = Recipe("actor_critic", Config, model, build, SOURCE)
main = command.trainer(RECIPE)

if __name__ == "__main__":
    process.main(main)
