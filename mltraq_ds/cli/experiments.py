"""Commands about experiments: list, show, delete."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mltraq_ds.cli.text import cell, one_line, print_table, printable, size_text, utc_text
from mltraq_ds.errors import DamageError, ExperimentNotFoundError, MltraqDSError, UsageError

if TYPE_CHECKING:
    from mltraq_ds.datastore import DataStore
    from mltraq_ds.tracking import Experiment, Run, Session

__all__ = ["can_ask", "delete", "is_there", "ls", "no_store", "show"]

_Name = Annotated[str | None, typer.Argument(metavar="NAME", show_default=False, help="Name of the experiment.")]
_Id = Annotated[str | None, typer.Option("--id", metavar="ID", help="Id of the experiment, instead of its name.")]


def ls(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: exact sizes (bytes) and times.")] = False,
) -> None:
    """List the experiments of the store."""
    from mltraq_ds.tracking import create_session

    session = create_session()
    rows: list[dict[Any, Any]] = session.ls().to_dict("records")
    if as_json:
        typer.echo(json.dumps(rows, default=_iso, indent=1))
    elif not rows:
        typer.echo(f"No experiments in {session.storage.url}." if is_there(session) else no_store(session))
    else:
        print_table(
            ("name", "runs", "size", "persisted (UTC)", "id"),
            [
                (
                    printable(row["name"]),
                    str(row["runs"]),
                    size_text(row["bytes"]),
                    utc_text(row["persisted"]),
                    printable(row["id_experiment"]),
                )
                for row in rows
            ],
            right=("runs", "size"),
        )


def show(
    name: _Name = None,
    id_experiment: _Id = None,
    max_runs: Annotated[int, typer.Option("--runs", min=0, metavar="N", help="How many runs to show.")] = 20,
    id_run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Only this run: its id, or its end as shown.")
    ] = None,
) -> None:
    """Show runs and DataStores of an experiment.  No value is loaded."""
    _check_one_of(name, id_experiment)
    from mltraq_ds.datastore import DataStore
    from mltraq_ds.tracking import Run, create_session
    from mltraq_ds.tracking.table import rows_of

    session = create_session()
    with _told_if_no_store(session):
        experiment = session.load_experiment(name=name, id_experiment=id_experiment)
    if id_run is not None:
        run = _chosen(experiment, id_run)
        typer.echo(f"Run {printable(run.id_run)} of experiment {experiment.name!r}")
        typer.echo(", ".join([run.status, *_times(run)]))
        _print_values(run)
        return
    runs = list(experiment.runs.values())
    typer.echo(f"Experiment {experiment.name!r}, id {printable(experiment.id_experiment)}")
    typer.echo(f"generation {experiment.generation}, created {utc_text(experiment.created)} UTC, {len(runs)} runs")
    fields = Run(fields=experiment.fields).row()  # a row of cells: what has not been read stays unread
    _print_fields(fields)
    ends = _ends(experiment)
    shown = runs[:max_runs]
    rows = rows_of(shown)
    _print_runs(shown, rows, ends)
    if len(runs) > max_runs:
        typer.echo(f"… and {len(runs) - max_runs} more; `--runs {len(runs)}` shows all.")
    found = [("", *item) for item in fields.items()]
    found += [(ends[run.id_run], *item) for run, row in zip(shown, rows, strict=True) for item in row.items()]
    _print_datastores([(run, field, value) for run, field, value in found if isinstance(value, DataStore)])


def _iso(time: Any) -> str:
    return str(time.isoformat())


def _check_one_of(name: str | None, id_experiment: str | None) -> None:
    if (name is None) == (id_experiment is None):
        raise UsageError("The experiment is not clear. Give either its name or --id, and one of them only.")


def _print_runs(runs: list[Run], rows: list[dict[str, Any]], ends: dict[str, str]) -> None:
    from mltraq_ds.datastore import DataStore

    # DataStores have a table of their own.
    columns = list(dict.fromkeys(name for row in rows for name in row if not isinstance(row[name], DataStore)))
    if runs:
        typer.echo()
        print_table(
            ("run", "status", *map(printable, columns)),
            [
                (ends[run.id_run], run.status, *(_cell(row.get(column)) for column in columns))
                for run, row in zip(runs, rows, strict=True)
            ],
        )


def _print_datastores(found: list[tuple[str, str, DataStore]]) -> None:
    rows = [(run, *line) for run, field, datastore in found for line in _described(field, datastore)]
    if rows:
        typer.echo()
        print_table(("run", "value", "type", "shape", "size", "codec"), rows, right=("size",))


def _described(name: str, datastore: DataStore) -> list[tuple[str, str, str, str, str]]:
    try:
        described = datastore.describe()
    except MltraqDSError as error:
        # One lost blob must not hide the others, nor must one that a remote does not deliver today.
        what = "damaged" if isinstance(error, DamageError) else "cannot be read"
        return [(printable(name), f"{what}: {one_line(str(error))}", "", "", "")]
    return [
        (
            printable(f"{name}.{key}"),
            f"{str(found['type']).rpartition('.')[2]} {found.get('dtype', '')}".rstrip(),
            _shape(found),
            size_text(found["bytes"]) if "bytes" in found else "",
            str(found.get("codec", "")),
        )
        for key, found in described.items()
    ]


def _shape(described: dict[str, Any]) -> str:
    shape = described.get("shape", described.get("length"))
    return "" if shape is None else str(shape) if isinstance(shape, int) else " × ".join(map(str, shape))


def _cell(value: Any) -> str:
    from mltraq_ds.datastore import DataStore

    return f"DataStore of {len(value)}" if isinstance(value, DataStore) else cell(value)


def _ends(experiment: Experiment) -> dict[str, str]:
    """Return for each run the end of its id, as long as needed to tell it from the others."""
    # Time-ordered ids of one moment begin alike.
    ids = {id_run: printable(id_run) for id_run in experiment.runs}
    length = 8
    while len({text[-length:] for text in ids.values()}) < len(ids) and length < max(map(len, ids.values())):
        length *= 2
    return {id_run: text[-length:] for id_run, text in ids.items()}


def _chosen(experiment: Experiment, id_run: str) -> Run:
    """Return the run that has this id, or whose id ends so."""
    found = [one for one in experiment.runs if id_run and printable(one).endswith(id_run)]
    found = [id_run] if id_run in experiment.runs else found
    if len(found) != 1:
        ids = "; ".join(map(printable, found[:5])) or "none"
        raise UsageError(
            f"The run {id_run!r} is not clear: of the {len(experiment.runs)} runs of {experiment.name!r} {ids} ends so."
            " Give an id, or its end, as `mltraq-ds show` prints it."
        )
    return experiment.runs[found[0]]


def _times(run: Run) -> list[str]:
    times = (("started", run.started), ("finished", run.finished))
    return [f"{what} {utc_text(time)} UTC" for what, time in times if time]


def _print_fields(fields: dict[str, Any]) -> None:
    if fields:
        typer.echo()
        print_table(("field", "value"), [(printable(field), _cell(value)) for field, value in fields.items()])


def _print_values(run: Run) -> None:
    """Print params, fields, DataStores and the failure of one run."""
    from mltraq_ds.datastore import DataStore

    values, end = run.row(), printable(run.id_run)[-8:]
    _print_fields(values)
    _print_datastores([(end, name, value) for name, value in values.items() if isinstance(value, DataStore)])
    if run.exception is not None:
        typer.echo(f"\n{one_line(str(run.exception))}")


def is_there(session: Session) -> bool:
    """Tell whether anything is at the URL of the store."""
    storage = session.storage
    return any(True for _ in storage.list()) or any(True for _ in storage.list_unfinished())


def no_store(session: Session) -> str:
    """Return the sentence on a store that is not there."""
    return f"There is no store at {session.storage.url} yet."


@contextlib.contextmanager
def _told_if_no_store(session: Session) -> Iterator[None]:
    """Say that there is no store, rather than that an experiment is not in it."""
    try:
        yield
    except ExperimentNotFoundError as error:
        if is_there(session):
            raise
        raise ExperimentNotFoundError(f"{no_store(session)} Use --store URL if it is elsewhere.") from error


def delete(
    name: _Name = None,
    id_experiment: _Id = None,
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete an experiment with all its files.  Asks before it does."""
    _check_one_of(name, id_experiment)
    from mltraq_ds.tracking import create_session

    session = create_session()
    if not is_sure:
        if not can_ask():
            raise UsageError("Nothing was deleted because nobody can be asked here. Use --yes if you are sure.")
        try:
            runs = f"{len(session.load_experiment(name=name, id_experiment=id_experiment).runs)} runs"
        except DamageError as error:
            runs = f"damaged: {one_line(str(error))}"
        typer.confirm(f"Delete {_label(name, id_experiment)} ({runs}) from {session.storage.url}?", abort=True)
    session.delete_experiment(name=name, id_experiment=id_experiment)
    typer.echo(f"Deleted {_label(name, id_experiment)} from {session.storage.url}.")


def can_ask() -> bool:
    """Tell whether somebody sits at the keyboard."""
    return sys.stdin.isatty()


def _label(name: str | None, id_experiment: str | None) -> str:
    return f"experiment {id_experiment if name is None else name!r}"
