"""Mappings: parts of files in memory that stay right, and touchable, whatever others do to the file.

A mapping shows what the file holds *now*.  Who copies another file over it changes arrays that were handed out, and who
cuts it makes touching them a SIGBUS, which ends the process; the kernel takes even pages away that were written to.
So what is mapped is leased first (Linux, ``fcntl(2)``): who opens the file for writing then waits, until a thread of
ours has put memory with the same bytes in the place of every mapping, at the same address, and ended the lease.
``docs/decisions/012-leases.md`` says what else was tried.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

if sys.platform == "linux":
    import fcntl

__all__ = ["Descriptor", "Leased", "has_room"]

_UNTRACKED = {"trackfd": False} if sys.version_info >= (3, 13) else {}
_F_SETOWN_EX, _F_OWNER_TID = 15, 0
# Ignored by default, so that one that goes astray does nothing.
_SIGNAL = getattr(signal, "SIGURG", 0)


def _max_open() -> int:
    # Mappings hold descriptors, and arrays may live long: the rest is left to the program, and reads are copied.
    try:
        import resource
    except ImportError:  # pragma: no cover - Windows
        return 256
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 16_384 if soft == resource.RLIM_INFINITY else min(soft // 2, 16_384)


def has_room() -> bool:
    """Tell whether one more range may be mapped: it may cost two descriptors, its own and that of the file."""
    return len(_state.mappings) + len(_state.files) + 2 <= _max_open()


class Descriptor:
    """A file descriptor that is closed when nobody uses it: not under the hands of a thread that is reading."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a file descriptor means nothing elsewhere")

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.number)


class Leased:
    """An open file that nobody changes unnoticed while ranges of it are mapped.

    Where the system grants no lease (not Linux, somebody else's file, a file system without) ranges are mapped all the
    same: `docs/explanation/durability.md` says what that means.

    Parameters
    ----------
    file : Descriptor
        Open for reading only.
    """

    def __init__(self, file: Descriptor) -> None:
        self._file = file
        self._lock = threading.RLock()
        self._is_held = False
        self._mappings: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()

    @property
    def number(self) -> int:
        """The number of the descriptor."""
        return self._file.number

    def map(self, offset: int, size: int, check: Callable[[], None]) -> mmap.mmap:
        """Return a private mapping; `check` is called when nobody can change the file any more.

        Raises
        ------
        OSError
            If it cannot be mapped, or somebody is changing it: reading may still be possible.
        ValueError
            If the file is shorter than that.
        """
        _state.files.add(self)  # before the lock is taken: a forked child makes the locks of these anew
        with self._lock:
            if self._is_held and self._is_wanted():
                raise BlockingIOError("somebody waits to change it")
            self._is_held = self._is_held or self._take()
            check()  # always: who waited for the lock has looked before somebody changed the file
            mapping = mmap.mmap(self.number, size, access=mmap.ACCESS_COPY, offset=offset, **_UNTRACKED)
            self._mappings.add(mapping)
            _state.mappings[mapping] = self  # the lease lasts as long as the mapping
        return mapping

    def _take(self) -> bool:
        """Take the lease; False where there is none to be had."""
        if sys.platform != "linux":  # pragma: no cover
            return False
        try:
            fcntl.fcntl(self.number, _F_SETOWN_EX, struct.pack("ii", _F_OWNER_TID, _state.watch()))
            fcntl.fcntl(self.number, fcntl.F_SETSIG, _SIGNAL)
            fcntl.fcntl(self.number, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            raise  # somebody has it open for writing
        except (OSError, RuntimeError):
            return False  # somebody else's file, a file system without leases, or the interpreter is about to end
        return True

    def _is_wanted(self) -> bool:
        return sys.platform == "linux" and fcntl.fcntl(self.number, fcntl.F_GETLEASE) != fcntl.F_RDLCK

    def give_way(self) -> None:
        """If somebody waits to change the file, make every mapping memory of our own, and let them."""
        from mltraq_ds.storage.remapping import move_to_memory  # imports ctypes, which only mappings need

        with self._lock:
            if not self._is_held or not self._is_wanted():
                return
            for mapping in list(self._mappings):
                with suppress(OSError):  # no memory for this one; the others are still worth it
                    move_to_memory(mapping)
            self._mappings.clear()
            self._is_held = False
            if sys.platform == "linux":
                fcntl.fcntl(self.number, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def take_again(self) -> None:
        """Take a lease of one's own in a forked child: that of the parent tells the parent only."""
        self._lock = threading.RLock()
        if self._is_held:
            self._is_held = False
            with suppress(OSError):
                again = os.open(f"/proc/self/fd/{self.number}", os.O_RDONLY | os.O_CLOEXEC)
                os.dup2(again, self.number, inheritable=False)
                os.close(again)
                self._is_held = self._take()


class _State:
    """What one process has mapped, and the thread that is told when somebody wants to change it."""

    def __init__(self) -> None:
        self.mappings: weakref.WeakKeyDictionary[mmap.mmap, Leased] = weakref.WeakKeyDictionary()
        self.files: weakref.WeakSet[Leased] = weakref.WeakSet()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._is_registered = False

    def watch(self) -> int:
        """Return the id of the thread, started when it is first needed."""
        if not self._is_registered:
            self._is_registered = True
            os.register_at_fork(after_in_child=self._after_fork)
        with self._lock:
            if self._thread is None:
                import mltraq_ds.storage.remapping  # noqa: F401 - not at the moment when it is needed

                ready = threading.Event()
                thread = threading.Thread(target=self._run, args=(ready,), name="mltraq_ds-leases", daemon=True)
                thread.start()
                ready.wait()
                self._thread = thread
            return self._thread.native_id or 0

    def _run(self, ready: threading.Event) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the others are the program's
        ready.set()
        while True:
            signal.sigwaitinfo({_SIGNAL})
            for file in list(self.files):
                with suppress(OSError):
                    file.give_way()

    def _after_fork(self) -> None:
        self._lock, self._thread = threading.RLock(), None
        for file in list(self.files):
            file.take_again()


_state = _State()
