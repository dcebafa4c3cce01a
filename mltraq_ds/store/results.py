"""Results: the runs of a store, for analysis."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mltraq_ds.errors import (
    AmbiguousNameError,
    MltraqDSError,
    NotFoundError,
    UsageError,
)
from mltraq_ds.store import collection
from mltraq_ds.store.config import StoreConfig
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.locator import config_of
from mltraq_ds.store.result_run import ResultRun
from mltraq_ds.store.run_filter import RunFilter
from mltraq_ds.store.types import RunRecord, Status

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ResultRun", "Results", "load_results"]

OnCorrupt = Callable[[MltraqDSError], None]

_RECORD = ("run_id", "experiment_id", "status", "started_at", "finished_at", "duration_ms", "tags", "notes")


def load_results(
    store: str | os.PathLike[str] | StoreConfig | Any,
    experiment_id: str | None = None,
    *,
    on_corrupt: OnCorrupt | None = None,
) -> Results:
    """Return the runs of an experiment, or of a whole collection; they are read when they are asked for.

    Parameters
    ----------
    store : str, path, StoreConfig or store
        Where they are.
    experiment_id : str, optional
        Only this experiment.
    on_corrupt : callable, optional
        Given the error of each record that cannot be read, so that the others are still there; without it the first
        one is raised.

    Raises
    ------
    ExperimentNotFoundError
        If there is no such experiment, or no store.
    UsageError
        If the store is scoped to another experiment, or is none of files and there is `on_corrupt`.
    """
    found: Any = store
    if not hasattr(store, "list_run_records"):
        config = config_of(store)
        if experiment_id is not None and config.experiment_id != experiment_id:
            config = config.scoped(experiment_id)
        experiment_id, found = config.experiment_id, config.connect()
    own = getattr(found, "experiment_id", None)
    # A store of somebody's own need not have scopes: then its records are told apart.
    if experiment_id not in (None, own) and (own is not None or hasattr(found, "scoped")):
        found = found.scoped(experiment_id)
    if on_corrupt is not None and not isinstance(found, FileStore):
        raise UsageError(f"A {type(found).__name__} has no files, so on_corrupt is nothing for it. Leave it out.")
    if isinstance(found, FileStore):  # others say so themselves
        collection.require(found.storage, found.experiment_id)
    return Results(found, experiment_id=experiment_id, on_corrupt=on_corrupt)


@dataclass(frozen=True)
class Results:
    """Runs of a store; iterating reads them one after another, so that a large collection needs little memory.

    Parameters
    ----------
    store : Store
        Where they are.
    wanted : RunFilter
        Which of them.
    experiment_id : str, optional
        Only those of this experiment, where the store itself is not scoped to it.
    on_corrupt : callable, optional
        Given the error of each record that cannot be read; without it the first one is raised.
    """

    store: Any
    wanted: RunFilter = field(default_factory=RunFilter)
    experiment_id: str | None = None
    on_corrupt: OnCorrupt | None = None

    def __iter__(self) -> Iterator[ResultRun]:
        for record in self._records():
            yield ResultRun(record, self._of(record))

    def _records(self) -> Iterator[RunRecord]:
        find = getattr(self.store, "find_run_records", None)
        if find is not None:
            return iter(find(self.wanted, on_corrupt=self.on_corrupt))
        if isinstance(self.store, FileStore):
            return filter(self.wanted, self.store.iter_run_records(on_corrupt=self.on_corrupt))
        stream = getattr(self.store, "iter_run_records", self.store.list_run_records)
        found = stream() if self.experiment_id is None else stream(self.experiment_id)
        return (one for one in found if self.experiment_id in (None, one.experiment_id) and self.wanted(one))

    def _of(self, record: RunRecord) -> Any:
        is_collection = hasattr(self.store, "scoped") and getattr(self.store, "experiment_id", None) is None
        return self.store.scoped(record.experiment_id) if is_collection else self.store

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def __getitem__(self, run_id: str) -> ResultRun:
        """Return one run; of files it is looked for by its id, once in each experiment.

        Raises
        ------
        NotFoundError
            If there is no such run.
        AmbiguousNameError
            If several experiments have one of this id.
        """
        found = list(self._with_id(run_id))
        if len(found) > 1:
            ids = ", ".join(repr(run.experiment_id) for run in found)
            raise AmbiguousNameError(
                f"Run {run_id!r:.80} is in several experiments: {ids}. Use load_results(…, experiment_id=…) for one."
            )
        if not found:
            raise NotFoundError(f"No run {run_id!r:.80} is among these results. Use runs to see all.")
        return found[0]

    def _with_id(self, run_id: str) -> Iterator[ResultRun]:
        if not isinstance(self.store, FileStore):
            yield from (run for run in self if run.run_id == run_id)
            return
        is_scoped = self.store.experiment_id is not None
        for one in [self.store] if is_scoped else map(self.store.scoped, self.store.list_experiments()):
            record = one.get_run_record(run_id)
            if record is not None and self.wanted(record):
                yield ResultRun(record, one)

    @property
    def runs(self) -> list[ResultRun]:
        """All runs, read now."""
        return list(self)

    @property
    def records(self) -> list[RunRecord]:
        """The records of all runs, read now."""
        return [run.record for run in self]

    @property
    def successful(self) -> Results:
        """Those that have succeeded."""
        return self.filter(status=Status.SUCCESS)

    @property
    def failed(self) -> Results:
        """Those that have failed."""
        return self.filter(status=Status.FAILED)

    def filter(
        self, status: Status | str | None = None, tags: str | list[str] | tuple[str, ...] | None = None, **metrics: Any
    ) -> Results:
        """Return the runs that match all of what is given, beside what was given before.

        Parameters
        ----------
        status : Status or str, optional
            How they have ended.
        tags : str or list of str, optional
            All of these are among their tags.
        **metrics
            What each metric is equal to.

        Raises
        ------
        UsageError
            If there is no such status, or a metric was wanted to be something else before.
        """
        before, more = self.wanted, RunFilter(status, tags or (), metrics)  # type: ignore[arg-type]
        both = {**before.metrics, **more.metrics}
        is_other = any(before.metrics[name] != both[name] for name in before.metrics)
        if is_other or (None not in (before.status, more.status) and before.status != more.status):
            raise UsageError("These results were filtered by another value before, so none would be left. Start anew.")
        return replace(self, wanted=RunFilter(more.status or before.status, (*before.tags, *more.tags), both))

    def load(self, run_id: str, name: str) -> Any:
        """Return what a run has under a name: an artifact, a field, a param, or a structured result.

        Artifacts whose format is ``json``, ``text`` or ``npy`` are decoded; others come as bytes, since decoding them
        could run code.

        Raises
        ------
        NotFoundError
            If there is no such run, or nothing of that name.
        """
        return self[run_id].load(name)

    def to_dataframe(
        self,
        include_params: bool = True,
        include_metrics: bool = True,
        include_record: bool = True,
        include_derived: bool = False,
        progress: bool = False,
    ) -> pd.DataFrame:
        """Return a table with one row a run.

        Parameters
        ----------
        include_params, include_metrics, include_derived : bool
            Whether there is a column for each param, metric, derived metric.  One whose name another column has already
            gets the prefix ``param_``, ``metric_`` or ``derived_``.
        include_record : bool
            Whether there are columns for what the record says beside.  ``run_id`` is always there.
        progress : bool
            Show how many runs have been read: without an index, 100,000 take some seconds.
        """
        import pandas as pd

        rows: Iterable[dict[str, Any]] = self._rows(include_params, include_metrics, include_record, include_derived)
        if progress:
            from tqdm.auto import tqdm

            rows = tqdm(rows, desc="runs", unit="run")
        return pd.DataFrame(list(rows))

    def to_csv(
        self,
        path: str | os.PathLike[str],
        include_params: bool = True,
        include_metrics: bool = True,
        include_record: bool = True,
        include_derived: bool = False,
    ) -> None:
        """Write the table of `to_dataframe` as CSV; the runs are read twice, and never all in memory."""
        included = (include_params, include_metrics, include_record, include_derived)
        columns: dict[str, None] = {}
        for row in self._rows(*included):
            columns.update(dict.fromkeys(row))
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            for row in self._rows(*included):
                writer.writerow({name: _text(value) for name, value in row.items()})

    def _rows(self, params: bool, metrics: bool, record: bool, derived: bool) -> Iterator[dict[str, Any]]:
        for run in self:
            shown = _RECORD if record else _RECORD[:1]
            row = {name: getattr(run.record, name) for name in shown}
            row.update({"status": str(run.status)} if record else {})
            for prefix, is_wanted, values in (
                ("param", params, run.params),
                ("metric", metrics, run.metrics),
                ("derived", derived, run.derived if derived else {}),
            ):
                for name, value in values.items() if is_wanted else ():
                    row[name if name not in row else f"{prefix}_{name}"] = value
            yield row

    def summary(self) -> dict[str, int]:
        """Return how many runs there are of each status."""
        counts: dict[str, int] = {}
        for run in self:
            counts[str(run.status)] = counts.get(str(run.status), 0) + 1
        return counts


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value) if isinstance(value, list | dict) else value
