"""Execution: steps over runs, here or on joblib's workers."""

from __future__ import annotations

import logging
import pickle
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from mltraq_ds.errors import RunError, RunFailedWarning, UsageError, WorkerDiedError
from mltraq_ds.place import Place, Unreachable, shareable
from mltraq_ds.settings import Settings, options
from mltraq_ds.storage.parallel import core_count
from mltraq_ds.tracking.run import Run, Step

__all__ = ["BACKENDS", "execute_runs"]

_SHOWN = 5

_LOG = logging.getLogger("mltraq_ds")

#: Names of `execution.backend`: joblib's words; None is joblib's default (``loky``).
BACKENDS = ("loky", "multiprocessing", "sequential", "threading")


@dataclass(frozen=True, slots=True)
class _Task:
    """What a worker is sent: one run and everything it needs, resolved."""

    run: Run
    steps: list[Step]
    place: Place | Unreachable
    seed: int
    settings: Settings | None

    def __call__(self) -> Run:
        given = nullcontext() if self.settings is None else options.given(self.settings)
        with given, _seeded(self.seed), self.run.recording(reraise=False, place=self.place):
            for step in self.steps:
                step(self.run)
        return self.run


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the generators of `random` and, if it is in use, numpy; put them back afterwards."""
    numpy = sys.modules.get("numpy")
    state, numpy_state = random.getstate(), numpy.random.get_state() if numpy else None
    random.seed(seed)
    if numpy:
        numpy.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(numpy_state)


def execute_runs(
    runs: Sequence[Run],
    steps: list[Step],
    *,
    place: Place,
    n_jobs: int,
    backend: str | None,
    random_seed: int,
    settings: Settings,
    show_progress: bool,
    keep: Callable[[Run], None],
) -> None:
    """Execute the steps of all runs.

    Parameters
    ----------
    runs : sequence of Run
        Changed in place where they are executed in this process.
    steps : list of callable
        Called one after another with the run.
    place : Place
        What DataStoreIO means inside the steps.
    n_jobs : int
        Number of workers; 1 is this process, -1 as many as there are processors.
    backend : str or None
        One of `BACKENDS`; None is joblib's default.
    random_seed : int
        The run at position i is seeded with ``random_seed + i``, wherever it runs.
    settings : Settings
        Options that steps on workers see; in this thread they see those of this thread.
    show_progress : bool
        Show a progress bar.
    keep : callable
        Given each run when it is done, those of workers as new objects: whatever happens to the others, to a worker, or
        by Ctrl-C, what is done is kept.

    Raises
    ------
    WorkerDiedError
        If a worker was killed.  The runs that were done have been given to `keep`; the others are as they were.

    Warns
    -----
    RunFailedWarning
        If a step raised in some runs; each keeps its exception, the others went on.
    """
    if backend is not None and backend not in BACKENDS:
        raise UsageError(f"execution.backend {backend!r} is unknown. Use one of {', '.join(BACKENDS)}.")
    if n_jobs == 0 or n_jobs < -1:
        raise UsageError(f"n_jobs={n_jobs} is refused. Use a positive number, or -1 for one worker a processor.")
    workers = min(core_count() if n_jobs == -1 else n_jobs, max(len(runs), 1))
    shared = place if backend in ("sequential", "threading") or workers == 1 else shareable(place)
    given = None if backend == "sequential" or workers == 1 else settings
    tasks = [_Task(run, steps, shared, random_seed + position, given) for position, run in enumerate(runs)]
    executed = []
    try:
        for run in _progress(_results(tasks, workers, backend), len(tasks), show_progress):
            keep(run)
            executed.append(run)
    except _broken_pool() as error:
        raise _worker_died(runs, executed, error) from error
    finally:
        _report(executed)


def _broken_pool() -> type[Exception]:
    # Imported when something was raised: it brings multiprocessing with it.  loky's own error is a subclass.
    from concurrent.futures.process import BrokenProcessPool

    return BrokenProcessPool


def _worker_died(runs: Sequence[Run], executed: Sequence[Run], error: Exception) -> WorkerDiedError:
    done = {run.id_run for run in executed}
    waiting = [run.id_run for run in runs if run.id_run not in done]
    shown = ", ".join([*waiting[:_SHOWN], *(["…"] if len(waiting) > _SHOWN else [])])
    return WorkerDiedError(
        f"{len(done)} of {len(runs)} runs were executed before a worker process was killed "
        f"({str(error).partition('.')[0]}); they are in the experiment, with their results, and can be persisted. Not "
        f"executed: {shown}. Use fewer n_jobs if memory was short, or look for the run whose step ends the process."
    )


def _results(tasks: list[_Task], workers: int, backend: str | None) -> Iterator[Run]:
    if workers == 1 or backend == "sequential":
        return (task() for task in tasks)
    import joblib

    # joblib gives the results of forked processes when all are there.
    return_as = "list" if backend == "multiprocessing" else "generator_unordered"
    parallel = joblib.Parallel(n_jobs=workers, backend=backend, return_as=return_as)
    if backend == "threading":
        done: Iterator[Run] = parallel(joblib.delayed(_call)(task) for task in tasks)
        return done
    return (pickle.loads(sent) for sent in parallel(joblib.delayed(_call_and_send)(task) for task in tasks))


def _call(task: _Task) -> Run:
    return task()


def _call_and_send(task: _Task) -> bytes:
    """Return the run as bytes; a result that cannot travel fails this run only, and by name."""
    # What loky would send it by: classes made in a notebook travel too.
    from joblib.externals.loky.backend.reduction import dumps

    run = task()
    try:
        return bytes(dumps(run))
    except Exception:  # noqa: BLE001 - pickling calls code of the values, which may raise anything
        _drop_what_stays(run, dumps)
        return bytes(dumps(run))


def _drop_what_stays(run: Run, dumps: Callable[[Any], Any]) -> None:
    reasons = []
    for part in ("params", "config", "fields", "vars"):
        values = getattr(run, part)
        for name in list(values):
            try:
                dumps(values[name])
            except Exception as error:  # noqa: BLE001 - as above
                del values[name]
                reasons.append(f"{part}.{name} ({type(error).__name__}: {error})")
    if all(reason.startswith("vars.") for reason in reasons):
        return  # the steps had the use of them; they are nobody's result
    run.fail(
        RunError(
            f"TypeError: the results cannot be sent back from the worker because of {', '.join(reasons)}. The other "
            "values "
            "were kept. Convert these to a supported type, or use n_jobs=1.",
            "TypeError",
        )
    )


def _progress(results: Iterator[Run], total: int, show: bool) -> Iterator[Run]:
    if not show or total < 2:
        return results
    from tqdm.auto import tqdm

    return iter(tqdm(results, total=total, desc="runs", unit="run"))


def _report(runs: Sequence[Run]) -> None:
    failed = [run for run in runs if run.exception is not None]
    for run in failed:
        _LOG.error("Run %s failed: %s\n%s", run.id_run, run.exception, run.exception.traceback if run.exception else "")
    if failed:
        first = failed[0]
        warnings.warn(
            f"{len(failed)} of {len(runs)} runs failed; the others went on. The first is run {first.id_run}: "
            f"{first.exception} — see run.exception.traceback of each.",
            RunFailedWarning,
            stacklevel=4,
        )
