"""The commit protocol holds in random schedules, and every rule that the model can switch off is needed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from protocol import LEASE, Experiment, Refused, Steps, Violation, World, delete, persist, put_single, sweep
from schedules import run_all, schedule, settle


def run_schedules(count: int, *, local: bool, singles: bool = False) -> None:
    for seed in range(count):
        try:
            schedule(seed, local=local, singles=singles)
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}")
    print(f"{count} schedules, {local=}, {singles=}: no violation")


@pytest.mark.parametrize("count", [2000, pytest.param(20_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("local", [True, False], ids=["folders", "object-store"])
def test_nothing_is_lost_in_random_schedules(local: bool, count: int) -> None:
    """Writers, deleters, sweeps, sleepers and crashes leave every invariant standing."""
    run_schedules(count, local=local)


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("local", [True, False], ids=["folders", "object-store"])
def test_no_record_that_was_put_alone_is_lost_in_random_schedules(local: bool, count: int) -> None:
    """Beside all that, records are put alone, loaded and folded: none is lost, and none that was folded comes back."""
    run_schedules(count, local=local, singles=True)


NEEDED_BY_SINGLES = [
    ("fold_all", "I7"),  # folds what is there, not what was read
    ("forget_folds", "I8"),  # what the parent had folded is not listed again
    ("sweep_folded", "I7"),  # sweep removes what it has seen folded; meanwhile a new one has its name
    ("look_once", "I7"),  # whoever puts does not look again whether the experiment has ended
]


@pytest.mark.parametrize(("rule", "invariant"), NEEDED_BY_SINGLES)
def test_random_schedules_find_what_a_broken_rule_loses_of_single_records(rule: str, invariant: str) -> None:
    """Without the rule some schedule loses a record that was put alone, or brings one back."""
    for seed in range(4000):
        try:
            schedule(seed, local=True, bad=frozenset([rule]), singles=True)
        except Violation as violation:
            found = str(violation)
            break
    else:
        pytest.fail(f"{rule} is not needed, or the model cannot show it")
    assert found.startswith(invariant)


NEEDED = [
    ("number_base", True, "I2"),  # base is a bare number; no look above it afterwards; history pruned
    ("number_base", False, "I2"),
    ("keep_any", False, "I1"),  # keeps a blob that exists, but is not one of its parent's
    ("retire_first", True, "I1"),
    ("in_place", True, "I2"),  # the generation is replaced instead of created
    ("no_fence", True, "I"),  # an expired lease is taken for death
    ("no_fence", False, "I"),
    ("sweep_order", True, "I"),  # generations are read before intents
    ("bury_blindly", True, "I2"),  # the folder is renamed without looking what is in it
    ("bury_blindly", False, "I1"),  # bytes of a deleted experiment are removed by listing
    ("unpinned", True, "I2"),  # a replaced experiment is deleted whatever it has become
    ("seen_before_claim", True, "I3"),
    ("index_own", True, "I6"),  # "set to n+1 if older", from memory
    ("guess", False, "I"),  # no generation seen after a timeout, so it was not created
    ("torn_skip", False, "I"),  # O_EXCL, and a file that does not verify is skipped
]


@pytest.mark.parametrize(("rule", "local", "invariant"), NEEDED)
def test_random_schedules_find_what_a_broken_rule_loses(rule: str, local: bool, invariant: str) -> None:
    """Without the rule some schedule breaks an invariant: the model has teeth."""
    for seed in range(6000):
        try:
            schedule(seed, local=local, bad=frozenset([rule]))
        except Violation as violation:
            found = str(violation)
            break
    else:
        pytest.fail(f"{rule} is not needed, or the model cannot show it")
    assert found.startswith(invariant)


def until(w: World, steps: Steps, reached: Callable[[], bool]) -> None:
    """Let one actor run until something is so."""
    while not reached():
        next(steps)
        w.check()


def start(*bad: str, local: bool = True) -> tuple[World, Experiment]:
    w = World(0, local=local, bad=frozenset(bad))
    exp = Experiment("x")
    run_all(w, persist(w, exp, "n"))
    return w, exp


def finish_all(w: World, steps: Steps) -> None:
    with contextlib.suppress(Refused):
        run_all(w, steps)
    settle(w)


def slow_retire(*bad: str) -> None:
    """Commit 2, sleep; delete; make the id anew; wake and retire what generation 1 refers to."""
    w, exp = start(*bad)
    slow = persist(w, Experiment("x", exp.base), "n", "update")
    until(w, slow, lambda: w.current("x") != exp.base and w.rows["x"][0][0] == 2)
    run_all(w, delete(w, "x"))
    run_all(w, persist(w, Experiment("x"), "m"))
    finish_all(w, slow)


def slow_link(*bad: str) -> None:
    """Stage and verify; delete; make the id anew; wake and link generation 2 into the new folder."""
    w, exp = start(*bad)
    slow = persist(w, Experiment("x", exp.base), "n", "update")
    until(w, slow, lambda: bool(w.folders["x"].staged))
    next(slow)
    run_all(w, delete(w, "x"))
    run_all(w, persist(w, Experiment("x"), "m"))
    finish_all(w, slow)


def slow_index(*bad: str) -> None:
    """A deleter reads "deleted" and sleeps; the id is made anew; it writes, and another takes the name."""
    w, _ = start(*bad)
    slow = delete(w, "x")
    until(w, slow, lambda: w.current("x").deleted)  # type: ignore[union-attr]
    for _ in range(2):
        next(slow)
    run_all(w, persist(w, Experiment("x"), "n"))
    next(slow)
    run_all(w, persist(w, Experiment("y"), "n"))
    finish_all(w, slow)


def slow_sweep(*bad: str) -> None:
    """Sweep reads generations; a writer of a week commits and removes its intent; sweep reads intents."""
    w, exp = start(*bad)
    slow = persist(w, Experiment("x", exp.base), "n", "update")
    until(w, slow, lambda: bool(w.folders["x"].staged))
    sweeper = sweep(w, grace=0)
    for _ in range(2):
        next(sweeper)
    run_all(w, slow)
    finish_all(w, sweeper)


def claim_without_intent(*bad: str) -> None:
    """Claim and sleep; nobody sees an intent, so another takes the name; both commit."""
    w, _ = start(*bad)
    slow = persist(w, Experiment("y"), "m")
    until(w, slow, lambda: "m" in w.names)
    next(slow)
    run_all(w, persist(w, Experiment("z"), "m"))
    finish_all(w, slow)


def slow_writer_fenced(*bad: str) -> None:
    """Its lease runs out before the commit; another takes the name; it wakes."""
    w, _ = start(*bad)
    slow = persist(w, Experiment("y"), "m")
    until(w, slow, lambda: "y" in w.folders and bool(w.folders["y"].staged))
    next(slow)
    w.now += LEASE + 1
    run_all(w, persist(w, Experiment("z"), "m"))
    finish_all(w, slow)


def slow_fence(*bad: str) -> None:
    """Announce 2, die; delete; look what is there and sleep; make the id anew; wake and take 2 from the dead one."""
    w, exp = start(*bad)
    dead = persist(w, Experiment("x", exp.base), "n", "update")
    until(w, dead, lambda: bool(w.intents))
    run_all(w, delete(w, "x"))
    w.now += LEASE + 1
    slow = sweep(w)
    until(w, slow, lambda: bool(w.fenced))
    next(slow)
    run_all(w, persist(w, Experiment("x"), "m"))
    finish_all(w, slow)


def slow_end(*bad: str) -> None:
    """Look what is there, to end it, and sleep; somebody else ends it and makes the id anew; wake and end."""
    w, _ = start(*bad)
    slow = delete(w, "x")
    until(w, slow, lambda: bool(w.intents))
    next(slow)
    run_all(w, delete(w, "x"))
    run_all(w, persist(w, Experiment("x"), "m"))
    finish_all(w, slow)


def slow_first_persist(*bad: str) -> None:
    """Write the blobs of a first persist, sleep; delete what was put alone; put anew; wake and commit."""
    w = World(0, local=True, bad=frozenset(bad))
    run_all(w, put_single(w, "x", "r"))
    slow = persist(w, Experiment("x"), "n")
    until(w, slow, lambda: bool(w.folders["x"].files))
    run_all(w, delete(w, "x"))
    run_all(w, put_single(w, "x", "r"))
    finish_all(w, slow)


def removed_without_index(*bad: str) -> None:
    """End another one by replacing it and die; delete the new one; put alone into the ended one, without SQL."""
    w, _ = start(*bad)
    slow = persist(w, Experiment("y"), "n", "replace")
    until(w, slow, lambda: bool(w.current("x") and w.current("x").deleted))  # type: ignore[union-attr]
    run_all(w, delete(w, "y"))
    run_all(w, put_single(w, "x", "r"))
    settle_later(w)


def settle_later(w: World) -> None:
    w.now += LEASE + 1
    settle(w)


@pytest.mark.parametrize(
    ("story", "rule"),
    [
        (slow_retire, "retire_by_number"),
        (slow_link, "any_folder"),
        (slow_index, "index_blindly"),
        (slow_sweep, "sweep_order"),
        (claim_without_intent, "claim_first"),
        (slow_writer_fenced, "no_fence"),
        (slow_fence, "fence_announced"),
        (slow_end, "end_anywhere"),
        (slow_first_persist, "own_unseen"),
        (removed_without_index, "no_note"),
    ],
)
def test_a_story_ends_well_with_the_rule_and_badly_without(story: Callable[..., None], rule: str) -> None:
    """The shortest schedule for each rule that random ones seldom need."""
    story()
    with pytest.raises(Violation):
        story(rule)
