"""A run in progress: steps on the devices; lines, checkpoints and figures on disk."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from genjax import data
from genjax.training import parallel, state
from train.checkpoint import store
from train.run import claims, config, figures, logging, metrics_file, plots, process, signals, sweep
from train.run.programs import Programs
from train.run.task import Task, num_rows


@dataclasses.dataclass
class Trainer:
    """A run from its current step to its last.

    Attributes:
      task: task of the run; of an ensemble, with the settings as they were given.
      programs: functions of the run, for all members of its ensemble.
      dataset: data set of the run.
      devices: devices of this machine to train on.
      workdir: folder of the run.
      owned: files that the run owns in its folder.
      checkpoints: saved states of the run.
      stop: answer to whether a signal has asked the run to stop.
      state: current state; on the devices after the start.
      average: averages of the metrics since the last line.
    """

    task: Task
    programs: Programs
    dataset: data.Dataset
    devices: list[jax.Device]
    workdir: pathlib.Path
    owned: claims.Claims
    checkpoints: store.Checkpoints
    stop: signals.Stop
    state: state.TrainState
    average: logging.MetricAverage

    def __post_init__(self) -> None:
        self.ensemble: sweep.Ensemble = self.programs.ensemble
        self.settings: config.Run = self.ensemble.settings
        self.members = self.ensemble.keys_and_values
        self.step = int(self.ensemble.first(self.state.step))
        self.state, self.rows = parallel.replicate((self.state, dict(self.dataset.train)), self.devices)
        self.heldout = jax.device_put(dict(self.dataset.heldout), self.devices[0])
        self.log = logging.RunLog(self.workdir, self.settings, self.step, self.owned)
        self._run = functools.cache(lambda num: parallel.distribute(self.programs.advance(num), self.devices))
        self._evaluate = jax.jit(self.programs.evaluate)

    def train(self) -> None:
        """Train to the last step.

        Raises:
          NonFinite: a loss or a figure is not finite.
          CheckpointError: a checkpoint could not be saved.
          Preempted: a signal has stopped the run, which is saved.
        """
        self._write_missing_figures()
        while self.step < self.settings.steps:
            self.advance()
            due = self._is_report()
            score = self.write_line(due)
            stopping = self.stop()
            if due or stopping:
                self.save(score)
            if due and not stopping:
                self.report()
            if self.step < self.settings.steps and (stopping or (due and self.stop())):
                command = signals.resume_hint(self.settings.restart)
                raise process.Preempted(f"stopped after step {self.step}, saved; {command} from there")
        self.log.close()

    def advance(self) -> None:
        """Train to the next boundary: the end of a call, a line, a report or the last step.

        Raises:
          NonFinite: a loss is not finite; the message names the step.
        """
        num = _steps_to_boundary(self.settings, self.step)
        with self.log.timed(num):
            self.state, on_device = self._run(num)(self.members, self.state, self.rows)
            metrics = {name: np.asarray(values, np.float64).reshape(num, -1) for name, values in on_device.items()}
        _check_finite(metrics, self.step, self.ensemble)
        self.average.add({name: values.mean(axis=1) for name, values in metrics.items()})
        self.step += num

    def evaluate(self) -> dict[str, np.ndarray]:
        """Score the average parameters on the held-out rows: metrics [m] by name."""
        means = self._evaluate(*self.members, parallel.unreplicate(self.state.ema_params), self.heldout)
        return {name: np.asarray(values, np.float64).reshape(-1) for name, values in means.items()}

    def write_line(self, due: bool) -> float | None:
        """Write a line of ``metrics.jsonl`` where one is due; with the held-out metrics at a report.

        Returns:
          held-out score, lower is better; None where there is none.
        """
        if not due and self.step % self.settings.log_every:
            return None
        rate = self.task.learning_rate(self.step - 1)
        line: dict[str, Any] = {"step": self.step, **self.average.means(), "lr": float(f"{rate:.6g}")}
        if due and num_rows(self.dataset.heldout):  # a folder of one image holds out none
            heldout = self.evaluate()
            line |= {f"heldout_{name}": float(values.mean()) for name, values in heldout.items()}
            if self.ensemble.many:
                line["heldout_members"] = {name: values.tolist() for name, values in heldout.items()}
        self.checkpoints.check()
        self.log.write(line)
        if metrics_file.is_boundary(self.settings, self.step):
            self.average = logging.MetricAverage()
        return line.get("heldout_loss")

    def save(self, score: float | None) -> None:
        """Save the state, and return when it is on disk.

        Raises:
          CheckpointError: the state could not be saved.
        """
        self.owned.add_step(self.step)
        self.checkpoints.save(self.step, self.state, {"interval": self.average.to_json()}, score=score)
        self.checkpoints.wait()

    def report(self) -> None:
        """Write the figures of a report, last of all: everything else is saved by now."""
        self._write_figures(self._samples, self._curves, self._comparison)

    def _is_report(self) -> bool:
        return self.step % self.settings.every == 0 or self.step == self.settings.steps

    def _write_missing_figures(self) -> None:
        """Write the figures of the untrained model, where the task asks for them; or those of an interrupted report."""
        if self.task.figures_at_start and self.step == 0:
            self._write_figures(self._samples)
        if self.step and self._is_report() and not self.owned.has_figures(self.step):
            self.report()

    def _write_figures(self, *writers: Callable[[], None]) -> None:
        if jax.process_index() == 0:
            figures.write(self.step, writers, self.owned, self.stop.here)

    def _samples(self) -> None:
        params = self.ensemble.first(parallel.unreplicate(self.state.ema_params))
        self.task.write_figures(self.workdir / "samples", self.step, params, self.dataset)

    def _curves(self) -> None:
        plots.curves(self.workdir / "curves.png", self.log.path, self.task.curves)

    def _comparison(self) -> None:
        if metrics := self.log.heldout_members(self.step):
            self.task.compare(self.workdir, self.ensemble, metrics)


def _steps_to_boundary(settings: config.Run, step: int) -> int:
    """Steps to the next line, report or end; calls begin and end at the same steps in every run."""
    periods = settings.steps_per_call, settings.log_every, settings.every
    return min(settings.steps - step, *(period - step % period for period in periods))


def _check_finite(metrics: Mapping[str, np.ndarray], step: int, ensemble: sweep.Ensemble) -> None:
    """Raise NonFinite, naming the step and the member, unless the losses [num m] after this step are finite."""
    for i, losses in enumerate(metrics["loss"]):
        if not np.isfinite(losses).all():
            m = int(np.argmin(np.isfinite(losses)))
            where = f"step {step + i + 1}" + (f" for {ensemble.describe(m)}" if ensemble.many else "")
            raise process.NonFinite(
                f"the loss is {losses[m]} at {where} (gradient norm {metrics['grad_norm'][i, m]:g}). "
                "Checkpoints before it are untouched. A smaller --lr, a --warmup or a --grad-clip usually helps"
            )
