"""An executable model of the commit protocol (design §6): every `yield` is a place where another actor may run, the
clock may jump beyond a lease or the actor may die; what stands between two of them is one atomic storage or SQL step.

`World.bad` switches single rules off; `test_protocol` shows that each of them is needed.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace

LEASE, GRACE = 60, 200
Steps = Iterator[None]
Committing = Generator[None, None, "tuple[Gen, Gen | None]"]
Ident = tuple[int, str]  # number and writer: a number alone may belong to another life of the same id


class Violation(AssertionError):
    """An invariant does not hold; the text begins with its name."""


class Refused(Exception):
    """The persist failed with a typed error; nothing of it may remain."""


@dataclass(frozen=True)
class Gen:
    """A generation file."""

    ident: Ident
    parent: Ident | None
    name: str = ""
    blobs: frozenset[str] = frozenset()
    records: frozenset[str] = frozenset()
    deleted: bool = False
    replaces: tuple[str, Ident] | None = None
    replaced_by: tuple[str, Ident] | None = None  # a tombstone made for a replacer, and what the replacer had seen
    fences: str = ""  # writer whose slot was taken; the content is the parent's
    folds: frozenset[str] = frozenset()  # put ids of the single records that it has taken in


@dataclass(eq=False)
class Folder:
    """An experiment folder; its identity is the inode: a folder made anew under the same id is another object."""

    gens: dict[int, Gen] = field(default_factory=dict)
    torn: set[int] = field(default_factory=set)
    files: dict[str, int] = field(default_factory=dict)  # blobs and record files -> time of writing
    staged: set[str] = field(default_factory=set)  # local: temporary generation files, waiting for their link
    singles: dict[str, str] = field(default_factory=dict)  # runs/<run>.json -> put id
    marked: bool = False  # _meta.json

    @property
    def current(self) -> Gen | None:
        return self.gens[max(self.gens)] if self.gens else None


@dataclass
class Intent:
    id: str
    base: Gen | None
    name: str
    renewed: int
    by: object = None


@dataclass
class Experiment:
    """What a client holds in memory: as loaded, perhaps long ago."""

    id: str
    base: Gen | None = None
    read: frozenset[str] = frozenset()  # put ids of the single records that it has loaded


class World:
    def __init__(self, seed: int, *, local: bool, bad: frozenset[str] = frozenset()) -> None:
        self.random, self.local, self.bad = random.Random(seed), local, bad
        self.now, self.count = 0, 0
        self.running: object = None
        self.folders: dict[str, Folder] = {}
        self.trash: list[Folder] = []
        self.intents: dict[str, Intent] = {}
        self.fenced: set[str] = set()  # _pending/<writer>.fenced: create if absent, survives a renewal of the intent
        self.rows: dict[str, tuple[Ident, str]] = {}
        self.versions: dict[str, int] = {}  # of the row; it outlives a deleted experiment
        self.names: dict[str, tuple[str | None, str | None]] = {}  # name -> owner, claim
        self.inflight: list[tuple[str, Gen]] = []  # conditional PUTs without an answer that may yet arrive
        self.history: dict[str, Gen] = {}  # ghost: by writer
        self.closed: set[str] = set()  # ghost: writers whose commit a delete or replace has seen
        self.reported: list[tuple[str, str]] = []  # ghost: (id, writer) told "persisted"
        self.published: dict[tuple[str, str], str] = {}  # ghost: the last put id of a run
        self.puts: dict[str, set[str]] = {}  # ghost: all put ids of an experiment
        self.kept: set[str] = set()  # ghost: put ids told "written"
        self.ended: set[str] = set()  # ghost: put ids that were there when the experiment ended
        self.read: dict[str, frozenset[str]] = {}  # ghost: by writer, the put ids that it had loaded

    def fresh(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def current(self, key: str) -> Gen | None:
        folder = self.folders.get(key)
        return folder.current if folder else None

    def folder(self, key: str) -> Folder:
        if key not in self.folders:
            if self.local:
                raise Refused("deleted meanwhile")
            self.folders[key] = Folder()  # an object store has no folders to miss
        return self.folders[key]

    def create(self, key: str, gen: Gen) -> bool:
        """Create-if-absent; ghost history of what became current."""
        folder = self.folder(key)
        number = gen.ident[0]
        if (number in folder.gens or number in folder.torn) and "in_place" not in self.bad:
            return False
        folder.gens[number] = self.history[gen.ident[1]] = gen
        if gen.deleted and folder.current is gen:
            self.closed |= self.chain(gen)
            self.ended |= set() if gen.fences else self.puts.get(key, set())
        return True

    def chain(self, gen: Gen | None) -> set[str]:
        seen: set[str] = set()
        while gen:
            seen.add(gen.ident[1])
            gen = self.history.get(gen.parent[1]) if gen.parent else None
        return seen

    def plain(self, gen: Gen | None) -> Ident | None:
        """Identity of what a generation holds: a fence holds what its parent holds."""
        while gen and gen.fences and gen.parent:
            gen = self.history[gen.parent[1]]
        return gen.ident if gen else None

    def fences(self, gen: Gen | None) -> set[str]:
        """Writers that can no longer commit on what `gen` holds."""
        found = set()
        while gen and gen.fences:
            found.add(gen.fences)
            gen = self.history[gen.parent[1]] if gen.parent else None
        return found

    def dead(self, writer: str) -> bool:
        return writer not in self.intents or self.now - self.intents[writer].renewed > LEASE

    # -- invariants that hold at any moment ---------------------------------------------------------------------

    def check(self) -> None:
        for key, folder in self.folders.items():
            gen = folder.current
            if gen and not gen.deleted and not (gen.blobs | gen.records) <= folder.files.keys():
                gone = (gen.blobs | gen.records) - folder.files.keys()
                raise Violation(f"I1 {key} generation {gen.ident}: {gone} gone")
            parent = self.history[gen.parent[1]] if gen and gen.parent else None
            if gen and gen.replaced_by and gen.replaced_by[1] != self.plain(parent):
                raise Violation(f"I2 {key}: a replace destroyed {gen.parent}, it had seen {gen.replaced_by[1]}")
        for key, writer in self.reported:
            if writer not in self.closed and writer not in self.chain(self.current(key)):
                raise Violation(f"I2 {key}: {writer} was told success and is lost")
        self.check_singles()

    def check_singles(self) -> None:
        for (key, run), put in self.published.items():
            if put not in self.kept or put in self.ended:
                continue
            folder = self.folders.get(key)
            if folder and folder.singles.get(run) == put and not (folder.current and put in folder.current.folds):
                continue
            gen = self.current(key)
            if not gen or gen.deleted or put not in gen.folds:
                raise Violation(f"I7 {key}: the record {put} of {run} is lost")
            if not any(put in self.read.get(writer, ()) for writer in self.chain(gen)):
                raise Violation(f"I7 {key}: {put} was folded by somebody who had not read it")
        for key, folder in self.folders.items():
            gen = folder.current
            older = self.chain(gen) if gen else set()
            for put in folder.singles.values():
                folded = any(put in self.history[writer].folds for writer in older if writer in self.history)
                if gen and folded and put not in gen.folds:
                    raise Violation(f"I8 {key}: {put} was folded and is back")


def bury(w: World, key: str) -> None:
    """Local: under the store's lock, look that the tombstone is still current, then rename the folder away.

    A fence ends a persist, not what has been put alone.
    """
    folder = w.folders.get(key)
    is_ended = folder and folder.current and folder.current.deleted and not (folder.current.fences and folder.singles)
    if folder and (is_ended or "bury_blindly" in w.bad):
        w.trash.append(w.folders.pop(key))


def is_ended(w: World, key: str) -> bool:
    gen = w.current(key)
    return bool(w.local and gen and gen.deleted and not gen.fences)


def put_single(w: World, key: str, run: str) -> Steps:
    """Put the record of a run alone; no lock, no intent, and a look afterwards whether it is in a living folder."""
    me = w.fresh("p")
    while True:
        yield
        if is_ended(w, key):
            if "no_note" not in w.bad:
                w.intents[f"{me}-end"] = Intent(key, w.current(key), "", w.now)  # for somebody who knows the index
                yield
            yield from remove_folder(w, key)
        yield
        w.folders.setdefault(key, Folder()).marked = True
        yield
        folder = w.folders.setdefault(key, Folder())  # its temporary file is made
        yield
        if w.folders.get(key) is not folder:
            continue  # renamed away, and the temporary file with it
        folder.singles[run] = w.published[key, run] = me
        w.puts.setdefault(key, set()).add(me)
        if "look_once" in w.bad:
            break
        yield
        if is_ended(w, key):
            w.puts[key].discard(me)  # not told "written": it is put again
            continue
        yield
        w.folders.setdefault(key, Folder()).marked = True
        yield
        if key in w.folders and run in w.folders[key].singles:
            break
    w.kept.add(me)


def remove_folder(w: World, key: str) -> Steps:
    gen = w.current(key)
    if not (gen and gen.deleted):
        return
    yield
    if w.local:
        bury(w, key)
        yield
        w.trash.clear()
        return
    old = w.history.get(gen.parent[1]) if gen.parent else None  # by name: a listing may hold what a successor writes
    names = (old.blobs | old.records) if old else set()
    for name in sorted(w.folders[key].files if "bury_blindly" in w.bad else names):
        yield
        w.folders[key].files.pop(name, None)  # the tombstone and _meta.json stay: numbers must not start again


def reindex(w: World, key: str, me: str = "", target: str | None = None) -> Steps:
    """Read the row's version, then the files; write if the version still stands; look again at the files."""
    while True:
        yield
        version = w.versions.get(key, 0)
        yield
        gen = w.current(key)
        if "index_own" in w.bad and me in w.history:
            gen = w.history[me]
        yield
        if w.versions.get(key, 0) != version and "index_own" not in w.bad and "index_blindly" not in w.bad:
            continue  # somebody wrote the row since it was read: what the files said may be older
        w.versions[key] = version + 1
        live = gen and not gen.deleted
        if gen and live and not ("index_own" in w.bad and key in w.rows and w.rows[key][0] > gen.ident):
            w.rows[key] = (gen.ident, gen.name)
        elif not live:
            w.rows.pop(key, None)
        for name, (owner, claim) in list(w.names.items()):
            claim = None if claim == me else claim
            if owner == key and not (live and gen and gen.name == name):
                owner = None
                if "delete_drops_claim" in w.bad:
                    claim = None
            w.names[name] = (owner, claim)
        if gen and live:
            owner, claim = w.names.get(gen.name, (None, None))
            if owner in (None, key, target):
                w.names[gen.name] = (key, claim)
        for name in [n for n, row in w.names.items() if row == (None, None)]:
            del w.names[name]
        yield
        if w.current(key) == gen or "index_own" in w.bad:
            return


def finish(w: World, me: str, key: str, gen: Gen, base: Gen | None) -> Steps:
    """Everything after the commit; idempotent, by the writer or by whoever finds its intent dead."""
    target = gen.replaces
    if target:
        yield
        seen = w.current(target[0])
        if seen and not seen.deleted and ("unpinned" in w.bad or w.plain(seen) == target[1]):
            ident = (seen.ident[0] + 1, me + "-replaces")
            w.create(target[0], Gen(ident, seen.ident, deleted=True, replaced_by=(key, target[1]), folds=seen.folds))
        yield from reindex(w, target[0])
    yield from reindex(w, key, me, target[0] if target else None)
    if "retire_by_number" in w.bad and base:
        yield
        base = w.folders[key].gens.get(base.ident[0]) if key in w.folders else None
    for name in sorted((base.blobs | base.records) - (gen.blobs | gen.records)) if base else ():
        yield
        if key in w.folders:
            w.folders[key].files.pop(name, None)
    if target:
        yield from remove_folder(w, target[0])
    yield
    w.intents.pop(me, None)


def fence_announced(w: World, dead: str, key: str, base: Gen | None) -> Steps:
    """Not the protocol: a fence at the number that the dead one has announced, in whatever folder is there by then."""
    now, slot = w.current(key), (base.ident[0] if base else 0) + 1
    if now is None or now.ident[0] < slot:
        yield
        w.folders.setdefault(key, Folder())
        old = now or Gen((0, ""), None, deleted=True)
        parent = now.ident if now else None
        w.create(key, replace(old, ident=(slot, w.fresh("fence")), parent=parent, fences=dead, replaced_by=None))


def recover(w: World, dead: str) -> Steps:
    """Roll a dead writer forward, or make sure that it can never commit: before anybody uses what it held."""
    yield
    intent = w.intents.get(dead)
    if intent is None or not w.dead(dead):
        return
    key, base = intent.id, intent.base
    if "no_fence" not in w.bad:
        w.fenced.add(dead)
        yield
    while True:
        folder = w.folders.get(key)
        gen = next((g for g in folder.gens.values() if g.ident[1] == dead), None) if folder else None
        if "fence_announced" in w.bad and not gen:
            yield from fence_announced(w, dead, key, base)
        if gen or not folder or w.bad & {"no_fence", "fence_announced"}:
            break
        now = folder.current
        if dead in w.fences(now):
            break
        if now and (base is None or w.plain(now) != w.plain(base)) and not (now.deleted and base is None):
            break  # the slot is taken: the dead one has lost already
        if now and now.deleted and w.local:
            break
        if not now and not folder.files and not folder.staged and not w.local:
            break  # it has put nothing, so it has not looked at the marker yet
        slot, me = (now.ident[0] + 1 if now else 1), w.fresh("fence")
        old = now or Gen((0, ""), None, deleted=True)
        yield
        if w.folders.get(key) is folder:
            parent = now.ident if now else None
            w.create(key, replace(old, ident=(slot, me), parent=parent, fences=dead, replaced_by=None))
        yield
    if gen:
        yield from finish(w, dead, key, gen, base)
    else:
        yield from reindex(w, key, dead)
        yield from remove_folder(w, key) if w.local else ()
    yield
    w.intents.pop(dead, None)
    yield
    w.fenced.discard(dead)


def claim(w: World, me: str, key: str, name: str, target: str | None) -> Steps:
    while True:
        yield
        owner, claimed = row = w.names.get(name, (None, None))
        if owner not in (None, key, target):
            raise Refused("name taken")
        if claimed == me:
            return
        if claimed is None:
            yield
            if w.names.get(name, (None, None)) == row:  # one conditional UPDATE or INSERT
                w.names[name] = (owner, me)
            continue
        yield
        if not w.dead(claimed):
            raise Refused("name claimed by a living writer")
        if claimed in w.intents:
            yield from recover(w, claimed)
        yield
        if w.names.get(name) == (owner, claimed) and claimed not in w.intents:
            w.names[name] = (owner, None)


def make_folder(w: World, exp: Experiment) -> Steps:
    yield
    if exp.base:
        w.folder(exp.id)
        return
    while w.local and exp.id in w.folders:
        gen = w.current(exp.id)
        if not (gen and gen.deleted) or (gen.fences and w.folders[exp.id].singles):
            break
        yield
        bury(w, exp.id)  # a local tombstone is final: nobody builds on it, the folder goes first
    yield
    gen = w.current(exp.id)
    if gen and not gen.deleted:
        raise Refused("experiment exists")
    w.folders.setdefault(exp.id, Folder()).marked = True


def unmark(w: World, key: str, folder: Folder) -> Steps:
    """Remove the mark of a folder that came to nothing, and put it back if somebody has put something meanwhile."""
    folder.marked = False
    yield
    if not (folder.gens or folder.files or folder.staged or folder.torn or folder.singles):
        if w.folders.get(key) is folder:
            del w.folders[key]
    elif "unmark_blindly" not in w.bad:
        folder.marked = True


def folds_of(w: World, exp: Experiment, base: Gen | None, there: frozenset[str]) -> frozenset[str]:
    """What the parent had folded and what was read, as far as the files still say so."""
    if "fold_all" in w.bad:
        return there
    before = base.folds if base and "forget_folds" not in w.bad else frozenset()
    return (before | exp.read) & there


def commit(w: World, me: str, exp: Experiment, gen: Gen, keep: frozenset[str]) -> Committing:
    """Step 5.  Return the generation committed and the one it stands on."""
    key = exp.id
    while True:
        yield
        there = frozenset(w.folder(key).singles.values())
        yield
        folder = w.folder(key)
        folder.staged.add(me)  # local: the temporary file whose link is the commit; it pins this folder
        yield
        base = w.current(key)
        if "number_base" in w.bad:
            base = exp.base
        elif w.local and base and base.deleted and not base.fences:
            raise Refused("deleted meanwhile")
        elif not (base is None or base.deleted if exp.base is None else base and w.plain(base) == w.plain(exp.base)):
            raise Refused("somebody else committed first")
        if me in w.fences(base):
            raise Refused("taken for dead")
        if "no_fence" not in w.bad and (me not in w.intents or me in w.fenced):
            raise Refused("taken for dead")
        if not keep <= (base.blobs if base else frozenset()) and "keep_any" not in w.bad:
            raise Refused("keeps what its parent does not have")
        if not keep <= folder.files.keys():
            raise Refused("a kept blob is gone")
        if not gen.blobs | gen.records <= folder.files.keys() and "own_unseen" not in w.bad:
            raise Refused("the folder was renamed away with what was written, and made anew")
        gen = replace(gen, ident=((base.ident[0] if base else 0) + 1, me), parent=base.ident if base else None)
        gen = replace(gen, folds=folds_of(w, exp, base, there))
        if "torn_skip" in w.bad:  # O_EXCL without links: the name first, the bytes later
            while gen.ident[0] in folder.torn | folder.gens.keys():
                gen = replace(gen, ident=(gen.ident[0] + 1, me))
            yield
            if gen.ident[0] in folder.torn | folder.gens.keys():
                continue
            folder.torn.add(gen.ident[0])
            yield
            folder.torn.discard(gen.ident[0])
        while True:  # outcome unknown -> the same conditional PUT again, until there is an answer
            yield
            fault = w.random.random() if not w.local else 1.0
            if w.local and w.folders.get(key) is not folder and "any_folder" not in w.bad:
                raise Refused("deleted meanwhile")
            if fault < 0.1:
                w.inflight.append((key, gen))
                if "guess" in w.bad:
                    yield
                    if not any(g == gen for g in w.folder(key).gens.values()):
                        raise Refused("not there, so not committed")
                continue
            created = w.create(key, gen)
            if fault < 0.2:
                continue  # response lost
            break
        yield
        folder = w.folder(key)
        there = folder.gens.get(gen.ident[0])
        if not created and not (there and there.ident[1] == me):
            if there and there.fences and there.fences != me:
                continue
            raise Refused("somebody else committed first")
        folder.staged.discard(me)
        above = [n for n in folder.gens if n > gen.ident[0]]
        if above and folder.gens[min(above)].parent != gen.ident and not w.bad & {"number_base", "torn_skip"}:
            raise Refused("a number used before: its generation was pruned")
        return gen, base


def persist(w: World, exp: Experiment, name: str, mode: str = "fail") -> Steps:
    """`mode`: fail, update, replace (also another of that name), overwrite (replace, on the current base)."""
    me, own, target, seen = w.fresh("w"), set[str](), None, None
    w.read[me] = exp.read
    yield
    owner = w.names.get(name, (None, None))[0]
    if owner not in (None, exp.id):
        if mode != "replace":
            return
        target = owner
        seen = w.current(target)
    keep = frozenset(b for b in sorted(exp.base.blobs) if w.random.random() < 0.5) if exp.base else frozenset()
    if mode == "overwrite" and exp.base:
        yield
        exp = Experiment(exp.id, w.current(exp.id), exp.read)
        keep = keep if "keep_any" in w.bad else keep & (exp.base.blobs if exp.base else frozenset())
    if exp.base and exp.base.deleted:
        exp = Experiment(exp.id, None, exp.read)
        keep = frozenset()
    try:
        if "claim_first" in w.bad:
            yield from claim(w, me, exp.id, name, target)
        yield
        w.intents[me] = Intent(exp.id, exp.base, name, w.now, w.running)
        if "claim_first" not in w.bad:
            yield from claim(w, me, exp.id, name, target)
        if target and "seen_before_claim" not in w.bad:
            yield
            seen = w.current(target)  # under the claim, which keeps others of this index from updating it
        yield from make_folder(w, exp)
        for kind in ("blob", "blob", "record"):
            yield
            w.folder(exp.id).files[fresh := w.fresh(kind)] = w.now
            own.add(fresh)
        gen = Gen((0, me), None, name, keep | {n for n in own if n[0] == "b"}, frozenset(n for n in own if n[0] == "r"))
        gen = replace(gen, replaces=(target, w.plain(seen) or (0, "")) if target else None)
        if "retire_first" in w.bad and exp.base:
            for old in sorted((exp.base.blobs | exp.base.records) - (gen.blobs | gen.records)):
                yield
                w.folder(exp.id).files.pop(old, None)
        gen, base = yield from commit(w, me, exp, gen, keep)
    except Refused:
        if exp.id in w.folders:
            w.folders[exp.id].staged.discard(me)
        for fresh in sorted(own):  # own names only, never the folder: somebody else may be in it
            yield
            if exp.id in w.folders:
                w.folders[exp.id].files.pop(fresh, None)
        yield
        folder = w.folders.get(exp.id)
        if folder and not (folder.gens or folder.files or folder.staged or folder.torn) and exp.base is None:
            yield from unmark(w, exp.id, folder)  # rmdir of generations/ succeeds only if empty
        yield
        if w.names.get(name, (None, None))[1] == me:
            w.names[name] = (w.names[name][0], None)
            if w.names[name] == (None, None):
                del w.names[name]
        yield
        if me not in w.fenced:  # else recovery goes on from it: its fence is not in the index yet
            w.intents.pop(me, None)
        return
    w.reported.append((exp.id, me))
    exp.base = gen
    yield from finish(w, me, exp.id, gen, base)


def delete(w: World, key: str) -> Steps:
    me = w.fresh("d")
    yield
    w.intents[me] = Intent(key, w.current(key), "", w.now, w.running)
    while True:
        yield
        gen = w.current(key)
        folder = w.folders.get(key)
        seen = frozenset(folder.singles.values()) if folder else frozenset()
        if (gen is None or gen.deleted) and seen <= (gen.folds if gen else frozenset()):
            break
        yield
        end = Gen((gen.ident[0] + 1 if gen else 1, me), gen.ident if gen else None, deleted=True, folds=seen)
        if (w.folders.get(key) is folder or "end_anywhere" in w.bad) and w.create(key, end):
            break
    yield from reindex(w, key)
    yield from remove_folder(w, key)
    yield
    w.intents.pop(me, None)


def sweep(w: World, grace: int = GRACE) -> Steps:
    """Candidates, then intents, then generations: what moves meanwhile moves from an intent to a generation."""
    for writer in [x for x in list(w.intents) if w.dead(x)]:
        yield from recover(w, writer)
    for folder in w.folders.values():
        folder.marked |= bool(folder.singles)  # whoever was to put the mark back has died
    yield
    stale = {key: [n for n, t in f.files.items() if w.now - t >= grace] for key, f in w.folders.items()}
    if "sweep_order" in w.bad:
        roots = {key: f.current for key, f in w.folders.items()}
        yield
    yield
    living = {intent.id for intent in w.intents.values()} if "no_fence" not in w.bad else set()
    living |= {intent.id for writer, intent in w.intents.items() if not w.dead(writer)}
    writers = set(w.intents)
    for key in stale:
        yield
        folder = w.folders.get(key)
        gen = folder.current if folder else None
        if not folder or key in living:
            continue
        if "sweep_order" in w.bad:
            gen = roots.get(key)
        if gen and gen.deleted:
            yield from reindex(w, key)
            yield from remove_folder(w, key)
        keep = (gen.blobs | gen.records) if gen else frozenset()
        older = [n for n, g in folder.gens.items() if gen and n < gen.ident[0] and g.ident[1] not in writers]
        for name in sorted(set(stale[key]) - keep):
            yield
            if w.folders.get(key) is folder:
                folder.files.pop(name, None)
        folder.staged &= set(w.intents)
        for number in sorted(older):
            yield
            folder.gens.pop(number, None)
        yield
        if "sweep_folded" in w.bad and gen:
            for run in [run for run, put in folder.singles.items() if put in gen.folds]:
                yield
                folder.singles.pop(run, None)
        if not (folder.gens or folder.files or folder.staged or folder.singles) and w.folders.get(key) is folder:
            yield from unmark(w, key, folder)
    yield
    w.trash.clear()
    yield
    w.fenced &= w.intents.keys()  # left by a recovery that died between its last two steps
    for name, (owner, claimed) in list(w.names.items()):
        if claimed and claimed not in w.intents:
            yield
            if w.names.get(name) == (owner, claimed):
                w.names[name] = (owner, None)
    for name in [n for n, row in w.names.items() if row == (None, None)]:
        del w.names[name]


def read(w: World, key: str) -> Steps:
    for _ in range(20):
        yield
        gen = w.current(key)
        if gen is None or gen.deleted:
            return
        for name in sorted(gen.records | gen.blobs):
            yield
            folder = w.folders.get(key)
            if folder is None or name not in folder.files:
                if w.current(key) == gen:
                    raise Violation(f"I1 reader of {key}: {name} dangles")
                break  # stale: read the newer generation
        else:
            return
