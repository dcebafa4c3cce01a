"""What every database must do for an index; subclasses give the fixture `database`, a fresh one."""

import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from mltraq_ds.errors import ConcurrentPersistError, ExperimentExistsError, MltraqDSError, UsageError
from mltraq_ds.orm import models
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rows import BlobRow, ExperimentRow, RunRow

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def an_experiment(id_experiment="e1", name="digits", generation=1, **changes):
    """Return the row of an experiment."""
    values = {"folder": id_experiment, "created_at": START, "persisted_at": START, "fields": '{"a": 1}'}
    return ExperimentRow(id_experiment=id_experiment, name=name, generation=generation, **{**values, **changes})


def some_runs(n=2, **changes):
    """Return rows of runs."""
    return [RunRow(id_run=f"r{i}", status="finished", fields=json.dumps({"i": i}), **changes) for i in range(n)]


def some_blobs(n=2, of="e1"):
    """Return rows of blobs."""
    return [BlobRow(f"{of}/{i:032x}", 10 + i, f"sha256:{i:064x}") for i in range(n)]


def dead(_claim):
    """Say that a writer is dead."""
    return False


def alive(_claim):
    """Say that a writer lives."""
    return True


def never_asked(claim):
    """Fail: there was nothing to ask about."""
    raise AssertionError(f"asked about {claim}")


CHILD = """
import sys
from datetime import UTC, datetime
from mltraq_ds.errors import MltraqDSError
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rows import ExperimentRow, RunRow

url, me = sys.argv[1:]
index = Index(Database(url), "store-1")
now = datetime.now(UTC)

def row(id_experiment, name):
    times = {"created_at": now, "persisted_at": now}
    return ExperimentRow(id_experiment=id_experiment, name=name, generation=1, folder="f", **times)

def persist(id_experiment, name):
    index.claim(name, id_experiment, f"i{me}", is_alive=lambda claim: True)
    index.write(row(id_experiment, name), [RunRow(id_run="r", status="finished")], intent=f"i{me}")

sys.stdin.readline()
try:
    persist(f"e{me}", "digits")
except MltraqDSError as error:
    print(type(error).__name__)
else:
    print("won")
for i in range(20):
    persist(f"e{me}-{i}", f"n{me}-{i}")
index.database.close()
"""


def race_of_processes(url, n=8):
    """Let `n` processes create the tables, race for one name, and write 20 experiments each."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    children = [subprocess.Popen([sys.executable, "-c", CHILD, url, str(i)], **pipes) for i in range(n)]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    outputs = [child.communicate() for child in children]
    said = [out.strip() for out, _ in outputs]
    assert said.count("won") == 1, outputs
    assert set(said) <= {"won", "ConcurrentPersistError", "ExperimentExistsError"}, outputs
    database = Database(url)
    assert len(Index(database, "store-1").ls()) == 1 + n * 20, outputs
    database.close()


class IndexSuite:
    """The suite."""

    @pytest.fixture
    def index(self, database):
        """Return the index of one store."""
        return Index(database, "store-1")

    @pytest.fixture
    def other(self, database):
        """Return the index of another store in the same database."""
        return Index(database, "store-2")

    def look(self, index, query, **parameters):
        """Read around the code under test: plain SQL over a connection of SQLAlchemy's."""
        with index.database.read() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query), parameters)]

    def persist(self, index, row, runs=(), blobs=(), *, intent="i1", **options):
        """Claim and write, as a writer does."""
        index.claim(row.name, row.id_experiment, intent, is_alive=never_asked, replacing=options.pop("replacing", None))
        return index.write(row, runs, blobs, intent=intent, **options)

    # -- writing and reading back

    def test_written_rows_are_there(self, index):
        """Everything written is in the tables as given, whoever reads them."""
        row = an_experiment(n_runs=2, n_blobs=2, n_bytes=21)
        runs = [
            RunRow(id_run="r0", status="finished", params='{"lr": 0.1}', config='{"c": null}', fields='{"s": "é\\n"}'),
            RunRow(id_run="r1", status="failed", exception="boom", started_at=START, finished_at=START),
        ]
        assert self.persist(index, row, runs, some_blobs())
        assert self.look(index, "SELECT id_experiment, name, generation, n_runs, n_bytes FROM mltraq_experiments") == [
            ("e1", "digits", 1, 2, 21)
        ]
        assert self.look(index, "SELECT position, id_run, status, exception FROM mltraq_runs ORDER BY position") == [
            (0, "r0", "finished", None),
            (1, "r1", "failed", "boom"),
        ]
        with index.database.read() as connection:
            found = connection.execute(sa.select(models.Run.__table__).order_by("position")).all()
            (experiment,) = connection.execute(sa.select(models.Experiment.__table__)).all()
        assert [(run.params, run.config, run.fields) for run in found] == [
            ({"lr": 0.1}, {"c": None}, {"s": "é\n"}),
            ({}, {}, {}),
        ]
        assert (found[0].started_at, found[1].started_at, found[1].finished_at) == (None, START, START)
        assert experiment.fields == {"a": 1}
        assert (experiment.created_at, experiment.state) == (START, "current")

    def test_get_and_lookup(self, index, other):
        """An experiment is found by id in its store, and by name in all stores."""
        self.persist(index, an_experiment(n_runs=3, n_blobs=1, n_bytes=5))
        found = index.get("e1")
        assert (found.store_id, found.id_experiment, found.name, found.generation) == ("store-1", "e1", "digits", 1)
        assert (found.n_runs, found.n_blobs, found.n_bytes, found.folder) == (3, 1, 5, "e1")
        assert (found.created_at, found.persisted_at) == (START, START)
        assert other.get("e1") is None
        assert index.lookup("digits") == other.lookup("digits") == [found]
        assert index.lookup("Digits") == []

    def test_json_is_searchable(self, index):
        """Fields can be filtered in SQL and in SQLAlchemy's words, with numbers and texts."""
        runs = [
            RunRow(id_run=f"r{i}", status="finished", fields=json.dumps({"x": i / 10, "s": f"s{i}"})) for i in range(5)
        ]
        self.persist(index, an_experiment(), runs)
        by_number = sa.select(models.Run.id_run).where(models.Run.fields["x"].as_float() > 0.25).order_by("position")
        by_text = sa.select(models.Run.id_run).where(models.Run.fields["s"].as_string() == "s1")
        assert list(index.database.query(by_number)["id_run"]) == ["r3", "r4"]
        assert list(index.database.query(by_text)["id_run"]) == ["r1"]
        equal = [models.Run.fields["s"] == "s1", models.Run.fields["x"] == 0.1, models.Run.params == {}]
        for condition, found in zip(equal, [["r1"], ["r1"], ["r0", "r1", "r2", "r3", "r4"]], strict=True):
            query = sa.select(models.Run.id_run).where(condition).order_by("position")
            assert list(index.database.query(query)["id_run"]) == found, condition

    def test_objects_are_serialised_too(self, index):
        """Through the models a dictionary is stored as the JSON that a record would be, and NaN is refused."""
        self.persist(index, an_experiment())
        table = models.Experiment.__table__
        with index.database.write() as connection:
            connection.execute(table.update(), {"fields": {"b": [1, "x"]}})
        with index.database.read() as connection:
            assert connection.execute(sa.select(table.c.fields)).scalar() == {"b": [1, "x"]}
        with pytest.raises(sa.exc.StatementError, match="not JSON compliant"), index.database.write() as connection:
            connection.execute(table.update(), {"fields": {"b": float("nan")}})
        with pytest.raises(sa.exc.StatementError, match="no time zone"), index.database.write() as connection:
            connection.execute(table.update(), {"created_at": datetime(2026, 1, 1)})

    def test_newer_replaces_wholesale(self, index):
        """A newer generation takes the place of all rows of the older one."""
        self.persist(index, an_experiment(), some_runs(5), some_blobs(5))
        assert self.persist(index, an_experiment(generation=2), some_runs(2), some_blobs(1))
        assert self.look(index, "SELECT count(*) FROM mltraq_runs") == [(2,)]
        assert [blob.key for _, blob in index.blob_references()] == [some_blobs(1)[0].key]
        assert index.get("e1").generation == 2

    @pytest.mark.parametrize("generation", [1, 2])
    def test_older_changes_nothing(self, index, generation):
        """Writing an older or the same generation changes nothing, but ends the writer's claim."""
        self.persist(index, an_experiment(generation=2), some_runs(2))
        index.claim("digits", "e1", "i2", is_alive=never_asked)
        assert not index.write(an_experiment(generation=generation), some_runs(4), intent="i2")
        assert index.get("e1").generation == 2
        assert self.look(index, "SELECT count(*) FROM mltraq_runs") == [(2,)]
        assert index.owner("digits").claim_intent is None

    def test_many_runs_and_blobs(self, index):
        """Rows beyond one chunk keep their order, and pages of blobs are complete."""
        runs, blobs = some_runs(5003), some_blobs(5003)
        self.persist(index, an_experiment(), runs, blobs)
        self.persist(index, an_experiment("e2", "other"), [], some_blobs(3, of="e2"))
        rows = self.look(index, "SELECT id_run FROM mltraq_runs ORDER BY position")
        assert rows == [(run.id_run,) for run in runs]
        found = list(index.blob_references(page_size=1000))
        assert found == [*(("e1", blob) for blob in blobs), *(("e2", blob) for blob in some_blobs(3, of="e2"))]

    def test_a_rename_frees_the_old_name(self, index):
        """An experiment persisted under a new name gives the old one back."""
        self.persist(index, an_experiment())
        self.persist(index, an_experiment(name="better", generation=2), intent="i2")
        assert index.owner("digits") is None
        assert index.owner("better").id_experiment == "e1"
        assert [found.id_experiment for found in index.lookup("better")] == ["e1"]
        self.persist(index, an_experiment("e2"), intent="i3")
        assert index.owner("digits").id_experiment == "e2"

    @pytest.mark.parametrize(
        "name", ["", " ", "A", "a", "a ", "ä", "x" * 10_000, "sha256:x", "'; DROP TABLE x; --", "%s"]
    )
    def test_any_name(self, index, name):
        """Names are data: each is its own, whatever is in it."""
        others = {"", " ", "A", "a", "a ", "ä", "x" * 9_999, "sha256:y"} - {name}
        for i, other in enumerate(others):
            self.persist(index, an_experiment(f"o{i}", other), intent=f"o{i}")
        self.persist(index, an_experiment("mine", name))
        assert [(found.id_experiment, found.name) for found in index.lookup(name)] == [("mine", name)]
        assert index.owner(name).id_experiment == "mine"

    # -- names

    def test_a_taken_name_is_refused(self, index):
        """The name of another experiment is refused with its id and the ways out; nothing changes."""
        self.persist(index, an_experiment())
        before = index.owner("digits")
        with pytest.raises(ExperimentExistsError, match=r"'e1'.*if_exists='replace'"):
            index.claim("digits", "e2", "i2", is_alive=never_asked)
        assert index.owner("digits") == before

    def test_a_name_of_another_store_is_refused(self, index, other):
        """Names are unique in a database: that of another store cannot even be replaced."""
        self.persist(index, an_experiment())
        with pytest.raises(ExperimentExistsError, match="another store"):
            other.claim("digits", "e2", "i2", replacing="e1", is_alive=never_asked)
        with pytest.raises(ExperimentExistsError, match="another store"):
            other.claim("digits", "e1", "i2", is_alive=never_asked)

    def test_a_living_claim_is_refused(self, index):
        """A name that a living writer is at work on is refused, naming that writer."""
        index.claim("digits", "e1", "i1", is_alive=never_asked)
        before = index.owner("digits")
        with pytest.raises(ConcurrentPersistError, match="'i1'"):
            index.claim("digits", "e2", "i2", is_alive=alive)
        assert index.owner("digits") == before
        assert index.lookup("digits") == []

    def test_a_dead_claim_is_taken_over(self, index):
        """The claim of a dead writer is void, and that writer's late release does nothing."""
        index.claim("digits", "e1", "i1", is_alive=never_asked)
        asked = []
        index.claim("digits", "e2", "i2", is_alive=lambda claim: bool(asked.append(claim)))
        assert [(claim.claimed_by, claim.claim_intent, claim.id_experiment) for claim in asked] == [("e1", "i1", None)]
        index.release("digits", "i1")
        assert index.owner("digits").claim_intent == "i2"
        assert index.write(an_experiment("e2"), intent="i2")
        assert index.owner("digits").id_experiment == "e2"

    def test_a_claim_finished_while_asked(self, index):
        """Who rolls a dead writer forward while being asked says "alive", and the claim meets what came of it."""

        def roll_forward(claim):
            index.write(an_experiment(claim.claimed_by), intent=claim.claim_intent)
            return True

        index.claim("digits", "e1", "i1", is_alive=never_asked)
        with pytest.raises(ExperimentExistsError):
            index.claim("digits", "e2", "i2", is_alive=roll_forward)
        index.claim("other", "e1", "i1", is_alive=never_asked)
        index.claim("other", "e2", "i2", is_alive=lambda claim: index.release("other", "i1") is None)
        assert index.owner("other").claim_intent == "i2"

    def test_claiming_twice_is_one_claim(self, index):
        """A writer that repeats its claim keeps it; a released name is free."""
        for _ in range(2):
            index.claim("digits", "e1", "i1", is_alive=never_asked)
        index.release("digits", "i1")
        assert index.owner("digits") is None
        index.release("digits", "i1")
        index.claim("digits", "e2", "i2", is_alive=never_asked)

    def test_an_update_keeps_the_owner(self, index):
        """While an experiment is persisted again, or replaced, it has its name; a released claim changes nothing."""
        self.persist(index, an_experiment())
        index.claim("digits", "e1", "i2", is_alive=never_asked)
        assert (index.owner("digits").id_experiment, index.owner("digits").claim_intent) == ("e1", "i2")
        with pytest.raises(ExperimentExistsError):
            index.claim("digits", "e2", "i3", is_alive=alive)
        with pytest.raises(ConcurrentPersistError):
            index.claim("digits", "e2", "i3", replacing="e1", is_alive=alive)
        index.release("digits", "i2")
        assert (index.owner("digits").id_experiment, index.owner("digits").claim_intent) == ("e1", None)

    def test_replacing(self, index):
        """A new experiment takes the name at its index write; the replaced one is gone for every later writer."""
        self.persist(index, an_experiment(), some_runs(), some_blobs())
        index.claim("digits", "e2", "i2", replacing="e1", is_alive=never_asked)
        assert [found.id_experiment for found in index.lookup("digits")] == ["e1"]
        assert index.write(an_experiment("e2"), some_runs(1), intent="i2", replaces=["e1"])
        assert [found.id_experiment for found in index.lookup("digits")] == ["e2"]
        assert index.owner("digits").id_experiment == "e2"
        assert index.get("e1") is None
        assert index.all_generations() == {"e2": 1}
        assert not index.write(an_experiment(generation=99))
        assert list(index.blob_references()) == []
        assert self.look(index, "SELECT id_experiment FROM mltraq_runs") == [("e2",)]

    @pytest.mark.parametrize("seen", [1, 2, 3])
    def test_replacing_the_version_seen(self, index, seen):
        """A replaced experiment ends with the version that was seen; one persisted since then stays."""

        class Seen(NamedTuple):
            id_experiment: str
            number: int

        self.persist(index, an_experiment(generation=2))
        assert index.write(an_experiment("e2"), replaces=[Seen("e1", seen)])
        assert index.all_generations() == ({"e1": 2, "e2": 1} if seen == 1 else {"e2": 1})
        assert index.owner("digits").id_experiment == ("e1" if seen == 1 else "e2")
        assert index.write(an_experiment("e1", "again", generation=seen + 1)) == (seen > 1)

    def test_writing_without_a_claim(self, index):
        """A roll-forward needs no claim: a free name is taken, a taken one stays and becomes ambiguous."""
        assert index.write(an_experiment("e1"))
        assert index.owner("digits").id_experiment == "e1"
        assert index.write(an_experiment("e2"))
        assert index.owner("digits").id_experiment == "e1"
        assert sorted(found.id_experiment for found in index.lookup("digits")) == ["e1", "e2"]

    def test_writing_under_anothers_claim(self, index):
        """A name that somebody else is claiming goes to who commits, and the claim stands."""
        index.claim("digits", "e2", "i2", is_alive=never_asked)
        assert index.write(an_experiment("e1"), intent="i1")
        assert (index.owner("digits").id_experiment, index.owner("digits").claim_intent) == ("e1", "i2")

    def test_lookup_gives_own_store_first(self, index, other):
        """Of experiments of one name in several stores those of this store come first."""
        other.write(an_experiment("a"))
        index.write(an_experiment("b"))
        assert [found.store_id for found in index.lookup("digits")] == ["store-1", "store-2"]
        assert [found.store_id for found in other.lookup("digits")] == ["store-2", "store-1"]

    # -- deleting

    def test_remove(self, index):
        """A removed experiment is found by nothing, its name is free, and doing it again does nothing."""
        self.persist(index, an_experiment(), some_runs(), some_blobs())
        assert index.remove("e1", 2)
        assert not index.remove("e1", 2)
        assert not index.remove("e1", 1)
        assert (index.get("e1"), index.lookup("digits"), index.ls(), index.owner("digits")) == (None, [], [], None)
        assert (list(index.blob_references()), list(index.experiments_iter()), index.all_generations()) == ([], [], {})
        assert self.look(index, "SELECT count(*) FROM mltraq_runs") == [(0,)]

    def test_late_writer_of_a_removed_experiment(self, index):
        """A version older than the deletion never comes back, also where the index had never seen the experiment."""
        index.claim("digits", "e1", "late", is_alive=never_asked)
        assert index.remove("e1", 2)
        assert index.owner("digits") is None
        assert not index.write(an_experiment(), some_runs(), intent="late")
        assert (index.get("e1"), index.owner("digits")) == (None, None)

    def test_remove_voids_claims(self, index):
        """Deleting an experiment ends its writers' claims, and leaves those of others."""
        self.persist(index, an_experiment())
        index.claim("digits", "e2", "i2", replacing="e1", is_alive=never_asked)
        index.claim("other", "e1", "i3", is_alive=never_asked)
        self.persist(index, an_experiment("e3", "third"))
        index.claim("third", "e1", "i4", replacing="e3", is_alive=never_asked)
        index.remove("e1", 2)
        assert (index.owner("digits").id_experiment, index.owner("digits").claim_intent) == (None, "i2")
        assert index.owner("other") is None
        assert (index.owner("third").id_experiment, index.owner("third").claim_intent) == ("e3", None)

    def test_a_deleted_id_may_be_used_again(self, index):
        """A new experiment of a deleted one's id starts at generation 1: its claim is younger than the deletion."""
        self.persist(index, an_experiment(generation=7))
        index.remove("e1", 8)
        assert self.persist(index, an_experiment(generation=1), some_runs(1), intent="i2")
        assert index.get("e1").generation == 1
        assert self.look(index, "SELECT count(*) FROM mltraq_runs") == [(1,)]

    def test_forget_deleted(self, index, other):
        """Rows of deleted experiments go when they are old enough; those of others and of other stores stay."""
        for store in (index, other):
            self.persist(store, an_experiment("e1", store.store_id))
            self.persist(store, an_experiment("e2", f"{store.store_id} 2"))
            store.remove("e1", 2)
        assert index.forget_deleted(START) == 0
        assert index.forget_deleted(datetime.now(UTC) + timedelta(seconds=1)) == 1
        states = self.look(index, "SELECT store_id, state FROM mltraq_experiments ORDER BY store_id, state")
        assert states == [("store-1", "current"), ("store-2", "current"), ("store-2", "deleted")]

    # -- listing

    def test_ls(self, index, other):
        """Listing goes by time of creation, for one store or all, and in pages."""
        for i in (2, 0, 1):
            self.persist(index, an_experiment(f"e{i}", f"n{i}", created_at=START + timedelta(seconds=i)))
        self.persist(other, an_experiment("f", "other", created_at=START + timedelta(seconds=0.5)))
        assert [found.id_experiment for found in index.ls()] == ["e0", "e1", "e2"]
        assert [found.id_experiment for found in index.ls(all_stores=True)] == ["e0", "f", "e1", "e2"]
        assert [found.id_experiment for found in index.ls(limit=1, offset=1)] == ["e1"]
        assert index.all_generations() == {"e0": 1, "e1": 1, "e2": 1}

    @pytest.mark.parametrize("page_size", [1, 2, 3, 100])
    def test_pages(self, index, other, page_size):
        """Paging gives each experiment of the store once, whatever the page."""
        for i in range(4):
            self.persist(index, an_experiment(f"e{i}", f"n{i}"))
        self.persist(other, an_experiment("e1", "other"))
        assert [found.id_experiment for found in index.experiments_iter(page_size)] == ["e0", "e1", "e2", "e3"]

    def test_known_stores(self, index, other):
        """A store is known once somebody has indexed all of it; single persists are not that."""
        assert not index.knows_store()
        self.persist(index, an_experiment())
        assert not index.knows_store()
        index.register_store("file:///data")
        index.register_store("file:///moved")
        assert (index.knows_store(), other.knows_store()) == (True, False)
        assert self.look(index, "SELECT store_id, url FROM mltraq_stores") == [("store-1", "file:///moved")]
        assert index.get("e1") is not None

    # -- rebuilding

    def test_rebuild_from_nothing(self, index):
        """A rebuild into an empty database gives what the writers had given."""
        entries = [
            (an_experiment(f"e{i}", f"n{i}", n_runs=2), some_runs(2), some_blobs(2, of=f"e{i}")) for i in range(5)
        ]
        done = index.rebuild(iter(entries), url="file:///data")
        assert (done.written, done.removed, done.kept) == (5, 0, 0)
        assert index.knows_store()
        assert index.all_generations() == {f"e{i}": 1 for i in range(5)}
        assert [index.owner(f"n{i}").id_experiment for i in range(5)] == [f"e{i}" for i in range(5)]
        assert self.look(index, "SELECT count(*) FROM mltraq_runs") == [(10,)]
        assert len(list(index.blob_references())) == 10

    def test_rebuild_is_idempotent(self, index):
        """A second rebuild leaves the rows as they are."""
        entries = [(an_experiment(f"e{i}", f"n{i}"), some_runs(2), some_blobs(2)) for i in range(3)]
        tables = ["mltraq_experiments", "mltraq_runs", "mltraq_blobs", "mltraq_names"]

        def rows():
            return [sorted(map(str, self.look(index, f"SELECT * FROM {table}"))) for table in tables]

        index.rebuild(entries)
        before = rows()
        index.rebuild(entries)
        assert rows() == before

    def test_rebuild_repairs(self, index, other):
        """Rows that are behind, ahead, half-written, renamed, deleted by mistake or left over become what files say."""
        for i in range(6):
            self.persist(index, an_experiment(f"e{i}", f"n{i}", generation=3), some_runs(2))
        self.persist(other, an_experiment("e0", "other"), some_runs(1))
        index.remove("e4", 4)
        with index.database.write() as connection:
            connection.execute(sa.text("DELETE FROM mltraq_runs WHERE id_experiment = 'e2' AND store_id = 'store-1'"))
            connection.execute(sa.text("DELETE FROM mltraq_experiments WHERE id_experiment = 'e5'"))
        files = [
            (an_experiment("e0", "n0", generation=5), some_runs(1), []),
            (an_experiment("e1", "n1", generation=2), some_runs(1), []),
            (an_experiment("e2", "renamed", generation=3), some_runs(2), []),
            (an_experiment("e4", "n4", generation=3), some_runs(2), []),
        ]
        done = index.rebuild(files)
        assert (done.written, done.removed, done.kept) == (4, 1, 0)
        assert index.all_generations() == {"e0": 5, "e1": 2, "e2": 3, "e4": 3}
        assert other.all_generations() == {"e0": 1}
        counts = self.look(index, "SELECT id_experiment, count(*) FROM mltraq_runs WHERE store_id='store-1' GROUP BY 1")
        assert dict(counts) == {"e0": 1, "e1": 1, "e2": 2, "e4": 2}
        names = self.look(index, "SELECT name, id_experiment FROM mltraq_names")
        assert dict(names) == {"n0": "e0", "n1": "e1", "renamed": "e2", "n4": "e4", "other": "e0"}

    def test_rebuild_keeps_what_is_newer(self, index):
        """What writers commit during the scan is kept: newer versions, new experiments, deletions."""
        for i in range(3):
            self.persist(index, an_experiment(f"e{i}", f"n{i}"))

        def scan():
            yield an_experiment("e0", "n0"), [], []
            yield an_experiment("e1", "n1"), [], []
            self.persist(index, an_experiment("e0", "n0", generation=2), some_runs(1))
            self.persist(index, an_experiment("new", "new"), some_runs(1))
            index.remove("e1", 2)
            # gone in the files, then persisted again
            self.persist(index, an_experiment("e2", "n2", generation=2))

        done = index.rebuild(scan())
        assert (done.written, done.removed, done.kept) == (0, 0, 2)
        assert index.all_generations() == {"e0": 2, "new": 1, "e2": 2}
        assert index.owner("n1") is None
        assert index.owner("new").id_experiment == "new"

    def test_rebuild_takes_newer_files(self, index):
        """A row that changed during the scan yields to a file that is newer still."""
        self.persist(index, an_experiment())

        def scan():
            self.persist(index, an_experiment(generation=2))
            yield an_experiment(generation=3), some_runs(1), []

        assert index.rebuild(scan()).written == 1
        assert index.get("e1").generation == 3

    def test_rebuild_of_one_experiment(self, index):
        """A scoped rebuild touches one experiment and nothing else, also when it is gone."""
        for i in range(3):
            self.persist(index, an_experiment(f"e{i}", f"n{i}"), some_runs(1))
        files = [(an_experiment(f"e{i}", f"m{i}", generation=2), some_runs(3), []) for i in range(3)]
        done = index.rebuild(files, replace_scope="e1")
        assert (done.written, done.removed, done.kept) == (1, 0, 0)
        assert index.all_generations() == {"e0": 1, "e1": 2, "e2": 1}
        assert (index.owner("n1"), index.owner("m1").id_experiment) == (None, "e1")
        assert not index.knows_store()
        assert index.rebuild([], replace_scope="e2").removed == 1
        assert index.all_generations() == {"e0": 1, "e1": 2}
        assert index.owner("n2") is None
        assert index.rebuild([], replace_scope="unknown").removed == 0

    def test_rebuild_of_two_experiments_of_one_name(self, index, other):
        """Both are kept, the newer has the name, and a name of another store stays with it."""
        other.write(an_experiment("x", "theirs"))
        index.rebuild(
            [
                (an_experiment("e2", persisted_at=START + timedelta(days=1)), [], []),
                (an_experiment("e1"), [], []),
                (an_experiment("e3", "theirs"), [], []),
            ]
        )
        assert sorted(found.id_experiment for found in index.lookup("digits")) == ["e1", "e2"]
        assert index.owner("digits").id_experiment == "e2"
        assert (index.owner("theirs").store_id, len(index.lookup("theirs"))) == ("store-2", 2)

    def test_rebuild_keeps_claims(self, index):
        """Claims of writers at work survive, on free names and on those of experiments that are gone."""
        index.claim("free", "e9", "i9", is_alive=never_asked)
        index.claim("n3", "e8", "i8", is_alive=never_asked)
        self.persist(index, an_experiment("e1", "n1"))
        self.persist(index, an_experiment("e2", "n2"))
        index.claim("n1", "e7", "i7", replacing="e1", is_alive=never_asked)
        index.claim("n2", "e6", "i6", replacing="e2", is_alive=never_asked)
        index.rebuild([(an_experiment("e2", "n2"), [], []), (an_experiment("e3", "n3"), [], [])])
        owners = {name: (index.owner(name).id_experiment, index.owner(name).claim_intent) for name in ("free", "n1")}
        assert owners == {"free": (None, "i9"), "n1": (None, "i7")}
        assert (index.owner("n2").id_experiment, index.owner("n2").claim_intent) == ("e2", "i6")
        assert (index.owner("n3").id_experiment, index.owner("n3").claim_intent) == ("e3", "i8")

    # -- the database

    def test_query(self, index):
        """Text and statements give a frame; parameters are bound; a statement without rows is undone and refused."""
        self.persist(index, an_experiment(), some_runs(3))
        frame = index.database.query("SELECT id_run, position FROM mltraq_runs WHERE position >= :p", {"p": 1})
        assert (list(frame.columns), frame.shape) == (["id_run", "position"], (2, 2))
        assert index.database.query(sa.select(models.Run.fields)).shape == (3, 1)
        assert list(index.database.query("SELECT id_run, status FROM mltraq_runs WHERE 1=0").columns) == [
            "id_run",
            "status",
        ]
        with pytest.raises(UsageError, match="rolled back"):
            index.database.query("DELETE FROM mltraq_runs")
        assert len(index.database.query("SELECT * FROM mltraq_runs")) == 3

    def test_errors_of_sqlalchemy_pass(self, index):
        """What is wrong with a query is told by SQLAlchemy itself."""
        with pytest.raises(sa.exc.DBAPIError, match="nonsense"):
            index.database.query("SELECT nonsense FROM mltraq_runs")

    def test_a_failed_transaction_leaves_nothing(self, index):
        """Whatever fails in the middle of a write, nothing of it is kept."""
        self.persist(index, an_experiment())

        def bad():
            yield from some_runs(1)
            raise RuntimeError("midway")

        with pytest.raises(RuntimeError, match="midway"):
            index.write(an_experiment(generation=2), bad())
        with pytest.raises(sa.exc.DBAPIError):
            index.write(an_experiment(generation=2), [RunRow(id_run=None, status="x")])
        assert index.get("e1").generation == 1

    def test_deleting_an_experiment_row_deletes_its_parts(self, index):
        """Foreign keys hold: no run or blob without experiment, no experiment without store."""
        self.persist(index, an_experiment(), some_runs(), some_blobs())
        with index.database.write() as connection:
            connection.execute(sa.text("DELETE FROM mltraq_stores"))
        for table in ("experiments", "runs", "blobs", "names"):
            assert self.look(index, f"SELECT count(*) FROM mltraq_{table}") == [(0,)]
        with pytest.raises(sa.exc.IntegrityError), index.database.write() as connection:
            connection.execute(sa.text("INSERT INTO mltraq_blobs VALUES ('s', 'e', 0, 'k', 1, 'd')"))

    def test_one_of_many_threads_gets_the_name(self, database):
        """Of eight threads claiming one name exactly one wins; the others get typed errors, and none waits for ever."""
        barrier = threading.Barrier(8)

        def work(i):
            index = Index(database, "store-1")
            barrier.wait()
            try:
                index.claim("digits", f"e{i}", f"i{i}", is_alive=alive)
                index.write(an_experiment(f"e{i}"), some_runs(1), intent=f"i{i}")
            except MltraqDSError as error:
                return type(error)
            return f"e{i}"

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(work, range(8)))
        winners = [result for result in results if isinstance(result, str)]
        assert len(winners) == 1, results
        assert set(results) - set(winners) <= {ConcurrentPersistError, ExperimentExistsError}
        assert Index(database, "store-1").owner("digits").id_experiment == winners[0]

    def test_many_threads_write(self, database):
        """Sixteen threads with names of their own all succeed."""

        def work(i):
            index = Index(database, "store-1")
            for j in range(5):
                self.persist(index, an_experiment(f"e{i}-{j}", f"n{i}-{j}"), some_runs(2), intent=f"i{i}")
                index.lookup(f"n{i}-{j}")

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, range(16)))
        assert len(Index(database, "store-1").ls()) == 80

    def test_replacers_in_a_circle(self, database):
        """Writers that replace, delete and rebuild the same experiments at once end without any foreign error."""
        index = Index(database, "store-1")
        for i in range(4):
            self.persist(index, an_experiment(f"e{i}", f"n{i}"))

        def work(i):
            mine = Index(database, "store-1")
            for turn in range(2, 7):
                mine.write(an_experiment(f"e{i}", f"n{(i + turn) % 4}", generation=turn), some_runs(1))
                mine.write(an_experiment(f"new{i}-{turn}", f"n{i}"), replaces=[f"e{(i + 1) % 4}"])
                mine.remove(f"e{i}", turn)
                mine.rebuild([(an_experiment(f"e{i}", f"n{i}", generation=turn), [], [])], replace_scope=f"e{i}")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert len(index.ls()) >= 20

    def test_pickled(self, index):
        """An index pickles; where the database can be reached from elsewhere the copy finds the rows."""
        self.persist(index, an_experiment())
        copy = pickle.loads(pickle.dumps(index))
        if index.database.is_in_memory:
            with pytest.raises(MltraqDSError, match="memory of another process"):
                copy.get("e1")
        else:
            assert copy.get("e1") == index.get("e1")
            copy.database.close()

    def test_repr(self, index):
        """The text names database and store."""
        assert repr(index).startswith("Index(")
        assert "store-1" in repr(index)
        assert isinstance(index.database, Database)
