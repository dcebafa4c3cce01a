"""The verbs of the lake: what each leaves on the store and on the remotes."""

import hashlib
import json
import os
import time
import warnings

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from lake_scene import RUNS, Files, expected, open_session, values_of

from mltraq_ds import DataStore, create_session, lake
from mltraq_ds.errors import (
    ConflictError,
    KeyMissingError,
    MltraqDSError,
    NotFoundError,
    RemoteFailedWarning,
    RemotesError,
    RunFailedWarning,
    UsageError,
)
from mltraq_ds.lake.lineage import Lineage
from mltraq_ds.lake.remotes import GRACE_S, Remote
from mltraq_ds.storage import open_storage, remote_urls
from mltraq_ds.store import FileStoreConfig, RunRecord, descriptors
from mltraq_ds.testing import Delay, FaultStorage

BLOBS = 2 * RUNS + 1


def test_upload_keeps_the_bytes(session, files, home):
    """Every object is named by the SHA-256 of its bytes, which are those of the blob; a pointer is beside each blob."""
    before = files.blobs()
    report = lake.upload(session, remotes=home.root)
    assert report.actions() == {"uploaded": BLOBS}
    assert files.blobs() == before
    assert set(home.objects().values()) == set(before.values())
    for name, pointer in files.pointers().items():
        assert pointer["digest"] == f"sha256:{hashlib.sha256(before[name]).hexdigest()}"
        assert (pointer["size"], pointer["media_type"]) == (len(before[name]), "application/zip")
    assert session.check(deep=True).kinds() == {}


def test_upload_again_changes_nothing(session, files, home):
    """A second upload finds everything: no byte of store or remote changes, and no blob is read."""
    lake.upload(session, remotes=home.root)
    seen = {path: path.stat().st_mtime_ns for path in [*home.root.iterdir(), *files.root.rglob("*.remote")]}
    assert lake.upload(session, remotes=home.root).actions() == {"found": BLOBS}
    assert {path: path.stat().st_mtime_ns for path in seen} == seen


def test_equal_blobs_are_one_object(tmp_path, session, home):
    """Two stores with the same bytes share their objects, without agreeing on anything."""
    lake.upload(session, remotes=home.root)
    lake.clone(session, tmp_path / "copy")
    count = len(home.objects())
    assert lake.upload(tmp_path / "copy", remotes=home.root).actions() == {"found": BLOBS}
    assert len(home.objects()) == count


@pytest.mark.parametrize("damage", ["truncated", "other bytes"])
@pytest.mark.parametrize("is_known", [True, False])
def test_wrong_objects_are_repaired(session, home, tmp_path, damage, is_known):
    """A wrong object is not relied on: by its size, or by reading it where no pointer vouches for it."""
    lake.upload(session, remotes=home.root)
    lake.clone(session, tmp_path / "copy")
    path = max(home.root.iterdir(), key=lambda path: path.stat().st_size)
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-5] if damage == "truncated" else bytes(len(good)))
    store = tmp_path / "store" if is_known else tmp_path / "copy"
    if damage == "other bytes" and is_known:
        with pytest.raises(RemotesError, match="bytes are wrong"):
            lake.verify(store)
    assert lake.upload(store, remotes=home.root).count("repaired") == 1
    assert path.read_bytes() == good
    assert lake.verify(store).actions() == {"intact": BLOBS}
    assert lake.upload(store, remotes=home.root).actions() == {"found": BLOBS}


@pytest.mark.parametrize("where", ["in place", "output"])
def test_add_repairs_what_local_bytes_would_go_for(session, home, tmp_path, where):
    """A wrong object of the right size under an own pointer is noticed before anything relies on it."""
    lake.upload(session, remotes=home.root)
    path = max(home.root.iterdir(), key=lambda path: path.stat().st_size)
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    out = tmp_path / ("store" if where == "in place" else "out")
    report = lake.add(session, remotes=home.root, **({"in_place": True} if where == "in place" else {"output": out}))
    assert report.count("repaired") == 1
    assert Files(out).blobs() == {}
    assert values_of(open_session(out)) == expected()


def test_old_objects_are_refreshed(session, home):
    """What is relied on is made young, so that a sweep under way does not take it."""
    lake.upload(session, remotes=home.root)
    old = time.time() - GRACE_S * 0.6
    names = sorted(home.objects())
    storage = open_storage(home.root)
    # The storage's time is the newer of mtime and ctime, and ctime cannot be set: so its clock is.
    storage_type = type(storage)
    now = storage_type.now
    try:
        storage_type.now = lambda self: time.time() + GRACE_S * 0.6
        assert lake.upload(session, remotes=home.root).actions() == {"refreshed": BLOBS}
    finally:
        storage_type.now = now
    assert sorted(home.objects()) == names
    assert all(storage.stat(name).modified > old for name in names)


def test_add_to_a_second_store(session, files, home, tmp_path):
    """The output is a whole store with pointers only; the input is as it was; both read equal values."""
    before = {path: path.read_bytes() for path in files.root.rglob("*") if path.is_file()}
    report = lake.add(session, tmp_path / "out", remotes=[home.root, tmp_path / "second"])
    out = Files(tmp_path / "out")
    assert report.actions() == {"uploaded": BLOBS}
    assert out.blobs() == {}
    assert all(len(pointer["remotes"]) == 2 for pointer in out.pointers().values())
    assert [url.rpartition("/")[2] for url in next(iter(out.pointers().values()))["remotes"]] == ["lake", "second"]
    assert {path: path.read_bytes() for path in files.root.rglob("*") if path.is_file()} == before
    other = open_session(tmp_path / "out")
    assert values_of(other) == expected()
    assert other.check(deep=True).kinds() == {}


def test_add_is_deterministic(session, home, tmp_path):
    """The same store gives the same files, so that git shows small differences; the store id alone is new."""
    for name in ("a", "b"):
        lake.add(session, tmp_path / name, remotes=home.root)
    read = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in "ab"
    ]
    assert {str(path) for path in read[0] if read[0][path] != read[1].get(path)} == {"_store.json"}
    assert read[0].keys() == read[1].keys()


def test_keys_select_fields(session, home, tmp_path):
    """Only the fields that are named become pointers; the whole store is written all the same."""
    lake.add(session, tmp_path / "out", remotes=home.root, keys=["weights"])
    out = Files(tmp_path / "out")
    assert (len(out.pointers()), len(out.blobs())) == (RUNS, RUNS + 1)
    assert values_of(open_session(tmp_path / "out")) == expected()
    with pytest.raises(NotFoundError, match=r"'wieghts'.*images, score, summary, weights"):
        lake.upload(session, remotes=home.root, keys="wieghts")


@pytest.mark.parametrize(("part", "number"), [({"start": 1}, 4), ({"stop": 1}, 3), ({"step": 2}, 5), ({"start": 9}, 0)])
def test_slices_count_runs(session, home, part, number):
    """A slice chooses runs in order; fields of the experiment belong to its first run."""
    assert len(lake.upload(session, remotes=home.root, **part)) == number


def test_packs_hold_one_field(tmp_path):
    """Many small DataStores share packs, and a key still selects exactly its field."""
    session = create_session("sqlite:///:memory:", tmp_path / "store")
    experiment = session.create_experiment("many")
    for number in range(40):
        with experiment.run() as run:
            run.fields.ds = lake_datastore(number)
            run.fields.other = lake_datastore(-number)
    experiment.persist()
    lake.add(session, remotes=tmp_path / "lake", keys="ds", in_place=True)
    report = lake.status(session)
    assert report.actions() == {"local": 1, "remote": 1}
    runs = session.load_experiment("many").runs.values()
    assert [(int(run.fields.ds.n[0]), int(run.fields.other.n[0])) for run in runs] == [(n, -n) for n in range(40)]


def lake_datastore(number):
    return DataStore(n=np.full(300, number))


def test_remove_forgets_a_remote(session, files, home, tmp_path):
    """A pointer forgets one remote, nothing happens there, and the last source is not forgotten."""
    lake.add(session, remotes=[home.root, tmp_path / "second"], in_place=True)
    objects = home.objects()
    assert lake.remove(session, remotes=home.root).actions() == {"forgotten": BLOBS}
    assert {url.rpartition("/")[2] for one in files.pointers().values() for url in one["remotes"]} == {"second"}
    assert home.objects() == objects
    with pytest.raises(RemotesError, match="nowhere else"):
        lake.remove(session, remotes=tmp_path / "second")
    assert values_of(session) == expected()
    lake.pull(session)
    assert lake.remove(session, remotes=tmp_path / "second").actions() == {"forgotten": BLOBS}
    assert files.pointers() == {}
    assert values_of(session) == expected()


def test_drop_counts_verified_copies(session, files, home, tmp_path):
    """Local bytes go only if so many remotes have the right bytes now; otherwise they stay, and the error says why."""
    lake.upload(session, remotes=[home.root, tmp_path / "second"])
    path = max(home.root.iterdir(), key=lambda path: path.stat().st_size)
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(RemotesError, match="1 verified copies are on remotes, and 2 are asked for"):
        lake.drop(session, num_copies=2)
    assert len(files.blobs()) == 1
    assert lake.drop(session, num_copies=1).actions() == {"dropped": 1}
    assert files.blobs() == {}
    with pytest.warns(RemoteFailedWarning, match="SHA-256|damaged"):
        assert values_of(session) == expected()
    with pytest.raises(UsageError, match="num_copies"):
        lake.drop(session, num_copies=0)


def test_pull_brings_bytes_back(session, files, home):
    """What comes back is byte for byte what was uploaded, and nothing is fetched twice."""
    before = files.blobs()
    lake.add(session, remotes=home.root, in_place=True)
    assert files.blobs() == {}
    assert lake.pull(session).actions() == {"pulled": BLOBS}
    assert files.blobs() == before
    assert len(lake.pull(session)) == 0


def test_status_and_verify(session, home, tmp_path):
    """Where everything is, in how many copies, and when each remote was verified."""
    lake.upload(session, remotes=home.root, keys="weights")
    lake.upload(session, remotes=tmp_path / "second", keys="weights", stop=1)
    report = lake.status(session)
    assert report.actions() == {"local": RUNS + 1, "local and remote": RUNS}
    assert sorted(report.df().copies) == [0, 0, 0, 0, 1, 1, 2]
    assert all("never verified" in note for note in report.notes)
    assert lake.verify(session, remote=home.root).actions() == {"intact": RUNS}
    assert [f"{'lake' in note} {'never' in note}" for note in lake.status(session).notes] == [
        "False True",
        "True False",
    ]
    assert session.check().kinds() == {}


@pytest.mark.parametrize("mode", lake.Mode)
def test_clone_modes(session, files, home, tmp_path, mode):
    """Each mode leaves a whole store that reads equal values; what stands for the blobs is what the mode says."""
    lake.upload(session, remotes=home.root)
    report = lake.clone(session, tmp_path / "clone", mode=mode)
    clone = Files(tmp_path / "clone")
    paths = {path.name: path for path in clone.root.glob("*/*") if len(path.name) == 32}
    source = {path.name: path for path in files.root.glob("*/*") if len(path.name) == 32}
    assert len(report) == BLOBS
    assert clone.blobs() == ({} if mode == "REMOTE_FILE" else files.blobs())
    assert len(clone.pointers()) == (0 if mode == "CREATE_NEW_FILE" else BLOBS)
    assert all(path.is_symlink() == (mode == "SYM_LINK") for path in paths.values())
    if mode == "HARD_LINK":
        assert all(os.path.samefile(path, source[name]) for name, path in paths.items())
    other = open_session(clone.root)
    assert values_of(other) == expected()
    assert other.check(deep=True).kinds() == {}
    assert (
        json.loads((clone.root / "_store.json").read_text())["store_id"]
        != json.loads((files.root / "_store.json").read_text())["store_id"]
    )
    assert lake.clone(session, tmp_path / "clone", mode=mode).actions() == report.actions()


def test_clone_downloads(session, home, tmp_path):
    """The page's last example: a store of pointers becomes one with bytes, which needs no remote."""
    lake.add(session, tmp_path / "pointers", remotes=home.root)
    lake.clone(tmp_path / "pointers", tmp_path / "local", mode="CREATE_NEW_FILE")
    home.root.rename(tmp_path / "away")
    assert values_of(open_session(tmp_path / "local")) == expected()


def test_modes_that_cannot_work(session, home, tmp_path):
    """The error names the modes that can; with a fallback the next one is taken."""
    lake.add(session, remotes=home.root, in_place=True, keys="weights")
    for mode in ("HARD_LINK", "SYM_LINK"):
        with pytest.raises(RemotesError, match="DEEP_COPY"):
            lake.clone(session, tmp_path / mode, mode=mode)
        assert open_session(tmp_path / mode).ls().empty
    with pytest.raises(RemotesError, match="remote upload"):
        lake.clone(session, tmp_path / "r", mode="REMOTE_FILE")
    report = lake.clone(session, tmp_path / "SYM_LINK", mode="SYM_LINK", fallback=True)
    assert report.actions() == {"copied": RUNS, "sym-linked": RUNS + 1}
    assert values_of(open_session(tmp_path / "SYM_LINK")) == expected()
    with pytest.raises(UsageError, match="CREATE_NEW_FILE"):
        lake.clone(session, tmp_path / "x", mode="COPY")


def test_links_lead_nowhere_else(session, tmp_path):
    """Only links that the clone listed are followed, and only as long as they lead where they were made to lead."""
    lake.clone(session, tmp_path / "clone", mode="SYM_LINK")
    link = next(path for path in (tmp_path / "clone").glob("*/*") if path.is_symlink())
    target = link.resolve()
    secret = tmp_path / "secret"
    secret.write_bytes(target.read_bytes())
    link.unlink()
    link.symlink_to(secret)
    with pytest.raises(UsageError, match="symbolic link"):
        values_of(open_session(tmp_path / "clone"))


def test_sweep_removes_what_nobody_refers_to(session, files, home, tmp_path):
    """Objects of an experiment that was deleted go, those of every store that is given stay."""
    lake.add(session, tmp_path / "out", remotes=home.root, keys="weights")
    lake.upload(session, remotes=home.root)
    kept = len(home.objects())
    session.delete_experiment("digits")
    dry = lake.sweep(home.root, refs=[session, tmp_path / "out"], grace_s=0)
    assert dry.dry_run
    assert len(home.objects()) == kept
    report = lake.sweep(home.root, refs=[session, tmp_path / "out"], grace_s=0, dry_run=False)
    assert [row.key for row in report.rows] == [row.key for row in dry.rows]
    assert len(home.objects()) == RUNS
    assert values_of(open_session(tmp_path / "out")) == expected()


def test_sweeps_that_are_refused(session, files, home, tmp_path):
    """Without stores, with stores that refer to nothing, or with a pointer that cannot be read nothing is removed."""
    lake.upload(session, remotes=home.root)
    objects = home.objects()
    empty = create_session("sqlite:///:memory:", tmp_path / "empty")
    empty.create_experiment("e").persist()
    with pytest.raises(UsageError, match="no store was named"):
        lake.sweep(home.root, refs=[], grace_s=0, dry_run=False)
    with pytest.raises(UsageError, match="refers to anything"):
        lake.sweep(home.root, refs=empty, grace_s=0, dry_run=False)
    with pytest.raises(NotFoundError, match="no remote"):
        lake.sweep(tmp_path / "empty", refs=session)
    next(files.root.glob("*/*.remote")).write_text("{")
    with pytest.raises(RemotesError, match="cannot be read"):
        lake.sweep(home.root, refs=session, grace_s=0, dry_run=False)
    assert home.objects() == objects


def test_young_objects_stay(session, home):
    """What is younger than the grace stays, whoever refers to it."""
    lake.upload(session, remotes=home.root)
    other = lake.upload(session, remotes=home.root)
    lake.remove(session, remotes=home.root, keys="images")
    report = lake.sweep(home.root, refs=session, dry_run=False)
    assert len(report) == 0
    assert "younger" in report.notes[0]
    assert len(home.objects()) == len(other)


def test_refusals(session, home, tmp_path):
    """Calls that cannot mean anything are refused in a sentence, and nothing is written."""
    for call in (
        lambda: lake.add(session, remotes=home.root),
        lambda: lake.add(session, tmp_path / "o", remotes=home.root, in_place=True),
        lambda: lake.add(session, tmp_path / "o", remotes=[]),
        lambda: lake.add(session, tmp_path / "o", remotes=home.root, num_copies=2),
        lambda: lake.add(session, tmp_path / "store", remotes=home.root),
        lambda: lake.upload(session, remotes=tmp_path / "store"),
        lambda: lake.upload(session, remotes=home.root, step=0),
        lambda: lake.upload(session, remotes=home.root, jobs=0),
    ):
        with pytest.raises(UsageError):
            call()
    with pytest.raises(NotFoundError, match="no store"):
        lake.status(tmp_path / "nowhere")
    assert not (tmp_path / "o").exists()


def test_retired_blobs_take_their_pointers(session, files, home):
    """A persist that replaces a blob removes its pointer too; deleting the experiment leaves nothing."""
    lake.upload(session, remotes=home.root)
    lake.drop(session, keys="images")
    experiment = session.load_experiment("digits")
    experiment.runs.first().fields.weights.b = 7
    experiment.persist(if_exists="update")
    assert len(files.pointers()) == BLOBS - 1
    assert session.check(deep=True).kinds() == {}
    again = open_session(files.root).load_experiment("digits")
    assert again.runs.first().fields.weights.b == 7
    assert again.runs.first().fields.images.pixels.max() == 0
    session.delete_experiment("digits")
    assert [path.name for path in files.root.iterdir() if not path.name.startswith("_")] == []


def test_orphaned_pointers_are_swept(session, files, home):
    """A pointer whose blob nothing refers to is an orphan, found by check and removed by sweep."""
    lake.upload(session, remotes=home.root)
    pointer = next(files.root.glob("*/*.remote"))
    (pointer.parent / f"{'0' * 32}.remote").write_bytes(pointer.read_bytes())
    assert session.check().kinds() == {"orphan": 1}
    assert session.sweep(dry_run=False, grace_s=0).kinds()["orphan"] == 1
    assert len(files.pointers()) == BLOBS
    assert values_of(session) == expected()


def test_step_of_a_run(session, files, home):
    """A step uploads the blobs of the runs that it is executed on."""
    experiment = session.load_experiment("digits")
    experiment.execute(lake.upload_step(home.root, keys="images"))
    assert all(run.exception is None for run in experiment.runs.values())
    assert len(home.objects()) == RUNS
    assert len(files.pointers()) == RUNS


def test_memory_is_a_remote(session, files):
    """Any storage is a remote."""
    before = files.blobs()
    lake.add(session, remotes="memory://lake-of-a-test", in_place=True)
    assert files.blobs() == {}
    objects = {
        name.rpartition("/")[2]: bytes(data.getvalue())
        for name, data in MemoryFileSystem.store.items()
        if name.startswith("/lake-of-a-test/") and not name.endswith("_lake.json")
    }
    assert objects == {hashlib.sha256(data).hexdigest(): data for data in before.values()}
    assert values_of(session) == expected()
    lake.pull(session)
    assert files.blobs() == before
    assert lake.verify(session).actions() == {"intact": BLOBS}


def test_work_in_a_clone_is_never_overwritten(session, home, tmp_path):
    """What somebody persisted in the clone stands; the clone can be brought up to date as long as nobody did."""
    lake.clone(session, tmp_path / "clone")
    experiment = session.load_experiment("digits")
    for number in (1, 2):
        experiment.runs.first().fields.score = 100.0 + number
        experiment.persist(if_exists="update")
    assert session.sweep(dry_run=False, grace_s=0).kinds()["old generation"] >= 1
    lake.clone(session, tmp_path / "clone")
    other = open_session(tmp_path / "clone")
    theirs = other.load_experiment("digits")
    assert theirs.runs.first().fields.score == 102.0
    theirs.runs.first().fields.weights.b = "theirs"
    theirs.persist(if_exists="update")
    for number in (3, 4):
        experiment.runs.first().fields.score = 100.0 + number
        experiment.persist(if_exists="update")
    for again in (
        lambda: lake.clone(session, tmp_path / "clone"),
        lambda: lake.add(session, tmp_path / "clone", remotes=home.root),
    ):
        with pytest.raises(ConflictError, match="persisted it there"):
            again()
    assert open_session(tmp_path / "clone").load_experiment("digits").runs.first().fields.weights.b == "theirs"
    assert other.check(deep=True).kinds() == {}


def test_a_deleted_experiment_does_not_come_back(session, files, home):
    """An upload that is late for an experiment which was deleted meanwhile makes no folder of it."""
    from mltraq_ds.lake import uploading

    original = uploading.Uploader._ensure
    deleted = []

    def ensure(self, *arguments):
        action = original(self, *arguments)
        if not deleted:
            deleted.append(True)
            session.delete_experiment("digits")
        return action

    uploading.Uploader._ensure = ensure
    try:
        with pytest.raises((KeyMissingError, RemotesError)):
            lake.upload(session, remotes=home.root, jobs=1)
    finally:
        uploading.Uploader._ensure = original
    assert [path.name for path in files.root.iterdir() if not path.name.startswith("_")] == []


def test_what_lies_beside_is_cloned(session, tmp_path):
    """Files of users and runs that were put one by one come along."""
    session.io.write(b"mine", relative_path_prefix="mine/x")
    config = FileStoreConfig(root=str(tmp_path / "store"), experiment_id="one by one")
    config.connect().put_run_record(RunRecord.success("r1", "one by one", metrics={"loss": 0.5}))
    lake.clone(session, tmp_path / "clone")
    assert {path.read_bytes() for path in (tmp_path / "clone" / "mine").rglob("*") if path.is_file()} == {b"mine"}
    other = FileStoreConfig(root=str(tmp_path / "clone"), experiment_id="one by one").connect()
    assert other.get_run_record("r1").metrics == {"loss": 0.5}


def test_files_of_the_target_stay(session, tmp_path):
    """A file that did not come from a clone is never written over; one that did is brought up to date."""
    session.io.write(b"one", relative_path_prefix="mine/x")
    lake.clone(session, tmp_path / "clone")
    (path,) = [path for path in (tmp_path / "clone" / "mine").rglob("*") if path.is_file()]
    (source,) = [path for path in (tmp_path / "store" / "mine").rglob("*") if path.is_file()]
    source.chmod(0o644)
    source.write_bytes(b"two")
    lake.clone(session, tmp_path / "clone")
    assert path.read_bytes() == b"two"
    path.chmod(0o644)
    path.write_bytes(b"theirs")
    with pytest.raises(ConflictError, match="did not come from a clone"):
        lake.clone(session, tmp_path / "clone")
    assert path.read_bytes() == b"theirs"


def test_a_persist_in_the_target_meanwhile(session, tmp_path, monkeypatch):
    """Who persists in the clone at the last moment keeps every blob; the clone gives way."""
    lake.clone(session, tmp_path / "clone")
    experiment = session.load_experiment("digits")
    for number in (1, 2):
        experiment.runs.first().fields.score = float(number)
        experiment.persist(if_exists="update")
    other = open_session(tmp_path / "clone")
    theirs = other.load_experiment("digits")
    theirs.runs.first().fields.weights.b = "theirs"
    original = Lineage.require_ours
    calls = []

    def require(self, generation, folder):
        found = original(self, generation, folder)
        calls.append(found)
        if len(calls) == 2:  # after the last look but one
            theirs.persist(if_exists="update")
        return found

    monkeypatch.setattr(Lineage, "require_ours", require)
    with pytest.raises(ConflictError):
        lake.clone(session, tmp_path / "clone")
    assert other.load_experiment("digits").runs.first().fields.weights.b == "theirs"
    assert {one.kind for one in other.check(deep=True)} <= {"orphan"}


@pytest.mark.parametrize("what", ["file", "folder", "blob of another digest"])
def test_hostile_links_are_not_followed(session, files, tmp_path, what):
    """What a store lists about itself opens no file, no folder and no other blob outside of it."""
    lake.clone(session, tmp_path / "clone", mode="SYM_LINK")
    store = tmp_path / "clone" / "_store.json"
    body = descriptors.from_bytes(store.read_bytes(), "store", "_store.json")
    secret = tmp_path / "elsewhere" / "secret"
    secret.parent.mkdir()
    secret.write_bytes(b"secret")
    key, target = {
        "file": ("mine/" + "0" * 32, secret),
        "folder": ("mine", secret.parent),
        "blob of another digest": (
            "mine/" + "0" * 32,
            next(path for path in files.root.glob("*/*") if len(path.name) == 32),
        ),
    }[what]
    body["links"][key] = {"target": str(target.resolve()), "digest": "sha256:" + "0" * 64}
    kept = {name: value for name, value in body.items() if name not in ("format", "version")}
    store.chmod(0o644)
    store.write_bytes(descriptors.to_bytes("store", kept))
    link = tmp_path / "clone" / key
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target.resolve())
    storage = open_storage(tmp_path / "clone")
    place = f"{key}/secret" if what == "folder" else key
    with pytest.raises(UsageError, match="symbolic link"):
        storage.read(place)
    if what == "folder":
        with pytest.raises(UsageError, match="symbolic link"):
            storage.delete(place)
    assert secret.read_bytes() == b"secret"


def test_dropping_and_forgetting_at_once(session, home, monkeypatch):
    """While one decides that remotes are enough nobody may forget them; a lease of a dead process does not hinder."""
    lake.upload(session, remotes=home.root)
    original = Remote.is_intact
    refused = []

    def is_intact(self, name, size):
        try:
            lake.remove(session, remotes=home.root)
        except ConflictError as error:
            refused.append(error)
        return original(self, name, size)

    monkeypatch.setattr(Remote, "is_intact", is_intact)
    assert lake.drop(session, jobs=1).actions() == {"dropped": BLOBS}
    assert len(refused) == BLOBS
    assert values_of(session) == expected()


def test_one_place_is_one_copy(session, files, home, tmp_path):
    """Two URLs of one remote are one copy; a wrong object that is found is repaired before local bytes go."""
    (tmp_path / "alias").symlink_to(home.root)
    with pytest.raises(UsageError, match="1 different remotes"):
        lake.add(session, remotes=[home.root, tmp_path / "alias"], in_place=True, num_copies=2)
    lake.upload(session, remotes=[home.root, tmp_path / "alias"])
    with pytest.raises(RemotesError, match="1 verified copies"):
        lake.drop(session, num_copies=2)
    before = files.blobs()
    path = max(home.root.iterdir(), key=lambda path: path.stat().st_size)
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    assert lake.add(session, remotes=home.root, in_place=True).actions() == {"found": BLOBS - 1, "repaired": 1}
    assert files.blobs() == {}
    assert set(home.objects().values()) == set(before.values())
    assert values_of(open_session(files.root)) == expected()


def test_remotes_that_are_gone(session, home, tmp_path):
    """A deep check names the remote, not the blob, as what is wrong; forgetting an unknown remote says so."""
    lake.add(session, remotes=home.root, in_place=True)
    home.root.rename(tmp_path / "away")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RemoteFailedWarning)
        assert set(session.check(deep=True).kinds()) == {"unreachable remote"}
    assert "No pointer names" in str(lake.remove(session, remotes=tmp_path / "typo"))


def test_stores_inside_each_other(session, tmp_path):
    """A clone is refused into the store itself, and around it."""
    for place in (tmp_path / "store" / "inside", tmp_path):
        with pytest.raises(UsageError, match="in the other"):
            lake.clone(session, place)


def test_a_slow_remote(session, files, home):
    """A remote that takes its time is waited for: uploads, reads and sweeps are the same."""
    slow = FaultStorage(open_storage(home.root), lambda call: Delay(0.02))
    remote_urls._opened[home.root.as_uri(), "{}"] = slow
    lake.add(session, remotes=home.root, in_place=True)
    assert files.blobs() == {}
    assert values_of(session) == expected()
    assert len(slow.fired) > BLOBS


def train(run):
    run.fields.ds = DataStore(w=np.arange(3000.0) + run.params.lr)
    run.fields.other = DataStore(w=np.arange(100.0))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_step_of_a_new_experiment(session, home, n_jobs):
    """In a new experiment the blobs are uploaded right after it is persisted, each time that it is trained."""
    experiment = session.create_experiment("new").add_runs(lr=[1, 2, 3])
    experiment.execute([train, lake.upload_step(home.root, keys="ds")], n_jobs=n_jobs)
    assert [run.exception for run in experiment.runs.values()] == [None] * 3
    assert not home.root.exists() or home.objects() == {}
    experiment.persist()
    assert sorted(lake.status(session).actions().items()) == [("local", BLOBS + 3), ("local and remote", 3)]
    assert len(home.objects()) == 3
    experiment.runs.first().params.lr = 7
    experiment.execute([train, lake.upload_step(home.root, keys="ds")], n_jobs=n_jobs)
    experiment.persist(if_exists="update")
    assert lake.status(session).count("local and remote") == 3
    assert lake.verify(session).actions() == {"intact": 3}


def test_step_by_run(home, tmp_path):
    """The same where an experiment is executed and persisted in one call, into a store that is not there yet."""
    import mltraq_ds

    session = create_session("sqlite:///:memory:", tmp_path / "own")
    experiment = session.create_experiment("new").add_runs(lr=[1, 2])
    mltraq_ds.run(experiment, [train, lake.upload_step(home.root)], store=tmp_path / "results")
    assert lake.status(tmp_path / "results").actions() == {"local and remote": 4}


def test_step_of_a_field_that_is_not_there(session, home):
    """A typing error fails the run, and names the fields."""
    experiment = session.create_experiment("new").add_run(lr=1)
    with pytest.warns(RunFailedWarning):
        experiment.execute([train, lake.upload_step(home.root, keys="sd")])
    assert "'sd'. It has ds, lr, other" in str(experiment.runs.first().exception)


def test_step_whose_upload_fails(session, home):
    """The experiment is persisted all the same, and persisting it again finishes the upload."""
    experiment = session.create_experiment("new").add_run(lr=1)
    experiment.execute([train, lake.upload_step(home.root)])
    home.root.write_text("no folder")
    with pytest.raises(MltraqDSError) as caught:
        experiment.persist()
    assert "persisted" in caught.value.__notes__[0]
    assert session.load_experiment("new").runs.first().fields.ds.w[0] == 1
    home.root.unlink()
    experiment.persist(if_exists="update")
    assert lake.status(session).count("local and remote") == 2
