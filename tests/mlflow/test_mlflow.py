"""Models kept by a real MLflow: which backend keeps what, and that both libraries give the same model."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

mlflow = pytest.importorskip("mlflow")
linear_model = pytest.importorskip("sklearn.linear_model")

from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from mltraq_ds import (  # noqa: E402
    Pickled,
    artifact_store,
    create_session,
    delete,
    get,
    options,
    save,
)
from mltraq_ds.artifacts import mlflow as backend  # noqa: E402
from mltraq_ds.artifacts import registry  # noqa: E402
from mltraq_ds.errors import (  # noqa: E402
    ArtifactBackendError,
    CorruptRecordError,
    LeftoversWarning,
    MissingExtraError,
    PickleRefusedError,
    UnsupportedTypeError,
    UsageError,
)
from mltraq_ds.storage import LocalStorage  # noqa: E402
from mltraq_ds.store import versions  # noqa: E402
from mltraq_ds.store.saving import Save  # noqa: E402
from mltraq_ds.tracking.default import default_session  # noqa: E402

#: Given to log_model, which otherwise tries out for ten seconds what a model needs.
QUICK = {"pip_requirements": ["scikit-learn"]}
X = np.arange(40.0).reshape(20, 2)
Y = (X[:, 0] > 17).astype(int)


class Mine(linear_model.LogisticRegression):
    """A model of a class of one's own."""


def model(kind=linear_model.LogisticRegression):
    return kind().fit(X, Y)


def same(found, expected):
    assert type(found).__name__ == type(expected).__name__
    assert np.array_equal(found.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize(
    ("default", "argument", "expected"),
    [
        (None, None, "mlflow"),
        (None, "mlflow", "mlflow"),
        (None, "native", "native"),
        ("mlflow", None, "mlflow"),
        ("mlflow", "mlflow", "mlflow"),
        ("mlflow", "native", "native"),
        ("native", None, "native"),
        ("native", "mlflow", "mlflow"),
        ("native", "native", "native"),
    ],
)
def test_who_keeps_a_model(home, default, argument, expected):
    """The nine combinations of default and argument, with a model that both can keep."""
    if default is not None:
        options.set("artifacts.default_ml_models_storage_backend", default)
    value = model()
    if expected == "native":  # where the writer opts in to pickle
        with pytest.raises(UnsupportedTypeError, match="no codec takes it"):
            save(value, "model", storage_backend=argument)
        value = Pickled(value)
    artifact = save(value, "model", storage_backend=argument, **({} if expected == "native" else QUICK))
    assert artifact.storage_backend == expected
    found = get("model")
    assert found.storage_backend == expected
    same(found.get_value(allow_pickle=True if expected == "native" else None), model())


def test_both_libraries_give_the_same_model(home, tracking):
    """What was saved and registered comes back from both, with equal predictions; the metadata says where it is."""
    original = model()
    artifact = save(original, "model", registered_model_name="both", **QUICK)
    known = artifact.get_metadata()
    assert known["tracking_uri"] == tracking
    assert known["flavor"] == "sklearn"
    assert re.fullmatch("[0-9a-f]{32}", known["run_id"])
    assert artifact.url == known["model_uri"]
    assert (known["registered_model_name"], known["registered_model_version"]) == ("both", "1")
    same(get("model").get_value(), original)
    client = mlflow.MlflowClient(tracking_uri=tracking)
    assert [one.version for one in client.search_model_versions("name='both'")] in (["1"], [1])
    run = client.get_run(known["run_id"])
    assert (run.info.status, run.data.tags["mltraq_ds.artifact"]) == ("FINISHED", "model")
    mlflow.set_tracking_uri(tracking)
    try:
        same(mlflow.sklearn.load_model("models:/both/1"), original)
        same(mlflow.sklearn.load_model(known["model_uri"]), original)
    finally:
        mlflow.set_tracking_uri(None)
    assert list((home / "store" / "artifacts" / "model").glob("?" * 32)) == []  # no second copy


def test_versions_count_up(home):
    """Each save is a version of ours and a model of MLflow's; each comes back."""
    for strength in (0.1, 10.0):
        save(linear_model.LogisticRegression(C=strength).fit(X, Y), "model", **QUICK)
    assert [get("model", number).get_value().C for number in (1, 2)] == [0.1, 10.0]
    assert [one.storage_backend for one in artifact_store()] == ["mlflow", "mlflow"]
    table = default_session().query("SELECT details ->> '$.flavor' AS flavor FROM mltraq_artifacts")
    assert table.flavor.tolist() == ["sklearn", "sklearn"]


@pytest.mark.parametrize("kind", ["subclass", "pipeline"])
def test_other_kinds_of_sklearn(home, kind):
    """A subclass of one's own and a pipeline are models; all arguments of log_model are passed on."""
    value = model(Mine) if kind == "subclass" else make_pipeline(StandardScaler(), model()).fit(X, Y)
    artifact = save(value, "model", serialization_format="cloudpickle", metadata={"team": "x"}, **QUICK)
    assert artifact.get_metadata()["flavor"] == "sklearn"
    same(get("model").get_value(), value)


def test_statsmodels(home):
    """The results of statsmodels come back with equal predictions and parameters."""
    sm = pytest.importorskip("statsmodels.api")
    fitted = sm.OLS(Y, sm.add_constant(X[:, :1])).fit()
    artifact = save(fitted, "ols", **QUICK)
    assert artifact.get_metadata()["flavor"] == "statsmodels"
    found = get("ols").get_value()
    assert np.array_equal(found.params, fitted.params)
    assert np.array_equal(found.predict(), fitted.predict())


def test_what_mlflow_does_not_take(home):
    """Other values go to the store if MLflow is only the default; asked for by name it is an error."""
    assert save({"accuracy": 0.9}, "metrics").storage_backend == "native"
    assert save(X, "data").storage_backend == "native"
    with pytest.raises(UsageError, match=r"'mlflow' does not take a value of type numpy.ndarray"):
        save(X, "data", storage_backend="mlflow")
    with pytest.raises(UsageError, match="does not take"):
        save(X, "data", registered_model_name="clf")
    options.reset("mlflow.tracking_uri")
    with pytest.raises(UsageError, match="'mlflow.tracking_uri' is not set"):
        save(model(), "model", storage_backend="mlflow")
    options.set("artifacts.default_ml_models_storage_backend", "mlflow")
    with pytest.raises(UsageError, match="'mlflow.tracking_uri' is not set"):
        save(model(), "model")
    assert [one.name for one in artifact_store()] == ["data", "metrics"]


def test_the_registry_is_that_of_the_option(home, tracking):
    """With ``mlflow.registry_uri`` a model is registered there and not with the runs."""
    options.set("mlflow.registry_uri", f"sqlite:///{home}/registry.db")
    save(model(), "model", registered_model_name="apart", **QUICK)
    there = mlflow.MlflowClient(tracking, f"sqlite:///{home}/registry.db").search_model_versions("name='apart'")
    assert [str(one.version) for one in there] == ["1"]
    assert list(mlflow.MlflowClient(tracking, tracking).search_model_versions("name='apart'")) == []
    same(get("model").get_value(), model())


def _process_wide():
    state = mlflow.get_tracking_uri(), mlflow.get_registry_uri(), mlflow.is_tracking_uri_set()
    return state, {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}


@pytest.mark.parametrize("has_users", [True, False])
def test_process_wide_uris_are_as_before(home, request, has_users, monkeypatch):
    """Whatever is called, and however it ends, MLflow's URIs and its variables are those that the user had set."""
    if has_users:
        request.getfixturevalue("users")
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    options.set("mlflow.registry_uri", f"sqlite:///{home}/registry.db")
    before = _process_wide()
    save(model(), "model", **QUICK)
    assert _process_wide() == before
    get("model").get_value()
    assert _process_wide() == before
    with pytest.raises(TypeError):
        save(model(), "model", no_such_argument=1, signature=1, **QUICK)
    with pytest.raises(ArtifactBackendError, match="could not save the artifact 'model'"):
        save(model(), "model", serialization_format="no such format", **QUICK)
    assert _process_wide() == before
    client = mlflow.MlflowClient(tracking_uri=options.get("mlflow.tracking_uri"))
    client.delete_run(get("model").get_metadata()["run_id"])
    delete("model", "latest")
    assert _process_wide() == before


def test_a_run_of_another_mlflow_is_left_alone(home, users):
    """While a run is active in the user's own MLflow, ours gets a run of its own, and theirs goes on."""
    with mlflow.start_run() as run:
        artifact = save(model(), "model", **QUICK)
        assert mlflow.active_run().info.run_id == run.info.run_id != artifact.get_metadata()["run_id"]
        same(get("model").get_value(), model())
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"


def test_an_active_run_takes_the_model(home, tracking):
    """A run that is active in the same MLflow takes the model, goes on, and stays when the artifact is deleted."""
    mlflow.set_tracking_uri(tracking)
    try:
        with mlflow.start_run() as run:
            artifact = save(model(), "model", **QUICK)
            assert artifact.get_metadata()["run_id"] == run.info.run_id
            assert mlflow.active_run() is not None
        in_run = artifact.url.startswith("runs:")
        with pytest.warns(LeftoversWarning, match="which was not made for it") if in_run else _nothing():
            delete("model", 1)
        assert mlflow.get_run(run.info.run_id).info.lifecycle_stage == "active"
    finally:
        mlflow.set_tracking_uri(None)


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_delete(home, tracking):
    """What was logged goes with the artifact; what is registered stays, and a warning says so."""
    client = mlflow.MlflowClient(tracking_uri=tracking)
    logged = save(model(), "logged", **QUICK).get_metadata()
    delete("logged", 1)
    assert client.get_run(logged["run_id"]).info.lifecycle_stage == "deleted"
    registered = save(model(), "registered", registered_model_name="stays", **QUICK).get_metadata()
    with pytest.warns(LeftoversWarning, match=r"deleted here and stays registered in MLflow as 'stays', version 1"):
        delete("registered", "latest")
    assert client.get_run(registered["run_id"]).info.lifecycle_stage == "active"
    assert len(artifact_store()) == 0
    assert save(model(), "registered", **QUICK).version == 2


@pytest.mark.parametrize("is_own_run", [True, False])
def test_a_file_does_not_choose_what_mlflow_deletes(home, tracking, is_own_run):
    """A version that names somebody else's model and run is deleted here; theirs stay, and a warning says so."""
    client = mlflow.MlflowClient(tracking_uri=tracking)
    theirs = save(model(), "theirs", **QUICK)._version.metadata
    version = save(model(), "mine", **QUICK)._version
    named = {name: theirs[name] for name in ("run_id", "model_uri")} | {"is_own_run": is_own_run}
    changed = registry.Version(**{**_fields(version), "writer": "", "metadata": {**version.metadata, **named}})
    versions.bury(LocalStorage(home / "store"), changed)
    with pytest.warns(LeftoversWarning, match=r"stays in MLflow"):
        delete("mine", 1)
    assert client.get_run(theirs["run_id"]).info.lifecycle_stage == "active"
    same(get("theirs").get_value(), model())


def test_delete_goes_on_when_mlflow_answers_again(home, tracking):
    """If MLflow cannot be asked the artifact is deleted, a warning says what is left, and delete() goes on later."""
    known = save(model(), "model", **QUICK).get_metadata()
    options.set("mlflow.tracking_uri", "http://127.0.0.1:9")
    with pytest.warns(LeftoversWarning, match=r"is deleted, but not all of it is removed.*does not name"):
        delete("model", 1)
    options.set("mlflow.tracking_uri", tracking)
    client = mlflow.MlflowClient(tracking_uri=tracking)
    assert client.get_run(known["run_id"]).info.lifecycle_stage == "active"
    delete("model", 1)
    assert client.get_run(known["run_id"]).info.lifecycle_stage == "deleted"


def test_a_model_that_cannot_be_committed_is_taken_back(home, tracking, monkeypatch):
    """If the store fails after MLflow has the model, run and registered version go again."""

    def fail(self, kept):
        raise OSError("no space")

    monkeypatch.setattr(Save, "_commit", fail)
    with pytest.raises(OSError, match="no space"):
        save(model(), "model", registered_model_name="taken back", **QUICK)
    client = mlflow.MlflowClient(tracking_uri=tracking)
    assert list(client.search_model_versions("name='taken back'")) == []
    experiments = [one.experiment_id for one in client.search_experiments()]
    assert (
        client.search_runs(experiments, "tags.`mltraq_ds.artifact` = 'model' AND attributes.status = 'RUNNING'") == []
    )
    assert default_session().check().kinds() == {}


def left_of(tracking, name):
    """Return what MLflow has of an artifact: runs that are not deleted, logged models, registered versions."""
    client = mlflow.MlflowClient(tracking_uri=tracking)
    where = [one.experiment_id for one in client.search_experiments()]
    mine = f"tags.`mltraq_ds.artifact` = '{name}'"
    models = client.search_logged_models(where, mine) if hasattr(client, "search_logged_models") else []
    return (
        len(client.search_runs(where, mine)),
        len(models),
        len(list(client.search_model_versions(f"name='{name}'"))),
    )


@pytest.mark.parametrize("error", [RuntimeError("struck"), KeyboardInterrupt("struck")], ids=["raises", "interrupted"])
@pytest.mark.parametrize("in_users_run", [False, True])
def test_a_model_that_cannot_be_tagged_is_taken_back(home, tracking, monkeypatch, error, in_users_run):
    """If anything fails after MLflow has logged and registered the model, all of it goes again."""
    name = f"tag fails {type(error).__name__} {in_users_run}"

    def fail(*_):
        raise error

    monkeypatch.setattr(backend, "tagged", fail)
    if in_users_run and mlflow.__version__ < "3":
        pytest.skip("MLflow 2 keeps the model in the user's run, where nothing says whose it is")
    mlflow.set_tracking_uri(tracking if in_users_run else None)
    try:
        with mlflow.start_run() if in_users_run else _nothing() as run, pytest.raises(type(error), match="struck"):
            save(model(), name, registered_model_name=name, **QUICK)
        if in_users_run:
            assert mlflow.get_run(run.info.run_id).info.lifecycle_stage == "active"
    finally:
        mlflow.set_tracking_uri(None)
    assert left_of(tracking, name) == (0, 0, 0)
    assert len(default_session().check()) == 0


def test_what_cannot_be_taken_back_at_once(home, tracking, monkeypatch):
    """If cleaning up fails too, or a call is interrupted whose outcome is not known, the next sweep goes on."""

    def fail(*_, **__):
        raise RuntimeError("struck")

    with monkeypatch.context() as patch:
        patch.setattr(backend, "tagged", fail)
        patch.setattr(backend, "taken_back", fail)
        with pytest.raises(RuntimeError, match="struck") as caught:
            save(model(), "not taken back", **QUICK)
        assert "the next save to it, or sweep(), has it removed" in "".join(caught.value.__notes__)
    real = backend.call

    def interrupted(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backend, "call", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save(model(), "interrupted", **QUICK)
    assert default_session().check().kinds() == {"dead intent": 2}
    assert left_of(tracking, "not taken back")[0] == left_of(tracking, "interrupted")[0] == 1
    with create_session() as session:
        session.sweep()
        assert len(session.check()) == 0
    assert left_of(tracking, "not taken back") == left_of(tracking, "interrupted") == (0, 0, 0)


#: Saves a model and is killed at a step.
KILLED = """
import os, sys
import mlflow.sklearn
import numpy as np
from sklearn.linear_model import LogisticRegression
from mltraq_ds import save
from mltraq_ds.artifacts import mlflow as backend

at, name = sys.argv[1:]
die = lambda *_, **__: os._exit(9)
if at == "logging":
    mlflow.sklearn.save_model = die
else:
    backend.tagged = die
more = {"registered_model_name": name} if at == "registered" else {}
X = np.arange(40.0).reshape(20, 2)
save(LogisticRegression().fit(X, X[:, 0] > 17), name, pip_requirements=["scikit-learn"], **more)
"""


@pytest.mark.parametrize("at", ["logging", "logged", "registered"])
def test_killed_while_mlflow_logs(home, tracking, at):
    """What a killed process leaves in MLflow is found by check and deleted by the next sweep, unless registered."""
    name = f"killed {at}"
    environment = {f"MLTRAQ_DS_{key.upper().replace('.', '_')}": str(options.get(key)) for key in GIVEN}
    command = [sys.executable, "-c", KILLED, at, name]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=200)
    assert done.returncode == 9, done.stderr
    assert left_of(tracking, name)[0] == 1
    session = create_session()
    (found,) = session.check()
    assert (found.kind, tracking in found.detail) == ("dead intent", True)
    options.set("mlflow.tracking_uri", f"sqlite:///{home}/mine.db")
    session.sweep()  # it was not logged there: others may go on
    options.set("mlflow.tracking_uri", tracking)
    session = create_session()
    with pytest.warns(LeftoversWarning, match="stays registered in MLflow as") if at == "registered" else _nothing():
        session.sweep()
    left = left_of(tracking, name)
    assert left == (0, 0, 0) if at != "registered" else (left[0], left[2]) == (1, 1)
    assert session.check().kinds() == {}
    session.close()


GIVEN = ("database.url", "datastore.url", "mlflow.tracking_uri")


def test_a_dead_mlflow_is_found_out_at_once(home, monkeypatch):
    """A database or a registry that does not answer is one sentence with the option, before anything is logged."""
    options.set("mlflow.registry_uri", "http://127.0.0.1:9")
    with pytest.raises(
        ArtifactBackendError, match=r"MLflow at http://127.0.0.1:9 does not answer.*mlflow.registry_uri"
    ):
        save(model(), "model", **QUICK)
    options.reset("mlflow.registry_uri")
    for uri, kind in (
        ("postgresql+pg8000://h/x", MissingExtraError),
        ("sqlite:////no/such/x.db", ArtifactBackendError),
    ):
        options.set("mlflow.tracking_uri", uri)
        with pytest.raises(kind, match=r"option 'mlflow.tracking_uri'"):
            save(model(), "model", **QUICK)
    assert default_session().check().kinds() == {}


def test_a_path_that_could_not_be_read_back(home):
    """A path that leaves the run is refused before MLflow is asked; what MLflow takes can be read."""
    with pytest.raises(UsageError, match="could not be read back"):
        save(model(), "model", artifact_path="../x", **QUICK)
    path = "model.v1+x" if mlflow.__version__ < "3" else "model+x"  # MLflow 3 takes no points
    save(model(), "model", artifact_path=path, **QUICK)
    same(get("model").get_value(), model())


def test_a_file_does_not_choose_whom_we_ask(home, tracking):
    """A version that lies in another MLflow than the reader's is refused; the reader may say that it is trusted."""
    save(model(), "model", **QUICK)
    options.set("mlflow.tracking_uri", f"sqlite:///{home}/mine.db")
    with pytest.raises(PickleRefusedError, match="not the one in option 'mlflow.tracking_uri'"):
        get("model").get_value()
    options.reset("mlflow.tracking_uri")
    with pytest.raises(PickleRefusedError, match=r"allow_pickle=True"):
        get("model").get_value()
    same(get("model").get_value(allow_pickle=True), model())


@pytest.mark.parametrize(
    "change",
    [
        {"model_uri": "/etc/passwd"},
        {"model_uri": "file:///tmp/x"},
        {"model_uri": "models:/clf/1"},
        {"model_uri": f"runs:/{'0' * 32}/../../x"},
        {"model_uri": 1},
        {"flavor": "os"},
        {"flavor": "pyfunc"},
        {"run_id": "../x"},
        {"tracking_uri": None},
    ],
)
def test_hostile_versions(home, change):
    """What a version notes of MLflow must be of MLflow's own forms; nothing else is loaded, or deleted."""
    artifact = save(model(), "model", **QUICK)
    version = artifact._version
    store = LocalStorage(home / "store")
    versions.bury(store, registry.Version(**{**_fields(version), "metadata": {**version.metadata, **change}}))
    with pytest.raises(CorruptRecordError, match="is not of its form"):
        get("model").get_value(allow_pickle=True)


def _fields(version):
    return {name: getattr(version, name) for name in version.__slots__}


def test_secrets_stay_out(home, monkeypatch):
    """A password in a URI is not written down, shown, or told in an error."""
    options.set("mlflow.tracking_uri", "http://ada:canary-secret@127.0.0.1:9/x")
    with pytest.raises(ArtifactBackendError, match=r"MLflow at http://127.0.0.1:9/x does not answer") as caught:
        save(model(), "model", **QUICK)
    import traceback

    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert _grep(home, b"canary") == []


def _grep(folder, text):
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


@pytest.mark.server
def test_a_real_server(home, mlflow_server, capfd):
    """With ``mlflow server`` on loopback and a password in its URI: saved, loaded, deleted; the password is nowhere."""
    options.set("mlflow.tracking_uri", mlflow_server.replace("://", "://ada:canary-secret@") + "/")
    artifact = save(model(), "served", registered_model_name="served", **QUICK)
    assert artifact.get_metadata()["tracking_uri"] == mlflow_server
    same(get("served").get_value(), model())
    client = mlflow.MlflowClient(tracking_uri=mlflow_server)
    assert [str(one.version) for one in client.search_model_versions("name='served'")] == ["1"]
    logged = save(model(), "logged", **QUICK).get_metadata()
    delete("logged", "all")
    assert client.get_run(logged["run_id"]).info.lifecycle_stage == "deleted"
    default_session().close()
    assert _grep(home, b"canary-secret") == []
    assert "canary-secret" not in "".join(capfd.readouterr())
    with closing(sqlite3.connect(home / "index.db")) as connection, connection:
        details = connection.execute("SELECT details FROM mltraq_artifacts WHERE name = 'served'").fetchone()[0]
    assert mlflow_server in details
