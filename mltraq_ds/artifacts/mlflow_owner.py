"""Whose a run or a logged model of MLflow is: told by a tag, since a file could name anybody's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["TAG", "is_tagged", "living", "tagged"]

#: Tag of the runs and logged models that we have made: the random id of whoever saved the version.
TAG = "mltraq_ds.writer"


def tagged(mlflow: Any, info: Any, writer: str) -> Any:
    """Note on a logged model whose it is, and return `info`; a model of MLflow 2 is part of its run."""
    if info.model_uri.startswith("models:/"):
        mlflow.MlflowClient().set_logged_model_tags(info.model_uri[8:], {TAG: writer})
    return info


def is_tagged(tags: Mapping[str, str], known: Mapping[str, Any]) -> bool:
    """Tell whether what has these tags was made for the version that notes `known`."""
    return bool(known.get("writer")) and tags.get(TAG) == known["writer"]


def living(mlflow: Any, ask: Callable[[], Any]) -> Any:
    """Return the run or the model that `ask` finds, or None if it is gone."""
    try:
        found = ask()
    except mlflow.exceptions.MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    stage = getattr(getattr(found, "info", None), "lifecycle_stage", "active")
    return None if stage == "deleted" else found
