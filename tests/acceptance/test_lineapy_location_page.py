"""Every statement of the page on changing the storage location, in its order; quotations of the page are short."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import traceback
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from mltraq_ds import Database, DataStore, create_session, options
from mltraq_ds.errors import (
    DatabaseUnavailableError,
    ExperimentNotFoundError,
    MissingExtraError,
    SecretInOptionsWarning,
    StorageError,
    UnknownStoreError,
    UsageError,
)
from tests.fixtures_storages import KEY, SECRET

HERE = {"artifact_storage_dir": "values", "database_url": "sqlite:///metadata.db"}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    """Work in an empty folder, without the configuration and the credentials of whoever runs the tests."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def persist(name="digits"):
    """Persist an experiment with one value in a session made now."""
    session = create_session()
    experiment = session.create_experiment(name)
    with experiment.run() as run:
        run.fields.ds = DataStore(weights=np.arange(1000))
    experiment.persist()
    return session


def load(name="digits"):
    """Load the value in a session made now."""
    return create_session().load_experiment(name).runs.first().fields.ds.weights.tolist()


def test_values_and_metadata_are_two_things():
    """Values are files; the database has what finds them (time, version, pointer), and no value."""
    persist()
    (blob,) = [path for path in Path("mltraq.datastore").rglob("*") if len(path.name) == 32 and path.is_file()]
    with closing(sqlite3.connect("mltraq.db")) as database:
        (row,) = database.execute("SELECT name, generation, created_at, n_blobs FROM mltraq_experiments")
        (key,) = database.execute("SELECT key FROM mltraq_blobs").fetchone()
    assert (row[0], row[1], row[3]) == ("digits", 1, 1)
    assert row[2]
    assert key.endswith(blob.name)
    with np.load(blob) as archive:
        assert archive["weights"].tolist() == list(range(1000))


def test_default_locations():
    """By default both are in the working folder (LineaPy: in a hidden one of the user)."""
    persist()
    assert sorted(path.name for path in Path().iterdir() if not path.name.endswith(("-wal", "-shm"))) == [
        "mltraq.datastore",
        "mltraq.db",
    ]


def test_the_configuration_file():
    """Both are overridden by a configuration file with the names of the page."""
    Path("mltraq_ds_config.json").write_text(json.dumps(HERE))
    persist()
    assert Path("values").is_dir()
    assert Path("metadata.db").is_file()
    assert not Path("mltraq.datastore").exists()
    assert not Path("mltraq.db").exists()
    assert load() == list(range(1000))


def test_in_an_interactive_session():
    """Both are overridden by `options.set` with the names of the page, and read in another process with a file."""
    for name, value in HERE.items():
        options.set(name, value)
    persist()
    Path("mltraq_ds_config.json").write_text(json.dumps(HERE))
    script = "from mltraq_ds import create_session; print(create_session().ls().name.tolist())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert child.stdout == "['digits']\n"


def test_the_session_should_be_reset():
    """A new location has nothing of before and affects sessions made afterwards; sessions keep theirs."""
    before = persist()
    for name, value in HERE.items():
        options.set(name, value)
    assert create_session().ls().empty
    with pytest.raises(ExperimentNotFoundError):
        load()
    assert before.ls().name.tolist() == ["digits"]
    assert before.load_experiment("digits").runs.first().fields.ds.weights.sum() == 499_500
    options.reset()
    assert load() == list(range(1000))


def test_hand_in_hand():
    """Only one of the two changed is told, with the remedy, whichever it was; nothing fails later or silently."""
    persist()
    options.set("database_url", HERE["database_url"])
    with pytest.raises(UnknownStoreError, match=r"does not know the store.*rebuild_index"):
        load()
    options.reset()
    options.set("artifact_storage_dir", HERE["artifact_storage_dir"])
    persist("other")
    with pytest.raises(ExperimentNotFoundError, match=r"in another store \(file://.*mltraq.datastore.*hand in hand"):
        load()


def test_storage_options_are_those_of_pandas(tmp_path):
    """What pandas takes as `storage_options` is taken as it is, by `set`, in a file, in a variable and by a flag."""
    given = {"skip_instance_cache": True}
    frame = pd.DataFrame({"x": [1, 2]})
    frame.to_csv("memory://page/x.csv", storage_options=given)
    options.set("artifact_storage_dir", "memory://page/store")
    options.set("storage_options", given)
    persist()
    assert load() == list(range(1000))
    options.reset()
    for name, text in {"toml": "storage_options.anon = true", "json": '{"storage_options": {"anon": true}}'}.items():
        Path(f"mltraq_ds_config.{name}").write_text(text)
        options.reload()
        assert options.get("storage_options") == {"anon": True}
        Path(f"mltraq_ds_config.{name}").unlink()


def test_dictionaries_in_variables_and_flags(monkeypatch):
    """The page has no way to give them there; ours is JSON."""
    monkeypatch.setenv("MLTRAQ_DS_STORAGE_OPTIONS", '{"profile": "lab"}')
    assert options.get("storage_options") == {"profile": "lab"}
    command = [sys.executable, "-m", "mltraq_ds.cli", "config", "show", "--origin"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    flags = ["--option", 'storage_options={"anon": true}']
    child = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, check=True)
    assert re.search(r"datastore.storage_options +\{\*\*\*\} +command line", child.stdout)


def test_which_options_depends_on_the_filesystem():
    """A folder takes none, which is said."""
    options.set("storage_options", {"profile": "lab"})
    with pytest.raises(UsageError, match=r"\['profile'\] are refused.*folder.*is from: set"):
        create_session()


@pytest.mark.server
def test_a_server_by_its_variable(database_url, monkeypatch):
    """PostgreSQL and MariaDB are used by exporting their URL, before or while the program runs; `check` connects."""
    monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", database_url)
    assert "no tables" in str(Database.from_environment().check())
    persist()
    assert load() == list(range(1000))
    assert not Path("mltraq.db").exists()
    assert "experiments: 1" in str(Database.from_environment().check())
    engine = sa.create_engine(create_session().database._url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT name FROM mltraq_experiments").scalar() == "digits"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_from_environment(scheme, monkeypatch):
    """The URL in use is printed without driver, server or password; `postgres://` is the same as `postgresql://`."""
    monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", f"{scheme}://postgresuser:postgrespwd@localhost:15432/postgresdb")
    for module in ("psycopg", "pymysql"):
        monkeypatch.setitem(sys.modules, module, None)
    assert Database.from_environment().url == "postgresql+psycopg://postgresuser:***@localhost:15432/postgresdb"
    with pytest.raises(MissingExtraError, match=r'pip install "mltraq-ds\[postgres\]"'):
        Database.from_environment().check()
    monkeypatch.delenv("MLTRAQ_DS_DATABASE_URL")
    assert Database.from_environment().url == f"sqlite:///{Path('mltraq.db').absolute()}"
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("scheme", ["postgresql", "mariadb"])
def test_no_fall_back_to_sqlite(scheme, unused_port, monkeypatch):
    """A server that does not answer is an error of every verb, without the password, and no SQLite file appears."""
    url = f"{scheme}://postgresuser:postgrespwd@127.0.0.1:{unused_port}/postgresdb"
    monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", url)
    assert f"127.0.0.1:{unused_port}" in Database.from_environment().url
    for use in (persist, Database.from_environment().check):
        with pytest.raises(DatabaseUnavailableError, match="Start the server") as caught:
            use()
        assert "postgrespwd" not in "".join(traceback.format_exception(caught.value))
    assert list(Path().iterdir()) == []


@pytest.mark.server
def test_values_in_s3(seaweedfs, tmp_path, monkeypatch):
    """A bucket is set as the location; credentials come from the provider's own files, by profile or variables."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweedfs.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    wrong = "[default]\naws_access_key_id = nobody\naws_secret_access_key = wrong\n"
    other = f"[ANOTHER_AWS_PROFILE]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    (tmp_path / "credentials").write_text(wrong + other)
    options.set("artifact_storage_dir", "s3://mltraq/your-artifact-folder")
    with pytest.raises(StorageError, match="credentials"):
        persist("refused")
    options.set("storage_options", {"profile": "ANOTHER_AWS_PROFILE"})
    persist()
    assert load() == list(range(1000))
    options.reset("storage_options")
    monkeypatch.setenv("AWS_PROFILE", "ANOTHER_AWS_PROFILE")
    assert load() == list(range(1000))
    monkeypatch.delenv("AWS_PROFILE")
    (tmp_path / "credentials").write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    assert load() == list(range(1000))
    assert not Path("your-artifact-folder").exists()


@pytest.mark.server
def test_credentials_in_options(seaweedfs, tmp_path):
    """Credentials set in the program work, with a warning, and are written nowhere."""
    given = {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": seaweedfs.url, "region_name": "us-east-1"}}
    options.set("artifact_storage_dir", "s3://mltraq/with-credentials")
    options.set("storage_options", given)
    with pytest.warns(SecretInOptionsWarning):
        session = persist()
    with pytest.warns(SecretInOptionsWarning):
        assert load() == list(range(1000))
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    written += [session.storage.read(stat.key) for stat in session.storage.list()]
    assert not [data for data in written if SECRET.encode() in data]
    assert SECRET not in repr(options) + repr(session)
