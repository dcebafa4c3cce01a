"""Run: params in, fields out."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from mltraq_ds import ids
from mltraq_ds.bunch import Bunch
from mltraq_ds.errors import RunError, UsageError
from mltraq_ds.lazy import LazyBunch, copied
from mltraq_ds.place import Place, Unreachable
from mltraq_ds.store.records import RunContent
from mltraq_ds.tracking.recording import Recording
from mltraq_ds.tracking.table import rows_of, shown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run", "Runs", "Step"]

_SHOWN = 5

Step = Callable[["Run"], Any]

_PARTS = ("params", "config", "fields", "vars")
_NAMES = {*_PARTS, "id_run", "id_experiment", "exception", "status", "started", "finished", "about", "after_persist"}


class Run:
    """One run of an experiment.

    Parameters
    ----------
    id_run : str, optional
        Id; a new one by default.
    id_experiment : str, optional
        The experiment it belongs to.
    params : mapping, optional
        What distinguishes this run from others.
    config : mapping, optional
        What is the same for all runs of one `execute`.
    fields : mapping, optional
        Results: scalars, arrays, `DataStore` …

    Attributes
    ----------
    vars : Bunch
        Values shared by the steps of the run; not persisted.
    exception : RunError or None
        The step that raised, with type, message and traceback as text.
    status : str
        ``created``, ``running``, ``success`` or ``failed``; ``cancelled`` if a run record says so.
    about : Bunch
        What people and tools note of the run, JSON: ``tags``, ``notes``, ``warnings`` …
    after_persist : list of callable
        What steps want done as soon as the run is in the store: called once with run and place, after the commit.
    """

    id_run: str
    id_experiment: str | None
    params: LazyBunch
    config: LazyBunch
    fields: LazyBunch
    vars: Bunch
    exception: RunError | None
    status: str
    started: str | None
    finished: str | None
    about: Bunch
    after_persist: list[Callable[[Run, Place], Any]]

    def __init__(
        self,
        id_run: str | None = None,
        id_experiment: str | None = None,
        params: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        # Past `__setattr__`, which is for what users set: a thousand runs are made at a time.
        vars(self).update(
            id_run=str(id_run or ids.new_uuid()),
            id_experiment=id_experiment,
            params=_bunch("params", params),
            config=_bunch("config", config),
            fields=_bunch("fields", fields),
            vars=Bunch(),
            exception=None,
            status="created",
            started=None,
            finished=None,
            about=Bunch(),
            after_persist=[],
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _NAMES:
            raise AttributeError(
                f"A run has no attribute {name!r}, so it would not be persisted. Use run.fields.{name} for a result, "
                f"run.params.{name} for a parameter, run.vars.{name} for what only the steps need."
            )
        if name in _PARTS and not isinstance(value, Bunch):
            value = _bunch(name, value)
        if name == "about" and not isinstance(value, Bunch):
            value = Bunch(value)
        if name == "exception" and not isinstance(value, RunError | None):
            raise UsageError(
                f"The exception of a run is a RunError or None, not a {type(value).__name__}. Use "
                f"run.fail(RunError({str(value)!r:.80}, {type(value).__name__!r})), or raise it in a step."
            )
        super().__setattr__(name, value)

    def fail(self, error: RunError) -> None:
        """Note what ended the run."""
        self.exception, self.status = error, "failed"

    def execute(self, steps: Step | Sequence[Step]) -> Run:
        """Call the steps one after another with this run; the first that raises ends it and is kept as `exception`.

        An empty list changes nothing.
        """
        if listed := as_steps(steps):
            with self.recording(reraise=False):
                for step in listed:
                    step(self)
        return self

    def recording(self, *, reraise: bool, place: Place | Unreachable | None = None) -> Recording[Run]:
        """Return the ``with`` block in which this run executes."""
        return Recording(lambda: (self, place), reraise=reraise)

    def df(self) -> pd.DataFrame:
        """Return params and fields as a table of one row."""
        return Runs([self]).df()

    def row(self) -> dict[str, Any]:
        """Return params and fields by the names of `rows_of`."""
        return rows_of([self])[0]

    def __repr__(self) -> str:
        return f"Run(id_run={self.id_run!r}, status={self.status!r}, params={self.params!r}, fields={self.fields!r})"

    def to_content(self) -> RunContent:
        """Return what is written of this run."""
        failure = self.exception
        return RunContent(
            id_run=self.id_run,
            params=self.params,
            config=self.config,
            fields=self.fields,
            status=self.status,
            exception=None
            if failure is None
            else {"type": failure.type_name, "message": failure.message, "traceback": failure.traceback},
            started=self.started,
            finished=self.finished,
            about=dict(self.about),
        )

    @classmethod
    def from_content(cls, content: RunContent, id_experiment: str) -> Run:
        """Return the run that was written; its values are still in their blobs."""
        run = cls(content.id_run, id_experiment, content.params, content.config, content.fields)
        run.status, run.started, run.finished = content.status, content.started, content.finished
        run.about = Bunch(content.about)
        if content.exception is not None:
            kept = content.exception
            run.exception = RunError(*(str(kept.get(part, "")) for part in ("message", "type", "traceback")))
        return run


def _bunch(name: str, values: Any) -> LazyBunch:
    if values is None:
        return LazyBunch()
    if isinstance(values, LazyBunch) and type(values) is LazyBunch:
        return values
    if not isinstance(values, Mapping):
        raise UsageError(
            f"{name} of a run is a dictionary, not a {type(values).__name__}. Use run.{name}.<name> = value."
        )
    return LazyBunch(values)


def as_steps(steps: Step | Sequence[Step]) -> list[Step]:
    """Return steps as a list.

    Raises
    ------
    UsageError
        If one of them cannot be called.
    """
    is_list = isinstance(steps, Iterable) and not isinstance(steps, str | bytes | Mapping)
    listed: list[Any] = list(steps) if is_list and not callable(steps) else [steps]
    for step in listed:
        if not callable(step):
            raise UsageError(f"The step {step!r:.80} cannot be called. A step is a function that takes a run.")
    return listed


class Runs(dict[str, Run]):
    """The runs of an experiment by id, in the order in which they were added."""

    def __init__(self, runs: Sequence[Run] = ()) -> None:
        super().__init__((run.id_run, run) for run in runs)

    def __missing__(self, key: object) -> Run:
        if isinstance(key, int):
            raise KeyError(f"{key}: runs are found by id; use runs.first(), or list(runs.values())[{key}]")
        raise KeyError(key)

    def __repr__(self) -> str:
        shown = ", ".join(f"{run.id_run} {run.status}" for run in list(self.values())[:_SHOWN])
        more = f", … {len(self) - _SHOWN} more" if len(self) > _SHOWN else ""
        return f"Runs({len(self)}: {shown}{more})" if self else "Runs(0)"

    def first(self) -> Run:
        """Return the first run.

        Raises
        ------
        UsageError
            If there is none.
        """
        for run in self.values():
            return run
        raise UsageError("This experiment has no runs. Add one with experiment.run(), add_run() or add_runs().")

    def df(self) -> pd.DataFrame:
        """Return a table with one row a run: ``id_run``, params and fields, in columns named as by `rows_of`.

        DataStores, and values in a blob that have not been read, stay where they are; their cell says what they are.
        """
        import pandas as pd

        rows = [
            {"id_run": run.id_run, **{name: shown(value) for name, value in row.items()}}
            for run, row in zip(self.values(), rows_of(list(self.values())), strict=True)
        ]
        return pd.DataFrame(rows, columns=None if rows else ["id_run"])


def new_run(new_uuid: Callable[[], uuid.UUID], taken: Mapping[str, Run], **parts: Any) -> Run:
    """Return a run with an id that no other run of the experiment has."""
    while (id_run := str(new_uuid())) in taken:  # a predictable sequence meets ids of earlier processes
        pass
    return Run(id_run, **parts)


def copy_run(run: Run, id_experiment: str, memo: dict[int, Any]) -> Run:
    """Return a run of another experiment with the same values, and DataStores of its own."""
    parts = [copied(part, memo) for part in (run.params, run.config, run.fields)]
    copy = Run(run.id_run, id_experiment, *parts)
    copy.vars = run.vars
    copy.exception, copy.status, copy.started, copy.finished = run.exception, run.status, run.started, run.finished
    copy.about = deepcopy(run.about)
    return copy


def do_wanted(runs: Iterable[Run], place: Place) -> None:
    """Do what steps of runs that were persisted want done; what fails is tried again after the next persist.

    Raises
    ------
    Exception
        The first failure, with a note; the other runs were done, and all of them are persisted.
    """
    failure: Exception | None = None
    for run in runs:
        try:
            while run.after_persist:
                run.after_persist[0](run, place)
                del run.after_persist[0]
        except Exception as error:  # noqa: BLE001 - raised below, when the other runs were done
            failure = failure or error
    if failure is not None:
        failure.add_note("The experiment is persisted. What its steps wanted done after that failed: persist it again.")
        raise failure
