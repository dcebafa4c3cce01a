"""Every storage of ours passes the suite that we offer to others."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest

from mltraq_ds.errors import CorruptBlobError, KeyExistsError, KeyMissingError, StorageError
from mltraq_ds.ids import validate_key
from mltraq_ds.storage import LocalStorage, Source, Stat, Storage, open_storage
from mltraq_ds.storage.base import check_new_key, is_temporary
from mltraq_ds.storage.remote import RemoteStorage
from mltraq_ds.storage.sources import check_range
from mltraq_ds.storage.writing import counted
from mltraq_ds.testing.fault_storage import FaultStorage
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


class TestMemoryWithSecret(TestMemory):
    def make_storage(self) -> Storage:
        return RemoteStorage(f"memory://{self.name}/deep", storage_options={"secret": "canary"})


class DictSource(Source):
    def __init__(self, key: str, data: bytes) -> None:
        self.key = key
        self.size = len(data)
        self.data: bytes | None = data

    def read(self, offset: int, size: int) -> memoryview:
        if self.data is None:
            raise StorageError(f"{self.key} is closed")
        check_range(self.key, offset, size, self.size)
        return memoryview(bytearray(self.data[offset : offset + size]))

    def close(self) -> None:
        self.data = None


class DictStorage(Storage):
    """The least that a storage must bring: all that may be left out is left out."""

    places: ClassVar[dict[str, dict[str, tuple[bytes, float]]]] = {}

    def __init__(self, name: str) -> None:
        self.url = f"dict://{name}"

    def __repr__(self) -> str:
        return f"DictStorage({self.url!r})"

    @property
    def place(self) -> dict[str, tuple[bytes, float]]:
        return self.places.setdefault(self.url, {})

    def put(self, key, buffers, *, size, replace=False, parents=False, flush=True, before_publish=None) -> None:
        check_new_key(key)
        entry = (b"".join(counted(buffers, size, key)), time.time())
        if before_publish is not None:
            before_publish()
        if replace:
            self.place[key] = entry
        elif self.place.setdefault(key, entry) is not entry:
            raise KeyExistsError(f"{key} exists")

    def open(self, key: str, *, size: int | None = None) -> Source:
        if size not in (None, found := self.stat(key).size):
            raise CorruptBlobError(f"{key} has {found} bytes")
        return DictSource(key, self.place[key][0])

    def delete(self, key: str) -> None:
        self.place.pop(validate_key(key), None)

    def exists(self, key: str) -> bool:
        return validate_key(key) in self.place

    def list(self, prefix: str = "") -> Iterator[Stat]:
        return (stat for stat in self.all_of(prefix) if not is_temporary(stat.key))

    def list_unfinished(self, prefix: str = "") -> Iterator[Stat]:
        return (stat for stat in self.all_of(prefix) if is_temporary(stat.key))

    def all_of(self, prefix: str) -> Iterator[Stat]:
        start = f"{validate_key(prefix)}/" if prefix else ""
        return iter([self.stat(key) for key in sorted(self.place) if key.startswith(start)])

    def stat(self, key: str) -> Stat:
        if not self.exists(key):
            raise KeyMissingError(f"{key} is not there")
        data, modified = self.place[key]
        return Stat(key, len(data), modified)

    @property
    def creates_if_absent(self) -> bool:
        return True

    def now(self) -> float:
        return time.time()


class TestTheLeast(StorageConformance):
    @property
    def name(self) -> str:
        return str(self.folder)

    def make_storage(self) -> Storage:
        return DictStorage(self.name)

    def raw_read(self, key: str) -> bytes:
        return DictStorage(self.name).place[key][0]

    def raw_write(self, key: str, data: bytes) -> None:
        DictStorage(self.name).place[key] = (data, time.time())

    def raw_list(self) -> set[str]:
        return set(DictStorage(self.name).place)

    def test_defaults(self) -> None:
        """What is left out answers cautiously: nothing is promised that the storage did not promise."""
        storage = self.make_storage()
        assert (storage.is_shareable, storage.is_local, storage.scheme) == (False, False, "dict")
        assert list(Storage.list_unfinished(storage)) == []
