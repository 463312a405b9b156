"""Train a policy and its value function: ``python -m train.actor_critic --config cartpole``."""

import dataclasses
import difflib
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from genjax import data, envs, random
from genjax.envs import tables
from genjax.models import actor_critic
from genjax.nn import mlp
from genjax.theory import mdp
from genjax.training import parallel, steps
from genjax.types import Batch, Key, Params
from train.run import conditions, config, loop, optimizers, plots, process, sources
from train.run.task import Task

FRAMES = 10
LARGEST = 10**8  # steps of a rollout, in all copies of the environment together


@dataclasses.dataclass(frozen=True)
class Config(config.Run):
    """Train an actor-critic (Sutton & Barto 2018): A2C (Mnih et al. 2016) or PPO (Schulman et al. 2017).

    A step is a rollout of the current policy in ``batch_size`` copies of the environment, and the gradient steps on it.
    The held-out loss is minus the mean return of ``episodes`` whole episodes.
    """

    config: str = "cartpole"
    """Name of a file in train/configs/actor_critic/, path of a .toml, or a run's config.json."""
    env: str = "cartpole"
    """cartpole, acrobot, chain, grid, or ladder1 to ladder5."""
    algorithm: Literal["a2c", "ppo"] = "a2c"
    """One gradient step on a rollout, or several with the clipped objective."""
    rollout_length: int = 500
    """Steps in each copy of the environment, from a new episode on."""
    discount: float = 0.99
    """Of rewards one step later."""
    gae_lambda: float = 0.95
    """λ of the generalised advantage: 0 is one step ahead, 1 the whole return."""
    ent_coef: float = 0.01
    """Weight of the policy's entropy."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the dense layers of both networks."""
    value_lr: float = 0.0
    """Learning rate of the value function; 0 takes that of the policy."""
    clip_eps: float = 0.2
    """How far PPO lets the probability of an action move on one rollout."""
    num_epochs: int = 4
    """How often PPO visits a rollout."""
    minibatch_size: int = 256
    """Steps of the environment in a gradient step of PPO."""
    eval_episodes: int = 32
    """Played for a report."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        name: conditions.needs(algorithm="ppo") for name in ("clip_eps", "num_epochs", "minibatch_size")
    }

    def problems(self) -> list[str]:
        """Everything wrong with the values."""
        found = super().problems() + config.at_least(
            self,
            dict.fromkeys(("rollout_length", "num_epochs", "minibatch_size", "eval_episodes", "hidden"), 1)
            | dict.fromkeys(("ent_coef", "value_lr"), 0),
        )
        if self.batch_size * self.rollout_length > LARGEST:
            found.append(
                f"batch_size, rollout_length: expected a product of at most {LARGEST}, the steps that are kept at once"
            )
        for name in ("discount", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"{name}: expected 0 to 1, got {getattr(self, name)}")
        if self.env == "chain" and self.discount == 1:
            found.append("discount: expected below 1, as the chain never ends and its values would not be finite")
        if not self.clip_eps > 0:
            found.append(f"clip_eps: expected a positive number, got {self.clip_eps}")
        if self.env not in envs.ENVIRONMENTS:
            close = difflib.get_close_matches(self.env, envs.ENVIRONMENTS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            found.append(f"env: expected one of {', '.join(envs.ENVIRONMENTS)}; got {self.env}{hint}")
        return found


def model(settings: Config, axis_name: str | None = None) -> actor_critic.ActorCritic:
    """The model that the settings describe."""
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
        axis_name=axis_name,
    )


def build(settings: Config, shape: tuple[int, int, int]) -> Task:
    """What the loop trains; rows of the data set stand for copies of the environment."""
    ours = model(settings, parallel.AXIS)

    def evaluate(key: Key, params: Params, batch: Batch):
        returns, lengths = ours.evaluate_episodes(random.example_keys(key, batch["image"].shape[0]), params)
        return -returns.mean(), {"return": returns.mean(), "length": lengths.mean(dtype=jnp.float32)}

    several = lambda step: steps.minibatch_updates(step, settings.num_epochs, settings.minibatch_size)
    optimizer, learning_rate = _optimizer(settings, ours)
    return Task(
        init=ours.init,
        optimizer=optimizer,
        learning_rate=learning_rate,
        sample_batch=ours.sample_batch,
        loss=ours.loss,
        evaluate=evaluate,
        write_figures=_figures(settings, ours),
        wrap_step=several if settings.algorithm == "ppo" else lambda step: step,
        curves=("policy", "value"),
    )


def _optimizer(settings: Config, ours: actor_critic.ActorCritic) -> tuple[optax.GradientTransformation, optax.Schedule]:
    updates = 1
    if settings.algorithm == "ppo":
        updates = settings.num_epochs * max(settings.batch_size * settings.rollout_length // settings.minibatch_size, 1)
    step = lambda count: count / updates
    policy, rate = optimizers.adam(settings, step=step)
    value, _ = optimizers.adam(settings, settings.value_lr or settings.lr, step=step)
    return ours.optimizer(policy, value), rate


def _load(settings: Config) -> data.Dataset:
    """A row for each copy of the environment, and one for each episode of a report."""
    rows = lambda num: {"image": np.zeros((num, 1, 1, 1), np.uint8)}
    return data.Dataset(settings.env, rows(settings.batch_size), rows(settings.eval_episodes))


SOURCE = sources.Source(
    lambda settings: None, lambda settings: (1, 1, 1), _load, lambda settings, dataset: f"environment:{settings.env}"
)


def _figures(settings: Config, ours: actor_critic.ActorCritic):
    env = envs.ENVIRONMENTS[settings.env]()
    judge = jax.jit(lambda params, seen: (jax.nn.softmax(ours.logits(params, seen)), ours.values(params, seen)))

    @jax.jit
    def episode(params: Params) -> tuple[jax.Array, jax.Array]:
        """Observations [t o] of an episode, and which of them are of it."""
        act = lambda key, seen: jax.random.categorical(key, ours.logits(params, seen))
        start, kernel = envs.episodes(env, act)
        run = lambda carry, key: kernel(key, carry, None)
        keys = jax.random.split(jax.random.key(settings.seed), env.max_steps)
        seen = jax.lax.scan(run, start(jax.random.key(settings.seed)), keys)[1]
        ended = jnp.cumsum(seen.terminated | seen.truncated)
        return seen.observation, jnp.concatenate([jnp.zeros(1, ended.dtype), ended[:-1]]) == 0

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        plots.band(folder.parent / "returns.png", folder.parent / "metrics.jsonl", "return", "return of an episode")
        if settings.env in PLANES:
            plane = PLANES[settings.env]
            x, y = (np.linspace(-reach, reach, 61) for reach in plane.reach)
            chances, values = judge(params, jnp.asarray(plane.observe(*np.meshgrid(x, y)), jnp.float32))
            shown = {f"probability of {plane.action}": chances[..., -1], "value": values}
            plots.surfaces(folder / "latest.png", x, y, shown, plane.labels)
            seen, own = map(np.asarray, episode(params))
            chosen = np.linspace(0, own.sum() - 1, FRAMES).astype(int)
            frames = [plane.draw(seen[i]) for i in chosen]
            plots.lines(folder / "rollout.png", frames, [str(i) for i in chosen], plane.size)
        else:
            chances, values = map(np.asarray, judge(params, jnp.eye(env.observation_dim)))
            exact = mdp.policy_iteration(TABLES[settings.env](), settings.discount)[0]
            with plots.figure(folder / "latest.png", 1, 2) as ((left, right),):
                left.bar(range(len(exact)), values, alpha=0.7, label="learned")
                left.plot(range(len(exact)), exact, "o", color=plots.COLOURS[1], label="of the best policy, exact")
                left.set(xlabel="state", ylabel="value")
                for action, column in enumerate(chances.T):
                    right.plot(range(len(exact)), column, "o-", label=f"action {action}")
                right.set(xlabel="state", ylabel="probability", ylim=(-0.05, 1.05), xticks=range(len(exact)))

    return write_figures


TABLES: dict[str, Callable[[], mdp.MDP]] = {
    "chain": tables.chain_mdp,
    "grid": tables.grid_mdp,
    **{f"ladder{rung}": functools.partial(tables.ladder_mdp, rung) for rung in range(1, 6)},
}


@dataclasses.dataclass(frozen=True)
class Plane:
    """Two of an environment's numbers that say most, and how it looks.

    Fields:
      labels, reach: of the two numbers.
      observe: from arrays of the two to observations [... o], the other numbers being 0.
      action: what the last action does.
      draw: polylines of an observation.
      size: half the width of a drawing.
    """

    labels: tuple[str, str]
    reach: tuple[float, float]
    observe: Callable[[np.ndarray, np.ndarray], np.ndarray]
    action: str
    draw: Callable[[np.ndarray], list[np.ndarray]]
    size: float


def _poles(seen: np.ndarray) -> list[np.ndarray]:
    x, theta = seen[0], seen[2]
    cart = np.array([[x - 0.25, 0], [x + 0.25, 0]])
    return [cart, np.array([[x, 0], [x + np.sin(theta), np.cos(theta)]])]


def _links(seen: np.ndarray) -> list[np.ndarray]:
    first, both = np.arctan2(seen[1], seen[0]), np.arctan2(seen[1], seen[0]) + np.arctan2(seen[3], seen[2])
    joint = np.array([np.sin(first), -np.cos(first)])
    tip = joint + np.array([np.sin(both), -np.cos(both)])
    return [np.array([[-2.0, 0.0], [2.0, 0.0]]) * 0.1, np.stack([np.zeros(2), joint, tip])]


PLANES = {
    "cartpole": Plane(
        ("angle", "its rate"), (0.21, 2.0),
        lambda x, y: np.stack([0 * x, 0 * x, x, y], -1), "right", _poles, 1.4,
    ),
    "acrobot": Plane(
        ("angle of the first link", "its rate"), (np.pi, 6.0),
        lambda x, y: np.stack([np.cos(x), np.sin(x), 1 + 0 * x, 0 * x, y, 0 * x], -1), "torque 1", _links, 2.2,
    ),
}  # fmt: skip


def main(argv: Sequence[str]) -> None:
    """Train as the command line says."""
    loop.run("actor_critic", config.parse(Config, "actor_critic", argv), build, SOURCE)


if __name__ == "__main__":
    process.main(main)
