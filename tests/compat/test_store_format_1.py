"""A whole store of layout 1, written once and kept: every later version must read it.

Run as a script to write it: ``python tests/compat/test_store_format_1.py``.  A store that is there is never written
again.  It was written as an object store is, where deleted experiments leave their last generation.
"""

import datetime
import itertools
import pathlib
import shutil
import sys
import uuid
from unittest import mock

import pandas as pd
import pytest

from mltraq_ds import DataStore, Experiment, create_session, ids, options
from mltraq_ds.errors import ExperimentNotFoundError, RunError
from mltraq_ds.objects import Objects
from mltraq_ds.storage import open_storage
from mltraq_ds.store import generations, intents, layout, reading, slots
from mltraq_ds.store.keeper import Keeper

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

from store_values import ARRAY, FRAME, NATIVE, SMALL, TAGGED, same  # noqa: E402

FOLDER = HERE / "store-format-1"
STORE_ID = "00000000-0000-4000-8000-000000000001"
VALUES, PACKED, DELETED, REPLACED, REPLACING = (
    f"d65df69e-1175-44a5-be2f-2232765703{end}" for end in ("b8", "c9", "ee", "f1", "f2")
)
FENCED = "A:b/ü"
N_SMALL = 17


@pytest.fixture
def store(tmp_path):
    """Return the path of a copy: reading a store finishes what dead writers have left in it."""
    shutil.copytree(FOLDER, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def session(store):
    """Return a session on the copy, with a database that does not know it."""
    return create_session("sqlite:///index.db", store)


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_tag_is_read(session):
    """Every kind of value in a record comes back equal, of its type, by the id of its experiment."""
    experiment = session.load_experiment(id_experiment=VALUES)
    run = experiment.runs.first()
    for name, value in {**NATIVE, **TAGGED}.items():
        assert same(run.fields[name], value), name
    assert dict(run.params) == {"lr": 0.1, "$ref": "a name, not a tag"}
    assert dict(run.config) == {"seed": 7}
    assert experiment.fields.note == "golden"
    assert (experiment.name, experiment.generation) == ("values", 2)
    assert experiment.created == "2024-02-29T12:00:00.000000+00:00"


def test_blobs_are_read(session):
    """Values and DataStores, inside each other and in lists too, come back from their blobs."""
    fields = session.load_experiment(id_experiment=VALUES).runs.first().fields
    assert same(fields.array, ARRAY)
    assert same(fields.frame, FRAME)
    assert list(fields.ds) == ["weights", "frame", "inner", "{any} key: ü"]
    assert same(fields.ds.weights, ARRAY)
    assert same(fields.ds.frame, FRAME)
    assert isinstance(fields.ds.inner, DataStore)
    assert same(fields.ds.inner.small, SMALL)
    assert fields.ds["{any} key: ü"] == {1: (2,)}
    assert isinstance(fields.listed[1], DataStore)
    assert fields.listed[1].x == "in a list"


def test_a_failed_run_is_read(session):
    """The failure of a run comes back as text."""
    run = [*session.load_experiment(id_experiment=VALUES).runs.values()][1]
    assert run.status == "failed"
    assert type(run.exception) is RunError
    assert str(run.exception) == "ValueError: no"
    assert (run.exception.type_name, run.exception.traceback) == ("ValueError", "Traceback (as text)")


def test_packs_are_read(session):
    """DataStores that share a file come back, each by its fragment."""
    experiment = session.load_experiment(id_experiment=PACKED)
    urls = set()
    for i, run in enumerate(experiment.runs.values()):
        for j in range(N_SMALL):
            datastore = run.fields[f"small_{j}"]
            assert same(datastore["values"], SMALL + i)
            assert datastore["at"] == [i, j]
            urls.add(datastore.to_url())
    assert len(urls) == 2 * N_SMALL
    assert len({url.partition("#")[0] for url in urls}) == 1


def test_ends_are_respected(session):
    """An experiment that was deleted, or whose place another one took, does not come back."""
    for id_experiment in (DELETED, REPLACED):
        with pytest.raises(ExperimentNotFoundError):
            session.load_experiment(id_experiment=id_experiment)
    assert session.load_experiment(id_experiment=REPLACING).fields.version == 2


def test_a_fence_and_a_torn_generation(session, store):
    """A fence holds what its parent holds, and an empty generation file is passed over."""
    experiment = session.load_experiment(id_experiment=FENCED)
    assert (experiment.generation, experiment.fields.kept) == (2, "by the fence")
    folder = layout.folder_of(FENCED)
    assert (store / folder / "generations" / "3.json").read_bytes() == b""
    current = generations.current(open_storage(store), folder)
    assert current is not None
    assert current.stands_on((1, current.parent_writer))
    assert current.fences == "00000000-0000-4000-8000-0000000000ff"


def test_the_intent_is_read_and_finished(store, monkeypatch):
    """The intent of a writer on another machine is read; when it is old, its work is undone and nothing is lost."""
    (intent,) = intents.list_intents(open_storage(store))
    assert (intent.action, intent.id_experiment, intent.parent, intent.number) == ("persist", PACKED, 1, 2)
    assert (intent.machine, intent.process) == ("elsewhere", "4711/99")
    monkeypatch.setattr(intents, "LEASE_S", -1.0)  # the copy is new: its writer would be taken for alive
    create_session("sqlite:///index.db", store).delete_experiment(id_experiment=REPLACING)
    assert intents.list_intents(open_storage(store)) == []
    assert len(create_session("sqlite:///index.db", store).load_experiment(id_experiment=PACKED).runs) == 2


def test_every_file_is_accounted_for(store):
    """Current generations refer to all blobs and records there are, and each verifies."""
    storage = open_storage(store)
    referred = set()
    for folder in layout.experiment_folders(storage):
        current = generations.current(storage, folder)
        if current is not None and not current.deleted:
            _, content, objects = reading.load(Objects(storage, verify="digest"), current.id_experiment)
            assert content.id_experiment == current.id_experiment
            for reference in current.blobs:
                assert objects.open(reference).check() == []
            referred |= current.keys
    there = {stat.key for stat in storage.list("") if "/generations/" not in stat.key and stat.key.count("/") > 0}
    assert referred == {key for key in there if not key.endswith("/_meta.json") and not key.startswith("_pending/")}


def test_the_index_is_rebuilt(session):
    """A database that has never seen the store has every living experiment afterwards."""
    session.rebuild_index()
    table = session.ls().set_index("id_experiment")
    assert sorted(table.index) == sorted([VALUES, PACKED, REPLACING, FENCED])
    assert table.loc[FENCED, "name"] == "A/b: ü"
    assert session.load_experiment("values").id_experiment == VALUES
    assert session.load_experiment("again").fields.version == 2
    assert session.load_experiment("A/b: ü").generation == 2  # past the torn one
    found = session.query("SELECT fields FROM mltraq_runs ORDER BY id_experiment, position")["fields"]
    assert '"float_nan":"NaN"' in found[0]


def test_a_store_is_continued(session):
    """An experiment of this layout is persisted again, and its untouched blobs stay where they are."""
    experiment = session.load_experiment(id_experiment=VALUES)
    run = experiment.runs.first()
    before = run.fields.ds.to_url()
    run.fields.more = 1
    experiment.persist(if_exists="update")
    again = create_session("sqlite:///index.db", session.storage.url).load_experiment(id_experiment=VALUES)
    assert (again.generation, again.runs.first().fields.more) == (3, 1)
    assert again.runs.first().fields.ds.to_url() == before
    assert same(again.runs.first().fields.ds.weights, ARRAY)


class _Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime(2024, 2, 29, 12, tzinfo=tz)


def _experiment(session, id_experiment, name):
    experiment = Experiment(session, id_experiment, name)
    experiment.created = layout.now_text()
    return experiment


def _write_values(session):
    experiment = _experiment(session, VALUES, "values")
    experiment.fields.note = "golden"
    with experiment.run() as run:
        run.params.lr = 0.1
        run.params["$ref"] = "a name, not a tag"
        run.config.seed = 7
        run.fields = {**NATIVE, **TAGGED, "array": ARRAY, "frame": FRAME}
        run.fields.ds = DataStore(weights=ARRAY, frame=FRAME, inner=DataStore(small=SMALL))
        run.fields.ds["{any} key: ü"] = {1: (2,)}
        run.fields.listed = [1, DataStore(x="in a list")]
    with experiment.run() as run:
        pass
    run.status, run.exception = "failed", RunError("ValueError: no", "ValueError", "Traceback (as text)")
    experiment.persist()
    experiment.persist(if_exists="update")  # a second generation, which keeps all blobs


def _write_packed(session):
    experiment = _experiment(session, PACKED, "packed")
    for i in range(2):
        with experiment.run() as run:
            for j in range(N_SMALL):
                run.fields[f"small_{j}"] = DataStore({"values": SMALL + i, "at": [i, j]})
    experiment.persist()


def _write_ended(session):
    _experiment(session, DELETED, "deleted").persist().delete()
    one, two = _experiment(session, REPLACED, "again"), _experiment(session, REPLACING, "again")
    one.fields.version, two.fields.version = 1, 2
    one.persist()
    two.persist(if_exists="replace")


def _write_fenced(session):
    experiment = _experiment(session, FENCED, "A/b: ü")
    experiment.fields.kept = "by the fence"
    experiment.persist()
    storage, folder = session.storage, layout.folder_of(FENCED)
    parent = generations.current(storage, folder)
    fence = generations.Generation(
        id_experiment=FENCED,
        name=parent.name,
        number=2,
        writer=str(uuid.uuid4()),
        parent=1,
        parent_writer=parent.writer,
        records=parent.records,
        blobs=parent.blobs,
        fences="00000000-0000-4000-8000-0000000000ff",
    )
    slots.create(storage, fence)
    storage.put(layout.generation_key(folder, 3), [b""], size=0)


def _write_intent(session):
    intent = intents.Intent(
        writer=str(uuid.uuid4()),
        action="persist",
        id_experiment=PACKED,
        name="packed",
        parent=1,
        number=2,
        machine="elsewhere",
        process="4711/99",
        created=layout.now_text(),
    )
    with Keeper(session.storage, intent):
        pass


def main():
    """Write the store in memory, with fixed ids and times, then save its files."""
    if FOLDER.exists():
        raise SystemExit(f"{FOLDER.name} is there; it is kept, not written again.")
    numbers = itertools.count(1)
    storage = open_storage("memory://golden")
    with (
        mock.patch("uuid.uuid4", side_effect=lambda: uuid.UUID(int=0x4000_8000 << 48 | next(numbers))),
        mock.patch.object(layout, "datetime", _Clock),
        options.ctx({"reproducibility.sequential_uuids": True}),
    ):
        ids.next_uuid(seed=ids.FIRST_SEQUENTIAL_UUID.int)
        session = create_session("sqlite://", storage)
        for write in (_write_values, _write_packed, _write_ended, _write_fenced, _write_intent):
            write(session)
    for stat in storage.list(""):
        path = FOLDER / stat.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(storage.read(stat.key))
    assert layout.read_store_id(open_storage(FOLDER)) == STORE_ID
    print(f"{sum(path.is_file() for path in FOLDER.rglob('*'))} files, pandas {pd.__version__}")


if __name__ == "__main__":
    main()
