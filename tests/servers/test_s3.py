"""S3 as users meet it: credentials, several writers, processes, and services that do not keep their word."""

import io
import logging
import multiprocessing
import os
import pickle
import threading
import traceback
import uuid
import warnings

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

from mltraq_ds import DataStore, DataStoreIO, create_session, options
from mltraq_ds.errors import (
    ConcurrentPersistError,
    KeyExistsError,
    MltraqDSError,
    SecretInOptionsWarning,
    StorageError,
)
from mltraq_ds.storage import open_storage
from mltraq_ds.storage.remote import RemoteStorage
from tests.fixtures_storages import KEY, SECRET, s3_options

pytest.importorskip("s3fs")
pytestmark = pytest.mark.server
warns_of_secrets = pytest.mark.filterwarnings("ignore::mltraq_ds.errors.SecretInOptionsWarning")


@pytest.fixture
def url():
    return f"s3://mltraq/{uuid.uuid4().hex}"


@pytest.fixture
def environment(seaweedfs, monkeypatch, tmp_path):
    """Name the service and a profile in the files of AWS's tools; no credentials are in the environment."""
    (tmp_path / "config").write_text(f"[profile lab]\nregion = us-east-1\nendpoint_url = {seaweedfs.url}\n")
    (tmp_path / "credentials").write_text(f"[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_profile_in_the_options_is_the_one_in_the_environment(url, environment, monkeypatch, tmp_path):
    """`{"profile": …}` and AWS_PROFILE reach the same bytes, neither warns, and without both nothing is reached."""
    options.set("datastore.url", url)
    options.set("database.url", f"sqlite:///{tmp_path}/index.db")
    with options.ctx({"datastore.storage_options": {"profile": "lab"}}):
        create_session().create_experiment("e", x=1).persist()
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert create_session().load_experiment("e").fields.x == 1
    assert pickle.loads(pickle.dumps(open_storage(url))).read("_store.json")
    monkeypatch.delenv("AWS_PROFILE")
    with pytest.raises(StorageError):
        open_storage(url, storage_options={"endpoint_url": "http://127.0.0.1:9"}).read("_store.json")
    with pytest.raises(StorageError, match="no such profile"):
        open_storage(url, storage_options={"profile": "nobody"}).read("_store.json")


def test_secret_in_the_options_warns(url, seaweedfs):
    """Key and secret work, and a warning says what is better without repeating them."""
    with pytest.warns(SecretInOptionsWarning, match="name a profile") as caught:
        storage = open_storage(url, storage_options=seaweedfs.options)
    assert SECRET not in str(caught[0].message)
    storage.put("x", [b"1"], size=1)
    assert storage.read("x") == b"1"


def test_other_credentials_never_share_a_client(url, seaweedfs):
    """A storage with a wrong secret is refused beside one with the right one, in whatever order they are made."""
    right = RemoteStorage(url, storage_options=seaweedfs.options)
    wrong = RemoteStorage(url, storage_options={**seaweedfs.options, "secret": "nonsense"})
    unknown = RemoteStorage(url, storage_options={**seaweedfs.options, "key": "nobody"})
    right.put("x", [b"1"], size=1)
    with pytest.raises(StorageError, match="the secret key is wrong"):
        wrong.read("x")
    with pytest.raises(StorageError, match="does not know this access key"):
        unknown.read("x")
    assert right.read("x") == b"1"


def test_missing_bucket(moto):
    """A bucket that is not there is no missing key, whatever is asked."""
    storage = RemoteStorage("s3://nowhere/x", storage_options=moto.options)
    for verb in (lambda: storage.put("x", [b"1"], size=1), lambda: storage.read("x"), lambda: list(storage.list())):
        with pytest.raises(StorageError, match=r"there is no such bucket\. Make it"):
            verb()


def test_clock_that_is_wrong(url, seaweedfs, monkeypatch):
    """A clock that is an hour off is named as what is wrong."""
    import botocore.auth

    storage = RemoteStorage(url, storage_options=seaweedfs.options)
    storage.put("x", [b"1"], size=1)
    true = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *a, **k: true(*a, **k).replace(year=2020))
    with pytest.raises(StorageError, match="the clock of this machine differs"):
        storage.read("x")


def test_service_that_overwrites_is_found_out(url, rclone_s3):
    """A service that answers "done" to a condition that it ignores is known after one probe."""
    storage = RemoteStorage(url, storage_options=rclone_s3.options)
    assert not storage.creates_if_absent
    storage.put("x", [b"1"], size=1)
    with pytest.raises(KeyExistsError):
        storage.put("x", [b"2"], size=1)
    assert storage.read("x") == b"1"
    assert [stat.key for stat in storage.list()] == ["x"]
    assert not list(storage.list_unfinished())


@warns_of_secrets
@pytest.mark.parametrize("service", ["seaweedfs", "rclone_s3"])
def test_two_writers_of_one_experiment(service, url, request, tmp_path):
    """Of two who persist on the same version one wins and the other is told; both may be where nobody decides."""
    given = request.getfixturevalue(service).options

    def session(name="index"):
        return create_session(f"sqlite:///{tmp_path}/{name}.db", url, given)

    session().create_experiment("e", x=0).persist()
    session("other").rebuild_index()
    loaded = [session(name).load_experiment("e") for name in ("index", "other")]
    outcomes = [None, None]
    barrier = threading.Barrier(2)

    def work(number):
        loaded[number].fields.x = number + 1
        barrier.wait()
        try:
            loaded[number].persist(if_exists="update")
        except ConcurrentPersistError as error:
            outcomes[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number + 1 for number, outcome in enumerate(outcomes) if outcome is None]
    assert len(winners) == 1 or (service == "rclone_s3" and not winners)
    assert session().load_experiment("e").fields.x == (winners[0] if winners else 0)
    session().rebuild_index()
    assert not list(session().check(deep=True))


@warns_of_secrets
def test_sixteen_threads(url, seaweedfs, tmp_path):
    """Sixteen threads persist experiments of their own through one session, and each finds its own."""
    session = create_session(f"sqlite:///{tmp_path}/index.db", url, seaweedfs.options)
    errors = []

    def work(number):
        try:
            experiment = session.create_experiment(f"e{number}")
            with experiment.run() as run:
                run.fields.ds = DataStore(a=np.full(1000, number))
            experiment.persist()
            assert session.load_experiment(f"e{number}").runs.first().fields.ds.a[0] == number
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(session.ls()) == 16
    assert not list(session.check())


def _write_and_read(storage, number):
    storage.put(f"{number}", [b"%d" % number] * 3, size=3)
    return storage.read(f"{number}"), storage.read("parent")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers(method, url, environment, monkeypatch):
    """Processes that are forked from one that has a connection, or spawned, use connections of their own."""
    monkeypatch.setenv("AWS_PROFILE", "lab")
    storage = open_storage(url)
    storage.put("parent", [b"1"], size=1)
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.starmap(_write_and_read, [(storage, number) for number in range(4)])
    assert found == [(b"%d" % number * 3, b"1") for number in range(4)]
    assert {stat.key for stat in storage.list()} == {"parent", "0", "1", "2", "3"}


def note_the_store(run):
    """Write and read in the store of the run, wherever it is executed."""
    run.fields.process = os.getpid()
    run.fields.url = DataStoreIO.write(b"from a worker", "mine").url
    run.fields.ds = DataStore(weights=np.full(2000, run.params.x))


@pytest.mark.parametrize("backend", ["multiprocessing", "loky"])
def test_steps_on_workers(backend, url, environment, monkeypatch, tmp_path):
    """Steps in forked and in fresh processes write to the store on S3, and what they return is persisted there."""
    get_reusable_executor().shutdown(wait=True)  # its processes have the environment of whoever started them
    monkeypatch.setenv("AWS_PROFILE", "lab")
    session = create_session(f"sqlite:///{tmp_path}/index.db", url)
    session.create_experiment("warm").persist()
    experiment = session.create_experiment("e").add_runs(x=[1, 2, 3])
    experiment.execute(note_the_store, n_jobs=2, backend=backend).persist()
    loaded = create_session(f"sqlite:///{tmp_path}/index.db", url).load_experiment("e")
    assert sorted(run.fields.ds.weights[-1] for run in loaded.runs.values()) == [1, 2, 3]
    assert os.getpid() not in {run.fields.process for run in loaded.runs.values()}
    assert {DataStoreIO(run.fields.url, store=session).read() for run in loaded.runs.values()} == {b"from a worker"}
    assert not list(session.check(deep=True))


def test_public_bucket(moto, monkeypatch, tmp_path):
    """`{"anon": True}` reads what is public without any credentials, and neither warns nor keeps from pickling."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    url = f"s3://mltraq/{uuid.uuid4().hex}"
    owned = RemoteStorage(url, storage_options=moto.options)
    owned.put("x", [b"1"], size=1)
    name = f"{url.rpartition('/')[2]}/x"
    owned._client().filesystem.call_s3("put_object_acl", Bucket="mltraq", Key=name, ACL="public-read")
    bare = {"endpoint_url": moto.url}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        public = open_storage(url, storage_options={**bare, "anon": True})
    assert public.read("x") == b"1"
    assert pickle.loads(pickle.dumps(public)).read("x") == b"1"
    with pytest.raises(StorageError, match="refuses these credentials"):
        public.put("y", [b"1"], size=1)
    with pytest.raises(StorageError, match="no credentials were found"):
        open_storage(url, storage_options=bare).read("x")


@warns_of_secrets
def test_door_by_url_has_the_options(url, seaweedfs):
    """What is written by `store=` with the URL of options reaches it with their credentials."""
    options.set("datastore.storage_options", seaweedfs.options)
    options.set("datastore.url", url)
    written = DataStoreIO.write(b"x", "own", store=url)
    assert DataStoreIO(written.url).read() == written.read() == b"x"


def assert_clean(content, where):
    content = content if isinstance(content, bytes) else str(content).encode("utf-8", "backslashreplace")
    assert SECRET.encode() not in content, f"the secret is in {where}"


@warns_of_secrets
@pytest.mark.parametrize("kind", ["options", "environment"])
def test_real_credentials_are_in_nothing(kind, url, seaweedfs, monkeypatch, tmp_path, caplog, capfd):
    """Objects, rows, logs, errors and pickles of a life on a real service repeat no secret, wherever it came from."""
    caplog.set_level(logging.DEBUG, logger="mltraq_ds")
    caplog.set_level(logging.DEBUG, logger="stamina")
    given = dict(seaweedfs.options)
    if kind == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", given.pop("key"))
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given.pop("secret"))
    session = create_session(f"sqlite:///{tmp_path}/index.db", url, given)
    experiment = session.create_experiment("e")
    with experiment.run() as run:
        run.fields.ds = DataStore(a=np.arange(5000))
        written = session.io.write(b"x", "own")
    experiment.persist()
    loaded = session.load_experiment("e")
    fields = loaded.runs.first().fields
    fields.ds.a.sum()
    seen = io.StringIO()
    for found in (session, session.storage, session.place, session.objects(), loaded, fields, written, session.check()):
        print(repr(found), str(found), file=seen)
    assert_clean(seen.getvalue(), "a repr")
    for found in (session.storage, session.place, fields, fields.ds, written, loaded):
        try:
            assert_clean(pickle.dumps(found), f"the pickle of {type(found).__name__}")
        except (MltraqDSError, TypeError) as error:
            assert_clean("".join(traceback.format_exception(error)), "a refusal to pickle")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert_clean(path.read_bytes(), path.name)
    for stat in session.storage.list():
        assert_clean(session.storage.read(stat.key), stat.key)
    broken = {**s3_options(1), "config_kwargs": {"connect_timeout": 1}}
    dead = RemoteStorage(url, storage_options=broken, deadline_s=1)
    wrong = RemoteStorage(url, storage_options={**given, "key": "nobody", "secret": SECRET})
    for action in (
        lambda: dead.read("x"),
        lambda: wrong.read("x"),
        lambda: DataStoreIO(written.url, store=wrong).read(),
    ):
        with pytest.raises(MltraqDSError) as failed:
            action()
        assert_clean("".join(traceback.format_exception(failed.value)), "a traceback")
        assert_clean(pickle.dumps(failed.value), "a pickled error")
    assert_clean(caplog.text, "the log")
    assert_clean("".join(capfd.readouterr()), "what is printed")


@pytest.mark.slow
def test_memory_of_a_large_upload(url, seaweedfs):
    """A large array is sent from where it is: what is in memory beside it does not grow with its size."""
    import tracemalloc

    storage = RemoteStorage(url, storage_options=seaweedfs.options, concurrency=4)
    storage.put("first", [b"1"], size=1)  # imports and connects
    data = memoryview(np.arange(8 * 2**20)).cast("B")
    tracemalloc.start()
    try:
        storage.put("x", [data], size=data.nbytes)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert data.nbytes == 64 * 2**20
    assert peak < 20 * 2**20
    assert storage.open("x").read(0, data.nbytes) == data
