"""Run records in files: each put alone, read together with what `persist` has committed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mltraq_ds.errors import DamageError, FormatError, MltraqDSError, NotFoundError, UsageError
from mltraq_ds.objects import Objects
from mltraq_ds.store import file_layout, layout, reading, records, run_mapping, single_records, streaming
from mltraq_ds.store.content import RunContent
from mltraq_ds.store.file_scope import FileScope
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.types import RunRecord

__all__ = ["FileRecords"]


class FileRecords(FileScope):
    """The verbs for run records.  Any number of processes put at once, without waiting for each other."""

    _known: tuple[Generation, dict[str, dict[str, Any]]] | None = None

    def put_run_record(self, record: RunRecord) -> None:
        """Write the record of one run, in place of an earlier one; durable when it returns.

        What no run record can say of a run that was persisted stays: ``config``, and values that are no scalars.

        Raises
        ------
        UsageError, UnsupportedTypeError
            If something in it cannot be kept, or it is of another experiment than this store.  Nothing was written.
        StorageError
            If the storage refuses.  The earlier record, if any, is complete.
        """
        run_mapping.check_record(record)
        if self.experiment_id is None:
            self.scoped(record.experiment_id).put_run_record(record)
            return
        if record.experiment_id != self.experiment_id:
            raise UsageError(
                f"The record of run {record.run_id!r:.80} belongs to experiment {record.experiment_id!r:.80}, and this "
                f"store is scoped to {self.experiment_id!r:.80}. Use the store of the collection, or scope it to "
                "that one."
            )
        data = single_records.to_bytes(self._id, run_mapping.record_to(record))
        key = layout.run_record_key(self._folder, record.run_id)
        self._write(lambda: self._put(key, data))

    def get_run_record(self, run_id: str) -> RunRecord | None:
        """Return the record of one run, None if there is none.

        Raises
        ------
        CorruptRecordError
            If it cannot be read or does not verify.
        """
        body = self._body(run_id)
        return None if body is None else run_mapping.record_from(body, self._id, self._folder)

    def run_exists(self, run_id: str) -> bool:
        """Tell whether there is a record of the run."""
        return self._body(run_id) is not None

    def read_run(self, run_id: str) -> RunContent:
        """Return everything that is known of a run, values in blobs too; these are read when they are asked for.

        Raises
        ------
        NotFoundError
            If there is no such run.
        """
        body = self._body(run_id)
        if body is None:
            raise self._no_run(run_id)
        return records.run_content(body, Objects(self.storage))

    def list_run_records(
        self, experiment_id: str | None = None, *, on_corrupt: Callable[[MltraqDSError], None] | None = None
    ) -> list[RunRecord]:
        """Return the records of all runs, or of those of one experiment.

        Parameters
        ----------
        experiment_id : str, optional
            Only this experiment.
        on_corrupt : callable, optional
            Given the error of each record that cannot be read; without it the first one is raised.
        """
        return list(self.iter_run_records(experiment_id, on_corrupt=on_corrupt))

    def iter_run_records(
        self, experiment_id: str | None = None, *, on_corrupt: Callable[[MltraqDSError], None] | None = None
    ) -> Iterator[RunRecord]:
        """Yield what `list_run_records` returns, one experiment after another."""
        if self.experiment_id is None:
            for id_ in self.list_experiments() if experiment_id is None else [experiment_id]:
                yield from self.scoped(id_).iter_run_records(on_corrupt=on_corrupt)
            return
        if experiment_id not in (None, self.experiment_id):
            raise UsageError(
                f"The store is scoped to {self.experiment_id!r:.80} and has no records of {experiment_id!r:.80}. Use "
                "the "
                "store of the collection."
            )
        for body in streaming.bodies(self.storage, self.experiment_id, on_corrupt):
            try:
                record = run_mapping.record_from(body, self.experiment_id, self._folder)
            except (DamageError, FormatError) as error:
                if on_corrupt is None:
                    raise
                on_corrupt(error)
                continue
            yield record

    def delete_run(self, run_id: str) -> None:
        """Remove a run: its record, derived metrics, logs, artifacts and results.

        A run that was persisted is gone for readers at once; its values stay until the experiment is persisted again.
        Killed in between, call it again.

        Raises
        ------
        NotFoundError
            If nothing is known of such a run.  It is an id, never a pattern.
        """
        folder, is_known = self._folder, self._is_known(run_id)
        others = sorted(self._keys_of(run_id), key=lambda key: (not key.endswith(".json"), key))  # entries first
        if not is_known and not others:
            raise self._no_run(run_id)
        if is_known:
            data = single_records.deleted_bytes(self._id, run_id)
            self._write(lambda: self._put(layout.run_record_key(folder, run_id), data))
        # What was listed, and no more: whoever puts meanwhile begins a new life of the run.
        self.storage.delete_many(others)
        places = {*file_layout.run_folders(folder, run_id), *(key.rpartition("/")[0] for key in others)}
        for place in sorted(places - {f"{folder}/logs", f"{folder}/derived"}, reverse=True):
            self.storage.prune(place)

    def _keys_of(self, run_id: str) -> list[str]:
        """Return the keys of everything but the record of a run."""
        folder, derived = self._folder, file_layout.derived_key(self._folder, run_id)
        logs = (stat.key for stat in self.storage.list(f"{folder}/logs"))
        found = [key for key in logs if file_layout.log_name(folder, run_id, key) is not None]
        for place in file_layout.run_folders(folder, run_id):
            found += [stat.key for stat in self.storage.list(place)]
        return sorted([*found, *([derived] if self.storage.exists(derived) else [])])

    def _is_known(self, run_id: str) -> bool:
        try:
            return self._body(run_id) is not None
        except MltraqDSError:
            return True  # what cannot be read can be deleted

    def _no_run(self, run_id: str) -> NotFoundError:
        return NotFoundError(
            f"No run {run_id!r:.80} is in experiment {self._id!r:.80} of {self.storage.url}. Use list_run_records()."
        )

    def _body(self, run_id: str) -> dict[str, Any] | None:
        """Return the record of a run as JSON: the single one over that of the generation."""
        key = layout.run_record_key(self._folder, run_mapping.check_text(run_id, "id of the run"))
        current = self._current()
        single = single_records.read(self.storage, key)
        if single is not None and current is not None and single.put_id in current.folds:
            single = None
        committed = None if current is None or current.deleted else self._committed(current).get(run_id)
        return committed if single is None else single_records.merged(committed, single)

    def _committed(self, generation: Generation) -> dict[str, dict[str, Any]]:
        known = self._known
        if known is None or known[0].ident != generation.ident:
            files = reading.read_records(self.storage, generation)
            bodies = {body["id_run"]: body for key, data in files for body in records.parse_json(data, key)[1]}
            known = self._known = (generation, bodies)
        return known[1]
