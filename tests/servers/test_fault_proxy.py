"""Between us and an S3 service everything fails once, or for good from some request on: nothing is lost."""

import itertools
import re
import threading
import time
import uuid

import numpy as np
import pytest

from mltraq_ds import DataStore, create_session
from mltraq_ds.errors import LeftoversWarning, MltraqDSError, StorageError
from mltraq_ds.storage import requests as storage_requests
from mltraq_ds.storage.remote import RemoteStorage
from mltraq_ds.store import slots
from mltraq_ds.store.intents import list_intents
from tests.fixtures_storages import s3_options
from tests.servers.fault_proxy import FaultProxy, refusal
from tests.unit.store.test_recovery import as_dead, persist_until

pytest.importorskip("s3fs")
pytestmark = pytest.mark.server


@pytest.fixture
def proxy(seaweedfs, monkeypatch):
    monkeypatch.setattr(storage_requests, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(storage_requests, "_JITTER_S", 0.01)
    monkeypatch.setattr(slots, "_FIRST_PAUSE_S", 0.001)
    with FaultProxy(seaweedfs.port) as proxy:
        yield proxy


@pytest.fixture
def prefix():
    return uuid.uuid4().hex


def storage_on(port, prefix, client="fsspec", **options):
    if client == "obstore":
        pytest.importorskip("obstore")
    given = s3_options(port, **options)
    return RemoteStorage(f"s3://mltraq/{prefix}", storage_options=given, deadline_s=30, client=client)


def open_session(tmp_path, port, prefix, name="index", **options):
    return create_session(f"sqlite:///{tmp_path}/{name}.db", storage_on(port, prefix, **options))


def change(experiment, x, size=2000):
    experiment.fields.x = x
    if not len(experiment.runs):
        experiment.add_run()
    experiment.runs.first().fields.ds = DataStore(weights=np.full(size, x), note="hello")


def once(fault):
    """Return what makes each request fail the first time."""
    seen = set()
    lock = threading.Lock()

    def fails(request):
        request = re.sub("(?i)uploadId=[^& ]+", "uploadId=", request)  # one that is begun anew is the same request
        with lock:
            is_new = request not in seen
            seen.add(request)
        return fault if is_new else None

    return fails


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("reset", marks=pytest.mark.slow),
        "lost",
        pytest.param("cut", marks=pytest.mark.slow),
        pytest.param(refusal(503, "SlowDown"), id="busy"),
        pytest.param(refusal(500, "InternalError"), id="broken", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("client", ["fsspec", "obstore"])
def test_every_request_fails_once(fault, client, proxy, seaweedfs, prefix, tmp_path):
    """Every request of a life fails the first time; each is repeated, and the outcome is as if none had failed."""
    proxy.fault = once(fault)
    session = open_session(tmp_path, proxy.port, prefix, client=client)
    experiment = session.create_experiment("e")
    change(experiment, 1)
    experiment.persist()
    change(experiment, 2)
    experiment.persist(if_exists="update")
    loaded = open_session(tmp_path, proxy.port, prefix, client=client).load_experiment("e")
    assert (loaded.fields.x, loaded.runs.first().fields.ds.weights[0]) == (2, 2)
    proxy.fault = lambda request: None
    clean = open_session(tmp_path, seaweedfs.port, prefix)
    assert not list(clean.check(deep=True))
    assert not list(storage_on(seaweedfs.port, prefix).list("_pending"))
    proxy.fault = once(fault)
    loaded.delete()
    assert open_session(tmp_path, seaweedfs.port, prefix, "other").rebuild_index() is not None
    assert not list(clean.check(deep=True))


@pytest.mark.parametrize("fault", ["cut", pytest.param("lost", marks=pytest.mark.slow)])
@pytest.mark.parametrize("client", ["fsspec", "obstore"])
def test_every_request_of_a_large_value_fails_once(fault, client, proxy, seaweedfs, prefix, tmp_path):
    """So does each of an upload in parts; one whose beginning we were never told of is found by sweep."""
    proxy.fault = once(fault)
    session = open_session(tmp_path, proxy.port, prefix, client=client)
    experiment = session.create_experiment("e")
    change(experiment, 1, 3 * 2**20)
    experiment.persist()
    proxy.fault = lambda request: None
    clean = open_session(tmp_path, seaweedfs.port, prefix)
    assert clean.load_experiment("e").runs.first().fields.ds.weights[-1] == 1
    assert {finding.kind for finding in clean.check(deep=True)} <= {"unfinished write"}
    time.sleep(2)  # the service tells times in whole seconds
    clean.sweep(dry_run=False, grace_s=0)
    assert not list(clean.check(deep=True))
    assert not list(storage_on(seaweedfs.port, prefix).list_unfinished())


def test_every_answer_comes_too_late(proxy, seaweedfs, prefix, tmp_path):
    """Every request of a life is answered after the client has given up waiting: it arrived, and is sent again."""
    proxy.fault = once(0.6)
    patient = open_session(tmp_path, proxy.port, prefix, config_kwargs={"read_timeout": 0.3})
    experiment = patient.create_experiment("e")
    change(experiment, 1)
    experiment.persist()
    change(experiment, 2)
    experiment.persist(if_exists="update")
    loaded = open_session(tmp_path, seaweedfs.port, prefix).load_experiment("e")
    assert (loaded.fields.x, loaded.runs.first().fields.ds.weights[0]) == (2, 2)
    assert not list(open_session(tmp_path, seaweedfs.port, prefix).check(deep=True))
    assert not list(storage_on(seaweedfs.port, prefix).list("_pending"))


@pytest.mark.parametrize("client", ["fsspec", "obstore"])
def test_a_burst_of_throttling(client, proxy, prefix):
    """A service that asks everybody to slow down for a while is waited for; if it never stops, that is said."""
    storage = storage_on(proxy.port, prefix, client)
    ends = time.monotonic() + 3
    proxy.fault = lambda request: refusal(503, "SlowDown") if time.monotonic() < ends else None
    storage.put("x", [b"1"], size=1)
    assert time.monotonic() > ends
    proxy.fault = lambda request: refusal(503, "SlowDown")
    hasty = RemoteStorage(storage.url, storage_options=s3_options(proxy.port), deadline_s=3, client=client)
    with pytest.raises(StorageError, match="is busy and asks us to slow down. Try again later"):
        hasty.read("x")


def break_from(proxy, tmp_path, seaweedfs, prefix, number, fault):
    """Persist a second version while all requests from `number` on fail; tell whether that reached the end."""
    session = open_session(tmp_path, seaweedfs.port, prefix)
    experiment = session.create_experiment(f"e{number}")
    change(experiment, 1)
    experiment.persist()
    broken = open_session(tmp_path, proxy.port, prefix).load_experiment(f"e{number}")
    change(broken, 2)
    counter = itertools.count()
    proxy.fault = lambda request: fault if next(counter) >= number else None
    reached = True
    told = False
    try:
        broken.persist(if_exists="update")
        told = True
    except MltraqDSError:
        reached = False
    proxy.fault = lambda request: None
    done = next(counter) <= number
    after = open_session(tmp_path, seaweedfs.port, prefix)
    loaded = after.load_experiment(f"e{number}")
    assert loaded.fields.x in ((2,) if told else (1, 2))
    assert loaded.runs.first().fields.ds.weights[0] == loaded.fields.x
    assert not [finding for finding in after.check(deep=True) if "gone" in str(finding)]
    after.sweep(dry_run=False, grace_s=0)
    folder = loaded.id_experiment
    blobs = [stat.key for stat in storage_on(seaweedfs.port, prefix).list(folder) if stat.key.count("/") == 1]
    assert len(blobs) == 2, "one blob and _meta.json"
    assert not list(storage_on(seaweedfs.port, prefix).list_unfinished())
    assert not list(after.check(deep=True))
    return reached and done


def break_everywhere(proxy, tmp_path, seaweedfs, prefix, monkeypatch, fault, step, start=0):
    monkeypatch.setattr(storage_requests, "_ATTEMPTS", 2)
    for number in itertools.count(start, step):
        if break_from(proxy, tmp_path, seaweedfs, prefix, number, fault):
            break
    assert number > 15


@pytest.mark.filterwarnings("ignore::mltraq_ds.errors.IndexBehindWarning")
@pytest.mark.filterwarnings("ignore::mltraq_ds.errors.LeftoversWarning")
def test_connection_breaks_for_good(proxy, seaweedfs, prefix, tmp_path, monkeypatch):
    """From some request of a persist on nothing gets through: the old or the new version is complete, none leaks."""
    break_everywhere(proxy, tmp_path, seaweedfs, prefix, monkeypatch, "lost", 9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::mltraq_ds.errors.IndexBehindWarning")
@pytest.mark.filterwarnings("ignore::mltraq_ds.errors.LeftoversWarning")
@pytest.mark.parametrize(
    ("fault", "start", "step"),
    [
        ("lost", 0, 1),
        ("reset", 0, 3),  # each single request in one of these three ways; in the soak in all of them
        ("cut", 1, 3),
        (refusal(503, "SlowDown"), 2, 3),
        *(pytest.param(fault, 0, 1, marks=pytest.mark.soak) for fault in ("reset", "cut", refusal(503, "SlowDown"))),
    ],
)
def test_connection_breaks_for_good_at_every_request(
    fault, start, step, proxy, seaweedfs, prefix, tmp_path, monkeypatch
):
    """The same at every single request."""
    break_everywhere(proxy, tmp_path, seaweedfs, prefix, monkeypatch, fault, step, start)


def test_slow_service(proxy, prefix):
    """An answer that takes a second is waited for; one that takes longer than the deadline is given up."""
    proxy.fault = once("slow")
    storage = storage_on(proxy.port, prefix)
    storage.put("x", [b"1"], size=1)
    assert storage.read("x") == b"1"
    proxy.fault = lambda request: "slow"
    hasty = RemoteStorage(f"s3://mltraq/{prefix}", storage_options=s3_options(proxy.port), deadline_s=0.6)
    with pytest.raises(StorageError, match=r"read 'x' .*Timeout"):
        hasty.read("x")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (refusal(403, "AccessDenied"), "not permitted"),
        (refusal(403, "RequestTimeTooSkewed"), r"the clock of this machine differs .* Set the clock"),
        (refusal(403, "ExpiredToken"), "the credentials have expired"),
        (refusal(404, "NoSuchBucket"), "there is no such bucket"),
    ],
)
def test_refusals_are_not_repeated(answer, text, proxy, prefix):
    """A refusal is one request and one clear sentence, also of deletes that must be permitted."""
    storage = storage_on(proxy.port, prefix)
    storage.put("x", [b"1"], size=1)
    proxy.fault = lambda request: answer
    for verb in (lambda: storage.delete("x"), lambda: storage.delete_many(["x", "y"]), lambda: storage.read("x")):
        proxy.log.clear()
        with pytest.raises(StorageError, match=text):
            verb()
        assert len(proxy.log) == 1
    proxy.fault = lambda request: None
    assert storage.read("x") == b"1"


@pytest.mark.parametrize("denied", [("PUT", "POST", "DELETE"), ("DELETE",)])
def test_a_leftover_keeps_no_reader_out(denied, proxy, seaweedfs, prefix, tmp_path):
    """With credentials that may only read, or not delete, what is committed is read; a warning names the leftover."""

    def is_denied(request):
        return request.startswith(denied) or "delete" in request.partition("?")[2]

    session = open_session(tmp_path, seaweedfs.port, prefix)
    experiment = session.create_experiment("e")
    change(experiment, 1)
    experiment.persist()
    left = as_dead(session, persist_until(session, session.create_experiment("killed"), "records"))
    proxy.fault = lambda request: refusal(403, "AccessDenied") if is_denied(request) else None
    for name in ("index", "other"):
        reader = open_session(tmp_path, proxy.port, prefix, name)
        with pytest.warns(LeftoversWarning, match=left.writer):
            if name == "other":
                reader.rebuild_index()
            assert reader.ls().name.tolist() == ["e"]
        assert reader.load_experiment("e").runs.first().fields.ds.weights[0] == 1
    assert [intent.writer for intent in list_intents(session.storage)] == [left.writer]
    assert open_session(tmp_path, seaweedfs.port, prefix).ls().name.tolist() == ["e"]
    assert list_intents(session.storage) == []


def test_large_upload_that_breaks(proxy, seaweedfs, prefix, monkeypatch):
    """A part that fails for good aborts the upload: no key, and no part that somebody pays for."""
    storage = storage_on(proxy.port, prefix)
    data = memoryview(bytes(20 * 2**20))
    proxy.fault = once("reset")
    storage.put("big", [data], size=data.nbytes)
    assert storage.stat("big").size == data.nbytes
    monkeypatch.setattr(storage_requests, "_ATTEMPTS", 2)
    proxy.fault = lambda request: "reset" if "partNumber=2" in request else None
    with pytest.raises(StorageError, match="put 'more'"):
        storage.put("more", [data], size=data.nbytes)
    proxy.fault = lambda request: "reset" if "partNumber=2" in request or request.startswith("DELETE") else None
    with pytest.raises(StorageError, match="put 'more'"):
        storage.put("more", [data], size=data.nbytes)
    proxy.fault = lambda request: None
    (left,) = storage.list_unfinished()
    storage.delete_many([left.key])
    assert not list(storage.list_unfinished())
    assert [stat.key for stat in storage.list()] == ["big"]


def test_number_of_requests(proxy, prefix, tmp_path):
    """Opening a blob and reading one of its keys takes two requests; a hundred DataStores in parallel two each."""
    session = open_session(tmp_path, proxy.port, prefix)
    experiment = session.create_experiment("e")
    names = [f"ds{number}" for number in range(101)]
    with experiment.run() as run:
        for name in names:
            run.fields[name] = DataStore(a=np.arange(5000), b=np.ones(5000))
    experiment.persist()
    fields = open_session(tmp_path, proxy.port, prefix).load_experiment("e").runs.first().fields
    proxy.log.clear()
    assert fields.ds0.a[-1] == 4999
    assert len(proxy.log) <= 3
    proxy.log.clear()
    threads = [threading.Thread(target=lambda name=name: fields[name].b.sum()) for name in names[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(threads) == 100
    assert len(proxy.log) <= 2 * len(threads)
    assert all(request.startswith("GET") for request in proxy.log)


@pytest.mark.parametrize("client", ["fsspec", "obstore"])
def test_number_of_bytes(client, proxy, prefix, tmp_path):
    """One key of a large blob is read with at most three requests and at most 1.2 times its bytes, headers included."""
    session = open_session(tmp_path, proxy.port, prefix, client=client)
    experiment = session.create_experiment("e")
    with experiment.run() as run:
        run.fields.ds = DataStore({f"key{number}": np.arange(2**17) + number for number in range(24)})
    experiment.persist()
    ds = open_session(tmp_path, proxy.port, prefix, client=client).load_experiment("e").runs.first().fields.ds
    proxy.log.clear()
    before = proxy.sent
    assert ds.key7[0] == 7
    assert len(proxy.log) <= 3
    assert 2**20 < proxy.sent - before <= 1.2 * 2**20
