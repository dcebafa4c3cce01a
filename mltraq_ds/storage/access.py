"""The way to a remote: its URL and options, which may hold secrets, and one filesystem per process."""

from __future__ import annotations

import os
import re
import traceback
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from mltraq_ds.errors import MltraqDSError, SecretInOptionsWarning, UsageError
from mltraq_ds.storage.answers import code_of, is_transient, status_of
from mltraq_ds.storage.failures import Failing, failure_of
from mltraq_ds.storage.filesystems import check_installed, known_schemes, make_filesystem
from mltraq_ds.storage.obstore_options import ClientName, chosen_client, make_store
from mltraq_ds.storage.places import public_url, scheme_of, secrets_of

__all__ = ["Access", "RemoteFailing", "known_schemes"]

_BUCKETS = {"gcs", "gs", "s3", "s3a"}  # what follows their "://" is a bucket and nothing else


class Access:
    """URL and options of a remote.  They never leave this object: it has no telling repr and cannot be pickled.

    Raises
    ------
    MissingExtraError
        If the package for the scheme is not installed.
    UsageError
        If the scheme is unknown or the URL is of a form that fsspec would misread.
    """

    def __init__(self, url: str, options: Mapping[str, object], client: ClientName = "fsspec") -> None:
        self.public_url = public_url(url).rstrip("/") if not url.endswith("://") else url
        self.scheme = scheme_of(url)
        self._url = url
        self._options = dict(options)
        self._secrets = secrets_of(url, options)
        self._connections: dict[int, tuple[Any, str]] = {}
        _check_url(url, self.public_url)
        #: Who sends the requests: "fsspec" or "obstore".
        self.client = chosen_client(client, self.scheme)
        if self.client == "fsspec":
            check_installed(self.scheme, self.public_url)

    def __repr__(self) -> str:
        return f"Access({self.public_url!r})"

    def __getstate__(self) -> object:
        raise UsageError(f"The access to {self.public_url} cannot be pickled: it may hold secrets. Pickle the storage.")

    @property
    def has_secrets(self) -> bool:
        """Whether the URL or an option holds a secret."""
        return bool(self._secrets)

    def warn_of_secrets(self) -> None:
        """Warn, once for each storage, if a secret was given in the URL or an option."""
        if self._secrets:
            warnings.warn(
                f"The URL or the options of {self.public_url} hold a secret. It is used and never stored, but it may "
                "be in your code or your history: name a profile, or set the provider's environment variables.",
                SecretInOptionsWarning,
                stacklevel=1,  # one place in the code, so that Python shows each text once
            )

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
        """Return the filesystem (or the stores) of this process and the root's path in it; made at the first call.

        Filesystems are made anew after a fork (an asynchronous one would hang), never shared between storages (the
        first credentials would win), and without a cache of listings (it would hide what others wrote).
        """
        pid = os.getpid()
        if pid not in self._connections:
            with RemoteFailing("connect to", "", self):
                make = make_filesystem if self.client == "fsspec" else make_store
                made = make(self._url, self._options)
            # Two threads may come here at once: both then use the first.
            self._connections.setdefault(pid, made)
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
        if is_transient(error):
            # Looked at by those who repeat; survives when the cause is not told.
            vars(failure).update(is_transient=True, is_silence=status_of(error) is None and not code_of(error))
        raise failure from (None if self._access.is_telling(error) else error)


def _check_url(url: str, shown: str) -> None:
    reason = ""
    if "::" in url:
        reason = "chains filesystems; fsspec's caches are corrupted by concurrent use"
    elif re.search(r"[?#]", url):
        reason = "has a query or fragment; pass what it says in 'storage_options'"
    elif ".." in url.split("/"):
        reason = "contains '..'"
    elif scheme_of(url) in _BUCKETS:
        reason = _wrong_bucket(url.partition("://")[2].partition("/")[0])
    if reason:
        raise UsageError(f"The URL {shown!r} is refused because it {reason}. Write '<scheme>://<bucket>/<prefix>'.")


def _wrong_bucket(authority: str) -> str:
    if "@" in authority:
        return "has a key or user before its bucket; pass these as 'storage_options', or better name a profile"
    if ":" in authority:
        return "names a server; pass its URL as 'endpoint_url' in 'storage_options'"
    return "" if authority else "names no bucket"
