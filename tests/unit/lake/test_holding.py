"""Whoever decides which bytes stay: for longer than a lease, and beside others."""

import threading

import pytest
from lake_scene import RUNS, expected, open_session, values_of

from mltraq_ds import lake
from mltraq_ds.errors import ConflictError, RemotesError
from mltraq_ds.lake import holding
from mltraq_ds.lake.remotes import Remote
from mltraq_ds.storage import open_storage
from mltraq_ds.store import lease

BLOBS = 2 * RUNS + 1


def forget_meanwhile(monkeypatch, work, last_look="is_intact"):
    """Do `work` whenever an object is looked at, right before its blob would be dropped."""
    original = getattr(Remote, last_look)

    def look(self, name, size):
        found = original(self, name, size)
        work()
        return found

    monkeypatch.setattr(Remote, last_look, look)


@pytest.mark.parametrize("verb", ["drop", "add"])
def test_a_lease_that_is_over(session, files, home, tmp_path, monkeypatch, verb):
    """A drop that outlives its lease removes nothing once somebody else may have forgotten the remotes."""
    lake.upload(session, remotes=home.root)
    monkeypatch.setattr(lease, "LEASE_S", 0.0)  # as if everything took longer
    forgotten = []

    def forget():
        monkeypatch.setattr(lease, "LEASE_S", 600.0 if forgotten else 0.0)
        if not forgotten:
            forgotten.append(True)
            storage = open_storage(files.root)
            for path in files.root.glob("*/*.remote"):
                storage.delete(path.relative_to(files.root).as_posix())

    forget_meanwhile(monkeypatch, forget, "is_intact" if verb == "drop" else "require_seen")
    with pytest.raises(RemotesError, match="lease was not renewed|changed meanwhile"):
        if verb == "drop":
            lake.drop(session, jobs=1)
        else:
            lake.add(session, remotes=home.root, in_place=True, jobs=1)
    assert len(files.blobs()) == BLOBS
    assert values_of(open_session(files.root)) == expected()


def test_forgetting_by_an_expired_lease(session, files, home, monkeypatch):
    """While two both believe that they decide, no blob ends up nowhere."""
    lake.upload(session, remotes=home.root)
    monkeypatch.setattr(lease, "LEASE_S", 0.0)

    def forget():
        with pytest.raises(RemotesError, match="lease was not renewed"):
            lake.remove(files.root, remotes=home.root)

    forget_meanwhile(monkeypatch, forget)
    with pytest.raises(RemotesError, match="lease was not renewed"):
        lake.drop(session, jobs=1)
    assert lake.status(session).actions() == {"local and remote": BLOBS}


def test_a_lease_is_renewed(session, monkeypatch):
    """A thread renews it while one blob takes longer than a lease."""
    monkeypatch.setattr(holding, "_RENEW_S", 0.01)
    renewed = threading.Event()
    monkeypatch.setattr(lease.Lease, "keep", lambda self: renewed.set())
    with holding.held(session.storage) as guard:
        assert renewed.wait(10)
        guard()


def test_a_lease_that_somebody_took(session):
    """Whose lease was taken over is told so right before a removal."""
    with holding.held(session.storage) as guard:
        (key,) = (stat.key for stat in session.storage.list("_pending"))
        session.storage.delete(key)
        with pytest.raises(ConflictError, match="Run it again"):
            guard()
