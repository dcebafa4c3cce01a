"""One test for each figure; pytest-benchmark's clock is that of the process that did the work."""

from __future__ import annotations

import pytest

from bench.row import Row
from bench.runner import Figures


class Replay:
    """A clock that goes on by what a worker process has measured.

    Contestants are measured interleaved, each in a fresh process; pytest-benchmark measures one function after the
    other in its own.  So it is shown the figures instead of the work.
    """

    def __init__(self, seconds: list[float]) -> None:
        self._waiting = iter(seconds)
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def play(self) -> None:
        self._now += next(self._waiting)


def test_bench(benchmark, row: Row, contestant: str, label: str, measured: Figures) -> None:  # type: ignore[no-untyped-def]
    """Each contestant does the work and reads back what it wrote; the figures are its own."""
    reason = measured.skipped.get(contestant)
    if reason:
        pytest.skip(reason)
    figure = measured.figure(label, contestant)
    replay = Replay(figure.seconds)
    benchmark._timer = replay
    benchmark.group = f"{row.name}: {label}"
    benchmark.extra_info.update(figure.as_json(measured.reference(label)))
    benchmark.pedantic(replay.play, rounds=len(figure.seconds), iterations=1)
    assert figure.seconds
