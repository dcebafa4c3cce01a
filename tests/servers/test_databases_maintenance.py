"""check, sweep and rebuild with real servers."""

import pytest

from mltraq_ds.errors import DatabaseUnavailableError
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
