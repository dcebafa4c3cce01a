"""The index on a real PostgreSQL."""

import contextlib
import os
import pickle
import time
import traceback

import pytest
import sqlalchemy as sa

from mltraq_ds.errors import DatabaseUnavailableError
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.index import Index
from tests.unit.orm.index_suite import IndexSuite, an_experiment, some_runs

pytestmark = pytest.mark.server


@pytest.fixture
def database(postgresql_url):
    """Return an empty database."""
    database = Database(postgresql_url)
    yield database
    database.close()


class TestPostgresql(IndexSuite):
    def test_json_is_jsonb(self, index):
        """JSON columns are JSONB, so that PostgreSQL's own operators and indexes work on them."""
        self.persist(index, an_experiment(), some_runs(3))
        assert self.look(index, "SELECT id_run FROM mltraq_runs WHERE fields @> '{\"i\": 1}'") == [("r1",)]

    def test_times_are_instants(self, index):
        """Times come back as instants whatever the zone of the connection."""
        self.persist(index, an_experiment())
        with index.database.write() as connection:
            connection.exec_driver_sql("SET TIME ZONE 'Asia/Tokyo'")
            found = connection.execute(sa.text("SELECT created_at AT TIME ZONE 'UTC' FROM mltraq_experiments")).scalar()
        assert f"{found:%H:%M:%S}" == "03:04:05"
        assert f"{index.get('e1').created_at:%H:%M:%S %Z}" == "03:04:05 UTC"


def test_a_forked_child_has_connections_of_its_own(database):
    """A child that was forked reads and writes, and the parent's connections still work afterwards."""
    index = Index(database, "store-1")
    index.write(an_experiment("e1", "one"))
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            status = 0 if index.get("e1") and index.write(an_experiment("e2", "two")) else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [found.id_experiment for found in index.ls()] == ["e1", "e2"]


def test_lost_connections_are_replaced(database):
    """After a restart of the server the next use connects again instead of failing on an old connection."""
    index = Index(database, "store-1")
    index.write(an_experiment())
    other = sa.create_engine(database._url, poolclass=sa.NullPool)
    with other.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND application_name = 'mltraq_ds'"
        )
    assert index.get("e1").generation == 1


def test_a_connection_lost_in_mid_transaction(database):
    """A server that goes away while rows are written gives one sentence, and nothing was changed."""
    index = Index(database, "store-1")
    index.write(an_experiment())
    with pytest.raises(DatabaseUnavailableError, match=r"Wait until it has started|network"):
        with database.write() as connection:
            connection.exec_driver_sql("DELETE FROM mltraq_experiments")
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
    assert index.get("e1").generation == 1


def test_nobody_listens(unused_port):
    """A server that is down is said at once, with host and port, without the password, and with the cause."""
    database = Database(f"postgresql://ada:hunter2@127.0.0.1:{unused_port}/lab")
    with pytest.raises(DatabaseUnavailableError, match=f"127.0.0.1:{unused_port}/lab.*Start the server") as caught:
        database.ping()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert isinstance(caught.value.__cause__, sa.exc.OperationalError)


def test_nobody_answers(silent_server):
    """A server that takes the connection and says nothing is waited for no longer than the time-out."""
    host, port = silent_server
    database = Database(f"postgresql://ada:hunter2@{host}:{port}/lab", timeout_s=2)
    start = time.monotonic()
    with pytest.raises(DatabaseUnavailableError, match="does not answer"):
        database.ping()
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"database": "nowhere"}, "refuses.*'createdb' makes"),
        ({"username": "nobody"}, 'refuses.*"nobody".*Look at user'),
        ({"query": {"options": "-c default_transaction_read_only=on"}}, "read-only.*primary"),
    ],
)
def test_refusals(postgresql_url, change, sentence):
    """What the server refuses is told with the remedy."""
    url = sa.make_url(postgresql_url)
    url = url.set(**{**change, "query": {**url.query, **change.get("query", {})}})
    database = Database(url)
    with pytest.raises(DatabaseUnavailableError, match=sentence):
        database.ping()
    database.close()


def test_missing_rights(database, postgresql_url):
    """A user who may not create tables is told which rights to ask for."""
    database.ping()
    with database.write() as connection:
        connection.exec_driver_sql("CREATE ROLE reader LOGIN")
    reader = Database(sa.make_url(postgresql_url).set(username="reader"))
    try:
        with pytest.raises(DatabaseUnavailableError, match="Grant the user"):
            Index(reader, "store-1").ls()
    finally:
        reader.close()
        with database.write() as connection:
            connection.exec_driver_sql("DROP ROLE reader")


def test_no_password_in_pickles(postgresql_url):
    """A pickled database has no password; one that needs it says where it may come from."""
    url = sa.make_url(postgresql_url).set(password="hunter2", username="nobody")
    pickled = pickle.dumps(Database(url))
    assert b"hunter2" not in pickled
    with pytest.raises(DatabaseUnavailableError, match="PGPASSWORD"):
        pickle.loads(pickled).ping()
