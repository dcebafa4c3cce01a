"""The demo: from a grid of classifiers to files that numpy reads, told step by step."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mltraq_ds.cli.text import cell, print_table, size_text
from mltraq_ds.errors import DamageError, StorageError, UsageError
from mltraq_ds.ids import key_from_url
from mltraq_ds.settings import options

if TYPE_CHECKING:
    from mltraq_ds.tracking import Experiment, Run, Session

__all__ = ["demo"]

#: Longest line of prose (characters).
MAX_WIDTH = 100

RANKING = """\
SELECT runs.id_run,
       json_extract(runs.params, '$.classifier') AS classifier,
       json_extract(runs.params, '$.features')   AS features,
       json_extract(runs.params, '$.strength')   AS strength,
       json_extract(runs.fields, '$.accuracy')   AS accuracy,
       json_extract(runs.fields, '$.seconds')    AS seconds
FROM mltraq_runs AS runs
     JOIN mltraq_experiments AS experiments USING (store_id, id_experiment)
WHERE experiments.name = :name
ORDER BY accuracy DESC, seconds
LIMIT 5"""

#: Run in a process of its own, to which this library is not known.
WITH_NUMPY = """\
import sys
import numpy as np
blob = np.load(sys.argv[1])
print("   np.load(blob) has", *blob.files)
weights = blob["weights"]
print(f'   np.load(blob)["weights"] = array of shape {weights.shape}, {weights.dtype}, mean {weights.mean():.6f}')
if "misclassified" in blob.files:
    scans = blob["misclassified"]
    print(f'   np.load(blob)["misclassified"] = array of shape {scans.shape}; the first of these scans:\\n')
    for row in scans[0]:
        print("      " + "".join(2 * " .:-=+*#%@"[int(ink * 9)] for ink in row).rstrip())
assert "mltraq_ds" not in sys.modules
"""


def demo(
    folder: Annotated[
        Path, typer.Option(metavar="DIR", help="Where its files go; they stay there.", show_default=True)
    ] = Path("mltraq-demo"),
    n_jobs: Annotated[
        int, typer.Option(metavar="N", help="Number of processes; -1 is one a processor.", show_default=True)
    ] = 2,
) -> None:
    """Try it on scans of handwritten digits.  Trains classifiers, persists, finds, loads, and looks at the files."""
    if "command line" in (options.origin("database.url"), options.origin("datastore.url")):
        raise UsageError("The demo cannot use --database or --store because it keeps to a folder. Use --folder DIR.")
    start = time.perf_counter()
    from mltraq_ds.cli.demo_steps import digits
    from mltraq_ds.tracking import create_session

    digits()
    folder = _made(folder)
    urls = f"sqlite:///{folder / 'mltraq.db'}", str(folder / "mltraq.datastore")
    session = create_session(*urls)
    with options.ctx({"serialization.compression.codec": "uncompressed"}):  # numpy cannot read the other
        experiment = _execute(session, n_jobs)
        best = _persist_and_rank(session, experiment)
    _predict_again(urls, experiment, best)
    _open_with_numpy(_list_files(folder, best))
    command = shlex.join(["mltraq-ds", "show", experiment.name, "--database", urls[0], "--store", urls[1]])
    _say(f"Done in {time.perf_counter() - start:.1f} s. Everything stays where it is; look around with", command)


def _say(text: str, *places: str) -> None:
    """Print one step as a paragraph, and below it the places it speaks of, unbroken."""
    width = min(shutil.get_terminal_size((MAX_WIDTH, 24)).columns, MAX_WIDTH)
    typer.echo("\n" + textwrap.fill(text, width, subsequent_indent="   ", break_long_words=False))
    for place in places:
        typer.echo(f"   {place}".rstrip())


def _made(folder: Path) -> Path:
    folder = folder.absolute()
    if "?" in str(folder):
        raise UsageError(
            f"The folder {str(folder)!r} cannot be used because URLs of databases end at '?'. Use another."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The folder {str(folder)!r} cannot be made because of: {error.strerror}. Use --folder DIR to name another."
        ) from error
    return folder


def _execute(session: Session, n_jobs: int) -> Experiment:
    from mltraq_ds.cli.demo_steps import CONFIG, GRID, STEPS, digits

    names = set(session.ls()["name"])
    name = next(n for n in itertools.chain(["digits"], (f"digits-{i}" for i in itertools.count(2))) if n not in names)
    if names:
        _say(f"An earlier demo is in this folder and stays as it is: this one is named {name!r}.")
    n_images, n_train = len(digits()[0]), CONFIG["n_train"]
    experiment = session.create_experiment(name).add_runs(**GRID)
    _say(
        f"1. Train {len(experiment.runs)} classifiers in {n_jobs if n_jobs > 0 else 'parallel'} processes on "
        f"{n_train:,} of {n_images:,} scans of handwritten digits, test each on the other {n_images - n_train}, and "
        "put what comes out on its run: accuracy and seconds as scalars, and in a DataStore the weights (ndarray), "
        "the confusion matrix (DataFrame) and the misclassified scans (ndarray)."
    )
    sys.stdout.flush()  # the progress bar goes to stderr
    experiment.execute(STEPS, config=CONFIG, n_jobs=n_jobs)
    for run in experiment.runs.values():
        if run.exception is not None:
            raise run.exception
    return experiment


def _persist_and_rank(session: Session, experiment: Experiment) -> Run:
    experiment.persist()
    _say(
        f"2. Persisted as experiment {experiment.name!r}: the values are files in a store, and what is needed to find "
        "them is in a database:",
        session.storage.url,
        session.database.url,
    )
    _say("3. Ask SQL for the best runs; no file is read:", "", *RANKING.splitlines(), "")
    ranking = session.query(RANKING, {"name": experiment.name})
    columns = [str(column) for column in ranking.columns[1:]]
    rows: list[list[Any]] = ranking[columns].to_numpy().tolist()
    print_table(columns, [[cell(value) for value in row] for row in rows], right=columns[2:])
    return experiment.runs[str(ranking["id_run"][0])]


def _predict_again(urls: tuple[str, str], experiment: Experiment, best: Run) -> None:
    _say("4. Load the best run in a new process and predict again from its weights, which are read from the files:")
    read = json.loads(_output_of("-m", "mltraq_ds.cli.demo_reader", *urls, experiment.name, best.id_run))
    first: list[int] = best.fields.ds.predictions.tolist()
    n_same = sum(a == b for a, b in zip(first, read["predictions"], strict=True))
    typer.echo(f"   process {read['process']} (this is {os.getpid()}): {n_same} of {len(first)} predictions agree.")
    if n_same != len(first):
        raise DamageError("The predictions differ because the weights read are not those written. Please report this.")


def _output_of(*args: str) -> str:
    child = subprocess.run([sys.executable, *args], capture_output=True, encoding="utf-8", check=False)
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise StorageError(f"The demo cannot go on because its second process has failed: {reason}")
    return child.stdout


def _list_files(folder: Path, best: Run) -> Path:
    store = folder / "mltraq.datastore"
    key, _ = key_from_url(best.fields.ds.to_url())
    blob = store / key
    inside = store / PurePosixPath(key).parts[0]
    paths = [path for path in sorted(inside.rglob("*")) if path.is_file()]
    _say("5. These are the files of the experiment, all in one folder:", str(inside), "")
    rows = [
        (path.relative_to(inside).as_posix(), size_text(path.stat().st_size), _meaning(path, inside, path == blob))
        for path in paths
    ]
    total = sum(path.stat().st_size for path in paths)
    print_table(("file", "size", "what it is"), [*rows, (f"{len(rows)} files", size_text(total), "")], right=("size",))
    return blob


def _meaning(path: Path, inside: Path, is_best: bool) -> str:
    folder = path.relative_to(inside).parts[0]
    meanings = {
        "_meta.json": "name, newest generation",
        "generations": "the commit",
        "runs": "params, fields, references",
    }
    return meanings.get(folder, "DataStore of the best run" if is_best else "DataStore of a run")


def _open_with_numpy(blob: Path) -> None:
    _say("6. Open the blob of the best run with plain numpy, for it is a ZIP of .npy and .arrow files:", str(blob), "")
    typer.echo(_output_of("-c", WITH_NUMPY, str(blob)), nl=False)
