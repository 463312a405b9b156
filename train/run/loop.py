"""The one training loop: data in; checkpoints, metrics and pictures out.

A script hands over a ``Task``; everything about devices, resuming, reports and signals happens here.
"""

import functools
import math
import os
import uuid
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from genjax import data, random
from genjax.random import Stream
from genjax.training import parallel, state, steps
from genjax.types import Key, Params
from train.checkpoint import steps as saved_steps
from train.checkpoint import store
from train.checkpoint.lock import resolve
from train.run import claims, config, distributed, drawing, logging, plots, process, signals, sources, sweep, usage
from train.run.task import Build, Task


@usage.of_library()
def run(script: str, settings: config.Run, build: Build, source: sources.Source = sources.IMAGES) -> None:
    """Train as the settings say: from the start, or on from the workdir's last checkpoint.

    Everything that can be refused is refused before anything slow starts, and before anything is written.

    Args:
      script: its name.
      settings: of it.
      build: what to train.
      source: of the data set that the settings name.

    Raises:
      UsageError, CheckpointError, DataError: what is wrong, and what to do.
      Preempted: a signal has stopped the run, which is saved.
      NonFinite: the loss is.
    """
    if settings.distributed:
        distributed.join()
    source.check(settings)
    devices = process.devices(settings.devices, settings.batch_size)
    lineup = sweep.of(settings)
    workdir = resolve(settings.workdir)
    logging.check(workdir, settings, script)
    if shape := source.shape(settings):
        _fit(build, lineup, shape)
    with store.lock(workdir):
        dataset = source.load(settings)
        if isinstance(settings, config.ImageRun):
            logging.say(data.summary(dataset))
        shape = dataset.train["image"].shape[1:]
        task = _fit(build, lineup, shape)
        task.check(dataset)
        task_of = lambda value: task if value is None else build(lineup.with_value(value), shape)
        if settings.batch_size > (rows := len(dataset.train["image"])):
            raise config.UsageError(
                f"batch_size {settings.batch_size}: {dataset.name} has {rows} training examples; use fewer"
            )
        _check_memory(jax.eval_shape(_start(task_of, lineup), *lineup.who))
        fingerprint = source.fingerprint(settings, dataset)
        if jax.process_count() > 1:
            there = max(saved_steps.steps(workdir / "checkpoints"), default=None)
            distributed.agree(settings, {"data": fingerprint, "last checkpoint": there})
        begun = logging.run_id(workdir)
        if not settings.restart:
            logging.check_data(workdir, dataset, fingerprint)
        if settings.restart and begun:
            claims.clear(workdir, begun)
        name = begun if begun and not settings.restart else uuid.uuid4().hex
        with store.Checkpoints(workdir, run_id=name) as checkpoints, signals.on_sigterm(settings.restart) as stop:
            start = jax.jit(lambda: _start(task_of, lineup)(*lineup.who), compiler_options=process.run_once())
            saved = checkpoints.restore(jax.eval_shape(start))
            if saved and saved.step >= settings.steps and claims.drawn(workdir, name, saved.step):
                return logging.say(f"nothing to do: {workdir} has its {saved.step} steps; ask for more with --steps")
            own = logging.write(workdir, script, name, settings, dataset, fingerprint)
            if saved:
                logging.say(f"going on from step {saved.step}")
                carry, interval = saved.state, logging.Interval(saved.meta.get("interval", {}))
            else:
                if begun and not settings.restart:
                    logging.say(f"there is no checkpoint in {workdir}, so that the run starts at step 0")
                carry, interval = start(), logging.Interval()
            _train(task, task_of, lineup, dataset, workdir, own, devices, checkpoints, stop, carry, interval)


def _train(task: Task, task_of, lineup, dataset, workdir, own, devices, checkpoints, stop, carry, interval) -> None:
    settings = lineup.settings
    rate = task.learning_rate
    done = int(lineup.first(carry.step))
    carry, rows = parallel.replicate((carry, dict(dataset.train)), devices)
    heldout = jax.device_put(dict(dataset.heldout), devices[0])
    advance = functools.cache(lambda num: parallel.distribute(_advance(task_of, lineup, num), devices))
    evaluate = jax.jit(_evaluate(task_of, lineup))
    who = lineup.who
    log = logging.Log(workdir, settings, done, own)
    first = lambda: lineup.first(parallel.unreplicate(carry.ema_params))
    figures = lambda: task.write_figures(workdir / "samples", done, first(), dataset)

    def draw(*parts: Callable[[], None]) -> None:
        if jax.process_index() == 0:
            drawing.draw(done, parts, own, stop.here)

    def report() -> None:
        """The pictures, last of all: everything else is saved by now."""
        compare = lambda: task.compare(workdir, lineup, log.members(done)) if log.members(done) else None
        draw(figures, lambda: plots.curves(workdir / "curves.png", log.path, task.curves), compare)

    if task.figures_at_start and done == 0:
        draw(figures)
    if done and (done % settings.every == 0 or done == settings.steps) and not own.drawn(done):
        report()  # the last start did not come to it
    while done < settings.steps:
        num = _until_boundary(settings, done)
        with log.timed(num):
            carry, on_device = advance(num)(who, carry, rows)
            metrics = {name: np.asarray(values, np.float64).reshape(num, -1) for name, values in on_device.items()}
        _check_finite(metrics, done, lineup)
        interval.add({name: values.mean(axis=1) for name, values in metrics.items()})
        done += num
        due = done % settings.every == 0 or done == settings.steps
        score = None
        if due or done % settings.log_every == 0:
            line = {"step": done, **interval.means(), "lr": float(f"{rate(done - 1):.6g}")}
            if due and len(dataset.heldout["image"]):  # a folder of one image holds out none
                means = evaluate(*who, parallel.unreplicate(carry.ema_params), heldout)
                found = {name: np.asarray(values, np.float64).reshape(-1) for name, values in means.items()}
                line |= {f"heldout_{name}": float(values.mean()) for name, values in found.items()}
                score = line["heldout_loss"]
                if lineup.many:
                    line["heldout_members"] = {name: values.tolist() for name, values in found.items()}
            checkpoints.check()
            log.write(line)
            if logging.aligned(settings, done):
                interval = logging.Interval()
        stopping = stop()
        if due or stopping:
            own.step(done)
            checkpoints.save(done, carry, {"interval": interval.to_json()}, score=score)
            checkpoints.wait()
        if due and not stopping:
            report()
        if done < settings.steps and (stopping or (due and stop())):
            command = signals.going_on(settings.restart)
            raise process.Preempted(f"stopped after step {done}, saved; {command} from there")
    log.close()


def _until_boundary(settings: config.Run, done: int) -> int:
    """Steps to the next line, report or end; calls begin and end at the same steps in every run."""
    periods = settings.steps_per_call, settings.log_every, settings.every
    return min(settings.steps - done, *(period - done % period for period in periods))


def _check_finite(metrics: dict[str, np.ndarray], done: int, lineup: sweep.Members) -> None:
    for i, losses in enumerate(metrics["loss"]):
        if not np.isfinite(losses).all():
            m = int(np.argmin(np.isfinite(losses)))
            place = f"step {done + i + 1}" + (f" for {lineup.describe(m)}" if lineup.many else "")
            raise process.NonFinite(
                f"the loss is {losses[m]} at {place} (gradient norm {metrics['grad_norm'][i, m]:g}). "
                "Checkpoints before it are untouched. A smaller --lr, a --warmup or a --grad-clip usually helps"
            )


def _start(task_of: Callable[[Any], Task], lineup: sweep.Members):
    def start(key: Key, value: Any) -> state.TrainState:
        task = task_of(value)
        return state.create(task.init(random.stream(key, Stream.INIT)), task.optimizer)

    return lineup.lift(start, ())


def _advance(task_of: Callable[[Any], Task], lineup: sweep.Members, num: int) -> parallel.Run:
    def advance(key: Key, value: Any, carry: state.TrainState, rows):
        task = task_of(value)
        step = steps.gradient_step(
            task.loss, task.optimizer, ema_decay=lineup.settings.ema_decay, axis_name=parallel.AXIS
        )
        return steps.repeat(task.wrap_step(step), task.sample_batch, num)(key, carry, rows)

    lifted = lineup.lift(advance, (0, None), (0, 1))
    return lambda who, carry, rows: lifted(*who, carry, rows)


def _evaluate(task_of: Callable[[Any], Task], lineup: sweep.Members):
    def evaluate(key: Key, value: Any, params: Params, rows):
        task = task_of(value)
        score = steps.evaluate(task.evaluate, lineup.settings.batch_size)
        return score(random.stream(key, Stream.HELDOUT), params, rows)

    return lineup.lift(evaluate, (0, None))


def _fit(build: Build, lineup: sweep.Members, shape: tuple[int, int, int]) -> Task:
    """Refuse settings that do not fit the images, or cannot vary within a program, before anything is computed."""
    try:
        task = build(lineup.settings, shape)
        if lineup.name:
            _trial(build, lineup, shape)
        return task
    except ValueError as error:
        raise config.UsageError(str(error)) from error


def _check_memory(carry: state.TrainState) -> None:
    """Refuse a state that this machine cannot hold; only its shapes are looked at."""
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(carry))
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else needed
    if needed > there:
        raise config.UsageError(
            f"parameters, optimizer and average would take {needed / 2**30:,.0f} GiB, and this machine has "
            f"{there / 2**30:,.0f}; make the network smaller, or train fewer at once"
        )


def _trial(build: Build, lineup: sweep.Members, shape: tuple[int, int, int]) -> None:
    """Refuse members that cannot be trained together, by a step and an evaluation that are traced only."""
    num = lineup.settings.batch_size
    task_of = lambda value: build(lineup.with_value(value), shape)
    rows = {"image": jax.ShapeDtypeStruct((num, *shape), np.uint8), "label": jax.ShapeDtypeStruct((num,), np.int32)}

    def trial(keys: Key, values: Any, rows):
        who = (keys, values)
        carry, metrics = _advance(task_of, lineup, 1)(who, _start(task_of, lineup)(*who), rows)
        return metrics, _evaluate(task_of, lineup)(*who, carry.ema_params, rows)

    sweep.check(lineup, jax.vmap(trial, in_axes=None, axis_name=parallel.AXIS, axis_size=1), rows)
