"""Rows of derived metrics and manifests, made from their files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from mltraq_ds.errors import CorruptRecordError, DamageError, FormatError, KeyMissingError, MltraqDSError
from mltraq_ds.orm.single_rows import DERIVED, MANIFEST, DocumentRow
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.store import descriptors, file_layout, records
from mltraq_ds.store.generations import Generation

__all__ = ["KINDS", "key_of", "read", "read_all", "stamp_of"]

OnCorrupt = Callable[[MltraqDSError], None]

#: Kind of a document to the folder of its files.
KINDS = {DERIVED: "derived", MANIFEST: "experiments"}


def stamp_of(stat: Stat, generation: Generation | None) -> str:
    """Return what tells whether a row is still that of its file: size and time, and the generation beside it."""
    return f"{stat.size}:{stat.modified!r}:{generation.number if generation else 0}"


def key_of(kind: str, folder: str, name: str) -> str:
    """Return the key of the file of a document, by the name in its row."""
    return file_layout.derived_key(folder, name) if kind == DERIVED else name


def read_all(storage: Storage, folder: str, on_corrupt: OnCorrupt | None = None) -> Iterator[DocumentRow]:
    """Yield the rows of all documents of an experiment; see `read`."""
    for kind, place in KINDS.items():
        yield from read(storage, kind, storage.list(f"{folder}/{place}"), on_corrupt)


def read(
    storage: Storage, kind: str, stats: Iterable[Stat], on_corrupt: OnCorrupt | None = None
) -> Iterator[DocumentRow]:
    """Yield the rows of documents, given by their files; one that has gone meanwhile is left out.

    Raises
    ------
    CorruptRecordError, FormatError
        If one cannot be read, unless `on_corrupt` takes the error.
    """
    for stat in stats:
        if not stat.key.endswith(".json"):
            continue
        try:
            yield _row(storage.read(stat.key, max_size=descriptors.RECORD_SIZE), kind, stat)
        except KeyMissingError:
            continue
        except (DamageError, FormatError) as error:
            if on_corrupt is None:
                raise
            on_corrupt(error)


def _row(data: bytes, kind: str, stat: Stat) -> DocumentRow:
    body = descriptors.from_bytes(data, kind, stat.key)
    tagged = body.get(kind)
    name = body.get("run_id") if kind == DERIVED else stat.key
    if not isinstance(tagged, dict) or not isinstance(name, str):
        raise CorruptRecordError(f"{stat.key} cannot be read because it holds no dictionary. Restore it from a copy.")
    # One with other keys than names is tagged as a whole.
    is_tag = next(iter(tagged), "").startswith("$")
    return DocumentRow(
        kind=kind,
        name=name,
        stamp=stamp_of(stat, None),
        body=records.plain_text({"values": tagged} if is_tag else tagged),
    )
