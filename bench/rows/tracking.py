"""Rows: small values on few and many runs, from a new database to persisted."""

from __future__ import annotations

import importlib
import json
from typing import Any

from bench.row import OURS, Contestant, Row, Target
from bench.rows.common import mltraq_session, session

__all__ = ["ROWS"]


def values_of(size: dict[str, Any], run: int) -> dict[str, Any]:
    """Return the values of one run: `values` floats, or arrays of `length`, or one DataStore of 8 KiB."""
    if size["kind"] == "float":
        return {f"v{i}": run + i / 1024 for i in range(size["values"])}
    import numpy as np

    return {f"v{i}": np.arange(size["length"], dtype=np.float64) + run + i for i in range(size["values"])}


def assert_values(found: dict[str, Any], size: dict[str, Any], run: int) -> None:
    """Compare with what was written."""
    wanted = values_of(size, run)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert bool((found[name] == value).all()) if size["kind"] != "float" else found[name] == value


class _Tracker(Contestant):
    labels = ("persist",)

    def persist(self) -> None:
        if self.size["kind"] != "float":
            import numpy  # noqa: F401
        self.before()
        values = [values_of(self.size, run) for run in range(self.size["runs"])]
        with self.work.timed("persist"):
            self.write(values)

    def check(self) -> None:
        found = self.read()
        assert len(found) == self.size["runs"]
        for run in (0, len(found) // 2, len(found) - 1):
            assert_values(found[run], self.size, run)

    def before(self) -> None:
        """Import what is needed."""

    def write(self, values: list[dict[str, Any]]) -> None:
        raise NotImplementedError

    def read(self) -> list[dict[str, Any]]:
        raise NotImplementedError


class Ours(_Tracker):
    name = OURS
    is_durable = True

    def before(self) -> None:
        importlib.import_module("mltraq_ds.tracking")

    def write(self, values: list[dict[str, Any]]) -> None:
        from mltraq_ds import DataStore

        ours = session(self.work, is_durable=self.is_durable)
        experiment = ours.create_experiment("tracked")
        for own in values:
            with experiment.run() as run:
                if self.size["kind"] == "float":
                    run.fields.update(own)
                else:
                    run.fields.ds = DataStore(own)
        experiment.persist()

    def read(self) -> list[dict[str, Any]]:
        runs = session(self.work).load_experiment("tracked").runs.values()
        return [dict(run.fields if self.size["kind"] == "float" else run.fields.ds) for run in runs]


class OursRelaxed(Ours):
    name = f"{OURS}, relaxed"
    is_quick = False
    is_durable = False


class MLtraq(_Tracker):
    name = "mltraq"
    needs = ("mltraq",)

    def before(self) -> None:
        import mltraq  # noqa: F401

    def write(self, values: list[dict[str, Any]]) -> None:
        from mltraq import DataStore

        experiment = mltraq_session(self.work).create_experiment("tracked")
        for own in values:
            with experiment.run() as run:
                if self.size["kind"] == "datastore":
                    run.fields.ds = DataStore(own)
                else:
                    # Its fields are columns, of which SQLite has 2,000 at most; a dictionary is one.
                    run.fields.values = own
        experiment.persist()

    def read(self) -> list[dict[str, Any]]:
        runs = mltraq_session(self.work).load_experiment("tracked").runs.values()
        return [dict(run.fields.ds if self.size["kind"] == "datastore" else run.fields["values"]) for run in runs]


class SQLAlchemy(_Tracker):
    name = "sqlalchemy, one JSON column"

    def before(self) -> None:
        import sqlalchemy  # noqa: F401

    def _table(self) -> Any:
        import sqlalchemy as sa

        engine = sa.create_engine(f"sqlite:///{self.work.path('bare.db')}")
        metadata = sa.MetaData()
        table = sa.Table("runs", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("fields", sa.Text))
        return engine, metadata, table

    def write(self, values: list[dict[str, Any]]) -> None:
        engine, metadata, table = self._table()
        metadata.create_all(engine)
        rows = [{"fields": json.dumps(_listed(own))} for own in values]
        with engine.begin() as connection:
            connection.execute(table.insert(), rows)

    def read(self) -> list[dict[str, Any]]:
        import numpy as np

        engine, _, table = self._table()
        with engine.begin() as connection:
            rows = [json.loads(row.fields) for row in connection.execute(table.select())]
        if self.size["kind"] == "float":
            return rows
        return [{name: np.array(value) for name, value in row.items()} for row in rows]


def _listed(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values.items()}


class MLflow(_Tracker):
    name = "mlflow"
    needs = ("mlflow",)

    def before(self) -> None:
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{self.work.path('mlflow.db')}")

    def write(self, values: list[dict[str, Any]]) -> None:
        import mlflow

        for number, own in enumerate(values):
            with mlflow.start_run(run_name=str(number)):
                mlflow.log_metrics(own)

    def read(self) -> list[dict[str, Any]]:
        import mlflow

        self.before()
        found = mlflow.search_runs(max_results=5000).set_index("tags.mlflow.runName")
        columns = [name for name in found.columns if name.startswith("metrics.")]
        rows = [found.loc[str(number), columns] for number in range(len(found))]
        return [{name.removeprefix("metrics."): float(value) for name, value in row.items()} for row in rows]


class Again(Contestant):
    """The second persist of a session, of a new experiment and of the same one."""

    name = OURS
    labels = ("second experiment", "same experiment again")

    def persist(self) -> None:
        ours = session(self.work)
        for name, label in (("first", ""), ("second", "second experiment")):
            experiment = ours.create_experiment(name)
            with experiment.run() as run:
                run.fields.value = 0.5
            if label:
                with self.work.timed(label):
                    experiment.persist()
            else:
                experiment.persist()
        experiment.runs.first().fields.value = 0.75
        with self.work.timed("same experiment again"):
            experiment.persist(if_exists="update")

    def check(self) -> None:
        ours = session(self.work)
        assert ours.load_experiment("first").runs.first().fields.value == 0.5
        assert ours.load_experiment("second").runs.first().fields.value == 0.75


class AgainMLtraq(Contestant):
    name = "mltraq"
    needs = ("mltraq",)
    labels = ("second experiment",)

    def persist(self) -> None:
        theirs = mltraq_session(self.work)
        for name in ("first", "second"):
            experiment = theirs.create_experiment(name)
            with experiment.run() as run:
                run.fields.value = 0.5
            with self.work.timed("second experiment"):
                experiment.persist()

    def check(self) -> None:
        assert mltraq_session(self.work).load_experiment("second").runs.first().fields.value == 0.5


_BARE = SQLAlchemy.name
_SMALL = (Ours, OursRelaxed, MLtraq, SQLAlchemy)


def _row(name: str, title: str, factor: float, size: dict[str, Any], *, is_quick: bool, mlflow: bool = False) -> Row:
    return Row(
        name,
        title,
        phases=("persist", "check"),
        contestants=(*_SMALL, MLflow) if mlflow else _SMALL,
        full=size,
        quick=size if is_quick else None,
        targets=(Target("persist", "mltraq", factor),),
    )


def _floats(runs: int, values: int) -> dict[str, Any]:
    return {"kind": "float", "runs": runs, "values": values}


def _blobs(kind: str, runs: int, values: int, length: int) -> dict[str, Any]:
    return {"kind": kind, "runs": runs, "values": values, "length": length}


ROWS = [
    _row("float", "one float, new database to persisted", 0.6, _floats(1, 1), is_quick=True, mlflow=True),
    _row("floats", "10,000 floats on one run", 0.5, _floats(1, 10_000), is_quick=True),
    _row("runs100", "100 runs of one float", 0.5, _floats(100, 1), is_quick=False, mlflow=True),
    _row("runs1000", "1,000 runs of one float", 0.4, _floats(1000, 1), is_quick=True),
    _row("runs1000x1000", "1,000 runs of 1,000 floats", 0.2, _floats(1000, 1000), is_quick=False),
    _row("array1m", "array of 1 M floats", 0.4, _blobs("array", 1, 1, 1_000_000), is_quick=False),
    _row("arrays1000", "1,000 arrays of 1,000 floats", 0.4, _blobs("array", 1, 1000, 1000), is_quick=False),
    _row(
        "stores1000",
        "1,000 runs, each with one 8 KiB DataStore",
        0.3,
        _blobs("datastore", 1000, 1, 1024),
        is_quick=True,
    ),
    Row(
        "again",
        "second persist of a session",
        phases=("persist", "check"),
        contestants=(Again, AgainMLtraq),
        full={},
        quick={},
        targets=(Target("second experiment", seconds=0.005), Target("same experiment again", seconds=0.005)),
    ),
]
