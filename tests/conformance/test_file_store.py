"""FileStore in a folder and in memory does what a store of run records promises."""

from pathlib import Path

import fsspec

from mltraq_ds.storage import open_storage
from mltraq_ds.storage.local import LocalStorage
from mltraq_ds.store.files import FileStore
from mltraq_ds.testing import StoreConformance


class TestFolder(StoreConformance):
    """A folder of this machine."""

    @property
    def root(self) -> Path:
        return self.folder / "collection"

    def make_collection(self):
        return FileStore(LocalStorage(self.root, durability="relaxed"))

    def raw_files(self):
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def raw_write(self, key, data):
        path = self.root / key
        path.unlink(missing_ok=True)
        path.write_bytes(data)


class TestMemory(StoreConformance):
    """The memory of this process, through fsspec."""

    @property
    def root(self) -> str:
        return f"/stores/{self.folder}"

    def make_collection(self):
        return FileStore(open_storage(f"memory:/{self.root}"))

    def raw_files(self):
        files = fsspec.filesystem("memory")
        return {path[len(self.root) + 1 :].lstrip("/"): files.cat(path) for path in files.find(self.root)}

    def raw_write(self, key, data):
        fsspec.filesystem("memory").pipe_file(f"{self.root}/{key}", data)
