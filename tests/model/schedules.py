"""Random schedules, and what must hold of the protocol model when all is quiet again.

Who acts, in which order, who sleeps and who dies is drawn here, for the model and for the real code alike:
`tests/concurrency/test_schedules.py` brings a world and acts of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from protocol import (
    GRACE,
    LEASE,
    Experiment,
    Refused,
    Steps,
    Violation,
    World,
    delete,
    persist,
    put_single,
    read,
    sweep,
)


@dataclass(eq=False)
class Actor:
    steps: Steps
    title: str
    asleep: int = 0  # steps of the schedule until it wakes; its lease is not renewed meanwhile


@dataclass(frozen=True)
class Acts:
    """What actors do, each as steps; and what somebody may hold who loads now."""

    persist: Callable[..., Steps]
    delete: Callable[..., Steps]
    read: Callable[..., Steps]
    sweep: Callable[..., Steps]
    put_single: Callable[..., Steps]
    load: Callable[..., list[Experiment]]


def load(w: World) -> list[Experiment]:
    """Return about half of what is there."""
    loaded = []
    for key, folder in w.folders.items():
        gen = folder.current
        alone = frozenset(folder.singles.values()) - (gen.folds if gen else frozenset())
        if (alone or (gen and not gen.deleted)) and w.random.random() < 0.5:
            loaded.append(Experiment(key, None if gen and gen.deleted else gen, alone))
    return loaded


MODEL = Acts(persist, delete, read, sweep, put_single, load)


def run_all(w: World, steps: Steps) -> None:
    w.running = None
    for count, _ in enumerate(steps):
        w.check()
        if count > 2000:
            raise Violation("I5 does not end")
    w.check()


def interleave(w: World, actors: list[Actor], crash: float, sleep: float) -> None:
    """Run to the end in a random order; any may die between two steps, or sleep until its lease is long over."""
    for _ in range(5000):
        if not actors:
            return
        w.now += 1
        for actor in actors:
            actor.asleep -= 1
        awake = [actor for actor in actors if actor.asleep <= 0]
        if not awake:
            continue
        for intent in w.intents.values():
            if intent.by in awake:
                intent.renewed = w.now
        w.running = actor = w.random.choice(awake)
        dice = w.random.random()
        if dice < crash:
            actors.remove(actor)
        elif dice < crash + sleep:
            actor.asleep = w.random.choice((3, 10, 50))
            w.now += w.random.choice((0, LEASE + 1, GRACE + LEASE))
        if w.inflight and w.random.random() < 0.1:
            w.create(*w.inflight.pop())
            w.check()
        if dice < crash + sleep:
            continue
        try:
            for _ in range(w.random.choice((1, 1, 2, 5, 30))):
                next(actor.steps)
                w.check()
        except (StopIteration, Refused):
            actors.remove(actor)
        w.check()
    raise Violation(f"I5 ends not: {[actor.title for actor in actors]}")


def actors(w: World, loaded: list[Experiment], acts: Acts, *, singles: bool) -> list[Actor]:
    """Up to four writers, a deleter, a sweeper, a reader; some hold what they loaded before the others began."""
    rnd, ids, names = w.random, ["x", "y", "z"], ["n", "m"]
    found = []
    for _ in range(rnd.randint(1, 4)):
        mode = rnd.choice(("fail", "update", "update", "overwrite", "replace", "replace"))
        old = rnd.choice(loaded)
        new = mode in ("fail", "replace") and rnd.random() < 0.7
        exp = Experiment(rnd.choice(ids)) if new else Experiment(old.id, old.base, old.read)
        name = rnd.choice(names) if rnd.random() < 0.3 or not exp.base else exp.base.name
        title = f"{mode} {exp.id} as {name} on {exp.base and exp.base.ident}"
        found.append(Actor(acts.persist(w, exp, name, mode), title))
    for kind, chance in ((acts.delete, 0.4), (acts.read, 0.5)):
        if rnd.random() < chance:
            found.append(Actor(kind(w, rnd.choice(ids)), kind.__name__))
    for _ in range(rnd.choice((0, 0, 1, 3)) if singles else 0):
        key, run = rnd.choice(ids), rnd.choice("rs")
        found.append(Actor(acts.put_single(w, key, run), f"put {run} of {key}"))
    if rnd.random() < 0.33:
        found.append(Actor(acts.sweep(w), "sweep"))
    return found


def schedule(seed: int, *, local: bool, bad: frozenset[str] = frozenset(), singles: bool = False) -> World:
    """Waves of actors with crashes, then quiescence, recovery, sweep without grace, and what must hold then."""
    w = World(seed, local=local, bad=bad)
    loaded = [Experiment("x"), Experiment("y")]
    for exp, name in zip(loaded, "nm", strict=True):
        run_all(w, persist(w, exp, name))
    waves(w, loaded, MODEL, singles=singles)
    settle(w)
    return w


def waves(w: World, loaded: list[Experiment], acts: Acts, *, singles: bool = False) -> None:
    """Have actors act, wave after wave; after each, some of what is there is loaded and held."""
    for _ in range(w.random.randint(1, 3)):
        crash, jump = w.random.choice((0, 0.01, 0.05)), w.random.choice((0, 0.03, 0.15))
        interleave(w, actors(w, loaded, acts, singles=singles), crash, jump)
        loaded += acts.load(w)


def settle(w: World) -> None:
    while w.inflight:
        w.create(*w.inflight.pop())
        w.check()
    w.now += GRACE + LEASE
    for _ in range(2):
        run_all(w, sweep(w, grace=0))
    w.check_singles()
    live = {}
    for key, folder in w.folders.items():
        gen = folder.current
        held = gen.blobs | gen.records if gen else frozenset()
        if (gen and not gen.deleted and held != folder.files.keys()) or ((not gen or gen.deleted) and folder.files):
            raise Violation(f"I4 orphans in {key}: {folder.files.keys() - held}")
        if folder.singles and not folder.marked:
            raise Violation(f"I9 {key} has records and no mark")
        is_dead = (gen is None or gen.deleted) and not set(folder.singles.values()) - (gen.folds if gen else set())
        if (is_dead and w.local) or folder.staged or len(folder.gens) > 1:
            raise Violation(f"I4 {key} is left over")
        if gen and not gen.deleted:
            live[key] = (gen.ident, gen.name)
    if w.trash or w.intents or w.fenced:
        raise Violation(f"I4 pending is not empty: {w.trash} {w.intents} {w.fenced}")
    if live != w.rows:
        raise Violation(f"I6 index {w.rows}, files {live}")
    owners = {name: key for key, (_, name) in live.items()}
    if len(owners) != len(live):
        raise Violation(f"I3 a name has two: {live}")
    if w.names != {name: (key, None) for name, key in owners.items()}:
        raise Violation(f"I6 names {w.names}, files {owners}")
    for name in ("n", "m"):
        new = Experiment(w.fresh("new"))
        run_all(w, persist(w, new, name, "replace"))
        if w.names.get(name) != (new.id, None):
            raise Violation(f"I5 {name} cannot be taken: {w.names}")
