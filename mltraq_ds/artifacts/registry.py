"""Save, get, list and delete artifacts in the store of the default session."""

from __future__ import annotations

import difflib
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from mltraq_ds import ids, place
from mltraq_ds.artifacts import leftovers
from mltraq_ds.artifacts.artifact import Artifact
from mltraq_ds.artifacts.backends import backend_of, choose, place_of
from mltraq_ds.artifacts.home import Home, rows_of
from mltraq_ds.artifacts.listing import ArtifactStore
from mltraq_ds.artifacts.provenance import capture
from mltraq_ds.errors import ArtifactNotFoundError, DatabaseUnavailableError, KeyMissingError, UsageError
from mltraq_ds.orm.artifacts import stores_of
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.overview import remembered_url
from mltraq_ds.settings import resolve
from mltraq_ds.store import layout, recovery, versions
from mltraq_ds.store.artifact_rows import known_version, name_of
from mltraq_ds.store.keeping import Kept
from mltraq_ds.store.saving import Save
from mltraq_ds.store.version_deletion import delete_version
from mltraq_ds.store.versions import Version
from mltraq_ds.tracking.default import default_session

__all__ = ["artifact_store", "delete", "get", "save"]


#: What backends are given by us, so that users cannot give it.
_OURS = frozenset({"self", "saving", "settings", "value"})


def _home() -> Home:
    session = default_session()
    if not place.is_executing():
        place.refuse_mix_up(session.storage.url)
        return Home(session.objects(), session)
    objects = place.place_of(None).objects  # a step of a run saves where its experiment is
    return Home(objects, session if session.storage.url == objects.storage.url else None)


def save(value: object, name: str, storage_backend: str | None = None, **kwargs: Any) -> Artifact:
    """Save a value under a name, as a new version.

    Several processes may save under one name at once: each gets a number of its own, without a gap.

    Parameters
    ----------
    value : object
        Anything that a codec takes; models of other libraries if MLflow keeps them.
    name : str
        Any string.
    storage_backend : str, optional
        Who keeps the value: ``native``, ``mlflow``, or one of an installed package.  By default MLflow keeps models
        where option ``mlflow.tracking_uri`` is set, unless ``artifacts.default_ml_models_storage_backend`` says
        otherwise; whatever it does not take is kept natively.
    **kwargs
        For the backend: with MLflow all arguments of ``mlflow.<flavor>.log_model``, such as ``registered_model_name``.

    Returns
    -------
    Artifact
        The new version.

    Raises
    ------
    UsageError and its kinds
        If backend, name, value or an argument cannot be used.  Nothing was changed.
    StorageError
        If store, database or backend do not answer.  What was written is removed.
    UnknownOutcomeError
        If the storage does not say whether it was saved.  Nothing was removed.

    Warns
    -----
    IndexBehindWarning
        If it is saved, but the database could not be told; the next session catches up.

    """
    if not isinstance(name, str) and isinstance(value, str):
        raise UsageError(
            f"save({value!a:.80}, …) was given a name first and a {type(name).__name__} second. Write "
            "save(value, name)."
        )
    _checked(name)
    home = _home()  # first: a new session reads environment and file anew
    settings = resolve()
    label, backend = choose(value, storage_backend, settings)
    if taken := _OURS & kwargs.keys():
        raise UsageError(
            f"save() got {', '.join(map(repr, sorted(taken)))}, which the storage backend {label!r} does not take. "
            "Leave it out."
        )
    index, kept_at = home.index(make=True), place_of(label, backend, settings)
    if kept_at is not None:
        leftovers.remove(home.session)
    saving = Save(
        home.objects,
        index,
        name,
        label,
        type_name=f"{type(value).__module__}.{type(value).__qualname__}",
        code=capture(settings),
        place=kept_at,
        new_uuid=ids.new_uuid if home.session is None else home.session.new_uuid,
    )

    def undo(kept: Kept) -> None:
        unsaved = Version(name=name, number=0, writer="", storage_backend=label, metadata=kept.metadata)
        backend.delete(unsaved, home.objects, settings)

    return Artifact(saving.run(partial(backend.save, value, settings=settings, **kwargs), undo), home.objects)


def get(name: str, version: int | Literal["latest"] | None = None) -> Artifact:
    """Return a saved artifact; its value is read by `Artifact.get_value`.

    The files answer, so the database may be behind or gone.  While it is there, it tells whether one of them was lost.

    Parameters
    ----------
    name : str
        Of the artifact.
    version : int or "latest", optional
        By default the latest one.

    Raises
    ------
    ArtifactNotFoundError
        If there is no such artifact or version; names the nearest.
    CorruptRecordError
        If the file of the version is damaged, or lost and the database knows it: an older one is never taken for it.

    """
    home = _home()
    if home.session is not None:
        with suppress(DatabaseUnavailableError):  # loading needs no database
            home.session._open_index()
    found = _find(home, name, None if isinstance(version, str) and version == "latest" else version)
    if found.deleted:
        raise ArtifactNotFoundError(f"The {found.label} was deleted.{_others(home, name)}")
    return Artifact(found, home.objects)


def delete(name: str, version: int | Literal["latest", "all"]) -> None:
    """Delete one version of an artifact, the latest, or all; their numbers are never given again.

    Calling it again goes on with a delete that was stopped.

    Parameters
    ----------
    name : str
        Of the artifact.
    version : int or {"latest", "all"}
        Which one.

    Raises
    ------
    ArtifactNotFoundError
        If there is no such artifact or version, or it was deleted before.
    UsageError
        If `version` does not say which one.  Nothing was deleted.
    StorageError
        If the store does not answer.  What was not deleted is complete.

    Warns
    -----
    IndexBehindWarning, LeftoversWarning
        If it is deleted, but the database could not be told, or not all bytes are removed, also because who keeps the
        value does not answer.  `sweep` or the same call goes on.

    """
    if version is None or (isinstance(version, str) and version not in ("latest", "all")):
        raise UsageError(
            f"Nothing was deleted because version={version!r:.80} does not say which one. Use a whole number such "
            "as 1, 'latest', or 'all'."
        )
    home = _home()
    index = home.index()
    if isinstance(version, str) and version == "all":
        every = versions.read_all(home.objects.storage, layout.artifact_folder(_checked(name)))
        found = [one for one in every if not one.deleted or one.metadata]
        if not found:
            raise _missing(home, name, None)
    else:
        found = [_find(home, name, None if isinstance(version, str) else version)]
        if found[0].deleted and not found[0].metadata:
            raise ArtifactNotFoundError(f"The {found[0].label} was deleted before.{_others(home, name)}")
    settings = resolve()
    for one in found:
        let_go = partial(backend_of(one.storage_backend).delete, objects=home.objects, settings=settings)
        delete_version(home.objects.storage, index, one, let_go)


def artifact_store() -> ArtifactStore:
    """Return all versions of all artifacts, as a list and a table.

    Raises
    ------
    UnknownStoreError
        If the database does not know this store.
    DatabaseUnavailableError
        If it does not answer.

    """
    session = default_session()
    index = session._known_index()
    if index is not None:
        # Of steps that had no database.
        recovery.recover(session.objects(), index, recovery.warn_left)
    rows = rows_of(index)
    return ArtifactStore([row for row in rows.rows() if not row.is_deleted] if rows else [], get)


def _checked(name: object) -> str:
    if not isinstance(name, str):
        raise UsageError(f"The name of an artifact is a string, not {type(name).__name__}. Use str(...).")
    return name


def _find(home: Home, name: str, version: object) -> Version:
    """Return a version, a tombstone only if it was asked for by number."""
    storage, folder = home.objects.storage, layout.artifact_folder(_checked(name))
    if version is not None:
        if type(version) is not int:
            raise UsageError(f"version={version!r:.80} is no version. Use a whole number such as 1, or 'latest'.")
        found = None
        with suppress(KeyMissingError):
            found = versions.read(storage, folder, version)
        found = found or _known_version(home, folder, above=version - 1, to=version)
        if found is None:
            raise _missing(home, name, version)
        return found
    living = (versions.read(storage, folder, number) for number in reversed(versions.numbers(storage, folder)))
    found = next((one for one in living if one is not None and not one.deleted), None)
    found = _known_version(home, folder, above=found.number if found else 0) or found
    if found is None:
        raise _missing(home, name, None)
    return found


def _known_version(home: Home, folder: str, *, above: int, to: int | None = None) -> Version | None:
    """Return what the database knows beyond the files; raise if its file was lost."""
    with suppress(DatabaseUnavailableError):  # then the files alone answer
        index = home.index()
        if index is not None:
            return known_version(home.objects.storage, index, folder, above=above, to=to)
    return None


def _missing(home: Home, name: str, version: int | None) -> ArtifactNotFoundError:
    others = _others(home, name)
    if version is not None and others:
        return ArtifactNotFoundError(f"Artifact {name!a:.200} has no version {version}.{others}")
    if elsewhere := _elsewhere(home, name):
        return ArtifactNotFoundError(
            f"Artifact {name!a:.200} is in another store ({elsewhere}), not in {home.objects.storage.url}. Were "
            "database and store changed hand in hand? Set option 'datastore.url' to that one."
        )
    near = [one for one in difflib.get_close_matches(name, _names(home)) if _others(home, one)]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ArtifactNotFoundError(
        f"No artifact is named {name!a:.200} in {home.objects.storage.url}.{hint} artifact_store() lists all of them."
    )


def _others(home: Home, name: str) -> str:
    found = versions.read_all(home.objects.storage, layout.artifact_folder(name), lambda key, error: None)
    living = [str(version.number) for version in found if not version.deleted]
    return f" There is version {', '.join(living)}." if living else ""


def _elsewhere(home: Home, name: str) -> str:
    """Return where another store of the same database is that has an artifact of this name, empty for none."""
    if home.session is None:
        return ""
    database = home.session.database
    with suppress(DatabaseUnavailableError):
        for store_id in [] if database.is_absent() else stores_of(database, layout.artifact_folder(name)):
            return f"{remembered_url(Index(database, store_id)) or 'at an unknown place'}, id {store_id}"
    return ""


def _names(home: Home) -> list[str]:
    """Return the names of living artifacts, of the rows; without these of the files."""
    with suppress(DatabaseUnavailableError):
        index = home.index()
        if index is not None and (rows := index.rows()):
            return sorted({name_of(row) for row in rows if not row.is_deleted})
    named = (ids.unescape_name(folder.rpartition("/")[2]) for folder in versions.folders(home.objects.storage))
    return sorted(name for name in named if name is not None)
