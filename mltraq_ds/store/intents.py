"""Intents: notes that a writer is at work.  They keep its name claimed and its fresh blobs safe from sweep.

An intent lives while its process lives (known at once on the same machine), elsewhere while it is renewed.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from mltraq_ds.errors import ConcurrentPersistError, CorruptRecordError, FormatError, KeyMissingError, MltraqDSError
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import descriptors, layout

__all__ = [
    "DELETE_VERSION",
    "DONE",
    "LEASE_S",
    "SAVE",
    "Intent",
    "at_work",
    "is_alive",
    "is_surely_dead",
    "list_intents",
    "read_intent",
    "refuse_others",
    "remove_intent",
]

LEASE_S = 600.0
#: What writers of artifacts are about to do.
SAVE, DELETE_VERSION = "save", "delete version"
#: Keys that earlier versions did not write; left out where they say nothing.
_LATER = ("storage_backend", "place", "store")
#: In place of a process: the writer has gone on, and somebody has to follow up.
DONE = "done"

#: Ids of writers at work in this process.  One that an error or Ctrl-C ended must not keep its name from the next.
at_work: set[str] = set()


@lru_cache(maxsize=1)
def this_machine() -> str:
    """Name the space in which process ids are meaningful: boot and process-id namespace, not just the host name."""
    parts = [socket.gethostname()]
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            parts.append(file.read().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        parts.append(f"{uuid.getnode():012x}")
    return "/".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What a writer is about to do.

    Parameters
    ----------
    writer : str
        Random id of the writer, also in the generation that it commits.
    action : str
        ``persist`` or ``delete``; of an artifact `SAVE` or `DELETE_VERSION`.
    id_experiment, name : str
        Of the experiment; of an artifact its folder and name.
    parent, number : int
        The generation that it builds on, and the one that it will commit.
    machine, process : str
        Where the writer runs: on the same machine its death is known at once.
    created : str
        ISO 8601, for people.
    storage_backend, place, store : str
        Who keeps an artifact outside of the store, and where, and the URL of the store; empty if nobody does.
    """

    writer: str
    action: str
    id_experiment: str
    name: str
    parent: int
    number: int
    machine: str = field(default_factory=lambda: this_machine())
    process: str = field(default_factory=lambda: _process(os.getpid()))
    created: str = field(default_factory=layout.now_text)
    storage_backend: str = ""
    place: str = ""
    store: str = ""

    @property
    def key(self) -> str:
        """Key of the intent."""
        return f"{layout.PENDING}/{self.writer}.json"

    @property
    def is_of_artifact(self) -> bool:
        """Whether an artifact is written, and no experiment."""
        return self.action in (SAVE, DELETE_VERSION)

    @property
    def fence_key(self) -> str:
        """Key of the mark that the writer was taken for dead; apart, because a renewal replaces the intent."""
        return f"{layout.PENDING}/{self.writer}.fenced"

    def to_body(self) -> dict[str, Any]:
        """Return what is written of it."""
        return {name: said for name, said in asdict(self).items() if said != "" or name not in _LATER}


def _process(pid: int) -> str:
    """Name a process: its id and, where the system tells, its start time, since ids are used again."""
    name = _own_name.get(pid) or _look_up(pid)
    if pid == os.getpid() and "/" in name:
        _own_name[pid] = name  # read once: it takes 0.7 ms
    return name


_own_name: dict[int, str] = {}
if hasattr(os, "register_at_fork"):  # a child may get the id of an ancestor that has ended
    os.register_at_fork(after_in_child=_own_name.clear)


def _look_up(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return str(pid)
    return f"{pid}/{fields[19]}" if fields[0] not in "ZX" else f"{pid}/dead"


def is_surely_dead(intent: Intent) -> bool:
    """Tell whether a writer cannot come back; a request that it sent to a remote storage may arrive all the same."""
    if intent.process == DONE:
        return True
    if intent.machine == this_machine() and intent.process == _process(os.getpid()):
        return intent.writer not in at_work
    return has_ended(intent.machine, intent.process)


def has_ended(machine: str, process: str) -> bool:
    """Tell whether a process is known to have ended; of another machine nobody knows."""
    pid, _, started = process.partition("/")
    if machine != this_machine() or not pid.isdigit():
        return False
    if started and _process(int(pid)) != process:
        return True
    try:
        os.kill(int(pid), 0)
    except OSError as error:  # of another user's process only that it is there
        return isinstance(error, ProcessLookupError)
    return False


def is_alive(storage: Storage, intent: Intent) -> bool:
    """Tell whether the writer of an intent is to be taken for at work.

    On the same machine that is known; elsewhere it is as long as the intent is renewed, by the storage's clock.
    """
    if is_surely_dead(intent):
        return False
    if intent.machine == this_machine():
        return True
    try:
        return storage.now() - storage.stat(intent.key).modified < LEASE_S
    except KeyMissingError:
        return False


def read_intent(storage: Storage, key: str) -> Intent:
    """Read one intent.

    Raises
    ------
    KeyMissingError
        If it is gone: its writer has finished.
    CorruptRecordError
        If it does not verify.
    """
    body = descriptors.from_bytes(storage.read(key, max_size=descriptors.MAX_SIZE), "intent", key)
    try:
        intent = Intent(**{name: body.get(name, "") if name in _LATER else body[name] for name in Intent.__slots__})
        _check(intent, key)
        return intent
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptRecordError(f"{key} cannot be read: {error!r:.80}. Remove it if no writer is at work.") from error


def _check(intent: Intent, key: str) -> None:
    for name in Intent.__slots__:
        value = getattr(intent, name)
        if name in ("parent", "number"):
            if type(value) is not int or not 0 <= value < 10**18:
                raise ValueError(f"{name} is no number of a generation")
        elif not isinstance(value, str):
            raise TypeError(f"{name} is not a string")
    if intent.key != key:
        raise ValueError("it names another writer than its file")  # finishing it would remove somebody else's


def list_intents(storage: Storage, on_unreadable: Callable[[MltraqDSError], None] | None = None) -> list[Intent]:
    """Return all intents of a store; `on_unreadable` gets the error of one that cannot be read, else it is raised."""
    intents = []
    for stat in storage.list(layout.PENDING):
        if stat.key.endswith(".json") and stat.key.count("/") == 1:
            try:
                intents.append(read_intent(storage, stat.key))
            except KeyMissingError:
                continue
            except (CorruptRecordError, FormatError) as error:
                if on_unreadable is None:
                    raise
                on_unreadable(error)
    return intents


def refuse_others(storage: Storage, mine: Intent) -> None:
    """Keep writers of one experiment or artifact apart where the storage does not decide which of two was first.

    Called when `mine` is written.  Each of two writers at work then sees the note of the other, so at most one goes on;
    both may be refused.  A writer that sleeps longer than a lease between its last look and its commit is not stopped.

    Raises
    ------
    ConcurrentPersistError
        If another writer of the experiment is at work.  Nothing was changed.
    """
    if storage.creates_if_absent:
        return
    for other in list_intents(storage):
        if other.writer != mine.writer and other.id_experiment == mine.id_experiment and is_alive(storage, other):
            what, then = ("Artifact", "") if mine.is_of_artifact else ("Experiment", "reload() and ")
            raise ConcurrentPersistError(
                f"{what} {mine.name!r} (id {mine.id_experiment}) was left as it is because another writer is at "
                f"work on it (intent {other.key}, since {other.created}), and {storage.url} does not decide which of "
                f"two is first. Wait until it has finished, then {then}try again."
            )


def remove_intent(storage: Storage, intent: Intent) -> None:
    """Remove an intent: the work is finished or undone."""
    storage.delete(intent.key)
