"""Exports between stores: everything arrives, verified, or it is told what did not."""

import json
import pickle
import uuid
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from mltraq_ds import DataStore, create_session, load_results
from mltraq_ds.errors import ExperimentNotFoundError, NotFoundError, TransferError, UsageError
from mltraq_ds.storage import LocalStorage, open_storage
from mltraq_ds.store import (
    ArtifactDescriptor,
    FileStoreConfig,
    RunRecord,
    SqliteStoreConfig,
    descriptors,
    export_store,
    intents,
    transfer_copy,
)
from mltraq_ds.store.checking import check
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.transfer import _Transfer

COUNTS = {"experiments": 2, "runs": 3, "derived": 1, "logs": 2, "results": 1, "manifests": 1, "artifacts": 1}


@pytest.fixture
def source(tmp_path):
    """Return the root of a store that has something of everything."""
    root = tmp_path / "source"
    with create_session(f"sqlite:///{tmp_path}/source.db", root) as session:
        persisted = session.create_experiment("digits").add_runs(lr=[0.1, 0.2])
        for i, run in enumerate(persisted.runs.values()):
            run.fields.ds = DataStore(weights=np.arange(1000) + i, inner=DataStore(x=np.zeros(500)))
            run.fields.loss = float("nan")
        persisted.persist()
        persisted.runs[next(iter(persisted.runs))].fields.loss = 0.5
        persisted.persist(if_exists="update")
        session.io.write(b"mine", "own/folder")
    store = FileStoreConfig(root=root).connect()
    store.put_run_record(RunRecord.success("over", persisted.id_experiment, metrics={"a": 1}))
    scoped = store.scoped("../a:b")
    for run in ("r/1", "*"):
        scoped.put_run_record(RunRecord.success(run, "../a:b", metrics={"x": float("inf")}))
        scoped.put_log(run, "out", "line\n")
    scoped.put_derived("r/1", {"ratio": 0.25})
    scoped.put_result("r/1", "table", np.eye(3))
    scoped.put_experiment_manifest("../a:b", {"grid": (1, 2)})
    scoped.put_artifact(b"x" * 100_000, ArtifactDescriptor("a", "../../pwn", run_id="r/1", format="bytes"))
    return root


def files_of(place):
    """Read every file of a store, around the code under test, but for what differs between any two stores."""
    storage = open_storage(place)
    keys = [stat.key for stat in storage.list() if not stat.key.startswith(("_pending/", "_store"))]
    return {key: storage.read(key) for key in keys}


def test_there_and_back(source, tmp_path):
    """File, database with files, object store, file: what comes back is the same, byte by byte, and clean."""
    indexed = SqliteStoreConfig(connection_string=f"sqlite:///{tmp_path}/two.db", file_root=tmp_path / "two")
    remote = FileStoreConfig(root=f"memory://{uuid.uuid4().hex}/three")
    back = tmp_path / "back"
    counts = export_store(source, indexed)
    assert {name: counts[name] for name in COUNTS} == COUNTS
    assert counts["bytes"] == sum(
        len(data) for key, data in files_of(source).items() if not key.endswith("/_meta.json")
    )
    export_store(indexed, remote)
    export_store(remote, back)
    assert files_of(source) == files_of(indexed.file_root) == files_of(remote.root) == files_of(back)
    for place in (indexed.file_root, remote.root, back):
        assert len(check(open_storage(place), deep=True)) == 0
    with indexed.connect() as store:
        assert store.link.ask() is not None
        assert len(store.check()) == 0
        assert store.link.database.query("SELECT count(*) AS n FROM mltraq_runs").n.tolist() == [5]
    with create_session(f"sqlite:///{tmp_path}/back.db", back) as session:
        session.rebuild_index()
        experiment = session.load_experiment("digits")
        last = list(experiment.runs.values())[1]
        assert last.fields.ds.inner.x.sum() == 0
        assert last.fields.ds.weights[-1] == 1000


def test_one_experiment(source, tmp_path):
    """One experiment is copied alone, with what is asked for."""
    counts = export_store(source, tmp_path / "one", experiment_id="../a:b", include_logs=False, include_artifacts=False)
    assert (counts["runs"], counts["logs"], counts["artifacts"], counts["results"]) == (2, 0, 0, 1)
    assert FileStoreConfig(root=tmp_path / "one").list_experiments() == ["../a:b"]
    assert (tmp_path / "one" / "own").exists() is False


def test_again_copies_nothing(source, tmp_path):
    """What is there is compared, not copied; what is missing or was cut is told or copied."""
    export_store(source, tmp_path / "two")
    assert set(export_store(source, tmp_path / "two").values()) == {0}
    key = next(key for key in files_of(source) if key.endswith(".log"))
    (tmp_path / "two" / key).unlink()
    assert export_store(source, tmp_path / "two")["files"] == 1
    blob = max(files_of(source), key=lambda key: len(files_of(source)[key]) * (key.count("/") == 1))
    cut = tmp_path / "two" / blob
    cut.chmod(0o600)
    cut.write_bytes(cut.read_bytes()[:-1])
    for overwrite in (False, True):
        with pytest.raises(TransferError, match=r"other bytes.*never replaced.*remove it"):
            export_store(source, tmp_path / "two", overwrite=overwrite)
    cut.unlink()
    export_store(source, tmp_path / "two")
    assert files_of(source) == files_of(tmp_path / "two")


def test_a_newer_version(source, tmp_path):
    """An older version is replaced only with overwrite, and leaves nothing behind; one of its own is refused."""
    export_store(source, tmp_path / "two")
    with create_session(f"sqlite:///{tmp_path}/source.db", source) as session:
        experiment = session.load_experiment("digits")
        for run in experiment.runs.values():
            run.fields.ds = DataStore(weights=np.ones(10))
        experiment.persist(if_exists="update")
    with pytest.raises(TransferError, match=r"older version.*overwrite=True"):
        export_store(source, tmp_path / "two")
    export_store(source, tmp_path / "two", overwrite=True)
    assert files_of(source) == files_of(tmp_path / "two")
    assert len(check(open_storage(tmp_path / "two"), deep=True)) == 0
    with pytest.raises(TransferError, match="does not know"):
        export_store(tmp_path / "two", _with_other_version(source, tmp_path), overwrite=True)


def _with_other_version(source, tmp_path):
    with create_session(f"sqlite:///{tmp_path}/source.db", source) as session:
        session.load_experiment("digits").persist(if_exists="update")
    return source


@pytest.mark.parametrize("kind", ["blob", "artifact", "record", "single"])
def test_damage_at_the_source_is_not_copied(source, tmp_path, kind):
    """A flipped byte at the source is told, with its key; nothing that refers to it arrives, the rest does."""
    keys = {
        "blob": lambda key: key.count("/") == 1 and len(key.rpartition("/")[2]) == 32,
        "artifact": lambda key: "/artifacts/" in key and "_manifest" not in key,
        "record": lambda key: key.endswith(".jsonl"),
        "single": lambda key: key.endswith("runs/over.json"),
    }
    key = next(key for key in files_of(source) if keys[kind](key))
    path = source / key
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(TransferError, match="were not copied"):
        export_store(source, tmp_path / "two")
    report = check(open_storage(tmp_path / "two"), deep=True)
    assert {one.kind for one in report} <= {"orphan"}


@pytest.mark.parametrize("kind", ["blob", "artifact", "single", "derived", "result", "manifest"])
def test_damage_at_the_source_leaves_the_copy_alone(source, tmp_path, kind):
    """A byte flipped after the copy was made costs the copy nothing, also when it may be overwritten."""
    keys = {
        "blob": lambda key: key.count("/") == 1 and len(key.rpartition("/")[2]) == 32,
        "artifact": lambda key: "/artifacts/" in key and "_manifest" not in key,
        "single": lambda key: key.endswith("runs/over.json"),
        "derived": lambda key: "/derived/" in key,
        "result": lambda key: "/results/" in key,
        "manifest": lambda key: "/experiments/" in key,
    }
    export_store(source, tmp_path / "two")
    before = files_of(tmp_path / "two")
    path = source / next(key for key in before if keys[kind](key))
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(TransferError, match="were not copied"):
        export_store(source, tmp_path / "two", overwrite=True)
    assert files_of(tmp_path / "two") == before


def test_a_log_that_grows_during_the_export(source, tmp_path, monkeypatch):
    """The copy of a log that is appended to meanwhile has an earlier state or a later one, and is never removed."""
    export_store(source, tmp_path / "two")
    log = next(source.rglob("*.log"))
    copied = tmp_path / "two" / log.relative_to(source)
    log.chmod(0o600)
    log.write_text("line\nsecond\n")
    put = LocalStorage.put

    def growing(self, key, *args, **more):
        put(self, key, *args, **more)
        if key.endswith(".log"):
            log.write_text("other\nbytes\nthird\n")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "put", growing)
        with pytest.raises(TransferError, match="were not copied"):
            export_store(source, tmp_path / "two", overwrite=True)
    assert copied.read_text() in ("line\n", "line\nsecond\n")


def test_a_generation_that_came_meanwhile_stays(source, tmp_path, monkeypatch):
    """What somebody persists at the destination just before the generation arrives is not overwritten."""
    target = tmp_path / "two"
    export_store(source, target)
    with create_session(f"sqlite:///{tmp_path}/source.db", source) as session:
        session.load_experiment("digits").persist(if_exists="update")
    with create_session(f"sqlite:///{tmp_path}/two.db", target) as there:
        there.rebuild_index()
        mine = there.load_experiment("digits")
        mine.runs[next(iter(mine.runs))].fields.loss = 0.125
        put, done = _Transfer._copy, []

        def late(self, item):
            if item.kind == "generations" and not done:
                done.append(mine.persist(if_exists="update"))
            return put(self, item)

        monkeypatch.setattr(_Transfer, "_copy", late)
        with pytest.raises(TransferError, match="never replaced"):
            export_store(source, target, overwrite=True)
    assert done
    with create_session(f"sqlite:///{tmp_path}/again.db", target) as there:
        there.rebuild_index()
        assert next(iter(there.load_experiment("digits").runs.values())).fields.loss == 0.125


def test_interrupted_anywhere(source, tmp_path, monkeypatch):
    """Stopped at any put, the destination is whole or lacks the experiment, and the same call finishes."""
    puts = len(files_of(source)) + 3
    for stop in (1, 2, 5, puts // 2, puts - 3, puts - 1):
        target = tmp_path / f"stopped-{stop}"
        left = [stop]
        put = LocalStorage.put

        def failing(self, key, *args, put=put, left=left, **more):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
            return put(self, key, *args, **more)

        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "put", failing)
            with pytest.raises((TransferError, OSError)):
                export_store(source, target)
        if (target / "_store.json").exists():
            assert {one.kind for one in check(open_storage(target), deep=True)} <= {"orphan", "unreadable descriptor"}
        export_store(source, target)
        assert files_of(source) == files_of(target), stop


def test_a_sweep_at_the_destination(source, tmp_path, monkeypatch):
    """A sweep without grace takes nothing of an export that goes on where an earlier one was killed."""
    target, put = tmp_path / "two", _Transfer._copy
    with monkeypatch.context() as patch:
        patch.setattr(_Transfer, "_copy", lambda *a: "killed" if a[1].kind == "generations" else put(*a))
        with pytest.raises(TransferError, match="killed"):
            export_store(source, target)
    with create_session(f"sqlite:///{tmp_path}/two.db", target) as there:
        there.rebuild_index()

        def swept(self, item):
            if item.kind == "generations":
                there.sweep(dry_run=False, grace_s=0)
            return put(self, item)

        monkeypatch.setattr(_Transfer, "_copy", swept)
        export_store(source, target)
        there.rebuild_index()
        assert files_of(source) == files_of(target)
        assert len(there.check(deep=True)) == 0
        assert list(open_storage(target).list("_pending")) == []


def test_what_was_removed_meanwhile_is_told(source, tmp_path, monkeypatch):
    """No generation is copied if something that it refers to has gone; the same call goes on."""
    target, put = tmp_path / "two", _Transfer._copy

    def removing(self, item):
        outcome = put(self, item)
        if item.kind == "blobs":
            self.target.delete(item.key)
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(_Transfer, "_copy", removing)
        with pytest.raises(TransferError, match="removed.*during the export"):
            export_store(source, target)
    assert not list(target.rglob("generations/*.json"))
    export_store(source, target)
    assert files_of(source) == files_of(target)


def test_the_intent_of_a_dead_export_is_removed(source, tmp_path, monkeypatch):
    """Recovery of an export that was killed removes its intent and leaves the experiment as it is."""
    target = tmp_path / "two"
    export_store(source, target)
    before, storage = files_of(target), open_storage(target)
    monkeypatch.setattr(intents, "LEASE_S", -1.0)  # one from elsewhere has been silent for too long
    with create_session(f"sqlite:///{tmp_path}/two.db", target) as there:
        there.rebuild_index()
        id_ = str(there.load_experiment("digits").id_experiment)
        for machine, process in (("", "done"), ("elsewhere", "1")):
            fields = {"id_experiment": id_, "name": "digits", "parent": 0, "number": 1, "process": process}
            intent = Intent(writer=str(uuid.uuid4()), action="export", machine=machine, **fields)
            data = descriptors.to_bytes("intent", asdict(intent))
            storage.put(intent.key, [data], size=len(data), parents=True)
        with create_session(f"sqlite:///{tmp_path}/two.db", target) as again:
            assert len(again.load_experiment("digits").runs) == 3
            again.sweep(dry_run=False, grace_s=3600)
        assert files_of(target) == before
        assert list(storage.list("_pending")) == []


def test_refusals(source, tmp_path):
    """What cannot work is refused: no such experiment, onto itself, two scopes."""
    with pytest.raises(ExperimentNotFoundError, match="nothing was copied"):
        export_store(source, tmp_path / "two", experiment_id="none")
    with pytest.raises(UsageError, match="onto itself"):
        export_store(source, source)
    with pytest.raises(UsageError, match="scoped to 'b'"):
        export_store(source, FileStoreConfig(root=tmp_path / "two", experiment_id="b"), experiment_id="a")
    assert not (tmp_path / "two").exists()


class Memory:
    """A custom store: everything in dictionaries."""

    def __init__(self):
        self.records, self.derived, self.logs, self.blobs, self.entries = {}, {}, {}, {}, {}

    def put_run_record(self, record):
        self.records[record.run_id] = record

    def get_run_record(self, run_id):
        return self.records.get(run_id)

    def list_run_records(self, experiment_id=None):
        return [one for one in self.records.values() if experiment_id in (None, one.experiment_id)]

    def run_exists(self, run_id):
        return run_id in self.records

    def put_artifact(self, data, descriptor):
        uri = f"{descriptor.run_id}/{descriptor.name}"
        self.blobs[uri] = data if isinstance(data, bytes) else Path(data).read_bytes()
        self.entries[uri] = descriptor
        return descriptor

    def get_artifact(self, uri):
        return self.blobs[uri]

    def list_artifacts(self, run_id):
        return [replace(one, uri=uri) for uri, one in self.entries.items() if one.run_id == run_id]

    def put_derived(self, run_id, derived):
        self.derived[run_id] = dict(derived)

    def get_derived(self, run_id):
        return self.derived.get(run_id)

    def derived_exists(self, run_id):
        return run_id in self.derived

    def put_log(self, run_id, name, content, label=None):
        self.logs[run_id, name] = content

    def get_log(self, run_id, name):
        return self.logs.get((run_id, name))


def test_a_custom_store(source, tmp_path):
    """A store of another kind gets, and gives back, what its verbs can say; what they cannot is told."""
    custom = Memory()
    with pytest.raises(TransferError, match="keeps no results"):
        export_store(source, custom, experiment_id="../a:b")
    with pytest.raises(TransferError, match="keeps no manifests"):
        export_store(source, custom, experiment_id="../a:b", include_results=False)
    chosen = {"include_results": False, "include_manifests": False}
    counts = export_store(source, custom, experiment_id="../a:b", **chosen)
    assert counts["experiments"] == 1
    assert sorted(custom.records) == ["*", "r/1"]
    assert custom.derived == {"r/1": {"ratio": 0.25}}
    assert list(custom.blobs.values()) == [b"x" * 100_000]
    back = FileStoreConfig(root=tmp_path / "back")
    assert export_store(custom, back)["runs"] == 2
    assert repr(back.connect().list_run_records()) == repr(sorted(custom.list_run_records(), key=lambda r: r.run_id))
    with pytest.raises(TransferError, match="values in blobs"):
        export_store(source, custom, **chosen)


def test_a_custom_store_keeps_what_differs(source):
    """Derived metrics, logs and artifacts of a custom store are replaced only with overwrite=True."""
    custom = Memory()
    chosen = {"experiment_id": "../a:b", "include_results": False, "include_manifests": False}
    export_store(source, custom, **chosen)
    FileStoreConfig(root=source, experiment_id="../a:b").connect().put_derived("r/1", {"nan": float("nan")})
    export_store(source, custom, overwrite=True, **chosen)
    export_store(source, custom, **chosen)  # NaN is what is there already
    whole = (dict(custom.derived), dict(custom.logs), dict(custom.blobs))
    for name, value in (("derived", {"r": 1.0}), ("logs", "mine"), ("blobs", b"mine")):
        kept = getattr(custom, name)
        key = next(iter(kept))
        kept[key] = value
        custom.entries = {uri: replace(one, content_hash="sha256:0") for uri, one in custom.entries.items()}
        with pytest.raises(TransferError, match="there and differs"):
            export_store(source, custom, **chosen)
        assert kept[key] == value
    export_store(source, custom, overwrite=True, **chosen)
    assert repr((custom.derived, custom.logs, custom.blobs)) == repr(whole)


def test_progress_and_json(source, tmp_path):
    """Progress is told file by file, and the counts are numbers that JSON takes."""
    seen = []
    counts = export_store(source, tmp_path / "two", progress_callback=lambda *at: seen.append(at))
    assert seen[-1][0] == seen[-1][1] == counts["files"]
    assert json.loads(json.dumps(counts)) == counts


def test_places_that_are_refused(source, tmp_path):
    """A source that is not there is no empty success; a store is copied neither into itself nor around itself."""
    with pytest.raises(NotFoundError, match="no store at .*typo"):
        export_store(tmp_path / "typo", tmp_path / "two")
    for place in (Path(source) / "inside", Path(source).parent):
        with pytest.raises(UsageError, match="in the other"):
            export_store(source, place)


class Pickling(Memory):
    """A custom store that gives new objects each time, and keeps manifests."""

    def __init__(self):
        super().__init__()
        self.manifests = {}

    def put_run_record(self, record):
        self.records[record.run_id] = pickle.dumps(record)

    def get_run_record(self, run_id):
        return pickle.loads(self.records[run_id]) if run_id in self.records else None

    def list_run_records(self, experiment_id=None):
        found = map(pickle.loads, self.records.values())
        return [one for one in found if experiment_id in (None, one.experiment_id)]

    def put_experiment_manifest(self, experiment_id, manifest, timestamp=None):
        self.manifests.setdefault(experiment_id, {})[timestamp] = dict(manifest)

    def get_experiment_manifest(self, experiment_id):
        found = self.manifests.get(experiment_id, {})
        return found[max(found)] if found else None

    def list_experiment_manifests(self, experiment_id):
        return dict(sorted(self.manifests.get(experiment_id, {}).items()))


def test_a_custom_store_of_copies(tmp_path):
    """NaN is no difference, and all manifests are copied, there and back, once."""
    files = FileStoreConfig(root=tmp_path / "files").connect()
    files.put_run_record(RunRecord.success("1", "a", metrics={"loss": float("nan")}))
    for number in (2, 1, 3):
        files.scoped("a").put_experiment_manifest("a", {"n": number, "x": float("nan")}, timestamp=f"t{number}")
    custom = Pickling()
    counts = export_store(files, custom)
    assert (counts["runs"], counts["manifests"]) == (1, 3)
    again = export_store(files, custom)
    assert (again["runs"], again["manifests"]) == (0, 0)
    back = FileStoreConfig(root=tmp_path / "back").connect()
    assert export_store(custom, back)["manifests"] == 3
    manifests = [one.scoped("a").list_experiment_manifests("a") for one in (files, back)]
    assert repr(manifests[0]) == repr(manifests[1])
    assert list(manifests[0]) == ["t1", "t2", "t3"]
    assert load_results(custom, "a")["1"].experiment_id == "a"
    assert list(load_results(custom, "b")) == []


def test_what_no_verb_can_name(tmp_path):
    """What belongs to no run record, and what lies beside experiments, is told when a store of no files gets them."""
    files = FileStoreConfig(root=tmp_path / "files").connect()
    files.put_run_record(RunRecord.success("1", "a"))
    files.scoped("a").put_log("1", "out", "text")
    files.scoped("a").put_log("orphan", "out", "text")
    files.storage.put("own/notes.txt", [b"x"], size=1, parents=True)
    custom = Pickling()
    with pytest.raises(TransferError, match="orphan_out.log belongs to no run"):
        export_store(files, custom, experiment_id="a")
    assert custom.logs == {("1", "out"): "text"}
    assert export_store(files, custom, experiment_id="a", include_logs=False)["runs"] == 0
    with pytest.raises(TransferError, match="own/notes.txt"):
        export_store(files, custom, include_logs=False)


def test_a_deleted_run_takes_its_own_along(tmp_path):
    """With overwrite=True a run that the source has deleted leaves nothing at the destination; others stay."""
    files = FileStoreConfig(root=tmp_path / "files", experiment_id="a").connect()
    for run in ("1", "1_2", "2"):
        files.put_run_record(RunRecord.success(run, "a"))
        files.put_log(run, "out", run)
        files.put_derived(run, {"x": 1})
        files.put_result(run, "y", [1])
        files.put_artifact(run.encode(), ArtifactDescriptor("1", "z", run_id=run))
    there = FileStoreConfig(root=tmp_path / "there", experiment_id="a").connect()
    export_store(files, there)
    files.delete_run("1")
    files.put_log("1", "again", "a second life")
    with pytest.raises(TransferError, match="overwrite=True"):
        export_store(files, there)
    assert there.get_log("1", "out") == "1"
    export_store(files, there, overwrite=True)
    assert there.get_run_record("1") is None
    assert (there.get_log("1", "out"), there.get_derived("1"), there.list_artifacts("1")) == (None, None, [])
    assert there.list_results("1") == []
    assert there.get_log("1", "again") == "a second life"
    for run in ("1_2", "2"):
        assert (there.get_log(run, "out"), there.get_derived(run), there.list_results(run)) == (run, {"x": 1}, ["y"])
        assert there.get_artifact(there.list_artifacts(run)[0].uri) == run.encode()
    assert len(check(there.storage)) == 0


def test_members_are_compared_by_their_digest(source, tmp_path, monkeypatch):
    """Damage that no CRC-32 shows does not arrive: at the destination blobs are compared by SHA-256."""
    seen, inner = [], transfer_copy._verify

    def verify(storage, item, by="digest"):
        seen.append((storage.url, item.kind, by))
        inner(storage, item, by=by)

    monkeypatch.setattr(transfer_copy, "_verify", verify)
    export_store(source, tmp_path / "there")
    blobs = {(url.rpartition("/")[2], by) for url, kind, by in seen if kind == "blobs"}
    assert blobs == {("source", "crc"), ("there", "digest")}
