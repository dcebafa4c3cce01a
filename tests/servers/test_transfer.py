"""Exports by way of real servers: file, PostgreSQL, S3, file gives equal stores."""

import shutil
import uuid

import numpy as np
import pytest

from mltraq_ds import DataStore, create_session, load_results
from mltraq_ds.errors import TransferError
from mltraq_ds.storage import open_storage
from mltraq_ds.store import ArtifactDescriptor, FileStoreConfig, PostgresStoreConfig, RunRecord, export_store
from mltraq_ds.store.checking import check
from tests.fixtures_storages import KEY, SECRET

pytest.importorskip("s3fs")
pytestmark = pytest.mark.server


@pytest.fixture
def source(tmp_path):
    """Return a store with a persisted experiment and one of single records."""
    root = tmp_path / "source"
    with create_session(f"sqlite:///{tmp_path}/source.db", root) as session:
        experiment = session.create_experiment("digits").add_runs(lr=[0.1, 0.2])
        for run in experiment.runs.values():
            run.fields.ds = DataStore(weights=np.arange(200_000) * run.params.lr)
        experiment.persist()
    store = FileStoreConfig(root=root, experiment_id="a:b").connect()
    store.put_run_record(RunRecord.success("1", "a:b", metrics={"x": 0.5}))
    store.put_derived("1", {"y": 2})
    store.put_artifact(b"x" * 1000, ArtifactDescriptor("1", "model", run_id="1"))
    return root


@pytest.fixture(autouse=True)
def _secrets(monkeypatch):
    monkeypatch.setenv("LAB_KEY", KEY)
    monkeypatch.setenv("LAB_SECRET", SECRET)


def options_of(service):
    """Return storage options that name where the secrets are."""
    return {**service.options, "key": "env:LAB_KEY", "secret": "env:LAB_SECRET"}


def files_of(storage):
    keys = [stat.key for stat in storage.list() if not stat.key.startswith(("_pending/", "_store"))]
    return {key: storage.read(key) for key in keys}


@pytest.mark.parametrize("service", ["seaweedfs", "moto"])
def test_there_and_back(source, service, postgresql_url, tmp_path, request):
    """What comes back is the same, byte by byte; every stop on the way is clean and can be read."""
    options = options_of(request.getfixturevalue(service))
    indexed = PostgresStoreConfig(connection_string=postgresql_url, file_root=tmp_path / "two")
    remote = FileStoreConfig(root=f"s3://mltraq/{uuid.uuid4().hex}/three", storage_options=options)
    back = FileStoreConfig(root=tmp_path / "back")
    for one, other in ((source, indexed), (indexed, remote), (remote, back)):
        assert export_store(one, other)["experiments"] == 2
        assert len(check(other.files.open_storage() if other is indexed else other.open_storage(), deep=True)) == 0
    assert files_of(open_storage(source)) == files_of(remote.open_storage()) == files_of(back.open_storage())
    assert set(export_store(remote, back).values()) == {0}
    assert load_results(remote, "a:b").load("1", "model") == b"x" * 1000
    weights = [one.load("ds").weights[-1] for one in load_results(remote).filter() if one.experiment_id != "a:b"]
    assert sorted(weights) == [199_999 * 0.1, 199_999 * 0.2]
    with indexed.connect() as store:
        assert len(store.check()) == 0


def references_of(service, monkeypatch):
    """Return URL and options of a fresh place; secrets in the environment, which the options name."""
    server = service[0] if isinstance(service, tuple) else service
    given = dict(server.options)
    for name in ("connection_string", "password"):
        if name in given:
            monkeypatch.setenv(f"LAB_{name.upper()}", given[name])
            given[name] = f"env:LAB_{name.upper()}"
    return given


@pytest.mark.parametrize(
    ("service", "url"), [("azurite", "az://mltraq/{}"), ("gcs", "gs://mltraq/{}"), ("sftp", "sftp://127.0.0.1/{}")]
)
def test_other_services_there_and_back(source, service, url, tmp_path, request, monkeypatch):
    """Azure, Google Cloud Storage and SFTP give back what an export has put there, byte by byte."""
    options = references_of(request.getfixturevalue(service), monkeypatch)
    remote = FileStoreConfig(root=url.format(uuid.uuid4().hex), storage_options=options)
    back = FileStoreConfig(root=tmp_path / "back")
    for one, other in ((source, remote), (remote, back)):
        assert export_store(one, other)["experiments"] == 2
        assert len(check(other.open_storage(), deep=True)) == 0
    assert files_of(open_storage(source)) == files_of(remote.open_storage()) == files_of(back.open_storage())
    assert set(export_store(remote, back).values()) == {0}


def test_http_as_a_source(source, rclone_http, tmp_path):
    """What a server shows by HTTP is exported as from the folder behind it; into it nothing is."""
    server, folder = rclone_http
    name = f"source-{tmp_path.name}"
    shutil.copytree(source, folder / name)
    shown = FileStoreConfig(root=f"{server.url}/{name}")
    copy = FileStoreConfig(root=tmp_path / "copy")
    assert export_store(shown, copy)["experiments"] == 2
    assert files_of(open_storage(source)) == files_of(copy.open_storage())
    assert len(check(copy.open_storage(), deep=True)) == 0
    with pytest.raises((TransferError, OSError), match="only read"):
        export_store(source, FileStoreConfig(root=f"{server.url}/nothing"))


def test_an_index_over_s3(moto, postgresql_url):
    """Records on S3 with an index in PostgreSQL: listed by the index, rebuilt from the bucket, checked clean."""
    config = PostgresStoreConfig(
        connection_string=postgresql_url,
        file_root=f"s3://mltraq/{uuid.uuid4().hex}",
        storage_options=options_of(moto),
        experiment_id="exp:1",
    )
    with config.connect() as store:
        for i in range(3):
            store.put_run_record(RunRecord.success(f"run-{i}", "exp:1", metrics={"x": i}))
        assert sorted(one.metrics["x"] for one in store.list_run_records()) == [0, 1, 2]
        assert store.rebuild_index() == 3
        assert sorted(one.metrics["x"] for one in store.list_run_records()) == [0, 1, 2]
        assert len(store.check()) == 0


def test_a_bucket_that_is_not_there(source, moto):
    """A destination that refuses is told with its place and what remains; the source is as it was."""
    before = files_of(open_storage(source))
    nowhere = FileStoreConfig(root="s3://no-such-bucket-here/x", storage_options=options_of(moto))
    with pytest.raises((TransferError, OSError), match="no-such-bucket-here"):
        export_store(source, nowhere)
    assert files_of(open_storage(source)) == before
