"""Rows: whether it stays flat as the store grows."""

from __future__ import annotations

from bench.row import OURS, Contestant, Row, Target
from bench.rows.common import mltraq_session, session

__all__ = ["ROWS"]


class _Others(Contestant):
    """Persist, load by name and delete one experiment beside others."""

    others = 0
    labels = ("persist", "load", "delete")

    def prepare(self) -> None:
        ours = session(self.work, is_durable=False)
        for number in range(self.others):
            experiment = ours.create_experiment(f"other {number}")
            with experiment.run() as run:
                run.fields.value = number / 2
            experiment.persist()

    def use(self) -> None:
        ours = session(self.work)
        name = f"one {self.work.round_number}"
        warm = ours.create_experiment(f"warm {self.work.round_number}")
        with warm.run() as run:
            run.fields.value = 0.25
        warm.persist()
        experiment = ours.create_experiment(name)
        with experiment.run() as run:
            run.fields.value = 0.5
        with self.work.timed("persist"):
            experiment.persist()
        with self.work.timed("load"):
            found = ours.load_experiment(name)
        assert found.runs.first().fields.value == 0.5
        with self.work.timed("delete"):
            found.delete()
        warm.delete()


class Ten(_Others):
    name = "beside 10"
    others = 10


class Hundreds(_Others):
    name = "beside 300"
    others = 300


class Three(_Others):
    name = "beside 3,000"
    others = 3000


class Thirty(_Others):
    name = "beside 30,000"
    others = 30_000


class MLtraqTen(Contestant):
    name = "mltraq beside 10"
    needs = ("mltraq",)
    others = 10
    labels = ("persist", "load", "delete")

    def prepare(self) -> None:
        theirs = mltraq_session(self.work)
        for number in range(self.others):
            experiment = theirs.create_experiment(f"other {number}")
            with experiment.run() as run:
                run.fields.value = number / 2
            experiment.persist()

    def use(self) -> None:
        theirs = mltraq_session(self.work)
        experiment = theirs.create_experiment("one")
        with experiment.run() as run:
            run.fields.value = 0.5
        with self.work.timed("persist"):
            experiment.persist()
        with self.work.timed("load"):
            found = theirs.load_experiment("one")
        assert found.runs.first().fields.value == 0.5
        with self.work.timed("delete"):
            found.delete()


class MLtraqMore(MLtraqTen):
    name = "mltraq beside 300"
    others = 300


class Query(Contestant):
    """List and filter many runs.  Their rows are written into the index directly: no files are read for this."""

    name = OURS
    labels = ("ls", "filter, first 1,000", "filter on one experiment")

    def prepare(self) -> None:
        from datetime import UTC, datetime

        from mltraq_ds.orm.rows import ExperimentRow, RunRow

        ours = session(self.work, is_durable=False)
        with ours.create_experiment("real").run() as run:
            run.fields.value = 0.5
        index = ours._make_index()
        now = datetime.now(UTC)
        per = self.size["runs_each"]
        for number in range(self.size["experiments"]):
            identity = f"experiment-{number}"
            row = ExperimentRow(
                id_experiment=identity, name=identity, generation=1, folder=identity,
                created_at=now, persisted_at=now, n_runs=per,
            )  # fmt: skip
            runs = [
                RunRow(id_run=f"{number}-{i}", status="success", fields=f'{{"accuracy":{(number * per + i) % 1000}.5}}')
                for i in range(per)
            ]
            index.write(row, runs)

    def use(self) -> None:
        import pandas  # noqa: F401

        ours = session(self.work)
        ours.query("select 1")
        with self.work.timed("ls"):
            listed = ours.ls()
        assert len(listed) == self.size["experiments"]
        filtered = (
            "select id_experiment, id_run, json_extract(fields, '$.accuracy') as accuracy from mltraq_runs "
            "where json_extract(fields, '$.accuracy') > 499.9 limit 1000"
        )
        with self.work.timed("filter, first 1,000"):
            found = ours.query(filtered)
        assert len(found) == 1000
        assert found["accuracy"].min() >= 500
        one = "select * from mltraq_runs where id_experiment = :id"
        with self.work.timed("filter on one experiment"):
            found = ours.query(one, {"id": "experiment-7"})
        assert len(found) == self.size["runs_each"]


_FLAT = tuple(
    Target(label, Ten.name, 1.3, contestant=who)
    for label in ("persist", "load", "delete")
    for who in (Three.name, Thirty.name)
)

ROWS = [
    Row(
        "scale",
        "persist, load, delete one experiment beside others in the store and the index",
        phases=("use",),
        prepare=("prepare",),
        contestants=(Ten, Three, Thirty, MLtraqTen, MLtraqMore),
        full={},
        targets=_FLAT,
    ),
    Row(
        "scale300",
        "persist, load, delete one experiment beside 10 and 300 others",
        phases=("use",),
        prepare=("prepare",),
        contestants=(Ten, Hundreds),
        full={},
        quick={},
        targets=tuple(
            Target(label, Ten.name, 1.3, contestant=Hundreds.name) for label in ("persist", "load", "delete")
        ),
    ),
    Row(
        "query",
        "list and filter many runs (1,000,000; quick: 100,000)",
        phases=("use",),
        prepare=("prepare",),
        contestants=(Query,),
        full={"experiments": 1000, "runs_each": 1000},
        targets=(
            Target("ls", seconds=0.05),
            Target("filter, first 1,000", seconds=0.05),
            Target("filter on one experiment", seconds=0.05),
        ),
    ),
]
