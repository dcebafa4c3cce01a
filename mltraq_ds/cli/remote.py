"""`mltraq-ds remote …` and `mltraq-ds clone`: blobs on remotes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mltraq_ds.cli.text import printable
from mltraq_ds.errors import UsageError
from mltraq_ds.option_table import redact

if TYPE_CHECKING:
    from mltraq_ds.lake import LakeReport

__all__ = ["clone", "remote"]

_GRACE_S = 86_400
_MAX_GRACE_S = 10**9

remote = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Blobs on remotes: add, fetch, verify, sweep.")

_Input = Annotated[str, typer.Option("--input", "-i", metavar="STORE", help="The store.")]
_Remotes = Annotated[
    list[str], typer.Option("--remote", "-r", metavar="URL", help="A remote; may be given several times, in order.")
]
_Keys = Annotated[
    list[str] | None, typer.Option("--keys", "-k", metavar="KEY", help="Only this field; may be given several times.")
]
_Start = Annotated[int, typer.Option("--start", min=0, help="First run, counted through the whole store.")]
_Stop = Annotated[int | None, typer.Option("--stop", min=0, help="The run to stop before.")]
_Step = Annotated[int, typer.Option("--step", min=1, help="Every n-th run.")]
_Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Transfers at a time; 8 by default.")]
_Prune = Annotated[
    bool, typer.Option("--prune", help="Remove from the output what came from the store and has gone from there.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON with every blob.")]


@remote.command()
def add(
    input_: _Input,
    remotes: _Remotes,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="STORE", help="Gets the store, with pointers.")
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Instead: put pointers in place of the bytes.")] = False,
    num_copies: Annotated[int, typer.Option(min=1, help="Remotes that have a blob before its bytes go here.")] = 1,
    prune: _Prune = False,
    keys: _Keys = None,
    start: _Start = 0,
    stop: _Stop = None,
    step: _Step = 1,
    jobs: _Jobs = None,
    as_json: _Json = False,
) -> None:
    """Upload blobs, and write a store with pointers in their place."""
    from mltraq_ds import lake

    report = lake.add(
        input_,
        output,
        remotes=remotes,
        keys=keys,
        start=start,
        stop=stop,
        step=step,
        jobs=jobs,
        in_place=in_place,
        num_copies=num_copies,
        prune=prune,
    )
    _print(report, as_json)


@remote.command()
def upload(
    input_: _Input,
    remotes: _Remotes,
    keys: _Keys = None,
    start: _Start = 0,
    stop: _Stop = None,
    step: _Step = 1,
    jobs: _Jobs = None,
    as_json: _Json = False,
) -> None:
    """Upload blobs and keep the local bytes, with pointers beside them."""
    from mltraq_ds import lake

    report = lake.upload(input_, remotes=remotes, keys=keys, start=start, stop=stop, step=step, jobs=jobs)
    _print(report, as_json)


@remote.command("remove")
def forget(
    input_: _Input,
    remotes: _Remotes,
    keys: _Keys = None,
    start: _Start = 0,
    stop: _Stop = None,
    step: _Step = 1,
    jobs: _Jobs = None,
    as_json: _Json = False,
) -> None:
    """Forget remotes.  Nothing is done on the remotes; the last source of a blob is not forgotten."""
    from mltraq_ds import lake

    report = lake.remove(input_, remotes=remotes, keys=keys, start=start, stop=stop, step=step, jobs=jobs)
    _print(report, as_json)


@remote.command()
def drop(
    input_: _Input,
    num_copies: Annotated[int, typer.Option(min=1, help="Verified copies on remotes before bytes go here.")] = 1,
    keys: _Keys = None,
    start: _Start = 0,
    stop: _Stop = None,
    step: _Step = 1,
    jobs: _Jobs = None,
    as_json: _Json = False,
) -> None:
    """Remove local bytes that enough remotes have; every copy is read and verified before."""
    from mltraq_ds import lake

    report = lake.drop(input_, num_copies=num_copies, keys=keys, start=start, stop=stop, step=step, jobs=jobs)
    _print(report, as_json)


@remote.command()
def pull(
    input_: _Input,
    keys: _Keys = None,
    start: _Start = 0,
    stop: _Stop = None,
    step: _Step = 1,
    jobs: _Jobs = None,
    as_json: _Json = False,
) -> None:
    """Fetch the bytes of blobs that live on remotes only, or are damaged here, verified."""
    from mltraq_ds import lake

    _print(lake.pull(input_, keys=keys, start=start, stop=stop, step=step, jobs=jobs), as_json)


@remote.command()
def status(input_: _Input, as_json: _Json = False) -> None:
    """Say where every blob is, in how many copies, and when each remote was verified."""
    from mltraq_ds import lake

    report = lake.status(input_)
    _print(report, as_json)
    if not as_json:
        copies: dict[int, int] = {}
        for row in report.rows:
            number = row.num_copies + row.is_local
            copies[number] = copies.get(number, 0) + 1
        for number, blobs in sorted(copies.items()):
            typer.echo(f"{blobs} blobs in {number} {'copy' if number == 1 else 'copies'}")


@remote.command()
def verify(
    input_: _Input,
    only: Annotated[str | None, typer.Option("--remote", "-r", metavar="URL", help="Only this remote.")] = None,
    jobs: _Jobs = None,
    as_json: _Json = False,
) -> None:
    """Read every object that the pointers name, and compare its digest."""
    from mltraq_ds import lake

    _print(lake.verify(input_, remote=only, jobs=jobs), as_json)


@remote.command()
def sweep(
    url: Annotated[str, typer.Option("--remote", "-r", metavar="URL", help="The remote.")],
    refs: Annotated[
        list[str], typer.Option("--refs", metavar="STORE", help="A store that uses it; give *all*, one by one.")
    ],
    grace_s: Annotated[
        int, typer.Option("--grace", min=0, max=_MAX_GRACE_S, metavar="SECONDS", help="What is younger stays.")
    ] = _GRACE_S,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, and say what would go.")] = False,
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    jobs: _Jobs = None,
    as_json: _Json = False,
) -> None:
    """Remove from a remote what none of the given stores refers to."""
    from mltraq_ds import lake
    from mltraq_ds.cli.experiments import can_ask

    if not dry_run and not is_sure:
        if not can_ask():
            raise UsageError("Nothing was removed because nobody can be asked here. Use --yes if you are sure.")
        seen = lake.sweep(url, refs=refs, grace_s=grace_s, dry_run=True, jobs=jobs)
        typer.echo(_text(seen), err=as_json)
        if not seen:
            return
        typer.confirm("Remove them?", abort=True, err=as_json)
    _print(lake.sweep(url, refs=refs, grace_s=grace_s, dry_run=dry_run, jobs=jobs), as_json)


def clone(
    input_: _Input,
    output: Annotated[str, typer.Option("--output", "-o", metavar="STORE", help="Gets the clone.")],
    mode: Annotated[
        str,
        typer.Option(help="CREATE_NEW_FILE, DEEP_COPY, HARD_LINK, SYM_LINK or REMOTE_FILE: what stands for a blob."),
    ] = "CREATE_NEW_FILE",
    fallback: Annotated[bool, typer.Option("--fallback", help="Take the next mode where one cannot work.")] = False,
    prune: _Prune = False,
    jobs: _Jobs = None,
    as_json: _Json = False,
) -> None:
    """Write a second store with the same experiments.  Blobs on remotes are downloaded unless REMOTE_FILE."""
    from mltraq_ds import lake

    _print(lake.clone(input_, output, mode=mode, fallback=fallback, jobs=jobs, prune=prune), as_json)


def _print(report: LakeReport, as_json: bool) -> None:
    typer.echo(report.to_json() if as_json else _text(report))


def _text(report: LakeReport) -> str:
    return "\n".join(printable(redact(line)) for line in str(report).splitlines())
