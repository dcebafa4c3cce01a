"""Tracking: sessions, experiments and runs."""

from mltraq_ds.datastore_io import DataStoreIO
from mltraq_ds.tracking.database import Database
from mltraq_ds.tracking.default import create_experiment, create_session, default_session
from mltraq_ds.tracking.experiment import Experiment
from mltraq_ds.tracking.run import Run, Runs
from mltraq_ds.tracking.session import Session

__all__ = [
    "DataStoreIO",
    "Database",
    "Experiment",
    "Run",
    "Runs",
    "Session",
    "create_experiment",
    "create_session",
    "default_session",
]
