"""Commands for whole stores: list, export, import, rebuild-index, move."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mltraq_ds.cli.text import print_table, printable, size_text
from mltraq_ds.errors import ExperimentNotFoundError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["store"]

store = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Whole stores: folders, buckets, databases.")

_From = Annotated[str, typer.Option("--from", metavar="STORE", help="The source: a path or URL.")]
_To = Annotated[str, typer.Option("--to", metavar="STORE", help="The destination: a path or URL.")]
_Experiment = Annotated[str | None, typer.Option("--experiment", metavar="ID", help="Only the experiment of this id.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what differs there, by a newer version.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@store.command("list")
def list_stores(
    where: Annotated[str | None, typer.Argument(metavar="STORE", help="A path or URL; the default store else.")] = None,
    as_json: _Json = False,
) -> None:
    """List the experiments of a store, by its files alone."""
    from mltraq_ds.store.listing import experiments

    rows = experiments(_storage(where))
    if as_json:
        typer.echo(json.dumps([row._asdict() for row in rows], indent=1))
        return
    table = [
        (
            printable(row.id_experiment),
            printable(row.name),
            str(row.generation),
            str(row.runs),
            str(row.blobs),
            size_text(row.size_bytes),
        )
        for row in rows
    ]
    numbers = ("generation", "runs", "blobs", "size")
    print_table(("id", "name", *numbers), table, right=numbers)


@store.command("export")
def export(
    source: _From,
    destination: _To,
    experiment: _Experiment = None,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """Copy experiments to another store, whole and verified.  Goes on where it was interrupted."""
    _transfer(source, destination, experiment, overwrite, as_json)


@store.command("import")
def import_(
    source: _From,
    destination: Annotated[
        str | None, typer.Option("--to", metavar="STORE", help="The destination; by default --store or its option.")
    ] = None,
    experiment: _Experiment = None,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """Copy experiments of another store into this one, whole and verified."""
    _transfer(source, destination or _default_store(), experiment, overwrite, as_json)


@store.command("rebuild-index")
def rebuild_index(
    where: Annotated[str, typer.Argument(metavar="STORE", help="A URL of a database with ?file_root=…")],
    experiment: _Experiment = None,
) -> None:
    """Make the database of a store what its files say."""
    from mltraq_ds.store.indexed import IndexedStore
    from mltraq_ds.store.locator import parse_to_config

    config = parse_to_config(where)
    found = (config if experiment is None else config.scoped(experiment)).connect()
    if not isinstance(found, IndexedStore):
        raise UsageError(
            "This store has no index to rebuild. Give the URL of a database with ?file_root=…, or use 'mltraq-ds "
            "rebuild-index' for that of a session."
        )
    report = found.rebuild(_bar("experiments"))
    if report is None or (experiment is not None and not report.experiments and not report.removed and not report):
        what = f"experiment with id {experiment!r:.80} is in the store" if report is not None else "store is"
        raise ExperimentNotFoundError(
            f"Nothing was rebuilt because no {what} at {found.storage.url}. Use 'mltraq-ds store list' to see what is "
            "there."
        )
    typer.echo(f"{report.runs} runs are in the index." if not report else _printable(str(report)))
    raise typer.Exit(report.exit_code)


@store.command("move")
def move(
    destination: Annotated[str, typer.Option("--to", metavar="STORE", help="An empty place: a path or URL.")],
) -> None:
    """Move the default store, or that of --store: copy everything, compare it, and use it from there."""
    from mltraq_ds.tracking import create_session

    session = create_session()
    before = session.storage.url
    counts = session.move_store(destination)
    typer.echo(
        f"The store has moved from {printable(before)} to {printable(session.storage.url)} ({counts['files']} files, "
        f"{size_text(counts['bytes'])}). Set 'datastore.url' to that; what is left at the former place can be removed."
    )


def _transfer(source: str, destination: str, experiment: str | None, overwrite: bool, as_json: bool) -> None:
    from mltraq_ds.store.transfer import export_store

    show = _bar("files")
    counts = export_store(
        source,
        destination,
        experiment_id=experiment,
        overwrite=overwrite,
        progress_callback=lambda done, total: show("", done, total),
    )
    if as_json:
        typer.echo(json.dumps(counts, indent=1))
        return
    named = ", ".join(f"{number} {name}" for name, number in counts.items() if number and name != "bytes")
    typer.echo(f"Copied {named} ({size_text(counts['bytes'])})." if named else "Everything was there already.")


def _bar(unit: str) -> Callable[[str, int, int], None]:
    """Return what shows how far something has come, on a terminal."""
    from mltraq_ds.cli.text import is_terminal

    def show(_: str, done: int, total: int) -> None:
        if is_terminal() and (done == total or done % 100 == 0):
            typer.echo(f"\r{done} of {total} {unit}", nl=done == total, err=True)

    return show


def _storage(where: str | None) -> Any:
    if where is None:
        from mltraq_ds.tracking import create_session

        return create_session().storage
    from mltraq_ds.store import layout
    from mltraq_ds.store.files import FileStore
    from mltraq_ds.store.locator import create_store
    from mltraq_ds.store.no_place import refuse_file

    found = create_store(where)
    if not isinstance(found, FileStore):
        raise UsageError(f"The experiments of {where!r} cannot be listed, since it is no store of files.")
    refuse_file(found.storage)
    if layout.read_store_id(found.storage) is None and not layout.has_experiments(found.storage):
        raise NotFoundError(f"Nothing is listed because there is no store at {found.storage.url}. Look at its name.")
    return found.storage


def _printable(text: str) -> str:
    return "\n".join(printable(line) for line in text.splitlines())


def _default_store() -> str:
    from mltraq_ds.settings import resolve

    return str(resolve()["datastore.url"])
