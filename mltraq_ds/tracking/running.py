"""run(): execute an experiment and persist it into a store that is named by a path, a URL or a configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mltraq_ds.errors import UsageError
from mltraq_ds.store import generations, layout
from mltraq_ds.store.commit import Persist
from mltraq_ds.store.config import StoreConfig
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.generations import Ident
from mltraq_ds.store.indexed import IndexedStore
from mltraq_ds.store.locator import DEFAULT_STORE_ROOT, config_of
from mltraq_ds.store.results import Results, load_results
from mltraq_ds.store.sameness import is_same
from mltraq_ds.store.validation import refuse_existing
from mltraq_ds.tracking.experiment import Experiment
from mltraq_ds.tracking.run import Step, as_steps, do_wanted
from mltraq_ds.tracking.session import Session

__all__ = ["RunHandle", "run"]


@dataclass(frozen=True)
class RunHandle:
    """What `run` has done.

    Parameters
    ----------
    store : Store
        The store, scoped to the experiment.
    experiment_id : str
        The experiment.
    generation : int
        The version that was committed.
    """

    store: Any
    experiment_id: str
    generation: int

    def result(self) -> Results:
        """Return the runs, as the store has them."""
        return load_results(self.store)


def run(
    experiment: Experiment,
    steps: Step | Sequence[Step] | None = None,
    store: str | os.PathLike[str] | StoreConfig = DEFAULT_STORE_ROOT,
    *,
    config: Mapping[str, Any] | None = None,
    n_jobs: int | None = None,
    backend: str | None = None,
    if_exists: str = "fail",
) -> RunHandle:
    """Execute steps on the runs of an experiment and persist it into a store.

    The experiment is changed as `Experiment.execute` changes it; it stays in its own session, where it may be persisted
    too.  In the store it has the same id, in the folder of that id.

    Parameters
    ----------
    experiment : Experiment
        Its runs.
    steps : callable or list of callable, optional
        Called with every run; without any, the experiment is persisted as it is.
    store : str, path, StoreConfig or store
        Root of the collection, or ``postgresql://…?file_root=…``, or the store itself.
    config, n_jobs, backend : optional
        As `Experiment.execute` takes them.
    if_exists : {"fail", "update", "replace"}
        What to do if the store has an experiment of this id: ``update`` makes a new version of it.  With ``fail``, one
        without steps to execute that is in the store as it is here is left as it is: it may be run again, into the same
        store under whatever name.

    Returns
    -------
    RunHandle
        ``handle.store`` is scoped to the experiment; ``handle.result()`` has its runs.

    Raises
    ------
    ExperimentExistsError
        If it is there otherwise, or there are steps.  None was executed, nothing was written.
    UsageError
        If the store cannot keep experiments.  Nothing was done.
    """
    target = _target(store, experiment.id_experiment)
    with Session("sqlite://", target.storage) as session:
        if steps is None and if_exists == "fail" and (number := _same(session, experiment)):
            if isinstance(target, IndexedStore):
                target.tell_experiment(experiment.id_experiment)
            return RunHandle(target, experiment.id_experiment, number)
        index = target.link.index_or_none() if isinstance(target, IndexedStore) else None
        if steps is not None:
            refuse_existing(target.storage, index, experiment.to_content(), _base(target, if_exists), if_exists)
            _execute(experiment, session, as_steps(steps), config, n_jobs, backend)
        committed = Persist(
            objects=session.objects(),
            index=index,
            content=experiment.to_content(),
            base=_base(target, if_exists),
            if_exists=if_exists,
            new_uuid=session.new_uuid,
        ).run()
        if isinstance(target, IndexedStore) and index is None:
            target.tell_experiment(experiment.id_experiment)
        do_wanted(experiment.runs.values(), session.place)
    return RunHandle(target, experiment.id_experiment, committed.generation.number)


def _target(store: Any, id_experiment: str) -> FileStore:
    is_store = hasattr(store, "put_run_record") and hasattr(store, "list_run_records")
    found = store if is_store else config_of(store)
    if getattr(found, "experiment_id", None) != id_experiment:
        found = found.scoped(id_experiment)
    target = found if is_store else found.connect()
    if not isinstance(target, FileStore):
        raise UsageError(
            f"A {type(target).__name__} cannot keep an experiment, since it has no files. Use put_run_record() there, "
            "or a store with file_root."
        )
    return target


def _same(session: Session, experiment: Experiment) -> int:
    """Return the generation of an experiment that is in the store as it is in memory; 0 if it is not."""
    folder = layout.folder_of(experiment.id_experiment)
    current = generations.current(session.storage, folder)
    if current is None or current.deleted or not is_same(session.objects(), experiment.to_content()):
        return 0
    return current.number


def _execute(
    experiment: Experiment,
    session: Session,
    steps: list[Step],
    config: Mapping[str, Any] | None,
    n_jobs: int | None,
    backend: str | None,
) -> None:
    # A twin with the same runs, so that DataStoreIO means the store that they go to.
    twin = Experiment(session, experiment.id_experiment, experiment.name, experiment.fields)
    twin.runs = experiment.runs
    twin.execute(steps, config, n_jobs, backend)


def _base(store: FileStore, if_exists: str) -> Ident:
    current = generations.current(store.storage, layout.folder_of(str(store.experiment_id)))
    return current.ident if if_exists == "update" and current is not None and not current.deleted else (0, "")
