"""Storage backends: who keeps the value of an artifact.  The table of those that we bring is here.

Others come from `register` and from packages (entry points ``mltraq_ds.artifact_backends``).  A backend is chosen by
name or by the options, never by what a file says alone: a version names its backend, and only this table finds it.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from mltraq_ds.errors import UsageError
from mltraq_ds.objects import Objects
from mltraq_ds.settings import Settings
from mltraq_ds.store.keeping import Kept
from mltraq_ds.store.saving import Save
from mltraq_ds.store.versions import Version
from mltraq_ds.tracking.database import told_where

__all__ = ["BACKENDS", "Backend", "KeepsOutside", "backend_of", "choose", "names", "place_of", "register"]

_ENTRY_POINTS = "mltraq_ds.artifact_backends"
_DEFAULT = "artifacts.default_ml_models_storage_backend"
NATIVE = "native"


class Backend(Protocol):
    """Keeps the values of artifacts.  Holds no state; safe in threads."""

    def can_store(self, value: object) -> bool:
        """Tell whether this backend keeps values of this kind, without importing anything."""

    def save(self, value: object, saving: Save, settings: Settings, **arguments: Any) -> Kept:
        """Keep a value.

        Parameters
        ----------
        value : object
            Of a kind that `can_store` takes, unless the backend was asked for by name.
        saving : Save
            The unit of work: its ``name``, and ``write(value)`` for what is to lie in the store.
        settings : Settings
            The options.
        **arguments
            Whatever the user gave to `mltraq_ds.save` beyond its own arguments.

        Returns
        -------
        Kept
            What `load` needs.

        Raises
        ------
        Exception
            If it cannot be kept.  Nothing is left of it, or ``saving.has_leftovers`` is set.
        """

    def load(self, version: Version, objects: Objects, settings: Settings) -> Any:
        """Return the value of a version, whose file is not trusted; `objects.allow_pickle` is the reader's opt-in."""

    def delete(self, version: Version, objects: Objects, settings: Settings) -> None:
        """Remove what is kept outside of the store; may be called again.  Blobs of the store go by themselves."""

    def describe(self, version: Version, objects: Objects) -> Mapping[str, Any]:
        """Return what people may know of where the value is: ``url`` and more; no secrets, nothing is asked."""


@runtime_checkable
class KeepsOutside(Backend, Protocol):
    """A backend that keeps values outside of the store and finds again what a killed save has left there.

    Others may keep values there too; what their killed saves have left is only told.
    """

    def place(self, settings: Settings) -> str:
        """Return where a value would be kept now, without secrets."""

    def take_back(self, name: str, writer: str, place: str, settings: Settings) -> None:
        """Remove what was kept for a save that was killed, maybe long ago; may be called again.

        Parameters
        ----------
        name, writer : str
            Of the artifact, and the random id of the save (``saving.intent.writer``): of a file that is not trusted.
        place : str
            What `place` returned then.
        settings : Settings
            The options.

        Raises
        ------
        UsageError
            If the options name another place.
        """


_backends: dict[str, str | Backend] = {
    "mlflow": "mltraq_ds.artifacts.mlflow:MLflowBackend",
    "native": "mltraq_ds.artifacts.native:NativeBackend",
}
assert list(_backends) == sorted(_backends)

#: Read-only view of the table: name -> backend, or ``module:class`` where it was not imported yet.
BACKENDS: Mapping[str, str | Backend] = MappingProxyType(_backends)


def register(name: str, backend: Backend) -> None:
    """Add a backend under a new name, for this process; a package names its own by an entry point.

    Raises
    ------
    UsageError
        If the name is taken.
    """
    if name in _backends:
        raise UsageError(f"The storage backend {name!r} exists already. Choose another name.")
    _backends[name] = backend


def names() -> list[str]:
    """Return the names of all backends, those of installed packages too."""
    return sorted({*_backends, *(point.name for point in importlib.metadata.entry_points(group=_ENTRY_POINTS))})


def backend_of(name: str) -> Backend:
    """Return the backend of a name.

    Raises
    ------
    UsageError
        If there is none, or the package that brings it cannot be loaded; names the nearest.
    """
    found = _backends.get(name) if isinstance(name, str) else None
    if found is None:
        found = _from_package(name)
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        backend: Backend = getattr(importlib.import_module(module), attribute)()
        _backends[name] = backend
        return backend
    return found


def _from_package(name: object) -> Backend:
    for point in importlib.metadata.entry_points(group=_ENTRY_POINTS):
        if point.name == name:
            try:
                backend: Backend = point.load()()
            except Exception as error:  # whatever a foreign package raises when it is imported
                raise UsageError(
                    f"The storage backend {name!r} cannot be used because {point.value} cannot be loaded "
                    f"({type(error).__name__}: {error!s:.200}). Repair or remove that package."
                ) from error
            _backends[point.name] = backend
            return backend
    known = names()
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
    raise UsageError(
        f"There is no storage backend {name!r:.80}. Did you mean {near[0]!r}? There are {', '.join(map(repr, known))}."
    )


def place_of(name: str, backend: Backend, settings: Settings) -> str | None:
    """Return where a backend keeps values outside of the store, empty if it does not tell; None if it does not."""
    if name == NATIVE:
        return None
    return backend.place(settings) if isinstance(backend, KeepsOutside) else ""


def choose(value: object, storage_backend: str | None, settings: Settings) -> tuple[str, Backend]:
    """Return name and backend that keep a value.

    The argument wins.  Without one ``artifacts.default_ml_models_storage_backend`` decides, and without that MLflow is
    the default where ``mlflow.tracking_uri`` is set.  What a default backend does not take goes to ``native``.

    Raises
    ------
    UsageError
        If the backend asked for by name, or by the option, does not exist; or the former does not take the value.
    """
    if storage_backend is not None:
        backend = backend_of(storage_backend)
        if not backend.can_store(value):
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise UsageError(
                f"The storage backend {storage_backend!r} does not take a value of type {kind}. Leave storage_backend "
                "out, or use storage_backend='native'."
            )
        return storage_backend, backend
    default = settings[_DEFAULT]
    if default is None:
        default = NATIVE if settings["mlflow.tracking_uri"] is None else "mlflow"
    with told_where(settings, _DEFAULT):
        backend = backend_of(default)
    return (default, backend) if default != NATIVE and backend.can_store(value) else (NATIVE, backend_of(NATIVE))
