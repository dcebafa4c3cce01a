"""Conformance of listing, deleting, folders, and of what may be a key at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mltraq_ds.errors import InvalidNameError, KeyExistsError, KeyMissingError
from mltraq_ds.storage.base import Storage
from mltraq_ds.testing.storage_hooks import StorageHooks

__all__ = ["REFUSED_KEYS", "ListingConformance"]

#: Keys that could leave their place, or name nothing.  Every one has been accepted by some system before us.
REFUSED_KEYS = (
    *("", "/", "/etc/passwd", "..", ".", "../x", "a/../x", "a/..", "a/./x", "a//x", "a/", "/a", "../../../../pwn"),
    *("a\\x", "..\\x", "C:/x", "c:x", "a\0x", "a\nx", "%2e%2e/x", "a/%2E%2e/x", "%252e%252e/x", "a%2fx", "a%5cx"),
    *("a%00x", "a /x", " a", "a.", "a./x", "a\ud800", "x" * 256, "/".join(["x" * 99] * 11)),
)
#: Keys that must work: their characters mean something to a shell, a URL or a glob, and nothing to us.
_STRANGE_KEYS = (
    "a/#1",
    "a/what?",
    "a/100%",
    "a/*",
    "a/[x]",
    "a/é",
    "a/two words",
    "a/=3a",
    "a/.hidden",
    "a/~x",
    "a/-x",
)

_VERBS: dict[str, Callable[[Storage, str], object]] = {
    "put": lambda storage, key: storage.put(key, [b"1"], size=1, parents=True),
    "replace": lambda storage, key: storage.put(key, [b"1"], size=1, parents=True, replace=True),
    "open": lambda storage, key: storage.open(key),
    "open with size": lambda storage, key: storage.open(key, size=1),
    "read": lambda storage, key: storage.read(key),
    "delete": lambda storage, key: storage.delete(key),
    "delete_many": lambda storage, key: storage.delete_many(["a/x", key]),
    "exists": lambda storage, key: storage.exists(key),
    "stat": lambda storage, key: storage.stat(key),
    "list": lambda storage, key: list(storage.list(key)),
    "folders": lambda storage, key: storage.folders(key),
    "make_folder": lambda storage, key: storage.make_folder(key),
    "move_folder": lambda storage, key: storage.move_folder(key, "b"),
    "move_folder to": lambda storage, key: storage.move_folder("safe", key),
    "prune": lambda storage, key: storage.prune(key),
    "delete_folder": lambda storage, key: storage.delete_folder(key),
}


class ListingConformance(StorageHooks):
    """What `list`, `folders`, `delete` and the folder verbs promise, and which keys every verb refuses."""

    @pytest.mark.parametrize("verb", _VERBS)
    def test_refused_keys(self, verb: str) -> None:
        """A key that could leave the storage is refused by every verb, before anything is touched."""
        storage = self.make_storage()
        self.raw_write("safe/x", b"1")
        for key in REFUSED_KEYS:
            if key == "" and verb in ("list", "folders"):
                continue  # there it means everything
            with pytest.raises(InvalidNameError):
                _VERBS[verb](storage, key)
        assert self.raw_list() == {"safe/x"}

    @pytest.mark.parametrize("key", _STRANGE_KEYS)
    def test_strange_keys(self, key: str) -> None:
        """Characters that mean something elsewhere are just characters here."""
        storage = self.make_storage()
        self.raw_write("a/x", b"other")
        storage.put(key, [b"12"], size=2, parents=True)
        assert self.raw_read(key) == b"12"
        assert self.make_storage().read(key) == b"12"
        assert {stat.key for stat in storage.list()} == {key, "a/x"}
        storage.delete_many([key])
        assert self.raw_list() == {"a/x"}

    def test_unfinished_writes_are_hidden(self) -> None:
        """What a killed write left is not listed as a key, cannot be put, and can be found and removed."""
        storage = self.make_storage()
        self.raw_write("a/x", b"1")
        self.raw_write("a/.tmp-0123", b"12")
        assert [stat.key for stat in storage.list()] == ["a/x"]
        assert [(stat.key, stat.size) for stat in storage.list_unfinished()] == [("a/.tmp-0123", 2)]
        assert list(storage.list_unfinished("b")) == []
        with pytest.raises(InvalidNameError, match="unfinished"):
            storage.put("a/.tmp-1", [b"1"], size=1, parents=True)
        storage.delete("a/.tmp-0123")
        assert self.raw_list() == {"a/x"}

    def test_list(self) -> None:
        """A listing has all keys below a folder, with their sizes; a prefix is a folder, not the start of a name."""
        storage = self.make_storage()
        keys = {"x": 1, "a/x": 2, "a/b/c/x": 3, "ab/x": 4, "a.b": 5}
        for key, size in keys.items():
            self.raw_write(key, bytes(size))
        assert {stat.key: stat.size for stat in storage.list()} == keys
        assert {stat.key: stat.size for stat in storage.list("a")} == {"a/x": 2, "a/b/c/x": 3}
        assert {stat.key for stat in storage.list("a/b")} == {"a/b/c/x"}
        assert list(storage.list("nothing/here")) == []
        assert list(storage.list("a/x")) == []
        assert storage.folders() == ["a", "ab"]
        assert storage.folders("a") == ["b"]
        assert storage.folders("nothing") == []

    def test_list_more_than_a_page(self) -> None:
        """More keys and folders than a server tells at once (1,000) are listed, each of them once."""
        storage = self.make_storage()
        keys = {f"a/{i:04}/x": i % 7 for i in range(1010)}
        for key, size in keys.items():
            self.raw_write(key, bytes(size))
        for folder in ("", "a"):
            found = [(stat.key, stat.size) for stat in storage.list(folder)]
            assert sorted(found) == sorted(keys.items())
        assert sorted(storage.folders("a")) == [f"{i:04}" for i in range(1010)]
        assert storage.folders() == ["a"]

    def test_list_of_nothing(self) -> None:
        """A storage that was never written lists nothing, and looking makes nothing."""
        storage = self.make_storage()
        assert list(storage.list()) == []
        assert storage.folders() == []
        assert not storage.exists("x")
        storage.delete("x")
        storage.delete_folder("x")
        assert self.raw_list() == set()

    def test_list_sees_what_others_wrote(self) -> None:
        """Nothing is remembered from one listing to the next."""
        storage = self.make_storage()
        assert list(storage.list("a")) == []
        self.raw_write("a/x", b"1")
        assert [stat.key for stat in storage.list("a")] == ["a/x"]
        self.make_storage().delete("a/x")
        assert list(storage.list("a")) == []

    def test_delete(self) -> None:
        """One key is removed and no other; one that is gone already is no error."""
        storage = self.make_storage()
        for key in ("a/x", "a/xy", "a/x.y"):
            self.raw_write(key, b"1")
        storage.delete("a/x")
        storage.delete("a/x")
        storage.delete("nothing/here")
        assert self.raw_list() == {"a/xy", "a/x.y"}
        storage.put("a/x", [b"2"], size=1)
        assert self.raw_read("a/x") == b"2"

    def test_delete_written_key(self) -> None:
        """A key that we wrote ourselves, read-only as it may be, can be removed."""
        storage = self.make_storage()
        storage.put("a/x", [b"1"], size=1, parents=True)
        storage.delete("a/x")
        assert self.raw_list() == set()

    def test_delete_many(self) -> None:
        """More keys than a server takes at once (1,000) are removed, with gone ones and some like globs among them."""
        storage = self.make_storage()
        keys = [f"a/{i}" for i in range(1010)]
        for key in keys:
            self.raw_write(key, b"1")
        for key in ("a/keep", "a/[0-9]", "a/*"):
            self.raw_write(key, b"1")
        storage.delete_many(iter([*keys[:500], "a/gone", "a/*", *keys[500:]]))
        storage.delete_many([])
        assert self.raw_list() == {"a/keep", "a/[0-9]"}

    def test_holding(self) -> None:
        """What is deleted in a held folder goes; where that was renamed away, the one in its place keeps all."""
        storage = self.make_storage()
        for key in ("a/g/1", "a/g/2", "b/1"):
            self.raw_write(key, b"1")
        with storage.holding("a/g") as delete, storage.holding("gone") as delete_nothing:
            delete("a/g/1")
            delete("a/g/1")
            delete_nothing("gone/1")
            assert self.raw_list() == {"a/g/2", "b/1"}
            if storage.move_folder("a", "c"):
                self.raw_write("a/g/2", b"anew")
                delete("a/g/2")
                assert self.raw_list() == {"a/g/2", "b/1"}

    def test_delete_folder(self) -> None:
        """A folder goes with all it holds, unfinished writes too, and no other folder."""
        storage = self.make_storage()
        for key in ("a/x", "a/b/x", "a/b/.tmp-1", "ab/x"):
            self.raw_write(key, b"1")
        storage.delete_folder("a")
        storage.delete_folder("a")
        assert self.raw_list() == {"ab/x"}
        assert "ab" in storage.folders()
        if self.forgets_folders:
            assert storage.folders() == ["ab"]

    def test_make_folder(self) -> None:
        """A folder that must be new is refused if it exists, where there are folders."""
        storage = self.make_storage()
        self.raw_write("x", b"1")
        storage.make_folder("a")
        storage.put("a/x", [b"1"], size=1)
        if self.has_folders:
            with pytest.raises(KeyExistsError, match="'a'"):
                storage.make_folder("a")
            with pytest.raises(KeyMissingError, match="b/c"):
                storage.make_folder("b/c")
            storage.make_folder("empty")
            assert storage.folders() == ["a", "empty"]
        assert self.raw_list() == {"x", "a/x"}

    def test_prune(self) -> None:
        """An empty folder goes; one that holds something, or is gone, is left as it is."""
        storage = self.make_storage()
        storage.put("a/b/x", [b"1"], size=1, parents=True)
        for key in ("a/b", "a", "a/b/x", "nothing/here"):
            storage.prune(key)
        assert self.raw_list() == {"a/b/x"}
        storage.delete("a/b/x")
        for key in ("a/b", "a", "a"):
            storage.prune(key)
        if self.forgets_folders:
            assert storage.folders() == []

    def test_move_folder(self) -> None:
        """A folder is renamed in one step, or nothing is done; a late writer does not revive it."""
        storage = self.make_storage()
        for key in ("a/x", "a/b/x", "taken/x"):
            self.raw_write(key, b"1")
        if not storage.move_folder("a", "_pending/deleted-1"):
            assert self.raw_list() == {"a/x", "a/b/x", "taken/x"}
            return
        moved = {"_pending/deleted-1/x", "_pending/deleted-1/b/x", "taken/x"}
        assert self.raw_list() == moved
        with pytest.raises(KeyMissingError):
            storage.put("a/late", [b"1"], size=1)
        with pytest.raises(KeyMissingError, match="'a'"):
            storage.move_folder("a", "_pending/deleted-2")
        with pytest.raises(KeyExistsError, match="'taken'"):
            storage.move_folder("_pending", "taken")
        assert self.raw_list() == moved
