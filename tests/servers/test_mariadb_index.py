"""The index on a real MariaDB, and how it fails there."""

import json
import os
import pickle
import time
import traceback

import pytest
import sqlalchemy as sa

from mltraq_ds.errors import DatabaseUnavailableError
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rows import RunRow
from tests.unit.orm.index_suite import IndexSuite, an_experiment

pytestmark = pytest.mark.server


@pytest.fixture
def database(mariadb_url):
    """Return an empty database."""
    database = Database(mariadb_url)
    yield database
    database.close()


class TestMariadb(IndexSuite):
    def test_long_texts_and_deep_json(self, index):
        """Texts beyond 64 KiB and JSON nested more than 32 deep are kept whole, and disturb no search of other rows."""
        deep = {"n": 1}
        for _ in range(200):
            deep = {"d": deep}
        fields = json.dumps({"deep": deep, "text": "ü" * 100_000, "x": 7})
        runs = [
            RunRow(id_run="r0", status="failed", fields=fields, exception="e" * 1_000_000),
            RunRow(id_run="r1", status="x", fields='{"x": 7}'),
        ]
        self.persist(index, an_experiment(name="é" * 70_000), runs)
        ((read, exception),) = self.look(index, "SELECT fields, exception FROM mltraq_runs WHERE id_run = 'r0'")
        assert (read, exception) == (fields, "e" * 1_000_000)
        assert index.lookup("é" * 70_000)[0].name == "é" * 70_000
        assert self.look(index, "SELECT id_run FROM mltraq_runs WHERE JSON_VALUE(fields, '$.x') > 6") == [("r1",)]

    def test_texts_are_told_apart(self, index, database):
        """The tables have the collation that tells every text from every other, whatever the server's default is."""
        with database.write() as connection:
            connection.exec_driver_sql("ALTER DATABASE CHARACTER SET latin1")
        kinds = self.look(
            index,
            "SELECT DISTINCT collation_name FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND collation_name IS NOT NULL",
        )
        assert kinds == [("utf8mb4_nopad_bin",)]


def test_lost_connections_are_replaced(database):
    """After a restart of the server the next use connects again instead of failing on an old connection."""
    index = Index(database, "store-1")
    index.write(an_experiment())
    _kill_others(database)
    assert index.get("e1").generation == 1


def _kill_others(database):
    other = sa.create_engine(database._url, poolclass=sa.NullPool)
    with other.connect() as connection:
        ids = connection.exec_driver_sql(
            "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        )
        for (number,) in ids.all():
            connection.exec_driver_sql(f"KILL {number}")


def test_a_connection_lost_in_mid_transaction(database):
    """A server that goes away while rows are written gives one sentence, and nothing was changed."""
    index = Index(database, "store-1")
    index.write(an_experiment())
    with pytest.raises(DatabaseUnavailableError, match=r"connection is lost.*network"), database.write() as connection:
        connection.exec_driver_sql("DELETE FROM mltraq_experiments")
        _kill_others(database)
        connection.exec_driver_sql("SELECT 1")
    assert index.get("e1").generation == 1


def test_nobody_listens(unused_port):
    """A server that is down is said at once, with host and port, without the password, and with the cause."""
    database = Database(f"mariadb://ada:hunter2@127.0.0.1:{unused_port}/lab")
    with pytest.raises(DatabaseUnavailableError, match=f"127.0.0.1:{unused_port}/lab.*Start the server") as caught:
        database.ping()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert isinstance(caught.value.__cause__, sa.exc.OperationalError)


def test_nobody_answers(silent_server):
    """A server that takes the connection and says nothing is waited for no longer than the time-out."""
    host, port = silent_server
    database = Database(f"mysql://ada:hunter2@{host}:{port}/lab", timeout_s=2)
    start = time.monotonic()
    with pytest.raises(DatabaseUnavailableError, match=r"does not answer|connection is lost"):
        database.ping()
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"database": "nowhere"}, "no such database.*CREATE DATABASE"),
        ({"username": "nobody"}, "refuses the user or the password"),
        ({"database": None}, "names no database"),
    ],
)
def test_refusals(mariadb_url, change, sentence):
    """What the server refuses is told with the remedy."""
    url = sa.make_url(mariadb_url)
    changed = sa.URL.create(
        url.drivername,
        change.get("username", url.username),
        None,
        url.host,
        url.port,
        change.get("database", url.database),
    )
    database = Database(changed)
    with pytest.raises(DatabaseUnavailableError, match=sentence):
        database.ping()
    database.close()


def test_missing_rights(database, mariadb_url):
    """A user who may not create tables is told which rights to ask for."""
    url = sa.make_url(mariadb_url)
    with database.write() as connection:
        connection.exec_driver_sql("CREATE USER reader@localhost")
        connection.exec_driver_sql(f"GRANT SELECT ON {url.database}.* TO reader@localhost")
        connection.exec_driver_sql("DROP TABLE mltraq_schema_version")
    reader = Database(url.set(username="reader"))
    try:
        with pytest.raises(DatabaseUnavailableError, match="Grant the user"):
            Index(reader, "store-1").ls()
    finally:
        reader.close()
        with database.write() as connection:
            connection.exec_driver_sql("DROP USER reader@localhost")


def test_a_server_that_cuts_texts(database, mariadb_url):
    """A server that is configured to cut what is too long refuses it from us."""
    with database.write() as connection:
        connection.exec_driver_sql("SET GLOBAL sql_mode = ''")
    lax = Database(mariadb_url)
    try:
        with pytest.raises(sa.exc.DataError), lax.write() as connection:
            connection.exec_driver_sql("INSERT INTO mltraq_stores VALUES (REPEAT('x', 65), '', NOW(), NULL)")
    finally:
        lax.close()
        with database.write() as connection:
            connection.exec_driver_sql("SET GLOBAL sql_mode = DEFAULT")


def test_no_password_in_pickles(database, mariadb_url, tmp_path):
    """A pickled database has no password; one that needs it says where it may come from, and that works."""
    url = sa.make_url(mariadb_url)
    with database.write() as connection:
        connection.exec_driver_sql("CREATE USER ada@localhost IDENTIFIED BY 'hunter2'")
        connection.exec_driver_sql(f"GRANT ALL ON {url.database}.* TO ada@localhost")
    try:
        pickled = pickle.dumps(Database(url.set(username="ada", password="hunter2")))
        assert b"hunter2" not in pickled
        with pytest.raises(DatabaseUnavailableError, match="read_default_file"):
            pickle.loads(pickled).ping()
        (tmp_path / "my.cnf").write_text("[client]\nuser = ada\npassword = hunter2\n")
        os.chmod(tmp_path / "my.cnf", 0o600)
        named = sa.URL.create(url.drivername, host=url.host, port=url.port, database=url.database)
        named = Database(named.update_query_dict({"read_default_file": str(tmp_path / "my.cnf")}))
        copy = pickle.loads(pickle.dumps(named))
        copy.ping()
        copy.close()
    finally:
        with database.write() as connection:
            connection.exec_driver_sql("DROP USER ada@localhost")
