"""Local bytes that are wrong while remotes have the right ones: read, pulled, uploaded, dropped, cloned."""

import re
import warnings

import pytest
from lake_scene import RUNS, Files, expected, open_session, values_of

from mltraq_ds import lake
from mltraq_ds.errors import CorruptBlobError, RemoteFailedWarning, RemotesError

BLOBS = 2 * RUNS + 1


def flip(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


DAMAGES = {
    "flipped": lambda data: flip(data, 600),
    "index": lambda data: flip(data, int(re.search(rb"index=(\d{20})", data)[1]) + 5),
    "cut": lambda data: data[:-1],
    "empty": lambda data: b"",
}


def damage(files, change):
    """Damage every local blob."""
    for path in files.root.glob("*/*"):
        if len(path.name) == 32:
            path.chmod(0o644)
            path.write_bytes(change(path.read_bytes()))


@pytest.fixture(params=DAMAGES)
def good(request, session, files, home, tmp_path):
    """The bytes of the blobs, which are on two remotes and wrong here."""
    found = files.blobs()
    lake.upload(session, remotes=[home.root, tmp_path / "second"])
    damage(files, DAMAGES[request.param])
    return found


def test_reading_goes_on_to_the_remotes(good, files):
    """Every value is right, and a warning names the store and the remedy."""
    with pytest.warns(RemoteFailedWarning, match="remote pull"):
        assert values_of(open_session(files.root)) == expected()


def test_reading_without_a_remote_that_delivers(good, files, home, tmp_path):
    """What is wrong here is among the causes when nobody else delivers, and without a pointer it is what it was."""
    home.root.rename(tmp_path / "away")
    (tmp_path / "second").rename(tmp_path / "away2")
    with warnings.catch_warnings(), pytest.raises(RemotesError, match=f"{files.root}.*lake.*second|store.*lake"):
        warnings.simplefilter("ignore", RemoteFailedWarning)
        values_of(open_session(files.root))
    for path in files.root.glob("*/*.remote"):
        path.unlink()
    with pytest.raises(CorruptBlobError):
        values_of(open_session(files.root))


def test_check_looks_at_what_is_here(good, session):
    """The remotes do not hide damage from those who look for it."""
    assert set(session.check(deep=True).kinds()) == {"corrupt blob"}


def test_pull_repairs(good, session, files):
    """The bytes here are replaced by those of a remote; the second time there is nothing to do."""
    assert lake.pull(session).actions() == {"repaired": BLOBS}
    assert files.blobs() == good
    assert len(lake.pull(session)) == 0
    assert session.check(deep=True).kinds() == {}


def test_pull_replaces_nothing_by_nothing(good, session, files, home, tmp_path):
    """While no remote delivers, what is here stays as it is."""
    here = files.blobs()
    home.root.rename(tmp_path / "away")
    (tmp_path / "second").rename(tmp_path / "away2")
    with pytest.raises(RemotesError, match="No remote delivers"):
        lake.pull(session)
    assert files.blobs() == here


def test_uploading_elsewhere(good, session, files, tmp_path):
    """A third remote gets the right bytes from the others."""
    with pytest.warns(RemoteFailedWarning):
        assert lake.upload(session, remotes=tmp_path / "third").actions() == {"uploaded": BLOBS}
    assert set(Files(tmp_path / "third").objects().values()) == set(good.values())


@pytest.mark.parametrize("verb", ["drop", "add"])
def test_dropping(good, session, files, home, verb):
    """Verified copies are elsewhere, so what is here may go."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RemoteFailedWarning)
        if verb == "drop":
            assert lake.drop(session).actions() == {"dropped": BLOBS}
        else:
            lake.add(session, remotes=home.root, in_place=True)
    assert files.blobs() == {}
    assert values_of(open_session(files.root)) == expected()


def test_cloning(good, session, tmp_path):
    """A clone gets the right bytes, and one whose own bytes are wrong is repaired by cloning again."""
    with pytest.warns(RemoteFailedWarning):
        lake.clone(session, tmp_path / "clone")
    clone = Files(tmp_path / "clone")
    assert clone.blobs() == good
    for change in DAMAGES.values():
        damage(clone, change)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RemoteFailedWarning)
            lake.clone(session, tmp_path / "clone")
        assert clone.blobs() == good
