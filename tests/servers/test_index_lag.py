"""Two schemas of one PostgreSQL database index one store, and each catches up by itself."""

from dataclasses import replace

import pytest

from mltraq_ds.errors import DatabaseUnavailableError, IndexBehindWarning
from mltraq_ds.store import PostgresStoreConfig, RunRecord

pytestmark = pytest.mark.server


def test_two_schemas(postgresql_url, tmp_path):
    """Whoever connects in between does not take away the mark of the other schema; nor does another URL of the same."""
    a, b = (
        PostgresStoreConfig(connection_string=postgresql_url, file_root=tmp_path, experiment_id="e", schema=schema)
        for schema in ('A x"; DROP', "B")
    )
    mark = "&" if "?" in postgresql_url else "?"
    other_a = replace(a, connection_string=f"{postgresql_url}{mark}application_name=x")

    for config in (a, b):
        with config.connect() as store:
            store.put_run_record(RunRecord.success("1", "e"))
            store.rebuild_index()
    with a.connect() as store:
        store.link._failure = OSError("gone")
        with pytest.warns(IndexBehindWarning):
            store.put_run_record(RunRecord.success("2", "e"))
    for config in (b, other_a, a, b):
        with config.connect() as store:
            assert sorted(one.run_id for one in store.list_run_records()) == ["1", "2"]
            rows = store.link.database.query("SELECT id_run FROM mltraq_runs ORDER BY id_run")
            assert rows.id_run.tolist() == ["1", "2"]


def test_an_unknown_parameter(postgresql_url, tmp_path):
    """A parameter that the driver does not know is one sentence."""
    mark = "&" if "?" in postgresql_url else "?"
    config = PostgresStoreConfig(connection_string=f"{postgresql_url}{mark}sslmod=require", file_root=tmp_path)
    with config.connect() as store:
        with pytest.warns(IndexBehindWarning, match="parameter that the driver does not know"):
            store.put_run_record(RunRecord.success("1", "e"))
        with pytest.raises(DatabaseUnavailableError, match="sslmod"):
            store.rebuild_index()
