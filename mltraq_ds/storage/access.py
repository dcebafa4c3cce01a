"""The way to a remote: its URL and options, which may hold secrets, and one filesystem per process."""

from __future__ import annotations

import difflib
import os
import re
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from mltraq_ds.errors import MissingExtraError, MltraqDSError, UsageError
from mltraq_ds.storage.failures import Failing, failure_of
from mltraq_ds.storage.places import path_from, public_url, scheme_of, secrets_of

__all__ = ["Access", "RemoteFailing"]

_EXTRAS = {
    "abfs": "azure",
    "abfss": "azure",
    "adl": "azure",
    "az": "azure",
    "gcs": "gcs",
    "gs": "gcs",
    "s3": "s3",
    "s3a": "s3",
    "sftp": "sftp",
    "ssh": "sftp",
}
_PATHS = {"file", "local"}
_PASSES_OPTIONS_ON = {"sftp", "ssh"}  # to paramiko, which refuses what it does not know


class Access:
    """URL and options of a remote.  They never leave this object: it has no telling repr and cannot be pickled.

    Raises
    ------
    MissingExtraError
        If the package for the scheme is not installed.
    UsageError
        If the scheme is unknown or the URL is of a form that fsspec would misread.
    """

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        self.public_url = public_url(url).rstrip("/") if not url.endswith("://") else url
        self.scheme = scheme_of(url)
        self._url = url
        self._options = dict(options)
        self._secrets = secrets_of(url, options)
        self._connections: dict[int, tuple[Any, str]] = {}
        _check_url(url, self.public_url)
        _check_installed(self.scheme, self.public_url)

    def __repr__(self) -> str:
        return f"Access({self.public_url!r})"

    def __getstate__(self) -> object:
        raise UsageError(f"The access to {self.public_url} cannot be pickled: it may hold secrets. Pickle the storage.")

    @property
    def has_secrets(self) -> bool:
        """Whether the URL or an option holds a secret."""
        return bool(self._secrets)

    def public_options(self) -> dict[str, object]:
        """Return the options if none is a secret; raise `UsageError` otherwise."""
        if self._secrets:
            raise UsageError(
                f"The storage {self.public_url} cannot be pickled because its URL or options hold a secret, which "
                "would be written with it. Name where the secret is instead: a profile, environment variables or the "
                "provider's own configuration."
            )
        return dict(self._options)

    def connect(self) -> tuple[Any, str]:
        """Return fsspec's filesystem for this process and the root's path in it; made at the first call.

        Filesystems are made anew after a fork (an asynchronous one would hang), never shared between storages (the
        first credentials would win), and without a cache of listings (it would hide what others wrote).
        """
        pid = os.getpid()
        if pid not in self._connections:
            with RemoteFailing("connect to", "", self):
                options = {**self._options, "skip_instance_cache": True}
                if self.scheme not in _PASSES_OPTIONS_ON:
                    options["use_listings_cache"] = False
                place = f"file://{path_from(self._url)}" if self.scheme in _PATHS else self._url
                filesystem, root = url_to_fs(place, **options)
            # Two threads may come here at once: both then use the first.
            self._connections.setdefault(pid, (filesystem, root.rstrip("/")))
        return self._connections[pid]

    def without_secrets(self, text: str) -> str:
        """Return `text` with every secret replaced."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def is_telling(self, error: BaseException) -> bool:
        """Tell whether printing an error and its causes would print a secret."""
        text = "".join(traceback.format_exception(error))
        return any(secret in text for secret in self._secrets)


class RemoteFailing(Failing):
    """As `Failing`, for what fsspec's implementations raise: many kinds, few of them an ``OSError``."""

    __slots__ = ("_access",)

    def __init__(self, verb: str, key: str, access: Access) -> None:
        super().__init__(verb, key, access.public_url)
        self._access = access

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, MltraqDSError):
            return
        failure = failure_of(self.verb, self.key, self.url, error, self._access.without_secrets(str(error)))
        raise failure from (None if self._access.is_telling(error) else error)


def _check_url(url: str, shown: str) -> None:
    reason = ""
    if "::" in url:
        reason = "chains filesystems; fsspec's caches are corrupted by concurrent use"
    elif re.search(r"[?#]", url):
        reason = "has a query or fragment; pass what it says in 'storage_options'"
    elif ".." in url.split("/"):
        reason = "contains '..'"
    if reason:
        raise UsageError(f"The URL {shown!r} is refused because it {reason}. Write '<scheme>://<bucket>/<prefix>'.")


def _check_installed(scheme: str, shown: str) -> None:
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        remedy = f'pip install "mltraq_ds[{extra}]"' if extra else f"{error}"
        raise MissingExtraError(f"The storage {shown} needs a package that is not installed. Do: {remedy}") from error
    except ValueError as error:
        near = difflib.get_close_matches(scheme, fsspec.available_protocols(), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(
            f"The URL {shown!r} is refused because fsspec knows no scheme {scheme!r}.{hint} Install the package that "
            "provides it, or give a path."
        ) from error
