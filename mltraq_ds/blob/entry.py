"""One key of a blob on disk."""

from __future__ import annotations

from typing import Any

from mltraq_ds.blob.index import corrupt
from mltraq_ds.blob.member import StoredMember
from mltraq_ds.blob.parsing import UNPACK_ERRORS, unpack_bounded
from mltraq_ds.errors import CorruptBlobError
from mltraq_ds.reference import Reference

__all__ = ["StoredEntry"]


class StoredEntry:
    """One key of a blob on disk.

    Attributes
    ----------
    tree : bytes
        As in `Encoded`.
    members : tuple of StoredMember
        In the order the tree refers to.
    references : list of Reference
        Of the DataStores nested in the value, in the order the tree refers to.
    """

    __slots__ = ("_blob", "_summary", "members", "references", "tree")

    def __init__(
        self,
        tree: bytes,
        members: tuple[StoredMember, ...] = (),
        references: list[Reference] | None = None,
        summary: bytes = b"\x80",
        blob: str = "",
    ) -> None:
        self.tree = tree
        self.members = members
        self.references = references or []
        self._summary = summary
        self._blob = blob

    @property
    def summary(self) -> dict[str, Any]:
        """What `describe` shows; parsed now.

        Raises
        ------
        CorruptBlobError
            If it is not a summary.
        """
        try:
            summary = unpack_bounded(self._summary)
            if type(summary) is not dict:
                raise ValueError("it is not a map")
        except UNPACK_ERRORS as error:
            raise CorruptBlobError(corrupt(self._blob, f"the summary of a value cannot be read: {error}")) from error
        return summary
