"""Rows: what a program waits for before it can begin."""

from __future__ import annotations

import importlib

from bench.row import OURS, Contestant, Row, Target
from bench.rows.common import mltraq_session, session

__all__ = ["ROWS"]


class _Import(Contestant):
    module = ""
    labels = ("import",)

    def start(self) -> None:
        with self.work.timed("import"):
            importlib.import_module(self.module)


class OursOnly(_Import):
    name = OURS
    module = "mltraq_ds"


class OursAll(_Import):
    name = f"{OURS}.tracking"
    module = "mltraq_ds.tracking"


class SQLAlchemy(_Import):
    name = "sqlalchemy"
    module = "sqlalchemy"


class Pandas(_Import):
    name = "pandas"
    module = "pandas"


class MLtraq(_Import):
    name = "mltraq"
    needs = ("mltraq",)
    module = "mltraq"


class MLflow(_Import):
    name = "mlflow"
    needs = ("mlflow",)
    module = "mlflow"


class FirstOurs(Contestant):
    name = OURS
    labels = ("first persist",)

    def start(self) -> None:
        with self.work.timed("first persist"):
            first = session(self.work).create_experiment("first")
            with first.run() as run:
                run.fields.value = 0.5
            first.persist()

    def check(self) -> None:
        assert session(self.work).load_experiment("first").runs.first().fields.value == 0.5


class FirstMLtraq(Contestant):
    name = "mltraq"
    needs = ("mltraq",)
    labels = ("first persist",)

    def start(self) -> None:
        with self.work.timed("first persist"):
            first = mltraq_session(self.work).create_experiment("first")
            with first.run() as run:
                run.fields.value = 0.5
            first.persist()

    def check(self) -> None:
        assert mltraq_session(self.work).load_experiment("first").runs.first().fields.value == 0.5


class FirstMLflow(Contestant):
    name = "mlflow"
    needs = ("mlflow",)
    labels = ("first persist",)

    def start(self) -> None:
        with self.work.timed("first persist"):
            import mlflow

            mlflow.set_tracking_uri(f"sqlite:///{self.work.path('mlflow.db')}")
            with mlflow.start_run():
                mlflow.log_metric("value", 0.5)

    def check(self) -> None:
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{self.work.path('mlflow.db')}")
        assert mlflow.search_runs()["metrics.value"][0] == 0.5


ROWS = [
    Row(
        "import",
        "import, in a fresh process",
        phases=("start",),
        contestants=(OursOnly, OursAll, SQLAlchemy, Pandas, MLtraq, MLflow),
        full={},
        quick={},
        targets=(
            Target("import", "sqlalchemy", 1.25),
            Target("import", "sqlalchemy", 1.25, contestant=OursAll.name),
        ),
    ),
    Row(
        "first",
        "import, session and first small persist, in a fresh process and with a new database",
        phases=("start", "check"),
        contestants=(FirstOurs, FirstMLtraq, FirstMLflow),
        full={},
        quick={},
        targets=(Target("first persist", "mltraq", 0.5),),
    ),
]
