"""Table: params and fields of runs as rows, under names that no two of them share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from mltraq_ds.lazy import LazyBunch, Placeholder, unread_text

__all__ = ["rows_of", "shown"]


class _Parts(Protocol):
    """What a row is made of: a run."""

    @property
    def params(self) -> LazyBunch: ...

    @property
    def fields(self) -> LazyBunch: ...


def rows_of(runs: Sequence[_Parts]) -> list[dict[str, Any]]:
    """Return params and fields of runs, by names that are the same for all of them.

    A field keeps its name.  A param whose name a field of any of the runs has becomes ``params.<name>``, whether or not
    its own run has that field.  ``id_run`` is neither: it becomes ``params.id_run`` and ``fields.id_run``.
    """
    fields = _columns("fields", (name for run in runs for name in run.fields), {"id_run"})
    params = _columns("params", (name for run in runs for name in run.params), {"id_run", *fields.values()})
    return [
        {params[name]: value for name, value in _cells(run.params)}
        | {fields[name]: value for name, value in _cells(run.fields)}
        for run in runs
    ]


def _columns(part: str, names: Iterable[str], taken: set[str]) -> dict[str, str]:
    """Return the column of each name, no two the same and none that is taken."""
    columns = {name: name for name in names}
    used = taken | columns.keys()
    for name in [name for name in columns if name in taken]:
        column = f"{part}.{name}"
        while column in used:  # somebody has a field or param that is called so
            column = f"{part}.{column}"
        used.add(column)
        columns[name] = column
    return columns


def _cells(values: LazyBunch) -> Iterator[tuple[str, Any]]:
    for name, kept in values._peek_items():
        # A table of a thousand runs must not read a thousand blobs.
        yield name, unread_text(kept) if isinstance(kept, Placeholder) else kept


def shown(value: Any) -> Any:
    """Return the cell of a value: pandas walks into dictionaries, which would read all of their values."""
    return f"<{type(value).__name__} of {len(value)}>" if isinstance(value, LazyBunch) else value
