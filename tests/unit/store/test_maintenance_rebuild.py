"""rebuild_index makes the database say what the files say, whatever it said before."""

import hashlib
import shutil
import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa

from mltraq_ds import create_session
from mltraq_ds.errors import (
    AmbiguousNameError,
    ConflictError,
    CorruptRecordError,
    ExperimentNotFoundError,
    StorageError,
    UsageError,
)
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.overview import remembered_url
from mltraq_ds.storage import open_storage
from mltraq_ds.storage.remote import RemoteStorage
from mltraq_ds.store import generations, layout, maintenance
from mltraq_ds.testing import Callback, Fail, FaultStorage
from tests.unit.store.upkeep_scene import Scene


def rows(session):
    """Return everything that the index says, without the times of looking."""
    found = {}
    for table in ("experiments", "runs", "blobs"):
        columns, lines = session.database.rows(f"SELECT * FROM mltraq_{table} ORDER BY 1, 2, 3")
        found[table] = [dict(zip(columns, line, strict=True)) for line in lines]
    names = session.database.rows("SELECT name, store_id, id_experiment, claimed_by FROM mltraq_names ORDER BY name")
    return found | {"names": [tuple(line) for line in names[1]]}


TABLES = ("names", "runs", "blobs", "experiments", "artifacts", "stores", "schema_version")
DAMAGE = {
    "dropped": [f"DROP TABLE mltraq_{name}" for name in TABLES],
    "wiped": ["DELETE FROM mltraq_names", "DELETE FROM mltraq_experiments", "DELETE FROM mltraq_stores"],
    "half-written": ["DELETE FROM mltraq_runs", "DELETE FROM mltraq_blobs WHERE position = 0"],
    "behind": ["UPDATE mltraq_experiments SET generation = generation - 1, fields = '{}'"],
    "ahead": ["UPDATE mltraq_experiments SET generation = generation + 5, fields = '{}'"],
    "without names": ["DELETE FROM mltraq_names"],
    "ghosts": [
        "PRAGMA defer_foreign_keys=ON",
        *(
            f"UPDATE mltraq_{part} SET id_experiment = 'ghost' WHERE id_experiment = (SELECT id_experiment FROM "
            "mltraq_names WHERE name = 'first')"
            for part in ("runs", "blobs", "experiments")
        ),
    ],
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_index(scene, what):
    """After any damage the rows are again what they were, check is clean, and doing it again changes nothing."""
    before = rows(scene.session)
    with scene.session.database.write() as connection:
        for step in DAMAGE[what]:
            connection.exec_driver_sql(step)
    session = scene.open()
    report = session.rebuild_index()
    assert (report.experiments, report.runs, report.blobs, len(report)) == (2, 4, 6, 0)
    assert report.exit_code == 0
    assert "2 experiments, 4 runs and 6 blobs" in str(report)
    assert rows(session) == before
    assert len(session.check()) == 0
    session.rebuild_index()
    assert rows(session) == before
    assert scene.values()["first"][1][0] == 1


def test_new_database(scene, tmp_path):
    """A database that never saw the store has everything afterwards; until then queries say what to do."""
    before = rows(scene.session)
    session = scene.open(f"sqlite:///{tmp_path}/new.db")
    with pytest.raises(LookupError, match="rebuild_index"):
        session.ls()
    session.rebuild_index()
    assert rows(session) == before
    assert session.ls()["name"].tolist() == ["first", "second"]
    assert session.load_experiment("first").fields.note == "second version"


def test_index_of_several_stores(scene, tmp_path):
    """Rows of other stores in the same database stay as they are."""
    other = Scene(scene.url, tmp_path / "other", is_empty=True)
    other.make("third")
    with scene.session.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM mltraq_experiments WHERE name = 'first'")
    before = [row for row in rows(other.session)["runs"] if row["store_id"] == other.index.store_id]
    assert scene.session.rebuild_index().written == 2
    assert [row for row in rows(other.session)["runs"] if row["store_id"] == other.index.store_id] == before
    assert len(scene.check()) == len(other.check()) == 0


def test_one_experiment(scene):
    """With an id only the rows of that experiment change; of one that is gone none stay."""
    with scene.session.database.write() as connection:
        connection.exec_driver_sql("UPDATE mltraq_experiments SET n_runs = 9")
    report = scene.session.rebuild_index(id_experiment=scene.first.id_experiment)
    assert (report.experiments, report.written) == (1, 1)
    found = {row["name"]: row["n_runs"] for row in rows(scene.session)["experiments"]}
    assert found == {"first": 2, "second": 9}
    scene.session.storage.delete_folder(layout.folder_of(scene.first.id_experiment))
    report = scene.session.rebuild_index(id_experiment=scene.first.id_experiment)
    assert (report.experiments, report.removed) == (0, 1)
    assert [row["name"] for row in rows(scene.session)["experiments"]] == ["second"]


def test_an_experiment_that_nobody_knows(scene, tmp_path):
    """A mistyped id is told, also where there is no store yet; one that only the database knows is removed from it."""
    empty = Scene(f"sqlite:///{tmp_path}/empty.db", f"{scene.store}-empty", is_empty=True)
    for session in (scene.session, empty.session):
        with pytest.raises(ExperimentNotFoundError, match="No experiment has the id 'nope'"):
            session.rebuild_index("nope")
    scene.session.storage.delete_folder(layout.folder_of(scene.first.id_experiment))
    assert scene.session.rebuild_index(scene.first.id_experiment).removed == 1


def test_one_name_twice(scene):
    """Two experiments of one name are both kept; loading by the name says which ids there are."""
    with scene.session.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM mltraq_names")
    twin = scene.make("first")
    session = scene.open(f"{scene.url[:-3]}-2.db")
    assert session.rebuild_index().experiments == 3
    with pytest.raises(AmbiguousNameError, match=twin.id_experiment):
        session.load_experiment("first")
    assert session.load_experiment(id_experiment=twin.id_experiment).name == "first"


def test_ended_experiments(scene):
    """Deleted experiments have no rows, whatever the database said."""
    scene.first.delete()
    session = scene.open(f"{scene.url[:-3]}-2.db")
    assert session.rebuild_index().experiments == 1
    assert session.ls()["name"].tolist() == ["second"]


@pytest.mark.parametrize("what", ["generation", "record", "no records", "strange values", "not storable"])
def test_what_cannot_be_read_is_told(scene, what):
    """An experiment that cannot be read keeps its rows and is in the report; all others are indexed anew."""
    storage, folder = scene.session.storage, layout.folder_of(scene.first.id_experiment)
    key = layout.generation_key(folder, 2)
    current = generations.current(storage, folder)
    if what == "generation":
        scene.flip(key)
    elif what == "record":
        scene.flip(current.records[0].key)
    elif what == "no records":
        scene.put(key, replace(current, records=()).to_bytes())
    else:
        data = storage.read(current.records[0].key)
        new = b'{"$numpy":[]}' if what == "strange values" else b'"\\u0000"'
        data = data.replace(b'"second version"', new)
        scene.put(current.records[0].key, data)
        record = replace(current.records[0], size=len(data), digest=f"sha256:{hashlib.sha256(data).hexdigest()}")
        scene.put(key, replace(current, records=(record,)).to_bytes())
    report = scene.session.rebuild_index()
    assert (report.experiments, len(report), report.exit_code) == (1, 1, 1)
    assert folder in report.findings[0].key
    assert sorted(row["name"] for row in rows(scene.session)["experiments"]) == ["first", "second"]
    assert report.removed == 0
    assert len(report.df()) == 1
    assert scene.session.rebuild_index(id_experiment=scene.second.id_experiment).findings == ()


def test_persist_meanwhile(scene):
    """What is persisted while files are read is kept, and so is what is deleted."""
    third = scene.session.create_experiment("third")

    once = threading.Lock()

    def act(call):
        if call.verb == "read" and call.key.endswith(".jsonl") and once.acquire(blocking=False):
            third.persist()
            scene.second.delete()

    objects = scene.objects._changed(storage=FaultStorage(scene.session.storage, lambda call: Callback(act)))
    maintenance.rebuild_index(objects, scene.index)
    assert sorted(scene.open().ls()["name"]) == ["first", "third"]
    assert len(scene.check()) == 0


def test_replaced_between_the_two_reads(scene):
    """An experiment that is updated between its generation and its records is read again."""
    done = []

    def act(call):
        if call.verb == "read" and call.key.endswith(".jsonl") and not done:
            done.append(True)
            for experiment in (scene.first, scene.second):
                experiment.fields.note = "newest"
                experiment.persist(if_exists="update")

    with scene.session.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM mltraq_experiments")
    objects = scene.objects._changed(storage=FaultStorage(scene.session.storage, lambda call: Callback(act)))
    report = maintenance.rebuild_index(objects, scene.index)
    assert len(report) == 0
    assert {row["generation"] for row in rows(scene.session)["experiments"]} == {2, 3}
    assert len(scene.check()) == 0


def test_storage_that_fails(local):
    """If the store does not answer no row is changed."""
    before = rows(local.session)
    failed = 0
    for number in range(1, 9):
        broken = FaultStorage(local.session.storage, {number: Fail()})
        try:
            maintenance.rebuild_index(local.objects._changed(storage=broken), local.index)
        except StorageError:
            failed += 1
        assert rows(local.session) == before
    assert failed


def test_unreadable_intent(scene):
    """A damaged intent does not keep the index from being rebuilt; it is told."""
    scene.put("_pending/x.json", b"no json")
    report = scene.session.rebuild_index()
    assert report.experiments == 2
    assert [one.kind for one in report] == ["unreadable intent"]


def test_dead_writers_are_finished(scene):
    """A rebuild leaves no work of dead writers, so that check is clean."""
    scene.intent(scene.second, is_alive=False)
    scene.session.rebuild_index()
    assert len(scene.check()) == 0


def test_progress(scene):
    """The caller's progress sees every experiment and their number."""
    seen = []

    def progress(items, total):
        for item in items:
            seen.append(total)
            yield item

    maintenance.rebuild_index(scene.objects, scene.index, progress=progress)
    assert seen == [2, 2]


def test_moved_store_keeps_its_id(local, tmp_path):
    """A store that was moved is the same store: nothing needs to be rebuilt, and its new place is remembered."""
    store_id = local.index.store_id
    shutil.move(tmp_path / "store", tmp_path / "moved")
    local.store = str(tmp_path / "moved")
    local.session = local.open()
    assert local.session.ls()["name"].tolist() == ["first", "second"]
    assert local.index.store_id == store_id
    assert remembered_url(local.index) == local.session.storage.url
    assert len(local.check(deep=True)) == 0


def test_copied_store_is_told(local, tmp_path):
    """A copy beside its original is refused with one database, until it has an id of its own; then both are indexed."""
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    copy = create_session(local.url, str(tmp_path / "copy"))
    for act in (copy.ls, copy.rebuild_index, copy.sweep):
        with pytest.raises(ConflictError, match="renew_store_id"):
            act()
    assert [one.kind for one in copy.check()] == ["store identity"]
    before = Index(copy.database, layout.read_store_id(copy.storage)).store_id
    new = maintenance.renew_store_id(str(tmp_path / "copy"))
    assert new == layout.read_store_id(copy.storage) != before
    copy = create_session(local.url, str(tmp_path / "copy"))
    with pytest.raises(LookupError, match="rebuild_index"):
        copy.ls()
    copy.rebuild_index()
    assert len(copy.check(deep=True)) == len(local.check(deep=True)) == 0
    assert copy.ls()["id_experiment"].tolist() == local.open().ls()["id_experiment"].tolist()
    assert copy.load_experiment("first").fields.note == "second version"


def test_copied_project(local, tmp_path):
    """A folder that was copied with store and database in it works as it is: each keeps to its own."""
    project = tmp_path / "project"
    project.mkdir()
    shutil.copytree(tmp_path / "store", project / "store")
    for path in tmp_path.glob("index.db*"):  # also what SQLite has not moved into the file yet
        shutil.copy(path, project / path.name)
    copy = create_session(f"sqlite:///{project}/index.db", str(project / "store"))
    assert len(copy.check()) == 0
    assert copy.ls()["name"].tolist() == ["first", "second"]
    assert len(local.check()) == 0


def test_one_place_with_two_urls(local, tmp_path):
    """A link to the store is the store, and so is a URL of another scheme that leads there."""
    (tmp_path / "link").symlink_to(tmp_path / "store")
    assert create_session(local.url, str(tmp_path / "link")).ls()["name"].tolist() == ["first", "second"]
    other = RemoteStorage(f"file://{tmp_path}/store")
    assert create_session(local.url, other).ls()["name"].tolist() == ["first", "second"]


def test_unwritable_copy_is_read(local, tmp_path):
    """A copy that cannot be written does no harm, so it is not refused."""
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    broken = FaultStorage(open_storage(str(tmp_path / "copy")), lambda call: Fail() if call.verb == "put" else None)
    assert create_session(local.url, broken).ls()["name"].tolist() == ["first", "second"]


def test_renewing_needs_a_store(tmp_path, scene):
    """Only a store gets a new id; one whose id is damaged is left as it is."""
    with pytest.raises(UsageError, match="no store"):
        maintenance.renew_store_id(str(tmp_path / "nothing"))
    scene.flip("_store.json")
    with pytest.raises(CorruptRecordError):
        maintenance.renew_store_id(scene.session.storage)


def test_lost_store_id(scene):
    """A store whose id is lost gets a new one by rebuilding."""
    scene.session.storage.delete("_store.json")
    session = scene.open()
    assert session.rebuild_index().experiments == 2
    assert len(session.check()) == 0
    assert session.ls()["name"].tolist() == ["first", "second"]


def test_memory_database(store_url):
    """A database in memory is rebuilt like any other, and is no file that could have been copied."""
    scene = Scene("sqlite://", store_url)
    other = create_session("sqlite://", scene.storage())
    other.rebuild_index()
    assert len(other.check()) == 0
    with other.database.write() as connection:
        connection.execute(sa.text("UPDATE mltraq_stores SET url = :url"), {"url": "memory://nothing-there"})
    assert create_session("sqlite://", scene.storage()).check().exit_code == 1
    assert len(other.check()) == 0
