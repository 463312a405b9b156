"""The one training loop: data in; checkpoints, metrics and pictures out.

A script hands over a ``Task``; everything about devices, resuming, reports and signals happens here.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from genjax import data
from genjax.training import parallel, state, steps
from genjax.types import Draw, Key, Loss, Params
from train import checkpoint, config, pictures, record, runtime, sources

_INIT_STREAM, _HELDOUT_STREAM = 0xFFFFFFFE, 0xFFFFFFFD  # beside those of training/steps.py


class Task(NamedTuple):
    """What a script trains.

    Fields:
      init: ``(key) -> params``.
      optimizer: from optax, and its learning rate as a function of the steps done.
      draw: where a batch comes from; made with ``axis_name=parallel.AXIS``.
      loss: on rows of the data set as they lie in memory.
      heldout_loss: the same for a report, on rows of the held-out split.
      figures: draws the pictures of a report: ``(folder, step, params, dataset)``.
    """

    init: Callable[[Key], Params]
    optimizer: tuple[optax.GradientTransformation, optax.Schedule]
    draw: Draw
    loss: Loss
    heldout_loss: Loss
    figures: Callable[[pathlib.Path, int, Params, data.Dataset], None]


Build = Callable[[Any, tuple[int, int, int]], Task]
"""``(settings, shape of an image) -> Task``; a ValueError means that the settings do not fit the images."""


def run(script: str, settings: config.Run, build: Build) -> None:
    """Train as the settings say: from the start, or on from the workdir's last checkpoint.

    Everything that can be refused is refused before anything slow starts, and before anything is written.
    """
    if settings.distributed:
        runtime.join_machines()
    sources.check(settings)
    devices = runtime.devices(settings.devices, settings.batch_size)
    workdir = pathlib.Path(settings.workdir).absolute()
    if not settings.restart:
        record.check(workdir, settings)
    if shape := sources.shape(settings):
        _fit(build, settings, shape)
    with checkpoint.lock(workdir):
        dataset = sources.load(settings)
        task = _fit(build, settings, dataset.train["image"].shape[1:])
        if settings.batch_size > (rows := len(dataset.train["image"])):
            raise config.UsageError(
                f"batch_size {settings.batch_size}: {dataset.name} has {rows} training examples; use fewer"
            )
        if settings.restart:
            record.clear(workdir)
        name = record.run_id(workdir)
        with checkpoint.Checkpoints(workdir, run_id=name) as checkpoints, runtime.on_sigterm() as stop:
            key = jax.random.key(settings.seed)
            start = jax.jit(
                lambda: state.create(task.init(jax.random.fold_in(key, _INIT_STREAM)), task.optimizer[0]),
                compiler_options=runtime.run_once(),
            )
            saved = checkpoints.restore(jax.eval_shape(start))
            if saved and saved.step >= settings.steps:
                return record.say(f"nothing to do: {workdir} has its {saved.step} steps; ask for more with --steps")
            record.write(workdir, script, name, settings, dataset)
            if saved:
                record.say(f"going on from step {saved.step}")
                carry, interval = saved.state, record.Interval(saved.meta["interval"])
            else:
                carry, interval = start(), record.Interval()
            _train(settings, task, dataset, workdir, devices, checkpoints, stop, key, carry, interval)


def _train(settings, task: Task, dataset, workdir, devices, checkpoints, stop, key: Key, carry, interval) -> None:
    optimizer, rate = task.optimizer
    done = int(carry.step)
    carry, rows = parallel.replicate((carry, dict(dataset.train)), devices)
    heldout = jax.device_put(dict(dataset.heldout), devices[0])
    step = steps.gradient_step(task.loss, optimizer, ema_decay=settings.ema, axis_name=parallel.AXIS)
    advance = functools.cache(lambda num: parallel.spread(steps.repeat(step, task.draw, num), devices))
    evaluate = jax.jit(steps.evaluate(task.heldout_loss, settings.batch_size))
    heldout_key = jax.random.fold_in(key, _HELDOUT_STREAM)
    log = record.Log(workdir, settings, done)
    while done < settings.steps:
        num = _until_boundary(settings, done)
        with log.timed(num):
            carry, on_device = advance(num)(key, carry, rows)
            metrics = {name: np.asarray(values, np.float64) for name, values in on_device.items()}
        _check_finite(metrics, done)
        interval.add(metrics)
        done += num
        report = done % settings.every == 0 or done == settings.steps
        score = None
        if report or done % settings.log_every == 0:
            line = {"step": done, **interval.means(), "lr": float(f"{rate(done - 1):.6g}")}
            if report and len(dataset.heldout["image"]):  # a folder of one image holds out none
                means = evaluate(heldout_key, parallel.local(carry.ema_params), heldout)
                line |= {f"heldout_{name}": float(value) for name, value in means.items()}
                score = line["heldout_loss"]
            log.write(line)
            if record.aligned(settings, done):
                interval = record.Interval()
        if report and jax.process_index() == 0:
            task.figures(workdir / "samples", done, parallel.local(carry.ema_params), dataset)
            pictures.curves(workdir / "curves.png", log.path)
        stopping = stop()
        if report or stopping:
            checkpoints.save(done, carry, {"interval": interval.to_json()}, score=score)
        checkpoints.check()
        if stopping and done < settings.steps:
            checkpoints.wait()
            raise runtime.Preempted(f"stopped after step {done}, saved; the same command goes on from there")
    checkpoints.wait()
    log.close()


def _until_boundary(settings: config.Run, done: int) -> int:
    """Steps to the next line, report or end; calls begin and end at the same steps in every run."""
    periods = settings.steps_per_call, settings.log_every, settings.every
    return min(settings.steps - done, *(period - done % period for period in periods))


def _check_finite(metrics: dict[str, np.ndarray], done: int) -> None:
    for i, loss in enumerate(metrics["loss"]):
        if not np.isfinite(loss):
            raise runtime.NonFinite(
                f"the loss is {loss} at step {done + i + 1} (gradient norm {metrics['grad_norm'][i]:g}). "
                "Checkpoints before it are untouched. A smaller --lr, a --warmup or a --clip usually helps"
            )


def _fit(build: Build, settings: config.Run, shape: tuple[int, int, int]) -> Task:
    try:
        return build(settings, shape)
    except ValueError as error:
        raise config.UsageError(str(error)) from error
