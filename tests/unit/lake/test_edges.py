"""Edges of the lake's verbs: leftovers, files of users, typing errors, links whose target is gone."""

import pytest
from lake_scene import RUNS, Files, open_session, values_of

from mltraq_ds import lake
from mltraq_ds.errors import DanglingReferenceError, RemotesError, UsageError
from mltraq_ds.lake.remotes import GRACE_S
from mltraq_ds.storage import open_storage, remote_urls
from mltraq_ds.storage.remote_urls import parse_remote

BLOBS = 2 * RUNS + 1


def test_a_sweep_removes_what_kills_have_left(session, home):
    """Unfinished uploads that are older than the grace go, young ones and files of others stay."""
    lake.upload(session, remotes=home.root)
    left, other = home.root / ".tmp-0123456789abcdef", home.root / "readme.txt"
    left.write_bytes(b"half")
    other.write_text("ours")
    assert lake.sweep(home.root, refs=session, dry_run=False).rows == ()
    assert lake.sweep(home.root, refs=session, grace_s=0).actions() == {"would go": 1}
    assert left.exists()
    assert lake.sweep(home.root, refs=session, grace_s=0, dry_run=False).actions() == {"removed": 1}
    assert (left.exists(), other.exists()) == (False, True)
    assert lake.verify(session).actions() == {"intact": BLOBS}


def test_a_file_of_a_user_stops_no_sweep(session, files, home):
    """A file that only ends like a pointer is none; a pointer that cannot be read stops the sweep, and is named."""
    lake.upload(session, remotes=home.root)
    (files.root / "mine").mkdir()
    (files.root / "mine" / "x.remote").write_text("hello")
    assert lake.sweep(home.root, refs=(one for one in [session]), grace_s=0, dry_run=False).rows == ()
    kept = next(path for path in files.root.glob("*/*.remote") if len(path.stem) == 32)
    copy = files.root / "mine" / "copy.remote"
    copy.write_bytes(kept.read_bytes())
    lake.remove(session, remotes=home.root)
    assert lake.sweep(home.root, refs=session, grace_s=0, dry_run=False).count("removed") == BLOBS - 1
    (files.root / "mine" / f"{'0' * 32}.remote").write_text("hello")
    with pytest.raises(RemotesError, match=rf"The pointer mine/{'0' * 32}\.remote cannot be read"):
        lake.sweep(home.root, refs=session, grace_s=0, dry_run=False)


@pytest.mark.parametrize("url", ["s3:/x", "s3:x", "S3:/bucket/x", "gs:/b", "memory:x"])
def test_a_slash_too_few(url, tmp_path, monkeypatch):
    """A typing error makes no folder; a folder of such a name can be asked for."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="a slash too few"):
        parse_remote(url)
    assert parse_remote(f"./{url}").public_url.startswith("file://")
    assert list(tmp_path.iterdir()) == []


def test_links_whose_target_is_gone(session, files, home, tmp_path):
    """It is said that the blob is gone; with a pointer beside it the remote delivers, and cloning again repairs."""
    clone = Files(tmp_path / "clone")
    lake.clone(session, clone.root, mode="SYM_LINK")
    lake.upload(session, remotes=home.root)
    lake.clone(session, tmp_path / "pointed", mode="SYM_LINK")
    lake.drop(session)
    with pytest.raises(DanglingReferenceError, match="gone"):
        values_of(open_session(clone.root))
    assert values_of(open_session(tmp_path / "pointed")) == values_of(session)
    with pytest.raises(RemotesError, match="on remotes only"):
        lake.clone(session, clone.root, mode="SYM_LINK")
    lake.clone(session, clone.root)
    for path in (tmp_path / "store").glob("*/*.remote"):  # for `pull`, a broken link is as good as nothing
        (tmp_path / "pointed" / path.relative_to(tmp_path / "store")).write_bytes(path.read_bytes())
    assert lake.pull(tmp_path / "pointed").actions() == {"pulled": BLOBS}
    assert Files(tmp_path / "pointed").blobs() == clone.blobs()
    assert not any(path.is_symlink() for path in clone.root.glob("*/*"))
    assert values_of(open_session(clone.root)) == values_of(session)


@pytest.mark.parametrize("mode", ["HARD_LINK", "SYM_LINK"])
def test_links_that_are_damaged(session, files, tmp_path, mode):
    """What stands for a blob in a clone is replaced if it is damaged and the blob itself is not."""
    lake.clone(session, tmp_path / "clone")
    for path in (tmp_path / "clone").glob("*/*"):
        if len(path.name) == 32:
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-3])
    lake.clone(session, tmp_path / "clone", mode=mode)
    assert Files(tmp_path / "clone").blobs() == files.blobs()
    assert not list((tmp_path / "clone").glob("*/.tmp-*"))


def test_a_clone_of_pointers_makes_objects_young(session, home, tmp_path, monkeypatch):
    """A sweep under way does not take what the clone relies on."""
    lake.upload(session, remotes=home.root)
    storage = open_storage(home.root)
    before = {name: storage.stat(name).modified for name in home.objects()}
    now = type(storage).now
    monkeypatch.setattr(type(storage), "now", lambda self: now(self) + GRACE_S * 0.6)
    remote_urls.forget_remotes()
    lake.clone(session, tmp_path / "clone", mode="REMOTE_FILE")
    assert all(storage.stat(name).modified > before[name] for name in home.objects())


def test_removing_several_at_a_time(session, files, home):
    """`remove` has jobs as all verbs."""
    lake.upload(session, remotes=home.root)
    assert lake.remove(session, remotes=home.root, jobs=2).actions() == {"forgotten": BLOBS}
