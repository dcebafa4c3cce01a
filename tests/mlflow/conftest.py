"""A real MLflow: a SQLite tracking database for all tests, and a server on loopback for those that ask."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import chdir
from pathlib import Path

import pytest

from mltraq_ds import options
from mltraq_ds.tracking.default import default_session

HERE = Path(__file__).parent
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


def pytest_collection_modifyitems(items):
    """Let MLflow and its libraries warn about each other; what we warn of is an error as everywhere."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("error::mltraq_ds.errors.MltraqDSWarning"), append=False)
            item.add_marker(pytest.mark.filterwarnings("default"), append=False)


@pytest.fixture(scope="session")
def tracking(tmp_path_factory):
    """Return the tracking URI of an MLflow that is a SQLite database; making one takes seconds."""
    mlflow = pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    with chdir(folder):  # where the first experiment keeps its models for ever
        client = mlflow.MlflowClient(tracking_uri=uri)
        default = client.get_experiment_by_name("Default")
    client.rename_experiment(default.experiment_id, "made in the working folder")
    client.create_experiment("Default", artifact_location=(folder / "models").as_uri())
    return uri


@pytest.fixture
def home(tmp_path, monkeypatch, tracking):
    """Set the options of a store, a database and MLflow, and return their folder, which is the working folder too."""
    monkeypatch.chdir(tmp_path)
    options.set("database.url", f"sqlite:///{tmp_path}/index.db")
    options.set("datastore.url", str(tmp_path / "store"))
    options.set("datastore.durability", "relaxed")
    options.set("tqdm.disable", True)
    options.set("mlflow.tracking_uri", tracking)
    yield tmp_path
    default_session().close()


@pytest.fixture
def users(tmp_path_factory, monkeypatch):
    """Set process-wide URIs of a user's own MLflow, and return them; they are unset afterwards."""
    mlflow = pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("users")
    uris = f"sqlite:///{folder}/tracking.db", f"sqlite:///{folder}/registry.db"
    mlflow.set_tracking_uri(uris[0])
    mlflow.set_registry_uri(uris[1])
    yield uris
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.pop("MLFLOW_REGISTRY_URI", None)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory):
    """Start ``mlflow server`` on loopback and return its URI."""
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    places = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    log = (folder / "server.log").open("w")
    process = subprocess.Popen([*command, *places], cwd=folder, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait(uri, process, folder / "server.log")
        yield uri
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)
        log.close()


def _wait(uri, process, log):
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=5).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        else:
            return
    raise AssertionError(log.read_text())
