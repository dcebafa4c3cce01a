"""Whatever is done in whatever order, by processes that may die at any moment: what loads is what was persisted.

A dictionary of versions is the model.  Two sessions stand for two processes: each holds objects that it made or loaded,
perhaps long ago.  One that dies leaves what it leaves; the other goes on at once, or a new one looks first.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from mltraq_ds import options
from mltraq_ds.errors import (
    ConcurrentPersistError,
    ExperimentExistsError,
    ExperimentNotFoundError,
    MltraqDSError,
    MltraqDSWarning,
    StaleReferenceError,
)
from mltraq_ds.store.lease import LEASE_S
from mltraq_ds.tracking import Session
from tests.crash.death import Died, MortalStorage
from tests.crash.scene import Scene, State
from tests.crash.values import CHANGES, FIELDS, Content, change

NAMES = ("one", "Two", "a/b")
#: What a process that died may leave; anything else that `check` finds is damage.
GARBAGE = {"orphan", "leftover", "unfinished write", "unfinished delete", "dead intent", "dead claim", "index drift"}
#: Longer than an unfinished write is taken for one that goes on.
A_WHILE_S = 10.0
WRITES = ("fail", "update", "update", "replace", "delete")
WHO, PICK, MOMENT, LOOKS = st.integers(0, 1), st.integers(0, 9), st.integers(0, 100), st.booleans()
Ident = tuple[int, str]


@dataclass(frozen=True)
class Movable(Scene):
    """A scene whose store can be moved."""

    at: str = "store"

    @property
    def store(self) -> Path:
        return self.root / self.at


@dataclass(frozen=True)
class Version:
    """A committed version."""

    ident: Ident
    name: str
    content: Content


@dataclass
class Held:
    """An experiment in the memory of a process."""

    experiment: Any
    content: Content
    base: Ident | None = None
    is_lazy: bool = False

    @property
    def id(self) -> str:
        return str(self.experiment.id_experiment)

    def note_base(self) -> None:
        self.base = None if self.experiment.base == (0, "") else self.experiment.base


@dataclass
class Process:
    """A session, and what was made or loaded with it."""

    session: Session
    held: list[Held] = field(default_factory=list)


def current_versions(state: State) -> dict[str, tuple[Ident, str]]:
    """Return identity and name of the versions that count, by id, as the generation files say."""
    current = {folder.id_experiment: folder.current for folder in state.folders.values() if folder.is_live}
    replaced = {tuple(pin) for generation in current.values() for pin in generation["replaces"]}
    return {
        identity: ((generation["generation"], generation["writer"]), generation["name"])
        for identity, generation in current.items()
        if (identity, generation["generation"], generation["writer"]) not in replaced
    }


class Experiments(RuleBasedStateMachine):
    """Experiments of two processes in one store."""

    #: What was done by all machines together, for the report of a long run.
    told: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        options.set("tqdm.disable", True)
        self.scene = Movable(Path(tempfile.mkdtemp(prefix="machine-")))
        self.scene.store.mkdir()
        self.offset_s = 0.0
        self.live: dict[str, Version] = {}
        #: Whether a process has died and nobody has looked after what it left.
        self.is_behind = False
        #: Whether nobody has died since the last sweep: then only what is referred to is there.
        self.is_tidy = True
        self.processes: list[Process] = []
        self.number = 0

    @initialize()
    def begin(self) -> None:
        self.processes = [self.start(), self.start()]
        self.mine = self.processes[0].session.io.write(b"of the user", "self_managed/x").url
        for who, name in enumerate(NAMES[:2]):
            self.create(who, name, ["store", "many"])
            self.persist(who, 0, "fail")
        self.load(0, 0, is_read=False)
        self.load(1, 1, is_read=False)

    def start(self) -> Process:
        return Process(self.scene.session(MortalStorage(self.scene.local(), lambda: self.offset_s)))

    def teardown(self) -> None:
        try:
            if self.processes:
                self.look_at_the_end()
        finally:
            for process in self.processes:
                process.session.close()
            shutil.rmtree(self.scene.root)

    # -- what is done

    @rule(who=WHO, name=st.sampled_from(NAMES), hows=st.lists(st.sampled_from(CHANGES), max_size=4))
    def create(self, who: int, name: str, hows: list[str]) -> None:
        held = Held(self.processes[who].session.create_experiment(name), Content())
        for how in ("add run", *hows):
            self.modify_one(held, how, "a")
        self.processes[who].held.append(held)

    @rule(who=WHO, pick=PICK, how=st.sampled_from(CHANGES), name=st.sampled_from(FIELDS))
    def modify(self, who: int, pick: int, how: str, name: str) -> None:
        self.modify_one(self.pick(who, pick), how, name)

    @rule(who=WHO, pick=PICK, name=st.sampled_from(NAMES))
    def rename(self, who: int, pick: int, name: str) -> None:
        self.pick(who, pick).experiment.name = name

    @rule(who=WHO, pick=PICK, mode=st.sampled_from(("fail", "update", "update", "replace")))
    def persist(self, who: int, pick: int, mode: str) -> None:
        held = self.pick(who, pick)
        errors, ends = self.errors_of_persist(held, mode), self.ends(held, mode)
        self.expect(errors, lambda: held.experiment.persist(mode), held, ends)

    @rule(who=WHO, pick=PICK)
    def delete(self, who: int, pick: int) -> None:
        held = self.pick(who, pick)
        self.expect(self.errors_of_delete(held.id), held.experiment.delete, held, {held.id})

    @rule(who=WHO, name=st.sampled_from(NAMES))
    def delete_by_name(self, who: int, name: str) -> None:
        if not self.is_behind:
            owner = self.owner(name)
            act = partial(self.processes[who].session.delete_experiment, name)
            self.expect(self.errors_of_delete(owner), act, None, {owner})

    @rule(who=WHO, pick=PICK, is_read=st.booleans())
    def load(self, who: int, pick: int, is_read: bool) -> None:
        if self.live:
            identity = sorted(self.live)[pick % len(self.live)]
            version = self.live[identity]
            experiment = self.processes[who].session.load_experiment(id_experiment=identity)
            held = Held(experiment, version.content.copy(), version.ident, is_lazy=True)
            self.processes[who].held.append(held)
            if is_read:
                self.read_one(held)

    @rule(who=WHO, pick=PICK, is_read=st.booleans())
    def reload(self, who: int, pick: int, is_read: bool) -> None:
        """Hold the present state too; what is held already stays as it is, however old."""
        old = self.pick(who, pick)
        base = old.experiment.base
        if old.id not in self.live:
            with pytest.raises(ExperimentNotFoundError):
                old.experiment.reload()
            return
        version = self.live[old.id]
        new = old.experiment.reload()
        assert (new.id_experiment, new.name, new.base) == (old.id, version.name, version.ident)
        assert old.experiment.base == base
        held = Held(new, version.content.copy(), version.ident, is_lazy=True)
        self.processes[who].held.append(held)
        self.told["reloads"] += 1
        if is_read:
            self.read_one(held)
            self.read_one(old)

    @rule(who=WHO, pick=PICK)
    def read(self, who: int, pick: int) -> None:
        self.read_one(self.pick(who, pick))

    @rule(who=WHO)
    def sweep(self, who: int) -> None:
        self.offset_s += A_WHILE_S
        planned = self.processes[who].session.sweep(dry_run=True, grace_s=0)
        done = self.processes[who].session.sweep(dry_run=False, grace_s=0)
        self.is_behind = False  # it finishes the work of the dead
        assert sorted(planned.findings, key=repr) == sorted(done.findings, key=repr)
        self.is_tidy = True
        assert self.scene.state().leftovers == set()

    @rule(who=WHO, is_lost=st.booleans())
    def rebuild(self, who: int, is_lost: bool) -> None:
        if is_lost:
            for process in self.processes:
                process.session.close()
            for path in self.scene.root.glob("index.db*"):
                path.unlink()
        report = self.processes[who].session.rebuild_index()
        self.is_behind = False
        assert len(report) == 0
        assert report.experiments == len(self.live)

    @rule(who=WHO)
    def reopen(self, who: int) -> None:
        self.processes[who].session.close()
        self.processes[who] = self.start()

    @rule(to=st.sampled_from(("store", "elsewhere")))
    def move(self, to: str) -> None:
        for process in self.processes:
            process.session.close()
        self.scene.store.rename(self.scene.root / to)
        self.scene = replace(self.scene, at=to)
        self.processes = [self.start(), self.start()]

    @rule(who=WHO, pick=PICK, how=st.sampled_from(CHANGES), what=st.sampled_from(WRITES), moment=MOMENT, looks=LOOKS)
    def die_in_a_write(self, who: int, pick: int, how: str, what: str, moment: int, looks: bool) -> None:
        held = self.pick(who, pick)
        self.modify_one(held, how, "a")
        self.die(who, held, what, moment, looks)

    @rule(who=WHO, pick=PICK, how=st.sampled_from(CHANGES), moment=MOMENT, looks=LOOKS)
    def die_in_an_update(self, who: int, pick: int, how: str, moment: int, looks: bool) -> None:
        self.load(who, pick, is_read=False)
        held = self.processes[who].held[-1] if self.live else self.pick(who, pick)
        self.modify_one(held, how, "a")
        self.die(who, held, "update", moment, looks)

    @rule(who=WHO, what=st.sampled_from(("sweep", "rebuild", "reopen")), moment=MOMENT, looks=LOOKS)
    def die_in_upkeep(self, who: int, what: str, moment: int, looks: bool) -> None:
        self.die(who, None, what, moment, looks)

    def die(self, who: int, held: Held | None, what: str, moment: int, looks: bool) -> None:
        process = self.processes[who]
        ends = self.ends(held, what)
        with warnings.catch_warnings(), suppress(Died, MltraqDSError), process.session.storage.dying(moment) as life:
            warnings.simplefilter("ignore", MltraqDSWarning)
            self.do(process, held, what)
        self.find_out(held if what != "delete" else None, ends)
        if life.is_over:
            self.told[f"deaths in {what}"] += 1
            process.session.close()
            self.processes[who] = self.start()
            self.is_behind, self.is_tidy = True, False
            self.offset_s += LEASE_S + 1 if what == "sweep" else 0
        elif held is not None:
            held.note_base()
        if looks:
            self.look()

    def do(self, process: Process, held: Held | None, what: str) -> None:
        if what == "sweep":
            process.session.sweep(dry_run=False, grace_s=0)
        elif what == "rebuild":
            process.session.rebuild_index()
        elif what == "reopen":
            process.session = self.scene.session(process.session.storage)
            process.session.ls()
        elif held is not None and what == "delete":
            held.experiment.delete()
        elif held is not None:
            held.experiment.persist(what)

    # -- what must come of it

    def pick(self, who: int, number: int) -> Held:
        """Return what a process holds; one that has just begun loads or makes something."""
        held = self.processes[who].held
        if not held:
            self.load(who, number, is_read=False)
        if not held:
            self.create(who, NAMES[0], ["store"])
        return held[number % len(held)]

    def owner(self, name: str) -> str:
        return next((identity for identity, version in self.live.items() if version.name == name), "")

    def is_current(self, held: Held) -> bool:
        return held.id in self.live and self.live[held.id].ident == held.base

    def modify_one(self, held: Held, how: str, name: str) -> None:
        self.number += 1
        try:
            change(held.experiment, held.content, how, name, self.number)
        except StaleReferenceError:
            assert not self.is_current(held)

    def read_one(self, held: Held) -> None:
        try:
            held.content.check(held.experiment)
            held.is_lazy = False
        except StaleReferenceError:
            assert held.is_lazy
            assert not self.is_current(held)

    def errors_of_persist(self, held: Held, mode: str) -> set[type[Exception]]:
        """Return the errors of which one must come; none means that it must succeed."""
        if held.id not in self.live:
            if held.base is not None:
                return {ConcurrentPersistError}
        elif mode == "fail":
            return {ExperimentExistsError}
        elif mode == "update" and not self.is_current(held):
            return {ConcurrentPersistError}
        if mode != "replace" and self.owner(held.experiment.name) not in ("", held.id):
            return {ExperimentExistsError}
        return set()

    def errors_of_delete(self, identity: str) -> set[type[Exception]]:
        return set() if identity in self.live else {ExperimentNotFoundError}

    def ends(self, held: Held | None, mode: str) -> set[str]:
        """Return the ids of which the experiments may end by a persist or delete."""
        if held is None or mode not in ("replace", "delete"):
            return set()
        return {held.id} if mode == "delete" else {self.owner(held.experiment.name)} - {held.id}

    def expect(
        self, errors: set[type[Exception]], act: Callable[[], object], held: Held | None, ends: set[str]
    ) -> None:
        """Do it; it must end as it should, and the files say what has come of it."""
        before = dict(self.live)
        may_be_stale = held is not None and held.is_lazy and not self.is_current(held)
        try:
            act()
        except MltraqDSError as error:
            self.told["refusals"] += 1
            if type(error) not in errors | ({StaleReferenceError} if may_be_stale else set()):
                raise
            self.find_out(held, ends)
            assert self.live == before
        else:
            assert not errors
            self.told["persists and deletes"] += 1
            if held is not None:
                held.note_base()
            self.find_out(held, ends)
            assert self.live != before
            assert not ends & set(self.live)
        if not self.is_behind:
            self.look()

    def find_out(self, held: Held | None, ends: set[str]) -> None:
        """Learn from the files whether it was committed: each experiment is as it was, or as it should become."""
        found = {}
        for identity, (ident, name) in current_versions(self.scene.state()).items():
            version = self.live.get(identity)
            if version is None or version.ident != ident:
                assert held is not None
                assert (identity, name) == (held.id, held.experiment.name)
                version = Version(ident, name, held.content.copy())
            found[identity] = version
        assert set(self.live) - set(found) <= ends
        assert len({version.name for version in found.values()}) == len(found)
        self.live = found

    def look(self) -> None:
        """Look as a new process would: by id and by name, everything is as the model has it."""
        self.told["looks"] += 1
        process = self.start()
        assert set(process.session.ls().id_experiment) == set(self.live)
        self.is_behind = False
        for identity, version in self.live.items():
            for how in ({"id_experiment": identity}, {"name": version.name}):
                experiment = process.session.load_experiment(**how)
                assert (experiment.id_experiment, experiment.name) == (identity, version.name)
                assert experiment.base == version.ident
                version.content.check(experiment)
        self.check_state(self.scene.state())
        process.session.close()

    def check_state(self, state: State) -> None:
        assert [name for name in state.pending if not name.endswith(".lease")] == []  # the next sweep sees to those
        assert not self.is_tidy or state.leftovers == set()
        assert state.rows == state.live == {identity: version.ident[0] for identity, version in self.live.items()}
        assert state.names == {version.name: (identity, None) for identity, version in self.live.items()}

    @precondition(lambda self: self.processes)
    @invariant()
    def nothing_dangles(self) -> None:
        report = self.processes[0].session.check()
        assert set(report.kinds()) <= GARBAGE, report

    def look_at_the_end(self) -> None:
        """After a sweep nothing is left that nobody needs, and nothing is missing."""
        self.look()
        self.sweep(0)
        self.look()
        report = self.processes[0].session.check(deep=True)
        assert len(report) == 0, report
        assert self.processes[0].session.io(self.mine).read() == b"of the user"


def test_any_order_of_what_users_do():
    """Random steps of two processes that die and go on: loads equal the model, and the store is clean at the end."""
    run_machine(Experiments, settings=settings(max_examples=20, stateful_step_count=30))


@pytest.mark.soak
def test_any_order_of_what_users_do_for_long():
    """The same, many more and longer stories."""
    run_machine(Experiments, settings=settings(max_examples=250, stateful_step_count=50))
    print(dict(Experiments.told))
