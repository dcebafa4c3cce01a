"""How the command line reads its arguments and reports errors."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from mltraq_ds.cli.text import one_line
from mltraq_ds.errors import MissingExtraError, MltraqDSError, MltraqDSWarning, UsageError

__all__ = ["Group"]

_WITH_VALUE = ("--database", "--store", "--option")
_FLAGS = ("--debug", "--version")


class Group(TyperGroup):
    """Takes the options of all commands anywhere, and prints errors of ours as one sentence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, hoisted(args))

    def invoke(self, ctx: Any) -> Any:
        _never_fail_to_encode()
        try:
            with _plain_warnings():
                return super().invoke(ctx)
        except MltraqDSError as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"Error: {one_line(str(error))}", err=True)
            is_usage = isinstance(error, UsageError) and not isinstance(error, MissingExtraError)
            raise typer.Exit(2 if is_usage else 1) from error


def hoisted(args: list[str]) -> list[str]:
    """Return the arguments with the options of all commands first, wherever they stood; what follows ``--`` stays.

    Examples
    --------
    >>> hoisted(["ls", "--json", "--store", "lab"])
    ['--store', 'lab', 'ls', '--json']
    """
    first: list[str] = []
    rest: list[str] = []
    waiting = iter(args)
    for arg in waiting:
        if arg == "--":
            rest += [arg, *waiting]
        elif arg in _WITH_VALUE:
            first += [arg, *next(((value,) for value in waiting), ())]
        elif arg in _FLAGS or arg.startswith(tuple(f"{name}=" for name in _WITH_VALUE)):
            first.append(arg)
        else:
            rest.append(arg)
    return first + rest


def _never_fail_to_encode() -> None:
    # Names are any string; a terminal or pipe that cannot show a character gets its escape instead of an error.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings of ours as one sentence; those of others as Python does."""
    with warnings.catch_warnings():
        as_python_does = warnings.showwarning

        def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, MltraqDSWarning):
                typer.echo(f"Warning: {one_line(str(message))}", err=True)
            else:
                as_python_does(message, category, *place, **more)

        warnings.showwarning = show
        yield
