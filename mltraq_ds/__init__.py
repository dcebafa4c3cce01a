"""Put anything on a run, persist it, find it, load it.

Public names are loaded when first used (PEP 562): ``import mltraq_ds`` imports nothing else and touches nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltraq_ds import errors as errors
    from mltraq_ds import ids as ids
    from mltraq_ds.artifacts import Artifact as Artifact
    from mltraq_ds.artifacts import artifact_store as artifact_store
    from mltraq_ds.artifacts import delete as delete
    from mltraq_ds.artifacts import get as get
    from mltraq_ds.artifacts import save as save
    from mltraq_ds.bunch import Bunch as Bunch
    from mltraq_ds.codecs import Directory as Directory
    from mltraq_ds.codecs import File as File
    from mltraq_ds.codecs import Pickled as Pickled
    from mltraq_ds.datastore import DataStore as DataStore
    from mltraq_ds.settings import options as options
    from mltraq_ds.store.results import Results as Results
    from mltraq_ds.store.results import load_results as load_results
    from mltraq_ds.tracking import Database as Database
    from mltraq_ds.tracking import DataStoreIO as DataStoreIO
    from mltraq_ds.tracking import Experiment as Experiment
    from mltraq_ds.tracking import Run as Run
    from mltraq_ds.tracking import Session as Session
    from mltraq_ds.tracking import create_experiment as create_experiment
    from mltraq_ds.tracking import create_session as create_session
    from mltraq_ds.tracking.running import RunHandle as RunHandle
    from mltraq_ds.tracking.running import run as run

__version__ = "0.1.0"

# Name to the module that has it; a module of ours stands for itself.  `TYPE_CHECKING` above says the same to type
# checkers, and a test compares the two.
_HOMES = {
    "Artifact": "mltraq_ds.artifacts",
    "Bunch": "mltraq_ds.bunch",
    "DataStore": "mltraq_ds.datastore",
    "Database": "mltraq_ds.tracking",
    # By way of tracking, which knows the default session.
    "DataStoreIO": "mltraq_ds.tracking",
    "Directory": "mltraq_ds.codecs",
    "Experiment": "mltraq_ds.tracking",
    "File": "mltraq_ds.codecs",
    "Pickled": "mltraq_ds.codecs",
    "Results": "mltraq_ds.store.results",
    "Run": "mltraq_ds.tracking",
    "RunHandle": "mltraq_ds.tracking.running",
    "Session": "mltraq_ds.tracking",
    "artifact_store": "mltraq_ds.artifacts",
    "create_experiment": "mltraq_ds.tracking",
    "create_session": "mltraq_ds.tracking",
    "delete": "mltraq_ds.artifacts",
    "errors": "mltraq_ds.errors",
    "get": "mltraq_ds.artifacts",
    "ids": "mltraq_ds.ids",
    "load_results": "mltraq_ds.store.results",
    "options": "mltraq_ds.settings",
    "run": "mltraq_ds.tracking.running",
    "save": "mltraq_ds.artifacts",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(home)
    value: object = module if home == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
