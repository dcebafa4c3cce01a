"""Where a storage cannot create if absent, notes keep writers apart: every order of their steps is tried."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


class Place:
    """A storage that only writes and reads: intents, and generations that a second put replaces."""

    def __init__(self) -> None:
        self.intents: set[int] = set()
        self.generations: dict[int, int] = {}
        self.told: list[tuple[int, int]] = []


def writer(place: Place, me: int, *, looks_first: bool, expires: bool) -> Iterator[None]:
    """Persist once, one request a step.  With `expires` others may take us for dead while we sleep."""
    if looks_first:
        others = place.intents - {me}
        yield
        place.intents.add(me)
    else:
        place.intents.add(me)
        yield
        others = place.intents - {me}
    if others:
        yield
        place.intents.discard(me)
        return
    yield
    number = max(place.generations, default=0) + 1
    yield
    if number in place.generations or me not in place.intents:
        place.intents.discard(me)
        return
    if expires:
        place.intents.discard(me)  # between the last look and the put: nobody can tell sleep from death
    yield
    place.generations[number] = me
    place.told.append((number, me))
    yield
    place.intents.discard(me)


def outcomes(count: int, **rules: bool) -> Iterator[Place]:
    """Yield the end of every order of the steps of `count` writers."""
    steps = 7
    for order in orders([steps] * count):
        place = Place()
        writers = [writer(place, number, **rules) for number in range(count)]
        for number in order:
            next(writers[number], None)
        yield place


def orders(left: list[int]) -> Iterator[tuple[int, ...]]:
    """Yield every order of the given numbers of steps."""
    if not any(left):
        yield ()
        return
    for number, count in enumerate(left):
        if count:
            rest = [*left[:number], count - 1, *left[number + 1 :]]
            for order in orders(rest):
                yield (number, *order)


def lost(place: Place) -> bool:
    """Tell whether somebody was told that it is persisted, and it is not there."""
    return any(place.generations.get(number) != me for number, me in place.told)


def test_nothing_is_lost_while_notes_hold() -> None:
    """Two writers in every order: nobody who was told "persisted" is overwritten, and no note stays."""
    seen = 0
    for place in outcomes(2, looks_first=False, expires=False):
        seen += 1
        assert not lost(place)
        assert not place.intents
    assert seen == 3432


@pytest.mark.parametrize("rules", [{"looks_first": True, "expires": False}, {"looks_first": False, "expires": True}])
def test_what_the_rules_are_for(rules: dict[str, bool]) -> None:
    """Looking before the note is written loses a version; so does a sleep longer than the lease, as the docs say."""
    assert any(lost(place) for place in outcomes(2, **rules))
