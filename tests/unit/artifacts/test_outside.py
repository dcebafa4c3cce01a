"""What backends keep outside of the store: whatever is killed, nothing stays there that no version refers to, and what
could not be removed is told, found by check, and gone on with.  Sweep asks the backends, and a save to one; readers do
not wait for them, and a copy of a store leaves alone what the original may refer to.
"""

import itertools
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from mltraq_ds import artifact_store, create_session, delete, get, options, save
from mltraq_ds.artifacts import KeepsOutside, Kept, backends
from mltraq_ds.errors import (
    ArtifactBackendError,
    ArtifactNotFoundError,
    CorruptRecordError,
    LeftoversWarning,
    MissingExtraError,
    UsageError,
)
from mltraq_ds.store import RunRecord, SqliteStoreConfig, intents, outside
from mltraq_ds.store.keeper import Keeper
from mltraq_ds.testing import FaultStorage, Kill
from tests.unit.artifacts.test_every_step import Remote, Scene, as_of_an_ended_process

NAME = "subject"


class Silent:
    """A backend that keeps lists in files of a folder, named by the save, and fails when told to."""

    def __init__(self, folder, killed_at=None):
        self.folder, self.killed_at, self.failure, self.asked = Path(folder), killed_at, None, 0
        self.folder.mkdir(exist_ok=True)

    def can_store(self, value):
        return isinstance(value, list)

    def save(self, value, saving, settings, **arguments):
        self._step("before")
        (self.folder / f"{saving.intent.writer}.half").write_text(repr(value))
        self._step("half")
        (self.folder / f"{saving.intent.writer}.half").rename(self.folder / saving.intent.writer)
        self._step("whole")
        return Kept(metadata={"writer": saving.intent.writer}, size_bytes=7)

    def load(self, version, objects, settings):
        return eval((self.folder / version.metadata["writer"]).read_text())

    def delete(self, version, objects, settings):
        self._fail()
        (self.folder / version.metadata["writer"]).unlink(missing_ok=True)

    def describe(self, version, objects):
        return {"url": "shelf:"}

    def kept(self):
        return sorted(path.name for path in self.folder.iterdir())

    def _step(self, name):
        if name == self.killed_at:
            os._exit(9)

    def _fail(self):
        self.asked += 1
        if self.failure is not None:
            raise self.failure


class Shelf(Silent):
    """One that also finds what a killed save has left."""

    def place(self, settings):
        return str(self.folder)

    def take_back(self, name, writer, place, settings):
        self._fail()
        assert (name, place) == (NAME, str(self.folder))
        for path in self.folder.glob(f"{writer}*"):
            path.unlink()


@pytest.fixture
def table(monkeypatch):
    """Return the table of backends, of this test only."""
    monkeypatch.setattr(backends, "_backends", dict(backends._backends))
    return backends._backends


@pytest.fixture
def scene(tmp_path, monkeypatch, table):
    """Return a store with a shelf beside it, and one version on it."""
    options.set("tqdm.disable", True)
    found = Scene(tmp_path / "template", monkeypatch)
    (found.root / "store").mkdir(parents=True)
    table["shelf"] = found.shelf = Shelf(found.root / "shelf")
    session = found.enter()
    save([1], NAME, storage_backend="shelf")
    session.close()
    return found


def copy_of(scene, root, table):
    copy = scene.copy(root)
    table["shelf"] = copy.shelf = Shelf(root / "shelf")
    return copy


def in_a_child(work):
    """Run `work` in a process that may be killed; tell whether it came to its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: ours hold nothing
        pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a child must not come back into the tests
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


def swept(session):
    """Return the session after a dry sweep, which finishes the work of dead writers and removes nothing else."""
    session.sweep()
    return session


def writers():
    return sorted(get(NAME, one.version)._version.metadata["writer"] for one in artifact_store())


def save_next():
    save([2], NAME, storage_backend="shelf")


def killed(scene, at):
    """Leave what a save leaves that is killed in the backend."""
    scene.shelf.killed_at = at
    scene.enter()
    assert not in_a_child(save_next)
    scene.shelf.killed_at = None


@pytest.mark.parametrize("when", ["during", "after"])
@pytest.mark.parametrize("name", ["save", "delete"])
def test_killed_at_the_nth_operation(tmp_path, scene, table, name, when):
    """Whichever operation of the storage is killed, the next sweep leaves on the shelf what versions refer to."""
    for n in itertools.count(1):
        one = copy_of(scene, tmp_path / f"{n}", table)

        def work(one=one, n=n):
            storage = FaultStorage(one.local(), {n: Kill(when)})
            one.enter(storage)
            save_next() if name == "save" else delete(NAME, "all")
            os._exit(2 if storage.fired else 0)

        is_over = in_a_child(work)
        session = swept(one.enter())
        assert [version.version for version in artifact_store()] in ([[1], [1, 2]] if name == "save" else [[1], []])
        assert one.shelf.kept() == writers()
        assert list((one.root / "store" / "_pending").glob("*.json")) == []
        assert set(session.check(deep=True).kinds()) <= {"orphan", "unfinished write"}
        session.close()
        if is_over:
            break
    assert n > 8


@pytest.mark.parametrize("who", ["sweep", "save"])
@pytest.mark.parametrize("at", ["before", "half", "whole"])
def test_killed_in_the_backend(scene, at, who):
    """A save that is killed while its backend keeps the value is found by check; sweep or a save takes it back."""
    killed(scene, at)
    assert len(scene.shelf.kept()) == (1 if at == "before" else 2)
    session = scene.enter()
    (found,) = session.check()
    assert found.kind == "dead intent"
    assert f"The storage backend 'shelf' may keep the value at '{scene.shelf.folder}'" in found.detail
    session.sweep() if who == "sweep" else save([3], NAME, storage_backend="shelf")
    assert writers() == scene.shelf.kept()
    assert len(session.check()) == 0
    assert save([4], NAME, storage_backend="shelf").version == (2 if who == "sweep" else 3)


def test_what_cannot_be_taken_back_yet(scene):
    """A backend that is down keeps nobody out; it is told and found, and sweep goes on when it is up again."""
    killed(scene, "whole")
    scene.shelf.failure = ArtifactBackendError("The shelf is down.")
    session = scene.enter()
    with pytest.warns(LeftoversWarning, match=r"A save of artifact 'subject' was killed, and 'shelf' may keep .* down"):
        save([3], NAME, storage_backend="shelf")
    save([4], NAME, storage_backend="shelf")  # which does not ask again
    assert ([one.version for one in artifact_store()], scene.shelf.asked) == ([1, 2, 3], 1)
    assert session.check().kinds() == {"dead intent": 1}
    scene.shelf.failure = None
    session.sweep(dry_run=False, grace_s=0)
    assert scene.shelf.kept() == writers()
    assert session.check().kinds() == {}


def test_where_the_backend_is_not_known(scene, table, monkeypatch):
    """Whoever does not have the backend, or other options, leaves the work silently to one that has it."""
    killed(scene, "whole")
    with monkeypatch.context() as patch:
        patch.delitem(table, "shelf")
        swept(scene.enter())
    with monkeypatch.context() as patch:
        patch.setattr(outside, "_backends", [])
        swept(scene.enter())
    scene.shelf.failure = UsageError("Set the option.")
    swept(scene.enter())
    assert scene.enter().check().kinds() == {"dead intent": 1}
    scene.shelf.failure = None
    swept(scene.enter())
    assert scene.shelf.kept() == writers()


def test_a_backend_that_cannot_find_it(scene, table):
    """If a backend has no way to find what a killed save has left, a warning says so once, with the save's id."""
    killed(scene, "whole")
    table["shelf"] = Silent(scene.shelf.folder)
    assert isinstance(scene.shelf, KeepsOutside) > isinstance(table["shelf"], KeepsOutside)
    session = scene.enter()
    with pytest.warns(LeftoversWarning, match="'shelf' does not say what it keeps of it. Look there"):
        session.sweep()
    assert session.check().kinds() == {}


def test_a_version_that_cannot_be_read_may_be_its_own(scene):
    """As long as a version is damaged nobody knows whose it is, and nothing is taken back."""
    killed(scene, "whole")
    path = scene.root / "store" / "artifacts" / NAME / "versions" / "1.json"
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-9])
    with pytest.raises(CorruptRecordError):
        scene.enter().sweep()
    save([3], NAME, storage_backend="shelf")
    assert len(scene.shelf.kept()) == 3
    path.write_bytes(whole)
    swept(scene.enter())
    assert len(scene.shelf.kept()) == 2


def test_a_request_that_may_still_arrive(scene, monkeypatch):
    """On a remote storage a commit may arrive after its writer's death, so nothing is taken back for a while."""
    killed(scene, "whole")
    swept(scene.enter(Remote(scene.local(), {})))
    assert len(scene.shelf.kept()) == 2
    monkeypatch.setattr(intents, "LEASE_S", -1.0)
    swept(scene.enter(Remote(scene.local(), {})))
    assert len(scene.shelf.kept()) == 1
    assert list((scene.root / "store" / "_pending").iterdir()) == []


@pytest.mark.parametrize(
    "failure",
    [
        ArtifactBackendError("struck"),
        CorruptRecordError("struck"),
        MissingExtraError("struck"),
        RuntimeError("struck"),
        UsageError("struck"),
    ],
)
@pytest.mark.parametrize("who", ["save", "sweep", "delete"])
def test_a_delete_goes_on(scene, monkeypatch, failure, who):
    """Whatever a backend raises, the version is deleted, a warning and check say what is left, and anybody goes on."""
    scene.shelf.failure = failure
    session = scene.enter()
    with pytest.warns(LeftoversWarning, match=r"is deleted, but not all of it is removed: struck"):
        delete(NAME, 1)
    with pytest.raises(ArtifactNotFoundError):
        get(NAME)
    as_of_an_ended_process(monkeypatch)
    if who == "sweep":
        with pytest.warns(LeftoversWarning) if not isinstance(failure, UsageError) else warnings.catch_warnings():
            scene.enter().sweep()  # it tried, and left the rest to others
    assert session.check().kinds().get("unfinished delete") == 1
    assert len(scene.shelf.kept()) == 1
    scene.shelf.failure = None
    session = scene.enter()
    if who == "save":
        save([3], NAME, storage_backend="shelf")
    else:
        session.sweep(dry_run=False) if who == "sweep" else delete(NAME, 1)
    assert scene.shelf.kept() == writers()
    scene.enter().ls()  # tells the database, and removes the note of the first delete
    assert session.check().kinds() == {}


def test_a_dry_sweep_only_tells(scene):
    """A dry run names the delete that waits for its backend."""
    scene.shelf.failure = RuntimeError("struck")
    session = scene.enter()
    with pytest.warns(LeftoversWarning):
        delete(NAME, 1)
    with pytest.warns(LeftoversWarning):
        report = session.sweep()
    assert report.kinds()["unfinished delete"] == 1
    with pytest.warns(LeftoversWarning, match="has not let go of its value: struck"):
        assert session.sweep(dry_run=False).kinds().get("unfinished delete") is None
    assert len(scene.shelf.kept()) == 1


def test_what_could_not_be_undone(scene, monkeypatch):
    """A backend that raises and says that something may be left is asked by the next sweep; else nothing is left."""

    def fail(self, value, saving, settings):
        (self.folder / saving.intent.writer).write_text("[2]")
        saving.has_leftovers = True
        raise RuntimeError("struck")

    monkeypatch.setattr(Shelf, "save", fail)
    session = scene.enter()
    with pytest.raises(RuntimeError, match="struck"):
        save_next()
    assert session.check().kinds() == {"dead intent": 1}
    swept(scene.enter())
    assert scene.shelf.kept() == writers()


def test_readers_do_not_wait(scene):
    """Whoever reads asks no backend, whose answer may take long: neither for a killed save nor for a stopped delete."""
    scene.shelf.failure = ArtifactBackendError("The shelf is down.")
    with pytest.warns(LeftoversWarning, match=r"sweep\(\) goes on"):
        delete(NAME, 1)
    killed(scene, "whole")
    asked, session = scene.shelf.asked, scene.enter()
    session.ls()
    artifact_store()
    session.create_experiment("x").persist()
    save({"a": 1}, "elsewhere")
    session.rebuild_index()
    config = SqliteStoreConfig(connection_string=session.database.url, file_root=scene.root / "store")
    with config.connect() as store:
        store.put_run_record(RunRecord.success("1", "a"))
    assert scene.shelf.asked == asked
    assert session.check().kinds() == {"dead intent": 1, "unfinished delete": 1}


def test_a_copy_takes_nothing_back(tmp_path, scene, monkeypatch):
    """A backup that was taken during a save has its intent and not its version, which the original refers to."""

    def copying(self, value, saving, settings):
        shutil.copytree(scene.root / "store", tmp_path / "backup")
        return Silent.save(self, value, saving, settings)

    monkeypatch.setattr(Shelf, "save", copying)
    save_next()
    as_of_an_ended_process(monkeypatch)
    copy = create_session(f"sqlite:///{tmp_path}/other.db", tmp_path / "backup")
    copy.rebuild_index()
    copy.sweep(dry_run=False, grace_s=0)
    (found,) = copy.check()
    assert found.kind == "dead intent"
    assert f"in the store at {(scene.root / 'store').as_uri()!r}, so only there does sweep() remove it." in found.detail
    copy.close()
    assert scene.shelf.kept() == writers()
    assert get(NAME).get_value() == [2]


def test_a_database_that_does_not_know_the_store_asks_nobody(scene):
    """As long as a database is new to a store, a save asks no backend; afterwards it does."""
    killed(scene, "whole")
    (scene.root / "index.db").unlink()
    session = scene.enter()
    save([3], NAME, storage_backend="shelf")
    assert (scene.shelf.asked, len(scene.shelf.kept())) == (0, 3)
    session.rebuild_index()
    save([4], NAME, storage_backend="shelf")
    assert scene.shelf.kept() == writers()


@pytest.mark.parametrize("other", ["machine", "no note"])
def test_an_intent_of_elsewhere_stays(scene, monkeypatch, other):
    """A folder of the same URL on another machine may be a copy, too; of an intent without a URL nobody knows."""
    killed(scene, "whole")
    (path,) = (scene.root / "store" / "_pending").glob("*.json")
    storage = scene.local()
    intent = intents.read_intent(storage, f"_pending/{path.name}")
    assert intent.store == storage.url
    changed = {"machine": "other/boot"} if other == "machine" else {"store": ""}
    keeper = Keeper(storage, intent)
    keeper.update(**changed)
    monkeypatch.setattr(intents, "LEASE_S", -1.0)
    session = swept(scene.enter())
    assert (scene.shelf.asked, len(scene.shelf.kept())) == (0, 2)
    (found,) = session.check()
    where = "on 'other' in the store" if other == "machine" else "at 'a place that was not noted', so"
    assert (found.kind, where in found.detail, intent.writer in found.detail) == ("dead intent", True, True)
    assert b'"store"' not in path.read_bytes() if other == "no note" else True
    keeper.update(**{key: getattr(intent, key) for key in changed})
    assert swept(scene.enter()).check().kinds() == {}
    assert scene.shelf.kept() == writers()


#: A package with a backend that keeps one value in a file and is killed then.
LEDGE = """
import os, pathlib
from mltraq_ds.artifacts import KeepsOutside


class Ledge(KeepsOutside):
    def can_store(self, value):
        return True

    def place(self, settings):
        return "here"

    def save(self, value, saving, settings, **arguments):
        pathlib.Path("kept").write_text(saving.intent.writer)
        os._exit(9)

    def take_back(self, name, writer, place, settings):
        kept = pathlib.Path("kept")
        if kept.exists() and kept.read_text() == writer:
            kept.unlink()
"""


def test_the_command_sweeps_it(tmp_path):
    """`mltraq-ds check` names what a killed process has left with a package's backend, and `sweep` has it removed."""
    (tmp_path / "ledge.py").write_text(LEDGE)
    (tmp_path / "ledge-1.0.dist-info").mkdir()
    (tmp_path / "ledge-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: ledge\nVersion: 1.0\n")
    entry = "[mltraq_ds.artifact_backends]\nledge = ledge:Ledge\n"
    (tmp_path / "ledge-1.0.dist-info" / "entry_points.txt").write_text(entry)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])

    def run(*command):
        return subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=100,
        )

    done = run("-c", "from mltraq_ds import save; save(1, 'x', storage_backend='ledge')")
    assert (done.returncode, (tmp_path / "kept").exists()) == (9, True), done.stderr
    check = run("-m", "mltraq_ds.cli", "check")
    assert check.returncode == 1
    assert "The storage backend 'ledge' may keep the value at 'here'." in check.stdout
    run("-m", "mltraq_ds.cli", "sweep")
    assert not (tmp_path / "kept").exists()
    assert run("-m", "mltraq_ds.cli", "check").returncode == 0
