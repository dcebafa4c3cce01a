"""A planted secret: in storage options, URLs and environment, and then in nothing that is written, shown or sent."""

import contextlib
import copy
import io
import json
import logging
import os
import pickle
import sqlite3
import traceback
import urllib.parse
import warnings

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from mltraq_ds import DataStore, DataStoreIO, artifact_store, create_session, options, save
from mltraq_ds.cli.app import app
from mltraq_ds.errors import DatabaseUnavailableError, MltraqDSError, RunFailedWarning
from mltraq_ds.orm.database import Database
from mltraq_ds.storage import open_storage
from mltraq_ds.storage.remote_writing import CREATORS
from mltraq_ds.tracking import default_session

# That it warns is tested in tests/unit/storage; here a warning is only looked at for what it repeats.
pytestmark = pytest.mark.filterwarnings("ignore::mltraq_ds.errors.SecretInOptionsWarning")

CANARY = "canary-S3cr3t/pass#word"
FORMS = [
    CANARY.encode(),
    urllib.parse.quote(CANARY, safe="").encode(),
    urllib.parse.quote(CANARY).encode(),
    json.dumps(CANARY).strip('"').encode(),
]


class SecretFileSystem(MemoryFileSystem):
    """A remote that takes a secret, and tells it in its errors as careless clients do."""

    protocol = "canary"
    cachable = False
    store: dict = {}
    pseudo_dirs = [""]
    is_down = False

    def __init__(self, secret_key=None, endpoint=None, **options):
        super().__init__(**options)
        self.secret_key = secret_key

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("canary://").rpartition("@")[2].strip("/")

    def _fail(self):
        if SecretFileSystem.is_down:
            raise RuntimeError(f"403 for key {self.secret_key} at canary://user:{CANARY}@host")

    def info(self, path, **options):
        self._fail()
        return super().info(path, **options)

    def pipe_file(self, path, value, **options):
        self._fail()
        super().pipe_file(path, value, **options)

    def cat_file(self, path, **options):
        self._fail()
        return super().cat_file(path, **options)


@pytest.fixture
def remote(monkeypatch):
    # Experiments need a storage that decides who was first; this one can, being memory.
    monkeypatch.setitem(CREATORS, "canary", CREATORS["memory"])
    fsspec.register_implementation("canary", SecretFileSystem, clobber=True)
    SecretFileSystem.store.clear()
    SecretFileSystem.is_down = False
    yield
    SecretFileSystem.is_down = False


def assert_clean(text, where):
    content = text if isinstance(text, bytes) else str(text).encode("utf-8", "backslashreplace")
    for form in FORMS:
        assert form not in content, f"the secret is in {where}"


def quoted():
    return urllib.parse.quote(CANARY, safe="")


def make_session(tmp_path, kind):
    database = f"sqlite:///{tmp_path}/index.db"
    if kind == "options":
        store, given = "canary://host/root", {"secret_key": CANARY}
        return create_session(database, store, given)
    return create_session(database, f"canary://user:{quoted()}@host/root")


@pytest.mark.parametrize("kind", ["options", "url"])
def test_a_secret_of_the_store_is_in_nothing_that_is_written_or_shown(tmp_path, remote, kind, caplog):
    """Rows, files, reprs, logs, URLs and standard output of an experiment's whole life are clean."""
    caplog.set_level(logging.DEBUG)
    seen = io.StringIO()
    with options.ctx({"database.echo": True}), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        session = make_session(tmp_path, kind)
        experiment = session.create_experiment("e")
        with experiment.run() as run:
            run.params.lr = 0.1
            run.fields.ds = DataStore(a=np.arange(5000), inner=DataStore(b=1))
            written = session.io.serialize_write([1, 2], "own")
        experiment.persist()
        loaded = make_session(tmp_path, kind).load_experiment("e")
        fields = loaded.runs.first().fields
        assert fields.ds.a[-1] == 4999
        fields.more = 1
        loaded.persist(if_exists="update")
        objects = [session, session.storage, session.database, experiment, loaded, run, fields, fields.ds, written]
        objects += [session.place, session.objects(), session.io, session.ls().to_string(), fields.ds.describe()]
        objects += [session.query("SELECT * FROM mltraq_stores").to_string(), written.url, fields.ds.to_url()]
        objects += [
            fields.ds.origin.reference,
            loaded.df().to_string(),
            session.check(),
            session.check().df().to_string(),
        ]
        for found in objects:
            print(repr(found), str(found), vars(found) if isinstance(found, Exception) else "", file=seen)
        session.rebuild_index()
        loaded.delete()
    assert_clean(seen.getvalue(), "a repr")
    assert_clean(caplog.text, "the log")
    assert_clean([str(warning.message) for warning in caught], "a warning")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert_clean(path.read_bytes(), path.name)
    with contextlib.closing(sqlite3.connect(tmp_path / "index.db")) as connection:
        assert_clean("\n".join(connection.iterdump()), "a row")
    for key, file in SecretFileSystem.store.items():
        assert_clean(key, "a key")
        assert_clean(file.getvalue(), f"the file {key}")


@pytest.mark.parametrize("kind", ["options", "url"])
def test_a_secret_of_the_store_is_in_no_pickle(tmp_path, remote, kind):
    """What can be pickled has no secret in it; what would need it refuses and names the remedy."""
    session = make_session(tmp_path, kind)
    experiment = session.create_experiment("e")
    with experiment.run() as run:
        run.fields.ds = DataStore(a=np.arange(5000))
        written = session.io.serialize_write([1, 2], "own")
    experiment.persist()
    loaded = session.load_experiment("e").runs.first()
    named = DataStoreIO(written.url, store=session)
    url = DataStoreIO(written.url, store=f"canary://user:{quoted()}@host/root")
    for found in (
        *(loaded, loaded.fields.ds, copy.deepcopy(loaded.fields.ds), run, written, named, url, session.database),
        *(session.storage, session.place, session.objects(), session, experiment, session.storage.open(written.key)),
    ):
        try:
            sent = pickle.dumps(found)
        except (MltraqDSError, TypeError) as error:  # a session holds a lock, and is none to be sent
            assert_clean("".join(traceback.format_exception(error)), f"the refusal to pickle {type(found).__name__}")
        else:
            assert_clean(sent, f"the pickle of {type(found).__name__}")


@pytest.mark.parametrize("kind", ["options", "url"])
def test_a_secret_of_the_store_is_in_no_error(tmp_path, remote, kind):
    """A client that prints its key when it is refused is not repeated: neither in a message nor in a traceback."""
    session = make_session(tmp_path, kind)
    experiment = session.create_experiment("e")
    with experiment.run() as run:
        run.fields.ds = DataStore(a=np.arange(5000))
        written = session.io.serialize_write([1, 2], "own")
    experiment.persist()
    fields = session.load_experiment("e").runs.first().fields
    SecretFileSystem.is_down = True

    def step(run):
        session.io.write(b"x", "own")

    def execute():
        other = session.create_experiment("f").add_run()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RunFailedWarning)
            other.execute(step)
        assert_clean([str(warning.message) for warning in caught], "a warning")
        assert_clean(other.runs.first().exception.traceback, "the traceback of a run")
        raise other.runs.first().exception

    for action in (
        lambda: session.io.write(b"x", "own"),
        lambda: written.read(),
        lambda: written.read_deserialize(),
        lambda: session.load_experiment("e"),
        lambda: fields.ds.a,
        lambda: experiment.persist(if_exists="update"),
        lambda: experiment.delete(),
        execute,
    ):
        with pytest.raises(MltraqDSError) as failed:
            action()
        text = "".join(traceback.format_exception(failed.value))
        assert_clean(text, "a traceback")
        assert_clean(repr(failed.value), "an error")
        assert_clean(pickle.dumps(failed.value), "a pickled error")
    options.set("tqdm.disable", True)
    report = make_session(tmp_path, kind).check(deep=True)
    assert_clean(f"{report} {report!r} {report.df().to_string()}", "a report")


def test_a_secret_of_the_database_is_in_nothing_that_is_shown_or_sent():
    """The URL of a database is shown, pickled and complained about without its password."""
    urls = [f"postgresql://ada:{quoted()}@127.0.0.1:9/lab", f"postgresql://127.0.0.1:9/lab?password={quoted()}"]
    for url in urls:
        database = Database(url, timeout_s=1)
        session = create_session(url, "memory://canary-database")
        for found in (database.url, database, session, session.database.url):
            assert_clean(repr(found), "a repr")
        assert_clean(pickle.dumps(database), "a pickle")
        with pytest.raises(MltraqDSError) as failed:
            session.create_experiment("e").persist()
        assert_clean("".join(traceback.format_exception(failed.value)), "a traceback")
        assert_clean(pickle.dumps(failed.value), "a pickled error")


@pytest.mark.parametrize(
    "action",
    [
        lambda: open_storage(f"no_such://user:{quoted()}@host/x"),
        lambda: open_storage(f"nosuch://user:{quoted()}@host/x"),
        lambda: open_storage(f"s3://user:{quoted()}@host/x?token={quoted()}"),
        lambda: open_storage("/folder", storage_options={"secret": CANARY}),
        lambda: open_storage(f"memory://user:{quoted()}@host/../x"),
        lambda: DataStoreIO(f"s3://user:{quoted()}@bucket/x"),
        lambda: DataStoreIO(f"file:///x?token={quoted()}"),
        lambda: DataStore.from_url(f"sftp://user:{quoted()}@host/x"),
        lambda: DataStoreIO.write(b"x", "own", store={"secret": CANARY}),
        lambda: create_session(f"nonsense:{quoted()}"),
        lambda: create_session(f"nosuch://user:{quoted()}@host/x").create_experiment("e").persist(),
        lambda: options.set("database.url", {"password": CANARY}),
        lambda: options.set("datastore.storage_options", [CANARY]),
        lambda: options.set("execution.n_jobs", CANARY),
    ],
)
def test_a_secret_in_a_wrong_place_is_not_repeated(action, tmp_path, monkeypatch):
    """A URL or option that cannot be used is refused in words that do not repeat what was secret in it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MltraqDSError) as failed:
        action()
    assert_clean("".join(traceback.format_exception(failed.value)), "a traceback")


def test_options_and_environment_keep_their_secrets(tmp_path, monkeypatch, capsys, remote):
    """Options that are shown, the default session and the environment neither give nor take a secret."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    before = dict(os.environ)
    options.set("datastore.url", "canary://host/root")
    options.set("datastore.storage_options", {"secret_key": CANARY})
    options.set("database.url", f"sqlite:///{tmp_path}/index.db")
    options.show()
    print(repr(options), repr(default_session()), repr(DataStoreIO.write(b"x", "own")))
    experiment = default_session().create_experiment("e", x=1)
    experiment.persist()
    assert_clean(capsys.readouterr().out, "what is printed")
    assert dict(os.environ) == before
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert_clean(path.read_bytes(), path.name)


def test_variables_that_are_in_use_keep_their_secrets(tmp_path, monkeypatch, capsys, remote, caplog):
    """Secrets in our own variables open store and database, and nothing is shown, written, sent or told of them."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLTRAQ_DS_DATASTORE_URL", f"canary://user:{quoted()}@host/root")
    monkeypatch.setenv("MLTRAQ_DS_DATASTORE_STORAGE_OPTIONS", json.dumps({"secret_key": CANARY}))
    monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", f"sqlite:///{tmp_path}/index.db")
    options.reload()
    assert options.origin("datastore.storage_options") == "environment MLTRAQ_DS_DATASTORE_STORAGE_OPTIONS"
    session = default_session()
    assert SecretFileSystem.store == {}
    experiment = session.create_experiment("e", x=1)
    with experiment.run() as run:
        run.fields.ds = DataStore(a=np.arange(5000))
    experiment.persist()
    artifact = save(np.arange(5000), "an artifact")
    assert SecretFileSystem.store
    print(repr(session), repr(experiment), repr(artifact), repr(session.check()), artifact_store().df().to_string())
    SecretFileSystem.is_down = True
    with pytest.raises(MltraqDSError) as failed:
        default_session().load_experiment("e")
    print("".join(traceback.format_exception(failed.value)))
    monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", f"postgresql://ada:{quoted()}@127.0.0.1:9/lab")
    SecretFileSystem.is_down = False
    options.reload()
    with pytest.raises(DatabaseUnavailableError) as failed:
        default_session().create_experiment("e").persist()
    print("".join(traceback.format_exception(failed.value)), repr(default_session()))
    assert_clean(pickle.dumps(failed.value), "a pickled error")
    options.show()
    print(repr(options), [options.origin(name) for name in ("datastore.url", "database.url")])
    for line in ("config show", "config show --origin", "config check", "ls", "--debug check"):
        ended = CliRunner().invoke(app, line.split(), prog_name="mltraq-ds")
        told = "".join(traceback.format_exception(ended.exception)) if ended.exception else ""
        assert_clean(ended.output + told, f"what {line!r} prints")
    session.close()
    assert_clean(capsys.readouterr().out, "what is printed")
    assert_clean(caplog.text, "the log")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert_clean(path.read_bytes(), path.name)
    for key, file in SecretFileSystem.store.items():
        assert_clean(file.getvalue(), f"the file {key}")


def test_the_canary_would_be_seen(tmp_path):
    """The search finds the secret in each form that it could be written in."""
    for form in (CANARY, quoted(), json.dumps({"a": CANARY}), pickle.dumps({"a": CANARY}), [CANARY]):
        with pytest.raises(AssertionError, match="the secret is in"):
            assert_clean(form, "here")
