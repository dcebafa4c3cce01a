"""Stores with an index on real servers: the same as on SQLite, schemas that are quoted, servers that are down."""

import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import sqlalchemy as sa

from mltraq_ds.errors import IndexBehindWarning
from mltraq_ds.store import FileStoreConfig, PostgresStoreConfig, RunRecord, export_store, parse_to_config
from mltraq_ds.store.run_filter import RunFilter

pytestmark = pytest.mark.server


def a_record(i, experiment="exp:1"):
    metrics = {"loss": i / 2, "depth": i, "bad": float("inf"), "is_best": i == 0, "kind": "a"}
    return RunRecord(f"run-{i}", experiment, "failed" if i == 2 else "success", metrics=metrics, tags=["a"])


def url_of(database_url, root):
    return f"{database_url}{'&' if '?' in database_url else '?'}file_root={root}"


def test_like_sqlite(database_url, tmp_path):
    """Puts, filters, deletes, documents, a rebuild and an export do on a server what they do in a file."""
    config = parse_to_config(url_of(database_url, tmp_path / "files"))
    with config.connect() as store:
        for i in range(4):
            store.put_run_record(a_record(i))
        scoped = store.scoped("exp:1")
        scoped.put_run_record(a_record(1))
        scoped.put_derived("run-1", {"ratio": 2.5})
        scoped.put_experiment_manifest("exp:1", {"grid": [1]})
        scoped.delete_run("run-3")
        found = {
            name: sorted(one.run_id for one in store.find_run_records(RunFilter(metrics={name: value})))
            for name, value in (("loss", 0.5), ("depth", 2), ("is_best", True), ("kind", "a"), ("bad", float("inf")))
        }
        assert found == {
            "loss": ["run-1"],
            "depth": ["run-2"],
            "is_best": ["run-0"],
            "kind": ["run-0", "run-1", "run-2"],
            "bad": ["run-0", "run-1", "run-2"],
        }
        assert [one.run_id for one in store.find_run_records(RunFilter("failed"))] == ["run-2"]
        assert len(store.check()) == 0
        with store.link.database.write() as connection:
            connection.exec_driver_sql("DELETE FROM mltraq_experiments")
        assert store.rebuild_index() == 3
        assert len(store.check()) == 0
        assert len(store.list_run_records()) == 3
        counts = export_store(store, tmp_path / "copy")
        assert (counts["runs"], counts["derived"], counts["manifests"]) == (4, 1, 1)


@pytest.mark.parametrize("schema", ["lab", "s;CREATE TABLE pwned (x int);--", 'a"b', "public; DROP"])
def test_schemas_are_quoted(postgresql_url, tmp_path, schema):
    """A schema is a name and nothing else: whatever is in it, it is made, used and found; nothing is executed."""
    config = PostgresStoreConfig(connection_string=postgresql_url, file_root=tmp_path, schema=schema)
    with config.connect() as store:
        store.put_run_record(a_record(1))
        assert len(store.check()) == 0
    engine = sa.create_engine(postgresql_url)
    tables = "SELECT table_schema, count(*) FROM information_schema.tables WHERE table_name LIKE 'mltraq%%' GROUP BY 1"
    with engine.connect() as connection:
        assert [row[0] for row in connection.exec_driver_sql(tables)] == [schema]
        pwned = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'pwned'"
        assert connection.exec_driver_sql(pwned).scalar() == 0
    engine.dispose()
    with parse_to_config(url_of(postgresql_url, tmp_path), schema=schema).connect() as store:
        assert store.link.ask() is not None
        assert len(store.list_run_records()) == 1


def test_a_server_that_never_answers(silent_server, postgresql_url, tmp_path, monkeypatch):
    """It is waited for once; all puts are in the files; the next connection, to a living server, has everything."""
    host, port = silent_server
    down = f"postgresql://ada@{host}:{port}/lab"
    config = PostgresStoreConfig(connection_string=down, file_root=tmp_path, connect_timeout_s=2.0)
    store = config.connect()
    asked = []
    ping = store.link.database.ping
    monkeypatch.setattr(store.link.database, "ping", lambda: asked.append(1) or ping())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(10):
            store.put_run_record(a_record(i))
        assert len(store.list_run_records()) == 10
    assert asked == [1]
    assert [one.category for one in caught] == [IndexBehindWarning] * 2
    assert store.link.lag == 10
    assert len(FileStoreConfig(root=tmp_path).connect().list_run_records()) == 10
    with PostgresStoreConfig(connection_string=postgresql_url, file_root=tmp_path).connect() as living:
        assert living.rebuild_index() == 10
        assert len(living.check()) == 0


def test_an_index_that_comes_back(postgresql_url, tmp_path):
    """Connections are cut in the middle of puts: nothing is lost, and the next connection has all rows."""
    config = PostgresStoreConfig(connection_string=postgresql_url, file_root=tmp_path)
    name = sa.make_url(postgresql_url).database
    admin = sa.create_engine(sa.make_url(postgresql_url).set(database="postgres"), isolation_level="AUTOCOMMIT")
    with config.connect() as store:
        store.put_run_record(a_record(0))
        with admin.connect() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            connection.exec_driver_sql(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
        with pytest.warns(IndexBehindWarning, match="lags by 1 put"):
            store.put_run_record(a_record(1))
        store.put_run_record(a_record(2))
        with admin.connect() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    admin.dispose()
    with config.connect() as store:
        assert len(store.list_run_records()) == 3
        assert store.link.database.query("SELECT count(*) AS n FROM mltraq_runs").n.tolist() == [3]
        assert len(store.check()) == 0


def _put_many(config, worker):
    with config.connect() as store:
        for i in range(25):
            store.put_run_record(a_record(worker * 1000 + i))


def test_processes_at_once(database_url, tmp_path):
    """Four processes put at once into one experiment: no error, no lag, no row lost, none twice."""
    config = parse_to_config(url_of(database_url, tmp_path / "files"))
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(_put_many, config, worker) for worker in range(4)]:
            done.result()
    with config.connect() as store:
        assert store.link.database.query("SELECT count(DISTINCT id_run) AS n FROM mltraq_runs").n.tolist() == [100]
        assert len(store.list_run_records()) == 100
        assert len(store.check()) == 0
