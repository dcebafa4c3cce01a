"""Recording: the time in which the steps or the ``with`` block of a run execute."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ContextDecorator, suppress
from types import TracebackType
from typing import Protocol, Self, TypeVar

from mltraq_ds.errors import RunError, UsageError
from mltraq_ds.place import Active, Place, Unreachable
from mltraq_ds.store.layout import now_text

__all__ = ["Recording"]


class _Run(Protocol):
    status: str
    finished: str | None

    def fail(self, error: RunError) -> None:
        """Note what ended it."""


T = TypeVar("T", bound=_Run)


class Recording(AbstractContextManager[T], ContextDecorator):
    """Note begin, end and failure of what happens inside; DataStoreIO means the store of this run meanwhile.

    A class and no generator: a thousand runs are made at a time, and a generator takes three times as long.

    Parameters
    ----------
    begin : callable
        Asked for the run, and its store if it has one, when the block begins.
    reraise : bool
        Whether an error passes on after it was noted.
    """

    def __init__(self, begin: Callable[[], tuple[T, Place | Unreachable | None]], *, reraise: bool) -> None:
        self._begin = begin
        self._reraise = reraise
        self._run: T | None = None
        self._active: Active | None = None
        self._is_over = False

    def _recreate_cm(self) -> Self:
        # As a decorator: a block for each call.
        return type(self)(self._begin, reraise=self._reraise)

    def __enter__(self) -> T:
        if self._run is not None:
            raise UsageError(
                "The block was not begun because it was entered before, and belongs to the run made then. Call run() "
                "for each with block."
            )
        self._run, place = run, _ = self._begin()
        try:
            # Past `Run.__setattr__`, which is for what users set.
            vars(run).update(status="running", exception=None, started=now_text(), finished=None)
            if place is not None:
                self._active = Active(place)
                self._active.__enter__()
        except BaseException as error:  # an interrupt: nobody calls `__exit__` now
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        run, self._is_over = self._run, True
        assert run is not None, "left before it was entered"
        try:
            if self._active is not None:
                self._active.__exit__()
            if kind is None:
                run.status = "success"
            elif issubclass(kind, Exception):  # kept as the run's exception; the other runs go on
                run.fail(_as_run_error(error if isinstance(error, Exception) else kind()))
        except Exception as failure:
            run.fail(_as_run_error(failure))
            raise
        finally:
            if run.status == "running":
                run.status = "failed"  # interrupted by something that is not an error
            run.finished = now_text()
        return kind is not None and issubclass(kind, Exception) and not self._reraise

    def __del__(self) -> None:
        # A block that was begun and dropped, in a generator that nobody finished: its store must not stay active.
        if self._run is not None and not self._is_over:
            with suppress(ValueError):  # in another context than it was begun in, where the variable is not ours
                self.__exit__(GeneratorExit, None, None)


def _as_run_error(error: Exception) -> RunError:
    name, text = type(error).__name__, "".join(traceback.format_exception(error))
    try:
        message = f"{name}: {error}"
    except Exception:  # noqa: BLE001 - the text is made by the step's own class; a run must not be lost over it
        message = f"{name}: its text cannot be made"
    return RunError(message, name, text)
