"""Artifacts as users save, get, list and delete them; what was written is read back in other ways too."""

import json
import pickle
import sqlite3
import string
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mltraq_ds
from mltraq_ds import Artifact, DataStore, File, Pickled, artifact_store, delete, get, options, save
from mltraq_ds.errors import (
    ArtifactNotFoundError,
    ConcurrentPersistError,
    CorruptBlobError,
    CorruptRecordError,
    DatabaseUnavailableError,
    PickleRefusedError,
    UnknownStoreError,
    UnsupportedTypeError,
    UsageError,
)
from mltraq_ds.storage import LocalStorage
from mltraq_ds.store import layout, versions
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.keeper import Keeper
from mltraq_ds.tracking.default import default_session

WEIGHTS = np.arange(6000, dtype="<f4").reshape(30, 200)


def files(home, pattern="*"):
    return sorted(path for path in (home / "store" / "artifacts").rglob(pattern) if path.is_file())


def blobs(home):
    return [path for path in files(home) if len(path.name) == 32]


VALUES = [
    3.5,
    "text",
    None,
    [1, {"a": (2, float("inf"))}],
    WEIGHTS,
    pd.DataFrame({"x": [1, 2], "y": ["a", None]}),
    b"x" * 9,
]


def is_same(again, value):
    """Compare value and type; frames by what is in them, since equal ones pickle to other bytes in old pandas."""
    if type(value) is pd.DataFrame:
        return type(again) is pd.DataFrame and again.equals(value) and list(again.dtypes) == list(value.dtypes)
    return pickle.dumps(again) == pickle.dumps(value)


def test_what_was_saved_comes_back(home):
    """Values of each kind, small and large, come back in this process and in a new one; equal ones have one digest."""
    options.set("mlflow.tracking_uri", "http://127.0.0.1:9")  # a default for models: nobody is asked for other values
    for number, value in enumerate(VALUES, 1):
        artifact = save(value, "thing")
        assert (artifact.name, artifact.version, artifact.storage_backend) == ("thing", number, "native")
        assert datetime.now(UTC) - artifact.created_at < timedelta(minutes=5)
        assert artifact.digest.startswith("sha256:")
        assert save(value, "other").digest == artifact.digest
    found = [get("thing", number).get_value() for number in range(1, len(VALUES) + 1)]
    assert all(map(is_same, found, VALUES))
    code = (
        "import sys, pickle, mltraq_ds as m; m.options.set('database.url', sys.argv[1]);"
        "m.options.set('datastore.url', sys.argv[2]);"
        "sys.stdout.buffer.write(pickle.dumps([a.get_value() for a in m.artifact_store() if a.name == 'thing']))"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{home}/index.db", str(home / "store")]
    there = pickle.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert len(there) == len(VALUES)
    assert all(map(is_same, there, VALUES))


def test_other_tools_read_it(home):
    """The blob is a ZIP that NumPy opens, and the version is JSON with a checksum, without this library."""
    url = save(WEIGHTS, "weights").url
    (blob,) = blobs(home)
    assert url == f"file:///artifacts/weights/{blob.name}"
    with np.load(blob) as archive:
        assert archive["value"].tobytes() == WEIGHTS.tobytes()
    (path,) = files(home, "1.json")
    assert json.loads(path.read_text())["name"] == "weights"
    rows = sqlite3.connect(home / "index.db").execute(
        "SELECT folder, version, name, storage_backend, type, n_bytes, state FROM mltraq_artifacts"
    )
    expected = ("artifacts/weights", 1, "weights", "native", "numpy.ndarray", blob.stat().st_size, "current")
    assert rows.fetchall() == [expected]


def test_versions_count_up_and_share_nothing(home):
    """The same value saved twice is two versions with bytes of their own: deleting one leaves the other whole."""
    assert [save(WEIGHTS, "w").version for _ in range(3)] == [1, 2, 3]
    assert len(blobs(home)) == 3
    delete("w", 2)
    assert len(blobs(home)) == 2
    assert [get("w", number).get_value().tobytes() for number in (1, 3)] == [WEIGHTS.tobytes()] * 2
    with pytest.raises(ArtifactNotFoundError, match=r"version 2 of artifact 'w' was deleted.*version 1, 3"):
        get("w", 2)
    assert len(default_session().check(deep=True)) == 0


@pytest.mark.parametrize("which", ["latest", 2, "all"])
def test_numbers_are_never_given_again(home, which):
    """After the latest version was deleted, the next one gets a new number, also after the database was lost."""
    save(1, "x")
    save(2, "x")
    delete("x", which)
    default_session().close()
    (home / "index.db").unlink()
    default_session().rebuild_index()
    assert save(3, "x").version == 3
    assert get("x").get_value() == 3


def test_numbers_of_lost_files_are_never_given_again(home):
    """If the newest files were lost and the database knows of them, their numbers stay taken, also after a rebuild."""
    for value in range(3):
        save(value, "x")
    (home / "store/artifacts/x/versions/3.json").unlink()
    assert [one.kind for one in default_session().check()] == ["index drift"]
    default_session().rebuild_index()
    assert len(default_session().check()) == 0
    assert [artifact.version for artifact in artifact_store()] == [1, 2]
    assert save(9, "x").version == 4


def test_nothing_is_left_of_a_deleted_value(home):
    """The bytes go, the source goes, and only the number is left; deleting again says so."""
    save(WEIGHTS, "w")
    delete("w", "all")
    assert blobs(home) == []
    assert json.loads(files(home, "1.json")[0].read_text())["code"] == {}
    assert len(artifact_store()) == 0
    with pytest.raises(ArtifactNotFoundError, match="deleted before"):
        delete("w", 1)
    with pytest.raises(ArtifactNotFoundError, match="No artifact is named 'w'"):
        delete("w", "all")
    with pytest.raises(ArtifactNotFoundError, match="No artifact is named 'w'"):
        delete("w", "latest")


def test_the_list(home):
    """artifact_store() is a sequence, a table and a text of all versions, by name and number."""
    save(WEIGHTS, "b")
    save(1, "a")
    save(2, "a")
    delete("a", 1)
    store = artifact_store()
    assert [(one.name, one.version) for one in store] == [("a", 2), ("b", 1)]
    assert (len(store), store[-1].name, [one.get_value() for one in store[:1]]) == (2, "b", [2])
    table = store.df()
    assert table[["name", "version", "storage_backend", "type"]].to_numpy().tolist() == [
        ["a", 2, "native", "builtins.int"],
        ["b", 1, "native", "numpy.ndarray"],
    ]
    assert repr(store).startswith("ArtifactStore with 2 versions of artifacts\n'a':2 created at 20")
    assert len(artifact_store().df()) == 2


def test_an_empty_store(home):
    """Before anything is saved there is nothing to list, and looking makes no store."""
    assert len(artifact_store()) == 0
    with pytest.raises(ArtifactNotFoundError, match="No artifact is named 'x'"):
        get("x")
    assert not (home / "store").exists()


def test_unknown_names_and_versions(home):
    """The nearest name is told, the versions that there are, and what a version is."""
    save(1, "model")
    with pytest.raises(ArtifactNotFoundError, match=r"named 'modle'.*Did you mean 'model'"):
        get("modle")
    with pytest.raises(ArtifactNotFoundError, match=r"'model' has no version 7. There is version 1"):
        get("model", 7)
    for wrong in ("1", 1.0, True):
        with pytest.raises(UsageError, match="is no version"):
            get("model", wrong)
    with pytest.raises(UsageError, match="is a string, not int"):
        get(1)
    with pytest.raises(UsageError, match="is a string, not NoneType"):
        save(1, None)


def test_swapped_arguments_and_latest(home):
    """A name that is given first is told in a sentence; "latest" means for `get` what it means for `delete`."""
    with pytest.raises(UsageError, match=r"save\('weights', …\) was given a name first.*Write save\(value, name\)"):
        save("weights", np.ones(3))
    save(1, "weights")
    save(2, "weights")
    assert get("weights", "latest").get_value() == 2


def test_refused_values_change_nothing(home):
    """A value that no codec takes, an unknown backend or argument: nothing is written, not even a folder."""
    save(1, "first")
    before = [(path, path.read_bytes()) for path in files(home)]
    with pytest.raises(UnsupportedTypeError, match=r"'x'.*object.*opt in to pickle"):
        save(object(), "x")
    with pytest.raises(
        UsageError, match=r"no storage backend 'mflow'. Did you mean 'mlflow'\? There are 'mlflow', 'native'"
    ):
        save(1, "x", storage_backend="mflow")
    with pytest.raises(UsageError, match=r"'registered_model_name', which the storage backend 'native' does not take"):
        save(1, "x", registered_model_name="clf")
    with pytest.raises(UsageError, match="surrogates"):
        save(1, "\ud83d\ude00")
    assert [(path, path.read_bytes()) for path in files(home)] == before
    assert list((home / "store" / "_pending").iterdir()) == []


NAMES = st.text(st.characters(codec="utf-8"), max_size=300) | st.text(string.printable, max_size=8)


@settings(max_examples=10)
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_names_are_data(tmp_path_factory, names):
    """Any text is a name, and different ones are different artifacts, also to the database and on any file system."""
    folder = tmp_path_factory.mktemp("names")
    with options.ctx(
        {
            "database.url": "sqlite://",
            "datastore.url": str(folder),
            "datastore.durability": "relaxed",
            "tqdm.disable": True,
        }
    ):
        for name in names:
            assert save(name, name).version == 1
        assert {name: get(name).get_value() for name in names} == {name: name for name in names}
        assert sorted(one.name for one in artifact_store()) == sorted(names)
        assert len({path.name.lower() for path in (folder / "artifacts").iterdir()}) == len(names)
        default_session().close()


@pytest.mark.parametrize(
    "name", ["a\0b", "\ud800", "..", "../../x", "artifacts", "_meta.json", "A", "a", "", "x" * 999]
)
def test_odd_names(home, name):
    """Names that no database or file system holds as they are come back exactly."""
    save([1], name)
    assert get(name).name == name
    assert [one.name for one in artifact_store()] == [name]
    assert artifact_store().df().name.tolist() == [name]
    default_session().rebuild_index()
    assert [one.name for one in artifact_store()] == [name]
    assert all(path.is_relative_to(home / "store" / "artifacts") for path in files(home))


def test_datastores_and_files(home):
    """A DataStore with others inside and a file come back lazily; the caller's own stay as they were."""
    (home / "model.bin").write_bytes(b"x" * 5000)
    inner = DataStore(x=WEIGHTS)
    outer = DataStore(inner=inner, model=File(home / "model.bin"))
    save(outer, "ds")
    found = get("ds").get_value()
    assert found.inner.x.tobytes() == WEIGHTS.tobytes()
    assert found.model.read_bytes() == b"x" * 5000
    save(found, "copy")
    delete("ds", "all")
    assert get("copy").get_value().inner.x.tobytes() == WEIGHTS.tobytes()
    assert outer.inner is inner


def test_pickles_are_the_readers_choice(home):
    """A pickle is written only where asked for, and runs only for a reader who says so, by argument or option."""
    save(Pickled({1, 2}), "p")
    with pytest.raises(PickleRefusedError):
        get("p").get_value()
    assert get("p").get_value(allow_pickle=True) == {1, 2}
    options.set("serialization.allow_pickle", True)
    assert get("p").get_value() == {1, 2}
    with pytest.raises(PickleRefusedError):
        get("p").get_value(allow_pickle=False)


def test_deleted_while_held(home):
    """An artifact that somebody else deletes says so when its value is asked for."""
    save(WEIGHTS, "w")
    held = get("w")
    delete("w", 1)
    with pytest.raises(ArtifactNotFoundError, match="version 1 of artifact 'w' was deleted"):
        held.get_value()


def test_damage(home):
    """A changed byte of a value or a version is an error that names the file, and check finds it."""
    save(WEIGHTS, "w")
    save([1, 2], "v")
    blob = blobs(home)[0]
    data = bytearray(blob.read_bytes())
    data[1000] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    with pytest.raises(CorruptBlobError):
        get("w").get_value()
    version = home / "store/artifacts/v/versions/1.json"
    version.chmod(0o644)
    version.write_text(version.read_text().replace("[1, 2]", "[1, 3]"))
    with pytest.raises(CorruptRecordError, match="artifacts/v/versions/1.json does not verify"):
        get("v")
    assert default_session().check(deep=True).kinds() == {"corrupt blob": 1, "unreadable record": 1}
    with pytest.raises(CorruptRecordError, match="sweep was stopped"):
        default_session().sweep(dry_run=False, grace_s=0)


def test_a_version_moved_elsewhere_is_refused(home):
    """A version under another name or number, or one that refers to files of others, is not believed."""
    save(1, "a")
    save(2, "b")
    store = LocalStorage(home / "store")
    data = (home / "store/artifacts/a/versions/1.json").read_bytes()
    for key in ("artifacts/b/versions/1.json", "artifacts/a/versions/2.json"):
        store.put(key, [data], size=len(data), replace=True)
    with pytest.raises(CorruptRecordError, match="moved here from elsewhere"):
        get("b")
    with pytest.raises(CorruptRecordError, match="moved here from elsewhere"):
        get("a")
    version = versions.read(store, "artifacts/a", 1)
    stolen = replace(version, retires=("artifacts/b/" + "0" * 32,)).to_bytes()
    store.put(version.key, [stolen], size=len(stolen), replace=True)
    with pytest.raises(CorruptRecordError, match="files of another artifact"):
        get("a", 1)


def test_metadata_and_pickling(home):
    """What is known without reading the value; an artifact sent to another process reads there."""
    artifact = save(WEIGHTS, "w")
    known = artifact.get_metadata()
    assert known["type"] == "numpy.ndarray"
    assert known["size_bytes"] == blobs(home)[0].stat().st_size
    assert {"name", "version", "created_at", "storage_backend", "digest", "url"} < set(known)
    again = pickle.loads(pickle.dumps(artifact))
    assert isinstance(again, Artifact)
    assert again.get_value().tobytes() == WEIGHTS.tobytes()
    assert repr(again) == "Artifact('w', version=1, type='numpy.ndarray', storage_backend='native')"


def test_the_database_is_not_needed_to_load(home):
    """Without database a value is found by its name; the list says what is wrong, and a rebuild restores it."""
    save(1, "x")
    default_session().close()
    options.set("database.url", f"sqlite:///{home}/no/such/folder/index.db")
    assert get("x").get_value() == 1
    with pytest.raises(DatabaseUnavailableError):
        artifact_store()
    with pytest.raises(DatabaseUnavailableError):
        save(2, "x")
    options.set("database.url", f"sqlite:///{home}/new.db")
    with pytest.raises(UnknownStoreError, match="rebuild_index"):
        artifact_store()
    report = default_session().rebuild_index()
    assert "1 versions of saved artifacts" in str(report)
    assert [one.get_value() for one in artifact_store()] == [1]


def test_the_store_can_be_moved(home):
    """A store that was renamed has the same artifacts, and urls that mean the same."""
    url = save(WEIGHTS, "w").url
    default_session().close()
    (home / "store").rename(home / "elsewhere")
    options.set("datastore.url", str(home / "elsewhere"))
    assert get("w").get_value().tobytes() == WEIGHTS.tobytes()
    assert get("w").url == url
    assert len(default_session().check(deep=True)) == 0


def test_a_storage_that_cannot_decide(home, monkeypatch):
    """Where the storage does not decide which of two writers was first, notes do: the second one is refused."""
    monkeypatch.setattr(LocalStorage, "creates_if_absent", False)
    assert [save(number, "x").version for number in (1, 2)] == [1, 2]
    other = Intent(writer="0", action="save", id_experiment="artifacts/x", name="x", parent=0, number=0)
    with Keeper(default_session().storage, other):
        with pytest.raises(ConcurrentPersistError, match=r"Artifact 'x' .* another writer .*, then try again"):
            save(3, "x")
        assert save(1, "y").version == 1
    assert save(3, "x").version == 3
    delete("x", "all")
    assert [one.name for one in artifact_store()] == ["y"]
    assert len(default_session().check()) == 0


def test_saved_by_a_step(home):
    """A step of a run saves where its experiment is, in this process and in workers, and the next session lists it."""
    session = mltraq_ds.create_session(f"sqlite:///{home}/other.db", home / "other")

    def step(run):
        save(run.params.i, "of a step")

    session.create_experiment().persist()
    for backend in ("threading", "loky"):
        session.create_experiment().add_runs(i=[1, 2]).execute(step, n_jobs=2, backend=backend)
    assert not (home / "store").exists()
    options.set("database.url", f"sqlite:///{home}/other.db")
    options.set("datastore.url", str(home / "other"))
    assert sorted(one.get_value() for one in artifact_store()) == [1, 1, 2, 2]
    assert [one.version for one in artifact_store()] == [1, 2, 3, 4]
    assert len(default_session().check()) == 0
    session.close()


def test_sql_finds_small_values(home):
    """A small plain value is in the row, for queries; what no database holds is only in the file."""
    save({"loss": 0.25, "inf": float("inf")}, "metrics")
    save("a\0b", "nul")
    table = default_session().query(
        "SELECT name, details ->> '$.value.loss' AS loss FROM mltraq_artifacts ORDER BY name"
    )
    assert table.loss.tolist()[0] == 0.25
    assert get("nul").get_value() == "a\0b"


def test_folders_of_artifacts_are_reserved():
    """Escaped names keep inside of their folder, whatever they are."""
    for name in ("..", "/etc", "a/../../b", "C:\\x", "%2e%2e"):
        folder = layout.artifact_folder(name)
        assert folder.startswith("artifacts/")
        assert folder.count("/") == 1


def test_moving_a_store_takes_them_along(home):
    """move_store() copies versions, blobs and rows of artifacts, and their numbers go on."""
    save(WEIGHTS, "w")
    save([1], "w")
    delete("w", 2)
    default_session().move_store(str(home / "moved"))
    options.set("datastore.url", str(home / "moved"))
    assert get("w").get_value().tobytes() == WEIGHTS.tobytes()
    assert [one.version for one in artifact_store()] == [1]
    assert save([2], "w").version == 3
    assert len(default_session().check(deep=True)) == 0


@pytest.mark.parametrize("version", [None, "lat", "1", "ALL"])
def test_delete_must_be_told_which(home, version):
    """What does not say which version is to go deletes nothing, and the sentence names all that may be said."""
    save(1, "x")
    with pytest.raises(
        UsageError, match=r"Nothing was deleted because .* a whole number such as 1, 'latest', or 'all'"
    ):
        delete("x", version)
    assert get("x").version == 1


def test_an_artifact_of_another_store(home):
    """If the store was changed without the database, get and delete say where the artifact is."""
    save(1, "model")
    options.set("datastore.url", str(home / "other"))
    for number in (1, 2):  # before there is a store, and after
        for ask in (lambda: get("model"), lambda: get("model", 1), lambda: delete("model", "all")):
            with pytest.raises(ArtifactNotFoundError, match=r"is in another store \(file.*/store, id .*hand in hand"):
                ask()
        save(number, "something else")
    with pytest.raises(ArtifactNotFoundError, match="No artifact is named 'modem'"):
        get("modem")


def test_nearest_names_without_rows(home):
    """Where the database knows nothing the files tell the nearest name, of artifacts that are there."""
    save(1, "weights")
    save(1, "weighty")
    delete("weighty", "all")
    options.set("database.url", f"sqlite:///{home}/new.db")
    with pytest.raises(ArtifactNotFoundError, match="Did you mean 'weights'"):
        get("weight")
