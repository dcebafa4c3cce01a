"""What is sent again and what is not, in parts and in parallel, without a server."""

import asyncio
import errno
import threading
import time

import pytest

from mltraq_ds.errors import KeyExistsError, KeyMissingError, StorageError
from mltraq_ds.storage import answers, requests
from mltraq_ds.storage.access import Access
from mltraq_ds.storage.body import Body, parts_of
from mltraq_ds.storage.clients import base
from mltraq_ds.storage.parallel import in_parallel
from mltraq_ds.storage.remote import RemoteStorage
from mltraq_ds.storage.requests import Requests


class ServiceError(Exception):
    """As botocore has it."""

    def __init__(self, status, code=""):
        super().__init__(f"{status} {code}")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class ClientPayloadError(Exception):
    """As aiohttp has it."""


class SSLError(ConnectionError):
    """Stays the same however often one asks."""


class AzureError(Exception):
    def __init__(self, status, code=None):
        super().__init__(code)
        self.status_code, self.error_code = status, code


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "is_transient"),
    [
        (ServiceError(503, "SlowDown"), True),
        (ServiceError(200, "InternalError"), True),
        (ServiceError(500), True),
        (ServiceError(403, "AccessDenied"), False),
        (ServiceError(404, "NoSuchKey"), False),
        (ServiceError(412, "PreconditionFailed"), False),
        (caused(OSError(errno.EIO, "x"), ServiceError(429)), True),
        (caused(PermissionError("Forbidden"), ServiceError(403)), False),
        (caused(ClientPayloadError("x"), AzureError(400)), True),
        (TimeoutError("x"), True),
        (ConnectionResetError("x"), True),
        (OSError(errno.ETIMEDOUT, "x"), True),
        (OSError(errno.ENOSPC, "x"), False),
        (SSLError("x"), False),
        (AzureError(503, "ServerBusy"), True),
        (AzureError(409, "BlobAlreadyExists"), False),
        (ValueError("x"), False),
    ],
)
def test_what_may_succeed_later(error, is_transient):
    """Throttling, time-outs, resets and 5xx may pass; a refusal, an absence or a wrong certificate does not."""
    assert answers.is_transient(error) is is_transient


def test_what_services_say():
    """Existing, absent and refused are told apart, whatever words and classes a client has for them."""
    taken = [FileExistsError("x"), caused(OSError(22, "x"), ServiceError(412, "PreconditionFailed"))]
    for error in [*taken, AzureError(409, "BlobAlreadyExists")]:
        assert answers.is_taken(error)
        assert not answers.is_absence(error)
    assert not answers.is_taken(ServiceError(409, "Other"))
    assert answers.is_absence(FileNotFoundError("x"))
    assert answers.is_absence(AzureError(404, "BlobNotFound"))
    bucket = caused(FileNotFoundError("x"), ServiceError(404, "NoSuchBucket"))
    assert not answers.is_absence(bucket)
    assert "no such bucket" in answers.refusal_of(bucket)[0]
    assert "refuses these credentials" in answers.refusal_of(AzureError(403))[0]
    assert answers.refusal_of(ValueError("x")) is None


@pytest.fixture
def ask(monkeypatch):
    monkeypatch.setattr(requests, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(requests, "_JITTER_S", 0.001)
    return Requests(Access("memory://x", {"secret": "canary"}), concurrency=3).ask


def failing(*errors):
    """Return a request that raises each error in turn and then answers, and the list of its calls."""
    left, calls = list(errors), []

    def request(left_s):
        calls.append(left_s)
        if left:
            raise left.pop(0)
        return "answer"

    return request, calls


def test_repeated_until_it_succeeds(ask):
    """What may succeed later is sent again, with less time left each time."""
    request, calls = failing(ServiceError(503), TimeoutError("x"), ConnectionResetError("x"))
    assert ask("read", "x", request) == "answer"
    assert len(calls) == 4
    assert calls == sorted(calls, reverse=True)


@pytest.fixture
def scaled(monkeypatch):
    """Let two minutes pass in a second."""
    monkeypatch.setattr(requests, "_FIRST_PAUSE_S", 0.1 / 120)
    monkeypatch.setattr(requests, "_LONGEST_PAUSE_S", 5 / 120)
    monkeypatch.setattr(requests, "_JITTER_S", 0.5 / 120)
    monkeypatch.setattr(requests, "_FIRST_ANSWER_S", 15 / 120)
    return Requests(Access("memory://x", {"secret": "canary"}), deadline_s=1)


def until(begins, seconds, *, then=None, **more):
    """Return a request that fails for some time, and the list of its calls."""
    calls = []

    def request(left_s):
        calls.append(left_s)
        if time.monotonic() - begins < seconds:
            raise ServiceError(503, "SlowDown") if then is None else then
        return "answer"

    return request, calls


def test_given_up(scaled):
    """A busy service is asked until the deadline; what it says at last is told in our words."""
    scaled.ask("read", "x", lambda left: "answer")
    begins = time.monotonic()
    request, calls = until(begins, 9)
    with pytest.raises(StorageError, match=r"read 'x' in memory://x failed because the service is busy .* Try again"):
        scaled.ask("read", "x", request)
    assert 0.8 < time.monotonic() - begins < 3
    assert len(calls) > 12


@pytest.mark.parametrize("seconds", [8, 60, 100])
@pytest.mark.parametrize("error", [None, ConnectionResetError("x")])
def test_a_burst_is_waited_for(scaled, seconds, error):
    """Throttling or a broken network of some seconds, in two minutes, is waited for."""
    scaled.ask("read", "x", lambda left: "answer")
    request, _ = until(time.monotonic(), seconds / 120, then=error)
    assert scaled.ask("put", "y", request) == "answer"


def test_a_service_that_never_answered_is_given_up_sooner(scaled):
    """A wrong address is told of after fifteen seconds, without the secret in it; a busy service has answered."""
    begins = time.monotonic()
    request, _ = until(begins, 9, then=ConnectionRefusedError("to canary"))
    with pytest.raises(StorageError, match=r"read 'x' in memory://x failed because of: .*to \*\*\*"):
        scaled.ask("read", "x", request)
    assert time.monotonic() - begins < 0.7


def test_who_was_asked_in_vain_is_not_waited_for_again(scaled):
    """After a deadline has passed, what cleans up need not wait for another, until there is an answer again."""
    scaled.ask("read", "x", lambda left: "answer")
    begins = time.monotonic()
    request, calls = until(begins, 9)
    for number in range(4):
        with pytest.raises(StorageError):
            scaled.ask("delete", "x", request)
        calls.append(None) if number == 0 else None
    assert calls[calls.index(None) :].count(None) == 1
    assert len(calls[calls.index(None) + 1 :]) == 3 * 2
    scaled.ask("read", "x", lambda left: "answer")
    request, calls = until(time.monotonic(), 0.3)
    assert scaled.ask("read", "x", request) == "answer"


@pytest.mark.parametrize(
    ("error", "kind"), [(FileNotFoundError("x"), KeyMissingError), (FileExistsError("x"), KeyExistsError)]
)
def test_not_repeated(ask, error, kind):
    """An answer that will stay the same is asked for once."""
    request, calls = failing(error)
    with pytest.raises(kind):
        ask("put", "x", request)
    assert len(calls) == 1


def test_no_more_at_a_time_than_allowed(ask):
    """However many threads ask, only so many requests are under way."""
    under_way, most, lock = [0], [0], threading.Lock()
    is_full = threading.Event()

    def request(left_s):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
            if under_way[0] == 3:
                is_full.set()
        is_full.wait(10)
        with lock:
            under_way[0] -= 1

    list(in_parallel(lambda number: ask("read", str(number), request), iter(range(12)), 12))
    assert most == [3]


def test_body():
    """A body is read like a file and sent in pieces, of which none is a copy."""
    data = [memoryview(bytearray(b"abc")), memoryview(b""), memoryview(b"d" * 3_000_000)]
    body = Body(data)
    whole = b"".join(data)
    assert (len(body), body.seek(0, 2), body.tell(), body.seek(1), body.read(3)) == (3_000_003,) * 3 + (1, b"bcd")
    assert body.read() == whole[4:]
    assert body.read() == b""
    assert (Body([]).read(), bool(Body([])), len(Body([]))) == (b"", True, 0)
    assert b"".join(body.pieces()) == whole
    assert max(piece.nbytes for piece in body.pieces()) <= 2**20

    async def collect():
        return [bytes(piece) async for piece in body]

    assert b"".join(asyncio.run(collect())) == whole
    data[0][0] = ord("z")
    assert bytes(next(iter(body.pieces()))) == b"zbc"
    assert body.joined()[:3] == b"zbc"
    assert Body(data[2:]).joined().obj is data[2].obj


@pytest.mark.parametrize("sizes", [[], [1], [10], [3, 7, 10, 1, 0, 25]])
def test_parts(sizes):
    """Views are cut into parts of one size without a copy, and joined they are what they were."""
    views = [memoryview(bytes([number]) * size) for number, size in enumerate(sizes)]
    parts = list(parts_of(views, 10))
    assert b"".join(part.read() for part in parts) == b"".join(views)
    assert all(part.size == 10 for part in parts[:-1])


@pytest.mark.parametrize(
    ("cores", "concurrency", "parts"), [(1, 16, 4), (2, 16, 4), (6, 16, 12), (64, 16, 16), (8, 3, 3)]
)
def test_parts_at_a_time(monkeypatch, cores, concurrency, parts):
    """So many parts of one key are under way as the cores can serve, never more than requests may be."""
    monkeypatch.setattr(base, "core_count", lambda: cores)
    storage = RemoteStorage("memory://parts", concurrency=concurrency)
    assert storage._client().parts_at_a_time == parts


def test_in_parallel_takes_no_more_than_it_can_hold():
    """Arguments are taken when there is room, answers come in order, and a failure ends what is under way first."""
    taken, ended = [], []

    def arguments():
        for number in range(50):
            taken.append(number)
            yield number

    def work(number):
        if number == 20:
            raise ZeroDivisionError
        ended.append(number)
        return number

    found = in_parallel(work, arguments(), 4)
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(taken) <= 9
    with pytest.raises(ZeroDivisionError):
        list(found)
    assert len(taken) <= 25
    assert sorted(ended) == sorted(set(ended))
