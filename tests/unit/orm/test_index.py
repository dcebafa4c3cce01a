"""The index on SQLite, in a file and in memory."""

import pytest

from mltraq_ds.orm.database import Database
from tests.unit.orm.index_suite import IndexSuite


class TestFile(IndexSuite):
    @pytest.fixture
    def database(self, tmp_path):
        """Return a database in a file."""
        database = Database(f"sqlite:///{tmp_path}/index.db")
        yield database
        database.close()


class TestMemory(IndexSuite):
    @pytest.fixture
    def database(self):
        """Return a database in memory."""
        database = Database("sqlite://")
        yield database
        database.close()
