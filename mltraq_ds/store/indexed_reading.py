"""Reading by way of the index: it says which runs may match, and what it says is compared with the files."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from mltraq_ds.errors import DanglingReferenceError, KeyMissingError
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.singles import SingleIndex
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.store import generations, layout, reading, records, run_mapping, single_records
from mltraq_ds.store.document_rows import stamp_of
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.index_link import IndexLink
from mltraq_ds.store.run_filter import RunFilter
from mltraq_ds.store.types import RunRecord

__all__ = ["find", "is_current"]


def find(files: FileStore, index: Index, wanted: RunFilter, link: IndexLink) -> Iterator[RunRecord]:
    """Yield the records of one experiment that match: those of the rows first, then those of files without their row.

    Parameters
    ----------
    files : FileStore
        Scoped to the experiment.
    index : Index
        Of the store; an experiment that it has in another version is read from the files.
    wanted : RunFilter
        What to look for.
    link : IndexLink
        It knows of which experiments the index is behind, and which files need not be read again.
    """
    view = _View(files, index, link)
    if not view.is_current():
        yield from filter(wanted, files.iter_run_records())
        return
    status = None if wanted.status is None else str(wanted.status)
    done: set[str] = set()
    for _, id_run, position, stamp, text in view.rows.listed(view.id, status=status, values=wanted.metrics):
        body = view.body_of(id_run, position, stamp, text)
        done.add(id_run)
        if body is not None and wanted(record := view.record(body)):
            yield record
    # The database has filtered by what the rows say.  Where looking at every file costs little, that is not trusted.
    for id_run in view.changed() if files.storage.is_local else ():
        if id_run not in done:
            body = view.body_from_files(id_run)
            if body is not None and wanted(record := view.record(body)):
                yield record


def is_current(files: FileStore, index: Index, link: IndexLink) -> bool:
    """Tell whether the rows of one experiment are what its files say; on remote storages generations are compared."""
    view = _View(files, index, link)
    return view.is_current() and not (files.storage.is_local and any(True for _ in view.changed()))


class _View:
    """One experiment as rows and files have it, at one generation."""

    def __init__(self, files: FileStore, index: Index, link: IndexLink) -> None:
        self.id = str(files.experiment_id)
        self.files, self.index, self.link = files, index, link
        self.storage: Storage = files.storage
        self.rows = SingleIndex(index)
        self.folder = layout.folder_of(self.id)
        self.generation = generations.current(self.storage, self.folder)
        living = self.generation
        self.living = None if living is None or living.deleted else living
        self._folds = frozenset(self.generation.folds if self.generation else ())
        self._committed: _Committed | None = None
        self._files: set[str] | None = None

    def is_current(self) -> bool:
        """Tell whether the rows are those of the generation, and the index knows of nothing that it could not read."""
        known = self.index.get(self.id)
        is_same = (known.generation if known else 0) == (self.living.number if self.living else 0)
        return is_same and self.id not in self.link.behind

    def record(self, body: dict[str, Any]) -> RunRecord:
        return run_mapping.record_from(body, self.id, self.folder)

    def body_of(self, id_run: str, position: int, stamp: str | None, text: str | None) -> dict[str, Any] | None:
        """Return what is to be served for a row: what it says if it is that of its file, else what the files say."""
        if text is not None and self._is_present(id_run, str(stamp)):
            body: dict[str, Any] = json.loads(text)
            return body
        # On remote storages a record over that of the generation is known by its row only.
        if text is None and not (self.storage.is_local and self._key(id_run) in self._alone()):
            return self._below(id_run, position)
        return self.body_from_files(id_run)

    def body_from_files(self, id_run: str) -> dict[str, Any] | None:
        """Return what the files say of a run: the record that was put alone over that of the generation."""
        single = single_records.read(self.storage, self._key(id_run))
        if single is not None and single.put_id in self._folds:
            single = None
        below = self._below(id_run)
        return below if single is None else single_records.merged(below, single)

    def changed(self) -> Iterator[str]:
        """Yield the runs whose file has no row that is its own, and those whose row has no file."""
        stamps = self.rows.stamps(self.id)
        at = {self._key(id_run): (id_run, stamp) for id_run, stamp in stamps.items()}
        for stat in self.storage.list(f"{self.folder}/runs"):
            if not stat.key.endswith(".json"):
                continue
            id_run, stamp = at.pop(stat.key, ("", ""))
            if stamp != stamp_of(stat, self.generation):
                id_run = id_run or self._id_in(stat)
                if id_run:
                    yield id_run
        yield from (id_run for id_run, _ in at.values())

    def _id_in(self, stat: Stat) -> str:
        """Return the run of a file without a row; empty if its record was taken in by the generation."""
        stamp = stamp_of(stat, self.generation)
        if self.link.folded.get(stat.key) == stamp:
            return ""
        single = single_records.read(self.storage, stat.key)
        if single is None:
            return ""
        if single.put_id in self._folds:
            self.link.folded[stat.key] = stamp
            return ""
        return single.id_run

    def _alone(self) -> set[str]:
        """Return the keys of the records that were put alone, listed once: asking for each run would cost more."""
        if self._files is None:
            self._files = set(single_records.keys(self.storage, self.folder))
        return self._files

    def _key(self, id_run: str) -> str:
        return layout.run_record_key(self.folder, id_run)

    def _is_present(self, id_run: str, stamp: str) -> bool:
        """Tell whether a row is still that of its file; on remote storages only the generation is compared."""
        if not self.storage.is_local:
            return stamp.rpartition(":")[2] == str(self.generation.number if self.generation else 0)
        try:
            return stamp_of(self.storage.stat(self._key(id_run)), self.generation) == stamp
        except KeyMissingError:
            return False

    def _below(self, id_run: str, position: int | None = None) -> dict[str, Any] | None:
        if self.living is None:
            return None
        if self._committed is None:
            self._committed = _Committed(self.storage, self.living)
        return self._committed.get(id_run, position)


class _Committed:
    """The records of a generation: read once, and each decoded when it is asked for."""

    def __init__(self, storage: Storage, generation: Generation) -> None:
        try:
            self._files = reading.read_records(storage, generation)
        except DanglingReferenceError:
            # Replaced a moment ago?  Then whoever asks begins anew; otherwise the record is lost.
            folder = layout.folder_of(generation.id_experiment)
            now = generations.current(storage, folder)
            if now is None or now.deleted or now.ident == generation.ident:
                raise
            self._files = reading.read_records(storage, now)
        for key, data in self._files:
            records.parse_json(data[: data.find(b"\n") + 1], key)  # the first line is the record of the experiment
        # Found as far as they are asked for, in order: most callers want the first ones of many.
        self._more = self._find_lines()
        self._lines: list[tuple[str, bytes]] = []
        self._all: dict[str, dict[str, Any]] | None = None

    def _find_lines(self) -> Iterator[tuple[str, bytes]]:
        for key, data in self._files:
            start = data.find(b"\n") + 1
            while 0 < start < len(data):
                end = data.find(b"\n", start) + 1 or len(data)
                yield key, data[start:end]
                start = end

    def get(self, id_run: str, position: int | None) -> dict[str, Any] | None:
        """Return the record of a run; `position` is where it is, if it is known."""
        if position is not None and self._all is None:
            self._lines += itertools.islice(self._more, max(0, position + 1 - len(self._lines)))
            if 0 <= position < len(self._lines):
                key, line = self._lines[position]
                body = records.parse_line(line, key)
                if body["id_run"] == id_run:
                    return body
        if self._all is None:
            bodies = (body for key, data in self._files for body in records.parse_json(data, key)[1])
            self._all = {body["id_run"]: body for body in bodies}
        return self._all.get(id_run)
