"""URIs of MLflow: made absolute, without secrets, and asked whether anybody answers."""

from __future__ import annotations

import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote

from mltraq_ds.errors import ArtifactBackendError
from mltraq_ds.option_table import redact

__all__ = ["absolute", "check_answers", "split_login", "without_secrets"]

_ANSWER_S = 10.0
_USERINFO = re.compile(r"://[^/\s]*@")
_LOGIN = re.compile(r"(https?://)([^/:@\s]*):([^/@\s]*)@")
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


def check_answers(uri: str) -> None:
    """Ask a server for any answer: MLflow itself would go on asking a dead one for minutes.

    Raises
    ------
    ArtifactBackendError
        If there is none within ten seconds.
    """
    if not uri.startswith(("http://", "https://")):
        return
    request = urllib.request.Request(_USERINFO.sub("://", uri), method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_ANSWER_S).close()
    except urllib.error.HTTPError as error:
        error.close()  # an answer
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return  # somebody is there; MLflow has settings of its own for certificates
        raise ArtifactBackendError(
            f"MLflow at {without_secrets(uri)} does not answer ({reason}). Start the server, or look at option "
            "'mlflow.tracking_uri'."
        ) from None  # the request could show more of the URI
