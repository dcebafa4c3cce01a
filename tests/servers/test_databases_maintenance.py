"""check, sweep and rebuild with real servers."""

from contextlib import closing

import pytest

from mltraq_ds.errors import DatabaseUnavailableError, UnknownStoreError
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.schema import SCHEMA_VERSION
from mltraq_ds.store import FileStoreConfig
from mltraq_ds.store.indexed import PostgresStore
from mltraq_ds.store.types import RunRecord
from tests.unit.store.upkeep_scene import Scene

pytestmark = pytest.mark.server


@pytest.fixture
def scene(database_url, tmp_path):
    """Return a store with two experiments and its index on a server."""
    scene = Scene(database_url, tmp_path / "store")
    yield scene
    scene.session.database.close()


def test_rebuild(scene):
    """Whatever is missing, behind or half-written is there again, and check is clean before and after a sweep."""
    assert len(scene.check(deep=True)) == 0
    for step in (
        "DELETE FROM mltraq_stores",
        "DELETE FROM mltraq_runs WHERE position = 0",
        "UPDATE mltraq_experiments SET generation = 1",
        "DROP TABLE mltraq_names",
    ):
        with scene.session.database.write() as connection:
            connection.exec_driver_sql(step)
        scene.session.database.close()
        session = scene.open()
        if step.startswith("DROP"):
            with session.database.write() as connection:
                connection.exec_driver_sql("DELETE FROM mltraq_schema_version")
            session.database.close()
        assert session.check().kinds().get("index drift", 0) > 0
        assert session.rebuild_index().experiments == 2
        assert len(session.check()) == 0
        session.database.close()
    assert scene.values()["first"][1][0] == 1


def test_sweep(scene):
    """Garbage of files and database goes, the dry run says the same, and everything reads as before."""
    values = scene.values()
    scene.orphan(scene.first)
    scene.index.claim("third", "someone", "_pending/gone.json", is_alive=lambda claim: True)
    assert scene.kinds() == {"dead claim": 1, "orphan": 1}
    dry, real = scene.sweep(dry_run=True), scene.sweep()
    assert dry.findings == real.findings
    assert real.kinds() == {"dead claim": 1, "old generation": 1, "orphan": 1}
    assert len(scene.check()) == 0
    assert scene.values() == values


def test_check_makes_no_tables(database_url, tmp_path):
    """A database without tables is told, by check and by sweep, and stays as it is until somebody uses it."""
    scene = Scene(f"sqlite:///{tmp_path}/index.db", tmp_path / "store")
    scene.orphan(scene.first)
    with scene.open(database_url) as session:
        assert session.check().kinds() == {"index drift": 1, "orphan": 1}
        with pytest.raises(UnknownStoreError, match="rebuild_index"):
            session.sweep(dry_run=False, grace_s=0)
        assert session.database.tables_version() is None
        session.rebuild_index()
        assert session.check().kinds() == {"orphan": 1}
        assert session.database.tables_version() == SCHEMA_VERSION
    again = Database(database_url)
    assert again.tables_version() == SCHEMA_VERSION
    again.close()


def test_check_makes_no_schema(postgresql_url, tmp_path):
    """Looking whether a schema has tables does not make the schema."""
    files = FileStoreConfig(root=str(tmp_path / "files")).connect()
    files.put_run_record(RunRecord("run-1", "exp", status="success"))
    database = Database(postgresql_url, schema="of its own")
    names = "SELECT nspname FROM pg_namespace WHERE nspname = 'of its own'"
    with PostgresStore.over(files, database) as store, closing(Database(postgresql_url)) as other:
        assert store.check().kinds() == {}
        assert database.tables_version() is None
        assert other.rows(names)[1] == []
        store.rebuild_index()
        assert other.rows(names)[1] == [("of its own",)]
        assert Database(postgresql_url, schema="of its own").tables_version() == SCHEMA_VERSION
        assert store.check().kinds() == {}


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_server_that_is_down(kind, tmp_path, unused_port):
    """Check says so and goes on; sweep removes nothing."""
    scene = Scene(f"sqlite:///{tmp_path}/index.db", tmp_path / "store")
    key = scene.orphan(scene.first)
    session = scene.open(f"{kind}://nobody@127.0.0.1:{unused_port}/none")
    assert session.check().kinds() == {"orphan": 1, "unreachable database": 1}
    with pytest.raises(DatabaseUnavailableError):
        session.sweep(dry_run=False, grace_s=0)
    assert scene.session.storage.exists(key)
