"""The configuration file that `config init` writes: every option with what it means."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mltraq_ds.option_environment import variable_of
from mltraq_ds.option_files import NOT_IN_WORKING_FOLDER
from mltraq_ds.option_table import OPTIONS, has_secret, redact
from mltraq_ds.resolved import Settings

__all__ = ["toml_text", "unwritable"]

_HEAD = """\
# Options of mltraq_ds.  A line without "#" in front is in force; the others show the defaults.
# Arguments, options.ctx, options.set, flags of the command line and variables are stronger than this file.
# Keep secrets out of it: name a profile, or use the files and variables of the database or the storage.
"""

#: Names in `datastore.storage_options` that hold no secret.  Not a list of those that do: libraries make up new ones.
_NO_SECRETS = {
    "account_name", "anon", "client_kwargs", "config_kwargs", "endpoint_url", "host", "port", "profile", "project",
    "region", "region_name", "requester_pays", "s3", "signature_version", "use_ssl", "username", "verify",
}  # fmt: skip


def unwritable(settings: Settings, *, may_allow_pickle: bool) -> dict[str, str]:
    """Return the options that are set and must not be written, and why not."""
    reasons = {name: "it may hold a secret" for name, value in settings.items() if _may_have_secret(name, value)}
    reasons.update(dict.fromkeys(settings.missing, "it may hold a secret"))
    for name in NOT_IN_WORKING_FOLDER if not may_allow_pickle else ():
        if settings.get(name):
            reasons[name] = "a file in the working folder cannot set it"
    return reasons


def toml_text(settings: Settings, *, may_allow_pickle: bool = False) -> str:
    """Return a commented TOML file; what is not the default in `settings` is in force in it.

    Parameters
    ----------
    settings : Settings
        Values to write.  Those of `unwritable` are left out.
    may_allow_pickle : bool
        Whether the file may let pickled values be loaded, and name an MLflow to load models from: not where it may come
        with somebody else's folder.
    """
    left_out = unwritable(settings, may_allow_pickle=may_allow_pickle)
    parts = [_HEAD, "\n"]
    group = ""
    for name, option in OPTIONS.items():
        if name.partition(".")[0] != group:
            group = name.partition(".")[0]
            parts.append(f"[{group}]\n")
        names = [variable_of(name), *([variable_of(option.alias)] if option.alias else [])]
        accepts = f"Accepts: {option.expects}. Variable: {' or '.join(dict.fromkeys(names))}."
        value = option.default if name in left_out else settings[name]
        mark = "# " if value == option.default else ""
        said = f"# Not written because {left_out[name]}.\n" if name in left_out else ""
        parts.append(f"# {option.doc}\n# {accepts}\n{said}{mark}{name[len(group) + 1 :]} = {_value(value)}".rstrip())
        parts.append("\n\n")
    return "".join(parts).rstrip() + "\n"


def _may_have_secret(name: str, value: object) -> bool:
    return has_secret(name, value) and not (isinstance(value, Mapping) and _is_harmless(value))


def _is_harmless(value: object) -> bool:
    """Tell whether a part of an option is known to hold no secret, and TOML has a word for it."""
    if isinstance(value, Mapping):
        return all(key in _NO_SECRETS and _is_harmless(item) for key, item in value.items())
    return isinstance(value, bool | int) or (isinstance(value, str) and redact(value) == value)


def _value(value: object) -> str:
    if value is None:
        return ""  # TOML has no word for it; it is a default wherever it is a value
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {_value(item)}' for key, item in value.items())}}}"
    # JSON's strings, numbers and words are TOML's, but for one character that TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
