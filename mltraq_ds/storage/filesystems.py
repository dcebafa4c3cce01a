"""The one place where a filesystem of fsspec is made, for reading, writing, listing and deleting alike."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from mltraq_ds.errors import MissingExtraError, UsageError
from mltraq_ds.storage.places import path_from, scheme_of

__all__ = ["check_installed", "is_installed", "known_schemes", "make_filesystem"]

_EXTRAS = {
    "abfs": "azure",
    "abfss": "azure",
    "adl": "azure",
    "az": "azure",
    "gcs": "gcs",
    "gs": "gcs",
    "http": "http",
    "https": "http",
    "s3": "s3",
    "s3a": "s3",
    "sftp": "sftp",
    "ssh": "sftp",
}
_PATHS = {"file", "local"}
_PASSES_OPTIONS_ON = {"sftp", "ssh"}  # to paramiko, which refuses what it does not know
_S3 = {"s3", "s3a"}

# A service that says nothing for so long is asked again (s).
_CONNECT_S = 10
_SILENT_S = 30


def make_filesystem(url: str, options: Mapping[str, object]) -> tuple[Any, str]:
    """Return fsspec's filesystem for a URL, and the path of the URL in it.

    It is new: not shared with other URLs, where the first credentials would win, and without a cache of listings, which
    would hide what others have written.

    Parameters
    ----------
    url : str
        Of the root.
    options : mapping
        As fsspec and pandas take them; they come after ours.
    """
    scheme = scheme_of(url)
    arguments: dict[str, Any] = {**_defaults(scheme, options), "skip_instance_cache": True}
    if scheme not in _PASSES_OPTIONS_ON:
        arguments["use_listings_cache"] = False
    filesystem, root = url_to_fs(f"file://{path_from(url)}" if scheme in _PATHS else url, **arguments)
    return filesystem, root.rstrip("/")


def _defaults(scheme: str, options: Mapping[str, object]) -> dict[str, Any]:
    arguments: dict[str, Any] = dict(options)
    if scheme in _S3:
        given = arguments.get("config_kwargs") or {}
        # Repetitions within repetitions would take minutes; `Requests` repeats.
        ours = {
            "connect_timeout": _CONNECT_S,
            "read_timeout": _SILENT_S,
            "retries": {"total_max_attempts": 1},
            "max_pool_connections": 32,
        }
        arguments["config_kwargs"] = {**ours, **given}
    return arguments


def known_schemes() -> frozenset[str]:
    """Return every scheme that fsspec knows, whether or not its package is installed."""
    return frozenset(fsspec.available_protocols())


def is_installed(scheme: str) -> bool:
    """Tell whether the package for a scheme is there."""
    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError):
        return False
    return True


def check_installed(scheme: str, shown: str) -> None:
    """Check that the package for a scheme is there; `shown` is the URL for messages.

    Raises
    ------
    MissingExtraError
        If it is not; the text has the pip command.
    UsageError
        If nobody provides the scheme.
    """
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        remedy = f'pip install "mltraq-ds[{extra}]"' if extra else f"{error}"
        raise MissingExtraError(f"The storage {shown} needs a package that is not installed. Do: {remedy}") from error
    except ValueError as error:
        near = difflib.get_close_matches(scheme, fsspec.available_protocols(), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(
            f"The URL {shown!r} is refused because fsspec knows no scheme {scheme!r}.{hint} Install the package that "
            "provides it, or give a path."
        ) from error
