"""DataStoreIO: files of the user's own, which nothing of ours wipes and which cannot leave the store."""

import pickle

import numpy as np
import pytest

from mltraq_ds import DataStore, DataStoreIO, create_session, ids, options
from mltraq_ds.errors import CorruptBlobError, DanglingReferenceError, InvalidNameError, KeyMissingError, UsageError

OUTSIDE = [
    "..",
    "../x",
    "a/../../x",
    "/etc",
    "/",
    "a\\b",
    "C:/x",
    "a\0b",
    "%2e%2e/x",
    "%252e%252e/x",
    "a//b",
    ".",
    "a/.",
    " a",
]


@pytest.fixture
def session(tmp_path):
    return create_session(url=f"sqlite:///{tmp_path}/x.db", store=tmp_path / "store")


def test_bytes_and_values_round_trip(session):
    """What was written is read back in a new object: bytes raw, other values decoded."""
    raw = session.io.write(b"11111", "self_managed/x")
    value = session.io.serialize_write(np.arange(5), "self_managed/x")
    assert raw.url.startswith("file:///self_managed/x/")
    again = DataStoreIO(raw.url, store=session)
    assert again.read() == b"11111"
    assert again.exists()
    assert again.stat().size == 5
    with again.open() as stream:
        assert stream.read(2) == b"11"
        assert stream.seek(-1, 2) == 4
        assert stream.read() == b"1"
    assert np.array_equal(DataStoreIO(value.url, store=session).read_deserialize(np.ndarray), np.arange(5))
    assert session.io(value.url).read_deserialize().tolist() == [0, 1, 2, 3, 4]
    assert set(session.io.list("self_managed")) == {raw, value}


@pytest.mark.parametrize("content", [bytearray(b"ab"), memoryview(b"ab"), memoryview(b"axbx")[::2], b""])
def test_everything_bytes_like_is_written(session, content):
    """Any buffer is written as its bytes."""
    assert session.io.write(content, "p").read() == bytes(content)


@pytest.mark.parametrize("array", [
    np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(6, dtype=">i4"), np.zeros((0, 3)), np.zeros(2, "i4,f8"),
    np.arange(6.0).reshape(2, 3).T,
])  # fmt: skip
def test_arrays_are_written_as_their_bytes(session, array):
    """Any layout and any item that a buffer may have is written, in the order of C."""
    for content in (array, memoryview(array)):
        assert session.io.write(content, "p").read() == array.tobytes()


def test_a_datastore_inside_a_value_is_refused_with_the_way_out(session):
    """A DataStore in a list or a dict is refused like one alone, with its place; nothing is written."""
    for value in ([DataStore(a=1)], {"k": (DataStore(a=1),)}):
        with pytest.raises(UsageError, match=r"at \[.*belongs on a run.*use dict\(ds\)"):
            session.io.serialize_write(value, "p")
    assert session.io.list("p") == []


def test_a_url_of_nothing_is_not_called_damage(session):
    """A URL may be mistyped: the text says to check URL and store, and not that something refers to the blob."""
    session.io.write(b"1", "p")
    for read in (
        lambda: DataStore.from_url("file:///p/nothing", store=session),
        lambda: session.io("file:///p/nothing").read_deserialize(),
    ):
        with pytest.raises(DanglingReferenceError, match=r"no blob at file:///p/nothing.*Check the URL") as caught:
            read()
        assert "refers" not in str(caught.value)


def test_write_refuses_what_is_not_bytes(session):
    """A str or array passed to `write` is refused with the way out, and nothing is written."""
    with pytest.raises(UsageError, match="serialize_write"):
        session.io.write("text", "p")
    with pytest.raises(UsageError, match="serialize_write"):
        session.io.write(np.zeros(2, "M8[s]"), "p")
    assert session.io.list("p") == []


@pytest.mark.parametrize("prefix", [None, "", 5, *OUTSIDE])
def test_prefixes_that_leave_the_store_are_refused(session, prefix, tmp_path):
    """No entrance takes a prefix that is missing, empty, or could leave the store."""
    (tmp_path / "secret").write_text("secret")
    for call in (
        lambda: DataStoreIO.write(b"x", prefix, session),
        lambda: DataStoreIO.serialize_write(1, prefix, session),
        lambda: DataStoreIO.delete(prefix, session),
        lambda: DataStoreIO.list(prefix, session),
    ):
        with pytest.raises(InvalidNameError):
            call()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]


@pytest.mark.parametrize("key", ["../secret", "/../secret", "%2e%2e/secret", "a/../../secret", "a?b", "//etc/passwd"])
def test_urls_that_leave_the_store_are_refused(session, key):
    """A URL that could reach a file outside is refused when it is made, read or used."""
    with pytest.raises(InvalidNameError):
        DataStoreIO(f"file:///{key}", session)
    with pytest.raises(InvalidNameError):
        DataStore.from_url(f"file:///{key}", session)


def test_urls_with_an_authority_are_refused(session):
    """``file://host/x`` is not a URL of a store."""
    with pytest.raises(InvalidNameError, match="not of the form"):
        DataStoreIO("file://host/x", session)


def test_managed_folders_are_refused(session):
    """The folder of an experiment, reserved names and anything that looks like an id cannot be a prefix."""
    experiment = session.create_experiment("e").add_run()
    experiment.persist()
    for prefix in (experiment.id_experiment, f"{experiment.id_experiment}/x", "_pending", "_x/y", "artifacts"):
        with pytest.raises(InvalidNameError, match="managed by persist"):
            session.io.write(b"x", prefix)
        with pytest.raises(InvalidNameError):
            session.io.delete(prefix)
    with pytest.raises(InvalidNameError):
        session.io.write(b"x", str(ids.new_uuid()))
    assert experiment.reload().runs


@pytest.mark.parametrize("prefix", ["a#b", "a b/c", "a?b", "ü/x", "a%b"])
def test_any_other_prefix_works(session, prefix):
    """Characters that mean something in URLs are escaped in them, and come back."""
    written = session.io.write(b"x", prefix)
    assert DataStoreIO(written.url, session).read() == b"x"
    assert session.io.list(prefix) == [written]


def test_persist_never_wipes_and_delete_removes(session):
    """Persisting, replacing and deleting experiments leaves the files; `delete` removes a prefix with all in it."""
    written = session.io.write(b"x", "mine/a")
    experiment = session.create_experiment("e").add_run()
    experiment.persist().persist("update").delete()
    assert written.read() == b"x"
    other = session.io.write(b"y", "mine/a")
    DataStoreIO.delete(other.key, session)
    assert not other.exists()
    assert written.exists()
    DataStoreIO.delete("mine", session)
    DataStoreIO.delete("mine", session)
    assert not written.exists()
    with pytest.raises(KeyMissingError):
        written.read()


def test_the_default_store_is_that_of_the_executing_run(tmp_path, monkeypatch):
    """Inside a run's block and steps DataStoreIO means its session's store, outside the default session's."""
    monkeypatch.chdir(tmp_path)
    session = create_session(url="sqlite:///x.db", store=tmp_path / "of-the-session")
    experiment = session.create_experiment("e")
    with experiment.run() as run:
        run.fields.url = DataStoreIO.write(b"in block", "p").url
    experiment.execute(lambda run: run.fields.update(step=DataStoreIO.write(b"in step", "p").url))
    outside = DataStoreIO.write(b"outside", "p")
    first = experiment.runs.first()
    assert session.io(first.fields.url).read() == b"in block"
    assert session.io(first.fields.step).read() == b"in step"
    assert (tmp_path / "mltraq.datastore" / outside.key).read_bytes() == b"outside"


def test_sequential_names_move_on_to_the_next(session):
    """With predictable ids a name that is taken is passed over, never written over."""
    with options.ctx({"reproducibility.sequential_uuids": True}):
        ids.next_uuid(seed=10)
        first = session.io.write(b"1", "p")
        ids.next_uuid(seed=10)
        second = session.io.write(b"2", "p")
    assert first.read() == b"1"
    assert second.read() == b"2"


def test_read_deserialize_checks_what_it_finds(session):
    """A raw file, or a value of another type than expected, is refused with a sentence."""
    with pytest.raises(CorruptBlobError):
        session.io.write(b"not a blob at all", "p").read_deserialize()
    with pytest.raises(UsageError, match="type list, not dict"):
        session.io.serialize_write([1], "p").read_deserialize(dict)


def test_a_datastore_blob_is_read_as_one(session):
    """The URL of a persisted DataStore can be read through DataStoreIO too."""
    experiment = session.create_experiment("e")
    with experiment.run() as run:
        run.fields.ds = DataStore(a=1)
    experiment.persist()
    ds = session.io(run.fields.ds.to_url()).read_deserialize(DataStore)
    assert ds == {"a": 1}


def test_a_datastore_belongs_on_a_run(session):
    """Writing a DataStore directly is refused with the two ways out."""
    with pytest.raises(TypeError, match="belongs on a run"):
        session.io.serialize_write(DataStore(a=1), "p")


def test_pickles_by_url(session, tmp_path):
    """A pickled DataStoreIO is its URL; the store is found anew."""
    written = DataStoreIO.write(b"x", "p", store=str(tmp_path / "store"))
    copied = pickle.loads(pickle.dumps(written))
    assert copied == written
    assert copied.read() == b"x"
    assert hash(copied) == hash(written)
    assert repr(copied) == f"DataStoreIO({written.url!r})"
