"""A database: opened on first use, told from broken ones, never showing a secret."""

import contextlib
import copy
import dataclasses
import gc
import os
import pickle
import re
import sqlite3
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from mltraq_ds.errors import DatabaseUnavailableError, FormatError, MissingExtraError, UsageError
from mltraq_ds.orm import ddl, engines, models, names, queries, rebuild, schema, statements, tables, urls
from mltraq_ds.orm.column_types import WRITERS, JsonText, UtcDateTime, read_time
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.prepared import Prepared
from tests.unit.orm.index_suite import an_experiment, never_asked, race_of_processes, some_blobs, some_runs


@pytest.fixture
def path(tmp_path):
    """Return the path of a database file that does not exist yet."""
    return tmp_path / "index.db"


@pytest.fixture
def database(path):
    """Return a database in a file."""
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()


def pragma(database, name):
    """Ask SQLite for one of its settings."""
    with database.read() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


# -- opening


def test_nothing_happens_before_use(path, database):
    """Constructing, showing and pickling a database touches nothing."""
    assert repr(database) == f"Database('sqlite:///{path}')"
    pickle.dumps(database)
    database.close()
    assert not path.exists()
    database.ping()
    assert path.exists()


def test_a_relative_path_is_fixed_at_construction(tmp_path, monkeypatch):
    """Changing the working folder does not change where the rows are; `~` is the home."""
    monkeypatch.chdir(tmp_path)
    relative = Database("sqlite:///here.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    relative.ping()
    relative.close()
    assert (tmp_path / "here.db").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Database("sqlite:///~/x.db").url == f"sqlite:///{tmp_path}/x.db"


@pytest.mark.parametrize(("durability", "synchronous", "later"), [("full", 2, 1), ("relaxed", 0, 0)])
def test_sqlite_settings(path, durability, synchronous, later):
    """Write-ahead log, foreign keys, and fsync unless told otherwise, by each writer in turn on one connection."""
    database = Database(f"sqlite:///{path}", durability=durability)
    assert pragma(database, "journal_mode") == "wal"
    assert pragma(database, "foreign_keys") == 1
    for is_durable in (True, False, False, True):
        with database.write(is_durable=is_durable) as connection:
            found = connection.exec_driver_sql("PRAGMA synchronous").scalar()
        assert found == (synchronous if is_durable else later)
    assert pragma(database, "busy_timeout") == 30_000
    database.close()


def test_closing_leaves_one_file(path, database):
    """After the last connection the write-ahead log is merged; the next use opens again."""
    Index(database, "s").write(an_experiment())
    database.close()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert Index(database, "s").get("e1") is not None


def test_a_dropped_database_closes_itself(path):
    """Nobody has to call close: connections end with the object."""
    database = Database(f"sqlite:///{path}")
    database.ping()
    closed = []
    sa.event.listen(database._open().reader, "close", lambda connection, _: closed.append(connection))
    del database
    gc.collect()
    assert len(closed) == 1  # by us, not by its own end, of which Python warns
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_file_uri(path):
    """SQLite's own URIs work too."""
    database = Database(f"sqlite:///file:{path}?uri=true")
    database.ping()
    database.close()
    assert path.exists()


def test_a_removed_file_is_noticed(path, database):
    """Whoever removes the file gets a new, empty database, not writes into a file that has no name any more."""
    index = Index(database, "s")
    index.write(an_experiment())
    for file in path.parent.iterdir():
        file.unlink()
    assert index.get("e1") is None
    index.write(an_experiment())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM mltraq_experiments").fetchall() == [(1,)]


def test_two_databases_over_one_file(path, database):
    """What one object writes another one reads."""
    second = Database(f"sqlite:///{path}")
    Index(database, "s").write(an_experiment())
    assert Index(second, "s").get("e1").generation == 1
    second.close()


# -- the tables


def test_the_tables_are_made_once(path, database, monkeypatch):
    """A second object looks at one number and creates nothing."""
    database.ping()
    monkeypatch.setattr(schema, "_create", lambda _: pytest.fail("created again"))
    second = Database(f"sqlite:///{path}")
    second.ping()
    second.close()


def test_statements_kept_are_those_rendered():
    """The statements for SQLite, which are kept as text, are those of the tables."""

    def plain(statements):
        return [re.sub(r"\s+", "", statement) for statement in statements]

    assert plain(ddl.SQLITE) == plain(schema._render(sa.URL.create("sqlite").get_dialect()()))


def _prepared():
    for module in (names, queries, rebuild, schema, statements):
        for name, value in vars(module).items():
            if isinstance(value, Prepared):
                yield f"{module.__name__}.{name}", value


@pytest.mark.parametrize(
    ("name", "prepared"), list(_prepared()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_texts_kept_are_those_compiled(name, prepared):
    """A statement that SQLite gets as text is what SQLAlchemy makes of it, with the same parameters."""
    dialect = sa.URL.create("sqlite").get_dialect()(paramstyle="named")
    compiled = prepared.statement.compile(dialect=dialect, column_keys=prepared.columns or None)
    assert prepared.text.split() == str(compiled).split(), name
    assert set(re.findall(r"(?<=:)\w+", prepared.text)) == set(compiled.params)


def test_values_written_are_those_of_sqlalchemy():
    """What goes to SQLite beside SQLAlchemy's types is what they would have written, and comes back the same."""
    dialect = sa.URL.create("sqlite").get_dialect()()
    stamps = [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        None,
    ]
    bind = UtcDateTime().dialect_impl(dialect).bind_processor(dialect)
    for stamp in stamps:
        assert WRITERS[UtcDateTime](stamp) == bind(stamp)
        assert read_time(bind(stamp)) == stamp
    with pytest.raises(ValueError, match="no time zone"):
        WRITERS[UtcDateTime](datetime(2026, 1, 1))
    for value in ('{"a": 1}', {"a": [1, None]}, None):
        assert WRITERS[JsonText](value) == JsonText().dialect_impl(dialect).bind_processor(dialect)(value)


def test_a_value_that_cannot_be_written_is_an_error_of_sqlalchemy(database):
    """Callers, who note that the index is behind, need not know who converts; the values are not in the text."""
    stamp = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))
    experiment = dataclasses.replace(an_experiment(), created_at=stamp)
    with pytest.raises(sa.exc.StatementError, match="OverflowError"):
        Index(database, "s").write(experiment)
    assert Index(database, "s").ls() == []


def test_tables_of_others_stay(path):
    """The index lives beside the tables of other programs, and leaves their version number alone."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        connection.execute("PRAGMA user_version = 77")
    database = Database(f"sqlite:///{path}")
    Index(database, "s").write(an_experiment())
    assert pragma(database, "user_version") == 77
    assert list(database.query("SELECT * FROM theirs").columns) == ["x"]
    database.close()


def test_a_newer_version_is_refused(path, database):
    """Tables of a newer version of the library are left alone, with the remedy."""
    database.ping()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE mltraq_schema_version SET version = 99")
    newer = Database(f"sqlite:///{path}")
    with pytest.raises(FormatError, match=r"version 99.*knows 3.*Upgrade"):
        newer.ping()
    newer.close()


def test_a_newer_version_that_comes_at_the_last_moment(path, database, monkeypatch):
    """A database that another library makes between the look and the first statement is left as it is, too."""
    database.ping()
    database.close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE mltraq_schema_version SET version = 99")
        connection.execute("DROP TABLE mltraq_documents")
    monkeypatch.setattr(schema, "is_new", lambda url: True)
    newer = Database(f"sqlite:///{path}")
    with pytest.raises(FormatError, match="version 99"):
        newer.ping()
    newer.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert "mltraq_documents" not in {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}


def test_what_is_new(tmp_path):
    """A file that is there is looked into, however its URL spells it; one that is not has no tables yet."""
    there = tmp_path / "there.db"
    there.touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "nowhere.db")
    found = {
        text: urls.is_new(urls.parse_url(text))
        for text in (
            "sqlite://",
            f"sqlite:///{tmp_path}/new.db",
            f"sqlite:///{there}",
            f"sqlite:///{tmp_path}/link.db",
            f"sqlite:///file:{there}?uri=true",
            "postgresql://h/d",
        )
    }
    assert list(found.values()) == [True, True, False, False, False, False]


@pytest.mark.parametrize("is_theirs", [False, True])
def test_the_log_is_begun_without_flushing_only_where_nothing_is(path, is_theirs):
    """A database of another program is flushed in full when its journal is exchanged for a write-ahead log."""
    if is_theirs:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE theirs (x)")
    told = []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.set_trace_callback(told.append)
        engines._use_wal(connection, 10, "NORMAL")
        engines._use_wal(connection, 10, "NORMAL")
    assert told.count("PRAGMA journal_mode=WAL") == 1
    assert ("PRAGMA synchronous=NORMAL" in told) is not is_theirs


def test_tables_of_an_older_version_get_those_that_are_new(path, database):
    """A database of version 1 keeps its rows and gets the tables that are new, whoever opens it first."""
    Index(database, "s").write(an_experiment())
    with database.write() as connection:
        for table in ("mltraq_artifacts", "mltraq_records", "mltraq_documents"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql("UPDATE mltraq_schema_version SET version = 1")
    again = Database(f"sqlite:///{path}")
    assert again.query("SELECT count(*) AS n FROM mltraq_artifacts").n.tolist() == [0]
    assert again.query("SELECT count(*) AS n FROM mltraq_records").n.tolist() == [0]
    assert again.query("SELECT count(*) AS n FROM mltraq_documents").n.tolist() == [0]
    assert again.query("SELECT version FROM mltraq_schema_version").version.tolist() == [3]
    assert len(Index(again, "s").ls()) == 1
    again.close()


def test_models_are_the_tables():
    """Every column of every table has a typed attribute of the right optionality, and the relations work."""
    sa.orm.configure_mappers()
    for model in models.Base.__subclasses__():
        annotated = {name for name in model.__annotations__ if name in model.__table__.c}
        assert annotated == set(model.__table__.c.keys())
        for name in annotated:
            assert ("None" in str(model.__annotations__[name])) == model.__table__.c[name].nullable, (model, name)
    mapped = {model.__table__.name for model in models.Base.__subclasses__()}
    assert mapped | {"mltraq_schema_version"} == set(tables.metadata.tables)


def test_relations(database):
    """Through the models an experiment has its runs in order, and a run its experiment."""
    Index(database, "s").write(an_experiment(), some_runs(3), some_blobs(2))
    database.ping()
    with sa.orm.Session(database._open().reader) as session:
        experiment = session.scalars(sa.select(models.Experiment)).one()
        assert [run.id_run for run in experiment.runs] == ["r0", "r1", "r2"]
        assert len(experiment.blobs) == 2
        assert experiment.runs[0].experiment is experiment


def test_many_threads_open_at_once(path):
    """Objects and threads that meet on a new file make the tables once and never hear "database is locked"."""
    barrier = threading.Barrier(8)

    def work(i):
        database = Database(f"sqlite:///{path}")
        barrier.wait()
        Index(database, "s").write(an_experiment(f"e{i}", f"n{i}"))
        database.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    database = Database(f"sqlite:///{path}")
    assert len(Index(database, "s").ls()) == 8
    database.close()


def test_one_of_many_processes_gets_the_name(path):
    """Of eight processes that create the tables and claim one name at once exactly one wins, and no work is lost."""
    race_of_processes(f"sqlite:///{path}")


def test_queries_use_indexes(path, database):
    """Every statement of the index finds its rows by an SQL index: none reads a whole table."""
    said = []
    database.ping()
    sa.event.listen(database._open().reader, "before_cursor_execute", lambda *a: said.append((a[2], a[3], a[5])))
    index = Index(database, "s")
    index.claim("digits", "e1", "i1", is_alive=never_asked)
    index.write(an_experiment(), some_runs(), some_blobs(), intent="i1")
    index.claim("better", "e1", "i2", is_alive=never_asked)
    index.write(an_experiment(name="better", generation=2), some_runs(), some_blobs(), intent="i2")
    index.claim("better", "e2", "i3", replacing="e1", is_alive=never_asked)
    index.write(an_experiment("e2", "better"), intent="i3", replaces=["e1"])
    index.claim("x", "e3", "i4", is_alive=never_asked)
    index.release("x", "i4")
    index.owner("x")
    index.lookup("better")
    index.get("e2")
    index.ls()
    index.ls(limit=3)
    index.ls(all_stores=True, limit=3)
    list(index.experiments_iter())
    list(index.blob_references())
    index.all_generations()
    index.knows_store()
    index.register_store("")
    index.rebuild([(an_experiment("e2", "better"), some_runs(), some_blobs())], replace_scope="e2")
    index.remove("e2", 5)
    index.forget_deleted(an_experiment().created_at)
    # What users ask, as the how-to page shows.
    said.append(("SELECT * FROM mltraq_runs WHERE id_experiment = ?", ("e2",), False))
    plans = {}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement, parameters, is_many in said:
            if statement.startswith(("SELECT", "UPDATE", "DELETE")):
                first = parameters[0] if is_many else parameters
                plans[statement] = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", first)]
    assert len(plans) > 25
    scans = {
        statement: plan for statement, plan in plans.items() if any("SCAN" in p and "INDEX" not in p for p in plan)
    }
    assert scans == {}
    sorts = {statement: plan for statement, plan in plans.items() if any("TEMP B-TREE" in p for p in plan)}
    assert sorts == {}


# -- processes and threads


def test_a_forked_child_has_connections_of_its_own(database):
    """A child that was forked, even with locks held, reads and writes; so does a grandchild; the parent goes on."""
    index = Index(database, "s")
    index.write(an_experiment("e1", "one"))

    def in_child(work):
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                status = 0 if work() else 2
            os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def grandchild():
        return index.get("e1") is not None and index.write(an_experiment("e3", "three"))

    def child():
        return index.write(an_experiment("e2", "two")) and in_child(grandchild) == 0

    with database._lock, database._open().lock:
        assert in_child(child) == 0
    assert sorted(index.all_generations()) == ["e1", "e2", "e3"]


def test_memory_is_not_shared_with_children():
    """A forked child is told that an in-memory database stays with its parent, instead of finding it empty."""
    database = Database("sqlite:///:memory:")
    database.ping()
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(DatabaseUnavailableError):
            database.ping()
            status = 2
        os._exit(0 if status == 1 else status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    database.ping()
    database.close()


def test_copies_are_the_same_handle(database):
    """A deep copy of something that holds a database shares it; a pickle opens its own."""
    assert copy.deepcopy([database])[0] is database
    Index(database, "s").write(an_experiment())
    other = pickle.loads(pickle.dumps(database))
    assert Index(other, "s").get("e1") is not None
    assert other.url == database.url
    other.close()


def test_a_thread_that_holds_too_long(path):
    """A writer that waits for another thread longer than the time-out is told so."""
    database = Database(f"sqlite:///{path}", timeout_s=0.05)
    with database.write(), pytest.raises(DatabaseUnavailableError, match=r"another thread.*0.05 s"), database.write():
        pass
    database.close()


def test_another_program_that_holds_too_long(path, database):
    """A writer that waits for another program longer than the time-out is told so, and nothing was changed."""
    Index(database, "s").write(an_experiment())
    hasty = Database(f"sqlite:///{path}", timeout_s=0.05)
    with database.write():
        with pytest.raises(DatabaseUnavailableError, match="another program holds it"):
            Index(hasty, "s").write(an_experiment(generation=2))
        assert Index(hasty, "s").get("e1").generation == 1
    assert Index(hasty, "s").write(an_experiment(generation=2))
    hasty.close()


def test_a_busy_file_is_waited_for_when_opened(path):
    """Opening a file for the first time waits for who holds it, up to the time-out."""
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("CREATE TABLE theirs (x)")
    holder.execute("BEGIN EXCLUSIVE")
    hasty = Database(f"sqlite:///{path}", timeout_s=0.05)
    with pytest.raises(DatabaseUnavailableError, match="another program"):
        hasty.ping()
    patient = Database(f"sqlite:///{path}", timeout_s=20)
    timer = threading.Timer(0.1, lambda: holder.execute("COMMIT"))
    timer.start()
    patient.ping()
    timer.join()
    patient.close()
    holder.close()


def test_all_connections_in_use(path):
    """More readers at once than connections wait for the time-out, and are told."""
    database = Database(f"sqlite:///{path}", timeout_s=0.05)
    with contextlib.ExitStack() as stack:
        with pytest.raises(DatabaseUnavailableError, match="all its connections are in use"):
            for _ in range(20):
                stack.enter_context(database.read())
    database.close()


def test_races_are_tried_again(database):
    """A transaction that lost a race is run again, a bounded number of times; other errors pass at once."""
    tries = []

    def loses(connection):
        tries.append(1)
        raise sa.exc.IntegrityError("x", {}, sqlite3.IntegrityError("UNIQUE"))

    with pytest.raises(sa.exc.IntegrityError):
        database.transact(loses)
    assert len(tries) == 10
    assert database.transact(lambda connection: len(tries) if tries.append(1) is None else 0) == 11
    with pytest.raises(sa.exc.OperationalError, match="syntax error"):
        database.transact(lambda connection: connection.exec_driver_sql("nonsense"))


# -- refusals


def refused(database):
    """Return the text of the refusal, and see that it has a cause."""
    with pytest.raises(DatabaseUnavailableError) as caught:
        database.ping()
    assert isinstance(caught.value.__cause__, sa.exc.SQLAlchemyError)
    database.close()
    return str(caught.value)


def test_a_missing_folder(tmp_path):
    """A file in a folder that does not exist is refused; the folder is not made."""
    text = refused(Database(f"sqlite:///{tmp_path}/no/such/index.db"))
    assert "Create its folder" in text
    assert f"{tmp_path}/no/such/index.db" in text
    assert list(tmp_path.iterdir()) == []


def test_not_a_database(path):
    """A file of another kind is refused and left as it is."""
    path.write_bytes(b"not a database" * 100)
    assert "not a SQLite database" in refused(Database(f"sqlite:///{path}"))
    assert path.read_bytes() == b"not a database" * 100


def test_a_damaged_database(path, database):
    """A damaged file is told from a wrong one: the remedy is to rebuild."""
    index = Index(database, "s")
    index.write(an_experiment(), some_runs(500))
    database.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(DatabaseUnavailableError, match="damaged.*rebuild_index"):
        index.get("e1")


def test_a_full_disk(path, database):
    """A full disk is an `OSError` with the remedy, and the rows are as before."""
    index = Index(database, "s")
    index.write(an_experiment())
    with database.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    sa.event.listen(
        database._open().reader, "begin", lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}") and None
    )
    with pytest.raises(OSError, match="disk is full"):
        index.write(an_experiment(generation=2), some_runs(3000))
    assert index.get("e1").generation == 1


def test_a_read_only_file(path, database, monkeypatch):
    """A file that may not be written is refused with the remedy."""
    Index(database, "s").write(an_experiment())
    database.close()
    read_only = Database(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(DatabaseUnavailableError, match="read-only.*write access"):
        Index(read_only, "s").write(an_experiment(generation=2))
    read_only.close()


def test_a_network_folder(path, monkeypatch):
    """SQLite on a network file system is refused before anything is made there."""
    monkeypatch.setattr(engines, "is_network_folder", lambda folder: folder == path.parent)
    with pytest.raises(DatabaseUnavailableError, match=r"network file system.*database\.url"):
        Database(f"sqlite:///{path}").ping()
    assert not path.exists()
    memory = Database("sqlite://")
    memory.ping()
    memory.close()


def test_kinds_of_file_systems(tmp_path, monkeypatch):
    """Network file systems are known by name; unknown ones and folders that do not exist are taken for local."""
    kinds = ["ext4", "nfs", "nfs4", "cifs", "fuse.sshfs", "fuseblk", "nfsx", "9p", None]
    refused = []
    for kind in kinds:
        monkeypatch.setattr(engines, "filesystem_type", lambda device, path, kind=kind: kind)
        if engines.is_network_folder(tmp_path):
            refused.append(kind)
        assert not engines.is_network_folder(tmp_path / "absent")
    assert refused == ["nfs", "nfs4", "cifs", "fuse.sshfs", "9p"]


def test_changing_to_wal_is_tried_again():
    """SQLite does not wait when the mode is changed while another one opens the file, so we do."""

    class Busy:
        def __init__(self, times):
            self.times = times

        def execute(self, statement):
            if statement.endswith("=WAL") and self.times:
                self.times -= 1
                raise sqlite3.OperationalError("database is locked")
            return self

        def fetchone(self):
            return ("delete",)

    engines._use_wal(Busy(3), 10, "NORMAL")
    with pytest.raises(sqlite3.OperationalError):
        engines._use_wal(Busy(10**9), 0.01, "NORMAL")


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("postgresql://h/d", "psycopg", "postgres"),
        ("mysql://h/d", "pymysql", "mysql"),
        ("mariadb://h/d", "pymysql", "mysql"),
    ],
)
def test_a_missing_driver(url, module, extra, monkeypatch):
    """A driver that is not installed is named with the pip command."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf'pip install "mltraq-ds\[{extra}\]"'):
        Database(url).ping()


def test_other_missing_drivers(monkeypatch):
    """A driver that is none of our extras is named; a dialect that SQLAlchemy does not know is a usage error."""
    monkeypatch.setitem(sys.modules, "oracledb", None)
    with pytest.raises(MissingExtraError, match="oracle"):
        Database("oracle+oracledb://h/d").ping()
    with pytest.raises(UsageError, match="nosuchdb"):
        Database("nosuchdb://h/d").ping()


# -- secrets


SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ada:{SECRET}@127.0.0.1:{{port}}/lab",
        f"postgresql://ada@127.0.0.1:{{port}}/lab?password={SECRET}",
        f"postgresql://ada@127.0.0.1:{{port}}/lab?sslpassword={SECRET}&sslmode=prefer",
        f"mysql://ada:{SECRET}@127.0.0.1:{{port}}/lab",
    ],
)
def test_secrets_are_never_shown(url):
    """No text, pickle, error or traceback has the password."""
    database = Database(url.format(port=1))
    shown = [database.url, repr(database), repr(Index(database, "s")), pickle.dumps(database).decode("latin-1")]
    with pytest.raises((DatabaseUnavailableError, MissingExtraError, TypeError)) as caught:
        database.ping()
    shown.append("".join(traceback.format_exception(caught.value)))
    assert [text for text in shown if SECRET in text] == []
    assert "***" in database.url


def test_an_unreadable_url_is_not_repeated():
    """A URL that cannot be read is refused without showing it, since it may hold a password."""
    for url in (f"postgres//ada:{SECRET}@h/d", f"postgresql://ada:{SECRET}@h:port/d", ""):
        with pytest.raises(UsageError, match="not of the form") as caught:
            Database(url)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_names_of_drivers():
    """A URL without a driver means the driver of our extras; one with a driver is kept, and so is every parameter."""
    given = {
        "postgres://h/d": "postgresql+psycopg://h/d",
        "postgresql://h/d?sslmode=require": "postgresql+psycopg://h/d?sslmode=require",
        "postgresql+psycopg2://h/d": "postgresql+psycopg2://h/d",
        "mysql://h/d": "mysql+pymysql://h/d",
        "sqlite://": "sqlite://",
        "sqlite:///:memory:": "sqlite:///:memory:",
        "sqlite:////a b/c.db": "sqlite:////a b/c.db",
        "sqlite:///file:/a/b.db?mode=ro&uri=true": "sqlite:///file:/a/b.db?mode=ro&uri=true",
    }
    assert {url: Database(url).url for url in given} == given


def test_waiting_is_bounded(path):
    """No wait in this file was longer than it had to be: a refused connection is refused at once."""
    start = time.monotonic()
    with pytest.raises(DatabaseUnavailableError):
        Database("postgresql://ada@127.0.0.1:1/lab").ping()
    assert time.monotonic() - start < 5
