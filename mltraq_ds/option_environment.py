"""Options from environment variables: ``MLTRAQ_DS_`` and the name of the option in capitals."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from mltraq_ds.errors import UnknownOptionError, UsageError
from mltraq_ds.option_layer import Layer, collected, from_text
from mltraq_ds.option_table import ALIASES, OPTIONS, canonical

__all__ = ["HOME", "VARIABLES", "read_environment", "variable_of"]

_PREFIX = "MLTRAQ_DS_"
#: Folder of the configuration file; the only variable that is no option.
HOME = f"{_PREFIX}HOME"
# Of the tests and the benchmarks of this library.
_OTHERS = (f"{_PREFIX}TEST_", f"{_PREFIX}BENCH_")


def variable_of(name: str) -> str:
    """Return the variable of an option or alias.

    Examples
    --------
    >>> variable_of("database.url")
    'MLTRAQ_DS_DATABASE_URL'
    """
    return _PREFIX + name.upper().replace(".", "_")


#: Variable to the option or alias that it sets.
VARIABLES: Mapping[str, str] = {variable_of(name): name for name in (*ALIASES, *OPTIONS)}


def read_environment(environ: Mapping[str, str]) -> Layer:
    """Return the options that variables set.

    Raises
    ------
    UnknownOptionError
        If a variable is named like one of ours and is none; the nearest one is given.
    UsageError
        If a value is not what its option takes, or empty.  The value is not repeated: it may be a secret.
    """
    return collected("environment", _found(environ))


def _found(environ: Mapping[str, str]) -> Iterator[tuple[str, object, object]]:
    for variable in sorted(environ):
        if not variable.startswith(_PREFIX) or variable == HOME or variable.startswith(_OTHERS):
            continue
        name = VARIABLES.get(variable)
        if name is None:
            raise _unknown(variable)
        if not environ[variable]:
            raise UsageError(
                f"The variable {variable} is empty, which is no value of option {canonical(name)!r}. Unset it, or give "
                "it a value."
            )
        yield name, from_text(canonical(name), environ[variable]), variable


def _unknown(variable: str) -> UnknownOptionError:
    near = difflib.get_close_matches(variable, [*VARIABLES, HOME], n=1, cutoff=0.0)
    return UnknownOptionError(
        f"The variable {variable} is refused because it is named like one of an option and there is no such option. "
        f"Did you mean {near[0]}? Unset it if it is not meant for mltraq_ds."
    )
