"""Training of a task: everything that can be refused is refused first, then a run starts or resumes."""

import math
import os
import pathlib
import uuid

import jax
import numpy as np

from genjax import data
from genjax.training import state
from train.checkpoint import steps, store
from train.checkpoint.lock import resolve
from train.run import claims, config, distributed, logging, process, record, signals, sources, sweep, usage
from train.run.programs import Programs
from train.run.task import Build, Shape, num_rows
from train.run.trainer import Trainer


@usage.library_errors()
def run(script: str, settings: config.Run, build: Build, source: sources.Source = sources.IMAGES) -> None:
    """Train as the settings say: from the start, or from the last checkpoint in the workdir.

    Everything that can be refused is refused before anything slow starts, and before anything is written.

    Args:
      script: name of the command.
      settings: settings of the command.
      build: recipe that makes the task.
      source: data set that the settings name.

    Raises:
      UsageError: the settings do not fit each other, the data or the run in the workdir.
      CheckpointError: the checkpoints in the workdir cannot be used.
      DataError: the data cannot be read.
      Preempted: a signal has stopped the run, which is saved.
      NonFinite: a loss or a figure is not finite.
    """
    if settings.distributed:
        distributed.join()
    source.check(settings)
    devices = process.devices(settings.devices, settings.batch_size)
    ensemble = sweep.ensemble(settings)
    workdir = resolve(settings.workdir)
    record.check(workdir, settings, script)
    shape = source.shape(settings)
    if shape or not source.has_images:
        _programs(build, ensemble, shape)
    with store.lock(workdir):
        dataset = source.load(settings)
        if source.has_images:
            logging.log(data.summary(dataset))
        programs = _programs(build, ensemble, source.shape_of(dataset))
        _check(programs, dataset)
        fingerprint = source.fingerprint(settings, dataset)
        _agree(workdir, settings, fingerprint)
        _train(script, programs, dataset, fingerprint, devices, workdir)


def _train(
    script: str,
    programs: Programs,
    dataset: data.Dataset,
    fingerprint: str,
    devices: list[jax.Device],
    workdir: pathlib.Path,
) -> None:
    """Start the run in a workdir that this process has locked, or resume it, and train it to the last step."""
    ensemble, settings = programs.ensemble, programs.ensemble.settings
    run_id, is_new = _open(workdir, settings, dataset, fingerprint)
    with store.Checkpoints(workdir, run_id=run_id) as checkpoints, signals.on_sigterm(settings.restart) as stop:
        start = jax.jit(lambda: programs.start(*ensemble.keys_and_values), compiler_options=process.run_once())
        saved = checkpoints.restore(jax.eval_shape(start))
        if saved and saved.step >= settings.steps and claims.has_figures(workdir, run_id, saved.step):
            return logging.log(f"nothing to do: {workdir} has its {saved.step} steps; ask for more with --steps")
        owned = record.write(workdir, script, run_id, settings, dataset, fingerprint)
        logging.log_start(workdir, saved.step if saved else None, is_new)
        Trainer(
            task=programs.task_of(None),
            programs=programs,
            dataset=dataset,
            devices=devices,
            workdir=workdir,
            owned=owned,
            checkpoints=checkpoints,
            stop=stop,
            state=saved.state if saved else start(),
            average=logging.MetricAverage(saved.meta.get("interval", {}) if saved else None),
        ).train()


def _programs(build: Build, ensemble: sweep.Ensemble, shape: Shape) -> Programs:
    """Build the programs of a run; nothing is computed.

    Raises:
      UsageError: the settings do not fit the shape of the images, or the swept setting cannot vary within a program.
    """
    try:
        task = build(ensemble.settings, shape)
        programs = Programs(lambda value: task if value is None else build(ensemble.with_value(value), shape), ensemble)
        if ensemble.name:
            programs.check_sweep(_batch(ensemble.settings.batch_size, shape))
        return programs
    except ValueError as error:
        raise config.UsageError(str(error)) from error


def _batch(num: int, shape: Shape) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes and types of ``num`` rows."""
    numbers = jax.ShapeDtypeStruct((num,), np.int32)
    if shape is None:
        return {"row": numbers}
    return {"image": jax.ShapeDtypeStruct((num, *shape), np.uint8), "label": numbers}


def _check(programs: Programs, dataset: data.Dataset) -> None:
    """Refuse a data set that does not fit the task, and a state that does not fit into this machine.

    Raises:
      UsageError: the data set does not fit, or the state does not.
    """
    programs.task_of(None).check(dataset)
    settings = programs.ensemble.settings
    if settings.batch_size > (rows := num_rows(dataset.train)):
        raise config.UsageError(
            f"batch_size {settings.batch_size}: {dataset.name} has {rows} training examples; use fewer"
        )
    _check_memory(jax.eval_shape(programs.start, *programs.ensemble.keys_and_values))


def _agree(workdir: pathlib.Path, settings: config.Run, fingerprint: str) -> None:
    """Compare settings, data and checkpoints with the other processes of the run, where there are any.

    Raises:
      UsageError: they differ.
    """
    if jax.process_count() > 1:
        newest = max(steps.steps(workdir / "checkpoints"), default=None)
        distributed.agree(settings, {"data": fingerprint, "last checkpoint": newest})


def _check_memory(state: state.TrainState) -> None:
    """Refuse a state that this machine cannot hold; only its shapes are looked at."""
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else needed
    if needed > available:
        raise config.UsageError(
            f"parameters, optimizer and average would take {needed / 2**30:,.0f} GiB, and this machine has "
            f"{available / 2**30:,.0f}; make the network smaller, or train fewer at once"
        )


def _open(workdir: pathlib.Path, settings: config.Run, dataset: data.Dataset, fingerprint: str) -> tuple[str, bool]:
    """Choose the run to train: the run in the workdir, or a new run. With ``restart`` the old run is deleted.

    Returns:
      name of the run, and True for a new run.

    Raises:
      UsageError: the run in the workdir has other data.
    """
    old = record.run_id(workdir)
    if old and not settings.restart:
        record.check_data(workdir, dataset, fingerprint)
        return old, False
    if old:
        claims.clear(workdir, old)
    return uuid.uuid4().hex, True
