"""Work on many blobs at once: threads, a progress bar, and a summary of what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mltraq_ds.errors import MltraqDSError, RemotesError, UsageError
from mltraq_ds.settings import resolve

__all__ = ["Failures", "do"]

T = TypeVar("T")
R = TypeVar("R")

_JOBS = 8
_SHOWN = 5


class Failures:
    """What could not be done, by the key of the blob."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.causes: dict[str, str] = {}

    def raise_any(self, total: int) -> None:
        """Raise `RemotesError` with a summary if anything failed; the rest was done."""
        if not self.causes:
            return
        keys_by_cause: dict[str, list[str]] = {}
        for key, cause in self.causes.items():
            keys_by_cause.setdefault(cause.replace(key, ""), []).append(key)
        shown = [_line(keys, self.causes[keys[0]]) for keys in list(keys_by_cause.values())[:_SHOWN]]
        if len(keys_by_cause) > _SHOWN:
            shown.append(f"… and {len(keys_by_cause) - _SHOWN} other causes.")
        raise RemotesError(
            f"{len(self.causes)} of {total} blobs could not be {self.verb}. {' '.join(shown)} What was done stays; run "
            "it again to finish."
        )


def _line(keys: list[str], cause: str) -> str:
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{keys[0]}{more}: {cause}"


def do(
    work: Callable[[T], R],
    items: Sequence[T],
    name: Callable[[T], str],
    failures: Failures,
    jobs: int | None = None,
    *,
    is_shown: bool = True,
) -> list[R]:
    """Do `work` on every item, several at a time; what fails is noted and the others go on.

    Parameters
    ----------
    work : callable
        Safe in threads.
    items : sequence
        What it is done on.
    name : callable
        Gives the key under which a failure is noted.
    failures : Failures
        Gets what failed.
    jobs : int, optional
        Number of threads; 8 by default.
    is_shown : bool
        Show a progress bar.

    Returns
    -------
    list
        The results of what succeeded, in order.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs={jobs} is refused: use at least 1.")

    def attempt(item: T) -> tuple[bool, R | None]:
        try:
            return True, work(item)
        except (MltraqDSError, OSError) as error:
            failures.causes[name(item)] = str(error)
            return False, None

    results: list[R] = []
    with ThreadPoolExecutor(jobs or _JOBS) as threads:
        done = threads.map(attempt, items)
        for is_done, result in progress_bar(done, len(items), failures.verb) if is_shown else done:
            if is_done:
                results.append(result)  # type: ignore[arg-type]
    return results


def progress_bar(items: Iterable[T], total: int, verb: str) -> Iterable[T]:
    """Show how far the work is, unless option ``tqdm.disable`` says not to."""
    if resolve()["tqdm.disable"]:
        return items
    from tqdm.auto import tqdm

    shown: Iterable[T] = tqdm(items, total=total, desc=f"blobs {verb}", unit="blob")
    return shown
