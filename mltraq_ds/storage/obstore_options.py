"""Stores of obstore from URLs and from options in the spelling of fsspec."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from mltraq_ds.errors import MissingExtraError, UsageError
from mltraq_ds.storage.places import public_url, scheme_of

__all__ = ["ClientName", "chosen_client", "make_store"]

#: Who sends the requests to a remote.
ClientName: TypeAlias = Literal["auto", "fsspec", "obstore"]

_KINDS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}

# Name in fsspec's options, nested ones after a dot: name in obstore's configuration.
_CONFIG = {
    "s3": {
        "key": "access_key_id",
        "secret": "secret_access_key",
        "token": "session_token",
        "endpoint_url": "endpoint",
        "anon": "skip_signature",
        "client_kwargs.region_name": "region",
        "client_kwargs.endpoint_url": "endpoint",
        "client_kwargs.aws_access_key_id": "access_key_id",
        "client_kwargs.aws_secret_access_key": "secret_access_key",
        "client_kwargs.aws_session_token": "session_token",
        "profile": "",
        "config_kwargs.request_checksum_calculation": "",  # the signature covers the bytes
    },
    "gs": {"endpoint_url": "base_url", "token": "application_credentials", "project": ""},
    "az": {
        "account_name": "account_name",
        "account_key": "account_key",
        "sas_token": "sas_key",
        "tenant_id": "tenant_id",
        "client_id": "client_id",
        "client_secret": "client_secret",
        "anon": "skip_signature",
        "connection_string": "",
    },
}
#: What gcsfs takes as `token` by name: configuration of obstore, which finds the rest in the places of Google's tools.
_GOOGLE: dict[str, dict[str, Any]] = {"anon": {"skip_signature": True}, "cloud": {}, "google_default": {}}
_CONNECTION = {
    "AccountName": "account_name",
    "AccountKey": "account_key",
    "BlobEndpoint": "endpoint",
    "SharedAccessSignature": "sas_key",
}
_CLIENT = {"connect_timeout": "10s", "read_timeout": "30s", "timeout": "120s"}
_REFRESH = timedelta(minutes=10)  # how often credentials that expire are looked at

_first_process: list[int] = []


def chosen_client(name: ClientName, scheme: str) -> Literal["fsspec", "obstore"]:
    """Return who sends the requests to storages of a scheme: "auto" is fsspec, unless only obstore is installed.

    Raises
    ------
    MissingExtraError
        If obstore is wanted and not installed; the text has the pip command.
    UsageError
        If obstore does not know the scheme, or there is no such client.
    """
    from mltraq_ds.storage.filesystems import is_installed  # imports fsspec, of no use to folders

    if name == "fsspec" or (name == "auto" and (scheme not in _KINDS or is_installed(scheme))):
        return "fsspec"
    has_obstore = importlib.util.find_spec("obstore") is not None
    if name == "auto":
        return "obstore" if has_obstore else "fsspec"
    if name != "obstore":
        raise UsageError(f"There is no client {name!r} for storages: use 'auto', 'fsspec' or 'obstore'.")
    if scheme not in _KINDS:
        raise UsageError(
            f"The client 'obstore' is refused because it knows {', '.join(_KINDS)} and not {scheme!r}. Set option "
            "'datastore.client' to 'auto'."
        )
    if not has_obstore:
        raise MissingExtraError(
            "The client 'obstore' needs a package that is not installed. Do: pip install \"mltraq-ds[obstore]\""
        )
    return "obstore"


def make_store(url: str, options: Mapping[str, object]) -> tuple[tuple[Any, Any], str]:
    """Return two stores of obstore, one that never repeats a request and one that does, and the path of the root.

    Raises
    ------
    UsageError
        If an option has no counterpart, or after a fork: the threads of obstore stay behind in the parent.
    """
    _refuse_fork(public_url(url))
    from obstore import store as stores

    kind = _KINDS[scheme_of(url)]
    bucket, _, root = url.partition("://")[2].partition("/")
    config, more = _configured(kind, options, public_url(url))
    if kind == "s3":
        more |= _aws(config, options)
    if kind == "az" and "@" in bucket:
        bucket, _, host = bucket.partition("@")
        config.setdefault("account_name", host.partition(".")[0])
    client = dict(_CLIENT)
    if any(str(config.get(name, "")).startswith("http://") for name in ("endpoint", "base_url")):
        client |= {"allow_http": True}  # type: ignore[dict-item]
    make: Any = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}[kind]

    def made(repeats: int) -> Any:
        retry = {"max_retries": repeats, "retry_timeout": timedelta(seconds=120)}
        return make(bucket, config=config, client_options=client, retry_config=retry, **more)

    return (made(0), made(5)), root.strip("/")


def _refuse_fork(shown: str) -> None:
    _first_process[:] = _first_process or [os.getpid()]
    if _first_process[0] != os.getpid():
        raise UsageError(
            f"The client 'obstore' is refused for {shown} because this process was forked from one that has used it, "
            "and its threads stayed there. Start workers by 'spawn' or loky, or set option 'datastore.client' to "
            "'fsspec'."
        )


def _configured(kind: str, options: Mapping[str, object], shown: str) -> tuple[dict[str, Any], dict[str, Any]]:
    names = _CONFIG[kind]
    flat: dict[str, object] = {}
    for name, value in options.items():
        if isinstance(value, Mapping) and name.endswith("_kwargs"):
            flat |= {f"{name}.{inner}": one for inner, one in value.items()}
        else:
            flat[name] = value
    unknown = sorted(set(flat) - set(names))
    if unknown:
        raise UsageError(
            f"The storage options {unknown} of {shown} are refused because the client 'obstore' has nothing like them. "
            "Leave them out, or set option 'datastore.client' to 'fsspec'."
        )
    config = {names[name]: value for name, value in flat.items() if names[name] and value is not None}
    if kind == "gs":
        config |= _google(config.pop("application_credentials", None), shown)
    if "connection_string" in flat:
        parts = dict(part.split("=", 1) for part in str(flat["connection_string"]).split(";") if "=" in part)
        config |= {_CONNECTION[name]: value for name, value in parts.items() if name in _CONNECTION}
    return {name: value if isinstance(value, bool) else str(value) for name, value in config.items()}, {}


def _google(token: object, shown: str) -> dict[str, Any]:
    """Return what obstore is told in place of gcsfs's `token`: a name, a file, or what such a file holds."""
    if isinstance(token, Mapping):
        return {"service_account_key": json.dumps(dict(token))}
    if token is None or token in _GOOGLE:
        return dict(_GOOGLE.get(str(token), {}))
    if isinstance(token, str | os.PathLike) and os.path.isfile(token):
        return {"application_credentials": os.fspath(token)}
    raise UsageError(
        f"The storage option 'token' of {shown} is refused because it is neither {', '.join(map(repr, _GOOGLE))} nor a "
        "file with a key, which are all that the client 'obstore' knows. Correct it, or set option 'datastore.client' "
        "to 'fsspec'."
    )


def _aws(config: dict[str, Any], options: Mapping[str, object]) -> dict[str, Any]:
    """Return the way to credentials by AWS's own chain, where botocore knows it, and take region and endpoint of it."""
    if "access_key_id" in config or config.get("skip_signature"):
        return {}
    profile = options.get("profile") or os.environ.get("AWS_PROFILE")
    if importlib.util.find_spec("botocore") is None:
        if profile:
            raise MissingExtraError(
                'Profiles of AWS are read by a package that is not installed. Do: pip install "mltraq-ds[s3]"'
            )
        return {}
    from botocore.exceptions import NoCredentialsError
    from botocore.session import Session

    session = Session(profile=profile)
    credentials = session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    region = session.get_config_variable("region")
    if region:
        config.setdefault("region", region)
    return {"credential_provider": _provider(credentials)}


def _provider(credentials: Any) -> Callable[[], dict[str, Any]]:
    def provide() -> dict[str, Any]:
        frozen = credentials.get_frozen_credentials()
        expires = datetime.now(UTC) + _REFRESH if hasattr(credentials, "refresh_needed") else None
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": expires,
        }

    return provide
