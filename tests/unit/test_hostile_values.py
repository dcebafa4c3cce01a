"""Values, names and ids on which a record, a generation or SQL would stumble: exact round trip, or a refusal first."""

import fractions
import os
import pickle
import sys
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from mltraq_ds import Bunch, DataStore, DataStoreIO, Run, create_session, options
from mltraq_ds.codecs import Pickled
from mltraq_ds.codecs.dtypes import is_simple
from mltraq_ds.errors import CorruptBlobError, PickleRefusedError, UsageError
from mltraq_ds.store import generations
from mltraq_ds.tracking import default_session

PAIR = "\ud83d\ude00"  # two characters; JSON has the same notation for the one that they encode
HUGE = 10**5000


@pytest.fixture
def session(tmp_path):
    return create_session(url=f"sqlite:///{tmp_path}/index.db", store=tmp_path / "store")


def persisted(session, name="e", **fields):
    experiment = session.create_experiment(name)
    with experiment.run() as run:
        run.fields.update(fields)
    return experiment.persist().reload()


@pytest.mark.parametrize(
    "value",
    [
        PAIR,
        "x" + PAIR,
        [PAIR],
        {PAIR: 1, "\U0001f600": 2},
        (PAIR, {"a": PAIR}),
        HUGE,
        -HUGE,
        [1, HUGE],
        {HUGE},
        {"k": HUGE},
        {HUGE: "k"},
        fractions.Fraction(HUGE, 3),
        fractions.Fraction(-7, 3),
        2**2000,
        2**63,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_does_not_hold_comes_back(session, value):
    """Texts with surrogates that form a pair and integers beyond Python's limit of digits are kept exactly."""
    fields = persisted(session, value=value, ds=DataStore(value=value)).runs.first().fields
    assert fields.value == value
    assert type(fields.value) is type(value)
    assert fields.ds.value == value


def test_keys_of_a_datastore_that_json_does_not_hold_come_back(session):
    """The names in a record are left out where JSON would change them; those in the blob are exact."""
    keys = [PAIR, "\U0001f600", "items", "__class__", "_origin", "self", "", "a\0b", "..", "A", "a", "\ud800"]
    store = DataStore({key: position for position, key in enumerate(keys)})
    loaded = persisted(session, ds=store).runs.first().fields.ds
    assert list(loaded) == keys
    assert dict(loaded) == {key: position for position, key in enumerate(keys)}


def test_names_that_json_would_change_are_refused(session):
    """A name, an id or the name of a field that would be read back as another one is refused before anything is."""
    experiment = session.create_experiment(PAIR)
    with pytest.raises(UsageError, match="form a pair"):
        experiment.persist()
    with pytest.raises(UsageError, match="form a pair"):
        persisted(session, **{PAIR: 1})
    assert not list(Path(session.storage.url.removeprefix("file://")).glob("*/*"))


@pytest.mark.parametrize(
    ("where", "attribute", "value"),
    [
        ("experiment", "name", 5),
        ("experiment", "name", None),
        ("experiment", "id_experiment", uuid.UUID(int=1)),
        ("run", "id_run", 5),
        ("run", "status", None),
        ("run", "started", 5),
    ],
)
def test_what_would_make_a_record_unreadable_is_refused(session, where, attribute, value):
    """An id, name or status that is no text would be committed and never be read again, so it is refused."""
    experiment = session.create_experiment("e")
    with experiment.run() as run:
        run.fields.x = 1
    experiment.persist()
    before = experiment.generation
    setattr(experiment if where == "experiment" else run, attribute, value)
    with pytest.raises(UsageError, match="not str"):
        experiment.persist(if_exists="update")
    assert session.load_experiment("e").generation == before


def test_two_runs_of_one_id_are_refused(session):
    """Of two runs with one id a reader would keep only the last."""
    experiment = session.create_experiment("e")
    experiment.runs["a"] = Run("x", fields={"v": 1})
    experiment.runs["b"] = Run("x", fields={"v": 2})
    with pytest.raises(UsageError, match="would be lost"):
        experiment.persist()


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_datastore_from_a_url_persists_in_its_own_experiment(session, is_replaced):
    """A DataStore opened by its URL has no digest in that; kept without one, the whole experiment was unreadable."""
    experiment = persisted(session, ds=DataStore(a=np.arange(5000), inner=DataStore(b=1)))
    fields = experiment.runs.first().fields
    fields["ds" if is_replaced else "again"] = DataStore.from_url(fields.ds.to_url(), store=session)
    experiment.persist(if_exists="update")
    again = experiment.reload().runs.first().fields["ds" if is_replaced else "again"]
    assert again.a.sum() == 12497500
    assert again.inner.b == 1


def test_a_datastore_read_by_datastore_io_persists_in_its_own_experiment(session):
    """As above, for the other way to open a blob by its URL."""
    experiment = persisted(session, ds=DataStore(a=np.arange(5000)))
    fields = experiment.runs.first().fields
    fields.again = DataStoreIO(fields.ds.to_url(), store=session).read_deserialize(DataStore)
    experiment.persist(if_exists="update")
    assert experiment.reload().runs.first().fields.again.a[-1] == 4999


def test_a_url_of_a_value_is_no_datastore(session):
    """from_url says so where a blob holds a single value."""
    url = session.io.serialize_write([1, 2], "own").url
    with pytest.raises(CorruptBlobError, match="single value"):
        DataStore.from_url(url, store=session)


def test_a_generation_that_could_not_be_read_is_not_committed(session):
    """What refers outside of its experiment is refused at the commit, and the version before it stays."""
    experiment = persisted(session, ds=DataStore(x=1))
    folder = experiment.id_experiment
    current = generations.current(session.storage, folder)
    foreign = type(current.blobs[0])("elsewhere/x", 1, current.blobs[0].digest)
    broken = generations.Generation(
        id_experiment=folder, name="e", number=2, writer="w", records=current.records, blobs=(foreign,)
    )
    with pytest.raises(OSError, match="was not committed because it could not be read back"):
        generations.check_readable(broken, broken.to_bytes())


def test_datastores_shared_many_times_are_planned_and_read_once(session):
    """Sixty levels that each hold the next one twice are 2^60 paths to 61 DataStores."""
    inner = DataStore(v=1)
    for _ in range(60):
        inner = DataStore(a=inner, b=inner)
    start = time.monotonic()
    experiment = persisted(session, ds=inner)
    experiment.runs.first().fields.ds.a.c = 1  # the closure of what stays is worked out anew
    experiment.persist(if_exists="update")
    value = experiment.reload().runs.first().fields.ds
    assert value.a.c == 1
    while "v" not in value:
        value = value.a if "a" in value else value.b
    assert value.v == 1
    assert time.monotonic() - start < 20


def test_the_reader_of_a_small_pickle_decides(session):
    """A pickle that fits into the record is refused and allowed like one in a blob."""
    experiment = persisted(session, p=Pickled(complex(1, 2)))
    with pytest.raises(PickleRefusedError):
        _ = experiment.runs.first().fields.p.value
    allowed = session.load_experiment("e", allow_pickle=True)
    assert allowed.runs.first().fields.p.value == complex(1, 2)


class _Rude:
    def __init__(self):
        self.x = 1

    def __eq__(self, other):
        return isinstance(other, _Rude)

    __hash__ = None

    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def test_a_value_whose_text_raises_is_stored_all_the_same(session):
    """The text in SQL is for people; that it cannot be made is no reason to refuse a value."""
    fields = persisted(session, p=Pickled(_Rude())).runs.first().fields
    assert type(fields.p) is Pickled


def test_a_name_like_self_is_a_name(session):
    """Every text is a key, also the name of the first argument of a method."""
    assert Bunch(self=1).self == 1
    assert DataStore(self=2).self == 2
    bunch = Bunch()
    bunch.update(self=3)
    experiment = session.create_experiment("e").add_run(self=4)
    assert bunch["self"] == 3
    assert experiment.persist().reload().runs.first().params["self"] == 4


def test_another_endpoint_is_another_default_session(tmp_path, monkeypatch):
    """The default session is made anew when a *value* among the storage options changes, not only a name."""
    monkeypatch.chdir(tmp_path)
    options.set("datastore.url", "memory://default-session")
    options.set("datastore.storage_options", {"endpoint": "one"})
    one = default_session()
    assert default_session() is one
    options.set("datastore.storage_options", {"endpoint": "two"})
    assert default_session() is not one


def test_a_file_of_a_named_store_never_means_the_default_one(tmp_path, monkeypatch):
    """A DataStoreIO keeps the store it was given: through pickle, and when the working directory changes."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    options.set("datastore.url", str(tmp_path / "default"))
    for store in ("relative", Path("relative"), create_session(store="relative")):
        file = DataStoreIO.write(b"x", "own", store=store)
        monkeypatch.chdir(tmp_path / "two")
        assert file.read() == b"x"
        assert pickle.loads(pickle.dumps(file)).read() == b"x"
        monkeypatch.chdir(tmp_path / "one")
    assert not (tmp_path / "default").exists()


def test_a_file_of_a_store_in_memory_says_elsewhere_that_it_cannot_be_read():
    """Where a store cannot be reached, that is said, and no other one is read in its place."""
    file = DataStoreIO.write(b"x", "own", store="memory://named")
    sent = pickle.loads(pickle.dumps(file))
    assert file.read() == b"x"
    with pytest.raises(UsageError, match="cannot be reached"):
        sent.read()
    assert pickle.loads(pickle.dumps(sent)).url == file.url


def test_dtypes_that_were_unpickled_are_those_of_numpy(session):
    """What a worker sends back has dtypes that numpy does not call built in; arrays of them are stored the same."""
    kinds = ["f8", ">f8", "i2", "?", "c16", "U3", "S4", "V3", "M8[ns]", "m8[s]", "e", "q", "Q", "g"]
    for kind in kinds:
        dtype = pickle.loads(pickle.dumps(np.dtype(kind)))
        assert is_simple(dtype)
    arrays = [np.zeros(300, kind) for kind in kinds] + [np.zeros(3, [("a", "f8"), ("b", ">i4", (2,))])]
    sent = pickle.loads(pickle.dumps(arrays))
    loaded = persisted(session, ds=DataStore(arrays=sent)).runs.first().fields.ds.arrays
    assert [array.dtype for array in loaded] == [array.dtype for array in sent]


def test_threads_that_share_a_lazy_datastore_get_one_object(session):
    """Eight threads that read one key at once all get the same array, so that no change made to it is lost."""
    loaded = persisted(session, ds=DataStore(a=np.zeros(200_000))).runs.first().fields.ds
    barrier, seen = threading.Barrier(8), []

    def read():
        barrier.wait()
        seen.append(loaded.a)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(array) for array in seen}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_persists_on_its_own(session):
    """A child that inherits an open session opens its own connections; both experiments are complete."""
    persisted(session, "before", ds=DataStore(x=1))
    pid = os.fork()
    if pid == 0:
        try:
            persisted(session, "child", ds=DataStore(x=2))
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - nothing may return into the parent's pytest
            print(error, file=sys.stderr)
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    persisted(session, "parent", ds=DataStore(x=3))
    assert {name: session.load_experiment(name).runs.first().fields.ds.x for name in session.ls().name} == {
        "before": 1,
        "child": 2,
        "parent": 3,
    }


def test_a_copy_leaves_the_original_its_own_blobs(session):
    """DataStores nested in a copy are others, so deleting the copy takes nothing from the original."""
    inner = DataStore(a=np.arange(9000))
    made = persisted(session, ds=DataStore(inner=inner), listed=[{"x": (DataStore(b=np.arange(9000)),)}], same=inner)
    fields = made.runs.first().fields
    urls = fields.ds.inner.to_url(), fields.listed[0]["x"][0].to_url(), fields.same.to_url()
    copy = made.copy_to("copy")
    assert (fields.ds.inner.to_url(), fields.listed[0]["x"][0].to_url(), fields.same.to_url()) == urls
    copy.delete()
    assert fields.ds.inner.a[-1] == fields.listed[0]["x"][0].b[-1] == fields.same.a[-1] == 8999
