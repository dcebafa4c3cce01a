"""Rows of what is put one by one: run records, derived metrics, manifests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from mltraq_ds.orm.rows import ExperimentRow, RunRow

__all__ = ["DERIVED", "MANIFEST", "CollectedRow", "DocumentRow", "SingleRow", "digest_key"]

DERIVED = "derived"
MANIFEST = "manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleRow(RunRow):
    """A run whose record was put alone.

    Parameters
    ----------
    put_id : str
        Random id of the put: a generation that has taken the record in names it.
    stamp : str
        Size and time of the file, and the generation that it was read with.
    record : str
        What the record says, as JSON text; empty if it says that the run is gone, also from the generation.
    """

    put_id: str
    stamp: str
    record: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRow:
    """Derived metrics of a run, or a manifest.

    Parameters
    ----------
    kind : str
        `DERIVED` or `MANIFEST`.
    name : str
        Id of the run, or key of the file.
    stamp : str
        Size and time of the file.
    body : str
        JSON text: plain values, no NaN.
    """

    kind: str
    name: str
    stamp: str
    body: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedRow(ExperimentRow):
    """An experiment with the documents that belong to it, for a rebuild."""

    documents: Sequence[DocumentRow] = ()


def digest_key(name: str) -> str:
    """Return what stands for the id of a run or the name of a document in keys, which hold short text only."""
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
