"""Remapping: memory of our own in the place of a mapped file, under the feet of the arrays that lie in it."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache

__all__ = ["move_to_memory"]

_READ_WRITE, _PRIVATE_ANONYMOUS = 0x3, 0x22
_MAYMOVE_FIXED = 0x3
_FAILED = ctypes.c_void_p(-1).value
_STEP = 2**20


@cache
def _system() -> ctypes.PyDLL:
    # PyDLL keeps the interpreter's lock: no Python thread writes into an array between its copy and its move.
    system = ctypes.PyDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    system.mmap.restype = system.mremap.restype = pointer
    system.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_long)
    system.mremap.argtypes = (pointer, size, size, number, pointer)
    system.munmap.argtypes = (pointer, size)
    return system


def move_to_memory(mapping: mmap.mmap) -> None:
    """Copy a private mapping and move the copy to its address, a MiB at a time; what was written into it is kept.

    A write by another thread that does not hold the interpreter's lock may be lost if it meets its MiB at that moment.

    Raises
    ------
    OSError
        If there is not enough memory.  The rest of the mapping still shows the file.
    """
    system, page = _system(), mmap.PAGESIZE
    first = ctypes.c_char.from_buffer(mapping)
    address, size = ctypes.addressof(first), len(mapping)
    del first  # it would keep the mapping from being closed
    length = -(-size // page) * page
    copy = system.mmap(None, length, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
    if copy == _FAILED:
        raise OSError(ctypes.get_errno(), "no memory for the copy of a mapped file")
    for start in range(0, length, _STEP):
        step = min(_STEP, length - start)
        ctypes.memmove(copy + start, address + start, min(step, size - start))
        if system.mremap(copy + start, step, step, _MAYMOVE_FIXED, address + start) == _FAILED:
            number = ctypes.get_errno()
            system.munmap(copy + start, length - start)
            raise OSError(number, "the copy of a mapped file could not be moved")
