"""What a storage under test has to tell the conformance suite."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from mltraq_ds.storage.base import Storage

__all__ = ["StorageHooks", "in_threads", "pattern"]


class StorageHooks:
    """Hooks to fill in.  The ``raw_`` ones go *around* the code under test: an error made twice would cancel out.

    Attributes
    ----------
    folder : Path
        A fresh folder for each test; its name is unique, for storages that are no folders too.
    """

    #: Whether a put into a folder that is not there must fail.  Object stores have no folders.
    has_folders: ClassVar[bool] = False
    #: Whether a folder whose last key was removed is gone from `folders` at once.  Some services keep it for a while.
    forgets_folders: ClassVar[bool] = True
    #: The largest value written (bytes).
    largest: ClassVar[int] = 10**6
    #: Number of threads that race for one key.
    racers: ClassVar[int] = 8
    #: How far the clock of the storage may be from that of its files (s).
    clock_tolerance_s: ClassVar[float] = 5.0

    folder: Path

    @pytest.fixture(autouse=True)
    def _fresh_place(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_storage(self) -> Storage:
        """Return a new object for the storage of this test; called several times, for the same place."""
        raise NotImplementedError

    def raw_read(self, key: str) -> bytes:
        """Return the bytes of a key, read by other means."""
        raise NotImplementedError

    def raw_write(self, key: str, data: bytes) -> None:
        """Write a key by other means, in place of what is there, with all folders above it."""
        raise NotImplementedError

    def raw_list(self) -> set[str]:
        """Return every file that there is, also those that the storage hides."""
        raise NotImplementedError


def pattern(size: int) -> bytes:
    """Return `size` bytes in which every place looks different."""
    block = bytes((i * i + (i >> 8)) % 251 for i in range(min(size, 65_521)))
    return (block * (size // len(block) + 1))[:size] if block else b""


def in_threads(count: int, work: Callable[[int], object]) -> list[BaseException | None]:
    """Call ``work(number)`` in `count` threads that start together; return what each raised."""
    outcomes: list[BaseException | None] = [None] * count
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - returned, and shown by the test
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes
