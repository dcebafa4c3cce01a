"""Where a storage is: paths, ``file://`` URLs and other URLs, and what in them is secret."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from mltraq_ds.errors import UsageError

__all__ = ["is_secret_name", "path_from", "public_url", "scheme_of", "secrets_of", "url_from_path"]

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_LOST_SLASH = re.compile(r"^([A-Za-z0-9+]{2,}):/(?!/)")
_SECRET = re.compile(
    r"secret|passw|passphrase|token|credential|authorization|cookie|private_?key|access_?key(?!_id)|connection_?string"
    r"|(^|[_-])(key|auth|pwd|sas|sig|signature)$"
)
_NAMES_A_PLACE = re.compile(r"_(file|filename|path|url|uri)$")  # where a secret is, not the secret
_NO_SECRETS = {"", "anon", "browser", "cache", "cloud", "google_default"}  # what gcsfs takes as `token` by name


def scheme_of(url: str) -> str:
    """Return the scheme in lower case, or ``""`` for a path.

    Examples
    --------
    >>> scheme_of("S3://bucket/x"), scheme_of("C:/x"), scheme_of("x/y")
    ('s3', '', '')
    """
    match = _SCHEME.match(url)
    return match.group(1).lower() if match else ""


def path_from(url: str) -> str:
    """Return the absolute path of a path or ``file://`` URL; ``~`` is expanded, ``%20`` in a URL decoded.

    Raises
    ------
    UsageError
        If a URL has an authority, query or fragment, which would be silently lost.

    Examples
    --------
    >>> path_from("file:///data/a%20b")
    '/data/a b'
    """
    if not scheme_of(url):
        if not url or "\0" in url or url.startswith("file:") or "://" in url:
            raise UsageError(
                f"The place {public_url(url)!r} is refused because it is no path. Write 'folder' or 'file:///folder'."
            )
        _refuse_lost_slash(url)
        return os.path.abspath(os.path.expanduser(url))
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise UsageError(
            f"The URL {public_url(url)!r} is refused because it does not start with 'file:///'. Write three slashes "
            "and an absolute path, or a plain path."
        )
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise UsageError(
            f"The URL {public_url(url)!r} is refused because it has a query or fragment. Write '?' as '%3F' "
            "and '#' as '%23', or give a plain path."
        )
    if os.name == "nt" and re.match(r"/[A-Za-z]:", path):  # pragma: no cover - Windows is kept possible, untested
        path = path[1:]
    return os.path.abspath(path)


def _refuse_lost_slash(path: str) -> None:
    """Refuse ``s3:/bucket``, which would be a folder here, and not what was meant."""
    match = _LOST_SLASH.match(path)
    if match is not None:
        from fsspec import available_protocols  # of no use to folders

        if match[1].lower() in available_protocols():
            raise UsageError(
                f"The place '{match[1]}:/…' is refused because it lacks a slash. Write '{match[1]}://…', or "
                f"'./{match[1]}:/…' if you mean a folder of this name."
            )


def url_from_path(path: str) -> str:
    """Return the ``file://`` URL of an absolute path, as `path_from` reads it."""
    return Path(path).as_uri()


def public_url(url: str) -> str:
    """Return a URL without password, query and fragment.

    Examples
    --------
    >>> public_url("sftp://alice:pw@host:22/data?sig=1")
    'sftp://alice@host:22/data'
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{host}{slash}{path}"


def is_secret_name(name: str) -> bool:
    """Tell whether an option of this name holds a secret, as far as a name can tell."""
    lower = name.lower()
    return bool(_SECRET.search(lower)) and not _NAMES_A_PLACE.search(lower)


def secrets_of(url: str, options: Mapping[str, object]) -> list[str]:
    """Return every secret text in a URL and in options, so that it can be kept out of messages and pickles."""
    found = set(_secrets_in_url(url))
    found.update(_secrets_in(options, is_secret=False))
    return sorted(found - _NO_SECRETS, key=len, reverse=True)


def _secrets_in_url(url: str) -> Iterator[str]:
    authority = url.partition("://")[2].partition("/")[0]
    password = authority.rpartition("@")[0].partition(":")[2]
    yield password
    yield urllib.parse.unquote(password)


def _secrets_in(value: object, *, is_secret: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets_in(inner, is_secret=is_secret or is_secret_name(str(name)))
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _secrets_in(inner, is_secret=is_secret)
    elif value is None or isinstance(value, bool):
        return
    elif is_secret:
        yield value.decode("latin-1") if isinstance(value, bytes) else str(value)
    elif isinstance(value, str) and "://" in value:
        yield from _secrets_in_url(value)
