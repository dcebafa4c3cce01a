"""Stores: the files of experiments, where they are, and what finds them.

Public names are loaded when first used (PEP 562), so that a store of files needs no SQL.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltraq_ds.store.config import ConfigRegistry as ConfigRegistry
    from mltraq_ds.store.config import StoreConfig as StoreConfig
    from mltraq_ds.store.file_config import FileStoreConfig as FileStoreConfig
    from mltraq_ds.store.files import FileStore as FileStore
    from mltraq_ds.store.indexed import IndexedStore as IndexedStore
    from mltraq_ds.store.indexed import PostgresStore as PostgresStore
    from mltraq_ds.store.indexed_config import MysqlStoreConfig as MysqlStoreConfig
    from mltraq_ds.store.indexed_config import PostgresStoreConfig as PostgresStoreConfig
    from mltraq_ds.store.indexed_config import SqliteStoreConfig as SqliteStoreConfig
    from mltraq_ds.store.locator import LocatorInfo as LocatorInfo
    from mltraq_ds.store.locator import create_store as create_store
    from mltraq_ds.store.locator import parse_locator as parse_locator
    from mltraq_ds.store.locator import parse_to_config as parse_to_config
    from mltraq_ds.store.protocol import Store as Store
    from mltraq_ds.store.transfer import export_store as export_store
    from mltraq_ds.store.types import ArtifactDescriptor as ArtifactDescriptor
    from mltraq_ds.store.types import Provenance as Provenance
    from mltraq_ds.store.types import RunRecord as RunRecord
    from mltraq_ds.store.types import Status as Status

# Name to the module that has it; `TYPE_CHECKING` above says the same to type checkers, and a test compares the two.
_HOMES = {
    "ArtifactDescriptor": "mltraq_ds.store.types",
    "ConfigRegistry": "mltraq_ds.store.config",
    "FileStore": "mltraq_ds.store.files",
    "FileStoreConfig": "mltraq_ds.store.file_config",
    "IndexedStore": "mltraq_ds.store.indexed",
    "LocatorInfo": "mltraq_ds.store.locator",
    "MysqlStoreConfig": "mltraq_ds.store.indexed_config",
    "PostgresStore": "mltraq_ds.store.indexed",
    "PostgresStoreConfig": "mltraq_ds.store.indexed_config",
    "Provenance": "mltraq_ds.store.types",
    "RunRecord": "mltraq_ds.store.types",
    "SqliteStoreConfig": "mltraq_ds.store.indexed_config",
    "Status": "mltraq_ds.store.types",
    "Store": "mltraq_ds.store.protocol",
    "StoreConfig": "mltraq_ds.store.config",
    "create_store": "mltraq_ds.store.locator",
    "export_store": "mltraq_ds.store.transfer",
    "parse_locator": "mltraq_ds.store.locator",
    "parse_to_config": "mltraq_ds.store.locator",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
