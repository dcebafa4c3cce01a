"""A store that somebody shows by HTTP is read with range requests, and never written."""

import functools
import http.server
import threading

import numpy as np
import pytest

from mltraq_ds import DataStore, DataStoreIO, create_session
from mltraq_ds.errors import KeyMissingError, LeftoversWarning, StorageError
from mltraq_ds.storage import open_storage
from tests.unit.store.test_recovery import as_dead, make, persist_until

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.server


@pytest.fixture
def shown(rclone_http, tmp_path):
    """Return a session that wrote a store, and the URL under which it is shown."""
    server, folder = rclone_http
    name = f"store {tmp_path.name}"
    session = create_session(f"sqlite:///{tmp_path}/index.db", folder / name)
    experiment = session.create_experiment("e#1", x=1)
    with experiment.run() as run:
        run.fields.ds = DataStore(weights=np.arange(100_000), note="hello")
    experiment.persist()
    session.io.write(b"own bytes", "mine")
    return session, f"{server.url}/{name.replace(' ', '%20')}"


def test_reading(shown, tmp_path):
    """Experiments are rebuilt, found, loaded and checked, keys are listed, and the bytes are those in the folder."""
    session, url = shown
    reader = create_session(f"sqlite:///{tmp_path}/reader.db", url)
    reader.rebuild_index()
    loaded = reader.load_experiment("e#1")
    assert loaded.fields.x == 1
    assert loaded.runs.first().fields.ds.weights[-1] == 99_999
    assert not list(reader.check(deep=True))
    storage = open_storage(url)
    keys = {stat.key: stat.size for stat in session.storage.list()}
    assert {stat.key: stat.size for stat in storage.list()} == keys
    assert storage.folders() == session.storage.folders()
    key = next(key for key in keys if key.startswith("mine/"))
    assert DataStoreIO(f"http:///{key}", store=url).read() == b"own bytes"
    with pytest.raises(KeyMissingError, match="nothing"):
        storage.read("nothing")


def test_writing(shown, tmp_path):
    """Whatever would write is refused, says why, and changes nothing."""
    session, url = shown
    storage = open_storage(url)
    before = {stat.key for stat in session.storage.list()}
    reader = create_session(f"sqlite:///{tmp_path}/reader.db", url)
    reader.rebuild_index()
    loaded = reader.load_experiment("e#1")
    for verb in (
        lambda: storage.put("x", [b"1"], size=1),
        lambda: storage.delete("mine"),
        lambda: storage.delete_many(["mine"]),
        lambda: storage.make_folder("x"),
        lambda: reader.create_experiment("new").persist(),
        lambda: loaded.persist(if_exists="update"),
        loaded.delete,
        lambda: DataStoreIO.write(b"x", "own", store=url),
    ):
        with pytest.raises(StorageError, match="only read"):
            verb()
    assert not storage.creates_if_absent
    assert {stat.key for stat in session.storage.list()} == before


def test_a_leftover_keeps_no_reader_out(shown, tmp_path):
    """A note that a killed writer has left is named in a warning, and everything committed is read."""
    session, url = shown
    left = as_dead(session, persist_until(session, make(session, "killed"), "blobs"))
    reader = create_session(f"sqlite:///{tmp_path}/reader.db", url)
    with pytest.warns(LeftoversWarning, match=left.writer):
        reader.rebuild_index()
    again = create_session(f"sqlite:///{tmp_path}/reader.db", url)
    with pytest.warns(LeftoversWarning, match=left.writer):
        assert again.ls().name.tolist() == ["e#1"]
    assert again.load_experiment("e#1").fields.x == 1
    assert session.storage.exists(left.key)


def test_server_without_ranges(shown, tmp_path):
    """A server that answers a range with the whole file is told apart from damage."""
    session, _ = shown
    folder = session.storage.url.removeprefix("file://").replace("%20", " ")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            loaded = create_session(
                f"sqlite:///{tmp_path}/plain.db", f"http://127.0.0.1:{server.server_address[1]}"
            ).load_experiment(id_experiment=session.load_experiment("e#1").id_experiment)
            with pytest.raises(StorageError, match="knows ranges"):
                loaded.runs.first().fields.ds.weights  # noqa: B018
        finally:
            server.shutdown()
