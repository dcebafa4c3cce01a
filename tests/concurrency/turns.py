"""Threads that take turns: real code, stopped at its seams, in an order that the test chooses.

`every_order` runs a story again and again until every order of its steps that can be executed was executed: a
depth-first walk over the choices.  A writer that is refused early has fewer steps, so there are fewer orders then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

TIMEOUT_S = 60


class Died(BaseException):
    """Ends a thread that is to do nothing any more; not an `Exception`, so that nobody goes on after it."""


@dataclass
class Actor:
    """One thread; `pause` is called by the code under test, in this thread, at each seam."""

    name: str
    body: Callable[[Callable[[str], None]], Any]
    result: Any = None
    error: BaseException | None = None
    at: str = ""
    is_over: bool = False
    is_dead: bool = False
    _go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _stopped: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Run to the first seam."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._wait()

    def step(self) -> None:
        """Run to the next seam or to the end."""
        self._go.release()
        self._wait()

    def pause(self, at: str) -> None:
        if threading.current_thread() is not self._thread:
            return
        if self.is_dead:
            raise Died
        self.at = at
        self._stopped.release()
        if not self._go.acquire(timeout=TIMEOUT_S):
            raise AssertionError("nobody gave this actor its turn")
        if self.is_dead:
            raise Died

    def end(self) -> None:
        """Have a thread that will get no turn any more do nothing else and end."""
        self.is_dead = True
        if self._thread is not None and not self.is_over:
            self.step()

    def _wait(self) -> None:
        if not self._stopped.acquire(timeout=TIMEOUT_S):
            raise AssertionError(f"{self.name} waits for ever after {self.at}: a lock is held over a seam")

    def _run(self) -> None:
        try:
            self.result = self.body(self.pause)
        except BaseException as error:  # noqa: BLE001 - judged by the test
            self.error = error
        finally:
            self.is_over = True
            self._stopped.release()


@dataclass
class Order:
    """One execution: who went when, and who could have gone instead."""

    choices: list[tuple[int, list[int]]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def play(actors: list[Actor], choose: Callable[[int, list[int]], int]) -> Order:
    """Let actors take turns until all are over."""
    order = Order()
    for actor in actors:
        actor.start()
    while ready := [number for number, actor in enumerate(actors) if not actor.is_over]:
        chosen = choose(len(order.choices), ready)
        order.choices.append((chosen, ready))
        order.told.append(f"{actors[chosen].name}:{actors[chosen].at}")
        actors[chosen].step()
    return order


def every_order(story: Callable[[Callable[[int, list[int]], int]], Order], limit: int | None = None) -> int:
    """Run a story in every order and return how many there are; `limit` fails a story that has too many."""
    prefix: list[int] | None = []
    count = 0
    while prefix is not None:
        order = story(lambda step, ready, prefix=prefix: prefix[step] if step < len(prefix) else ready[0])
        count += 1
        assert limit is None or count <= limit, f"more than {limit} orders: group some seams"
        prefix = _next(order)
    return count


def random_orders(story: Callable[[Callable[[int, list[int]], int]], Order], seeds: range) -> int:
    """Run a story in random orders, one for each seed."""
    for seed in seeds:
        dice = Random(seed)
        story(lambda step, ready, dice=dice: dice.choice(ready))
    return len(seeds)


def _next(order: Order) -> list[int] | None:
    for position in reversed(range(len(order.choices))):
        chosen, ready = order.choices[position]
        later = [number for number in ready if number > chosen]
        if later:
            return [c for c, _ in order.choices[:position]] + [later[0]]
    return None
