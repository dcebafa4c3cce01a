"""The command line in this process and in others, on a store of its own in an empty working folder."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mltraq_ds import DataStore, create_session
from mltraq_ds.cli.app import app

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Children find the library also where it is not installed.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def command():
    """Return a function that runs a command in this process; stdout and stderr are told apart."""
    return lambda *args, **more: CliRunner().invoke(app, list(args), prog_name="mltraq-ds", **more)


@pytest.fixture
def process():
    """Return a function that runs a command in a process of its own, in which warnings are errors."""

    def run(*args, **environment):
        command = [sys.executable, "-W", "error", "-m", "mltraq_ds.cli", *args]
        return subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, encoding="utf-8", check=False
        )

    return run


@pytest.fixture
def session():
    """Return a session on the store that commands find in the working folder."""
    return create_session()


@pytest.fixture
def experiment(session):
    """Return a persisted experiment with two runs and a field of its own."""
    experiment = session.create_experiment("digits", note="first", ds=DataStore(mean=np.zeros((8, 8))))
    for lr in (0.1, 0.01):
        with experiment.run() as run:
            run.params.lr = lr
            run.fields.accuracy = np.float32(0.97)
            run.fields.ds = DataStore(weights=np.full((64, 10), lr), words=["a", "b"], nothing=None)
    with experiment.run() as run:
        run.fields.loss = float("nan")
    return experiment.persist()


@pytest.fixture(scope="session")
def root():
    """Return the folder of the repository."""
    return ROOT


@pytest.fixture
def unused_port():
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
