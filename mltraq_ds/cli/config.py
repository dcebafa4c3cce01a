"""`mltraq-ds config …`: show the options, write a configuration file, try database and storage."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from mltraq_ds.cli.text import one_line, print_table, printable
from mltraq_ds.errors import KeyExistsError, MltraqDSError, UsageError
from mltraq_ds.option_environment import HOME
from mltraq_ds.option_files import NAMES, find_file, user_folder
from mltraq_ds.option_table import OPTIONS, shown
from mltraq_ds.option_writing import toml_text, unwritable
from mltraq_ds.settings import options, resolve

__all__ = ["config"]

config = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Options: show them, write a file, try it.")


@config.command()
def show(
    is_origin: Annotated[
        bool, typer.Option("--origin", help="Say where each value is from: flag, variable, file and line.")
    ] = False,
) -> None:
    """List the options and their values.  Secrets are not shown."""
    options.reload()
    settings = resolve()
    rows = [(name, shown(OPTIONS[name], value), printable(settings.origin(name))) for name, value in settings.items()]
    columns = ("option", "value", "from") if is_origin else ("option", "value")
    print_table(columns, [row[: len(columns)] for row in rows])


@config.command()
def init(
    is_user: Annotated[bool, typer.Option("--user", help="For all work of this user, not for this folder.")] = False,
) -> None:
    """Write a commented configuration file with the options as they are now.  Never writes secrets."""
    from mltraq_ds.storage import open_storage

    options.reload()
    home = os.environ.get(HOME)
    folder = user_folder() if is_user else Path(home or ".").expanduser().absolute()
    path = folder / NAMES[0]
    taken = next((name for name in NAMES if (folder / name).exists()), None)
    if taken is not None:
        raise UsageError(f"No file was written because {folder / taken} exists. Edit or remove it.")
    settings, is_own = resolve(), is_user or home is not None
    data = toml_text(settings, may_allow_pickle=is_own).encode()
    try:
        open_storage(folder).put(path.name, [data], size=len(data), parents=True)
    except KeyExistsError as error:
        raise UsageError(f"No file was written because {path} exists now. Edit or remove it.") from error
    typer.echo(f"{printable(str(path))} was written. Edit it; 'mltraq-ds config check' tries it.")
    for name, reason in unwritable(settings, may_allow_pickle=is_own).items():
        typer.echo(f"Warning: {name} was not written because {reason}.", err=True)


@config.command()
def check() -> None:
    """Try database and storage: read, write and delete a probe.  The exit code is 1 if one of them fails."""
    from mltraq_ds.tracking import create_session
    from mltraq_ds.tracking.probes import matched, probe_storage

    session = create_session()
    file = find_file(os.environ)
    typer.echo(f"file: {printable(str(file)) if file else 'none'}")
    database, storage = session.database, session.storage

    def try_database() -> str:
        report = database.check()
        database.write_probe()
        return f"{report}; a probe was written, read and deleted"

    def try_storage() -> str:
        probe_storage(storage)
        return f"{storage.url} answers; a probe was written, read and deleted"

    passed = [_try("database", try_database), _try("storage", try_storage)]
    if all(passed):
        passed.append(_try("together", lambda: matched(storage, database)))
    raise typer.Exit(0 if all(passed) else 1)


def _try(what: str, work: Callable[[], str]) -> bool:
    try:
        said, is_passed = work(), True
    except MltraqDSError as error:
        said, is_passed = f"FAILED. {error}", False
    typer.echo(f"{what}: {one_line(said)}")
    return is_passed
