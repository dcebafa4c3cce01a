"""Artifact: one version of a saved value, as `get` returns it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mltraq_ds.artifacts.backends import backend_of
from mltraq_ds.artifacts.provenance import Code
from mltraq_ds.errors import ArtifactNotFoundError, CorruptRecordError, MltraqDSError
from mltraq_ds.objects import Objects
from mltraq_ds.reference import Reference
from mltraq_ds.settings import resolve
from mltraq_ds.store import versions
from mltraq_ds.store.versions import Version

__all__ = ["Artifact"]


class Artifact:
    """One version of a saved value.  The value is read when `get_value` is called; pickles as far as its store does."""

    __slots__ = ("_objects", "_version")

    def __init__(self, version: Version, objects: Objects) -> None:
        self._version = version
        self._objects = objects

    def __repr__(self) -> str:
        return (
            f"Artifact({self.name!r}, version={self.version}, type={self._version.type_name!r}, "
            f"storage_backend={self.storage_backend!r})"
        )

    @property
    def name(self) -> str:
        """The name that it was saved under."""
        return self._version.name

    @property
    def version(self) -> int:
        """1, 2, …; never given to another value of this name."""
        return self._version.number

    @property
    def created_at(self) -> datetime:
        """When it was saved (UTC)."""
        return self._version.created_at

    @property
    def storage_backend(self) -> str:
        """Who keeps the value, such as ``native`` or ``mlflow``."""
        return self._version.storage_backend

    @property
    def digest(self) -> str | None:
        """Digest of the value, ``sha256:…``; None if its backend tells none."""
        return self._version.digest

    @property
    def url(self) -> str:
        """Where the value is: in the store ``<scheme>:///<key>``, in MLflow the model URI."""
        return str(self._describe().get("url", ""))

    def get_value(self, allow_pickle: bool | None = None) -> Any:
        """Read the value.

        Parameters
        ----------
        allow_pickle : bool, optional
            Whether loading may run code that is named in what is read; by default option
            ``serialization.allow_pickle``.

        Returns
        -------
        object
            Equal to what was saved; of a `Pickled` its value.

        Raises
        ------
        PickleRefusedError
            If it is a pickle, or lies in another MLflow than ``mlflow.tracking_uri``, and the reader has not opted in.
        ArtifactNotFoundError
            If this version was deleted meanwhile.
        DamageError
            If its bytes are gone or wrong.
        """
        settings = resolve({"serialization.allow_pickle": allow_pickle})
        objects = self._objects.with_pickle(settings["serialization.allow_pickle"]).watched(self._explain)
        return backend_of(self.storage_backend).load(self._version, objects, settings)

    def get_code(self) -> Code:
        """Return where it was saved from: source, git commit, versions of Python and packages.

        Raises
        ------
        CorruptRecordError
            If that is damaged.
        """
        try:
            return Code(**self._version.code)
        except TypeError as error:
            raise CorruptRecordError(f"The code of {self._version.label} cannot be read ({error!s:.80}).") from error

    def get_metadata(self) -> dict[str, Any]:
        """Return what is known of it without reading the value; of MLflow also run id, model URI and flavor."""
        known = self._version
        return {
            **self._describe(),
            "name": known.name,
            "version": known.number,
            "created_at": known.created_at,
            "storage_backend": known.storage_backend,
            "type": known.type_name,
            "size_bytes": known.size_bytes,
            "digest": known.digest,
        }

    def _describe(self) -> Mapping[str, Any]:
        return backend_of(self.storage_backend).describe(self._version, self._objects)

    def _explain(self, reference: Reference) -> MltraqDSError | None:
        """Tell whether a blob is gone because the version was deleted."""
        if not versions.is_deleted(self._objects.storage, self._version):
            return None
        return ArtifactNotFoundError(f"The {self._version.label} was deleted. get({self.name!r}) gives the latest.")
