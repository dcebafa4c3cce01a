"""sweep removes every orphan and nothing else, and nothing at all when it cannot know."""

import contextlib
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mltraq_ds.errors import (
    ConflictError,
    DamageError,
    DatabaseUnavailableError,
    StorageError,
    UnknownStoreError,
    UsageError,
)
from mltraq_ds.storage.local import LocalStorage
from mltraq_ds.storage.remote import RemoteStorage
from mltraq_ds.store import descriptors, generations, layout, maintenance, versions
from mltraq_ds.store.lease import Lease
from mltraq_ds.testing import Callback, Fail, FaultStorage, LoseResponse
from tests.unit.store.upkeep_scene import Scene


@pytest.fixture
def later(monkeypatch):
    """Return a function that moves the clock of every storage."""

    def move(seconds):
        now = time.time() + seconds
        for kind in (LocalStorage, RemoteStorage):
            monkeypatch.setattr(kind, "now", lambda self: now)

    return move


def swept(report):
    """Return the keys in a report."""
    return sorted(one.key for one in report)


def test_every_orphan_and_nothing_else(scene):
    """What nothing refers to goes, whatever it is; everything else stays byte for byte, and check is clean."""
    values, before = scene.values(), scene.tree()
    folder = layout.folder_of(scene.first.id_experiment)
    garbage = {scene.orphan(scene.first) for _ in range(3)} | {
        scene.orphan(scene.second),
        scene.put(f"{folder}/runs/{'0' * 32}.jsonl"),
        scene.put("_pending/x.fenced", b""),
        scene.put("_pending/y.probe", b""),
    }
    history = layout.generation_key(folder, 1)
    report = scene.sweep()
    assert set(swept(report)) == garbage | {history}
    assert report.kinds() == {"leftover": 2, "old generation": 1, "orphan": 5}
    left = scene.tree()
    assert left == {key: digest for key, digest in before.items() if key != history}
    assert len(scene.check(deep=True)) == 0
    assert scene.values() == values
    assert swept(scene.sweep()) == []


def test_dry_run(scene):
    """A dry run removes nothing and says the same as the sweep that follows."""
    scene.orphan(scene.first)
    scene.put("_pending/x.fenced", b"")
    scene.index.claim("third", "someone", "_pending/gone.json", is_alive=lambda claim: True)
    before = scene.tree()
    dry = scene.sweep(dry_run=True)
    assert scene.tree() == before
    assert len(scene.check()) > 0
    real = scene.sweep()
    assert dry.findings == real.findings
    assert dry.notes == real.notes
    assert "would be removed" in str(dry)
    assert "were removed" in str(real)
    assert json.loads(real.to_json())["count"] == len(real.df()) == len(real) == 4
    assert len(scene.check()) == 0


def test_grace(scene, later):
    """What was changed within the grace stays, by the clock of the storage; a day is the default."""
    scene.orphan(scene.first)
    assert swept(scene.open().sweep(dry_run=False)) == []
    later(23 * 3600)
    report = scene.open().sweep(dry_run=False)
    assert swept(report) == []
    assert "young" in [note.kind for note in report.notes]
    later(25 * 3600)
    assert len(scene.open().sweep(dry_run=False)) == 2
    with pytest.raises(UsageError, match="negative"):
        scene.sweep(grace_s=-1)
    for grace_s in ("1", None, True, float("nan"), float("inf"), 1e10, 1j):
        with pytest.raises(UsageError, match="no number of seconds"):
            scene.sweep(grace_s=grace_s)
    assert swept(scene.sweep(grace_s=np.int64(0))) == []


def test_history_is_pruned_after_the_grace(scene, later):
    """An old generation goes when the one that took its place is older than the grace, lowest first."""
    for note in range(3):
        scene.first.fields.note = note
        scene.first.persist(if_exists="update")
    folder = layout.folder_of(scene.first.id_experiment)
    storage = scene.session.storage
    if storage.is_local:
        path = storage._root.join(layout.generation_key(folder, 1))
        os.utime(path, (1, 1))
    report = scene.sweep(grace_s=3600)
    assert swept(report) == []
    later(7200)
    report = scene.sweep(grace_s=3600)
    assert [one.key for one in report if one.kind == "old generation"] == [
        layout.generation_key(folder, number) for number in (1, 2, 3, 4)
    ]
    assert generations.numbers(storage, folder) == [5]
    assert scene.open().load_experiment("first").fields.note == 2


def test_a_writer_at_work_protects_its_experiment(scene):
    """However old: what an intent names is left alone, also where nothing was ever committed."""
    third = scene.session.create_experiment("third")
    folder = layout.folder_of(third.id_experiment)
    scene.put(f"{folder}/{'1' * 32}")
    keys = {scene.orphan(scene.first), f"{folder}/{'1' * 32}"}
    intents = [scene.intent(scene.first), scene.intent(third)]
    before = scene.tree()
    report = scene.sweep()
    assert swept(report) == []
    assert [note.kind for note in report.notes].count("at work") == 2
    assert scene.tree() == before
    for intent in intents:
        scene.session.storage.delete(intent.key)
    swept_keys = set(swept(scene.sweep()))
    assert {key for key in keys if not key.startswith(folder)} <= swept_keys
    assert not any(key.startswith(folder) for key in swept_keys)  # nothing says that it is ours


def test_a_writer_that_comes_meanwhile(scene):
    """A writer that appears between the look at all roots and the removal is respected."""
    orphan = scene.orphan(scene.first)
    storage = scene.session.storage
    pending = 0

    def come(call):
        nonlocal pending
        pending += call.verb == "list" and call.key == layout.PENDING
        if pending == 4 and not appeared:
            appeared.append(scene.intent(scene.first))

    appeared = []
    watched = FaultStorage(storage, lambda call: Callback(come))
    objects = scene.objects._changed(storage=watched)
    report = maintenance.sweep(objects, scene.index, dry_run=False, grace_s=0)
    assert appeared
    assert swept(report) == []
    assert storage.exists(orphan)


def test_a_persist_meanwhile(scene):
    """What is committed between the look at all roots and the removal stays whole."""
    scene.orphan(scene.first)
    storage = scene.session.storage
    done = []

    def persist(call):
        if call.verb == "list" and call.key == layout.PENDING and not done:
            persist.looks += 1
            if persist.looks == 4:
                done.append(True)
                scene.first.fields.note = "third version"
                scene.first.persist(if_exists="update")

    persist.looks = 0
    objects = scene.objects._changed(storage=FaultStorage(storage, lambda call: Callback(persist)))
    report = maintenance.sweep(objects, scene.index, dry_run=False, grace_s=0)
    assert done
    assert swept(report) == []
    assert scene.open().load_experiment("first").fields.note == "third version"
    scene.sweep()
    assert len(scene.check(deep=True)) == 0


def test_dead_writers_are_finished_first(scene):
    """The work of a dead writer is finished, and then what it left is garbage."""
    third = scene.session.create_experiment("third")
    folder = layout.folder_of(third.id_experiment)
    scene.put(layout.meta_key(folder), layout.meta_bytes(third.id_experiment, "third", 0))
    scene.put(f"{folder}/{'1' * 32}")
    scene.orphan(scene.first)
    for experiment in (third, scene.first):
        scene.intent(experiment, is_alive=False)
    report = maintenance.sweep(scene.objects, scene.index, dry_run=False, grace_s=0)
    assert [note.kind for note in report.notes].count("finished") == 2
    scene.sweep()
    report = scene.check()
    assert len(report) == 0
    assert [key for key in scene.keys(third) if "generations" not in key and "_meta" not in key] == []


def test_users_own_files(scene, later):
    """Files written with DataStoreIO are never removed, however old, and are told with their size."""
    scene.session.io.serialize_write({"a": 1}, "mine/deep/er")
    scene.put("mine/.hidden/notes.txt")
    before = {key: digest for key, digest in scene.tree().items() if key.startswith("mine/")}
    later(10 * 365 * 86400)
    scene.orphan(scene.first)
    report = scene.open().sweep(dry_run=False, grace_s=0)
    size = sum(stat.size for stat in scene.session.storage.list("mine"))
    assert ("self-managed", "mine", size) in [(note.kind, note.key, note.size_bytes) for note in report.notes]
    assert {key: digest for key, digest in scene.tree().items() if key.startswith("mine/")} == before


def test_foreign_files_and_other_parts_stay(scene):
    """Whatever is not known stays: logs, results, artifacts, other kinds of folders."""
    folder = layout.folder_of(scene.first.id_experiment)
    keys = [f"{folder}/logs/a.log", f"{folder}/artifacts/{'0' * 32}", f"{folder}/x.remote", f"{folder}/x"]
    keys += ["readme.txt", f"artifacts/a/{'0' * 32}", "_pending/x.txt", f"column/{'0' * 32}"]
    for key in keys:
        scene.put(key)
    scene.put("column/_meta.json", descriptors.to_bytes("folder", {"kind": "column"}))
    report = scene.sweep()
    assert report.kinds() == {"old generation": 1}
    assert "managed elsewhere" in [note.kind for note in report.notes]
    assert set(keys) <= set(scene.tree())


def test_persist_that_never_committed(scene):
    """What a killed first persist left goes, the mark last, and the folder with it."""
    third = scene.session.create_experiment("third")
    folder = layout.folder_of(third.id_experiment)
    keys = {layout.meta_key(folder), f"{folder}/{'1' * 32}", f"{folder}/runs/{'2' * 32}.jsonl"}
    for key in keys:
        scene.put(key)
    scene.put(layout.meta_key(folder), layout.meta_bytes(third.id_experiment, "third", 0))
    if scene.session.storage.is_local:
        keys.add(scene.put(layout.generation_key(folder, 1), b""))
    scene.put(f"{folder}/logs/a.log")
    report = scene.sweep()
    assert layout.meta_key(folder) not in swept(report), "somebody else's file is in it"
    scene.session.storage.delete_folder(f"{folder}/logs")
    history = layout.generation_key(layout.folder_of(scene.first.id_experiment), 1)
    assert {*swept(report), *swept(scene.sweep())} == {*keys, history}
    assert folder not in scene.session.storage.folders()
    assert len(scene.check()) == 0


def test_torn_number_of_an_object_store_stays(tmp_path):
    """Where folders cannot be renamed, an empty generation keeps its number from a late writer."""
    scene = Scene(f"sqlite:///{tmp_path}/index.db", "memory://torn")
    third = scene.session.create_experiment("third")
    folder = layout.folder_of(third.id_experiment)
    scene.put(layout.meta_key(folder), layout.meta_bytes(third.id_experiment, "third", 0))
    scene.put(layout.generation_key(folder, 1), b"")
    scene.put(f"{folder}/{'1' * 32}")
    scene.sweep()
    assert scene.keys(third) == [layout.meta_key(folder), layout.generation_key(folder, 1)]


def test_empty_folders_of_a_killed_writer(local, tmp_path):
    """Folders without a file that a persist made go; an empty folder of the user stays."""
    third = local.session.create_experiment("third")
    folder = tmp_path / "store" / layout.folder_of(third.id_experiment)
    (folder / "generations").mkdir(parents=True)
    (folder / "runs").mkdir()
    fourth = tmp_path / "store" / layout.folder_of(local.session.create_experiment().id_experiment)
    fourth.mkdir()
    (tmp_path / "store" / "empty" / "inner").mkdir(parents=True)
    (tmp_path / "store" / "a\\b").mkdir()
    local.sweep()
    assert not folder.exists()
    assert not fourth.exists()
    assert (tmp_path / "store" / "empty" / "inner").exists()
    assert (tmp_path / "store" / "a\\b").exists()


def test_one_sweep_is_enough_where_a_write_was_killed(local, tmp_path):
    """A first persist killed in the middle of a file leaves no folder either, although that file goes last."""
    third = local.session.create_experiment("third")
    folder = layout.folder_of(third.id_experiment)
    local.put(layout.meta_key(folder), layout.meta_bytes(third.id_experiment, "third", 0))
    (tmp_path / "store" / folder / "runs").mkdir()
    (tmp_path / "store" / folder / "runs" / f".tmp-{'0' * 32}").write_bytes(b"123")
    local.sweep()
    assert folder not in local.session.storage.folders()


def test_end_of_an_experiment(scene):
    """What is left of a deleted experiment goes; where folders cannot be renamed the end itself stays."""
    storage, folder = scene.session.storage, layout.folder_of(scene.first.id_experiment)
    last = generations.current(storage, folder)
    end = replace(last, number=3, parent=2, parent_writer=last.writer, writer="w", deleted=True, records=(), blobs=())
    scene.put(layout.generation_key(folder, 3), end.to_bytes())
    dry = scene.sweep(dry_run=True)
    report = scene.sweep()
    assert dry.findings == report.findings
    if storage.is_local:
        assert report.kinds() == {"ended experiment": 7}
        assert folder not in storage.folders()
    else:
        assert scene.keys(scene.first) == [f"{folder}/_meta.json", layout.generation_key(folder, 3)]
    scene.session.rebuild_index()
    assert len(scene.check()) == 0
    assert storage.folders(layout.PENDING) == []


def test_young_end_stays_whole(local):
    """A folder of a deleted experiment goes whole or not at all."""
    storage, folder = local.session.storage, layout.folder_of(local.first.id_experiment)
    last = generations.current(storage, folder)
    end = replace(last, number=3, parent=2, parent_writer=last.writer, writer="w", deleted=True, records=(), blobs=())
    local.put(layout.generation_key(folder, 3), end.to_bytes())
    before = local.tree()
    report = local.sweep(grace_s=3600)
    assert swept(report) == []
    assert local.tree() == before


def test_single_records(scene):
    """A record that was put alone keeps what it refers to until it is taken in; it stays itself."""
    folder = layout.folder_of(scene.first.id_experiment)
    blob = scene.orphan(scene.first)
    reference = {"$ref": [blob, 10, "sha256:" + "0" * 64], "kind": "datastore"}
    single, put_id = scene.put_alone(scene.first, {"ds": reference})
    scene.sweep()
    assert {blob, single} <= set(scene.tree())
    current = generations.current(scene.session.storage, folder)
    scene.put(layout.generation_key(folder, 2), replace(current, folds=(put_id,)).to_bytes())
    assert set(swept(scene.sweep())) == {blob}
    assert single in scene.tree()


def test_references_of_the_database_are_kept(scene):
    """A blob that only a row refers to stays: the database may be ahead of restored files."""
    orphan = scene.orphan(scene.first)
    with scene.session.database.write() as connection:
        connection.exec_driver_sql("UPDATE mltraq_blobs SET key = ? WHERE position = 0", (orphan,))
    assert "orphan" not in scene.sweep().kinds()
    scene.session.rebuild_index()
    assert scene.sweep().kinds() == {"orphan": 1}


@pytest.mark.parametrize(
    "root",
    [
        "generation",
        "record",
        "record gone",
        "intent",
        "single record",
        "mark",
        "no generation",
        "artifact version unreadable",
        "artifact version lost",
        "artifact version emptied",
    ],
)
def test_fails_closed(scene, root):
    """Whatever may refer to files and cannot be read stops the sweep before anything is removed, from anywhere."""
    scene.orphan(scene.second)
    scene.save("aaa")
    scene.save("art")
    scene.put(f"{layout.artifact_folder('aaa')}/{'0' * 32}")
    if scene.session.storage.is_local:
        (Path(scene.store) / f".tmp-{'0' * 32}").write_bytes(b"unfinished")
    version = versions.version_key(layout.artifact_folder("art"), 1)
    session = scene.open()
    session.ls()
    folder = layout.folder_of(scene.first.id_experiment)
    if root == "generation":
        scene.flip(layout.generation_key(folder, 2))
    elif root == "record":
        scene.flip(scene.keys(scene.first, ".jsonl")[0])
    elif root == "record gone":
        scene.session.storage.delete(scene.keys(scene.first, ".jsonl")[0])
    elif root == "intent":
        scene.put("_pending/x.json", b"no json")
    elif root == "single record":
        scene.put(f"{folder}/runs/x.json", b"no json")
    elif root == "artifact version unreadable":
        scene.put(version, scene.session.storage.read(version)[:-9])
    elif root == "artifact version lost":
        scene.session.storage.delete(version)
    elif root == "artifact version emptied":
        scene.put(version, b"")
    else:
        for key in scene.keys(scene.first, "generations/"):
            scene.session.storage.delete(key)
        if root == "no generation":
            scene.put(layout.meta_key(folder), layout.meta_bytes(scene.first.id_experiment, "first", 0))
    before = scene.tree()
    for dry_run in (True, False):
        with pytest.raises(DamageError, match="stopped"):
            scene.sweep(session=session, dry_run=dry_run)
        assert scene.tree() == before
    assert len(scene.check()) > 0


def test_fails_closed_without_database(scene, tmp_path):
    """A database that does not answer stops the sweep before anything is removed."""
    scene.orphan(scene.second)
    before = scene.tree()
    with pytest.raises(DatabaseUnavailableError):
        scene.sweep(session=scene.open(f"sqlite:///{tmp_path}/no/such/folder.db"))
    assert scene.tree() == before
    report = maintenance.sweep(scene.objects, None, dry_run=False, grace_s=0)
    assert report.kinds() == {"old generation": 1, "orphan": 1}


def test_fails_closed_where_the_database_was_lost(scene, tmp_path):
    """A database that has never read the store is not the one that may refer to files: nothing is removed or made."""
    scene.orphan(scene.second)
    before = scene.tree()
    for dry_run in (True, False):
        with scene.open(f"sqlite:///{tmp_path}/lost.db") as session:
            with pytest.raises(UnknownStoreError, match="rebuild_index"):
                scene.sweep(session=session, dry_run=dry_run)
            assert not (tmp_path / "lost.db").exists()
            session.database.ping()  # with tables it is as unknown
            with pytest.raises(UnknownStoreError, match="rebuild_index"):
                scene.sweep(session=session, dry_run=dry_run)
            session.close()
            (tmp_path / "lost.db").unlink()
    assert scene.tree() == before
    with scene.open(f"sqlite:///{tmp_path}/lost.db") as session:
        session.rebuild_index()
        assert "orphan" in scene.sweep(session=session).kinds()


def test_refuses_an_empty_set_of_roots(scene):
    """Where no file refers to anything although the database has experiments, nothing is removed."""
    for experiment in (scene.first, scene.second):
        scene.session.storage.delete_folder(layout.folder_of(experiment.id_experiment))
    third = scene.session.create_experiment("third")
    folder = layout.folder_of(third.id_experiment)
    scene.put(layout.meta_key(folder), layout.meta_bytes(third.id_experiment, "third", 0))
    with pytest.raises(DamageError, match="no file"):
        scene.sweep()
    scene.session.rebuild_index()
    assert swept(scene.sweep()) == [layout.meta_key(folder)]


def test_one_sweeper_at_a_time(scene):
    """A second sweep is refused while one is at work; a dry run is not, and afterwards nothing is left of the lease."""
    with Lease(scene.session.storage):
        with pytest.raises(ConflictError, match="another one is at work"):
            scene.sweep()
        scene.sweep(dry_run=True)
    scene.sweep()
    assert [key for key in scene.tree() if key.startswith("_pending")] == []


def test_lease_expires(scene, later):
    """The lease of a sweep that was killed is over after ten minutes, and the next one takes its place."""
    storage = scene.session.storage
    first = Lease(storage)
    first.__enter__()
    later(700)
    with Lease(storage):
        assert [stat.key for stat in storage.list("_pending")] == ["_pending/sweep-2.lease"]
        first._renewed -= 100
        with pytest.raises(ConflictError):
            first.keep()
    assert list(storage.list("_pending")) == []


def test_lease_whose_answer_was_lost(scene):
    """A lease that was written although its storage said no does not keep the same process out for ten minutes."""
    storage = FaultStorage(scene.session.storage, lambda call: LoseResponse() if call.verb == "put" else None)
    with pytest.raises(StorageError), Lease(storage):
        pass
    with Lease(scene.session.storage):
        pass


def test_lease_of_a_process_that_ended(scene):
    """A sweep that was killed on this machine hinders nobody."""
    storage = scene.session.storage
    with Lease(storage) as lease:
        body = descriptors.from_bytes(storage.read(lease._key), "lease", lease._key)
        kept = {name: value for name, value in body.items() if name not in ("format", "version")}
        data = descriptors.to_bytes("lease", {**kept, "process": f"{os.getpid()}/1"})
        storage.put(lease._key, [data], size=len(data), replace=True)
        with Lease(storage):
            pass


def test_lease_is_renewed(scene):
    """A long sweep renews its lease, and not more often than it must."""
    storage = scene.session.storage
    with Lease(storage) as lease:
        before = storage.stat("_pending/sweep-1.lease")
        lease.keep()
        assert storage.stat("_pending/sweep-1.lease") == before
        time.sleep(0.02)
        lease._renewed -= 100
        lease.keep()
        assert storage.stat("_pending/sweep-1.lease").modified > before.modified


def test_of_two_leases_one_wins(local):
    """Of many who start at the same moment exactly one sweeps."""
    barrier, won, lost = threading.Barrier(8), [], []

    def start():
        lease = Lease(local.storage())
        barrier.wait()
        try:
            lease.__enter__()
        except ConflictError:
            lost.append(lease)
        else:
            won.append(lease)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)


def test_taken_lease(local, monkeypatch):
    """Who finds the number taken between the look and the put is refused."""
    monkeypatch.setattr(Lease, "_numbered", lambda self: {})
    with Lease(local.storage()), pytest.raises(ConflictError):
        Lease(local.storage()).__enter__()


def test_unfinished_writes(local, tmp_path, later):
    """Temporary files go after the grace, unless a writer is at work there; other hidden files stay.

    A writer may also be writing the end of another experiment, whose place it takes.
    """
    folder, other = (layout.folder_of(one.id_experiment) for one in (local.first, local.second))
    places = (folder, f"{folder}/runs", f"{other}/generations", "_pending", "mine", "")
    paths = [tmp_path / "store" / place / f".tmp-{'0' * 32}" for place in places]
    other = tmp_path / "store" / "mine" / ".tmp-of-somebody"
    for path in (*paths, other):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"123")
    assert local.kinds() == {"unfinished write": 6}, "a moment old, the one in _pending may be an intent"
    assert "unfinished write" not in local.sweep(grace_s=3600).kinds()
    intent = local.intent(local.first)
    later(500)
    assert local.kinds() == {"unfinished write": 3}
    assert swept(local.sweep(grace_s=0)) == [f".tmp-{'0' * 32}", f"mine/.tmp-{'0' * 32}"]
    local.session.storage.delete(intent.key)
    later(7200)
    report = local.sweep(grace_s=3600)
    assert report.kinds()["unfinished write"] == 4
    assert [path for path in paths if path.exists()] == []
    assert other.exists()


def test_claims_and_rows_of_the_dead(scene, later):
    """Claims whose intent is gone and rows of deleted experiments are forgotten."""
    scene.first.delete()
    scene.index.claim("third", "someone", "_pending/gone.json", is_alive=lambda claim: True)
    intent = scene.intent(scene.second)
    scene.index.claim("fourth", "another", intent.key, is_alive=lambda claim: True)
    assert "rows of deleted experiments" not in [note.kind for note in scene.sweep(dry_run=True).notes], "too young"
    with scene.session.database.write() as connection:
        connection.exec_driver_sql("UPDATE mltraq_experiments SET persisted_at = '2020-01-01' WHERE state = 'deleted'")
    dry, real = scene.sweep(dry_run=True), scene.sweep()
    assert dry.notes == real.notes
    assert real.kinds()["dead claim"] == 1
    assert "rows of deleted experiments" in [note.kind for note in real.notes]
    assert scene.index.owner("third") is None
    assert scene.index.owner("fourth").claim_intent == intent.key
    assert "rows of deleted experiments" not in [note.kind for note in scene.sweep().notes]


def test_folder_renamed_away_that_lives(local):
    """A folder that was renamed away and has not ended is somebody's: it stays, and is told."""
    storage, folder = local.session.storage, layout.folder_of(local.first.id_experiment)
    for stat in list(storage.list(folder)):
        local.put(stat.key.replace(folder, "_pending/deleted-1"), storage.read(stat.key))
    before = {key for key in local.tree() if key.startswith("_pending")}
    report = local.sweep()
    assert "unfinished delete" in [note.kind for note in report.notes]
    assert {key for key in local.tree() if key.startswith("_pending")} == before


def test_more_than_a_page(scene):
    """Past the thousand keys of a page of S3 all orphans go."""
    folder = layout.folder_of(scene.first.id_experiment)
    for number in range(1100):
        scene.session.storage.put(f"{folder}/{number:032x}", [b"1"], size=1, flush=False)
    assert scene.sweep().kinds()["orphan"] == 1100
    assert len(scene.check()) == 0


def test_resumable(local):
    """Whichever operation of a sweep fails, the next sweep finishes, and no experiment is touched."""
    values = local.values()
    number = 0
    while True:
        number += 1
        local.orphan(local.first)
        broken = FaultStorage(local.storage(), {number: Fail()})
        objects = local.objects._changed(storage=broken)
        with contextlib.suppress(StorageError):
            maintenance.sweep(objects, local.index, dry_run=False, grace_s=0)
        if not broken.fired:
            break
        for stat in list(local.session.storage.list("_pending")):
            local.session.storage.delete(stat.key)  # the lease, which would be over in ten minutes
        local.sweep()
        assert len(local.check()) == 0, broken.fired
    assert number > 10
    assert local.values() == values
