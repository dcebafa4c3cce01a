"""A dead writer's leftovers keep nobody out who may only read."""

import errno
import os
import shutil
import subprocess
import sys

import pytest

from mltraq_ds import create_session
from mltraq_ds.errors import LeftoversWarning, StorageError
from mltraq_ds.storage import open_storage
from mltraq_ds.store import index_lag, intents
from mltraq_ds.store.keeper import Keeper
from mltraq_ds.testing import Fail, FaultStorage
from tests.unit.store.test_recovery import as_dead, elsewhere, make, persist_until

WRITES = {"put", "make_folder", "move_folder", "delete", "delete_many", "delete_folder", "prune"}
DELETES = {"delete", "delete_many", "delete_folder", "move_folder"}


@pytest.fixture
def session(tmp_path):
    return create_session(url=f"sqlite:///{tmp_path}/x.db", store=tmp_path / "store")


def reader(tmp_path, refused, number=errno.EROFS, name="x"):
    """Return a session on a store whose storage refuses some verbs."""
    storage = open_storage(tmp_path / "store")
    refusing = FaultStorage(storage, lambda call: Fail(number) if call.verb in refused else None)
    return create_session(f"sqlite:///{tmp_path}/{name}.db", refusing)


@pytest.mark.parametrize(("refused", "number"), [(WRITES, errno.EROFS), (DELETES, errno.EACCES)])
@pytest.mark.parametrize("seam", ["claim", "folder", "blobs", "records", "commit", "end_replaced", "index", "retire"])
@pytest.mark.parametrize("door", ["same database", "rebuild"])
def test_who_may_only_read_reads_on(session, tmp_path, refused, number, seam, door):
    """Wherever a writer died: what is committed is loaded and listed, the intent stays, and a warning names it."""
    make(session).persist()
    left = as_dead(session, persist_until(session, make(session, more=2), seam, "replace"))
    only = reader(tmp_path, refused, number, "x" if door == "same database" else "other")
    with pytest.warns(LeftoversWarning, match=left.writer):
        if door == "rebuild":
            only.rebuild_index()
        assert only.ls().name.tolist() == ["e"]
    found = only.load_experiment("e").runs.first().fields.ds
    assert found == ({"a": 1, "more": 2} if seam in ("end_replaced", "index", "retire") else {"a": 1})
    assert [intent.key for intent in intents.list_intents(session.storage)] == [left.key]
    session = create_session(f"sqlite:///{tmp_path}/x.db", tmp_path / "store")
    assert session.load_experiment("e").runs.first().fields.ds == found
    assert intents.list_intents(session.storage) == []
    session.sweep(dry_run=False, grace_s=0)
    assert not list(session.check(deep=True))


def test_a_fence_that_is_refused(session, tmp_path):
    """The writer is on another machine and may come back: nothing of it is changed, and what was committed is read."""
    make(session).persist()
    away = elsewhere(id_experiment="somewhere")
    with Keeper(session.storage, away):
        pass
    storage = open_storage(tmp_path / "store")
    os.utime(tmp_path / "store" / away.key, (0, 0))
    refusing = FaultStorage(storage, lambda call: Fail(errno.EROFS) if call.verb in WRITES else None)
    late = storage.now() + intents.LEASE_S + 60
    refusing.now = lambda: late
    only = create_session(f"sqlite:///{tmp_path}/x.db", refusing)
    with pytest.warns(LeftoversWarning, match="w-elsewhere"):
        assert only.load_experiment("e").runs.first().fields.ds == {"a": 1}
    assert session.storage.exists(away.key)
    assert not session.storage.exists(away.fence_key)


def test_a_folder_that_was_renamed_away(session, tmp_path):
    """What a killed delete has moved aside stays where it is."""
    make(session).persist()
    (tmp_path / "store" / "_pending" / "deleted-1").mkdir(parents=True)
    only = reader(tmp_path, WRITES)
    with pytest.warns(LeftoversWarning, match="deleted-1"):
        assert only.ls().name.tolist() == ["e"]
    assert (tmp_path / "store" / "_pending" / "deleted-1").exists()


def test_a_mark_that_the_index_is_behind(session, tmp_path):
    """The rows are made what the files say although the mark cannot be removed; it stays for others."""
    make(session).persist()
    mark = index_lag.put_mark(session.storage, session.database)
    assert reader(tmp_path, WRITES).ls().name.tolist() == ["e"]
    assert session.storage.exists(mark)


def test_writing_is_refused_all_the_same(session, tmp_path):
    """Who may not write is told so when writing, and a sweep stops."""
    make(session).persist()
    as_dead(session, persist_until(session, make(session, "f"), "blobs"))
    only = reader(tmp_path, WRITES)
    with pytest.warns(LeftoversWarning), pytest.raises(StorageError):
        only.create_experiment("new").persist()
    with pytest.raises(StorageError):
        only.sweep(dry_run=False, grace_s=0)


_READ = """
import os, sys, warnings
warm, folder, user = sys.argv[1:]
from mltraq_ds import create_session
def read(place):
    session = create_session("sqlite://", place)
    session.rebuild_index()
    print(session.ls().name.tolist(), session.load_experiment("e").runs.first().fields.ds.a)
read(warm)  # imports, which another user may not be able to
if user != "0":
    os.setgid(int(user)), os.setuid(int(user))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print("only:")
    read(folder)
print(*(str(warning.message) for warning in caught))
"""


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_folder_that_may_only_be_read(session, tmp_path):
    """The system itself refuses: another user, or the permission taken away."""
    make(session).persist()
    warm = shutil.copytree(tmp_path / "store", tmp_path / "warm")
    left = as_dead(session, persist_until(session, make(session, "f"), "blobs"))
    places = [tmp_path / "store", *(tmp_path / "store").rglob("*")]
    is_root = os.geteuid() == 0
    above = [place for place in (tmp_path, *tmp_path.parents) if is_root and not place.stat().st_mode & 0o001]
    before = {place: place.stat().st_mode for place in (*places, *above)}
    try:
        for place in places:
            place.chmod(0o555 if place.is_dir() else 0o444)
        for place in above:
            place.chmod(before[place] | 0o011)
        done = subprocess.run(
            [sys.executable, "-c", _READ, str(warm), str(tmp_path / "store"), "65534" if is_root else "0"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "HOME": str(tmp_path)},
        )
    finally:
        for place, mode in before.items():
            place.chmod(mode)
    assert "['e'] 1" in done.stdout.partition("only:")[2], done.stderr
    assert left.writer in done.stdout
