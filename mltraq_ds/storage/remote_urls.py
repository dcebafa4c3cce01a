"""URLs of remotes: what is kept of them in pointers, and how they are opened.

``s3://bucket/prefix`` is a bucket of the provider; with a port or a user the first part is a server, and the bucket
follows: ``s3://user:password@host:port/bucket?secure=false``.
"""

from __future__ import annotations

import configparser
import json
import os
import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mltraq_ds.errors import UsageError
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.places import path_from, public_url, scheme_of, url_from_path

__all__ = ["RemoteUrl", "forget_remotes", "open_remote", "parse_remote"]

_S3 = {"s3", "s3a"}
_PLAIN = {"", "file", "local"}
_OTHERS = {"abfs", "abfss", "az", "gcs", "gs", "https", "memory", "sftp", "ssh"}
_ACCESS = ("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "MINIO_ACCESS_KEY")
_SECRET = ("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "MINIO_SECRET_KEY")
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

_opened: dict[tuple[object, ...], Storage] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class RemoteUrl:
    """A remote, as a URL names it.

    Parameters
    ----------
    public_url : str
        What is written into pointers: no secret, and the same for every way to write it.
    storage_url : str
        What the storage is opened with.
    endpoint : str
        URL of the S3 server; empty for the provider's own.
    user, password : str
        From the URL; used by this process and never written.
    """

    public_url: str
    storage_url: str
    endpoint: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


def parse_remote(url: str | os.PathLike[str]) -> RemoteUrl:
    """Parse the URL of a remote; paths are made absolute.

    Raises
    ------
    UsageError
        If it cannot be understood.  Nothing was changed.

    Examples
    --------
    >>> parse_remote("s3://my.bucket/lake/").public_url
    's3://my.bucket/lake'
    >>> parse_remote("s3://user:password@host:9000/bucket?secure=false")
    RemoteUrl(public_url='s3://host:9000/bucket?secure=false', storage_url='s3://bucket', endpoint='http://host:9000')
    """
    text = os.fspath(url)
    scheme = scheme_of(text)
    if not scheme and (start := text.partition(":")[0].lower()) != text.lower() and start in _S3 | _OTHERS:
        raise UsageError(
            f"The remote {public_url(text)!r} is refused because it looks like a URL with a slash too few. Write "
            f"'{start}://…', or './{start}:…' for a folder of that name."
        )
    if scheme in _PLAIN:
        place = url_from_path(path_from(text))
        return RemoteUrl(place, place)
    if scheme not in _S3 and scheme not in _OTHERS:
        raise UsageError(
            f"The remote {public_url(text)!r} is refused because its scheme {scheme!r} is none of "
            f"{', '.join(sorted(_S3 | _OTHERS))}: pointers come from others, and must not lead anywhere."
        )
    if scheme not in _S3:
        place = public_url(text).rstrip("/")
        if place != text.rstrip("/"):
            raise UsageError(
                f"The remote {place!r} is refused because its URL has a password, query or fragment, which only s3:// "
                "takes here. Name where the secret is instead: a profile or environment variables."
            )
        return RemoteUrl(place, place)
    return _parse_s3(text)


def _parse_s3(url: str) -> RemoteUrl:
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
        options = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        secure = _TRUTH[options.pop("secure", "true").lower()]
    except (ValueError, KeyError) as error:
        raise UsageError(f"The remote {public_url(url)!r} is refused: {error!s:.60} cannot be understood.") from error
    path = parts.path.strip("/")
    if options or parts.fragment:
        named = ", ".join(sorted(options)) or "a fragment"
        raise UsageError(
            f"The remote {public_url(url)!r} is refused because nobody reads {named}. Only 'secure=false' is known."
        )
    if port is None and not parts.username:
        if not secure or not parts.netloc:
            raise UsageError(
                f"The remote {public_url(url)!r} is refused because it names no server. Write "
                "'s3://host:port/bucket?secure=false', or 's3://bucket'."
            )
        place = f"s3://{parts.netloc}{'/' if path else ''}{path}"
        return RemoteUrl(place, place)
    host = f"{parts.hostname or ''}{f':{port}' if port else ''}"
    if not parts.hostname or not path:
        raise UsageError(
            f"The remote {public_url(url)!r} is refused because it names a server and no bucket. Write "
            "'s3://host:port/bucket'."
        )
    # Without a port the stored form could not be told from a bucket.
    host = host if port else f"{host}:{443 if secure else 80}"
    return RemoteUrl(
        f"s3://{host}/{path}{'' if secure else '?secure=false'}",
        f"s3://{path}",
        f"{'https' if secure else 'http'}://{host}",
        urllib.parse.unquote(parts.username or ""),
        urllib.parse.unquote(parts.password or ""),
    )


def open_remote(url: str | os.PathLike[str]) -> Storage:
    """Return the storage of a remote; one for each URL and credentials in a process.

    Credentials come from the URL, from AWS_ACCESS_KEY_ID, AWS_ACCESS_KEY or MINIO_ACCESS_KEY with any of the names of
    secrets (that of the same pair first), from the provider's own chain such as ``~/.aws/credentials``, and from the
    configuration of MinIO's client.
    """
    remote = parse_remote(url)
    options = _options(remote)
    known = (remote.public_url, json.dumps(options, sort_keys=True))
    with _lock:
        if known not in _opened:
            _opened[known] = _open(remote, options)
        return _opened[known]


def _open(remote: RemoteUrl, options: dict[str, Any]) -> Storage:
    from mltraq_ds.storage import open_storage, usually

    if "key" not in options:
        return open_storage(remote.storage_url, storage_options=options or None)
    from mltraq_ds.storage.remote import RemoteStorage  # heavy, and of no use to folders

    usual = usually()
    storage = RemoteStorage(
        remote.storage_url, storage_options=options, on_transfer=usual.on_transfer, client=usual.client
    )
    if remote.user:
        storage.warn_of_secrets()  # those of the environment are where they belong
    return storage


def forget_remotes() -> None:
    """Forget all opened remotes, so that changed credentials are read again."""
    with _lock:
        _opened.clear()


def _options(remote: RemoteUrl) -> dict[str, Any]:
    if not remote.storage_url.startswith("s3://"):
        return {}
    options: dict[str, Any] = {"endpoint_url": remote.endpoint} if remote.endpoint else {}
    key, secret = (remote.user, remote.password) if remote.user else _credentials(remote.endpoint)
    if key:
        options |= {"key": key, "secret": secret}
        token = "" if remote.user else os.environ.get("AWS_SESSION_TOKEN", "")
        options |= {"token": token} if token else {}
    return options


def _credentials(endpoint: str) -> tuple[str, str]:
    """Return what the provider's own chain would not find; empty where it will."""
    if os.environ.get("AWS_PROFILE") or (os.environ.get(_ACCESS[0]) and os.environ.get(_SECRET[0])):
        return "", ""
    for name, secret in zip(_ACCESS, _SECRET, strict=True):
        found = next(filter(None, (os.environ.get(one) for one in (secret, *_SECRET))), "")
        if os.environ.get(name) and found:
            return os.environ[name], found
    return ("", "") if _has_profile() else _from_mc(endpoint)


def _has_profile() -> bool:
    place = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or os.path.expanduser("~/.aws/credentials")
    profiles = configparser.ConfigParser(interpolation=None)
    try:
        profiles.read(place, encoding="utf-8")
    except (OSError, ValueError, configparser.Error):
        return False
    return profiles.has_option("default", "aws_access_key_id")


def _from_mc(endpoint: str) -> tuple[str, str]:
    """Return key and secret of the server in the configuration of MinIO's client, if it has it."""
    for folder in (".mc", "mc"):
        try:
            with open(os.path.expanduser(f"~/{folder}/config.json"), encoding="utf-8") as file:
                document = json.load(file)
        except (OSError, ValueError):
            continue
        servers = document.get("aliases") or document.get("hosts") if isinstance(document, dict) else None
        for server in servers.values() if isinstance(servers, Mapping) else ():
            if isinstance(server, Mapping) and _authority(str(server.get("url", ""))) == _authority(endpoint) != "":
                return str(server.get("accessKey", "")), str(server.get("secretKey", ""))
    return "", ""


def _authority(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    except ValueError:
        return ""
    return f"{parts.hostname}:{port}" if parts.hostname else ""
