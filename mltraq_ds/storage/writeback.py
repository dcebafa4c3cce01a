"""Writeback: let the disk begin while the rest of a large file is still being hashed and written.

Without it the disk idles until the last byte is written, and then the processor idles until the last byte is on disk.
It is a hint only: `fsync` at the end still waits for every byte and reports every error, also of what was begun here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache

__all__ = ["STEP", "Writeback"]

#: How much is written before the disk is told (bytes).
STEP = 32 * 1024 * 1024

_SYNC_FILE_RANGE_WRITE = 2  # begins and does not wait, so it takes no error away from the fsync that follows


class Writeback:
    """Begins to write back a file that is written from its start.

    Parameters
    ----------
    fd : int
        Open for writing.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._begun = 0
        self._written = 0

    def advance(self, size: int) -> None:
        """Note that `size` more bytes were written; they are begun with when they are many."""
        self._written += size
        if self._written - self._begun >= STEP:
            # The last page may be half full, and would be written twice.
            end = self._written - self._written % os.sysconf("SC_PAGE_SIZE")
            _begin()(self._fd, self._begun, end - self._begun)
            self._begun = end


@cache
def _begin() -> Callable[[int, int, int], object]:
    if sys.platform != "linux":  # pragma: no cover - elsewhere the disk begins when it likes
        return _do_nothing
    import ctypes  # only large files need it

    try:
        function = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError):  # pragma: no cover - a C library without it
        return _do_nothing
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return lambda fd, start, size: function(fd, start, size, _SYNC_FILE_RANGE_WRITE)


def _do_nothing(fd: int, start: int, size: int) -> None:
    pass
