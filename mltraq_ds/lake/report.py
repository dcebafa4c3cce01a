"""Reports of the lake: what was done with each blob, for people, tables and programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mltraq_ds.store.report import size_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BlobRow", "LakeReport"]


@dataclass(frozen=True, slots=True)
class BlobRow:
    """What was done with one blob, or one object of a remote.

    Parameters
    ----------
    key : str
        Store-relative name of the blob; on a remote the name of the object.
    size_bytes : int
        Its size (bytes).
    action : str
        What was done, in a word.
    remotes : tuple of str
        Where it is now, in the order in which they are asked.
    is_local : bool
        Whether the store has the bytes.
    copies : int, optional
        On how many different remotes it is; by default as many as there are URLs.
    """

    key: str
    size_bytes: int
    action: str
    remotes: tuple[str, ...] = ()
    is_local: bool = False
    copies: int | None = None

    @property
    def num_copies(self) -> int:
        """On how many different remotes it is, as far as is known."""
        return len(self.remotes) if self.copies is None else self.copies


@dataclass(frozen=True)
class LakeReport:
    """What a command has done.

    Parameters
    ----------
    verb : str
        What it was asked to do.
    place : str
        URL of the store or remote.
    rows : tuple of BlobRow
        One for each blob.
    dry_run : bool
        Whether nothing was changed.
    notes : tuple of str
        What is worth knowing.
    """

    verb: str
    place: str
    rows: tuple[BlobRow, ...] = ()
    dry_run: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size_bytes(self) -> int:
        """Sum of the sizes (bytes)."""
        return sum(row.size_bytes for row in self.rows)

    def count(self, action: str) -> int:
        """Return how many blobs had this done."""
        return sum(row.action == action for row in self.rows)

    def actions(self) -> dict[str, int]:
        """Return how many blobs had what done."""
        return {action: self.count(action) for action in sorted({row.action for row in self.rows})}

    def df(self) -> pd.DataFrame:
        """Return a table with one row per blob; columns as the fields of `BlobRow`."""
        import pandas as pd

        rows = [{**asdict(row), "copies": row.num_copies} for row in self.rows]
        return pd.DataFrame(rows, columns=list(BlobRow.__slots__))

    def to_json(self) -> str:
        """Return everything as JSON text."""
        return json.dumps({"count": len(self), "actions": self.actions(), **asdict(self)}, indent=1)

    def __str__(self) -> str:
        what = ", ".join(f"{number} {action}" for action, number in self.actions().items()) or "nothing to do"
        blobs = "1 blob" if len(self) == 1 else f"{len(self)} blobs"
        first = f"{self.verb} {self.place}: {blobs}, {size_text(self.size_bytes)}: {what}"
        if self.dry_run:
            first += " (dry run: nothing was changed)"
        return "\n".join([first, *(f"note: {note}" for note in self.notes)])
