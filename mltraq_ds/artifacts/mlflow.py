"""The MLflow backend: models kept by MLflow, by ``mlflow.<flavor>.log_model``."""

from __future__ import annotations

import importlib
import inspect
import re
import uuid
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from mltraq_ds.artifacts.flavors import FLAVORS, flavor_of
from mltraq_ds.artifacts.mlflow_calls import call, new_run
from mltraq_ds.artifacts.mlflow_owner import NAME_TAG, TAG, is_tagged, living, tagged, taken_back
from mltraq_ds.artifacts.mlflow_uris import absolute, without_secrets
from mltraq_ds.errors import (
    ArtifactBackendError,
    CorruptRecordError,
    LeftoversWarning,
    PickleRefusedError,
    UsageError,
)
from mltraq_ds.objects import Objects
from mltraq_ds.settings import Settings
from mltraq_ds.store.keeping import Kept
from mltraq_ds.store.saving import Save
from mltraq_ds.store.versions import Version

__all__ = ["MLflowBackend"]

# A part of a path is anything that stays in its place; "%" and "?" mean something to whoever reads a URI.
_PART = r"(?!\.{1,2}(?:/|$))[^/\\%?#:\x00-\x1f\x7f]+"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_MODEL_URI = re.compile(rf"models:/m-[0-9a-f]{{32}}|runs:/[0-9a-f]{{32}}/{_PATH.pattern}")
_RUN_ID = re.compile(r"[0-9a-f]{32}")


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

        _check_path(saving, arguments)

        def log(mlflow: Any) -> dict[str, Any]:
            saving.has_leftovers = True  # until it is known that nothing is left
            try:
                return _logged(mlflow, value, flavor, saving, absolute(tracking), arguments)
            except BaseException as error:
                try:
                    taken_back(mlflow, saving.name, saving.intent.writer, is_late=False)
                    saving.has_leftovers = False
                except Exception as failure:  # noqa: BLE001 - another error is on its way
                    said = without_secrets(str(failure))
                    error.add_note(
                        f"MLflow may keep the model ({said:.500}); the next save to it, or sweep(), has it removed."
                    )
                raise

        metadata = call(tracking, settings["mlflow.registry_uri"], f"save the {saving.label}", log)
        saving.has_leftovers = False
        return Kept(metadata=metadata)

    def place(self, settings: Settings) -> str:
        # docstring inherited
        tracking = settings["mlflow.tracking_uri"]
        return "" if tracking is None else without_secrets(absolute(tracking))

    def take_back(self, name: str, writer: str, place: str, settings: Settings) -> None:
        """Have MLflow delete what was logged for a save that was killed; what it has registered stays.

        Others may have begun to use that meanwhile.
        """
        if self.place(settings) != place or not place:
            raise UsageError(
                f"MLflow may still have a model of artifact {name!a:.200}, because 'mlflow.tracking_uri' does not name "
                f"{place!a:.200}. Set the option."
            )
        writer = str(uuid.UUID(writer))
        registered = call(
            settings["mlflow.tracking_uri"],
            settings["mlflow.registry_uri"],
            f"take back a model of artifact {name!a:.200}",
            lambda mlflow: taken_back(mlflow, name, writer, is_late=True),
        )
        for model, number in registered:
            warnings.warn(
                f"A save of artifact {name!a:.200} was killed, and its model stays registered in MLflow as {model!r}, "
                f"version {number}. Delete it there if nobody uses it.",
                LeftoversWarning,
                stacklevel=9,
            )

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

        return call(tracking, settings["mlflow.registry_uri"], f"load the {version.label}", load)

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

        if not call(tracking, settings["mlflow.registry_uri"], f"delete the model of the {version.label}", let_go):
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


def _check_path(saving: Save, arguments: Mapping[str, Any]) -> None:
    path = arguments.get("artifact_path")
    if isinstance(path, str) and not _PATH.fullmatch(path):
        raise UsageError(
            f"The {saving.label} cannot be saved with artifact_path={path!a:.200} because it could not be read back "
            "from there. Use a relative path without '..', '%', '?', '#', ':' and '\\\\'."
        )


def _logged(
    mlflow: Any, value: object, flavor: str, saving: Save, tracking: str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Log a model in the active run, or in one of its own, and return what is noted of it."""
    log_model = importlib.import_module(f"mlflow.{flavor}").log_model
    writer = saving.intent.writer
    named = {**_model_name(saving.name, log_model, arguments), **arguments}
    if "tags" in inspect.signature(log_model).parameters:  # MLflow 3: from its begin, in case that we are killed
        named["tags"] = {**(arguments.get("tags") or {}), NAME_TAG: saving.name, TAG: writer}
    active = mlflow.active_run()
    if active is not None:
        info, run_id = tagged(mlflow, log_model(value, **named), saving.name, writer), active.info.run_id
    else:
        with new_run(mlflow, saving.name, writer) as run_id:
            info = tagged(mlflow, log_model(value, **named), saving.name, writer)
    number = getattr(info, "registered_model_version", None)
    return {
        "tracking_uri": without_secrets(tracking),
        "flavor": flavor,
        "run_id": run_id,
        "is_own_run": active is None,
        "writer": writer,
        "model_uri": info.model_uri,
        "registered_model_name": arguments.get("registered_model_name"),
        "registered_model_version": None if number is None else str(number),
        "mlflow_version": mlflow.__version__,
    }


def _model_name(name: str, log_model: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return how the model is called inside of MLflow, unless the user says so."""
    if "artifact_path" in arguments:
        return {}
    word = re.sub(r"[^A-Za-z0-9_ -]", "_", name).strip(" -")[:100]
    takes_name = "name" in inspect.signature(log_model).parameters  # MLflow 3
    return {"name" if takes_name else "artifact_path": word or "model"}
