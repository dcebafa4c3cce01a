"""URIs of MLflow: made absolute, without secrets, and asked whether anybody answers."""

from __future__ import annotations

import re
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote

from mltraq_ds.errors import ArtifactBackendError, MissingExtraError, UsageError
from mltraq_ds.option_table import redact
from mltraq_ds.orm.answers import check_connects

__all__ = ["absolute", "check_answers", "split_login", "without_secrets"]

_ANSWER_S = 10.0
_USERINFO = re.compile(r"://[^/\s]*@")
_LOGIN = re.compile(r"(https?://)([^/:@\s]*):([^/@\s]*)@")
_DATABASE = re.compile(r"(mssql|mysql|postgresql|sqlite)(\+\w+)?://")
_RELATIVE_SQLITE = re.compile(r"(sqlite:///)(?!/)(.+)")


def absolute(uri: str) -> str:
    """Return a URI that means the same in another working directory, and one form of each.

    Examples
    --------
    >>> absolute("http://localhost:5000/")
    'http://localhost:5000'
    """
    if match := _RELATIVE_SQLITE.fullmatch(uri):
        return f"{match[1]}{Path(match[2]).absolute()}"
    is_path = ":" not in uri.partition("/")[0] and ("/" in uri or uri.startswith(".") or Path(uri).is_dir())
    return Path(uri).absolute().as_uri() if is_path else uri.rstrip("/")


def without_secrets(uri: str) -> str:
    """Return what may be written down of a URI.

    Examples
    --------
    >>> without_secrets("https://ada:secret@mlflow.example/x")
    'https://mlflow.example/x'
    """
    return redact(_USERINFO.sub("://", uri))


def split_login(uri: str) -> tuple[str, tuple[str, ...]]:
    """Return the URI of a server without user and password, and these, if it has them.

    Examples
    --------
    >>> split_login("https://ada:pa%40ss@mlflow.example/x")
    ('https://mlflow.example/x', ('ada', 'pa@ss'))
    >>> split_login("postgresql://ada:pass@db.example/x")
    ('postgresql://ada:pass@db.example/x', ())
    """
    found = _LOGIN.match(uri)
    if found is None:
        return uri, ()
    return f"{found[1]}{uri[found.end() :]}", (unquote(found[2]), unquote(found[3]))


def check_answers(uri: str, option: str) -> None:
    """Ask a server or a database for any answer: MLflow itself would go on asking a dead one for minutes.

    Parameters
    ----------
    uri : str
        Of MLflow; only servers and databases are asked.
    option : str
        Where it is from, for messages.

    Raises
    ------
    MissingExtraError
        If the driver of the database is not installed.
    ArtifactBackendError
        If there is no answer within ten seconds.
    """
    try:
        if uri.startswith(("http://", "https://")):
            _ask_server(uri)
        elif _DATABASE.match(uri):
            check_connects(uri, _ANSWER_S)
    except MissingExtraError as error:
        raise MissingExtraError(
            f"MLflow at {without_secrets(uri)} cannot be used because {error}. Install that driver, or look at option "
            f"{option!r}."
        ) from None
    except (UsageError, OSError, HTTPException, ValueError) as error:
        said = " ".join(str(getattr(error, "reason", error)).split())
        reason = without_secrets(said or type(error).__name__)
        raise ArtifactBackendError(
            f"MLflow at {without_secrets(uri)} does not answer ({reason:.500}). Start the server, or look at option "
            f"{option!r}."
        ) from None  # the request could show more of the URI


def _ask_server(uri: str) -> None:
    request = urllib.request.Request(_USERINFO.sub("://", uri), method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_ANSWER_S).close()
    except urllib.error.HTTPError as error:
        error.close()  # an answer
    except OSError as error:
        if not isinstance(getattr(error, "reason", error), ssl.SSLError):
            raise
        # Somebody is there; MLflow has settings of its own for certificates.
