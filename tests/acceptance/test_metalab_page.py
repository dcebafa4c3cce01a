"""The examples of the page on pluggable storage run as printed; only places and the server are put in."""

import textwrap
from pathlib import Path

import pytest

import mltraq_ds
from mltraq_ds import create_session, load_results
from mltraq_ds.store import (
    ConfigRegistry,
    FileStore,
    FileStoreConfig,
    PostgresStore,
    PostgresStoreConfig,
    RunRecord,
    config,
    create_store,
)

QUICK_START = """
import mltraq_ds
# Simple path - creates FileStore at that location
handle = mltraq_ds.run(exp, store="./experiments")
# Results are stored under:
handle.store.get_working_directory() # ./experiments/<safe_experiment_id>/
"""
CONFIGURATION = """
from mltraq_ds.store import FileStoreConfig
# Create a config (doesn't connect yet)
config = FileStoreConfig(root="./experiments")
# Scope to an experiment (creates subdirectory)
scoped = config.scoped("my_exp:1.0")
# Connect to get a usable store
store = scoped.connect()
"""
SCOPING = """
# These are equivalent:
mltraq_ds.run(exp, store="./experiments")
mltraq_ds.run(exp, store=FileStoreConfig(root="./experiments"))
# Data ends up in: ./experiments/my_exp_1.0/
"""
FILES = """
from mltraq_ds.store import FileStoreConfig
# Path string - this is the collection root
mltraq_ds.run(exp, store="./experiments")
# Data stored in: ./experiments/<safe_experiment_id>/
# file:// URI
mltraq_ds.run(exp, store="file:///shared/experiments")
# Explicit config (equivalent)
config = FileStoreConfig(root="./experiments")
mltraq_ds.run(exp, store=config)
"""
POSTGRES = """
from mltraq_ds.store import PostgresStoreConfig
# PostgresStore requires file_root for logs/artifacts
config = PostgresStoreConfig(
    connection_string="postgresql://user@localhost/metalab",
    file_root="/shared/experiments",
)
mltraq_ds.run(exp, store=config)
# Or via URI with file_root parameter
mltraq_ds.run(
    exp,
    store="postgresql://user@localhost/metalab?file_root=/shared/experiments",
)
"""
REBUILD = """
from mltraq_ds.store import PostgresStoreConfig
config = PostgresStoreConfig(
    connection_string="postgresql://localhost/db",
    file_root="/path/to/files",
)
store = config.connect()
store.rebuild_index() # Re-indexes all records from FileStore
"""
EXISTING = """
from mltraq_ds.store import FileStoreConfig, PostgresStore
# Wrap an existing FileStore with Postgres indexing
filestore = FileStoreConfig(root="/path/to/existing/store").connect()
pg_store = PostgresStore.from_filestore(
    "postgresql://localhost/db",
    filestore,
    rebuild=True, # Index existing records
)
# Export back to standalone FileStore
exported = pg_store.to_filestore("/path/to/export")
"""
COLLECTIONS = """
from mltraq_ds import load_results
from mltraq_ds.store import FileStoreConfig
# Create an unscoped config (collection root)
collection = FileStoreConfig(root="./experiments")
# List all experiments in the collection
experiments = collection.list_experiments()
# ['my_exp:1.0', 'my_exp:2.0', 'other_exp:1.0']
# Get config for a specific experiment
config = collection.for_experiment("my_exp:1.0")
results = load_results(config)
"""
RESULTS = """
from mltraq_ds import load_results
from mltraq_ds.store import FileStoreConfig
# From path string
results = load_results("./experiments", experiment_id="my_exp:1.0")
# From config (using collection API)
collection = FileStoreConfig(root="./experiments")
results = load_results(collection.for_experiment("my_exp:1.0"))
# Convert to DataFrame
df = results.to_dataframe()
"""
TRANSFER = """
from mltraq_ds.store import export_store
# Export specific experiment
export_store(
    source="postgresql://localhost/db?file_root=/data",
    destination="./backup",
    experiment_id="my_exp:1.0",
)
"""
PROGRAMMATIC = """
from mltraq_ds.store import create_store, FileStoreConfig, parse_to_config
# URI-based (convenience)
store = create_store("./runs/my_exp")
store = create_store("file:///absolute/path")
store = create_store("postgresql://localhost/db", file_root="/path/to/files")
# Config-based (recommended for programmatic use)
config = FileStoreConfig(root="./runs/my_exp")
store = config.connect()
# Parse URI to config (useful for inspection/modification)
config = parse_to_config("postgresql://localhost/db?file_root=/data")
config = config.scoped("my_exp:1.0") # Add experiment scoping
store = config.connect()
"""
SERIALIZATION = """
from mltraq_ds.store import FileStoreConfig, StoreConfig
config = FileStoreConfig(root="./experiments", experiment_id="my_exp:1.0")
# Serialize to dict
d = config.to_dict()
# {'root': '/abs/path/to/experiments', 'experiment_id': 'my_exp:1.0', '_type': 'file'}
# Deserialize back
restored = StoreConfig.from_dict(d)
assert restored == config
"""
CUSTOM = """
from dataclasses import dataclass
from typing import ClassVar, Any
from mltraq_ds.store import StoreConfig
from mltraq_ds.store.locator import LocatorInfo
@dataclass(frozen=True, kw_only=True)
class MyCustomStoreConfig(StoreConfig):
    # scheme is used for URI parsing and auto-registration
    scheme: ClassVar[str] = "myscheme"
    # Your config fields
    endpoint: str
    bucket: str
    experiment_id: str | None = None
    def connect(self) -> "MyCustomStore":
        return MyCustomStore(self)
    @classmethod
    def from_locator(cls, info: LocatorInfo, **kwargs: Any) -> "MyCustomStoreConfig":
        # Parse from URI like "myscheme://endpoint/bucket"
        return cls(
            endpoint=info.host,
            bucket=info.path.lstrip("/"),
            experiment_id=kwargs.get("experiment_id"),
        )
class MyCustomStore:
    def __init__(self, config: MyCustomStoreConfig):
        self.config = config
        # Connect to your backend...
    # Implement Store protocol methods...
# Auto-registered! Now usable via create_store
store = create_store("myscheme://my-endpoint/my-bucket")
"""


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Run an example in an empty folder, with places and servers put in, and return its names."""
    monkeypatch.chdir(tmp_path)

    def run(example, database=None, **names):
        code = textwrap.dedent(example)
        for place in ("/shared/experiments", "/path/to/files", "/path/to/existing/store", "/path/to/export", "/data"):
            code = code.replace(place, f"{tmp_path}{place}")
        code = code.replace("file:///absolute/path", f"file://{tmp_path}/absolute/path")
        if database is not None:
            for url in ("postgresql://user@localhost/metalab", "postgresql://localhost/db"):
                code = code.replace(f"{url}?", f"{database}{'&' if '?' in database else '?'}").replace(url, database)
        space = {"mltraq_ds": mltraq_ds, "__name__": "example", **names}
        exec(compile(code, "example", "exec", dont_inherit=True), space)
        return space

    return run


@pytest.fixture
def make(tmp_path):
    """Return a maker of experiments with two executed runs."""
    session = create_session("sqlite://", tmp_path / "elsewhere")

    def experiment(id_experiment):
        found = mltraq_ds.Experiment(session, id_experiment, id_experiment)
        return found.add_runs(lr=[0.1, 0.2]).execute(_step)

    yield experiment
    session.close()


def _step(run):
    run.fields.loss = run.params.lr * 2


def _put(root, *ids):
    store = FileStoreConfig(root=root).connect()
    for id_experiment in ids:
        store.put_run_record(RunRecord.success("1", id_experiment, metrics={"loss": 0.5}))


@pytest.mark.parametrize(
    "store", ['"./experiments"', 'f"file://{here}/experiments"', "FileStoreConfig(root='experiments')"]
)
def test_quick_start(play, make, tmp_path, store):
    """A path, a file:// URI and a configuration are one store, and a new object reads what was run."""
    code = QUICK_START.replace('"./experiments"', store)
    handle = play(code, exp=make("my_exp:1.0"), FileStoreConfig=FileStoreConfig, here=tmp_path)["handle"]
    assert handle.store.get_working_directory() == tmp_path / "experiments" / "my_exp=3a1.0"
    assert handle.store.get_working_directory().is_dir()
    again = load_results(tmp_path / "experiments", experiment_id="my_exp:1.0")
    assert again.to_dataframe()["loss"].tolist() == handle.result().to_dataframe()["loss"].tolist() == [0.2, 0.4]


def test_configuration(play, tmp_path):
    """Nothing is made before something is written, and then in the folder of the experiment."""
    store = play(CONFIGURATION)["store"]
    assert list(tmp_path.iterdir()) == []
    store.put_run_record(RunRecord.success("1", "my_exp:1.0"))
    assert (tmp_path / "experiments" / "my_exp=3a1.0" / "runs" / "1.json").is_file()


def test_scoping(play, make, tmp_path):
    """The same experiment, run once more into the same store, is there already: nothing is executed or written."""
    play(SCOPING, exp=make("my_exp:1.0"), FileStoreConfig=FileStoreConfig)
    folder = tmp_path / "experiments" / "my_exp=3a1.0"
    assert [path.name for path in (folder / "generations").iterdir()] == ["1.json"]
    assert len(load_results(tmp_path / "experiments", "my_exp:1.0")) == 2


def test_files(play, make, tmp_path):
    """A path, a file:// URI and a configuration, one after another, in the folders that they name."""
    play(FILES, exp=make("my_exp:1.0"))
    for root in (tmp_path / "experiments", tmp_path / "shared" / "experiments"):
        assert FileStoreConfig(root=root).list_experiments() == ["my_exp:1.0"]
        assert load_results(root, "my_exp:1.0").to_dataframe()["loss"].tolist() == [0.2, 0.4]


@pytest.mark.server
def test_postgres(play, make, tmp_path, postgresql_url):
    """A configuration and a URL with file_root are one store, which the database finds."""
    play(POSTGRES, postgresql_url, exp=make("my_exp:1.0"))
    files = FileStoreConfig(root=tmp_path / "shared/experiments")
    assert files.list_experiments() == ["my_exp:1.0"]
    store = PostgresStoreConfig(connection_string=postgresql_url, file_root=files.root).connect()
    rows = store.link.database.query("SELECT fields ->> 'loss' AS loss FROM mltraq_runs ORDER BY loss")
    assert rows.loss.tolist() == ["0.2", "0.4"]
    assert len(store.check()) == 0
    store.close()


@pytest.mark.server
def test_rebuild(play, tmp_path, postgresql_url):
    """A wiped database has everything back, and says so in numbers."""
    _put(tmp_path / "path/to/files", "my_exp:1.0", "other")
    store = play(REBUILD, postgresql_url)["store"]
    assert [(record.experiment_id, record.metrics) for record in store.list_run_records()] == [
        ("my_exp:1.0", {"loss": 0.5}),
        ("other", {"loss": 0.5}),
    ]
    assert store.link.database.query("SELECT count(*) AS n FROM mltraq_runs").n.tolist() == [2]
    store.close()


@pytest.mark.server
def test_existing(play, tmp_path, postgresql_url):
    """An existing store gets an index, and is exported whole."""
    _put(tmp_path / "path/to/existing/store", "my_exp:1.0", "other")
    names = play(EXISTING, postgresql_url)
    assert isinstance(names["pg_store"], PostgresStore)
    assert type(names["exported"]) is FileStore
    assert len(names["pg_store"].list_run_records()) == 2
    again = FileStoreConfig(root=tmp_path / "path/to/export")
    assert again.list_experiments() == ["my_exp:1.0", "other"]
    assert again.connect().list_run_records() == names["filestore"].list_run_records()
    names["pg_store"].close()


def test_collections(play, tmp_path):
    """A collection lists its experiments by the ids that they were given, and each can be loaded."""
    _put(tmp_path / "experiments", "other_exp:1.0", "my_exp:1.0", "my_exp:2.0")
    names = play(COLLECTIONS)
    assert names["experiments"] == ["my_exp:1.0", "my_exp:2.0", "other_exp:1.0"]
    assert [run.experiment_id for run in names["results"]] == ["my_exp:1.0"]


def test_results(play, tmp_path):
    """Results are loaded by path and id as by configuration, and become a table."""
    _put(tmp_path / "experiments", "my_exp:1.0", "other")
    names = play(RESULTS)
    assert names["df"]["loss"].tolist() == [0.5]
    assert names["results"].records == load_results("./experiments", experiment_id="my_exp:1.0").records


@pytest.mark.server
def test_transfer(play, tmp_path, postgresql_url):
    """One experiment is copied out of a store with an index; nothing else is."""
    _put(tmp_path / "data", "my_exp:1.0", "other")
    play(TRANSFER, postgresql_url)
    assert FileStoreConfig(root=tmp_path / "backup").list_experiments() == ["my_exp:1.0"]


@pytest.mark.server
def test_programmatic(play, tmp_path, postgresql_url):
    """Stores are made by URI and by configuration; the last one, scoped, works."""
    store = play(PROGRAMMATIC, postgresql_url)["store"]
    store.put_run_record(RunRecord.success("1", "my_exp:1.0"))
    assert FileStoreConfig(root=tmp_path / "data").connect().list_run_records()[0].run_id == "1"
    store.close()


def test_serialization(play, tmp_path):
    """A configuration becomes the dictionary that the page shows."""
    root = str(Path(tmp_path) / "experiments")
    assert play(SERIALIZATION)["d"] == {"root": root, "experiment_id": "my_exp:1.0", "_type": "file"}


def test_custom_store(play):
    """A class registers itself when its body is executed, and once more when its cell is executed again."""
    try:
        for _ in range(2):
            store = play(CUSTOM, create_store=create_store)["store"]
        assert (store.config.endpoint, store.config.bucket) == ("my-endpoint", "my-bucket")
        assert create_store("myscheme://e/b", experiment_id="x").config.experiment_id == "x"
        assert "myscheme" in ConfigRegistry.schemes()
    finally:
        config._registered.pop("myscheme")
