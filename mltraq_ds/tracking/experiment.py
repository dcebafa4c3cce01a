"""Experiment: runs that belong together, persisted as one."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from mltraq_ds.bunch import Bunch
from mltraq_ds.errors import UsageError
from mltraq_ds.lazy import LazyBunch, copied
from mltraq_ds.place import Place
from mltraq_ds.settings import resolve
from mltraq_ds.store.generations import Generation, Ident
from mltraq_ds.store.layout import now_text
from mltraq_ds.store.records import ExperimentContent, check_content
from mltraq_ds.tracking.execution import execute_runs
from mltraq_ds.tracking.loading import Loading
from mltraq_ds.tracking.recording import Recording
from mltraq_ds.tracking.run import Run, Runs, Step, as_steps, copy_run, do_wanted, new_run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Experiment", "Home"]

_PRIVATE = ("_writer", "_is_ended", "_folds")
_NAMES = {"session", "id_experiment", "name", "fields", "runs", "generation", "created", *_PRIVATE}


class Home(Protocol):
    """What an experiment needs of its session."""

    @property
    def place(self) -> Place:
        """The store as DataStoreIO means it."""

    @property
    def new_uuid(self) -> Callable[[], uuid.UUID]:
        """Where ids come from."""

    def create_experiment(self, name: str | None = None, **fields: Any) -> Experiment:
        """Return a new experiment."""

    def load_experiment(
        self, name: str | None = None, id_experiment: str | uuid.UUID | None = None, allow_pickle: bool | None = None
    ) -> Experiment:
        """Load an experiment."""

    def commit(self, experiment: Experiment, if_exists: str = "fail") -> None:
        """Persist an experiment."""

    def end(self, experiment: Experiment) -> None:
        """Delete an experiment."""


class Experiment(Loading):
    """Runs and fields under one name.

    Made by `Session.create_experiment` or `Session.load_experiment`.

    Attributes
    ----------
    id_experiment : str
        Id, the name of its folder in the store.
    name : str
        Unique among the experiments of a database.
    fields : Bunch
        Values of the experiment as a whole.
    runs : Runs
        Runs by id, in order.
    generation : int
        The version that this object was loaded from or last persisted as; 0 if it never was.
    """

    def __init__(
        self,
        session: Home,
        id_experiment: str,
        name: str | None = None,
        fields: Mapping[str, Any] | None = None,
        runs: Sequence[Run] = (),
    ) -> None:
        self.session = session
        self.id_experiment = id_experiment
        # The end of the id: the beginning of time-ordered ids is the same for experiments of one moment.
        self.name = f"experiment-{id_experiment[-8:]}" if name is None else name
        self.fields = fields if isinstance(fields, LazyBunch) else LazyBunch(fields)
        self.runs = Runs(runs)
        self.created = now_text()
        self.generation, self._writer, self._is_ended = 0, "", False
        self._folds: tuple[str, ...] = ()

    def __repr__(self) -> str:
        state = f"generation {self.generation}" if self.generation and not self._is_ended else "not persisted"
        return f"Experiment(name={self.name!r}, id_experiment={self.id_experiment!r}, runs={len(self.runs)}, {state})"

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _NAMES:
            raise AttributeError(
                f"An experiment has no attribute {name!r}, so it would not be persisted. Use experiment.fields.{name}."
            )
        if name == "fields" and not isinstance(value, Bunch):
            value = LazyBunch(value)
        if name == "runs" and not isinstance(value, Runs):
            value = Runs(list(value.values() if isinstance(value, Mapping) else value))
        super().__setattr__(name, value)

    def run(self) -> AbstractContextManager[Run]:
        """Add a run and give it to a ``with`` block; an error inside is kept as ``run.exception`` and raised."""
        return Recording(lambda: (self._add_run(), self.session.place), reraise=True)

    def _add_run(self, /, **parts: Any) -> Run:
        run = new_run(self.session.new_uuid, self.runs, id_experiment=self.id_experiment, **parts)
        self.runs[run.id_run] = run
        return run

    def add_run(self, /, **params: Any) -> Experiment:
        """Add one run with these params; returns the experiment."""
        self._add_run(params=params)
        return self

    def add_runs(self, /, **grid: Any) -> Experiment:
        """Add one run for each combination of the values given, the last name varying fastest; returns the experiment.

        ``experiment.add_runs(lr=[0.1, 0.01], depth=range(3))`` adds six runs.

        Raises
        ------
        UsageError
            If a value is a string or cannot be iterated over.  Nothing was added.
        """
        for name, values in grid.items():
            if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
                raise UsageError(
                    f"add_runs({name}={values!r:.40}) needs several values. Use {name}=[{values!r:.40}] for one."
                )
        for combination in itertools.product(*grid.values()):
            self.add_run(**dict(zip(grid, combination, strict=True)))
        return self

    def execute(
        self,
        steps: Step | Sequence[Step],
        config: Mapping[str, Any] | None = None,
        n_jobs: int | None = None,
        backend: str | None = None,
    ) -> Experiment:
        """Call steps with every run; returns the experiment.

        Parameters
        ----------
        steps : callable or list of callable
            Each takes a run.  One that raises ends its run only, as ``run.exception``.  An empty list changes no run.
        config : mapping, optional
            Becomes ``run.config`` of every run.
        n_jobs, backend : optional
            Number of workers and joblib's backend; by default options ``execution.n_jobs`` and ``execution.backend``.

        Raises
        ------
        WorkerDiedError
            If a worker was killed.  The runs that were done are kept.

        Warns
        -----
        RunFailedWarning
            If steps raised.
        """
        listed = as_steps(steps)
        settings = resolve({"execution.n_jobs": n_jobs, "execution.backend": backend})
        if not self.runs:
            raise UsageError("This experiment has no runs to execute. Add some with add_run() or add_runs().")
        if not listed:
            return self  # what a run became before, and why it failed, stays
        if config is not None:
            for run in self.runs.values():
                run.config = LazyBunch(config) if isinstance(config, Mapping) else config  # refused by name
        execute_runs(
            list(self.runs.values()),
            listed,
            place=self.session.place,
            n_jobs=settings["execution.n_jobs"],
            backend=settings["execution.backend"],
            random_seed=settings["reproducibility.random_seed"],
            settings=resolve(),
            show_progress=not settings["tqdm.disable"],
            keep=lambda run: self.runs.update({run.id_run: run}),
        )
        return self

    def persist(self, if_exists: str = "fail") -> Experiment:
        """Write the experiment to its session's store and index; returns the experiment.

        Parameters
        ----------
        if_exists : {"fail", "replace", "update"}
            ``update`` persists the new state of what this object was loaded from or persisted as before.  ``replace``
            also takes the place of another experiment of this name, and of what others have committed meanwhile.

        Raises
        ------
        UnsupportedTypeError
            If a value has no codec; names experiment, run, key, type and what to do.  Nothing was changed.
        ExperimentExistsError, UnknownStoreError
            If name or experiment exist; if it is new in a store that the database never read.  Nothing was changed.
        ConcurrentPersistError
            If another writer committed first.  Theirs stands, ours was removed again.
        StorageError
            If storage or database refuse.  What was there before is complete.

        Warns
        -----
        IndexBehindWarning
            If it is persisted, but the database could not be told.
        """
        self.session.commit(self, if_exists)
        do_wanted(self.runs.values(), self.session.place)
        return self

    def reload(self) -> Experiment:
        """Return a new object with the present state of the store; this one is not changed."""
        return self.session.load_experiment(id_experiment=self.id_experiment)

    def delete(self) -> None:
        """Remove the experiment from store and index (`ExperimentNotFoundError`); this object keeps what it holds."""
        self.session.end(self)

    def copy_to(self, name: str | None = None, session: Home | None = None, if_exists: str = "fail") -> Experiment:
        """Persist a copy with an id of its own, in this session or another; returns the copy.

        Parameters
        ----------
        name : str, optional
            Name of the copy; in another session the same by default.
        session : Session, optional
            Where to; by default the same session, and then `name` is required.
        if_exists : {"fail", "replace"}
            What to do if the name is taken.
        """
        target = session or self.session
        if target is self.session and name is None:
            raise UsageError(f"copy_to() within a session needs a name, since {self.name!r} is taken by the original.")
        copy = target.create_experiment(self.name if name is None else name)
        memo: dict[int, Any] = {}
        copy.fields = copied(self.fields, memo)
        copy.runs = Runs([copy_run(run, copy.id_experiment, memo) for run in self.runs.values()])
        return copy.persist(if_exists=if_exists)

    def df(self) -> pd.DataFrame:
        """Return a table with one row a run; a param becomes ``params.<name>`` if any run has a field of its name."""
        return self.runs.df()

    def __or__(self, other: Experiment) -> Experiment:
        if not isinstance(other, Experiment):
            return NotImplemented
        merged = Experiment(self.session, self.id_experiment, self.name, self.fields.copy(), list(self.runs.values()))
        merged.created, merged._is_ended = self.created, self._is_ended
        merged.generation, merged._writer, merged._folds = self.generation, self._writer, self._folds
        for run in other.runs.values():
            if run.id_run not in merged.runs:
                merged.runs[run.id_run] = copy_run(run, self.id_experiment, {})
        return merged

    def stand_on(self, generation: Generation) -> None:
        """Note the version that this object is the state of."""
        self.generation, self._writer, self._is_ended = generation.number, generation.writer, generation.deleted

    @property
    def base(self) -> Ident:
        """Number and writer of the version that this object is the state of."""
        return (0, "") if self._is_ended else (self.generation, self._writer)

    def to_content(self) -> ExperimentContent:
        """Return what is written of this experiment."""
        content = ExperimentContent(
            id_experiment=self.id_experiment,
            name=self.name,
            fields=self.fields,
            runs=[run.to_content() for run in self.runs.values()],
            created=self.created,
            folds=self._folds,
        )
        check_content(content)
        return content

    @classmethod
    def from_content(cls, session: Home, content: ExperimentContent, generation: Generation | None) -> Experiment:
        """Return the experiment that was written; its values are still in their blobs."""
        runs = [Run.from_content(run, content.id_experiment) for run in content.runs]
        experiment = cls(session, content.id_experiment, content.name, content.fields, runs)
        experiment.created = content.created or experiment.created
        experiment._folds = content.folds
        if generation is not None:
            experiment.stand_on(generation)
        return experiment
