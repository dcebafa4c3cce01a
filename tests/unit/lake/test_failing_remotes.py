"""Remotes that are down, slow or break off in the middle: the next one is asked, and who failed is named."""

import json
import socket
import warnings

import pytest
from lake_scene import RUNS, Files, expected, open_session, values_of

from mltraq_ds import lake
from mltraq_ds.errors import NotFoundError, RemoteFailedWarning, RemotesError, StorageError
from mltraq_ds.storage import open_storage, remote_urls
from mltraq_ds.testing import Delay, Fail, FaultStorage

BLOBS = 2 * RUNS + 1


def strike(folder, plan):
    """Have a remote fail as planned, from now on."""
    remote_urls.forget_remotes()
    remote_urls._opened[folder.as_uri(), "{}"] = FaultStorage(open_storage(folder), plan)


VERBS = {
    "pull": lambda session, root: lake.pull(session).actions(),
    "clone": lambda session, root: lake.clone(session, root / "clone").actions(),
    "upload": lambda session, root: lake.upload(session, remotes=root / "third").actions(),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("when", ["open", "read_range"])
def test_the_first_remote_fails(session, files, home, tmp_path, verb, when):
    """Whether it fails when it is opened or while it is read, the second delivers, and the first is named."""
    good = files.blobs()
    lake.add(session, remotes=[home.root, tmp_path / "second"], in_place=True)
    strike(home.root, lambda call: Fail() if call.verb == when else None)
    with pytest.warns(RemoteFailedWarning, match="lake"):
        done = VERBS[verb](session, tmp_path)
    assert list(done.values()) == [BLOBS]
    found = {"pull": files, "clone": Files(tmp_path / "clone"), "upload": Files(tmp_path / "third")}[verb]
    assert set((found.objects() if verb == "upload" else found.blobs()).values()) == set(good.values())


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_written_to_fails(session, home, tmp_path, verb):
    """A failure of the other side is not taken for one of the remotes that were read."""
    lake.add(session, remotes=[home.root, tmp_path / "second"], in_place=True)
    if verb == "upload":
        strike(tmp_path / "third", lambda call: Fail() if call.verb == "put" and call.key != "_lake.json" else None)
        target, store = tmp_path / "third", session
    else:
        store = FaultStorage(open_storage(tmp_path / "store"), lambda call: Fail() if call.verb == "put" else None)
        target = tmp_path / "store"
    if verb == "clone":
        store, target = session, FaultStorage(open_storage(tmp_path / "clone"), lambda call: None)
        target.plan = lambda call: Fail() if call.verb == "put" and len(call.key.rpartition("/")[2]) == 32 else None
        with pytest.raises(RemotesError, match="(?s)put '.*' in") as caught:
            lake.clone(store, target)
    else:
        with pytest.raises((RemotesError, StorageError), match="(?s)put '.*' in") as caught:
            VERBS[verb](store, tmp_path)
    assert "No remote delivers" not in str(caught.value)


def test_drop_goes_by_the_others(session, files, home, tmp_path):
    """A remote that is down is no copy; what the others have is enough if it is as many as were asked for."""
    lake.upload(session, remotes=[home.root, tmp_path / "second"])
    strike(home.root, lambda call: Fail() if call.verb == "open" else None)
    with pytest.raises(RemotesError, match=r"1 verified copies.*lake"):
        lake.drop(session, num_copies=2)
    assert len(files.blobs()) == BLOBS
    assert lake.drop(session, num_copies=1).actions() == {"dropped": BLOBS}


@pytest.mark.parametrize("verb", VERBS)
def test_slow_remotes(session, files, home, tmp_path, verb):
    """A slow remote is waited for, whatever reads from it."""
    lake.add(session, remotes=home.root, in_place=True)
    strike(home.root, lambda call: Delay(0.05))
    assert list(VERBS[verb](session, tmp_path).values()) == [BLOBS]
    assert values_of(open_session(files.root)) == expected()


@pytest.mark.parametrize("verb", VERBS)
def test_a_server_that_is_not_there(session, files, tmp_path, monkeypatch, verb):
    """A bucket of a server that nobody listens at stands first: nothing is lost but time."""
    pytest.importorskip("s3fs")
    monkeypatch.setenv("MINIO_ACCESS_KEY", "nobody")
    monkeypatch.setenv("MINIO_SECRET_KEY", "nothing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    lake.add(session, remotes=tmp_path / "second", in_place=True, keys="images")
    for path in files.root.glob("*/*.remote"):
        document = json.loads(path.read_text())
        document["remotes"].insert(0, f"s3://127.0.0.1:{port}/bucket?secure=false")
        path.chmod(0o644)
        path.write_text(json.dumps(document))
    with pytest.warns(RemoteFailedWarning, match=str(port)):
        VERBS[verb](session, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RemoteFailedWarning)
        assert values_of(open_session(files.root)) == expected()


def test_one_pointer_that_cannot_be_read(session, files, home):
    """Such as one with the marks of a merge: all others are looked at, and it is named."""
    lake.upload(session, remotes=home.root)
    path = next(files.root.glob("*/*.remote"))
    path.chmod(0o644)
    path.write_text("<<<<<<< HEAD\n")
    report = lake.status(session)
    assert report.actions() == {"local and remote": BLOBS - 1, "unreadable": 1}
    assert path.name in str(report)
    with pytest.raises(RemotesError, match=f"1 of {BLOBS} blobs could not be verified.*The pointer .* cannot be read"):
        lake.verify(session)


def test_one_version_that_cannot_be_read(session, files, home):
    """The other experiments are looked at all the same."""
    other = session.create_experiment("other").add_run(score=1)
    other.persist()
    lake.upload(session, remotes=home.root)
    path = next(files.root.glob(f"{other.id_experiment}/generations/*.json"))
    path.chmod(0o644)
    path.write_text("{")
    assert lake.status(session).actions() == {"local and remote": BLOBS, "unreadable": 1}
    with pytest.raises(RemotesError, match="1 of 8"):
        lake.verify(session)


def test_verify_of_a_remote_that_nobody_names(session, home, tmp_path):
    """A typing error is no success."""
    lake.upload(session, remotes=home.root)
    with pytest.raises(NotFoundError, match="remote status"):
        lake.verify(session, remote=tmp_path / "typo")


def test_two_urls_of_one_place(session, home, tmp_path):
    """Once they were looked at, they count as one copy."""
    (tmp_path / "alias").symlink_to(home.root)
    lake.upload(session, remotes=[home.root, tmp_path / "alias"])
    lake.verify(session)
    assert {row.num_copies for row in lake.status(session).rows} == {1}
    assert set(lake.status(session).df().copies) == {1}


def test_given_order_comes_first(session, files, home, tmp_path):
    """Readers ask in the order that was given last; what was there before follows."""
    lake.upload(session, remotes=home.root)
    lake.upload(session, remotes=[tmp_path / "second", home.root])
    (urls,) = {tuple(pointer["remotes"]) for pointer in files.pointers().values()}
    assert [url.rpartition("/")[2] for url in urls] == ["second", "lake"]
    lake.upload(session, remotes=tmp_path / "third")
    (urls,) = {tuple(pointer["remotes"]) for pointer in files.pointers().values()}
    assert [url.rpartition("/")[2] for url in urls] == ["third", "second", "lake"]
