"""Clients: the requests of each kind of remote.  One class a kind, one line in the table."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mltraq_ds.storage.clients.base import Client

__all__ = ["CLIENTS", "Client", "client_class"]

#: By scheme: module and class.  Every other scheme goes through `AnyClient`, which asks fsspec for everything.
CLIENTS: dict[str, tuple[str, str]] = {
    "abfs": ("azure", "AzureClient"),
    "abfss": ("azure", "AzureClient"),
    "az": ("azure", "AzureClient"),
    "gcs": ("gcs", "GcsClient"),
    "gs": ("gcs", "GcsClient"),
    "http": ("http", "HttpClient"),
    "https": ("http", "HttpClient"),
    "s3": ("s3", "S3Client"),
    "s3a": ("s3", "S3Client"),
    "sftp": ("sftp", "SftpClient"),
    "ssh": ("sftp", "SftpClient"),
}


def client_class(scheme: str, *, obstore: bool = False) -> type[Client]:
    """Return the class that speaks with the storages of a scheme, by a filesystem of fsspec or by obstore."""
    module, name = CLIENTS.get(scheme, ("anything", "AnyClient"))
    if obstore:
        module, name = "obstore_client", "ObstoreClient"
    found: Any = getattr(import_module(f"{__name__}.{module}"), name)
    return found  # type: ignore[no-any-return]
