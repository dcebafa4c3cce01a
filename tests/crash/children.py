"""What child processes do, and how they are started: forked from a server that has everything imported.

A fork of the test process itself would take its threads and locks along; starting Python anew takes a second each.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import sqlalchemy as sa

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["mltraq_ds", "mltraq_ds.tracking.session", "mltraq_ds.testing.faults", "numpy", "pandas", "pyarrow", "scene"]
)
KILLED = -9
#: Moments of the database at which a child can die: a statement is due, or was carried out; a commit is due.
STATEMENTS = ("before_cursor_execute", "after_cursor_execute", "commit")


@dataclass
class Child:
    """A process of ours and everything that it printed."""

    process: ForkServerProcess
    output: Path

    def wait(self, timeout_s: float = 60) -> int:
        """Return its exit code; one that does not end is killed and shown."""
        self.process.join(timeout_s)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"a child did not end within {timeout_s:g} s; it said:\n{self.said()}")
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""


def start(folder: Path, function: Callable[..., Any], *arguments: Any, **named: Any) -> Child:
    """Start a function of a module below ``tests`` in a process of its own; its output goes to a file in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"child-{time.monotonic_ns()}.txt"
    process = _context.Process(target=_run, args=(str(output), function, arguments, named), daemon=True)
    process.start()
    return Child(process, output)


def run(folder: Path, function: Callable[..., Any], *arguments: Any, **named: Any) -> Child:
    """Start a function and wait for its end, however it ends."""
    child = start(folder, function, *arguments, **named)
    child.wait()
    return child


def tell(*words: object) -> None:
    """Print one line at one stroke: a child that is killed has told it, or has not."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def die_at_statement(n: int, event: str) -> None:
    """Have this process end by SIGKILL at the n-th moment of one kind, of all databases together."""
    met = itertools.count(1)

    def strike(*_: Any) -> None:
        if next(met) == n:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(sa.engine.Engine, event, strike)


def _run(output: str, function: Callable[..., Any], arguments: Any, named: Any) -> None:
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    try:
        function(*arguments, **named)
    except BaseException:  # noqa: BLE001 - it ends here, and the parent shows what it printed
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
