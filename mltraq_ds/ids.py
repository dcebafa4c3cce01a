"""Ids, keys and escaping: the one door through which names become places and places are checked.

*Names, ids and mapping keys are data*: `escape_name` turns any string into one path segment, injectively, also where
the file system ignores case.  *Prefixes, URLs and keys are places*: `validate_key` refuses those that could leave
their place, both where a key is made and where it is read back.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterable

from uuid6 import uuid7

from mltraq_ds.errors import InvalidNameError

__all__ = [
    "FIRST_SEQUENTIAL_UUID",
    "escape_member",
    "escape_name",
    "join_key",
    "key_from_url",
    "new_uuid",
    "next_uuid",
    "unescape_name",
    "url_from_key",
    "validate_key",
]

#: The first id of the sequence, so that documentation prints the ids its readers already know.
FIRST_SEQUENTIAL_UUID = uuid.UUID("d65df69e-1175-44a5-be2f-2232765703b8")

MAX_SEGMENT_BYTES = 200  # 255 is the limit of common file systems; the rest is for suffixes
MAX_KEY_BYTES = 1000  # 1,024 is the limit of S3

_SAFE_LOWER = re.compile(r"[a-z0-9._ -]")
_PLAIN = re.compile(r"[a-z0-9-](?:[a-z0-9._ -]*[a-z0-9_-])?")
_SAFE_ANY = re.compile(r"[A-Za-z0-9._ -]")
_USERINFO = re.compile(r"//[^/\s]*@")  # may hold a password
_DRIVE = re.compile(r"^[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DOTS_ENCODED = re.compile(r"%(?:25)*(?:2e|2f|5c|00)", re.IGNORECASE)
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{n}{i}" for n in ("com", "lpt") for i in range(1, 10))}


class _Sequence:
    """A thread-safe counter of uuids."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(FIRST_SEQUENTIAL_UUID.int)

    def next(self, seed: int | None) -> uuid.UUID:
        with self._lock:
            if seed is not None:
                self._numbers = itertools.count(seed + 1)
            return uuid.UUID(int=next(self._numbers) % 2**128)


_sequence = _Sequence()


def next_uuid(seed: int | None = None) -> uuid.UUID:
    """Return the next uuid of the process-wide sequence: predictable, for documentation and tests.

    Parameters
    ----------
    seed : int, optional
        Continue at ``seed + 1``.  The first call of a process gives `FIRST_SEQUENTIAL_UUID`.

    Examples
    --------
    >>> next_uuid(seed=41)
    UUID('00000000-0000-0000-0000-00000000002a')
    >>> next_uuid(seed=FIRST_SEQUENTIAL_UUID.int - 1) == FIRST_SEQUENTIAL_UUID
    True
    """
    return _sequence.next(seed)


def new_uuid() -> uuid.UUID:
    """Return a fresh, time-ordered uuid (version 7, RFC 9562), so that rows inserted together lie together."""
    return uuid.UUID(int=uuid7().int)


def fresh_uuid(source: Callable[[], uuid.UUID], is_taken: Callable[[uuid.UUID], bool]) -> uuid.UUID:
    """Draw from `source` until an id is free: a predictable sequence meets ids of earlier processes."""
    while is_taken(candidate := source()):
        pass
    return candidate


def escape_name(name: str) -> str:
    """Turn any string into one path segment; different strings give different segments on every file system.

    Lower-case ASCII letters, digits, ``.``, ``-``, ``_`` and space stay; every other UTF-8 byte becomes ``=xx``.  A
    leading ``_`` or ``.`` (reserved), a trailing ``.`` or space (Windows drops them), the device names of Windows and
    the reserved ``artifacts`` are escaped too.  Beyond `MAX_SEGMENT_BYTES` the middle is replaced by a SHA-256.

    Parameters
    ----------
    name : str
        Any string, the empty one and lone surrogates included.

    Returns
    -------
    str
        A segment of at most `MAX_SEGMENT_BYTES` ASCII characters, never empty.

    Examples
    --------
    >>> escape_name("my_exp:1.0"), escape_name("my_exp_1.0"), escape_name("A"), escape_name(".."), escape_name("")
    ('my_exp=3a1.0', 'my_exp_1.0', '=41', '=2e=2e', '=')
    """
    segment = _escape(name, _SAFE_LOWER)
    if segment.split(".")[0].strip() in _WINDOWS_DEVICES or segment == "artifacts":
        segment = f"={ord(segment[0]):02x}{segment[1:]}"
    return segment


def escape_member(name: str) -> str:
    """Turn any string into one segment of a member name: as `escape_name`, but capitals stay, since ZIP keeps case."""
    return _escape(name, _SAFE_ANY)


def unescape_name(segment: str) -> str | None:
    """Return the name that `escape_name` was given, or None where a long name was replaced by its digest."""
    if segment == "=":
        return ""
    if "==" in segment:
        return None
    text = re.sub(r"=([0-9a-f]{2})", lambda m: chr(int(m.group(1), 16)), segment)
    try:
        return text.encode("latin-1").decode("utf-8", "surrogatepass")
    except UnicodeError:
        return None


def _escape(name: str, safe: re.Pattern[str]) -> str:
    if not name:
        return "="
    if len(name) <= MAX_SEGMENT_BYTES and _PLAIN.fullmatch(name):
        return name  # most ids, in a tenth of the time
    last = len(name) - 1
    parts = []
    for i, char in enumerate(name):
        at_edge = (i == 0 and char in "_. ") or (i == last and char in ". ")
        if safe.match(char) and not at_edge:
            parts.append(char)
        else:
            parts.extend(f"={byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))
    segment = "".join(parts)
    if len(segment) > MAX_SEGMENT_BYTES:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        # "==" appears in no other segment, so a long name cannot meet a short one.
        segment = f"{segment[: MAX_SEGMENT_BYTES - 70]}=={digest}"
    return segment


def validate_key(key: str, what: str = "key") -> str:
    """Return `key` if it names a place inside a store; raise otherwise.

    Called where a key is made *and* where one is read back from a database, file, pointer or remote.

    Parameters
    ----------
    key : str
        Store-relative name, segments joined by ``/``.
    what : str
        What the key is, for the message.

    Raises
    ------
    InvalidNameError
        If the key could leave the store or names nothing.  Nothing was changed.
    """
    if type(key) is str and len(key) <= MAX_KEY_BYTES:
        reason = _known_reason_against(key)
    else:
        reason = _reason_against(key)
    if reason:
        raise InvalidNameError(
            f"The {what} {key!r} is refused because it {reason}. Use a relative name of plain segments joined by '/', "
            "such as 'self_managed/x'."
        )
    return key


def _reason_against(key: str) -> str | None:
    # Security rules are marked: each closes a way out of the store.
    if not isinstance(key, str):
        return f"is of type {type(key).__name__}, not str"
    if not key:
        return "is empty"  # security: an empty prefix is the whole store
    if key.startswith("/"):
        return "is absolute"  # security
    if "\\" in key:
        return "contains a backslash"  # security: a separator on Windows
    if _CONTROL.search(key):
        return "contains a control character"  # security: NUL cuts names short in C
    if any(map(_DRIVE.match, key.split("/"))):
        return "has a segment that starts with a drive letter"  # security: joining one starts anew on Windows
    if _DOTS_ENCODED.search(key):
        return "contains an encoded dot, slash, backslash or NUL"  # security: decoded by a server later
    segments = key.split("/")
    if ".." in segments or "." in segments:
        return "contains '.' or '..' as a segment"  # security
    if "" in segments:
        return "contains an empty segment"  # 'a//b' and 'a/b' are one file and two keys
    if any(segment != segment.strip() or segment.endswith(".") for segment in segments):
        return "has a segment with a space at an edge or a dot at its end"  # Windows drops them
    try:
        encoded = key.encode("utf-8")
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if len(encoded) > MAX_KEY_BYTES or any(len(segment.encode()) > 255 for segment in segments):
        return f"is longer than {MAX_KEY_BYTES} bytes (255 a segment)"
    return None


# The same few keys are asked for many times in a persist.  Only plain, short ones: what is known is kept alive.
_known_reason_against = functools.lru_cache(maxsize=1024)(_reason_against)


def join_key(segments: Iterable[str]) -> str:
    """Join segments to a key and validate it."""
    return validate_key("/".join(segments))


def url_from_key(key: str, scheme: str = "file", fragment: str = "") -> str:
    """Return ``<scheme>:///<key>[#fragment]``: the empty authority means "this store".

    Examples
    --------
    >>> url_from_key("self_managed/x#1")
    'file:///self_managed/x%231'
    """
    url = f"{scheme}:///{urllib.parse.quote(key)}"
    return f"{url}#{urllib.parse.quote(fragment)}" if fragment else url


def key_from_url(url: str) -> tuple[str, str]:
    """Return key and fragment of a URL made by `url_from_key`; the scheme is ignored, so that a store can be moved.

    Raises
    ------
    InvalidNameError
        If the URL has an authority, a query, or a key that could leave the store.

    Examples
    --------
    >>> key_from_url("s3:///self_managed/x%231")
    ('self_managed/x#1', '')
    """
    if not isinstance(url, str):
        raise InvalidNameError(
            f"A URL is a string, not {type(url).__name__}. Use the one that write() or to_url() gave."
        )
    scheme, separator, rest = url.partition(":///")
    if not separator or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        shown = _USERINFO.sub("//***@", url.partition("?")[0])
        raise InvalidNameError(
            f"The URL {shown!r} is refused because it is not of the form '<scheme>:///<key>'. URLs of a store have an "
            "empty authority; pass the store itself as an argument."
        )
    path, _, fragment = rest.partition("#")
    if "?" in path:
        raise InvalidNameError(
            f"The URL {url.partition('?')[0]!r} is refused because it has a query. A '?' in a key is written '%3F'."
        )
    if _DOTS_ENCODED.search(path.replace("%2F", "/")):
        validate_key(path, "URL path")
    return validate_key(urllib.parse.unquote(path), "URL path"), urllib.parse.unquote(fragment)
