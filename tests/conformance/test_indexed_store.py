"""A store with an index does what a store of run records promises, its index beside it."""

from pathlib import Path

import pytest

from mltraq_ds.errors import UsageError
from mltraq_ds.orm.database import Database
from mltraq_ds.storage.local import LocalStorage
from mltraq_ds.store import FileStore, IndexedStore, RunRecord
from mltraq_ds.testing import StoreConformance
from mltraq_ds.testing import store as suite


class TestIndexed(StoreConformance):
    """A folder of this machine, and a database in a file."""

    racers = 4

    def test_ids_are_data(self, monkeypatch):
        """Ids that databases can hold never meet; others are refused before anything is written."""
        held = [id_ for id_ in suite.IDS if "\0" not in id_ and id_.encode("utf-8", "replace").decode() == id_]
        assert 0 < len(suite.IDS) - len(held) < 4
        for id_ in set(suite.IDS) - set(held):
            with pytest.raises(UsageError, match="NUL|Unicode"):
                self.make_collection().put_run_record(RunRecord.success(id_, id_))
        assert self.raw_files() == {}
        monkeypatch.setattr(suite, "IDS", held)
        super().test_ids_are_data()

    @property
    def root(self) -> Path:
        return self.folder / "collection"

    def make_collection(self):
        files = FileStore(LocalStorage(self.root, durability="relaxed"))
        return IndexedStore.over(files, Database(f"sqlite:///{self.folder}/index.db", durability="relaxed"))

    def raw_files(self):
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def raw_write(self, key, data):
        path = self.root / key
        path.unlink(missing_ok=True)
        path.write_bytes(data)
