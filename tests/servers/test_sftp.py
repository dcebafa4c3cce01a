"""A server that speaks SFTP passes the suite, and breaks off without loss."""

import logging
import os
import pickle
import threading
import traceback
import uuid

import numpy as np
import pytest

from mltraq_ds import DataStore, create_session
from mltraq_ds.errors import KeyExistsError, KeyMissingError, MltraqDSError, StorageError
from mltraq_ds.storage import Storage
from mltraq_ds.storage.remote import RemoteStorage
from mltraq_ds.testing.storage import StorageConformance
from tests.fixtures_storages import SECRET

pytestmark = pytest.mark.server


class TestSftp(StorageConformance):
    has_folders = True
    racers = 4

    @pytest.fixture(autouse=True)
    def _service(self, sftp, _fresh_place):
        self.server, folder = sftp
        self.root = folder / self.folder.name / "the store"

    def make_storage(self) -> Storage:
        return RemoteStorage(f"sftp://127.0.0.1/{self.folder.name}/the store", storage_options=self.server.options)

    def raw_read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def raw_write(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def raw_list(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if not path.is_dir()}


def test_connection_that_breaks(sftp):
    """A connection that was cut is made anew by the next request."""
    server, folder = sftp
    storage = RemoteStorage("sftp://127.0.0.1/broken", storage_options=server.options)
    storage.put("x", [b"1"], size=1, parents=True)
    storage._client().filesystem.client.close()
    assert storage.read("x") == b"1"
    storage._client().filesystem.ftp.close()
    storage.put("y", [b"2"], size=1)
    assert (folder / "broken" / "y").read_bytes() == b"2"


LARGE = 9 * 2**20


@pytest.mark.filterwarnings("ignore::mltraq_ds.errors.SecretInOptionsWarning")
def test_threads_with_large_values(sftp, tmp_path):
    """Threads that write and read large and small values at once share one connection, and each finds its own."""
    server, _ = sftp
    url = f"sftp://127.0.0.1/{uuid.uuid4().hex}"
    session = create_session(f"sqlite:///{tmp_path}/index.db", url, server.options)
    session.create_experiment("first").persist()
    errors = []

    def work(number, size):
        try:
            experiment = session.create_experiment(f"e{number}")
            with experiment.run() as run:
                run.fields.ds = DataStore(a=np.full(size, number))
            experiment.persist()
            found = session.load_experiment(f"e{number}").runs.first().fields.ds.a
            assert (found.size, found.min(), found.max()) == (size, number, number)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    sizes = [2 * 2**20, 2 * 2**20, 2 * 2**20, 100, 100]
    threads = [threading.Thread(target=work, args=item, daemon=True) for item in enumerate(sizes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads)
    assert len(session.ls()) == 1 + len(sizes)
    assert not list(session.check(deep=True))


def test_large_value_over_a_connection_that_breaks(sftp):
    """A connection cut before or in the middle of a large value is made anew, and the value is whole."""
    server, folder = sftp
    place = uuid.uuid4().hex
    storage = RemoteStorage(f"sftp://127.0.0.1/{place}", storage_options=server.options)
    storage.put("x", [b"1"], size=1, parents=True)
    filesystem = storage._client().filesystem
    pieces = [os.urandom(LARGE) for _ in range(3)]
    for replace in (False, True):
        filesystem.client.close()

        def views():
            for piece in pieces:
                yield piece
                filesystem.client.close()

        storage.put("large", views(), size=3 * LARGE, replace=replace)
        assert (folder / place / "large").read_bytes() == b"".join(pieces)
        pieces.reverse()
    assert {path.name for path in (folder / place).iterdir()} == {"x", "large"}


def test_failing_buffers_leave_nothing(sftp):
    """What the caller's buffers raise comes out as it is, and no part of the value stays."""
    server, folder = sftp
    place = uuid.uuid4().hex
    storage = RemoteStorage(f"sftp://127.0.0.1/{place}", storage_options=server.options)
    storage.put("x", [b"1"], size=1, parents=True)

    def views():
        yield bytes(LARGE)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        storage.put("large", views(), size=2 * LARGE)
    assert [path.name for path in (folder / place).iterdir()] == ["x"]


@pytest.mark.parametrize("verb", ["link", "rename"])
def test_answer_that_is_lost(sftp, monkeypatch, verb):
    """The file has its name and the connection breaks before we are told: the next attempt knows that it was ours."""
    import paramiko

    server, folder = sftp
    place = uuid.uuid4().hex
    storage = RemoteStorage(f"sftp://127.0.0.1/{place}", storage_options=server.options)
    storage.put("x", [b"1"], size=1, parents=True)
    request, lost = paramiko.SFTPClient._request, []

    def lossy(client, kind, *arguments):
        answer = request(client, kind, *arguments)
        if verb in str(arguments[0]) and not lost:
            lost.append(client.close())
            raise EOFError
        return answer

    monkeypatch.setattr(paramiko.SFTPClient, "_request", lossy)
    storage.put("x" if verb == "rename" else "y", [b"22"], size=2, replace=verb == "rename")
    assert lost
    assert (folder / place / ("x" if verb == "rename" else "y")).read_bytes() == b"22"
    with pytest.raises(KeyExistsError):
        storage.put("y" if verb == "link" else "x", [b"33"], size=2)
    assert not list(storage.list_unfinished())


def test_first_connection_that_breaks(sftp, monkeypatch):
    """The first connection is tried again as every later one."""
    import paramiko

    server, _ = sftp
    connect, failures = paramiko.SSHClient.connect, [ConnectionResetError("x"), paramiko.SSHException("banner")]

    def flaky(client, *arguments, **options):
        if failures:
            raise failures.pop()
        connect(client, *arguments, **options)

    monkeypatch.setattr(paramiko.SSHClient, "connect", flaky)
    storage = RemoteStorage(f"sftp://127.0.0.1/{uuid.uuid4().hex}", storage_options=server.options)
    storage.put("x", [b"1"], size=1, parents=True)
    assert not failures


def test_refused_bytes_are_not_overlooked(sftp, monkeypatch):
    """A server that refuses the last bytes, as on a full disk, is not taken for one that has them."""
    import paramiko

    server, _ = sftp
    storage = RemoteStorage(f"sftp://127.0.0.1/{uuid.uuid4().hex}", storage_options=server.options, deadline_s=2)
    storage.put("x", [b"1"], size=1, parents=True)
    request = paramiko.SFTPClient._async_request

    def refused(client, fileobj, kind, handle, *arguments):
        wrong = kind == 6 and arguments[0] > 40_000
        return request(client, fileobj, kind, b"no such handle" if wrong else handle, *arguments)

    monkeypatch.setattr(paramiko.SFTPClient, "_async_request", refused)
    with pytest.raises(StorageError):
        storage.put("y", [bytes(100_000)], size=100_000)
    monkeypatch.undo()
    assert not storage.exists("y")


@pytest.mark.filterwarnings("ignore::mltraq_ds.errors.SecretInOptionsWarning")
def test_password_in_the_url_is_in_nothing(sftp, tmp_path, caplog, capfd):
    """A real password in a URL opens the store, and is in no row, file, log, repr, pickle or message."""
    server, folder = sftp
    caplog.set_level(logging.DEBUG, logger="mltraq_ds")
    caplog.set_level(logging.DEBUG, logger="fsspec")
    given = {name: value for name, value in server.options.items() if name not in ("username", "password")}
    place = uuid.uuid4().hex
    session = create_session(f"sqlite:///{tmp_path}/index.db", f"sftp://ada:{SECRET}@127.0.0.1/{place}", given)
    experiment = session.create_experiment("e")
    with experiment.run() as run:
        run.fields.ds = DataStore(a=np.arange(5000))
        written = session.io.write(b"x", "own")
    experiment.persist()
    loaded = session.load_experiment("e")
    fields = loaded.runs.first().fields
    assert fields.ds.a.sum() > 0
    seen = []
    for found in (session, session.storage, session.place, session.objects(), loaded, fields, written, session.check()):
        seen += [repr(found), str(found)]
    for found in (session.storage, session.place, fields, written, loaded):
        try:
            seen.append(pickle.dumps(found).decode("latin-1"))
        except (MltraqDSError, TypeError) as error:
            seen.append("".join(traceback.format_exception(error)))
    wrong = RemoteStorage(f"sftp://nobody:{SECRET}@127.0.0.1/{place}", storage_options=given, deadline_s=5)
    with pytest.raises(StorageError, match="does not accept these credentials") as failed:
        wrong.read("x")
    seen.append("".join(traceback.format_exception(failed.value)))
    with pytest.raises(KeyMissingError) as failed:
        session.storage.read("nothing")
    seen.append("".join(traceback.format_exception(failed.value)))
    for path in (*tmp_path.rglob("*"), *(folder / place).rglob("*")):
        if path.is_file():
            seen.append(path.read_bytes().decode("latin-1"))
    seen += [caplog.text, *capfd.readouterr()]
    assert len(seen) > 30
    assert not [text[:200] for text in seen if SECRET in text]


def test_wrong_password(sftp):
    """A wrong password is one clear sentence, and is not repeated in it."""
    server, _ = sftp
    options = {**server.options, "password": "canary-77"}
    with pytest.raises(StorageError, match="does not accept these credentials") as failed:
        RemoteStorage("sftp://127.0.0.1/x", storage_options=options).read("x")
    assert "canary-77" not in str(failed.value)


def test_server_without_links(sftp, monkeypatch):
    """Where the server knows no links, the name is taken first; of several writers one wins all the same."""
    from mltraq_ds.storage.clients import sftp as client

    monkeypatch.setattr(client, "_LINK", "nothing@example.org")
    server, folder = sftp
    storage = RemoteStorage("sftp://127.0.0.1/unlinked", storage_options=server.options)
    assert storage.creates_if_absent
    storage.put("x", [b"1"], size=1, parents=True)
    with pytest.raises(KeyExistsError):
        storage.put("x", [b"2"], size=1)
    assert [path.name for path in (folder / "unlinked").iterdir()] == ["x"]
    assert storage.read("x") == b"1"
