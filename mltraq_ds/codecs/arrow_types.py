"""Arrow extension types: recorded by name, so that reading without their library is noticed.  Imported on use only."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mltraq_ds.errors import FormatError

__all__ = ["check_extensions", "extension_names"]


def extension_names(kind: Any) -> list[str]:
    """Return the names of the extension types in an Arrow type, at any depth, sorted."""
    names: set[str] = set()
    todo = [kind]
    while todo:
        kind = todo.pop()
        if isinstance(kind, pa.BaseExtensionType):
            names.add(kind.extension_name)
            todo.append(kind.storage_type)
        elif pa.types.is_dictionary(kind):
            todo.append(kind.value_type)
        else:
            todo.extend(kind.field(i).type for i in range(kind.num_fields))
    return sorted(names)


def check_extensions(kind: Any, names: Any) -> None:
    """Raise `FormatError` if an extension type was written that comes back as its storage."""
    missing = sorted(set(names) - set(extension_names(kind)))
    if missing:
        raise FormatError(
            f"the Arrow extension types {missing} are not registered with pyarrow; import the library that defines "
            "them, then read again"
        )
