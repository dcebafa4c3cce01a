"""Persist, load, replace, update, delete: what a user does, read back in a new session and in another process."""

import gc
import json
import os
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from mltraq_ds import DataStore, Experiment, create_session, ids, options
from mltraq_ds.errors import (
    AmbiguousNameError,
    ConcurrentPersistError,
    CorruptBlobError,
    DanglingReferenceError,
    DatabaseUnavailableError,
    ExperimentExistsError,
    ExperimentNotFoundError,
    FormatError,
    IndexBehindWarning,
    LeftoversWarning,
    StaleReferenceError,
    TooDeepError,
    UnknownStoreError,
    UnsupportedTypeError,
    UsageError,
    ValueChangedError,
)

FIXED = {"_meta.json"}


@pytest.fixture
def session(tmp_path):
    return open_session(tmp_path)


def open_session(tmp_path):
    return create_session(url=f"sqlite:///{tmp_path}/index.db", store=tmp_path / "store")


def blobs(tmp_path, experiment):
    folder = tmp_path / "store" / experiment.id_experiment
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in FIXED)


def make(session, name="e", **fields):
    experiment = session.create_experiment(name)
    with experiment.run() as run:
        run.fields.update(fields)
    return experiment


def test_load_reads_everything_at_once(session, tmp_path):
    """After load() nothing needs the store any more: values, DataStores and those inside them are all there."""
    experiment = make(session, array=np.arange(1000), ds=DataStore(a=np.ones(300), inner=DataStore(b=[1, 2])), lr=0.5)
    experiment.fields.of_all = np.zeros(500)
    experiment.persist()
    for n_jobs in (None, 1):
        loaded = session.load_experiment("e").load(n_jobs=n_jobs)
        for path in tmp_path.joinpath("store", experiment.id_experiment).iterdir():
            if path.is_file() and n_jobs == 1:
                path.unlink()
        fields = loaded.runs.first().fields
        assert fields.array.sum() == 499500
        assert (fields.ds.a.sum(), fields.ds.inner.b, fields.lr, loaded.fields.of_all.sum()) == (300, [1, 2], 0.5, 0)
    with pytest.raises(DanglingReferenceError):
        session.load_experiment("e").load()
    experiment.runs.first().fields.ds.itself = experiment.runs.first().fields.ds
    assert experiment.load() is experiment


def test_everything_comes_back_in_another_process(session, tmp_path):
    """Scalars, arrays, frames and DataStores on runs and experiment are equal in a new process."""
    experiment = session.create_experiment("digits", owner="me", table=pd.DataFrame({"a": [1, 2]}))
    with experiment.run() as run:
        run.params.lr = 0.1
        run.params.shape = (3, 4)
        run.config.seed = 5
        run.fields.accuracy = np.float32(0.97)
        run.fields.loss = float("nan")
        run.fields.big = np.arange(5000)
        run.fields.ds = DataStore(weights=np.ones((64, 10)), confusion=pd.DataFrame({"x": [1.5]}), inner=DataStore(z=1))
        run.fields.listed = [DataStore(q=2)]
        run.vars.not_kept = 1
    experiment.persist()
    script = f"""
        import numpy as np, pandas as pd
        from mltraq_ds import create_session
        e = create_session(url="sqlite:///{tmp_path}/index.db", store="{tmp_path}/store").load_experiment("digits")
        assert e.fields.owner == "me" and e.fields.table.equals(pd.DataFrame({{"a": [1, 2]}}))
        r = e.runs.first()
        assert (r.params.lr, r.params.shape, r.config.seed) == (0.1, (3, 4), 5)
        assert type(r.fields.accuracy) is np.float32 and r.fields.accuracy == np.float32(0.97)
        assert np.isnan(r.fields.loss) and r.fields.big.tolist() == list(range(5000))
        assert r.fields.ds.weights.sum() == 640 and r.fields.ds.confusion.x[0] == 1.5 and r.fields.ds.inner.z == 1
        assert r.fields.listed[0].q == 2
        assert not r.vars and r.status == "success" and r.started and r.finished
        print("equal")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "equal\n", done.stderr


def test_the_examples_of_the_documentation(tmp_path, monkeypatch):
    """With predictable ids the blobs have the names that the documentation prints."""
    monkeypatch.chdir(tmp_path)
    options.set("reproducibility.sequential_uuids", True)
    ids.next_uuid(seed=ids.FIRST_SEQUENTIAL_UUID.int - 1)
    ids.next_uuid(seed=ids.FIRST_SEQUENTIAL_UUID.int - 1)
    session = create_session()
    experiment = session.create_experiment("example")
    with experiment.run() as run:
        run.fields.ds1 = DataStore(a=np.zeros(10))
        run.fields.ds2 = DataStore(b=pd.Series([1, 2, 3]), c=123)
    experiment.persist()
    assert experiment.id_experiment == "d65df69e-1175-44a5-be2f-2232765703b9"
    folder = tmp_path / "mltraq.datastore" / experiment.id_experiment
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "_meta.json",
        "d65df69e117544a5be2f2232765703bb",
        "d65df69e117544a5be2f2232765703bc",
    ]
    run = experiment.reload().runs.first()
    assert run.fields.ds1.a.tolist() == [0] * 10
    assert run.fields.ds2.b.tolist() == [1, 2, 3]
    assert run.fields.ds2.c == 123


def test_a_taken_sequential_id_moves_on(tmp_path):
    """Predictable ids that an earlier process has used are passed over, for experiments and blobs."""
    options.set("reproducibility.sequential_uuids", True)
    first = make(open_session(tmp_path), "a", ds=DataStore(a=1)).persist()
    ids.next_uuid(seed=ids.FIRST_SEQUENTIAL_UUID.int - 2)
    second = make(open_session(tmp_path), "b", ds=DataStore(a=2)).persist()
    assert first.id_experiment != second.id_experiment
    assert first.reload().runs.first().fields.ds.a == 1
    first.runs.first().fields.more = DataStore(a=3)
    ids.next_uuid(seed=int(first.id_experiment.replace("-", ""), 16))
    first.persist("update")
    assert first.reload().runs.first().fields.ds.a == 1
    assert first.reload().runs.first().fields.more.a == 3


def test_an_unchanged_datastore_keeps_its_blob(session, tmp_path):
    """Unread, read and mutated-back values keep the blob; a change of one key makes a new one."""
    experiment = make(session, ds=DataStore(a=np.arange(1000), b=[1], inner=DataStore(z=np.ones(500)))).persist()
    before = blobs(tmp_path, experiment)
    loaded = experiment.reload()
    loaded.persist("update")
    ds = loaded.runs.first().fields.ds
    assert ds.a.sum() == 499500
    assert ds.inner.z.sum() == 500
    ds.b.append(2)
    ds.b.pop()
    loaded.persist("update")
    assert blobs(tmp_path, experiment) == before
    ds.a[0] = 7
    loaded.persist("update")
    after = blobs(tmp_path, experiment)
    assert len(after) == len(before) == len({*before, *after}) - 1
    again = experiment.reload().runs.first().fields.ds
    assert again.a[0] == 7
    assert again.b == [1]
    assert again.inner.z.sum() == 500


def test_update_from_memory_keeps_and_replaces(session, tmp_path):
    """A checkpoint during training rewrites only what changed, also when nothing was loaded in between."""
    experiment = make(session, fixed=DataStore(a=np.ones(1000)), moving=DataStore(a=np.zeros(1000))).persist()
    before = blobs(tmp_path, experiment)
    for step in range(3):
        experiment.runs.first().fields.moving.a[step] = 1
        experiment.persist(if_exists="update")
    assert experiment.generation == 4
    after = blobs(tmp_path, experiment)
    assert len({*before} & {*after}) == 1
    assert len(after) == 2
    fields = experiment.reload().runs.first().fields
    assert fields.moving.a.sum() == 3
    assert fields.fixed.a.sum() == 1000


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds.pop("b"),
        lambda ds: ds.update(new=1),
        lambda ds: ds.update(b=[1, 2]),
        lambda ds: ds.inner.update(z=0),
        lambda ds: ds.update(inner=None),
        lambda ds: ds.update(a=ds.pop("a")),
    ],
    ids=["removed", "added", "set", "nested", "nested removed", "reordered"],
)
def test_every_change_of_a_loaded_datastore_is_written(session, tmp_path, change):
    """Whatever changed is there after the next load, the rest is as before, and no blob is left over."""
    experiment = make(session, ds=DataStore(a=np.arange(1000), b=[1], inner=DataStore(z=1, y=2))).persist()
    loaded = experiment.reload()
    change(loaded.runs.first().fields.ds)
    wanted = state(loaded.runs.first().fields.ds)
    loaded.persist("update")
    again = loaded.reload().runs.first().fields.ds
    assert state(again) == wanted
    assert again.a.tolist() == list(range(1000))
    assert len(blobs(tmp_path, experiment)) == (2 if again.get("inner") is not None else 1)


def state(ds):
    """Return keys and values in order, in a form that can be compared."""
    forms = {np.ndarray: np.ndarray.tolist, DataStore: dict}
    return [(key, forms.get(type(value), lambda v: v)(value)) for key, value in ds.items()]


def test_one_datastore_on_two_runs_is_one_blob(session, tmp_path):
    """The same object in two places is written once, and both places read it."""
    shared = DataStore(a=1)
    experiment = session.create_experiment("e")
    for _ in range(2):
        with experiment.run() as run:
            run.fields.ds = shared
    experiment.persist()
    assert len(blobs(tmp_path, experiment)) == 1
    assert [run.fields.ds.a for run in experiment.reload().runs.values()] == [1, 1]


def test_values_from_another_experiment_are_copied(session, tmp_path):
    """A record refers only to blobs of its own experiment: the other one can go."""
    first = make(session, "a", ds=DataStore(a=np.ones(100), inner=DataStore(z=1)), big=np.arange(5000)).persist()
    loaded = first.reload().runs.first()
    second = make(session, "b", ds=loaded.fields.ds.copy())
    second.runs.first().fields._place("big", loaded.fields._peek("big"))
    second.persist()
    first.delete()
    fields = second.reload().runs.first().fields
    assert fields.ds.a.sum() == 100
    assert fields.ds.inner.z == 1
    assert fields.big.sum() == 12497500


def test_many_small_datastores_share_files(session, tmp_path):
    """A thousand small DataStores need a handful of files; each reads its own; a partial update repacks."""
    experiment = session.create_experiment("many")
    for number in range(100):
        with experiment.run() as run:
            run.fields.ds = DataStore(a=np.full(200, number), n=number)
            run.fields.direct = np.full(50, number)
    experiment.persist()
    assert len(blobs(tmp_path, experiment)) == 2
    loaded = experiment.reload()
    assert [run.fields.ds.n for run in loaded.runs.values()] == list(range(100))
    assert [int(run.fields.direct[0]) for run in loaded.runs.values()] == list(range(100))
    before = blobs(tmp_path, experiment)
    loaded = experiment.reload()
    loaded.persist("update")
    assert blobs(tmp_path, experiment) == before
    del loaded.runs[next(iter(loaded.runs))]
    loaded.persist("update")
    assert not {*before} & {*blobs(tmp_path, experiment)}
    assert [run.fields.ds.n for run in loaded.reload().runs.values()] == list(range(1, 100))
    assert [int(run.fields.ds.a.sum()) for run in loaded.runs.values()] == [200 * n for n in range(1, 100)]
    url = loaded.runs.first().fields.ds.to_url()
    assert "#" in url
    assert DataStore.from_url(url, session).n == 1


def test_a_part_of_a_pack_nested_later_gets_a_blob_of_its_own(session):
    """A DataStore that shared a pack and is then put inside another survives the pack."""
    experiment = session.create_experiment("many")
    for number in range(40):
        with experiment.run() as run:
            run.fields.ds = DataStore(n=number, a=np.full(300, number))
    experiment.persist()
    loaded = experiment.reload()
    runs = list(loaded.runs.values())
    runs[0].fields.outer = DataStore(inner=runs[1].fields.ds)
    runs[2].fields.outer = DataStore(inner=runs[3].fields.ds)
    del runs[3].fields.ds
    loaded.persist("update")
    again = list(loaded.reload().runs.values())
    assert again[0].fields.outer.inner.n == 1
    assert again[1].fields.ds.n == 1
    assert again[2].fields.outer.inner.n == 3
    assert again[5].fields.ds.n == 5


def test_names_are_data(session):
    """Experiments, fields and keys may have any name; similar ones never meet."""
    names = ["a b", "a_b", "a:b", "A", "a", "..", "a/b", "", "ü", "con", "x" * 500, "_meta.json", "artifacts", "%2e%2e"]
    for number, name in enumerate(names):
        make(session, name, **{name or "empty": number, "ds": DataStore({name: number})}).persist()
    for number, name in enumerate(names):
        fields = session.load_experiment(name).runs.first().fields
        assert fields[name or "empty"] == number
        assert fields.ds[name] == number
    assert session.ls()["name"].tolist() == names


def test_names_taken_and_if_exists(session, tmp_path):
    """A taken name is refused; `replace` takes the place of the other experiment, whose folder goes."""
    old = make(session, "e", ds=DataStore(a="old")).persist()
    new = make(session, "e", ds=DataStore(a="new"))
    for mode in ("fail", "update"):
        with pytest.raises(ExperimentExistsError, match=f"{old.id_experiment}.*if_exists='replace'"):
            new.persist(mode)
    assert session.load_experiment("e").runs.first().fields.ds.a == "old"
    with pytest.raises(ExperimentExistsError, match="if_exists='update'"):
        old.persist()
    new.persist("replace")
    assert session.load_experiment("e").runs.first().fields.ds.a == "new"
    assert not (tmp_path / "store" / old.id_experiment).exists()
    with pytest.raises(ExperimentNotFoundError):
        old.reload()
    with pytest.raises(ConcurrentPersistError, match="deleted"):
        old.persist("update")
    with pytest.raises(UsageError, match="'sometimes' is unknown"):
        new.persist("sometimes")
    new.persist("replace").persist("replace")
    assert session.ls().generation.tolist() == [3]


def test_a_refused_value_changes_nothing(session, tmp_path):
    """A value without codec is refused with experiment, run, key, type and ways out; the old version stays."""
    experiment = make(session, "e", ds=DataStore(a=1)).persist()
    before = sorted(tmp_path.rglob("*"))
    run = experiment.runs.first()
    run.fields.ds.bad = {"x": [1, lambda: None]}
    with pytest.raises(UnsupportedTypeError) as caught:
        experiment.persist("update")
    for part in ("'e'", run.id_run, "fields.ds", "'bad'", "['x'][1]", "function", "File(", "Pickled(", "codec"):
        assert part in str(caught.value)
    run.fields.ds.bad = None
    run.fields.direct = object()
    with pytest.raises(UnsupportedTypeError, match=r"fields\.direct.*object"):
        experiment.persist("update")
    cyclic = DataStore()
    cyclic.me = [cyclic]
    run.fields.direct = cyclic
    with pytest.raises(TooDeepError, match="contains itself"):
        experiment.persist("update")
    assert sorted(tmp_path.rglob("*")) == before
    assert experiment.reload().runs.first().fields.ds == {"a": 1}


@pytest.mark.parametrize("character", ["\0", "\ud800", chr(0xDFFF)])
@pytest.mark.parametrize("kind", [
    lambda text: text,
    lambda text: [1, (text,)],
    lambda text: {text: 1, "b": {text: [text]}},
    lambda text: {1: text},
    lambda text: {text},
    lambda text: np.str_(text),
    lambda text: DataStore({text: text}),
])  # fmt: skip
def test_any_text_is_a_value(session, kind, character):
    """Text that no database takes comes back exactly, wherever it is in a value, and SQL finds a readable form."""
    text = f"a{character}b"
    value = kind(text)
    experiment = make(session, "e", value=value)
    experiment.runs.first().config.value = experiment.runs.first().params.value = value
    experiment.fields.value = value
    loaded = experiment.persist().reload()
    run = loaded.runs.first()
    for found in (run.fields.value, run.params.value, run.config.value, loaded.fields.value):
        assert type(found) is type(value)
        assert found == value
    found = session.query("select fields from mltraq_runs").fields[0]
    assert character not in found
    if type(value) is str:
        assert json.loads(found)["value"] == f"a\\{'x00' if character == chr(0) else f'u{ord(character):x}'}b"


@pytest.mark.parametrize("character", ["\0", "\ud800"])
@pytest.mark.parametrize(("place", "remedy"), [
    (lambda session, text: make(session, text), "Use another name"),
    (lambda session, text: make(session, "e", **{text: 1}), "Use another name"),
    (lambda session, text: session.create_experiment("e").add_run(**{text: 1}), "Use another name"),
    (lambda session, text: session.create_experiment("e", **{text: 1}), "Use another name"),
    (lambda session, text: Experiment(session, text, "e"), "Use another id"),
])  # fmt: skip
def test_names_that_a_database_cannot_hold_are_refused_beforehand(session, tmp_path, character, place, remedy):
    """Names and ids are columns and keys in SQL; the refusal says to use another one, and nothing is written."""
    with pytest.raises(UsageError, match=f"(NUL|surrogate).*{remedy}"):
        place(session, f"a{character}b").persist()
    assert not (tmp_path / "store").exists() or session.ls().empty


def test_the_second_writer_loses_and_theirs_stands(session, tmp_path):
    """Two objects of one experiment: the later persist is refused, its files are gone, and `reload` goes on."""
    experiment = make(session, ds=DataStore(a=0)).persist()
    one, two = experiment.reload(), experiment.reload()
    one.runs.first().fields.ds.a = 1
    two.runs.first().fields.ds.a = 2
    one.persist("update")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConcurrentPersistError, match="generation 2.*reload()"):
        two.persist("update")
    assert sorted(tmp_path.rglob("*")) == before
    assert session.load_experiment("e").runs.first().fields.ds.a == 1
    two.persist("replace")
    assert session.load_experiment("e").runs.first().fields.ds.a == 2


def test_lazy_values_of_a_replaced_version_are_stale(session):
    """A value that another writer has replaced says so, with the remedy; the rest of the object still works."""
    experiment = make(session, ds=DataStore(a=0), x=5).persist()
    held = experiment.reload()
    experiment.runs.first().fields.ds.a = 1
    experiment.persist("update")
    with pytest.raises(StaleReferenceError, match=r"generation 1.*generation 2.*reload\(\)"):
        _ = held.runs.first().fields.ds.a
    assert held.runs.first().fields.x == 5
    experiment.delete()
    with pytest.raises(StaleReferenceError, match="was deleted"):
        _ = held.runs.first().fields.ds.a


def test_a_missing_or_damaged_blob_hurts_only_itself(session, tmp_path):
    """A blob that is gone or was changed fails when touched, by name; the rest of the experiment loads."""
    experiment = make(session, gone=DataStore(a=1), bad=DataStore(w=np.ones(999)), fine=DataStore(a=2), x=3).persist()
    fields = experiment.runs.first().fields
    folder = tmp_path / "store"
    (folder / fields.gone.origin.reference.key).unlink()
    damaged = folder / fields.bad.origin.reference.key
    damaged.chmod(0o644)
    data = bytearray(damaged.read_bytes())
    data[1000] ^= 1
    damaged.write_bytes(data)
    again = experiment.reload().runs.first().fields
    assert again.x == 3
    assert again.fine.a == 2
    with pytest.raises(DanglingReferenceError, match="mltraq-ds check"):
        _ = again.gone.a
    with pytest.raises(CorruptBlobError, match=r"w\.npy"):
        _ = again.bad.w
    with pytest.raises(DanglingReferenceError, match="keeps from the version before, is gone"):
        experiment.reload().persist("update")


def test_what_is_in_memory_heals_a_damaged_blob(session, tmp_path):
    """Persisting values that are in memory writes them anew where the stored ones cannot be relied on."""
    experiment = make(session, ds=DataStore(a=np.ones(100))).persist()
    (tmp_path / "store" / experiment.runs.first().fields.ds.origin.reference.key).unlink()
    experiment.persist("update")
    assert experiment.reload().runs.first().fields.ds.a.sum() == 100


def test_delete_and_live_again(session, tmp_path):
    """A deleted experiment is gone everywhere, and can be persisted again from memory."""
    experiment = make(session, ds=DataStore(a=1)).persist().persist("update")
    experiment.delete()
    assert not (tmp_path / "store" / experiment.id_experiment).exists()
    assert len(session.ls()) == 0
    for gone in (experiment.reload, experiment.delete, lambda: session.load_experiment("e")):
        with pytest.raises(ExperimentNotFoundError):
            gone()
    experiment.persist()
    assert experiment.reload().runs.first().fields.ds.a == 1
    assert session.ls().generation.tolist() == [1]
    session.delete_experiment("e")
    assert len(session.ls()) == 0


def test_renaming_frees_the_old_name(session):
    """An experiment persisted under a new name is found by that only."""
    experiment = make(session, "old").persist()
    experiment.name = "new"
    experiment.persist("update")
    assert session.load_experiment("new").id_experiment == experiment.id_experiment
    with pytest.raises(ExperimentNotFoundError, match="Did you mean 'new'|Use ls"):
        session.load_experiment("old")
    make(session, "old").persist()


def test_copies_are_independent(session, tmp_path):
    """`copy_to` makes an experiment of its own, in this or another session; deleting one leaves the other."""
    experiment = make(session, "a", ds=DataStore(a=np.ones(10), inner=DataStore(z=1))).persist()
    copy = experiment.reload().copy_to("b")
    other = create_session(url=f"sqlite:///{tmp_path}/other.db", store="memory://copies")
    far = other.persist_experiment(experiment.reload())
    named = other.persist_experiment(far, name="c")
    session.persist_experiment(copy, if_exists="update")
    experiment.delete()
    for one in (copy.reload(), far.reload(), named.reload()):
        assert one.runs.first().fields.ds.a.sum() == 10
        assert one.runs.first().fields.ds.inner.z == 1
    assert other.ls()["name"].tolist() == ["a", "c"]
    with pytest.raises(UsageError, match="needs a name"):
        copy.copy_to()


def test_the_database_is_an_index_only(session, tmp_path):
    """Loading by id needs no index; a store that the index does not know says so at the first query."""
    experiment = make(session, ds=DataStore(a=1)).persist()
    stranger = create_session(url=f"sqlite:///{tmp_path}/stranger.db", store=tmp_path / "store")
    assert stranger.load_experiment(id_experiment=experiment.id_experiment).runs.first().fields.ds.a == 1
    for query in (stranger.ls, lambda: stranger.load_experiment("e"), lambda: stranger.query("select 1")):
        with pytest.raises(UnknownStoreError, match="rebuild_index"):
            query()


def test_no_name_is_taken_in_a_store_that_is_not_known(session, tmp_path):
    """After the database was lost nobody knows which names are free: a persist says so and writes nothing.

    Otherwise two experiments would have one name after the rebuild that comes too late.
    """
    experiment = make(session, ds=DataStore(a=1)).persist()
    before = sorted(path for path in (tmp_path / "store").rglob("*"))
    stranger = create_session(url=f"sqlite:///{tmp_path}/stranger.db", store=tmp_path / "store")
    loaded = stranger.load_experiment(id_experiment=experiment.id_experiment)
    persists = [
        lambda: make(stranger, ds=DataStore(a=2)).persist(),
        lambda: make(stranger, "another").persist(if_exists="replace"),
        lambda: stranger.persist_experiment(experiment),
    ]
    for persist in persists:
        with pytest.raises(UnknownStoreError, match="rebuild_index"):
            persist()
    assert sorted(path for path in (tmp_path / "store").rglob("*")) == before
    loaded.persist(if_exists="update")  # what was found by its id has its name already
    with pytest.raises(UnknownStoreError, match="rebuild_index"):
        persists[0]()
    stranger.rebuild_index()
    with pytest.raises(ExperimentExistsError):
        persists[0]()
    assert stranger.ls()["name"].tolist() == ["e"]
    stranger.close()


def test_a_dropped_session_closes_its_connections(tmp_path):
    """Nobody has to call close: when session and experiments are dropped, so are the connections they used."""
    made, closed = [], []
    session = open_session(tmp_path)
    sa.event.listen(session.database._open().reader, "connect", lambda connection, _: made.append(connection))
    sa.event.listen(session.database._open().reader, "close", lambda connection, _: closed.append(connection))
    experiment = make(session, ds=DataStore(a=1)).persist()
    with session.database.read(), session.database.read():  # a second connection
        session.io.write(b"x", "mine")
    del session, experiment
    gc.collect()
    assert len(made) == 1
    assert len(closed) == 2
    assert [path.name for path in tmp_path.glob("index.db*")] == ["index.db"]


def test_a_moved_store_is_the_same_store(session, tmp_path):
    """Nothing in a store knows where it is: moved, it works with the same index."""
    experiment = make(session, ds=DataStore(a=1, inner=DataStore(b=2))).persist()
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    moved = create_session(url=f"sqlite:///{tmp_path}/index.db", store=tmp_path / "elsewhere")
    fields = moved.load_experiment("e").runs.first().fields
    assert fields.ds.a == 1
    assert fields.ds.inner.b == 2
    assert moved.load_experiment("e").persist("update").generation == experiment.generation + 1


def test_an_experiment_of_another_store_is_named_as_such(session, tmp_path):
    """One database may index several stores; loading a name of another one says where it is."""
    make(session, "e").persist()
    second = create_session(url=f"sqlite:///{tmp_path}/index.db", store=tmp_path / "second")
    make(second, "f").persist()
    with pytest.raises(ExperimentNotFoundError, match="another store"):
        second.load_experiment("e")
    with pytest.raises(ExperimentExistsError, match="another store"):
        make(second, "e").persist("replace")
    assert session.ls()["name"].tolist() == ["e"]
    assert second.ls()["name"].tolist() == ["f"]


def test_two_of_one_name_are_ambiguous(session, tmp_path):
    """Two databases over one store may give one name twice; loading by it tells the ids."""
    make(session, "known to both").persist()
    other = create_session(url=f"sqlite:///{tmp_path}/other.db", store=tmp_path / "store")
    other.rebuild_index()
    first = make(session, "e").persist()
    second = make(other, "e").persist()
    session.rebuild_index()
    with pytest.raises(AmbiguousNameError) as caught:
        session.load_experiment("e")
    assert first.id_experiment in str(caught.value)
    assert second.id_experiment in str(caught.value)


def test_a_failing_index_is_a_warning_and_the_next_session_catches_up(session, tmp_path, monkeypatch):
    """When the database fails after the commit the persist has happened; the next session tells the index."""
    experiment = make(session, ds=DataStore(a=1)).persist()
    experiment.runs.first().fields.ds.a = 2

    def broken(*args, **kwargs):
        raise OSError("the database is gone")

    monkeypatch.setattr("mltraq_ds.orm.index.Index.write", broken)
    with pytest.warns(IndexBehindWarning, match=r"persisted as generation 2.*database is gone"):
        experiment.persist("update")
    monkeypatch.undo()
    assert session.load_experiment("e").runs.first().fields.ds.a == 2
    assert session.ls().generation.tolist() == [1]
    assert open_session(tmp_path).ls().generation.tolist() == [2]
    assert list((tmp_path / "store/_pending").iterdir()) == []


def test_a_failing_removal_is_a_warning(session, tmp_path, monkeypatch):
    """When what was replaced cannot be removed the persist has happened; the next session removes it."""
    experiment = make(session, ds=DataStore(a=1)).persist()
    old = experiment.runs.first().fields.ds.origin.reference.key
    experiment.runs.first().fields.ds.a = 2

    def broken(*args, **kwargs):
        raise OSError("cannot delete")

    monkeypatch.setattr("mltraq_ds.storage.local.LocalStorage.delete_many", broken)
    with pytest.warns(LeftoversWarning, match="cannot delete"):
        experiment.persist("update")
    monkeypatch.undo()
    assert (tmp_path / "store" / old).exists()
    assert open_session(tmp_path).load_experiment("e").runs.first().fields.ds.a == 2
    assert not (tmp_path / "store" / old).exists()


def test_a_failing_deletion_is_a_warning(session, tmp_path, monkeypatch):
    """When index or storage fail after the end was committed, the experiment is deleted all the same."""
    for target in ("mltraq_ds.orm.index.Index.remove", "mltraq_ds.storage.local.LocalStorage.move_folder"):
        experiment = make(session, "e", ds=DataStore(a=1)).persist()

        def broken(*args, **kwargs):
            raise OSError("out of order")

        monkeypatch.setattr(target, broken)
        with pytest.warns((IndexBehindWarning, LeftoversWarning), match="out of order"):
            experiment.delete()
        monkeypatch.undo()
        assert len(open_session(tmp_path).ls()) == 0
        assert not (tmp_path / "store" / experiment.id_experiment).exists()


def test_a_dead_database_is_refused_before_anything_is_made(tmp_path):
    """Persisting to a database that does not answer is refused with one sentence, and no file is made."""
    from mltraq_ds.errors import DatabaseUnavailableError

    session = create_session(url=f"sqlite:///{tmp_path}/no/such/folder/x.db", store=tmp_path / "store")
    with pytest.raises(DatabaseUnavailableError):
        make(session).persist()
    assert not (tmp_path / "store").exists()


def test_persist_under_every_storage_and_option(tmp_path):
    """Memory, relaxed durability, no mapping, compression and other verification read the same values."""
    for number, values in enumerate(
        [
            {},
            {"datastore.durability": "relaxed", "datastore.mmap": False},
            {"serialization.compression.codec": "zstd"},
            {"datastore.verify": "none"},
            {"datastore.verify": "digest"},
        ]
    ):
        for store in (tmp_path / f"store{number}", f"memory://options{number}"):
            with options.ctx(values):
                session = create_session(url="sqlite://", store=store)
                make(session, ds=DataStore(a=np.arange(50_000), b="x" * 100_000)).persist()
                loaded = session.load_experiment("e").runs.first().fields.ds
                assert loaded.a.sum() == 1249975000
                assert loaded.b == "x" * 100_000
                loaded.a[0] = 1
                session.load_experiment("e").persist("update").delete()
                assert len(session.ls()) == 0


def test_warnings_point_at_the_user(session, monkeypatch):
    """The line that a warning names is the user's own."""
    experiment = make(session).persist()

    def broken(*args, **kwargs):
        raise OSError("x")

    monkeypatch.setattr("mltraq_ds.orm.index.Index.write", broken)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        experiment.persist("update")
    assert caught[0].filename == __file__


def test_messages_lead_on(session, tmp_path):
    """An id given as a name, a missing file and a deleted experiment are answered with what to do."""
    from mltraq_ds import File

    experiment = make(session, ds=DataStore(a=1)).persist()
    with pytest.raises(ExperimentNotFoundError, match="one has this id.*id_experiment="):
        session.load_experiment(experiment.id_experiment)
    (tmp_path / "nope.pt").touch()
    missing = make(session, "missing", ds=DataStore(model=File(tmp_path / "nope.pt")))
    (tmp_path / "nope.pt").unlink()
    with pytest.raises(
        ValueChangedError, match=r"[Rr]un .*fields\.ds\['model'\] cannot be persisted.*nope\.pt.*it is gone.*Make File"
    ):
        missing.persist()
    other = experiment.reload()
    experiment.delete()
    with pytest.raises(ConcurrentPersistError, match=r"was deleted.*copy_to\(name\)") as caught:
        other.persist("update")
    assert "reload" not in str(caught.value)


def test_a_session_closes(tmp_path):
    """A session is a context manager; after closing it works again."""
    with open_session(tmp_path) as session:
        make(session).persist()
    assert session.load_experiment("e").name == "e"
    session.close()


def test_damaged_values_do_not_spoil_a_listing(session, tmp_path):
    """Objects of an experiment whose blobs are gone can still be looked at."""
    experiment = make(session, ds=DataStore(a=np.ones(5)), big=np.arange(5000)).persist()
    for path in (tmp_path / "store" / experiment.id_experiment).iterdir():
        if path.is_file() and path.name not in FIXED:
            path.unlink()
    run = experiment.reload().runs.first()
    assert "'a': <cannot be read: DanglingReferenceError>" in repr(run.fields.ds)
    assert "cannot be read" in repr(run)
    assert len(run.df()) == 1


def test_a_kept_blob_of_another_size_is_refused(session, tmp_path):
    """An update never commits over a blob that is known to be cut."""
    experiment = make(session, ds=DataStore(a=np.ones(500))).persist()
    path = tmp_path / "store" / experiment.runs.first().fields.ds.origin.reference.key
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DanglingReferenceError, match="bytes, not"):
        experiment.reload().persist("update")


def test_a_store_without_its_identity_is_not_empty(session, tmp_path):
    """If `_store.json` was removed, queries say so instead of showing nothing; rebuilding gives a new id."""
    make(session).persist()
    (tmp_path / "store/_store.json").unlink()
    fresh = open_session(tmp_path)
    with pytest.raises(UnknownStoreError, match=r"no _store\.json.*rebuild_index"):
        fresh.ls()
    fresh.rebuild_index()
    assert fresh.ls()["name"].tolist() == ["e"]


def test_rebuilding_forgets_nothing_that_may_be_all_that_is_left(session, tmp_path):
    """Experiments whose generations or records are damaged keep their rows; those that are gone lose them."""
    import shutil

    lost, cut, gone, fine = (make(session, name, x=1).persist() for name in ("lost", "cut", "gone", "fine"))
    store = tmp_path / "store"
    shutil.rmtree(store / lost.id_experiment / "generations")
    record = next((store / cut.id_experiment / "runs").iterdir())
    record.chmod(0o644)
    record.write_bytes(record.read_bytes()[:-3])
    shutil.rmtree(store / gone.id_experiment)
    report = session.rebuild_index()
    assert len(report) == 2
    assert session.ls()["name"].tolist() == ["lost", "cut", "fine"]
    assert session.query("select count(*) as n from mltraq_runs").n[0] == 3
    assert "restore them first" in str(session.check())
    assert fine.reload().runs


def test_a_storage_that_cannot_decide_keeps_writers_apart(tmp_path):
    """Where the storage does not say who was first, the second of two writers at work is refused, also to delete."""
    from mltraq_ds.storage import LocalStorage

    class Undecided(LocalStorage):
        @property
        def creates_if_absent(self):
            return False

        meanwhile = None

        def put(self, key, *arguments, **more):
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile and "/generations/" in key:
                meanwhile()
            else:
                self.meanwhile = meanwhile
            super().put(key, *arguments, **more)

    session = create_session(url=f"sqlite:///{tmp_path}/x.db", store=Undecided(tmp_path / "store"))
    experiment = make(session, x=1).persist()
    other = create_session(url=f"sqlite:///{tmp_path}/other.db", store=session.storage)
    other.rebuild_index()
    second, refusals = other.load_experiment("e"), []

    def meddle():
        for action in (lambda: second.persist(if_exists="update"), second.delete):
            with pytest.raises(ConcurrentPersistError, match="another writer is at work") as refused:
                action()
            refusals.append(refused.value)

    experiment.fields.x = 2
    session.storage.meanwhile = meddle
    experiment.persist(if_exists="update")
    assert len(refusals) == 2
    second = second.reload()
    assert second.fields.x == 2
    second.fields.x = 3
    second.persist(if_exists="update")
    experiment = experiment.reload()
    assert experiment.fields.x == 3
    experiment.delete()
    assert not list((tmp_path / "store" / "_pending").iterdir())


def test_a_name_is_looked_up_again_while_it_is_replaced(session, monkeypatch):
    """Between the end of an experiment and the name of its successor a reader waits a moment; then it is told."""
    old = session.create_experiment("x").persist()
    new = session.create_experiment("x").persist("replace")
    answers = [(old.id_experiment, 1), (old.id_experiment, 1), (new.id_experiment, 1)]
    monkeypatch.setattr(type(session), "_find", lambda self, name: answers.pop(0))
    assert session.load_experiment("x").id_experiment == new.id_experiment
    answers += [(old.id_experiment, 1)] * 9
    monkeypatch.setattr("mltraq_ds.tracking.finding._WAITS_S", (0.001,) * 4)
    with pytest.raises(ExperimentNotFoundError, match=old.id_experiment):
        session.load_experiment("x")
    assert len(answers) == 4


def test_a_store_is_looked_for_in_a_folder_of_its_own(tmp_path):
    """A file and the folder of an experiment are refused as stores, in a sentence, and nothing is changed there."""
    database = f"sqlite:///{tmp_path}/x.db"
    experiment = create_session(database, tmp_path / "store").create_experiment("e").add_run(x=1).persist()
    inside = tmp_path / "store" / experiment.id_experiment
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    before = sorted(map(str, inside.rglob("*")))
    for place, reason in (
        (file, "because it is a file"),
        (inside, "because .* is a folder inside one, which manages it"),
    ):
        session = create_session(database, place)
        with pytest.raises(UsageError, match=reason):
            session.ls()
        with pytest.raises(UsageError, match=reason):
            session.create_experiment("other").add_run(x=1).persist()
    assert (file.read_bytes(), sorted(map(str, inside.rglob("*")))) == (b"mine", before)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "_meta.json").write_text("{}")  # of somebody else's making
    assert create_session(database, tmp_path / "mine").ls().empty


def test_an_experiment_is_found_in_another_store_from_one_that_is_not_there_yet(tmp_path):
    """With the right database and a mistyped store the error names the store that has it; nothing is made."""
    database = f"sqlite:///{tmp_path}/x.db"
    with create_session(database, tmp_path / "store") as session:
        session.create_experiment("e").add_run(x=1).persist()
    with create_session(database, tmp_path / "typo") as mistyped:
        with pytest.raises(ExperimentNotFoundError, match=r"in another store \(.*/store, id "):
            mistyped.load_experiment("e")
    with create_session(f"sqlite:///{tmp_path}/none.db", tmp_path / "typo") as nowhere:
        with pytest.raises(ExperimentNotFoundError, match="No experiment is named"):
            nowhere.load_experiment("e")
    assert sorted(os.listdir(tmp_path)) == ["store", "x.db"]


def test_nothing_is_deleted_while_the_database_does_not_answer(session, tmp_path):
    """By name, by id and by object: a deletion is refused like a persist, and the experiment stays complete."""
    experiment = make(session, "e", ds=DataStore(a=1)).persist()
    before = sorted(tmp_path.rglob("*"))
    dead = create_session(url=f"sqlite:///{tmp_path}/nowhere/x.db", store=session.storage)
    for delete in (
        lambda: dead.delete_experiment("e"),
        lambda: dead.delete_experiment(id_experiment=experiment.id_experiment),
        dead.load_experiment(id_experiment=experiment.id_experiment).delete,
    ):
        with pytest.raises(DatabaseUnavailableError):
            delete()
        assert sorted(tmp_path.rglob("*")) == before
    assert experiment.reload().runs.first().fields.ds == {"a": 1}
    session.delete_experiment(id_experiment=experiment.id_experiment)


def test_a_store_of_a_newer_layout_is_refused_by_id_too(session, tmp_path):
    """A newer version may have changed what files mean: nothing is loaded; a damaged mark alone stops no rescue."""
    experiment = make(session, "e", x=1).persist()
    mark = tmp_path / "store" / "_store.json"
    mark.chmod(0o644)
    content = mark.read_text()
    mark.write_text(content.replace('"version": 1', '"version": 99'))
    fresh = create_session(url=session.database.url, store=session.storage)
    for load in (
        lambda: fresh.load_experiment("e"),
        lambda: fresh.load_experiment(id_experiment=experiment.id_experiment),
    ):
        with pytest.raises(FormatError, match="upgrade"):
            load()
    mark.write_text("{")
    assert fresh.load_experiment(id_experiment=experiment.id_experiment).runs.first().fields.x == 1
    mark.write_text(content)
    assert fresh.load_experiment("e").runs.first().fields.x == 1
