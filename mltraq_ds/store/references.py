"""References: all that a record or a blob refers to, found without decoding a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mltraq_ds.anywhere import open_as_it_is
from mltraq_ds.blob import open_blob
from mltraq_ds.errors import MltraqDSError, RemotesError
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import records, single_records

__all__ = ["damage_of_blob", "in_record", "in_single", "in_tagged"]


def in_tagged(tagged: Any) -> Iterator[Reference]:
    """Yield every reference in tagged JSON, those of DataStores inside others too.

    Raises
    ------
    CorruptRecordError
        If one is not of its form.
    """
    waiting = [tagged]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += [item for item in value if isinstance(item, (dict, list))]
        elif isinstance(value, dict):
            if "$ref" in value:
                yield from map(Reference.from_list, [value["$ref"], *(value.get("nested") or ())])
            else:
                waiting += [item for item in value.values() if isinstance(item, (dict, list))]


def in_record(data: bytes, key: str) -> tuple[dict[str, Any], list[dict[str, Any]], list[Reference]]:
    """Return the record of an experiment, those of its runs, and all references in them."""
    head, bodies = records.parse_json(data, key)
    mappings = [head["fields"], *(body[name] for body in bodies for name in records.MAPPINGS)]
    return head, bodies, list(in_tagged(mappings))


def in_single(data: bytes, key: str) -> tuple[str, list[Reference]]:
    """Return the put id and all references of a record that was put alone.

    Raises
    ------
    CorruptRecordError, FormatError
        If it does not verify.
    """
    single = single_records.parse(data, key)
    return single.put_id, list(in_tagged(single.body or {}))


def damage_of_blob(
    storage: Storage, reference: Reference, fragments: Iterable[str]
) -> tuple[list[str], list[Reference]]:
    """Read every byte of a blob.

    Parameters
    ----------
    storage : Storage
        Where it is.
    reference : Reference
        As in the generation; its digest is that of the index of the blob.
    fragments : iterable of str
        The parts that records refer to.

    Returns
    -------
    list of str, list of Reference
        One sentence for each damage, and the DataStores inside.

    Raises
    ------
    RemotesError
        If it lives on remotes and none of them delivers it.
    """
    nested: list[Reference] = []
    try:
        source = open_as_it_is(storage, reference.key, size=reference.size)
        try:
            blob = open_blob(source, digest=reference.digest)
            damage = blob.check(deep=True)
            if not damage:
                known = blob.fragments
                damage = [
                    f"It has no part {name!r:.80} that a record refers to." for name in fragments if name not in known
                ]
                entries = (entry for name in known for entry in blob.entries(name).values())
                nested = [inner for entry in entries for inner in entry.references]
        finally:
            source.close()
    except RemotesError:
        raise
    except MltraqDSError as error:
        return [str(error)], nested
    return damage, nested
