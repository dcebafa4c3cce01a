"""Recording: the time in which the steps or the ``with`` block of a run execute."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, TypeVar

from mltraq_ds.errors import RunError
from mltraq_ds.place import Active, Place, Unreachable
from mltraq_ds.store.layout import now_text

__all__ = ["Recording"]


class _Run(Protocol):
    status: str
    finished: str | None

    def fail(self, error: RunError) -> None:
        """Note what ended it."""


T = TypeVar("T", bound=_Run)


class Recording(AbstractContextManager[T]):
    """Note begin, end and failure of what happens inside; DataStoreIO means the store of this run meanwhile.

    A class and no generator: a thousand runs are made at a time, and a generator takes three times as long.

    Parameters
    ----------
    begin : callable
        Asked for the run, and its store if it has one, when the block begins.
    reraise : bool
        Whether an error passes on after it was noted.
    """

    __slots__ = ("_active", "_begin", "_reraise", "_run")

    def __init__(self, begin: Callable[[], tuple[T, Place | Unreachable | None]], *, reraise: bool) -> None:
        self._begin = begin
        self._reraise = reraise

    def __enter__(self) -> T:
        self._run, place = run, _ = self._begin()
        # Past `Run.__setattr__`, which is for what users set.
        vars(run).update(status="running", exception=None, started=now_text(), finished=None)
        self._active = None if place is None else Active(place)
        if self._active is not None:
            self._active.__enter__()
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        run = self._run
        if self._active is not None:
            self._active.__exit__(kind, error, trace)
        if error is None:
            run.status = "success"
        elif isinstance(error, Exception):  # kept as the run's exception; the other runs go on
            run.fail(_as_run_error(error))
        elif run.status == "running":
            run.status = "failed"  # interrupted by something that is not an error
        run.finished = now_text()
        return isinstance(error, Exception) and not self._reraise


def _as_run_error(error: Exception) -> RunError:
    name, text = type(error).__name__, "".join(traceback.format_exception(error))
    try:
        message = f"{name}: {error}"
    except Exception:  # noqa: BLE001 - the text is made by the step's own class; a run must not be lost over it
        message = f"{name}: its text cannot be made"
    return RunError(message, name, text)
