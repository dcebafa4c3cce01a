"""The MLflow backend: models kept by MLflow, by ``mlflow.<flavor>.log_model``.

MLflow's URIs are process-wide.  They are ours during a call, under a lock, and afterwards as they were; what MLflow
keeps for a thread (the active run) is met by a thread of our own where it belongs to another tracking server.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from mltraq_ds.artifacts.flavors import FLAVORS, flavor_of
from mltraq_ds.artifacts.mlflow_owner import TAG, is_tagged, living, tagged
from mltraq_ds.artifacts.mlflow_uris import absolute, check_answers, split_login, without_secrets
from mltraq_ds.errors import (
    ArtifactBackendError,
    CorruptRecordError,
    LeftoversWarning,
    MissingExtraError,
    PickleRefusedError,
    UsageError,
)
from mltraq_ds.objects import Objects
from mltraq_ds.settings import Settings
from mltraq_ds.store.keeping import Kept
from mltraq_ds.store.saving import Save
from mltraq_ds.store.versions import Version

__all__ = ["MLflowBackend"]

T = TypeVar("T")

_LOCK = threading.RLock()
_LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", *_LOGIN)
_MODEL_URI = re.compile(r"models:/(m-[0-9a-f]{32})|runs:/([0-9a-f]{32})/[\w][\w /-]*")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_EXPERIMENT = "Default"


class MLflowBackend:
    """Keeps models in MLflow; what the store keeps of them is where they are there."""

    def can_store(self, value: object) -> bool:
        # docstring inherited
        return flavor_of(value) is not None

    def save(self, value: object, saving: Save, settings: Settings, **arguments: Any) -> Kept:
        # docstring inherited
        flavor = flavor_of(value)
        tracking = settings["mlflow.tracking_uri"]
        if flavor is None or tracking is None:
            reason = "MLflow has no flavor for its type" if flavor is None else "'mlflow.tracking_uri' is not set"
            raise UsageError(
                f"The {saving.label} cannot be saved to MLflow because {reason}. Set that option, or use "
                "storage_backend='native'."
            )

        def log(mlflow: Any) -> dict[str, Any]:
            log_model = importlib.import_module(f"mlflow.{flavor}").log_model
            named = _model_name(saving.name, log_model, arguments)
            active, writer = mlflow.active_run(), saving.intent.writer
            if active is not None:
                info, run_id = tagged(mlflow, log_model(value, **named, **arguments), writer), active.info.run_id
            else:
                with _new_run(mlflow, saving.name, writer) as run_id:
                    info = tagged(mlflow, log_model(value, **named, **arguments), writer)
            number = getattr(info, "registered_model_version", None)
            return {
                "tracking_uri": without_secrets(absolute(tracking)),
                "flavor": flavor,
                "run_id": run_id,
                "is_own_run": active is None,
                "writer": writer,
                "model_uri": info.model_uri,
                "registered_model_name": arguments.get("registered_model_name"),
                "registered_model_version": None if number is None else str(number),
                "mlflow_version": mlflow.__version__,
            }

        metadata = _call(tracking, settings["mlflow.registry_uri"], f"save the {saving.label}", log)
        return Kept(metadata=metadata)

    def load(self, version: Version, objects: Objects, settings: Settings) -> Any:
        # docstring inherited
        flavor, model_uri = _checked(version)
        tracking = _tracking(version, settings)
        if tracking is None:
            tracking = str(version.metadata["tracking_uri"])
            if not objects.allow_pickle:
                raise PickleRefusedError(
                    f"The {version.label} is not loaded because it lies in the MLflow at {tracking!a:.200}, which is "
                    "not the one in option 'mlflow.tracking_uri': loading a model runs code that is kept there. If you "
                    "trust it, set that option, or use get_value(allow_pickle=True)."
                )

        def load(mlflow: Any) -> Any:
            return importlib.import_module(f"mlflow.{flavor}").load_model(model_uri)

        return _call(tracking, settings["mlflow.registry_uri"], f"load the {version.label}", load)

    def delete(self, version: Version, objects: Objects, settings: Settings) -> None:
        """Have MLflow delete the logged model and the run that was made for it; what it has registered stays.

        A registered model is published: it has aliases, permissions and users of its own.  A file could name anybody's
        models and runs, so only those with our tag are deleted.
        """
        _, model_uri = _checked(version)
        tracking = _tracking(version, settings)
        if tracking is None:
            raise ArtifactBackendError(
                f"MLflow still has the model of the {version.label}, because 'mlflow.tracking_uri' does not name "
                f"{version.metadata['tracking_uri']!a:.200}. Set the option."
            )
        known = version.metadata
        is_committed = version.number > 0  # a file has no other number
        name, number = known.get("registered_model_name"), known.get("registered_model_version")
        if name is not None and is_committed:
            _warn(version, f"stays registered in MLflow as {name!r}, version {number}")
            return
        if not known.get("is_own_run") and not model_uri.startswith("models:/"):
            _warn(version, f"stays in MLflow's run {known.get('run_id')}, which was not made for it")
            return

        def let_go(mlflow: Any) -> bool:
            client, run_id, model, run = mlflow.MlflowClient(), known["run_id"], None, None
            if model_uri.startswith("models:/"):
                model = living(mlflow, lambda: client.get_logged_model(model_uri[8:]))
            if known.get("is_own_run"):
                run = living(mlflow, lambda: client.get_run(run_id))
            is_ours = model is None or (is_tagged(model.tags, known) and model.source_run_id == run_id)
            if not is_ours or (run is not None and not is_tagged(run.data.tags, known)):
                return False
            if name is not None and number is not None:
                client.delete_model_version(name, number)
            if model is not None:
                client.delete_logged_model(model.model_id)
            if run is not None:
                client.delete_run(run_id)
            return True

        if not _call(tracking, settings["mlflow.registry_uri"], f"delete the model of the {version.label}", let_go):
            _warn(
                version, f"{model_uri} stays in MLflow (run {known['run_id']}) because it has no tag of this artifact"
            )

    def describe(self, version: Version, objects: Objects) -> Mapping[str, Any]:
        # docstring inherited
        known = {name: value for name, value in version.metadata.items() if name not in ("is_own_run", "writer")}
        return {"url": str(known.get("model_uri", "")), **known}


def _tracking(version: Version, settings: Settings) -> str | None:
    """Return the reader's tracking URI if the version lies there, else None: a file does not choose whom we ask."""
    ours: str | None = settings["mlflow.tracking_uri"]
    is_there = ours is not None and without_secrets(absolute(ours)) == version.metadata["tracking_uri"]
    return ours if is_there else None


def _checked(version: Version) -> tuple[str, str]:
    """Return flavor and model URI; a file could name any place, so they must be of MLflow's own forms."""
    known = version.metadata
    flavor, model_uri, run_id = known.get("flavor"), known.get("model_uri"), known.get("run_id")
    texts = all(isinstance(text, str) for text in (flavor, model_uri, run_id, known.get("tracking_uri")))
    if (
        not texts
        or flavor not in FLAVORS
        or not _MODEL_URI.fullmatch(str(model_uri))
        or not _RUN_ID.fullmatch(str(run_id))
    ):
        raise CorruptRecordError(
            f"The {version.label} cannot be read because what it notes of MLflow is not of its form (flavor "
            f"{flavor!a:.80}, model {model_uri!a:.80}). Restore {version.key} from a copy."
        )
    return str(flavor), str(model_uri)


def _warn(version: Version, what: str) -> None:
    warnings.warn(
        f"The {version.label} is deleted here and {what}. Delete it there too if nobody uses it.",
        LeftoversWarning,
        stacklevel=7,
    )


def _model_name(name: str, log_model: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return how the model is called inside of MLflow, unless the user says so."""
    if "artifact_path" in arguments:
        return {}
    word = re.sub(r"[^A-Za-z0-9_ -]", "_", name).strip(" -")[:100]
    takes_name = "name" in inspect.signature(log_model).parameters  # MLflow 3
    return {"name" if takes_name else "artifact_path": word or "model"}


@contextmanager
def _new_run(mlflow: Any, name: str, writer: str) -> Iterator[str]:
    """Make a run for one model; it goes if the model cannot be logged."""
    tags = {"mltraq_ds.artifact": name, TAG: writer}
    with mlflow.start_run(experiment_id=_experiment_id(mlflow), tags=tags) as run:
        run_id: str = run.info.run_id
        try:
            yield run_id
        except BaseException:
            mlflow.end_run("FAILED")
            mlflow.MlflowClient().delete_run(run_id)
            raise


_at_home = threading.local()


def _experiment_id(mlflow: Any) -> str | None:
    """Return where a run goes: where the user has chosen in this MLflow, else to MLflow's default."""
    if getattr(_at_home, "is_users", False):
        return None
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(_EXPERIMENT)
    return str(found.experiment_id if found is not None else client.create_experiment(_EXPERIMENT))


def _call(tracking: str, registry: str | None, what: str, work: Callable[[Any], T]) -> T:
    """Call MLflow with URIs of ours; afterwards the process-wide ones are as they were."""
    mlflow = _import()
    check_answers(tracking)
    with _LOCK:
        is_users = absolute(mlflow.get_tracking_uri()) == absolute(tracking)
        with _uris(mlflow, absolute(tracking), registry, is_users=is_users):
            try:
                if is_users:
                    _at_home.is_users = True
                    return work(mlflow)
                with ThreadPoolExecutor(1) as own:  # the active run of this thread belongs to another MLflow
                    return own.submit(work, mlflow).result()
            except (mlflow.exceptions.MlflowException, OSError) as error:
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
