"""A storage that fails on purpose, at the operation you name.

Loop over n until a run passes untouched, and look each time that the old or the new version is complete::

    for n in itertools.count(1):
        storage = FaultStorage(LocalStorage(folder), {n: Fail(errno.ENOSPC)})
        ...  # persist with it; then check what is there with a storage of its own
        if not storage.fired:
            break
"""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

from mltraq_ds.storage.base import Buffer, Source, Stat, Storage
from mltraq_ds.testing.faults import Call, Fault

__all__ = ["FaultStorage"]

T = TypeVar("T")

#: By number of the operation, or a function that is asked at each.
Plan: TypeAlias = Mapping[int, Fault] | Callable[[Call], Fault | None]


class FaultStorage(Storage):
    """Every operation of another storage, counted, written down, and made to fail where the plan says.

    A read of an open source is an operation too: ``read_range``.  Safe in threads; a pickled copy goes on counting for
    itself.

    Parameters
    ----------
    inner : Storage
        The storage that does the work.
    plan : mapping or callable
        Which fault strikes at which operation: ``{3: Fail()}``, or a function of the `Call` that returns one or None.
    verbs : iterable of str, optional
        Count only these; all by default.

    Attributes
    ----------
    log : list of Call
        Every counted operation, in order.
    fired : list of Call
        Those at which a fault struck.
    """

    def __init__(self, inner: Storage, plan: Plan | None = None, *, verbs: Iterable[str] | None = None) -> None:
        self.inner = inner
        self.url = inner.url
        self.plan: Plan = plan if plan is not None else {}
        self.verbs = frozenset(verbs) if verbs is not None else None
        self.log: list[Call] = []
        self.fired: list[Call] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"FaultStorage({self.inner!r}, operations={len(self.log)}, fired={len(self.fired)})"

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @property
    def creates_if_absent(self) -> bool:
        # docstring inherited
        return self.inner.creates_if_absent

    @property
    def is_shareable(self) -> bool:
        # docstring inherited
        return self.inner.is_shareable

    @property
    def is_local(self) -> bool:
        # docstring inherited
        return self.inner.is_local

    @property
    def scheme(self) -> str:
        # docstring inherited
        return self.inner.scheme

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
        # docstring inherited
        call, fault = self._count("put", key)
        fault.before(call, self.inner)
        chosen = fault.buffers(call, self.inner, buffers, size)
        self.inner.put(
            key,
            chosen,
            size=size,
            replace=replace,
            parents=parents,
            flush=flush,
            before_publish=before_publish,
        )
        fault.after(call, self.inner)

    def open(self, key: str, *, size: int | None = None) -> Source:
        # docstring inherited
        return _FaultSource(self, self._do("open", key, lambda: self.inner.open(key, size=size)))

    def read(self, key: str, *, max_size: int | None = None) -> bytes:
        # docstring inherited
        return self._do("read", key, lambda: self.inner.read(key, max_size=max_size))

    def delete(self, key: str) -> None:
        # docstring inherited
        self._do("delete", key, lambda: self.inner.delete(key))

    def delete_many(self, keys: Iterable[str]) -> None:
        # docstring inherited
        chosen = builtins.list(keys)
        self._do("delete_many", " ".join(chosen), lambda: self.inner.delete_many(chosen))

    def exists(self, key: str) -> bool:
        # docstring inherited
        return self._do("exists", key, lambda: self.inner.exists(key))

    def stat(self, key: str) -> Stat:
        # docstring inherited
        return self._do("stat", key, lambda: self.inner.stat(key))

    def list(self, prefix: str = "") -> Iterator[Stat]:
        # docstring inherited
        return self._do("list", prefix, lambda: self.inner.list(prefix))

    def list_unfinished(self, prefix: str = "") -> Iterator[Stat]:
        # docstring inherited
        return self._do("list_unfinished", prefix, lambda: self.inner.list_unfinished(prefix))

    def flush(self, keys: Iterable[str]) -> None:
        # docstring inherited
        chosen = builtins.list(keys)
        self._do("flush", " ".join(chosen), lambda: self.inner.flush(chosen))

    def folders(self, prefix: str = "") -> builtins.list[str]:
        # docstring inherited
        return self._do("folders", prefix, lambda: self.inner.folders(prefix))

    def make_folder(self, key: str) -> None:
        # docstring inherited
        self._do("make_folder", key, lambda: self.inner.make_folder(key))

    def prune(self, key: str) -> None:
        # docstring inherited
        self._do("prune", key, lambda: self.inner.prune(key))

    def move_folder(self, key: str, to: str) -> bool:
        # docstring inherited
        return self._do("move_folder", f"{key} {to}", lambda: self.inner.move_folder(key, to))

    @contextmanager
    def holding(self, key: str) -> Iterator[Callable[[str], None]]:
        # docstring inherited; each delete counts, and nothing else does
        with self.inner.holding(key) as delete:
            yield lambda inside: self._do("delete", inside, lambda: delete(inside))

    def delete_folder(self, key: str) -> None:
        # docstring inherited
        self._do("delete_folder", key, lambda: self.inner.delete_folder(key))

    def now(self) -> float:
        # docstring inherited
        return self._do("now", "", self.inner.now)

    def _count(self, verb: str, key: str) -> tuple[Call, Fault]:
        if self.verbs is not None and verb not in self.verbs:
            return Call(0, verb, key), Fault()
        with self._lock:
            call = Call(len(self.log) + 1, verb, key)
            self.log.append(call)
        fault = self.plan(call) if callable(self.plan) else self.plan.get(call.number)
        if fault is None:
            return call, Fault()
        self.fired.append(call)
        return call, fault

    def _do(self, verb: str, key: str, operation: Callable[[], T]) -> T:
        call, fault = self._count(verb, key)
        fault.before(call, self.inner)
        result = operation()
        fault.after(call, self.inner)
        return result


class _FaultSource(Source):
    def __init__(self, storage: FaultStorage, inner: Source) -> None:
        self.key = inner.key
        self.size = inner.size
        self._storage = storage
        self._inner = inner

    def read(self, offset: int, size: int) -> memoryview:
        # docstring inherited
        return self._storage._do("read_range", self.key, lambda: self._inner.read(offset, size))

    def close(self) -> None:
        # docstring inherited
        self._inner.close()
