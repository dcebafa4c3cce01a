"""check finds every kind of damage of saved artifacts, sweep removes what nothing refers to, and no more."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from mltraq_ds import artifact_store, delete, get, options, save
from mltraq_ds.errors import ArtifactNotFoundError, CorruptRecordError
from mltraq_ds.store import layout, versions
from mltraq_ds.tracking.default import default_session


@pytest.fixture
def folder(home):
    """Return the folder of an artifact with two versions, one blob each."""
    for number in (1, 2):
        save(np.full(3000, number), "w")
    return home / "store" / "artifacts" / "w"


def blob_of(folder, number):
    key = get("w", number).url.rpartition("/")[2]
    return folder / key


def check():
    return default_session().check(deep=True).kinds()


def sweep():
    return default_session().sweep(dry_run=False, grace_s=0).kinds()


def test_what_is_lost(folder):
    """A blob that is gone or was cut is named, and the other version is whole."""
    blob_of(folder, 1).unlink()
    cut = blob_of(folder, 2)
    cut.chmod(0o644)
    cut.write_bytes(cut.read_bytes()[:-1])
    assert check() == {"corrupt blob": 1, "dangling reference": 1}


def test_what_is_too_much(folder):
    """An orphan goes after the grace, other files stay, and a dry run removes nothing."""
    (folder / ("0" * 32)).write_bytes(b"x")
    (folder / "notes.txt").write_bytes(b"x")
    (folder / "versions" / "9.json").write_bytes(b"")  # a save that was killed where there are no hard links
    assert check() == {"foreign file": 1, "orphan": 1}
    assert default_session().sweep(dry_run=True, grace_s=0).kinds() == {"orphan": 1}
    assert default_session().sweep(dry_run=False).young == 1
    assert sweep() == {"orphan": 1}
    assert check() == {"foreign file": 1}
    assert save(1, "w").version == 10
    assert [one.version for one in artifact_store()] == [1, 2, 10]


def test_bare_folders(folder):
    """A folder whose only save was killed goes; one that others have put there is left alone."""
    bare = folder.parent / "bare"
    (bare / "versions").mkdir(parents=True)
    (bare / "_meta.json").write_bytes((folder / "_meta.json").read_bytes())
    assert check() == {"orphan": 1, "unreadable descriptor": 1}, "it is the mark of another artifact"
    (bare / "_meta.json").write_bytes(layout.artifact_meta_bytes("bare"))
    (folder.parent / "theirs").mkdir()
    (folder.parent / "theirs" / "x").write_bytes(b"x")
    assert check() == {"orphan": 1}
    assert sweep() == {"orphan": 1}
    assert not bare.exists()
    assert (folder.parent / "theirs" / "x").exists()


def test_a_mark_that_is_gone(folder):
    """Without its mark a folder is still known by its versions; the next save makes a new one."""
    (folder / "_meta.json").unlink()
    assert check() == {"unreadable descriptor": 1}
    save(1, "w")
    assert check() == {}


def test_files_that_were_lost_stop_a_sweep(folder):
    """If the database knows of a version whose file is gone, nobody knows what it needs, and nothing is removed."""
    (folder / "versions" / "2.json").unlink()
    assert check() == {"index drift": 1, "orphan": 1}
    with pytest.raises(CorruptRecordError, match=r"the database has artifacts/w/versions/2.json"):
        sweep()
    default_session().rebuild_index()
    assert sweep() == {"orphan": 1}
    with pytest.raises(ArtifactNotFoundError, match="no version 2"):
        get("w", 2)


@pytest.mark.parametrize("way", ["lost", "emptied"])
def test_an_older_version_is_never_taken_for_the_newest(folder, way):
    """If the newest version is gone or empty and the database knows it, that is told; numbers still work."""
    path = folder / "versions" / "2.json"
    path.unlink()
    if way == "emptied":
        path.write_bytes(b"")
    for read in (lambda: get("w"), lambda: get("w", 2), lambda: delete("w", "latest")):
        with pytest.raises(CorruptRecordError, match=r"artifacts/w/versions/2\.json is (gone|empty)"):
            read()
    assert get("w", 1).get_value()[0] == 1
    report = default_session().check()
    (drift,) = (one for one in report if one.kind == "index drift")
    assert drift.key == "artifacts/w/versions/2.json"
    assert "there in the index" in drift.detail
    assert "nothing was lost" not in str([note.detail for note in report.notes])
    (folder / "versions" / "1.json").rename(folder / "1.json")
    with pytest.raises(CorruptRecordError, match="versions/2"):  # the database knows both: the newest is told
        get("w")
    (folder / "1.json").rename(folder / "versions" / "1.json")
    default_session().rebuild_index()
    assert get("w").version == 1


def test_a_version_that_comes_between_the_two_looks(folder, monkeypatch):
    """What is saved after the files were listed and before the database is asked is the newest, and no loss."""
    numbers = versions.numbers

    def before_a_save(*of):
        monkeypatch.setattr(versions, "numbers", numbers)
        found = numbers(*of)
        save(3, "w")
        return found

    monkeypatch.setattr(versions, "numbers", before_a_save)
    assert get("w").version == 3
    delete("w", 3)
    assert get("w").version == 2


def test_rows_that_were_lost(folder, home):
    """Rows that are gone or say otherwise are drift, and a rebuild makes them what the files say."""
    default_session().close()
    with closing(sqlite3.connect(home / "index.db")) as connection, connection:
        connection.execute("DELETE FROM mltraq_artifacts WHERE version = 1")
        connection.execute("UPDATE mltraq_artifacts SET state = 'deleted' WHERE version = 2")
    assert check() == {"index drift": 2}
    default_session().rebuild_index()
    assert check() == {}
    assert [one.version for one in artifact_store()] == [1, 2]


def test_damaged_versions_keep_their_rows(folder):
    """A rebuild skips a version that cannot be read, says so, and leaves its row."""
    path = folder / "versions" / "1.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-9])
    report = default_session().rebuild_index()
    assert [(one.kind, one.key) for one in report] == [("unreadable record", "artifacts/w/versions/1.json")]
    assert artifact_store().df().version.tolist() == [1, 2]
    assert get("w").version == 2


def test_without_database(folder, home):
    """The files are checked also when the database does not answer, which is a finding of its own."""
    default_session().close()
    options.set("database.url", f"sqlite:///{home}/no/such/folder/index.db")
    assert set(check()) == {"unreachable database"}
