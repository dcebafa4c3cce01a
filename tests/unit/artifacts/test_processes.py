"""Many at once: each save has a number of its own."""

import json
import multiprocessing
import sqlite3
import threading
from contextlib import closing

import pytest

from mltraq_ds import delete, get, options, save
from mltraq_ds.errors import MltraqDSError
from mltraq_ds.tracking.default import default_session

WRITERS, EACH = 8, 4


def _save(url, store, writer, barrier):
    options.set("database.url", url)
    options.set("datastore.url", store)
    options.set("datastore.durability", "relaxed")
    barrier.wait()
    for i in range(EACH):
        save([writer, i, "x" * 5000], "shared")


def _run(url, store):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mltraq_ds.artifacts", "numpy", "pandas"])
    barrier = context.Barrier(WRITERS)
    processes = [context.Process(target=_save, args=(url, store, w, barrier)) for w in range(WRITERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * WRITERS


def _check(home, url):
    options.set("database.url", url)
    there = sorted(int(path.stem) for path in (home / "store/artifacts/shared/versions").glob("*.json"))
    assert there == list(range(1, WRITERS * EACH + 1))
    found = [get("shared", number).get_value()[:2] for number in there]
    assert sorted(found) == [[w, i] for w in range(WRITERS) for i in range(EACH)]
    for w in range(WRITERS):  # what one writer saves later has the higher number
        assert [i for writer, i in found if writer == w] == list(range(EACH))
    table = default_session().query("SELECT version FROM mltraq_artifacts ORDER BY version")
    assert table.version.tolist() == there
    assert len(default_session().check(deep=True)) == 0


def test_eight_processes_save_one_name(home):
    """Eight processes save under one name at once: 1 … n without a gap, without an error, nothing lost."""
    url = f"sqlite:///{home}/index.db"
    _run(url, str(home / "store"))
    _check(home, url)
    with closing(sqlite3.connect(home / "index.db")) as connection, connection:
        assert connection.execute("SELECT count(*) FROM mltraq_artifacts").fetchone() == (WRITERS * EACH,)


@pytest.mark.server
def test_eight_processes_and_postgresql(home, postgresql_url):
    """The same with the index on a PostgreSQL server."""
    _run(postgresql_url, str(home / "store"))
    _check(home, postgresql_url)


def test_threads_save_and_delete(home):
    """Threads that save and delete one name at once: every number is used once, and what is there is whole."""
    numbers, errors = [], []

    def work():
        for i in range(8):
            try:
                numbers.append(save([i, "y" * 5000], "busy").version)
                if i % 2:
                    delete("busy", "latest")
            except MltraqDSError as error:
                errors.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 33))
    assert all("deleted" in error or "No artifact" in error for error in errors)
    bodies = [json.loads(p.read_text()) for p in (home / "store/artifacts/busy/versions").glob("*.json")]
    living = sorted(body["number"] for body in bodies if not body["deleted"])
    assert [get("busy", number).get_value()[1] for number in living] == ["y" * 5000] * len(living)
    assert len(default_session().check(deep=True)) == 0
