"""Whose a run or a logged model of MLflow is: told by a tag, since a file could name anybody's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

__all__ = ["NAME_TAG", "TAG", "is_tagged", "living", "tagged", "taken_back"]

#: Tags of the runs and logged models that we have made: the artifact's name, and the random id of whoever saved it.
NAME_TAG, TAG = "mltraq_ds.artifact", "mltraq_ds.writer"


def tagged(mlflow: Any, info: Any, name: str, writer: str) -> Any:
    """Note on a logged model whose it is, and return `info`; a model of MLflow 2 is part of its run."""
    if info.model_uri.startswith("models:/"):
        mlflow.MlflowClient().set_logged_model_tags(info.model_uri[8:], {NAME_TAG: name, TAG: writer})
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


def taken_back(mlflow: Any, name: str, writer: str, *, is_late: bool) -> list[tuple[str, str]]:
    """Delete runs and logged models that were made for one save, with what was registered of them.

    Parameters
    ----------
    mlflow : module
        MLflow, with its URIs set.
    name, writer : str
        Of the artifact and of the save: what the tags say.
    is_late : bool
        What is registered may be in use by now: it stays, and so does what it is of.

    Returns
    -------
    list
        Names and versions of what stays registered.
    """
    client = mlflow.MlflowClient()
    where = [one.experiment_id for one in _all(client.search_experiments)]
    mine = f"tags.`{TAG}` = '{writer}'"
    stay: list[tuple[str, str]] = []
    # A model of MLflow 2 is part of its run.
    search_models = getattr(client, "search_logged_models", None)
    models = _all(search_models, experiment_ids=where, filter_string=mine) if search_models and where else ()
    for model in [one for one in models if one.tags.get(NAME_TAG) == name]:
        registered = [one for one in _registered(client, model.source_run_id) if _is_of(one, model.model_id)]
        if not _unregistered(client, registered, stay, is_late=is_late):
            continue
        client.delete_logged_model(model.model_id)
    runs = _all(client.search_runs, experiment_ids=where, filter_string=mine) if where else ()
    for run in [one for one in runs if one.data.tags.get(NAME_TAG) == name]:
        run_id = run.info.run_id
        if _unregistered(client, _registered(client, run_id), stay, is_late=is_late):
            if run.info.status == "RUNNING":
                client.set_terminated(run_id, "KILLED")
            client.delete_run(run_id)
    return sorted(set(stay))


def _all(search: Callable[..., Any], **arguments: Any) -> Iterable[Any]:
    """Return what a search of MLflow finds on all its pages."""
    found, token = [], None
    while True:
        page = search(**arguments, page_token=token)
        found.append(page)
        token = page.token
        if not token:
            return chain.from_iterable(found)


def _registered(client: Any, run_id: str | None) -> list[Any]:
    return list(_all(client.search_model_versions, filter_string=f"run_id = '{run_id}'")) if run_id else []


def _is_of(version: Any, model_id: str) -> bool:
    return model_id in (getattr(version, "model_id", None), str(version.source).removeprefix("models:/"))


def _unregistered(client: Any, registered: Iterable[Any], stay: list[tuple[str, str]], *, is_late: bool) -> bool:
    for one in registered:
        if is_late:
            stay.append((one.name, str(one.version)))
        else:
            client.delete_model_version(one.name, one.version)
    return not (is_late and registered)
