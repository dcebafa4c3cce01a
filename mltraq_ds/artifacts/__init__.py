"""Artifacts: values saved under a name and a version, by this library or by another storage backend."""

from mltraq_ds.artifacts.artifact import Artifact
from mltraq_ds.artifacts.backends import Backend, KeepsOutside, register
from mltraq_ds.artifacts.listing import ArtifactStore
from mltraq_ds.artifacts.registry import artifact_store, delete, get, save
from mltraq_ds.store.keeping import Kept
from mltraq_ds.store.saving import Save
from mltraq_ds.store.versions import Version

__all__ = [
    "Artifact",
    "ArtifactStore",
    "Backend",
    "KeepsOutside",
    "Kept",
    "Save",
    "Version",
    "artifact_store",
    "delete",
    "get",
    "register",
    "save",
]
