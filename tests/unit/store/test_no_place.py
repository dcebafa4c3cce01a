"""What is no store, or one of another version, is told by whoever reads and by whoever writes."""

import json
import pathlib

import pytest

from mltraq_ds import create_session, load_results
from mltraq_ds.errors import FormatError, UsageError
from mltraq_ds.store import ArtifactDescriptor, FileStoreConfig, RunRecord, SqliteStoreConfig, export_store

A_RUN = RunRecord.success("1", "a")


@pytest.fixture
def root(tmp_path):
    """Return the root of a store with one experiment."""
    FileStoreConfig(root=tmp_path / "src").connect().put_run_record(A_RUN)
    return tmp_path / "src"


def test_a_newer_version(root, tmp_path):
    """A store that a newer version has written is neither read nor written, by whatever door."""
    config, path = FileStoreConfig(root=root), root / "_store.json"
    artifact = config.scoped("a").connect().put_artifact(b"1", ArtifactDescriptor("1", "x", run_id="1"))
    body = json.loads(path.read_text())
    path.chmod(0o644)
    path.write_text(json.dumps({**body, "version": 99}))
    indexed = SqliteStoreConfig(connection_string=f"sqlite:///{tmp_path}/i.db", file_root=root)
    for work in (
        config.list_experiments,
        lambda: list(load_results(root)),
        lambda: list(load_results(root, "a")),
        lambda: config.connect().list_run_records(),
        lambda: config.scoped("a").connect().list_run_records(),
        lambda: config.scoped("a").connect().get_run_record("1"),
        lambda: config.scoped("a").connect().get_log("1", "out"),
        lambda: config.connect().get_artifact(artifact.uri),
        lambda: config.connect().put_run_record(A_RUN),
        lambda: indexed.connect().list_run_records(),
        lambda: export_store(root, tmp_path / "copy"),
    ):
        with pytest.raises(FormatError, match="99"):
            work()


@pytest.mark.parametrize("inside", ["a", "a/runs", "_pending", "artifacts"])
def test_no_store_in_a_store(root, tmp_path, inside):
    """Nobody makes a store inside a folder that a store manages; in a folder of the user's own it is possible."""
    before = sorted(map(str, root.rglob("*")))
    place = FileStoreConfig(root=root / inside)
    with pytest.raises(UsageError, match="inside one"):
        place.connect().put_run_record(A_RUN)
    with pytest.raises(UsageError, match="inside one"), create_session("sqlite://", root / inside) as session:
        session.create_experiment("x").persist()
    FileStoreConfig(root=tmp_path / "other").connect().put_run_record(A_RUN)
    with pytest.raises(UsageError, match="inside one"):
        export_store(tmp_path / "other", root / inside)
    assert sorted(map(str, root.rglob("*"))) == before
    FileStoreConfig(root=root / "own" / "inner").connect().put_run_record(A_RUN)
    assert FileStoreConfig(root=root / "own" / "inner").list_experiments() == ["a"]


def test_no_store_in_an_experiment_of_an_object_store(tmp_path):
    """The folder of an experiment is told by its mark on any storage."""
    url = f"memory://{tmp_path.name}-inside"
    FileStoreConfig(root=url).connect().put_run_record(A_RUN)
    with pytest.raises(UsageError, match="inside one"):
        FileStoreConfig(root=f"{url}/a").connect().put_run_record(A_RUN)


def test_a_file(tmp_path):
    """A file is no store, and the message says so; a folder that is not there is an empty one, and stays away."""
    path = pathlib.Path(tmp_path, "file")
    path.write_text("x")
    config = FileStoreConfig(root=path)
    for work in (config.list_experiments, lambda: config.connect().put_run_record(A_RUN), lambda: load_results(path)):
        with pytest.raises(UsageError, match="is a file"):
            work()
    assert FileStoreConfig(root=tmp_path / "none").list_experiments() == []
    assert not (tmp_path / "none").exists()
