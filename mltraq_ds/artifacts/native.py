"""The native backend: values in the store itself, by codecs and blobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mltraq_ds.artifacts.flavors import flavor_of
from mltraq_ds.codecs import Pickled
from mltraq_ds.errors import CorruptRecordError, UnsupportedTypeError, UsageError
from mltraq_ds.ids import url_from_key
from mltraq_ds.objects import Objects
from mltraq_ds.reference import Reference
from mltraq_ds.settings import Settings
from mltraq_ds.store.keeping import Kept
from mltraq_ds.store.records import values_of
from mltraq_ds.store.saving import Save
from mltraq_ds.store.versions import Version

__all__ = ["NativeBackend"]


class NativeBackend:
    """Keeps what codecs take; models of other libraries as a pickle that writer and reader have opted in to."""

    def can_store(self, value: object) -> bool:
        """Say yes: codecs decide, and name the type that none takes."""
        return True

    def save(self, value: object, saving: Save, settings: Settings, **arguments: Any) -> Kept:
        # docstring inherited
        if arguments:
            remedy = "Leave it out, or use storage_backend='mlflow'." if flavor_of(value) else "Leave it out."
            raise UsageError(
                f"save() got {', '.join(map(repr, sorted(arguments)))}, which the storage backend 'native' does not "
                f"take. {remedy}"
            )
        try:
            kept = saving.write(value)
        except UnsupportedTypeError as error:
            if flavor_of(value) is None:
                raise
            raise UnsupportedTypeError(f"{error} MLflow keeps models: storage_backend='mlflow'.") from error
        root = _root(kept.value)
        digest = root.digest if root else f"sha256:{hashlib.sha256(_canonical(kept.value)).hexdigest()}"
        return replace(kept, digest=digest, size_bytes=sum(blob.size for blob in kept.blobs))

    def load(self, version: Version, objects: Objects, settings: Settings) -> Any:
        # docstring inherited
        try:
            value = values_of({"value": version.value}, objects)["value"]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise CorruptRecordError(
                f"The {version.label} cannot be read: {error!r:.80}. Restore {version.key} from a copy."
            ) from error
        return value.value if type(value) is Pickled else value

    def delete(self, version: Version, objects: Objects, settings: Settings) -> None:
        """Do nothing: there is nothing outside of the store."""

    def describe(self, version: Version, objects: Objects) -> Mapping[str, Any]:
        # docstring inherited
        root = _root(version.value)
        key = root.key if root else version.key
        return {"url": url_from_key(key, objects.storage.scheme, root.fragment if root else "")}


def _root(value: Any) -> Reference | None:
    """Return the blob that a value is, or None if it stands in the version itself."""
    return Reference.from_list(value["$ref"]) if isinstance(value, dict) and "$ref" in value else None


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
