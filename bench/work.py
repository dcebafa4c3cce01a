"""Work: the clock and the scales inside the process of one contestant.  Imports nothing that the work might import."""

from __future__ import annotations

import gc
import mmap
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter, sleep
from typing import Any

__all__ = ["Work"]


class Work:
    """What a contestant is given.

    Parameters
    ----------
    folder : str
        Its own; the working directory too.
    size : mapping
        Of the row.
    round_number : int
        Which repeat this is.
    is_watched : bool
        Whether a thread looks at the anonymous memory meanwhile.  It costs some time, so such a round is not counted.
    """

    def __init__(self, folder: str, size: Mapping[str, Any], round_number: int, is_watched: bool) -> None:
        self.folder = folder
        self.size = size
        self.round_number = round_number
        self.is_watched = is_watched
        self.figures: dict[str, dict[str, float]] = {}

    def path(self, name: str) -> str:
        """Return a path in the folder."""
        return os.path.join(self.folder, name)

    @contextmanager
    def timed(self, label: str) -> Iterator[None]:
        """Measure the time, and what the process needed beyond what it had.

        Memory is touched right before: a virtual machine may give what is free for two seconds back to its host.
        """
        touch(self.size.get("touch_bytes", 0))
        gc.collect()
        reset_peak()
        before = memory()
        watch = Watch() if self.is_watched else None
        start = perf_counter()
        yield
        seconds = perf_counter() - start
        peak = watch.stop() if watch else 0
        after = memory()
        figure: dict[str, float] = {"seconds": seconds, "rss_bytes": max(0, after["VmHWM"] - before["VmRSS"])}
        if watch:
            figure["anonymous_bytes"] = max(0, max(peak, after["RssAnon"]) - before["RssAnon"])
        self.figures[label] = figure


def touch(size_bytes: int) -> None:
    """Touch memory once, twice as much, in small pages and in huge ones, and free all of it together.

    A virtual machine pays extra for what its host does not back, and may give back what is free for two seconds (free
    page reporting).  The kernel keeps large free blocks apart, from which huge pages are taken.
    """
    if not size_bytes:
        return
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, size_bytes, flags=flags) as small, mmap.mmap(-1, size_bytes, flags=flags) as large:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            large.madvise(mmap.MADV_HUGEPAGE)
        for block in (small, large):
            for position in range(0, size_bytes, mmap.PAGESIZE):
                block[position] = 1


def memory() -> dict[str, int]:
    """Return VmHWM, VmRSS and RssAnon (bytes); zeros where there is no /proc."""
    found = {"VmHWM": 0, "VmRSS": 0, "RssAnon": 0}
    try:
        with open("/proc/self/status") as status:
            for line in status:
                name, _, rest = line.partition(":")
                if name in found:
                    found[name] = int(rest.split()[0]) * 1024
    except OSError:
        pass
    return found


def reset_peak() -> None:
    """Let VmHWM start anew."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


class Watch:
    """A thread that looks at the anonymous memory every millisecond."""

    def __init__(self) -> None:
        self._is_wanted = True
        self._peak = 0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while self._is_wanted:
            self._peak = max(self._peak, memory()["RssAnon"])
            sleep(0.001)

    def stop(self) -> int:
        """Return the highest value seen (bytes)."""
        self._is_wanted = False
        self._thread.join()
        return self._peak
