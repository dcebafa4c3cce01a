"""FileStoreConfig: a store of files, in a folder or at any URL of fsspec."""

from __future__ import annotations

import json
import os
import urllib.parse
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from mltraq_ds.errors import SecretInOptionsWarning, UsageError
from mltraq_ds.storage import Storage, open_storage
from mltraq_ds.storage.places import path_from, scheme_of
from mltraq_ds.store.config import StoreConfig
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.locator_parts import LocatorInfo, refuse_dots, text_of
from mltraq_ds.store.secrets import hide

__all__ = ["FileStoreConfig", "root_of"]


def root_of(place: str | os.PathLike[str]) -> str:
    """Return where the files are, absolute, so that it does not follow the working directory later.

    Raises
    ------
    UsageError
        If it is no path and no URL, or a URL that could leave its place.
    """
    if isinstance(place, str) and not place.strip():
        raise UsageError("A store needs a root: the folder or URL that holds its experiments, such as './experiments'.")
    root = text_of(place)
    scheme = scheme_of(root)
    if scheme:
        refuse_dots(root)
    if scheme in ("", "file"):
        return path_from(root)
    if "?" in root or "#" in root:
        raise UsageError(
            f"The root {hide('root', root)!r} is refused because it has a query or fragment. Pass what it says as "
            "storage_options."
        )
    return root if root.endswith("://") else root.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class FileStoreConfig(StoreConfig):
    """Where a store of files is.

    Parameters
    ----------
    root : str or path
        A folder (``~`` is expanded, a relative one is made absolute now), ``file:///path``, or the URL of any installed
        fsspec implementation: ``s3://bucket/prefix``, ``memory://name``.
    storage_options : mapping, optional
        As fsspec and pandas take them.
    experiment_id : str, optional
        The experiment that the store is scoped to.

    Examples
    --------
    >>> config = FileStoreConfig(root="/data/experiments")
    >>> config.scoped("my_exp:1.0").to_dict()
    {'root': '/data/experiments', 'experiment_id': 'my_exp:1.0', '_type': 'file'}
    """

    scheme: ClassVar[str] = "file"

    root: str
    storage_options: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "root", root_of(self.root))

    def connect(self) -> FileStore:
        """Return the store."""
        return FileStore(self.open_storage(), experiment_id=self.experiment_id)

    def open_storage(self) -> Storage:
        """Return the storage of the root."""
        options, root = self.resolved("storage_options"), self.resolved("root")
        with warnings.catch_warnings():
            if not self.secrets():  # where they are was named, as the warning asks for
                warnings.simplefilter("ignore", SecretInOptionsWarning)
            return open_storage(root, storage_options=options or None)

    @classmethod
    def from_locator(cls, info: LocatorInfo, **kwargs: Any) -> Self:
        """Return the configuration of a path or URL; parameters of a URL become storage options.

        Examples
        --------
        >>> from mltraq_ds.store.locator import parse_to_config
        >>> parse_to_config("s3://bucket/lab?anon=true").storage_options
        {'anon': True}
        """
        if info.scheme == "file":
            return cls.from_fields({"root": info.path, **kwargs})
        options = {name: _option(value) for name, value in info.params.items()}
        options.update(kwargs.pop("storage_options", None) or {})
        place = {"root": info.raw.partition("?")[0], "storage_options": options or None}
        return cls.from_fields({**place, **kwargs})


def _option(value: str | tuple[str, ...]) -> Any:
    if isinstance(value, tuple):
        return [_option(one) for one in value]
    if value in ("true", "false") or value[:1] in ("{", "["):
        # "false" as text would be true; others of fsspec's options are texts, also those of digits.
        try:
            return json.loads(value)
        except ValueError:
            return value
    return urllib.parse.unquote(value)
