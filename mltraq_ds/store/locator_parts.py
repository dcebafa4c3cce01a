"""The parts of a locator: a path, or ``<scheme>://[user[:password]@]host[:port]/path[?name=value&…]``."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from mltraq_ds.errors import UsageError
from mltraq_ds.storage.access import known_schemes
from mltraq_ds.storage.places import path_from, scheme_of
from mltraq_ds.store.secrets import HIDDEN, hide

__all__ = ["LocatorInfo", "check_id", "parse_locator", "refuse_dots", "text_of", "without_parameters"]

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>[^:/@?#]*)(?::(?!\d+(?:/|$))(?P<password>[^@]*))?@)?"
    r"(?P<host>\[[^\]]*\]|[^:/?#]*)(?::(?P<port>\d+)(?=[/?#]|$))?(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?"
)


_SLIP = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)(?:(?P<colon>:)/?(?!/)|//)")
_PLACES = frozenset(
    "abfs az gcs gs http https mariadb memory mysql postgres postgresql s3 sftp sqlite".split()  # noqa: SIM905
)


@dataclass(frozen=True, kw_only=True)
class LocatorInfo:
    """A locator, taken apart; every text is decoded except `raw`.

    Parameters
    ----------
    scheme : str
        In lower case; ``file`` for a path.
    path : str
        With its leading ``/``; of a path and a ``file://`` URL the absolute path.
    host, user, password : str, optional
        As far as they are there; capitals stay, since a bucket may have some.
    port : int, optional
        TCP port.
    params : mapping
        What follows ``?``; a name that is given several times has a tuple of texts.
    raw : str
        The locator as it was given.
    """

    scheme: str
    path: str
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    params: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    raw: str = field(default="", repr=False)

    def __repr__(self) -> str:
        params = {name: hide(name, value) for name, value in self.params.items()}
        password = HIDDEN if self.password else None
        return (
            f"LocatorInfo(scheme={self.scheme!r}, path={self.path!r}, host={self.host!r}, port={self.port!r}, "
            f"user={self.user!r}, password={password!r}, params={params!r})"
        )


def parse_locator(locator: str | os.PathLike[str]) -> LocatorInfo:
    """Take a locator apart.

    Parameters
    ----------
    locator : str or path
        A path (``~`` is expanded, a relative one is made absolute now), ``file:///path``, or any other URL.

    Raises
    ------
    UsageError
        If it is empty, no URL, or a URL with ``..``.

    Examples
    --------
    >>> info = parse_locator("postgresql://ada:secret@db:5432/lab?file_root=/data&sslmode=require")
    >>> info.host, info.port, info.path, dict(info.params)
    ('db', 5432, '/lab', {'file_root': '/data', 'sslmode': 'require'})
    >>> info
    LocatorInfo(scheme='postgresql', path='/lab', host='db', port=5432, user='ada', password='***', \
params={'file_root': '/data', 'sslmode': 'require'})
    """
    raw = text_of(locator)
    scheme = scheme_of(raw)
    if scheme in ("", "file"):
        if scheme:
            refuse_dots(raw)
        return LocatorInfo(scheme="file", path=path_from(raw), raw=raw)
    match = _URL.fullmatch(raw)
    if match is None:
        raise UsageError(
            f"The locator {hide('locator', raw)!r} cannot be read because it is not of the form "
            "'<scheme>://user:password@host:port/path?name=value'. Write '@', '/', '#' in a password as '%40', '%2F', "
            "'%23'."
        )
    refuse_dots(raw)
    part = {name: None if text is None else urllib.parse.unquote(text) for name, text in match.groupdict().items()}
    return LocatorInfo(
        scheme=scheme,
        path=part["path"] or "",
        host=part["host"] or None,
        port=int(match["port"]) if match["port"] else None,
        user=part["user"],
        password=part["password"],
        params=_parameters(match["query"] or ""),
        raw=raw,
    )


def text_of(place: object) -> str:
    """Return a path or URL as text.

    Raises
    ------
    UsageError
        If it is no path and no URL, empty, or a URL with a slip that would make it a folder of this machine.
    """
    raw = os.fspath(place) if isinstance(place, str | os.PathLike) else None
    if not isinstance(raw, str) or not raw.strip() or "\0" in raw:
        what = f"a {type(place).__name__}" if raw is None else "empty or no text"
        raise UsageError(
            f"A store is named by a path or a URL such as './experiments', and this one is {what}. Give one."
        )
    slip = _SLIP.match(raw)
    scheme = slip["scheme"].lower().partition("+")[0] if slip else ""
    # "data//x" may well be a path; few folders are named "postgres".
    if scheme in _PLACES or (slip and slip["colon"] and scheme in known_schemes()):
        raise UsageError(
            f"The locator {hide('locator', raw)!r} is refused because it looks like a URL of the scheme {scheme!r}. "
            f"Write '{scheme}://…', or './' before the path of a folder of this name."
        )
    return raw


def check_id(experiment_id: object) -> None:
    """Refuse an id of an experiment that is no text."""
    if not isinstance(experiment_id, str):
        raise UsageError(f"The id of an experiment is a string, not {type(experiment_id).__name__}. Use str(...).")


def refuse_dots(url: str) -> None:
    """Refuse a URL with ``..``, encoded or not: it may come from elsewhere, and would leave the place that it names."""
    path = urllib.parse.unquote(urllib.parse.unquote(url.partition("?")[0].partition("://")[2]))
    if ".." in re.split(r"[/\\]", path):
        raise UsageError(
            f"The URL {hide('locator', url)!r} is refused because it contains '..'. Write the place itself."
        )


def _parameters(query: str) -> dict[str, str | tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else tuple(values) for name, values in found.items()}


def without_parameters(url: str, names: frozenset[str]) -> str:
    """Return a URL without some of its parameters; all others stay, letter by letter.

    Examples
    --------
    >>> without_parameters("postgresql://db/lab?file_root=/data&sslmode=require", frozenset({"file_root"}))
    'postgresql://db/lab?sslmode=require'
    """
    head, _, query = url.partition("?")
    kept = [
        part for part in query.split("&") if part and urllib.parse.unquote_plus(part.partition("=")[0]) not in names
    ]
    return f"{head}?{'&'.join(kept)}" if kept else head
