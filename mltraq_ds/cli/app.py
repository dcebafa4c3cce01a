"""The application: its commands, and the options that all of them take."""

from __future__ import annotations

from typing import Annotated

import typer

from mltraq_ds.cli import config, demo, experiments, remote, settings, stores, upkeep
from mltraq_ds.cli.group import Group

__all__ = ["app"]

#: rich would draw boxes around help and errors: slower by half, and hard to read in a log.
app = typer.Typer(
    cls=Group, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True
)


@app.callback(epilog="Options of all commands stand before or after the name of the command.")
def common(
    ctx: typer.Context,
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="Database of the index, such as sqlite:///mltraq.db.")
    ] = None,
    store: Annotated[str | None, typer.Option(metavar="URL", help="The store: a folder or any URL of fsspec.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Set any option; may be given several times.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    is_version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=settings.print_version),
    ] = False,
) -> None:
    """Crash-safe data store for experiments."""
    ctx.with_resource(settings.from_command_line(database, store, option or []))


app.command()(demo.demo)
app.command()(experiments.ls)
app.command()(experiments.show)
app.command()(experiments.delete)
app.command()(upkeep.check)
app.command()(upkeep.sweep)
app.command()(upkeep.rebuild_index)
app.command()(remote.clone)
app.add_typer(remote.remote, name="remote")
app.add_typer(stores.store, name="store")
app.add_typer(config.config, name="config")
app.command("options")(settings.list_options)
app.command()(settings.version)
