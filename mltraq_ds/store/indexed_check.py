"""Checking a store with an index, whose database may be down."""

from __future__ import annotations

from dataclasses import replace

from mltraq_ds.errors import MltraqDSError
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.failures import DATABASE_ERRORS
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.schema import SCHEMA_VERSION
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import layout, maintenance
from mltraq_ds.store.index_marks import marks_of
from mltraq_ds.store.report import Notebook, Report

__all__ = ["check_indexed"]


def check_indexed(storage: Storage, database: Database, *, deep: bool = False) -> Report:
    """Check the files, and the rows against them; a database that does not answer is waited for once, and a finding.

    An index that has not read the store is not compared: lists come from the files then.
    """
    try:
        store_id = layout.read_store_id(storage)
    except MltraqDSError:
        store_id = None  # that is a finding of its own
    if store_id is None:
        return maintenance.check(storage, deep=deep)
    index = Index(database, store_id)
    try:
        has_tables = database.tables_version() == SCHEMA_VERSION  # to ask for anything else would make them
        return maintenance.check(storage, index if has_tables and index.knows_store() else None, deep=deep)
    except DATABASE_ERRORS as error:
        found = Notebook()
        found.add("unreachable database", detail=f"{database.url}: {error}")
        for key in marks_of(storage, database):
            found.add("index drift", key, detail="The index has not been told of everything while it was down.")
        report = maintenance.check(storage, deep=deep)
        found.findings += report.findings
        return replace(report, findings=found.parts()["findings"])
