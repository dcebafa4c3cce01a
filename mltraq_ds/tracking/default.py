"""The default session, and the functions that use it."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from mltraq_ds import place
from mltraq_ds.settings import resolve
from mltraq_ds.storage import Storage, set_usual
from mltraq_ds.tracking.experiment import Experiment
from mltraq_ds.tracking.opening import named, usual
from mltraq_ds.tracking.session import Session

__all__ = ["create_experiment", "create_session", "default_session"]


def create_session(
    url: str | None = None,
    store: str | os.PathLike[str] | Storage | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Session:
    """Return a session; see `Session`.  Nothing is made before it is used."""
    return Session(url, store, storage_options)


_default: dict[str, Any] = {}
_default_lock = threading.Lock()


def default_session() -> Session:
    """Return the session that is used where none is named.

    It is made from the options at its first use, and anew when the options name another database or store, or the
    working directory of a relative one has changed.
    """
    settings = resolve()
    names = (
        "database.url",
        "database.echo",
        *(f"datastore.{name}" for name in ("url", "durability", "mmap", "client")),
    )
    wanted = (*(settings[name] for name in names), settings["datastore.storage_options"], os.getcwd())
    with _default_lock:
        if _default.get("wanted") != wanted:
            _default.update(wanted=wanted, session=Session())
        session: Session = _default["session"]
        return session


def create_experiment(name: str | None = None, **fields: Any) -> Experiment:
    """Return a new experiment of the default session; see `Session.create_experiment`."""
    return default_session().create_experiment(name, **fields)


place.set_default(lambda: default_session().place, named)
set_usual(usual)
