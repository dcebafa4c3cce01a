"""Loading: read all values of an experiment at once, where one after the other would wait for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from mltraq_ds.lazy import LazyBunch, Placeholder, read_many

if TYPE_CHECKING:
    from mltraq_ds.tracking.run import Runs

__all__ = ["Loading"]


class Loading:
    """What has fields and runs whose values may still be in their blobs."""

    fields: LazyBunch
    runs: Runs

    def load(self, n_jobs: int | None = None) -> Self:
        """Read every value that is still in its blob, several at a time; returns the experiment.

        Afterwards nothing of it depends on the store: another writer may replace it.

        Parameters
        ----------
        n_jobs : int, optional
            Number of threads; by default one for each value up to 8.

        Raises
        ------
        StaleReferenceError
            If another writer has replaced this version meanwhile.  What was read stays read.
        CorruptBlobError, DanglingReferenceError, StorageError
            If a value cannot be read.  What was read stays read.
        """
        waiting = [self.fields]
        for run in self.runs.values():
            waiting += [run.params, run.config, run.fields]
        seen: dict[int, LazyBunch] = {}
        while waiting:  # a DataStore may have others in it
            new = {id(bunch): bunch for bunch in waiting if id(bunch) not in seen}
            seen |= new
            read_many([(bunch, key) for bunch in new.values() for key in _unread(bunch)], n_jobs)
            kept = (value for bunch in new.values() for _, value in bunch._peek_items())
            waiting = [value for value in kept if isinstance(value, LazyBunch)]
        return self


def _unread(bunch: LazyBunch) -> Iterator[str]:
    return (key for key, kept in bunch._peek_items() if isinstance(kept, Placeholder))
