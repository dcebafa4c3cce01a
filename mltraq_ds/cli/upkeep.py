"""Commands that keep a store healthy: check, sweep, rebuild-index."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mltraq_ds.cli import experiments
from mltraq_ds.cli.text import printable
from mltraq_ds.errors import UsageError
from mltraq_ds.option_table import redact

if TYPE_CHECKING:
    from mltraq_ds.store.report import RebuildReport, Report, SweepReport
    from mltraq_ds.tracking import Session

__all__ = ["check", "rebuild_index", "sweep"]

#: As long as `mltraq_ds.store.sweeping.GRACE_S` (s), which help must not load.
_GRACE_S = 86_400
#: Longest grace (s): times before the year 1 cannot be computed with.
_MAX_GRACE_S = 10**9

#: What remedies say in Python, and the same as a command.
_COMMANDS = {
    "sweep(dry_run=False)": "'mltraq-ds sweep --delete'",
    "rebuild_index()": "'mltraq-ds rebuild-index'",
    "sweep()": "'mltraq-ds sweep'",
    "check()": "'mltraq-ds check'",
    "df() and to_json() have all": "--json has all",
}

_Json = Annotated[bool, typer.Option("--json", help="Print JSON with every finding.")]


def check(
    is_deep: Annotated[bool, typer.Option("--deep", help="Read and verify every byte too.")] = False,
    as_json: _Json = False,
) -> None:
    """Find damage and garbage.  Changes nothing; the exit code is 1 if there is any."""
    report = _session("check").check(deep=is_deep)
    _print(report, as_json)
    raise typer.Exit(report.exit_code)


def sweep(
    is_real: Annotated[
        bool, typer.Option("--delete/--dry-run", help="Remove the files, or only say which. (default: --dry-run)")
    ] = False,
    grace_s: Annotated[
        int,
        typer.Option(
            "--grace", min=0, max=_MAX_GRACE_S, metavar="SECONDS", help="What is younger stays; a day by default."
        ),
    ] = _GRACE_S,
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask before --delete.")] = False,
    as_json: _Json = False,
) -> None:
    """Remove what nothing refers to.  Only says what it would remove unless --delete."""
    if is_real and not is_sure and not experiments.can_ask():
        raise UsageError("Nothing was removed because nobody can be asked here. Use --yes if you are sure.")
    from mltraq_ds.artifacts import leftovers  # noqa: F401 - what storage backends keep is swept too

    session = _session("sweep")
    if is_real and not is_sure:
        is_real = _is_agreed(session.sweep(dry_run=True, grace_s=grace_s), as_json)
    report = session.sweep(dry_run=not is_real, grace_s=grace_s)
    _print(report, as_json)
    _explain(report, grace_s, as_json)


def rebuild_index(
    id_experiment: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Only the experiment of this id.")
    ] = None,
) -> None:
    """Make the database what the files say.  The exit code is 1 if some could not be read."""
    report = _session("rebuild").rebuild_index(id_experiment)
    _print(report)
    raise typer.Exit(report.exit_code)


def _session(what: str) -> Session:
    """Return a session on a store that is there: nothing found at a mistyped URL would look healthy."""
    from mltraq_ds.tracking import create_session

    session = create_session()
    if not experiments.is_there(session):
        raise UsageError(f"{experiments.no_store(session)} There is nothing to {what}; --store URL names another.")
    return session


def _is_agreed(report: SweepReport, as_json: bool) -> bool:
    """Show what would be removed and ask; without anything to remove there is nothing to ask."""
    if not report and not any(note.kind == "rows of deleted experiments" for note in report.notes):
        return False
    # JSON alone goes to stdout.
    typer.echo(_text(report), err=as_json)
    return typer.confirm("Remove them?", abort=True, err=as_json)


def _explain(report: SweepReport, grace_s: int, as_json: bool) -> None:
    if report.young:
        files = "1 file stays because it is" if report.young == 1 else f"{report.young} files stay because they are"
        typer.echo(f"{files} younger than the grace of {grace_s} s. --grace SECONDS changes it.", err=as_json)
    if report.dry_run and report:
        typer.echo("Nothing was removed. --json lists the files, --delete removes them.", err=as_json)


def _print(report: Report | SweepReport | RebuildReport, as_json: bool = False) -> None:
    typer.echo(report.to_json() if as_json else _text(report))


def _text(report: Report | SweepReport | RebuildReport) -> str:
    """Return a report line by line, where remedies name commands and nothing steers the terminal."""
    said = replace(report, findings=tuple(replace(one, remedy=_as_command(one.remedy)) for one in report.findings))
    *lines, last = str(said).splitlines()
    last = _as_command(last) if last.startswith("  … and ") else last
    return "\n".join(printable(redact(line)) for line in (*lines, last))


def _as_command(text: str) -> str:
    for call, command in _COMMANDS.items():
        text = text.replace(call, command)
    return text
