"""The page of the tables says what is there, and its queries find what they say."""

import re
from pathlib import Path

import numpy as np
import pytest

from mltraq_ds import DataStore, create_session
from mltraq_ds.orm import tables

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "index-tables.md").read_text(encoding="utf-8")


def _queries(database):
    return re.findall(rf"^```sql [^\n]*{database}[^\n]*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def _select():
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names = {}
    exec(code, names)
    return names["select"]


def _persist(session):
    experiment = session.create_experiment("digits").add_runs(lr=[0.1, 0.01, 10.0], seed=[1, 2])
    for i, run in enumerate(experiment.runs.values()):
        diverged = run.params.lr > 1
        run.fields.accuracy = float("nan") if diverged else np.float64(0.7 + i / 16)
        run.fields.loss = np.float32("inf") if diverged else 1.0
        run.fields["top-1 error"] = 0.1 * i + 0.25
        run.fields.ds = DataStore(weights=np.zeros(100 * i))
    session.persist_experiment(experiment)
    failing = session.create_experiment("failing").add_run()
    with pytest.warns(UserWarning, match="failed"):
        failing.execute(_fail)
    failing.persist()
    return [run.id_run for run in (*experiment.runs.values(), *failing.runs.values())]


def _fail(run):
    raise ValueError("no")


def _check(session, database):
    ids = _persist(session)
    found = [session.query(query) for query in _queries(database)]
    best, diverged, failed, largest, error, means = found
    assert best.to_numpy().tolist() == [["digits", 0.01, 0.8875], ["digits", 0.01, 0.825]]
    assert diverged["id_run"].tolist() == ids[4:6]
    assert failed["id_run"].tolist() == ids[6:]
    assert failed["exception"].str.endswith("ValueError: no").all()
    assert largest["name"].tolist() == ["digits", "failing"]
    assert largest["n_runs"].tolist() == [6, 1]
    assert error["id_run"].tolist() == ids[:3]
    assert means.round(6).to_numpy().tolist() == [[0.01, 0.85625], [0.1, 0.73125]]
    assert session.query(_select())["id_run"].tolist() == ids[2:4]


def test_queries_for_sqlite(tmp_path):
    """Every query for SQLite finds what the page says."""
    _check(create_session(f"sqlite:///{tmp_path}/index.db", tmp_path / "store"), "sqlite")


@pytest.mark.server
def test_queries_for_postgresql(tmp_path, postgresql_url):
    """Every query for PostgreSQL finds the same."""
    _check(create_session(postgresql_url, tmp_path / "store"), "postgresql")


@pytest.mark.server
def test_queries_for_mariadb(tmp_path, mariadb_url):
    """Every query for MariaDB finds the same."""
    _check(create_session(mariadb_url, tmp_path / "store"), "mariadb")


def test_every_table_and_column_is_on_the_page():
    """No table or column of the index is left out."""
    missing = [
        f"{table.name}.{column.name}"
        for table in tables.metadata.tables.values()
        for column in table.columns
        if f"`{column.name}`" not in PAGE or f"`{table.name}`" not in PAGE
    ]
    assert missing == []


def test_parameters_and_colons(tmp_path):
    """A parameter of a query takes a value, and an escaped colon is a colon."""
    session = create_session(f"sqlite:///{tmp_path}/index.db", tmp_path / "store")
    session.create_experiment("a:b").persist()
    query = r"SELECT name, 'x\:y' AS text FROM mltraq_experiments WHERE name = :name"
    assert session.query(query, {"name": "a:b"}).to_numpy().tolist() == [["a:b", "x:y"]]
