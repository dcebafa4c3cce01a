"""The real code as a world for `tests/model/schedules.py`: each actor is a thread on a machine of its own.

A thread stops before each operation of the storage, between the last look and the link of a commit, and before each
transaction.  Time is the schedule's: it stamps files and is what the storage calls now, so that a lease runs out when
somebody sleeps.  What is promised is looked at around the code, in the files.
"""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from mltraq_ds import DataStore, create_session
from mltraq_ds.errors import (
    ConflictError,
    ExperimentNotFoundError,
    KeyExistsError,
    StaleReferenceError,
    StorageError,
    UnknownOutcomeError,
)
from mltraq_ds.orm.database import Database
from mltraq_ds.storage.base import Buffer, Stat, Storage
from mltraq_ds.storage.failures import failure_of
from mltraq_ds.store.intents import LEASE_S
from mltraq_ds.testing import Callback, FaultStorage
from mltraq_ds.tracking import Session
from tests.concurrency.turns import Actor
from tests.model.protocol import GRACE, LEASE
from tests.model.schedules import Acts, Experiment, Refused, Steps, Violation

#: Seconds of the storage's clock in a unit of the schedule's.
UNIT_S = LEASE_S / LEASE
GENERATION = re.compile(r"([^/]+)/generations/(\d+)\.json")
MOVED = re.compile(r"_pending/deleted-[^/]+/generations/\d+\.json")
INTENT = re.compile(r"_pending/[^/]+\.json")
CHANGES = frozenset(("put", "delete", "delete_many", "move_folder", "delete_folder", "prune", "make_folder"))
Body = dict[str, Any]


def id_of(key: str) -> str:
    """Return the id of the experiment that the schedule calls x, y, z …"""
    return f"00000000-0000-4000-8000-{key.encode().hex():0>12}"


@dataclass
class Intent:
    """The intent of a thread; renewing it stamps its file anew."""

    world: RealWorld
    key: str
    by: object

    @property
    def renewed(self) -> int:
        return int(self.world.times[self.key] / UNIT_S)

    @renewed.setter
    def renewed(self, now: int) -> None:
        self.world.times[self.key] = now * UNIT_S


@dataclass(frozen=True)
class Base:
    """A version that somebody has loaded; each writer gets a copy of the object."""

    experiment: Any
    name: str
    ident: tuple[int, str]
    content: dict[str, int]


class TurnStorage(FaultStorage):
    """A storage before whose operations a thread waits for its turn, with the schedule's clock."""

    def __init__(self, inner: Storage, world: RealWorld) -> None:
        self.world = world
        super().__init__(inner, lambda call: Callback(lambda call: world.pause(f"{call.verb} {call.key}")))

    def __deepcopy__(self, memo: object) -> TurnStorage:
        return self

    def put(
        self,
        key: str,
        buffers: Iterable[Buffer],
        *,
        size: int,
        replace: bool = False,
        parents: bool = False,
        flush: bool = True,
        before_publish: Callable[[], None] | None = None,
    ) -> None:
        self.world.pause(f"put {key}")
        data = b"".join(buffers)
        is_commit = GENERATION.fullmatch(key) is not None
        if is_commit and not self.inner.is_local:
            self._request(key, data, before_publish)
            return

        def last() -> None:
            if before_publish is not None:
                before_publish()
            self.world.pause(f"link {key}")

        last_look = last if is_commit else before_publish
        self.inner.put(
            key, [data], size=len(data), replace=replace, parents=parents, flush=False, before_publish=last_look
        )
        self.world.note(key, data)

    def _request(self, key: str, data: bytes, before_publish: Callable[[], None] | None) -> None:
        """Send a conditional request, which may arrive late, or whose answer may be lost."""
        if before_publish is not None:
            before_publish()
        self.world.pause(f"create {key}")
        fault = self.world.random.random()
        if fault < 0.1:
            self.world.inflight.append((key, data))
        else:
            self.inner.put(key, [data], size=len(data))
            self.world.note(key, data)
        if fault < 0.2:
            raise failure_of("put", key, self.url, OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))

    def move_folder(self, key: str, to: str) -> bool:
        is_moved = super().move_folder(key, to)
        for name in [name for name in self.world.times if is_moved and name.startswith(f"{key}/")]:
            self.world.times[to + name[len(key) :]] = self.world.times.pop(name)
        self.world.is_changed = True
        return is_moved

    def now(self) -> float:
        return self.world.now * UNIT_S

    def stat(self, key: str) -> Stat:
        return self._stamped(super().stat(key))

    def list(self, prefix: str = "") -> Iterator[Stat]:
        return map(self._stamped, list(super().list(prefix)))

    def list_unfinished(self, prefix: str = "") -> Iterator[Stat]:
        return map(self._stamped, list(super().list_unfinished(prefix)))

    def _stamped(self, stat: Stat) -> Stat:
        return replace(stat, modified=self.world.times.get(stat.key, 0.0))


class TurnDatabase(Database):
    """A database before whose transactions a thread waits for its turn."""

    pause: Callable[[str], None]

    def read(self) -> Any:
        self.pause("read")
        return super().read()

    def write(self, *, is_durable: bool = True) -> Any:
        self.pause("write")
        return super().write(is_durable=is_durable)


class RealWorld:
    """What a schedule needs of a world, over one store and one database.

    Parameters
    ----------
    seed : int
        Of everything that is drawn.
    storage : Storage
        With experiments x and y in it, named n and m.
    database_url : str
        Of their rows.
    files : callable
        Returns the bytes of all files of the store by key, around the code under test.
    """

    def __init__(
        self, seed: int, storage: Storage, database_url: str, files: Callable[[str], dict[str, bytes]]
    ) -> None:
        self.random = Random(seed)
        self.now = 0
        self.running: object = None
        self.inflight: list[tuple[str, bytes]] = []
        self.times: dict[str, float] = {}
        self.threads: list[Actor] = []
        self.is_changed = True
        self.count = self.died = 0
        self._intents: dict[str, Intent] = {}
        self._files = files
        self._here = threading.local()
        self.history: dict[tuple[str, str], Body] = {}  # by writer and id
        self.contents: dict[int, dict[str, int]] = {}  # by label of the version
        self.closed: set[tuple[str, str]] = set()
        self.reported: list[tuple[str, str]] = []
        self.storage = TurnStorage(storage, self)
        self.database = TurnDatabase(database_url, durability="relaxed")
        self.database.pause = self.pause
        for key, data in sorted(files("").items()):
            self.note(key, data)

    @property
    def intents(self) -> dict[str, Intent]:
        return self._intents

    def session(self) -> Session:
        session = create_session("sqlite://", self.storage)
        session.database = self.database
        return session

    # -- threads

    def pause(self, at: str) -> None:
        """Wait for a turn, if this is the thread of an actor."""
        if at.partition(" ")[0] in CHANGES:
            self.is_changed = True
        actor = getattr(self._here, "actor", None)
        if actor is not None:
            actor.pause(at)

    def steps(self, name: str, body: Callable[[], object], refusals: tuple[type[Exception], ...]) -> Steps:
        """Run a function in a thread of its own, from pause to pause; errors of which none may come are raised."""
        actor = Actor(f"{name}-{len(self.threads)}", lambda _: self._live(actor, body))
        self.threads.append(actor)
        yield
        actor.start()
        while not actor.is_over:
            yield
            actor.step()
        if actor.error is not None:
            if isinstance(actor.error, refusals):
                raise Refused from actor.error
            raise actor.error

    def _live(self, actor: Actor, body: Callable[[], object]) -> object:
        self._here.actor = actor
        threading.current_thread().name = actor.name
        return body()

    def end_threads(self) -> None:
        """End all threads that are still waiting for a turn: they have died."""
        for actor in self.threads:
            self.died += actor.at != "" and not actor.is_over
            actor.end()

    def end(self) -> None:
        """End everything."""
        self.end_threads()
        self.database.close()

    # -- what has happened

    def note(self, key: str, data: bytes) -> None:
        """Note that a file was written."""
        self.is_changed = True
        self.times[key] = self.now * UNIT_S
        if INTENT.fullmatch(key) and key not in self._intents:
            self._intents[key] = Intent(self, key, self.running)
        if found := GENERATION.fullmatch(key):
            body = json.loads(data)
            self.history[body["writer"], body["id_experiment"]] = body
            if body["deleted"] and self.newest(found[1]) == body:
                self._note_end(body)

    def _note_end(self, end: Body) -> None:
        self.closed |= {(end["id_experiment"], writer) for writer in self.chain(end)}
        for (writer, identity), body in self.history.items():
            for pin in body["replaces"] if writer == end["writer"] and identity != end["id_experiment"] else ():
                seen = self.plain(self.history.get((pin[2], pin[0])))
                if pin[0] == end["id_experiment"] and self.plain(self.parent(end)) != seen:
                    raise Violation(f"I2 {pin[0]}: a replace ended generation {end['parent']}, it had seen {pin[1]}")

    def create(self, key: str, data: bytes) -> None:
        """Let a request arrive whose answer was given up."""
        with suppress(KeyExistsError):
            self.storage.inner.put(key, [data], size=len(data))
            self.note(key, data)

    def parent(self, body: Body) -> Body | None:
        return self.history.get((body["parent_writer"], body["id_experiment"]))

    def plain(self, body: Body | None) -> Body | None:
        """Return the version that a generation holds: a fence holds what its parent holds."""
        while body is not None and body["fences"] and self.parent(body):
            body = self.parent(body)
        return body

    def chain(self, body: Body | None) -> set[str]:
        seen: set[str] = set()
        while body is not None and body["writer"] not in seen:
            seen.add(body["writer"])
            body = self.parent(body)
        return seen

    def newest(self, folder: str) -> Body | None:
        """Return the current generation of a folder as its file says."""
        found = {
            int(match[2]): data
            for key, data in self._files(f"{folder}/generations").items()
            if (match := GENERATION.fullmatch(key))
        }
        return json.loads(found[max(found)]) if found else None

    def folders(self) -> list[str]:
        return sorted({key.partition("/")[0] for key in self._files("") if not key.startswith("_")})

    # -- what must hold at any moment

    def check(self) -> None:
        """Look at all files if any has changed: what is current is whole, and nobody's work is lost."""
        if not self.is_changed:
            return
        self.is_changed = False
        files = self._files("")
        newest: dict[str, tuple[int, bytes]] = {}
        for key, data in files.items():
            if (found := GENERATION.fullmatch(key)) and int(found[2]) > newest.get(found[1], (0, b""))[0]:
                newest[found[1]] = (int(found[2]), data)
        aside: list[Body] = []
        current = {folder: json.loads(data) for folder, (_, data) in newest.items()}
        for folder, body in current.items():
            gone = {parts[0] for parts in (*body["records"], *body["blobs"])} - files.keys()
            if gone and not body["deleted"]:
                raise Violation(f"I1 {folder} generation {body['generation']}: {gone} gone")
        for key, data in files.items():
            if MOVED.fullmatch(key):  # whoever has renamed it looks, and puts back what has not ended
                aside.append(json.loads(data))
        for identity, writer in self.reported:
            if any((identity, writer) == (body["id_experiment"], body["writer"]) for body in aside):
                continue
            if (identity, writer) not in self.closed and writer not in self.chain(current.get(identity)):
                raise Violation(f"I2 {identity}: {writer} was told success and is lost")

    def read(self, experiment: Any) -> dict[str, int]:
        """Read an experiment; its values are those of one version."""
        fields = experiment.runs.first().fields
        found = {name: fields[name].v for name in ("a", "b")}
        if found != self.contents[experiment.fields.label]:
            raise Violation(f"I1 {experiment.id_experiment}: {found} is a mixture")
        return found


# -- acts

REFUSALS = (ConflictError, ExperimentNotFoundError, UnknownOutcomeError)
LOST = (*REFUSALS, StorageError)


def persist(w: RealWorld, exp: Experiment, name: str, mode: str = "fail") -> Steps:
    """Persist new values, or a copy of what was loaded with some of its values changed."""

    def body() -> None:
        session = w.session()
        w.count += 1
        label = w.count
        content = dict(exp.base.content) if exp.base else {}
        if exp.base:
            experiment = copy.deepcopy(exp.base.experiment, {id(exp.base.experiment.session): session})
        else:
            experiment = session.create_experiment()
            experiment.id_experiment = id_of(exp.id)
            experiment.add_run()
        experiment.name, experiment.fields.label = name, label
        for field in ("a", "b"):
            if field not in content or w.random.random() < 0.5:
                content[field] = label
                experiment.runs.first().fields[field] = DataStore(v=label)
        w.contents[label] = content
        experiment.persist("replace" if mode == "overwrite" else mode)
        w.reported.append((experiment.id_experiment, experiment.base[1]))
        w.is_changed = True

    return w.steps(f"{mode}", body, REFUSALS if w.storage.inner.is_local else LOST)


def delete(w: RealWorld, key: str) -> Steps:
    """Delete an experiment by its id."""
    return w.steps("delete", lambda: w.session().delete_experiment(id_experiment=id_of(key)), LOST)


def read(w: RealWorld, key: str) -> Steps:
    """Load an experiment and read all of it; it may be replaced meanwhile, and never be damaged."""
    body = lambda: w.read(w.session().load_experiment(id_experiment=id_of(key)))  # noqa: E731
    return w.steps("read", body, (ExperimentNotFoundError, StaleReferenceError))


def sweep(w: RealWorld, grace: int = GRACE) -> Steps:
    """Remove what nobody refers to."""
    return w.steps("sweep", lambda: w.session().sweep(dry_run=False, grace_s=grace * UNIT_S), LOST)


def load(w: RealWorld) -> list[Experiment]:
    """Return about half of what is there, as somebody who loads it now and holds it."""
    loaded = []
    for key in ("x", "y", "z"):
        with suppress(ExperimentNotFoundError):
            experiment = w.session().load_experiment(id_experiment=id_of(key))
            if w.random.random() < 0.5:
                content = w.contents[experiment.fields.label]
                loaded.append(Experiment(key, Base(experiment, experiment.name, experiment.base, content)))
    return loaded


def put_single(w: RealWorld, key: str, run: str) -> Steps:
    """Not acted: schedules of the real code have no records that are put alone."""
    raise NotImplementedError


REAL = Acts(persist, delete, read, sweep, put_single, load)
