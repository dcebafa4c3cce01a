"""What killed saves and stopped deletes have left with storage backends: the next session has them remove it."""

from __future__ import annotations

import warnings

from mltraq_ds.artifacts.backends import KeepsOutside, backend_of
from mltraq_ds.errors import LeftoversWarning
from mltraq_ds.objects import Objects
from mltraq_ds.settings import resolve
from mltraq_ds.store import outside
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.versions import Version

__all__: list[str] = []


class _Backends:
    def let_go(self, version: Version, objects: Objects) -> None:
        # docstring inherited
        backend_of(version.storage_backend).delete(version, objects, resolve())

    def take_back(self, intent: Intent, objects: Objects) -> None:
        # docstring inherited
        backend = backend_of(intent.storage_backend)
        if isinstance(backend, KeepsOutside):
            backend.take_back(intent.name, intent.writer, intent.place, resolve())
            return
        warnings.warn(
            f"A save of artifact {intent.name!a:.200} was killed (since {intent.created}, writer {intent.writer}), and "
            f"the storage backend {intent.storage_backend!a:.80} does not say what it keeps of it. Look there.",
            LeftoversWarning,
            stacklevel=9,
        )


outside.set_backends(_Backends())
