"""How the index behaves on every real server: races, waiting, tables of a newer version."""

import pytest

from mltraq_ds.errors import DatabaseUnavailableError, FormatError
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.index import Index
from tests.unit.orm.index_suite import an_experiment, race_of_processes

pytestmark = pytest.mark.server


@pytest.fixture
def database(database_url):
    """Return an empty database."""
    database = Database(database_url)
    yield database
    database.close()


def test_one_of_many_processes_gets_the_name(database_url):
    """Of eight processes that create the tables and claim one name at once exactly one wins, and no work is lost."""
    race_of_processes(database_url)


def test_waiting_for_rows_is_bounded(database, database_url):
    """A program that holds rows makes a writer wait for the time-out, not for ever."""
    index = Index(database, "store-1")
    index.write(an_experiment())
    # MariaDB counts whole seconds.
    hasty = Database(database_url, timeout_s=0.2 if str(database_url).startswith("postgresql") else 1)
    with database.write() as connection:
        connection.exec_driver_sql("SELECT * FROM mltraq_experiments FOR UPDATE")
        with pytest.raises(DatabaseUnavailableError, match="another program holds its rows"):
            Index(hasty, "store-1").write(an_experiment(generation=2))
    assert Index(hasty, "store-1").write(an_experiment(generation=2))
    hasty.close()


def test_a_newer_version_is_refused(database, database_url):
    """Tables of a newer version of the library are left alone."""
    database.ping()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE mltraq_schema_version SET version = 99")
    newer = Database(database_url)
    with pytest.raises(FormatError, match=r"99.*Upgrade"):
        newer.ping()
    newer.close()
