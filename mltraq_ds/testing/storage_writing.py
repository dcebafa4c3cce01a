"""Conformance of writing: whole or not at all, in place of nothing or all of the old."""

from __future__ import annotations

import errno
import threading
from array import array
from collections.abc import Iterator
from functools import partial

import pytest

from mltraq_ds.errors import KeyExistsError, KeyMissingError, ValueChangedError
from mltraq_ds.storage.base import Buffer
from mltraq_ds.testing.storage_hooks import StorageHooks, in_threads, pattern

__all__ = ["WritingConformance"]


class _Counted:
    """Buffers that count how often they are iterated from the start."""

    def __init__(self, buffers: list[Buffer]) -> None:
        self.buffers = buffers
        self.iterations = 0

    def __iter__(self) -> Iterator[Buffer]:
        self.iterations += 1
        return iter(self.buffers)


class _Breaking:
    """Buffers that raise after the first."""

    def __init__(self, error: BaseException, first: bytes) -> None:
        self.error = error
        self.first = first

    def __iter__(self) -> Iterator[Buffer]:
        yield self.first
        raise self.error


class WritingConformance(StorageHooks):
    """What `put` promises."""

    @pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4095, 4096, 4097, 65_535, 65_536, 65_537, 10**6, None])
    def test_sizes(self, size: int | None) -> None:
        """A value of any size is stored byte for byte; None is the largest."""
        data = pattern(self.largest if size is None else size)
        self.make_storage().put("a/x", [data], size=len(data), parents=True)
        assert self.raw_read("a/x") == data
        assert self.make_storage().read("a/x") == data

    def test_buffers_of_every_kind(self) -> None:
        """Buffers of any item size and shape are written as their bytes; empty ones are nothing."""
        numbers = array("q", [-1, 2**40])
        table = memoryview(bytes(range(6))).cast("B", (2, 3))
        nothing = memoryview(bytearray()).cast("i")
        buffers: list[Buffer] = [b"ab", bytearray(b"cd"), b"", memoryview(numbers), nothing, table]
        data = b"abcd" + numbers.tobytes() + bytes(range(6))
        self.make_storage().put("a/x", buffers, size=len(data), parents=True)
        assert self.raw_read("a/x") == data

    def test_many_buffers(self) -> None:
        """More buffers than one system call takes (1,024), small and large by turns, arrive in order."""
        buffers: list[Buffer] = [pattern(size) for i in range(1500) for size in (i % 7, 3000 if i % 100 else 70_000)]
        data = b"".join(buffers)
        self.make_storage().put("a/x", buffers, size=len(data), parents=True)
        assert self.raw_read("a/x") == data

    def test_buffers_are_iterated_once(self) -> None:
        """An attempt that succeeds makes its buffers once: making them is the expensive part."""
        buffers = _Counted([b"12", b"3"])
        self.make_storage().put("a/x", buffers, size=3, parents=True)
        assert self.raw_read("a/x") == b"123"
        assert buffers.iterations == 1

    def test_large_value_in_many_buffers(self) -> None:
        """A value above the size that is sent in one piece arrives whole."""
        block = pattern(2**20)
        self.make_storage().put("a/x", [block] * 9, size=9 * 2**20, parents=True)
        assert self.raw_read("a/x") == block * 9

    @pytest.mark.parametrize("size", [3, 10 * 2**20])
    def test_existing_key_stays(self, size: int) -> None:
        """A key that exists is refused and left as it is."""
        storage = self.make_storage()
        storage.put("a/x", [b"old"], size=3, parents=True)
        before = self.raw_list()
        with pytest.raises(KeyExistsError, match="a/x"):
            storage.put("a/x", [pattern(size)], size=size, parents=True)
        assert self.raw_read("a/x") == b"old"
        assert self.raw_list() == before

    @pytest.mark.parametrize("size", [0, 1, 10 * 2**20])
    def test_replace(self, size: int) -> None:
        """With `replace` a key takes the new bytes, longer or shorter, whether it existed or not."""
        storage = self.make_storage()
        storage.put("a/x", [b"old"], size=3, parents=True, replace=True)
        storage.put("a/x", [pattern(size)], size=size, replace=True)
        assert self.raw_read("a/x") == pattern(size)
        assert {stat.key for stat in self.make_storage().list()} == {"a/x"}

    def test_replace_is_one_step(self) -> None:
        """A reader during many replacements sees one of the versions, never a mixture or nothing."""
        storage, reader = self.make_storage(), self.make_storage()
        versions = [bytes([i]) * (50_000 + i) for i in range(8)]
        storage.put("a/x", [versions[0]], size=len(versions[0]), parents=True)
        is_done = threading.Event()
        seen: list[object] = []

        def look() -> None:
            while not is_done.is_set():
                try:
                    seen.append(reader.read("a/x") in versions)
                except Exception as error:  # noqa: BLE001 - shown by the assertion below
                    seen.append(error)

        thread = threading.Thread(target=look)
        thread.start()
        for version in versions * 3:
            storage.put("a/x", [version[:100], version[100:]], size=len(version), replace=True)
        is_done.set()
        thread.join()
        assert seen
        assert set(seen) == {True}

    def test_missing_folder(self) -> None:
        """Without `parents` nothing is put into a folder that is not there, where there are folders; with it, it is."""
        storage = self.make_storage()
        storage.put("x", [b"1"], size=1, parents=True)
        if self.has_folders:
            with pytest.raises(KeyMissingError, match="folder does not exist"):
                storage.put("gone/deep/x", [b"1"], size=1)
            assert self.raw_list() == {"x"}
        storage.put("gone/deep/x", [b"1"], size=1, parents=True)
        assert self.raw_list() == {"x", "gone/deep/x"}

    @pytest.mark.parametrize("size", [10, 20 * 2**20])
    @pytest.mark.parametrize("replace", [False, True])
    @pytest.mark.parametrize("error", [ZeroDivisionError("x"), OSError(errno.EIO, "x"), KeyboardInterrupt()])
    def test_failing_buffers(self, error: BaseException, replace: bool, size: int) -> None:
        """An error of the buffers passes as it is, and nothing has changed."""
        storage = self.make_storage()
        storage.put("a/old", [b"old"], size=3, parents=True)
        key = "a/old" if replace else "a/x"
        with pytest.raises(type(error)) as caught:
            storage.put(key, _Breaking(error, pattern(size // 2)), size=size, replace=replace)
        assert caught.value is error
        assert self.raw_list() == {"a/old"}
        assert self.raw_read("a/old") == b"old"

    @pytest.mark.parametrize("announced", [2, 4, 20 * 2**20])
    def test_wrong_size(self, announced: int) -> None:
        """Buffers that hold more or fewer bytes than announced are refused, and nothing is visible."""
        storage = self.make_storage()
        storage.put("a/old", [b"old"], size=3, parents=True)
        for key, replace in (("a/x", False), ("a/old", True)):
            with pytest.raises(ValueChangedError, match=key):
                storage.put(key, [b"12", b"3"], size=announced, replace=replace)
        assert self.raw_list() == {"a/old"}
        assert self.raw_read("a/old") == b"old"

    @pytest.mark.parametrize("replace", [False, True])
    def test_before_publish(self, replace: bool) -> None:
        """What is called before the name is given is called once, and can stop the write."""
        storage = self.make_storage()
        storage.put("a/old", [b"old"], size=3, parents=True)
        calls: list[int] = []

        def stop() -> None:
            raise ZeroDivisionError

        key = "a/old" if replace else "a/x"
        with pytest.raises(ZeroDivisionError):
            storage.put(key, [b"new"], size=3, replace=replace, before_publish=stop)
        assert self.raw_list() == {"a/old"}
        assert self.raw_read("a/old") == b"old"
        storage.put(key, [b"new"], size=3, replace=replace, before_publish=lambda: calls.append(1))
        assert self.raw_read(key) == b"new"
        assert calls == [1]

    def test_flush_later(self) -> None:
        """Keys put without flushing are there, before and after one flush for all."""
        storage = self.make_storage()
        keys = [f"a/{folder}/{i}" for folder in "bc" for i in range(3)]
        for key in keys:
            storage.put(key, [b"1"], size=1, parents=True, flush=False)
        storage.flush(keys)
        storage.flush([])
        assert self.raw_list() == set(keys)

    def test_race_for_one_key(self) -> None:
        """Of many threads that create one key exactly one wins, and its bytes stand, where that is promised."""
        storage = self.make_storage()
        storage.put("a/first", [b"1"], size=1, parents=True)
        if not storage.creates_if_absent:
            pytest.skip("this storage cannot create if absent, and says so")
        for round_ in range(5):
            key = f"a/{round_}"
            outcomes = in_threads(self.racers, partial(self._create, key))
            winners = [number for number, outcome in enumerate(outcomes) if outcome is None]
            assert len(winners) == 1, outcomes
            assert {type(outcome) for outcome in outcomes} == {type(None), KeyExistsError}
            assert self.raw_read(key) == bytes(winners) * 1000

    def _create(self, key: str, number: int) -> None:
        self.make_storage().put(key, [bytes([number])] * 1000, size=1000)

    def test_threads_share_a_storage(self) -> None:
        """One object is used by many threads for different keys, and none is lost."""
        storage = self.make_storage()

        def work(number: int) -> None:
            for i in range(10):
                data = f"{number} {i}".encode()
                storage.put(f"a/{number}/{i}", [data], size=len(data), parents=True)
                assert storage.read(f"a/{number}/{i}") == data

        assert in_threads(self.racers, work) == [None] * self.racers
        assert self.raw_list() == {f"a/{number}/{i}" for number in range(self.racers) for i in range(10)}
