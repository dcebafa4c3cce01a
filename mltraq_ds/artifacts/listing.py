"""ArtifactStore: the artifacts of a store as a list and as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, overload

from mltraq_ds.artifacts.artifact import Artifact
from mltraq_ds.orm.artifacts import ArtifactRow
from mltraq_ds.store.artifact_rows import name_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ArtifactStore"]

_COLUMNS = ("name", "version", "created_at", "storage_backend", "type", "bytes", "digest")


class ArtifactStore(Sequence[Artifact]):
    """All versions of all artifacts in a store, by name and number, as the database had them when it was asked.

    A list of `Artifact`; each is read from its file when it is asked for.

    """

    def __init__(self, rows: Sequence[ArtifactRow], read: Callable[[str, int], Artifact]) -> None:
        self._rows = sorted(rows, key=lambda row: (name_of(row), row.version))
        self._read = read

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Artifact: ...
    @overload
    def __getitem__(self, at: slice) -> list[Artifact]: ...
    def __getitem__(self, at: int | slice) -> Artifact | list[Artifact]:
        if isinstance(at, slice):
            return [self._read(name_of(row), row.version) for row in self._rows[at]]
        return self._read(name_of(self._rows[at]), self._rows[at].version)

    def __iter__(self) -> Iterator[Artifact]:
        return (self[at] for at in range(len(self)))

    def df(self) -> pd.DataFrame:
        """Return a table with one row for each version: name, version, when, who keeps it, type, bytes, digest."""
        import pandas as pd

        # As objects: a name may have characters that pandas' own texts do not hold.
        names = pd.Series([name_of(row) for row in self._rows], dtype=object)
        rest = [
            (row.version, row.created_at, row.storage_backend, row.type, row.n_bytes, row.digest) for row in self._rows
        ]
        table = pd.DataFrame(rest, columns=list(_COLUMNS[1:]))
        table.insert(0, _COLUMNS[0], names)
        return table

    def __repr__(self) -> str:
        lines = [f"{name_of(row)!r}:{row.version} created at {row.created_at:%Y-%m-%d %H:%M:%S}" for row in self._rows]
        return "\n".join([f"ArtifactStore with {len(self)} versions of artifacts", *lines])
