"""Results: the runs of a store, for analysis."""

from __future__ import annotations

import csv
import difflib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mltraq_ds.errors import ExperimentNotFoundError, NotFoundError, UsageError
from mltraq_ds.store.config import StoreConfig
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.locator import config_of
from mltraq_ds.store.result_run import ResultRun
from mltraq_ds.store.run_filter import RunFilter
from mltraq_ds.store.types import RunRecord, Status

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ResultRun", "Results", "load_results"]

_RECORD = ("run_id", "experiment_id", "status", "started_at", "finished_at", "duration_ms", "tags", "notes")


def load_results(store: str | os.PathLike[str] | StoreConfig | Any, experiment_id: str | None = None) -> Results:
    """Return the runs of an experiment, or of a whole collection; they are read when they are asked for.

    Parameters
    ----------
    store : str, path, StoreConfig or store
        Where they are.
    experiment_id : str, optional
        Only this experiment.

    Raises
    ------
    ExperimentNotFoundError
        If there is no such experiment, or no store.
    UsageError
        If the store is scoped to another experiment.
    """
    found: Any = store if hasattr(store, "list_run_records") else config_of(store)
    if experiment_id is not None and found.experiment_id != experiment_id:
        found = found.scoped(experiment_id)
    connected = found.connect() if isinstance(found, StoreConfig) else found
    _require_there(connected)
    return Results(connected)


def _require_there(store: Any) -> None:
    """Refuse an experiment, or a collection, that is not there: nothing found at a mistyped path looks like no runs."""
    storage = getattr(store, "storage", None)
    if storage is None:
        return  # a custom store says so itself
    wanted, known = store.experiment_id, FileStore(storage).list_experiments()
    if wanted is None and not known:
        raise ExperimentNotFoundError(
            f"There are no experiments in {storage.url}. Look at the path: it is that of the collection, which holds a "
            "folder for each experiment."
        )
    if wanted is not None and wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ExperimentNotFoundError(
            f"No experiment with id {wanted!r:.80} is in {storage.url}.{hint} Use list_experiments() to see all."
        )


@dataclass(frozen=True)
class Results:
    """Runs of a store; iterating reads them one after another, so that a large collection needs little memory.

    Parameters
    ----------
    store : Store
        Where they are.
    wanted : RunFilter
        Which of them.
    """

    store: Any
    wanted: RunFilter = field(default_factory=RunFilter)

    def __iter__(self) -> Iterator[ResultRun]:
        find = getattr(self.store, "find_run_records", None)
        stream = getattr(self.store, "iter_run_records", self.store.list_run_records)
        records = find(self.wanted) if find is not None else filter(self.wanted, stream())
        for record in records:
            yield ResultRun(record, self._of(record))

    def _of(self, record: RunRecord) -> Any:
        is_collection = hasattr(self.store, "scoped") and getattr(self.store, "experiment_id", None) is None
        return self.store.scoped(record.experiment_id) if is_collection else self.store

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def __getitem__(self, run_id: str) -> ResultRun:
        for run in self:
            if run.run_id == run_id:
                return run
        raise NotFoundError(f"No run {run_id!r:.80} is among these results. Use runs to see all.")

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
