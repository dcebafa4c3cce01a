"""Secrets in configurations: hidden where they are shown, refused where they would be kept, named by a reference.

A *reference* ``env:NAME`` stands for the value of an environment variable, which is looked up when the store is
connected.  It may stand for a password in a URL, for an option, or for a whole URL, and it may be written anywhere.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from mltraq_ds.errors import UsageError
from mltraq_ds.storage.places import is_secret_name

__all__ = ["HIDDEN", "hide", "is_reference", "names_of_secrets", "refer", "resolve"]

HIDDEN = "***"

_REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
# As SQLAlchemy reads it: a password may hold '/', but what is only digits before one is a port.
_PASSWORD = re.compile(r"^([^:/?#]+://[^:/@?#]*:)(?!\d+(?:/|$))([^@]*)(@)")
_PARAMETER = re.compile(r"(?<=[?&])([^=&#]*)=([^&#]*)")

#: What to put in place of a secret: gets where it is and what it is.
Replace = Callable[[str, str], str]


def is_reference(text: object) -> bool:
    """Tell whether a text is ``env:NAME``."""
    return isinstance(text, str) and _REFERENCE.fullmatch(text) is not None


def hide(name: str, value: Any) -> Any:
    """Return the value of a field for people: references stay, secrets are ``***``."""
    return _replaced(name, value, lambda _, secret: secret if is_reference(secret) else HIDDEN)


def names_of_secrets(name: str, value: Any) -> list[str]:
    """Return where in the value of a field there are secrets; references are none."""
    found: list[str] = []

    def note(where: str, secret: str) -> str:
        if not is_reference(secret) and secret != HIDDEN:
            found.append(where)
        return secret

    _replaced(name, value, note)
    return found


def refer(name: str, value: Any, references: Mapping[str, str]) -> Any:
    """Return the value of a field with references, given by the place of each, in place of secrets; others are hidden.

    Parameters
    ----------
    name : str
        Of the field.
    value : object
        What it holds.
    references : mapping
        Place, as `names_of_secrets` gives it, to ``env:NAME``.
    """

    def put(where: str, secret: str) -> str:
        return secret if is_reference(secret) else references.get(where, HIDDEN)

    return _replaced(name, value, put)


def resolve(name: str, value: Any) -> Any:
    """Return the value of a field with what its references name.

    Raises
    ------
    UsageError
        If a variable is not set, or a secret was hidden when the configuration was written down.
    """

    def look_up(where: str, secret: str) -> str:
        if secret == HIDDEN:
            raise UsageError(
                f"The store cannot be connected because the secret in {where!r} was hidden when its configuration was "
                "written down. Set it anew, or write it with to_dict(secrets='env:NAME')."
            )
        match = _REFERENCE.fullmatch(secret)
        if match is None:
            return secret
        found = os.environ.get(match.group(1))
        if found is None:
            raise UsageError(
                f"The store cannot be connected because {where!r} is in the environment variable {match.group(1)}, "
                "which is not set. Set it."
            )
        return found

    return _replaced(name, value, look_up)


def _replaced(where: str, value: Any, replace: Replace, *, is_secret: bool = False) -> Any:
    is_secret = is_secret or is_secret_name(where.rpartition(".")[2])
    if isinstance(value, str):
        if is_reference(value):
            return replace(where, value)
        if "://" in value:
            return _in_url(where, value, replace)
        return replace(where, value) if is_secret and value else value
    if isinstance(value, Mapping):
        return {
            key: _replaced(f"{where}.{key}", inner, replace, is_secret=is_secret and not isinstance(inner, bool))
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_replaced(where, inner, replace, is_secret=is_secret) for inner in value)
    if not is_secret or value is None or isinstance(value, bool):
        return value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    put = replace(where, text)
    return value if put == text else put


def _in_url(where: str, url: str, replace: Replace) -> str:
    def password(match: re.Match[str]) -> str:
        return f"{match.group(1)}{_put(f'{where}.password', match.group(2), replace)}{match.group(3)}"

    def parameter(match: re.Match[str]) -> str:
        name = urllib.parse.unquote_plus(match.group(1))
        if not is_secret_name(name):
            return match.group(0)
        return f"{match.group(1)}={_put(f'{where}.{name}', match.group(2), replace)}"

    head, mark, query = _PASSWORD.sub(password, url).partition("?")
    return head + _PARAMETER.sub(parameter, mark + query)


def _put(where: str, quoted: str, replace: Replace) -> str:
    secret = urllib.parse.unquote(quoted)
    put = replace(where, secret) if secret else secret
    return quoted if put == secret else urllib.parse.quote(put, safe=":*")
