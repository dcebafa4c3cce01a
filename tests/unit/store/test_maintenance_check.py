"""check finds every kind of damage, changes nothing, and is stopped by nothing."""

import contextlib
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from mltraq_ds import options
from mltraq_ds.errors import DatabaseUnavailableError, StorageError, UsageError
from mltraq_ds.orm.overview import owners
from mltraq_ds.store import descriptors, generations, layout, maintenance
from mltraq_ds.store.generations import Replaced
from mltraq_ds.store.report import REMEDIES, Finding, Report, size_text
from mltraq_ds.testing import Fail, FaultStorage
from tests.unit.store.upkeep_scene import Scene


def test_clean(scene):
    """An undamaged store has no finding, deep or not; the user's files are a note with their size."""
    for deep in (False, True):
        report = scene.check(deep=deep)
        assert (len(report), report.exit_code, report.is_deep) == (0, 0, deep)
        assert str(report).startswith("Clean: 2 experiments")
        assert [(note.kind, note.key, note.size_bytes) for note in report.notes] == [("self-managed", "mine", 11)]
    assert report.blobs == len(scene.blobs(scene.first)) + len(scene.blobs(scene.second))


def test_empty_place(tmp_path):
    """Where nothing was ever stored nothing is found, and nothing is made."""
    scene = Scene(f"sqlite:///{tmp_path}/index.db", tmp_path / "store", is_empty=True)
    assert len(scene.session.check()) == 0
    assert len(scene.session.sweep(dry_run=False)) == 0
    assert scene.session.rebuild_index().experiments == 0
    assert not (tmp_path / "store").exists()


def test_dangling_reference(scene):
    """A blob or record that is gone is found by name, with the experiment and what to do."""
    blob, record = scene.blobs(scene.first)[0], scene.keys(scene.second, ".jsonl")[0]
    scene.session.storage.delete(blob)
    scene.session.storage.delete(record)
    report = scene.check()
    found = {one.key: one for one in report if one.kind == "dangling reference"}
    assert set(found) == {blob, record}
    assert found[blob].experiment == scene.first.id_experiment
    assert found[blob].size_bytes > 0
    assert "copy" in found[blob].remedy
    assert report.exit_code == 1


def test_orphan(scene):
    """A blob and a record that nothing refers to are found, with their sizes."""
    folder = layout.folder_of(scene.first.id_experiment)
    keys = {scene.orphan(scene.first), scene.put(f"{folder}/runs/{'0' * 32}.jsonl")}
    assert {(one.kind, one.key, one.size_bytes) for one in scene.check()} == {("orphan", key, 10) for key in keys}


def test_corrupt_blob(scene):
    """A cut blob is found at once, a flipped byte by reading all of them."""
    cut, flipped = scene.blobs(scene.first)[0], scene.blobs(scene.second)[0]
    data = scene.session.storage.read(cut)[:-1]
    scene.session.storage.delete(cut)
    scene.put(cut, data)
    scene.flip(flipped, at=100)
    assert [one.key for one in scene.check() if one.kind == "corrupt blob"] == [cut]
    assert {one.key for one in scene.check(deep=True) if one.kind == "corrupt blob"} == {cut, flipped}


def test_swapped_blobs(scene):
    """Two blobs that have changed places are found by their digests."""
    one, two = scene.blobs(scene.first)[:2]
    data = [scene.session.storage.read(key) for key in (one, two)]
    assert len(data[0]) == len(data[1])
    scene.put(one, data[1])
    scene.put(two, data[0])
    assert len(scene.check()) == 0
    assert [found.key for found in scene.check(deep=True)] == sorted([one, two])


def test_unreadable_record(scene):
    """A flipped byte in a record is found; its blobs are not taken for orphans."""
    key = scene.flip(scene.keys(scene.first, ".jsonl")[0])
    assert [(one.kind, one.key) for one in scene.check()] == [("unreadable record", key)]


def test_unreadable_generation(scene):
    """A flipped byte in the current generation is found, and in an older one; other experiments are checked too."""
    keys = scene.keys(scene.first, "generations/")
    assert len(keys) == 2
    scene.flip(keys[0])
    report = scene.check()
    assert [(one.kind, one.key) for one in report] == [("unreadable generation", keys[0])]
    assert "not the current" in report.findings[0].detail
    scene.flip(keys[1])
    orphan = scene.orphan(scene.second)
    found = {(one.kind, one.key) for one in scene.check()}
    assert {("unreadable generation", keys[1]), ("orphan", orphan)} <= found


def test_generations_gone(scene):
    """Where the mark speaks of a generation and there is none, that is damage and not garbage."""
    for key in scene.keys(scene.first, "generations/"):
        scene.session.storage.delete(key)
    kinds = scene.kinds()
    assert kinds["unreadable generation"] == 1
    assert "orphan" not in kinds


def test_torn_commit_is_no_damage(scene):
    """An empty generation is what a killed commit leaves on some file systems: a note."""
    scene.put(layout.generation_key(layout.folder_of(scene.first.id_experiment), 3), b"")
    report = scene.check()
    assert len(report) == 0
    assert "torn commit" in [note.kind for note in report.notes]


def test_unreadable_descriptors(scene):
    """A missing or damaged mark, store id or other kind of folder is told."""
    folder = layout.folder_of(scene.first.id_experiment)
    scene.session.storage.delete(layout.meta_key(folder))
    assert [(one.kind, one.key) for one in scene.check()] == [("unreadable descriptor", f"{folder}/_meta.json")]
    scene.put(f"{folder}/_meta.json", layout.meta_bytes(scene.first.id_experiment, "first", 2))
    scene.put("other/_meta.json", b"no json")
    scene.put("column/_meta.json", descriptors.to_bytes("folder", {"kind": "column"}))
    report = scene.check()
    assert [(one.kind, one.key) for one in report] == [("unreadable descriptor", "other/_meta.json")]
    assert "managed elsewhere" in [note.kind for note in report.notes]
    scene.session.storage.delete("other/_meta.json")
    scene.flip("_store.json")
    assert [one.key for one in scene.check()] == ["_store.json"]
    scene.session.storage.delete("_store.json")
    assert [one.key for one in scene.check()] == ["_store.json"]


def test_unlisted_reference(scene):
    """A record that refers to more than its generation does is found."""
    folder = layout.folder_of(scene.first.id_experiment)
    current = generations.current(scene.session.storage, folder)
    scene.put(layout.generation_key(folder, 2), replace(current, blobs=current.blobs[1:]).to_bytes())
    found = scene.kinds()
    assert found["unlisted reference"] == 1
    assert "orphan" not in found


def test_nested_references_are_looked_at(scene):
    """A blob inside another one that the generation does not list is found by reading all."""
    folder = layout.folder_of(scene.second.id_experiment)
    current = generations.current(scene.session.storage, folder)
    assert len(current.blobs) == 4
    for position in range(4):
        left = tuple(blob for number, blob in enumerate(current.blobs) if number != position)
        scene.put(layout.generation_key(folder, 1), replace(current, blobs=left).to_bytes())
        assert scene.kinds(deep=True)["unlisted reference"] >= 1


def test_wrong_record(scene):
    """A record of another experiment in the place of ours is found."""
    folder = layout.folder_of(scene.first.id_experiment)
    current = generations.current(scene.session.storage, folder)
    data = scene.session.storage.read(scene.keys(scene.second, ".jsonl")[0])
    key = scene.put(current.records[0].key, data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    record = replace(current.records[0], size=len(data), digest=digest)
    scene.put(layout.generation_key(folder, 2), replace(current, records=(record,)).to_bytes())
    assert ("unreadable record", key) in {(one.kind, one.key) for one in scene.check()}


def test_single_records(scene):
    """A record that was put alone keeps what it refers to; one that was taken in, or cannot be read, is told."""
    folder = layout.folder_of(scene.first.id_experiment)
    blob = scene.orphan(scene.first)
    single, put_id = scene.put_alone(
        scene.first, {"ds": {"$ref": [blob, 10, "sha256:" + "0" * 64], "kind": "datastore"}}
    )
    data = scene.session.storage.read(single)
    assert files(scene) == []
    scene.put(blob, b"longer than that")
    assert files(scene) == [("corrupt blob", blob)]
    scene.session.storage.delete(blob)
    assert files(scene) == [("dangling reference", blob)]
    for wrong in (b"no json", b"[1]"):
        scene.put(single, wrong)
        assert files(scene) == [("unreadable record", single)]
    scene.put(single, data)
    current = generations.current(scene.session.storage, folder)
    scene.put(layout.generation_key(folder, 2), replace(current, folds=(put_id,)).to_bytes())
    assert files(scene) == []


def files(scene):
    """Return what a check finds about files; the index has not been told of what was put around it."""
    return [(one.kind, one.key) for one in scene.check() if one.kind != "index drift"]


def test_foreign_files(scene):
    """Files that are no part of a store are named, wherever they are; logs and results of others are not foreign."""
    folder = layout.folder_of(scene.first.id_experiment)
    foreign = {
        scene.put("readme.txt"),
        scene.put("_other/x"),
        scene.put("_pending/x.txt"),
        scene.put(f"{folder}/x"),
        scene.put(f"{folder}/generations/x"),
        scene.put(f"{folder}/x.remote"),
    }
    scene.put(f"{folder}/logs/a.log")
    scene.put("artifacts/x/y")
    report = scene.check()
    assert {(one.kind, one.key) for one in report} == {("foreign file", key) for key in foreign}
    assert ("artifacts", 10) in [(note.kind, note.size_bytes) for note in report.notes]


def test_names_that_are_no_keys(local, tmp_path):
    """Files whose names no key can have are listed as foreign and stop nothing."""
    folder = layout.folder_of(local.first.id_experiment)
    (tmp_path / "store" / "a\\b").write_bytes(b"1")
    (tmp_path / "store" / folder / "runs" / "a\\b.json").write_bytes(b"1")
    (tmp_path / "store" / "_pending" / "a\\b.json").write_bytes(b"1")
    (tmp_path / "store" / "_pending" / "a\\b.lease").write_bytes(b"1")
    report = local.session.check()
    assert {one.kind for one in report} == {"foreign file"}
    assert len(report) == 3


def test_intents(scene):
    """A writer at work is a note and protects its experiment; a dead one and an unreadable one are findings."""
    living = scene.intent(scene.first)
    scene.orphan(scene.first)
    report = scene.check()
    assert len(report) == 0
    assert ("at work", living.key) in [(note.kind, note.key) for note in report.notes]
    dead = scene.intent(scene.second, is_alive=False)
    unreadable = scene.put("_pending/x.json", b"no json")
    assert {(one.kind, one.key) for one in scene.check()} == {
        ("dead intent", dead.key),
        ("unreadable intent", unreadable),
    }


def test_new_experiment_at_work(scene):
    """A folder that only an intent names is no damage."""
    experiment = scene.session.create_experiment("third")
    folder = layout.folder_of(experiment.id_experiment)
    scene.intent(experiment)
    scene.put(f"{folder}/{'1' * 32}")
    assert len(scene.check()) == 0


def test_persist_that_never_committed(scene):
    """What a killed first persist left is told as orphans, its mark too."""
    experiment = scene.session.create_experiment("third")
    folder = layout.folder_of(experiment.id_experiment)
    scene.put(layout.meta_key(folder), layout.meta_bytes(experiment.id_experiment, "third", 0))
    scene.put(f"{folder}/{'1' * 32}")
    assert scene.kinds() == {"orphan": 2}


def test_leftovers(scene):
    """Marks without their intent, half-removed folders and temporary files are told."""
    if scene.session.storage.is_local:
        folder = layout.folder_of(scene.first.id_experiment)
        path = scene.session.storage._root.join(f"{folder}/.tmp-{'0' * 32}")
        with open(path, "wb") as file:
            file.write(b"123")
        assert scene.kinds() == {"unfinished write": 1}
        os.unlink(path)
    scene.put("_pending/x.fenced", b"")
    scene.put("_pending/deleted-1/generations/1.json")
    scene.put("_pending/sweep-1.lease")
    report = scene.check()
    assert report.kinds() == {"leftover": 1}, "the sweep at work may be removing the folder"
    assert ("at work", "_pending/sweep-1.lease") in [(note.kind, note.key) for note in report.notes]
    scene.session.storage.delete("_pending/sweep-1.lease")
    report = scene.check()
    assert report.kinds() == {"leftover": 1, "unfinished delete": 1}
    scene.intent(scene.first)
    assert scene.kinds() == {"leftover": 1}


def test_expired_lease(local, tmp_path, monkeypatch):
    """The lease of a sweep that was killed is a leftover."""
    local.put("_pending/sweep-1.lease")
    now = time.time()
    monkeypatch.setattr(type(local.session.storage), "now", lambda self: now + 3600)
    assert local.kinds() == {"leftover": 1}


def test_index_drift(scene):
    """Rows that are missing, older, newer, of nothing, half-written or of another name are each told."""
    database = scene.session.database
    ids = {"first": scene.first.id_experiment, "second": scene.second.id_experiment}
    steps = [
        "UPDATE mltraq_experiments SET generation = 1 WHERE name = 'first'",
        "UPDATE mltraq_experiments SET generation = 9 WHERE name = 'first'",
        "DELETE FROM mltraq_runs WHERE id_experiment = :id AND position = 0",
        "DELETE FROM mltraq_blobs WHERE id_experiment = :id AND position = 0",
        "UPDATE mltraq_experiments SET n_runs = 1 WHERE name = 'first'",
        "UPDATE mltraq_experiments SET name = 'x' WHERE name = 'first'",
        "DELETE FROM mltraq_names WHERE name = 'first'",
        "DELETE FROM mltraq_experiments WHERE name = 'first'",
    ]
    for step in steps:
        with database.write() as connection:
            connection.execute(sa.text(step), {"id": ids["first"]} if ":id" in step else {})
        found = scene.check()
        assert [(one.kind, one.experiment) for one in found] == [("index drift", ids["first"])], step
        assert "rebuild_index" in found.findings[0].remedy
        scene.session.rebuild_index()
        assert len(scene.check()) == 0, step


def test_ghost_row(local):
    """A row of an experiment whose files are gone is told."""
    folder = layout.folder_of(local.first.id_experiment)
    local.session.storage.delete_folder(folder)
    assert [(one.kind, one.key) for one in local.check()] == [("index drift", folder)]


def test_index_of_another_store(scene, tmp_path):
    """A database that has never read this store is one finding, whatever else is in it."""
    other = Scene(f"sqlite:///{tmp_path}/other.db", tmp_path / "other", is_empty=True)
    other.make("first")
    report = scene.open(other.url).check()
    assert [one.kind for one in report] == ["index drift"]
    assert "never read" in report.findings[0].detail


def test_no_database(scene, tmp_path):
    """The store is checked although the database is down, which is a finding; without an index it is none."""
    key = scene.orphan(scene.first)
    report = scene.open(f"sqlite:///{tmp_path}/no/such/folder.db").check()
    assert {(one.kind, one.key) for one in report} == {("unreachable database", ""), ("orphan", key)}
    assert [one.key for one in maintenance.check(scene.objects)] == [key]
    assert [one.key for one in maintenance.check(scene.session.storage, deep=True)] == [key]


def test_check_makes_no_database(scene, tmp_path):
    """A database that is lost, mistyped, empty or another program's is told, and nothing is made or changed."""
    (tmp_path / "empty.db").write_bytes(b"")
    with contextlib.closing(sqlite3.connect(tmp_path / "theirs.db")) as theirs:
        theirs.execute("CREATE TABLE theirs (x)")
    (tmp_path / "garbage.db").write_bytes(b"no database" * 100)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for name, kind in {
        "mistyped": "index drift",
        "empty": "index drift",
        "theirs": "index drift",
        "garbage": "unreachable database",
    }.items():
        with scene.open(f"sqlite:///{tmp_path}/{name}.db") as session:
            (found,) = session.check()
            assert (found.kind, found.key) == (kind, ""), name
            assert f"{name}.db" in found.detail
            assert "rebuild_index()" in found.remedy
            assert ("moved away" in found.remedy) == (name == "garbage")
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    with scene.open(f"sqlite:///{tmp_path}/garbage.db") as session:
        with pytest.raises(DatabaseUnavailableError, match=r"move it away and use rebuild_index\(\)"):
            session.rebuild_index()
        (tmp_path / "garbage.db").rename(tmp_path / "garbage")
        session.rebuild_index()
        assert session.check().kinds() == {}


def test_check_after_the_database_was_lost(local, tmp_path):
    """A session that has it open notes that its file was removed, and does not make another one."""
    local.session.database.close()
    local.session.ls()
    for path in tmp_path.glob("index.db*"):
        path.unlink()
    assert local.kinds() == {"index drift": 1}
    assert [path.name for path in tmp_path.glob("index.db*")] == []
    local.session.rebuild_index()
    assert local.kinds() == {}


def test_tables_of_an_older_version(local):
    """Tables of an earlier version of the library are told, and left as they are until they are used."""
    with local.session.database.write() as connection:
        connection.exec_driver_sql("UPDATE mltraq_schema_version SET version = 2")
    local.session.close()
    (found,) = local.check()
    assert "have version 2" in found.detail
    assert local.session.database.tables_version() == 2
    local.session.ls()
    assert local.kinds() == {}


def test_check_of_an_empty_store_without_database(tmp_path):
    """A store that has nothing in it has nothing that a database could lack."""
    scene = Scene(f"sqlite:///{tmp_path}/index.db", tmp_path / "store", is_empty=True)
    layout.store_id(scene.session.storage)
    assert scene.kinds() == {}
    assert not (tmp_path / "index.db").exists()


def test_stores_named_by_url_or_path(local, tmp_path):
    """check, sweep and rebuild_index take a store however it is named; what is no store is refused."""
    key = local.orphan(local.first)
    storage, index = local.session.storage, local.index
    for store in (tmp_path / "store", str(tmp_path / "store"), storage.url, storage, local.objects):
        assert [one.key for one in maintenance.check(store)] == [key]
        assert key in [one.key for one in maintenance.sweep(store, grace_s=0)]
        assert maintenance.rebuild_index(store, index).experiments == 2
    for call in (maintenance.check, maintenance.sweep, lambda store: maintenance.rebuild_index(store, index)):
        for store in (local.session, None, 1):
            with pytest.raises(UsageError, match="given by its URL"):
                call(store)
    assert maintenance.sweep(tmp_path / "store", dry_run=False, grace_s=0).kinds() == {"old generation": 1, "orphan": 1}
    assert local.kinds() == {}


def test_dead_claim(scene):
    """A name that a writer without an intent has claimed is told; a living writer's claim is not."""
    intent = scene.intent(scene.first)
    scene.index.claim("third", "someone", intent.key, is_alive=lambda claim: True)
    assert len(scene.check()) == 0
    scene.index.claim("fourth", "someone", "_pending/gone.json", is_alive=lambda claim: True)
    scene.index.claim("fifth", "someone", "../outside", is_alive=lambda claim: True)
    assert [(one.kind, one.experiment) for one in scene.check()] == [("dead claim", "someone")]
    assert set(owners(scene.index)) == {"first", "second", "third", "fourth", "fifth"}


def test_one_name_twice(scene):
    """Two experiments of one name are no damage: loading by id works."""
    other = Scene(f"{scene.url[:-3]}-2.db", scene.store, is_empty=True)
    other.session.rebuild_index()
    with other.session.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM mltraq_names")
    other.make("first")
    scene.session.rebuild_index()
    report = scene.check()
    assert len(report) == 0
    assert "ambiguous name" in [note.kind for note in report.notes]


def test_replaced_but_not_ended(scene):
    """An experiment whose place was taken by a writer that died is told as unfinished."""
    storage = scene.session.storage
    first = generations.current(storage, layout.folder_of(scene.first.id_experiment))
    second = generations.current(storage, layout.folder_of(scene.second.id_experiment))
    pin = Replaced(first.id_experiment, first.number, first.writer)
    scene.put(
        layout.generation_key(layout.folder_of(second.id_experiment), 1), replace(second, replaces=(pin,)).to_bytes()
    )
    found = {(one.kind, one.experiment) for one in scene.check()}
    assert ("unfinished delete", first.id_experiment) in found
    intent = scene.intent(scene.second)
    assert "unfinished delete" not in {one.kind for one in scene.check()}, "its writer is about to end it"
    scene.session.storage.delete(intent.key)
    report = scene.session.rebuild_index()
    assert (report.experiments, [note.kind for note in report.notes]) == (1, ["replaced"])


def test_nothing_stops_it(scene):
    """With many things wrong at once all of them are found."""
    scene.session.storage.delete(scene.blobs(scene.first)[0])
    scene.flip(scene.keys(scene.second, ".jsonl")[0])
    scene.orphan(scene.first)
    scene.put("readme.txt")
    scene.put("_pending/x.json", b"no json")
    scene.put("_pending/x.fenced", b"")
    assert set(scene.kinds()) == {
        "dangling reference",
        "unreadable record",
        "orphan",
        "foreign file",
        "unreadable intent",
        "leftover",
    }


def test_every_failing_read(local):
    """Whichever operation fails: a listing that fails stops a check with an error, a read that fails is a finding."""
    local.intent(local.first)
    number = 0
    while True:
        number += 1
        broken = FaultStorage(local.session.storage, {number: Fail()})
        try:
            report = maintenance.check(broken, local.index, deep=True)
        except StorageError:
            assert broken.fired[0].verb in ("list", "list_unfinished", "now")
            continue
        if not broken.fired:
            assert len(report) == 0
            break
        assert set(report.kinds()) <= set(REMEDIES)
    never = FaultStorage(local.session.storage, lambda call: Fail() if call.verb in ("read", "open") else None)
    kinds = maintenance.check(never, local.index, deep=True).kinds()
    assert kinds == {"unreadable descriptor": 1, "unreadable generation": 3, "unreadable intent": 1}


def test_report(scene):
    """A report is a table, JSON and text with the kind, the key and the remedy of every finding."""
    key = scene.orphan(scene.first)
    report = scene.check()
    table = report.df()
    assert list(table.columns) == ["kind", "key", "experiment", "size_bytes", "detail", "remedy"]
    assert table.to_dict("records")[0]["key"] == key
    document = json.loads(report.to_json())
    assert document["count"] == 1
    assert document["findings"][0]["remedy"] == REMEDIES["orphan"]
    assert str(report).startswith("1 finding in 2 experiments")
    assert f"orphan: {key} (10 B)" in str(report)
    assert report.size_bytes == 10
    assert list(Report().df().columns) == list(table.columns)


def test_long_report():
    """Text has the first hundred findings and says where the others are."""
    report = Report(findings=tuple(Finding("orphan", f"k{n}") for n in range(150)))
    assert "and 50 more" in str(report)
    assert len(report.df()) == 150
    assert [size_text(n) for n in (0, 999, 1000, 10**7, 10**16)] == ["0 B", "999 B", "1.0 kB", "10.0 MB", "10,000.0 TB"]


def test_another_process(local):
    """Another process comes to the same result."""
    local.orphan(local.first)
    code = (
        "import sys; from mltraq_ds import create_session, options; options.set('tqdm.disable', True);"
        "report = create_session(*sys.argv[1:]).check(deep=True); print(report.kinds()); sys.exit(report.exit_code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, local.url, local.store], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (1, "{'orphan': 1}", "")


def test_progress_bar(local, capsys):
    """A bar shows how far it has come, unless the option says no."""
    options.set("tqdm.disable", False)
    local.session.check()
    assert "experiment" in capsys.readouterr().err
