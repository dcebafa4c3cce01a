"""Results of a store, and run(): what comes back of what was run, by whatever names the store."""

import csv
import math

import numpy as np
import pytest

import mltraq_ds
from mltraq_ds import create_session, load_results, run
from mltraq_ds.errors import ExperimentExistsError, ExperimentNotFoundError, NotFoundError, UsageError
from mltraq_ds.store import ArtifactDescriptor, FileStoreConfig, RunRecord, SqliteStoreConfig


@pytest.fixture(params=["files", "indexed", "memory"])
def config(request, tmp_path):
    """Return the configuration of a collection, with and without an index, and on an object store."""
    if request.param == "indexed":
        return SqliteStoreConfig(connection_string=f"sqlite:///{tmp_path}/i.db", file_root=tmp_path / "files")
    root = tmp_path / "files" if request.param == "files" else f"memory://{tmp_path.name}-{id(request)}"
    return FileStoreConfig(root=root)


@pytest.fixture
def experiment(tmp_path):
    """Return an experiment of another session, with three runs."""
    with create_session("sqlite://", tmp_path / "elsewhere") as session:
        yield mltraq_ds.Experiment(session, "my_exp:1.0", "mine").add_runs(lr=[0.1, 0.2, 0.3])


def train(run):
    """Give a run scalars, an array and a file of its own in the store."""
    run.fields.loss = run.params.lr * 10
    run.fields.diverged = math.nan
    run.fields.weights = np.arange(3) * run.params.lr
    run.fields.io = mltraq_ds.DataStoreIO.write(b"log", "own").url


def test_run(config, experiment, tmp_path):
    """What was run is in the store, arrays and files of steps too, and nothing is in the experiment's own session."""
    handle = run(experiment, [train], store=config)
    assert (handle.experiment_id, handle.generation) == ("my_exp:1.0", 1)
    again = load_results(config.for_experiment("my_exp:1.0"))
    assert [one.metrics["loss"] for one in again] == [1.0, 2.0, 3.0]
    first = again.runs[0]
    assert again.load(first.run_id, "weights").tolist() == [0.0, 0.1, 0.2]
    assert handle.store.storage.read(first.load("io").partition(":///")[2]) == b"log"
    assert not (tmp_path / "elsewhere").exists()
    experiment.runs[first.run_id].fields.loss = 7.5
    with pytest.raises(ExperimentExistsError):
        run(experiment, store=config)
    assert run(experiment, store=config, if_exists="update").generation == 2
    assert load_results(config, "my_exp:1.0")[first.run_id].metrics["loss"] == 7.5


def test_run_again(config, experiment):
    """What is in the store as it is in memory is left as it is, by way of a store too; anything else is refused."""
    called = []

    def step(run):
        called.append(run.id_run)
        train(run)

    def same(**more):
        return run(experiment, store=config.connect(), **more).generation

    assert run(experiment, step, store=config).generation == 1
    assert same() == run(experiment, store=config.connect().scoped("my_exp:1.0")).generation == 1
    with pytest.raises(ExperimentExistsError):
        run(experiment, step, store=config)
    assert len(called) == 3  # refused before anything was executed
    first = next(iter(experiment.runs.values()))
    for change in ({"weights": np.arange(3) * 0.5}, {"loss": True}, {"new": 1}):
        before = dict(first.fields)
        first.fields.update(change)
        with pytest.raises(ExperimentExistsError):
            same()
        first.fields.clear()
        first.fields.update(before)
        assert same() == 1
    first.about.tags = ["late"]
    with pytest.raises(ExperimentExistsError):
        same()
    assert same(if_exists="update") == 2


def test_an_error_of_other_parts(config):
    """The error of a record comes back as it was put, also after the experiment was loaded and persisted."""
    store = config.connect()
    errors = [{"kind": "x", "message": "boom", "detail": "d"}, {"message": "m"}, {"type": "T", "message": "m"}, {}]
    for i, error in enumerate(errors):
        store.put_run_record(RunRecord.failed(str(i), "e", error=error))
    with create_session("sqlite://", store.storage) as session:
        experiment = session.load_experiment(id_experiment="e")
        assert experiment.runs["0"].exception.message == "boom"
        experiment.persist()
    assert [one.error for one in store.scoped("e").list_run_records()] == errors


def test_run_in_parallel(experiment, tmp_path):
    """Workers write into the same store."""
    handle = run(experiment, train, store=tmp_path / "files", n_jobs=2)
    assert sorted(one.metrics["loss"] for one in handle.result()) == [1.0, 2.0, 3.0]
    assert len(list((tmp_path / "files" / "own").iterdir())) == 3


def test_run_while_the_index_is_down(experiment, tmp_path):
    """The experiment is in the files, a warning says that the index is behind, and it catches up."""
    config = SqliteStoreConfig(connection_string=f"sqlite:///{tmp_path}/no/i.db", file_root=tmp_path / "files")
    with pytest.warns(mltraq_ds.errors.IndexBehindWarning, match="lags by 1 put"):
        run(experiment, train, store=config)
    assert len(load_results(tmp_path / "files", "my_exp:1.0")) == 3
    (tmp_path / "no").mkdir()
    with config.connect() as store:
        assert len(store.list_run_records()) == 3
        store.rebuild_index()
        assert len(store.check()) == 0


def put_runs(config):
    store = config.connect()
    for i in range(4):
        metrics = {"loss": i / 2, "lr": 1} if i else {"loss": math.nan}
        record = RunRecord(f"r{i}", "e", "failed" if i == 3 else "success", metrics=metrics, tags=["a", "b"][: i % 3])
        store.put_run_record(record)
    scoped = store.scoped("e")
    scoped.put_derived("r1", {"ratio": 2})
    scoped.put_artifact(b"[1, 2]", ArtifactDescriptor("1", "list", format="json", run_id="r1"))
    scoped.put_artifact(b"raw", ArtifactDescriptor("2", "bytes", run_id="r1"))
    scoped.put_result("r1", "table", [1.5])
    return load_results(config, "e")


def test_filter(config):
    """Filters narrow results by status, tags and metrics, one after another; contradictions are refused."""
    results = put_runs(config)
    ids = lambda found: sorted(one.run_id for one in found)  # noqa: E731
    assert ids(results.successful) == ["r0", "r1", "r2"]
    assert ids(results.failed) == ids(results.filter("failed", loss=1.5)) == ["r3"]
    assert ids(results.filter(tags="a")) == ["r1", "r2"]
    assert ids(results.filter(tags=["a", "b"]).filter(loss=1)) == ["r2"]
    assert ids(results.filter(loss=math.nan)) == ["r0"]
    assert results.summary() == {"success": 3, "failed": 1}
    assert (len(results), bool(results.filter(loss=99))) == (4, False)
    with pytest.raises(UsageError, match="filtered by another"):
        results.successful.filter("failed")


def test_load(config):
    """A name is an artifact, decoded where that runs no code, a structured result, or a metric; else it is told."""
    results = put_runs(config)
    assert results.load("r1", "list") == [1, 2]
    assert results.load("r1", "bytes") == b"raw"
    assert results.load("r1", "table") == results["r1"].data("table") == [1.5]
    assert results.load("r1", "loss") == 0.5
    assert results["r1"].derived == {"ratio": 2}
    assert results["r1"].list_data() == ["table"]
    with pytest.raises(NotFoundError, match="bytes, list, loss"):
        results.load("r1", "nothing")
    with pytest.raises(NotFoundError, match="'r9'"):
        results.load("r9", "loss")


def test_tables(config, tmp_path, capsys):
    """DataFrame and CSV have one row a run and all columns; a name that is there twice is told apart."""
    results = put_runs(config)
    table = results.to_dataframe(include_derived=True).set_index("run_id").sort_index()
    assert table["loss"].tolist()[1:] == [0.5, 1.0, 1.5]
    assert table.loc["r1", "ratio"] == 2
    assert len(results.to_dataframe(progress=True)) == 4
    assert "4run" in capsys.readouterr().err
    assert next(iter(results.to_dataframe(False, True, False))) == "run_id"
    results.to_csv(tmp_path / "runs.csv", include_derived=True)
    with open(tmp_path / "runs.csv", newline="") as file:
        rows = {row["run_id"]: row for row in csv.DictReader(file)}
    assert (rows["r2"]["loss"], rows["r2"]["tags"], rows["r1"]["ratio"]) == ("1.0", '["a", "b"]', "2")


def test_what_is_not_there(tmp_path):
    """A folder that is no store, and an experiment that is not there, are told; the nearest id is named."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExperimentNotFoundError, match="no experiments"):
        load_results(tmp_path / "empty")
    FileStoreConfig(root=tmp_path / "s").connect().put_run_record(RunRecord.success("1", "my_exp:1.0"))
    with pytest.raises(ExperimentNotFoundError, match="'my_exp:1.0'"):
        load_results(tmp_path / "s", "my_exp:1")
    with pytest.raises(UsageError, match="scoped"):
        load_results(FileStoreConfig(root=tmp_path / "s", experiment_id="a"), "b")
    with pytest.raises(UsageError, match="names no store"):
        load_results(3)
    assert list((tmp_path / "empty").iterdir()) == []


class Requests:
    """Counts what a storage is asked."""

    def __init__(self, monkeypatch, kind):
        self.verbs = []
        for verb in ("read", "stat", "exists", "list", "open", "folders"):
            monkeypatch.setattr(kind, verb, self._counting(getattr(kind, verb), verb))

    def _counting(self, inner, verb):
        def count(*args, **more):
            self.verbs.append(verb)
            return inner(*args, **more)

        return count


def test_one_experiment_does_not_ask_for_the_others(tmp_path, monkeypatch):
    """An experiment is looked for in its own folder; damage elsewhere is nothing to it, nor to a hint."""
    config = FileStoreConfig(root=f"memory://{tmp_path.name}-alone")
    store = config.connect()
    for i in range(30):
        store.put_run_record(RunRecord.success("1", f"e{i}"))
    bad = f"{mltraq_ds.store.layout.folder_of('e7')}/generations/1.json"
    store.storage.put(bad, [b"{"], size=1, parents=True)
    requests = Requests(monkeypatch, type(store.storage))
    assert len(load_results(config, "e3")) == 1
    assert len(requests.verbs) < 15
    with pytest.raises(ExperimentNotFoundError, match="mean 'e3"):
        load_results(config, "e3x")


def test_one_run_of_several_experiments(config):
    """A run is found by its id alone where one experiment has it, and told to be ambiguous where several have."""
    store = config.connect()
    for experiment, run_id in (("a", "1"), ("a", "2"), ("b", "1")):
        store.put_run_record(RunRecord.success(run_id, experiment))
    results = load_results(config)
    assert results["2"].experiment_id == "a"
    with pytest.raises(mltraq_ds.errors.AmbiguousNameError, match="'a', 'b'"):
        results["1"]
    assert load_results(config, "b")["1"].experiment_id == "b"
    with pytest.raises(NotFoundError):
        results.filter("failed")["2"]
