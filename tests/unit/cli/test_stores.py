"""`mltraq-ds store …`: list, export, import, rebuild-index."""

import json

import pytest

from mltraq_ds.store import FileStoreConfig, RunRecord, SqliteStoreConfig


@pytest.fixture
def cli(command):
    """Return a function that runs a command and expects an exit code."""

    def run(*args, code=0):
        result = command(*map(str, args))
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def source(tmp_path):
    """Return the root of a store with two experiments."""
    store = FileStoreConfig(root=tmp_path / "source").connect()
    for experiment in ("exp:1", "other"):
        store.put_run_record(RunRecord.success("1", experiment))
    return tmp_path / "source"


def test_list(cli, source):
    """Experiments are listed by the files alone, as a table and as JSON."""
    assert "exp:1" in cli("store", "list", source).stdout
    listed = json.loads(cli("store", "list", source, "--json").stdout)
    assert [(one["id_experiment"], one["generation"]) for one in listed] == [("exp:1", 0), ("other", 0)]
    assert [(one["runs"], one["size_bytes"] > 100) for one in listed] == [(1, True), (1, True)]


def test_list_nothing(cli, tmp_path):
    """A name where no store is, and a file, are no empty tables."""
    assert "no store at" in cli("store", "list", tmp_path / "nothere", code=1).stderr
    (tmp_path / "file").write_text("x")
    assert "is a file" in cli("store", "list", tmp_path / "file", code=2).stderr


def test_export_and_import(cli, source, tmp_path):
    """One experiment, then all; what is there is not copied again; what differs needs --overwrite."""
    target = tmp_path / "target"
    assert (
        "1 experiments, 1 runs"
        in cli("store", "export", "--from", source, "--to", target, "--experiment", "exp:1").stdout
    )
    assert FileStoreConfig(root=target).list_experiments() == ["exp:1"]
    assert json.loads(cli("store", "import", "--from", source, "--store", target, "--json").stdout)["runs"] == 1
    assert FileStoreConfig(root=target).list_experiments() == ["exp:1", "other"]
    assert "there already" in cli("store", "export", "--from", source, "--to", target).stdout
    FileStoreConfig(root=source).connect().put_run_record(RunRecord.success("1", "other", notes="new"))
    failed = cli("store", "export", "--from", source, "--to", target, code=1)
    assert "overwrite=True" in failed.stderr
    cli("store", "export", "--from", source, "--to", target, "--overwrite")
    assert FileStoreConfig(root=target, experiment_id="other").connect().get_run_record("1").notes == "new"
    assert (
        "No experiment" in cli("store", "export", "--from", source, "--to", target, "--experiment", "x", code=1).stderr
    )


def test_rebuild_index(cli, source, tmp_path):
    """A database is filled from the files, of one experiment or of all; a store without one says so."""
    url = f"sqlite:///{tmp_path}/i.db?file_root={source}"
    assert "1 runs" in cli("store", "rebuild-index", url, "--experiment", "exp:1").stdout
    assert "2 runs" in cli("store", "rebuild-index", url).stdout
    store = SqliteStoreConfig(connection_string=f"sqlite:///{tmp_path}/i.db", file_root=source).connect()
    assert store.link.database.query("SELECT count(*) AS n FROM mltraq_runs").n.tolist() == [2]
    store.close()
    assert "no index" in cli("store", "rebuild-index", source, code=2).stderr


def test_rebuild_index_beside_damage(cli, source, tmp_path):
    """What could not be read makes the exit code 1; so does an experiment, or a store, that is not there."""
    url = f"sqlite:///{tmp_path}/i.db?file_root="
    assert "'zz'" in cli("store", "rebuild-index", f"{url}{source}", "--experiment", "zz", code=1).stderr
    path = source / "other" / "runs" / "1.json"
    path.write_bytes(path.read_bytes()[:-9])
    found = cli("store", "rebuild-index", f"{url}{source}", code=1)
    assert "1 run " in found.stdout
    assert "other/runs/1.json" in found.stdout
    assert "no store" in cli("store", "rebuild-index", f"{url}{tmp_path}/nothere", code=1).stderr
