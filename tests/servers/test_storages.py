"""The whole life of experiments on every kind of remote, seen again by others: other sessions, processes, tools."""

import uuid

import numpy as np
import pytest

from mltraq_ds import DataStore, create_session
from mltraq_ds.errors import ConcurrentPersistError, ExperimentNotFoundError
from mltraq_ds.storage import LocalStorage, open_storage

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore::mltraq_ds.errors.SecretInOptionsWarning"),
]

URLS = {
    "seaweedfs": "s3://mltraq/{}",
    "moto": "s3://mltraq/{}",
    "rclone_s3": "s3://mltraq/{}",
    "azurite": "az://mltraq/{}",
    "gcs": "gs://mltraq/{}",
    "sftp": "sftp://127.0.0.1/{}",
}


QUICK = {"azurite", "gcs", "seaweedfs", "sftp"}


@pytest.fixture(params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in URLS])
def place(request):
    """Return URL and options of a fresh place on a server."""
    server = request.getfixturevalue(request.param)
    server = server[0] if isinstance(server, tuple) else server
    return URLS[request.param].format(uuid.uuid4().hex), server.options


def open_session(tmp_path, place, name="index"):
    return create_session(f"sqlite:///{tmp_path}/{name}.db", *place)


def make(session, name, size=3000, **fields):
    experiment = session.create_experiment(name, **fields)
    with experiment.run() as run:
        run.params.lr = 0.1
        run.fields.loss = 0.5
        run.fields.ds = DataStore(weights=np.arange(size, dtype="f8"), note="hello", inner=DataStore(b=[1, 2]))
    return experiment


def test_whole_life(place, tmp_path):
    """Persist, load, update, replace, delete, check, sweep, rebuild, and a copy in a folder: nothing is lost."""
    session = open_session(tmp_path, place)
    first = make(session, "first", x=1).persist()
    doomed = make(session, "doomed").persist()
    make(session, "taken").persist()
    written = session.io.write(b"own bytes", "mine")

    again = open_session(tmp_path, place)
    assert again.ls()["name"].tolist() == ["first", "doomed", "taken"]
    loaded = again.load_experiment("first")
    assert loaded.runs.first().fields.ds.weights[-1] == 2999
    assert loaded.runs.first().fields.ds.inner.b == [1, 2]
    loaded.fields.x = 2
    loaded.persist(if_exists="update")
    with pytest.raises(ConcurrentPersistError):
        first.persist(if_exists="update")
    assert first.reload().fields.x == 2
    make(session, "taken", size=10).persist(if_exists="replace")
    again.load_experiment("doomed").delete()
    with pytest.raises(ExperimentNotFoundError):
        session.load_experiment(id_experiment=doomed.id_experiment)
    assert written.read() == b"own bytes"

    assert str(session.check(deep=True)) == str(open_session(tmp_path, place).check(deep=True))
    assert not list(session.check(deep=True))
    session.sweep(dry_run=False, grace_s=0)
    assert not list(session.check(deep=True))
    other = open_session(tmp_path, place, "other")
    other.rebuild_index()
    assert set(other.ls()["name"]) == {"first", "taken"}
    assert other.load_experiment("taken").runs.first().fields.ds.weights.size == 10

    source, target = open_storage(place[0], storage_options=place[1]), LocalStorage(tmp_path / "copy")
    for stat in source.list():
        target.put(stat.key, [source.read(stat.key)], size=stat.size, parents=True)
    copied = create_session(f"sqlite:///{tmp_path}/copy.db", tmp_path / "copy")
    copied.rebuild_index()
    assert copied.load_experiment("first").runs.first().fields.ds.weights[-1] == 2999
    assert not list(copied.check(deep=True))
