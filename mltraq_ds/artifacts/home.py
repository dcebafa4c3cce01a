"""Home: the store and the rows that saved artifacts are in."""

from __future__ import annotations

from dataclasses import dataclass

from mltraq_ds.objects import Objects
from mltraq_ds.orm.artifacts import ArtifactIndex
from mltraq_ds.orm.index import Index
from mltraq_ds.tracking import Session

__all__ = ["Home", "rows_of"]


@dataclass(frozen=True)
class Home:
    """The store that is meant: that of the run which is executing, else of the default session."""

    objects: Objects
    session: Session | None

    def index(self, *, make: bool = False) -> ArtifactIndex | None:
        """Return the rows, after finishing what killed writers have left; None without database or store."""
        if self.session is None:
            return None
        opened = self.session._make_index() if make else self.session._open_index()
        return rows_of(opened)


def rows_of(index: Index | None) -> ArtifactIndex | None:
    """Return the rows of artifacts in an index; None without one."""
    return None if index is None else ArtifactIndex(index.database, index.store_id)
