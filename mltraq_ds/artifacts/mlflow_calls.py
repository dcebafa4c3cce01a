"""Calling MLflow: its URIs are ours during a call, and afterwards as they were.

They are process-wide, so that a lock is held; what MLflow keeps for a thread (the active run) is met by a thread of our
own where it belongs to another tracking server.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from mltraq_ds.artifacts.mlflow_owner import NAME_TAG, TAG
from mltraq_ds.artifacts.mlflow_uris import absolute, check_answers, split_login, without_secrets
from mltraq_ds.errors import ArtifactBackendError, MissingExtraError
from mltraq_ds.orm.failures import DATABASE_ERRORS

__all__ = ["call", "new_run"]

T = TypeVar("T")

_LOCK = threading.RLock()
_LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", *_LOGIN)
_EXPERIMENT = "Default"

_at_home = threading.local()


def call(tracking: str, registry: str | None, what: str, work: Callable[[Any], T]) -> T:
    """Call MLflow with URIs of ours; afterwards the process-wide ones are as they were.

    Parameters
    ----------
    tracking, registry : str
        URIs, from the reader's options; a registry of None is that of the tracking URI.
    what : str
        What is done, for messages: ``could not …``.
    work : callable
        Given the module of MLflow.

    Raises
    ------
    MissingExtraError
        If MLflow, or the driver of its database, is not installed.
    ArtifactBackendError
        If MLflow does not answer, or says no.
    """
    mlflow = _import()
    # Before the lock is held: MLflow itself would go on asking a dead one for minutes.
    check_answers(tracking, "mlflow.tracking_uri")
    if registry is not None and absolute(registry) != absolute(tracking):
        check_answers(registry, "mlflow.registry_uri")
    with _LOCK:
        is_users = absolute(mlflow.get_tracking_uri()) == absolute(tracking)
        with _uris(mlflow, absolute(tracking), registry, is_users=is_users):
            try:
                if is_users:
                    _at_home.is_users = True
                    return work(mlflow)
                with ThreadPoolExecutor(1) as own:  # the active run of this thread belongs to another MLflow
                    return own.submit(work, mlflow).result()
            except (mlflow.exceptions.MlflowException, OSError, *DATABASE_ERRORS) as error:
                raise _failure(error, tracking, what) from None  # its traceback may show the URI
            finally:
                _at_home.is_users = False


def _failure(error: Exception, tracking: str, what: str) -> ArtifactBackendError:
    text = without_secrets(str(error))
    return ArtifactBackendError(
        f"MLflow at {without_secrets(tracking)} could not {what}: {type(error).__name__}: {text:.2000}"
    )


def _import() -> Any:
    try:
        return importlib.import_module("mlflow")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "The storage backend 'mlflow' needs MLflow, which is not installed. Use pip install 'mltraq-ds[mlflow]'."
        ) from error


@contextmanager
def new_run(mlflow: Any, name: str, writer: str) -> Iterator[str]:
    """Make a run for one model, tagged from its begin, so that it is found if this process is killed."""
    with mlflow.start_run(experiment_id=_experiment_id(mlflow), tags={NAME_TAG: name, TAG: writer}) as run:
        yield run.info.run_id


def _experiment_id(mlflow: Any) -> str | None:
    """Return where a run goes: where the user has chosen in this MLflow, else to MLflow's default."""
    if getattr(_at_home, "is_users", False):
        return None
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(_EXPERIMENT)
    return str(found.experiment_id if found is not None else client.create_experiment(_EXPERIMENT))


@contextmanager
def _uris(mlflow: Any, tracking: str, registry: str | None, *, is_users: bool) -> Iterator[None]:
    """Set MLflow's URIs, in its modules and in the environment (which it writes them to), and set them back."""
    tracking_state = importlib.import_module("mlflow.tracking._tracking_service.utils")
    registry_state = importlib.import_module("mlflow.tracking._model_registry.utils")
    before = tracking_state._tracking_uri, registry_state._registry_uri
    environment = {name: os.environ.get(name) for name in _VARIABLES}
    try:
        os.environ.pop("MLFLOW_RUN_ID", None)  # else that run would be taken up, and ended
        if not is_users:
            # MLflow prints the URI of a run, so the password goes the other way that there is.
            plain, login = split_login(tracking)
            os.environ.update(zip(_LOGIN, login, strict=False))
            mlflow.set_tracking_uri(plain)
        if registry is not None or not is_users:
            mlflow.set_registry_uri(absolute(registry) if registry is not None else "")  # "": that of the tracking URI
        yield
    finally:
        if tracking_state._tracking_uri != before[0]:
            mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
