"""Commands about the library itself: its options and its version."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import typer

from mltraq_ds import __version__
from mltraq_ds.cli.text import print_table
from mltraq_ds.errors import UsageError
from mltraq_ds.option_layer import from_text
from mltraq_ds.option_table import OPTIONS, canonical, shown, unknown
from mltraq_ds.settings import options, resolve

__all__ = ["from_command_line", "list_options", "print_version", "version"]


def from_command_line(database: str | None, store: str | None, assignments: list[str]) -> AbstractContextManager[None]:
    """Return a context in which options have the values given on the command line: after ``set``, before variables.

    Raises
    ------
    UsageError
        If an assignment is not of the form ``KEY=VALUE``, or the option does not take the value.  The text is not
        repeated, since it may hold a secret.
    """
    values: dict[str, object] = dict(map(_assigned, assignments))
    values.update({"database.url": database} if database is not None else {})
    values.update({"datastore.url": store} if store is not None else {})
    return options.command_line(values)


def _assigned(assignment: str) -> tuple[str, Any]:
    name, equals, text = assignment.partition("=")
    if not equals:
        raise UsageError("--option cannot be used as given because it is not of the form KEY=VALUE. See `options`.")
    option = canonical(name)
    if option not in OPTIONS:
        raise unknown(name, "--option")
    return option, from_text(option, text)


def list_options() -> None:
    """List options, values and their origins.  Secrets are not shown."""
    options.reload()
    settings = resolve()
    print_table(
        ("option", "value", "from"),
        [(name, shown(OPTIONS[name], value), settings.origin(name)) for name, value in settings.items()],
    )


def version() -> None:
    """Print the version of the library."""
    typer.echo(f"mltraq-ds {__version__}")


def print_version(is_wanted: bool) -> None:
    """Print the version and stop, if it is asked for instead of a command."""
    if is_wanted:
        version()
        raise typer.Exit
