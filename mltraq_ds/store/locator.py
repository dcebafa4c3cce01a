"""Locators: one line of text that says where a store is."""

from __future__ import annotations

import difflib
import os
from typing import Any

from mltraq_ds.errors import UsageError
from mltraq_ds.storage.access import known_schemes
from mltraq_ds.store.config import ConfigRegistry, StoreConfig
from mltraq_ds.store.locator_parts import LocatorInfo, parse_locator

__all__ = ["DEFAULT_STORE_ROOT", "LocatorInfo", "config_of", "create_store", "parse_locator", "parse_to_config"]

#: Where `mltraq_ds.run` puts experiments if it is not told.
DEFAULT_STORE_ROOT = "./experiments"


def parse_to_config(locator: str | os.PathLike[str], **kwargs: Any) -> StoreConfig:
    """Return the configuration that a locator means.

    Parameters
    ----------
    locator : str or path
        A path, ``file:///path``, ``s3://bucket/prefix``, ``postgresql://host/database?file_root=/path``, or a URL whose
        scheme a plug-in knows.
    **kwargs
        Further fields of the configuration, such as ``experiment_id`` or ``file_root``.

    Raises
    ------
    UsageError
        If it cannot be read, nothing knows its scheme, or a field is unknown or missing.

    Examples
    --------
    >>> parse_to_config("file:///data/a%20b", experiment_id="digits")
    FileStoreConfig(root='/data/a b', storage_options=None, experiment_id='digits')
    >>> parse_to_config("postgresql://ada:secret@db/lab?file_root=/data&sslmode=require").connection_string
    'postgresql://ada:secret@db/lab?sslmode=require'
    """
    info = parse_locator(locator)
    config_class = ConfigRegistry.get(info.scheme)
    if config_class is None and info.scheme in known_schemes():
        config_class = ConfigRegistry.get("file")
    if config_class is None:
        known = ConfigRegistry.schemes()
        # With more in common than some letters: "oracle" is no slip for "ocilake".
        near = difflib.get_close_matches(info.scheme, [*known, *known_schemes()], n=1, cutoff=0.7)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            f"No store has the scheme {info.scheme!r}.{hint} Known are a path, {', '.join(known)}, and the schemes of "
            "fsspec, such as s3 and memory; a custom store registers its scheme when its module is imported."
        )
    return config_class.from_locator(info, **kwargs)


def config_of(store: object, **kwargs: Any) -> StoreConfig:
    """Return the configuration that a `store` argument means: a locator, a configuration, or a store that has one."""
    if isinstance(store, StoreConfig):
        return store.from_fields({**_fields(store), **kwargs}) if kwargs else store
    if isinstance(store, str | os.PathLike):
        return parse_to_config(store, **kwargs)
    config = getattr(store, "config", None)
    if isinstance(config, StoreConfig):
        return config_of(config, **kwargs)
    raise UsageError(f"A value of type {type(store).__name__} names no store. Give a path, a URL or a StoreConfig.")


def _fields(config: StoreConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def create_store(locator: str | os.PathLike[str], **kwargs: Any) -> Any:
    """Return the store that a locator means: `parse_to_config`, then `connect`.

    Parameters
    ----------
    locator, **kwargs
        As `parse_to_config` takes them.

    Returns
    -------
    Store
        Nothing is made before it is written to.

    Examples
    --------
    >>> create_store("memory://docs-store").list_experiments()
    []
    """
    return parse_to_config(locator, **kwargs).connect()
