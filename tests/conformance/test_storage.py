"""Every storage of ours passes the suite that we offer to others."""

import uuid
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest

from mltraq_ds.storage import LocalStorage, Storage, open_storage
from mltraq_ds.storage.remote import RemoteStorage
from mltraq_ds.testing.faults import FaultStorage
from mltraq_ds.testing.storage import StorageConformance


class InFolder(StorageConformance):
    has_folders = True

    @property
    def root(self) -> Path:
        return self.folder / "the store"

    def raw_read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def raw_write(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def raw_list(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if not path.is_dir()}


class TestLocal(InFolder):
    largest = 10**8

    def make_storage(self) -> Storage:
        return open_storage(self.root)


class TestLocalRelaxed(InFolder):
    def make_storage(self) -> Storage:
        return LocalStorage(self.root, durability="relaxed")


class TestLocalWithoutMmap(InFolder):
    def make_storage(self) -> Storage:
        return LocalStorage(self.root.as_uri(), mmap=False)


class TestLocalWithoutLinks(InFolder):
    @pytest.fixture(autouse=True)
    def _no_links(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def link(source: str, target: str) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr("os.link", link)

    def make_storage(self) -> Storage:
        return LocalStorage(self.root)


class TestFolderThroughFsspec(InFolder):
    def make_storage(self) -> Storage:
        return RemoteStorage(self.root.as_uri())


class TestThroughFaultStorage(InFolder):
    def make_storage(self) -> Storage:
        return FaultStorage(LocalStorage(self.root, durability="relaxed"))


class TestMemory(StorageConformance):
    names: ClassVar[dict[Path, str]] = {}

    @property
    def name(self) -> str:
        return self.names.setdefault(self.folder, uuid.uuid4().hex)

    def make_storage(self) -> Storage:
        return open_storage(f"memory://{self.name}/deep")

    def raw_read(self, key: str) -> bytes:
        return fsspec.filesystem("memory").store[f"/{self.name}/deep/{key}"].getvalue()

    def raw_write(self, key: str, data: bytes) -> None:
        fsspec.filesystem("memory").pipe_file(f"/{self.name}/deep/{key}", data)

    def raw_list(self) -> set[str]:
        start = f"/{self.name}/deep/"
        return {key.removeprefix(start) for key in list(fsspec.filesystem("memory").store) if key.startswith(start)}
