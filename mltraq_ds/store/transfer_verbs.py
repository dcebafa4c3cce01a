"""Transfer by the verbs that every store has, where one of the two is not made of files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mltraq_ds.errors import MltraqDSError, TransferError
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.protocol import (
    SupportsExperimentManifests,
    SupportsLogListing,
    SupportsManifestListing,
    SupportsStructuredResults,
)
from mltraq_ds.store.run_mapping import BLOB_FORMAT
from mltraq_ds.store.transfer_plan import KINDS, Selection, plan_rest, unclaimed
from mltraq_ds.store.types import RunRecord

__all__ = ["transfer_by_verbs"]


def transfer_by_verbs(
    source: Any,
    target: Any,
    experiment_id: str | None,
    wanted: Selection,
    *,
    overwrite: bool,
    progress: Callable[[int, int], None] | None,
) -> dict[str, int]:
    """Copy run records and what belongs to them; see `export_store`.

    Raises
    ------
    TransferError
        If something could not be copied, such as a value in a blob, which only stores of files can keep.
    """
    work = _Verbs(source, target, wanted, overwrite)
    records = list(source.list_run_records(experiment_id))
    for done, record in enumerate(records, 1):
        work.copy_run(record)
        if progress is not None:
            progress(done, len(records))
    for id_ in sorted({record.experiment_id for record in records}):
        work.attempt(id_, "manifests", lambda id_=id_: work.copy_manifests(id_))  # type: ignore[misc]
    work.refuse_rest(experiment_id, records)
    work.counts["experiments"] = len({record.experiment_id for record in records})
    if work.failed:
        first, reason = next(iter(work.failed.items()))
        raise TransferError(
            f"{len(work.failed)} things of {len(records)} runs were not copied: {first}: {reason} What was copied "
            "stays; the same call goes on."
        )
    return work.counts


class _Verbs:
    def __init__(self, source: Any, target: Any, wanted: Selection, overwrite: bool) -> None:
        self.source, self.target, self.wanted, self.overwrite = source, target, wanted, overwrite
        self.counts = dict.fromkeys(("experiments", *KINDS, "files", "bytes"), 0)
        self.failed: dict[str, str] = {}

    def attempt(self, what: str, kind: str, work: Callable[[], int]) -> None:
        """Do one thing and count it; a failure is noted."""
        try:
            self.counts[kind] += work()
        except MltraqDSError as error:
            self.failed[f"{kind} of {what!r:.80}"] = str(error)

    def copy_run(self, record: RunRecord) -> None:
        """Copy what belongs to a run, its record last."""
        run = record.run_id
        source, target = _scoped(self.source, record), _scoped(self.target, record)
        for kind in ("artifacts", "derived", "logs", "results"):
            if self.wanted.takes(kind):
                copy = getattr(self, f"_copy_{kind}")
                self.attempt(run, kind, lambda copy=copy: copy(source, target, run))  # type: ignore[misc]
        self.attempt(run, "runs", lambda: self._copy_record(target, record))

    def _copy_record(self, target: Any, record: RunRecord) -> int:
        if any(one.format == BLOB_FORMAT for one in record.artifacts):
            raise TransferError(
                f"Run {record.run_id!r:.80} has values in blobs, which only stores of files can keep. Export it to one."
            )
        there = target.get_run_record(record.run_id)
        if _is_same(there, record):
            return 0
        if there is not None and not self.overwrite:
            raise TransferError(f"Run {record.run_id!r:.80} is there and differs. Use overwrite=True to replace it.")
        target.put_run_record(record)
        if not _is_same(target.get_run_record(record.run_id), record):
            raise TransferError(f"Run {record.run_id!r:.80} came back otherwise than it was put. Look at that store.")
        return 1

    def _copy_artifacts(self, source: Any, target: Any, run: str) -> int:
        there = {one.name: one.content_hash for one in target.list_artifacts(run)}
        count = 0
        for one in source.list_artifacts(run):
            if one.format == BLOB_FORMAT or (one.content_hash and there.get(one.name) == one.content_hash):
                continue
            self._refuse(one.name in there, run, f"artifact {one.name!r:.80}")
            target.put_artifact(source.get_artifact(one.uri), replace(one, run_id=run))
            count += 1
        return count

    def _copy_derived(self, source: Any, target: Any, run: str) -> int:
        derived = source.get_derived(run)
        there = target.get_derived(run)
        if derived is None or _is_same(there, derived):
            return 0
        self._refuse(there is not None, run, "its derived metrics")
        target.put_derived(run, derived)
        return 1

    def _copy_logs(self, source: Any, target: Any, run: str) -> int:
        count = 0
        for name in source.list_logs(run) if isinstance(source, SupportsLogListing) else ():
            content = source.get_log(run, name)
            there = target.get_log(run, name)
            if content is not None and there != content:
                self._refuse(there is not None, run, f"log {name!r:.80}")
                target.put_log(run, name, content)
                count += 1
        return count

    def _copy_results(self, source: Any, target: Any, run: str) -> int:
        if not isinstance(source, SupportsStructuredResults) or not source.list_results(run):
            return 0
        if not isinstance(target, SupportsStructuredResults):
            raise TransferError(f"{type(target).__name__} keeps no results. Use include_results=False.")
        count = 0
        for name in source.list_results(run):
            found, there = source.get_result(run, name), target.get_result(run, name)
            if found is not None and not _is_same(there, found):
                self._refuse(there is not None, run, f"result {name!r:.80}")
                target.put_result(run, name, found["data"], found["dtype"], found["shape"], found["metadata"])
                count += 1
        return count

    def _refuse(self, is_there: bool, run: str, what: str, owner: str = "Run") -> None:
        if is_there and not self.overwrite:
            raise TransferError(f"{owner} {run!r:.80}: {what} is there and differs. Use overwrite=True to replace it.")

    def copy_manifests(self, experiment_id: str) -> int:
        """Copy the manifests of an experiment: all of them, or the newest of a store that lists none."""
        source, target = (_of_experiment(one, experiment_id) for one in (self.source, self.target))
        if not self.wanted.manifests or not isinstance(source, SupportsExperimentManifests):
            return 0
        newest = source.get_experiment_manifest(experiment_id)
        if newest is None:
            return 0
        if not isinstance(target, SupportsExperimentManifests):
            raise TransferError(f"{type(target).__name__} keeps no manifests. Use include_manifests=False.")
        if not isinstance(source, SupportsManifestListing):
            if _is_same(target.get_experiment_manifest(experiment_id), newest):
                return 0
            target.put_experiment_manifest(experiment_id, newest)
            return 1
        ours = source.list_experiment_manifests(experiment_id)
        there = {}
        if isinstance(target, SupportsManifestListing):
            there = target.list_experiment_manifests(experiment_id)
        elif _is_same(target.get_experiment_manifest(experiment_id), newest):
            return 0  # the newest one is put last
        count = 0
        for timestamp, manifest in ours.items():
            if not _is_same(there.get(timestamp), manifest):
                self._refuse(timestamp in there, experiment_id, f"manifest {timestamp!r:.80}", "Experiment")
                target.put_experiment_manifest(experiment_id, manifest, timestamp)
                count += 1
        return count

    def refuse_rest(self, experiment_id: str | None, records: list[RunRecord]) -> None:
        """Note what a store of files has that belongs to no run record, which the verbs cannot name."""
        if not isinstance(self.source, FileStore):
            return
        runs: dict[str, list[str]] = {}
        for record in records:
            runs.setdefault(record.experiment_id, []).append(record.run_id)
        scopes = [experiment_id] if experiment_id is not None else FileStore(self.source.storage).list_experiments()
        for id_experiment in scopes:
            keys = unclaimed(self.source.storage, id_experiment, runs.get(id_experiment, ()), self.wanted)
            if keys:
                self.failed[f"{len(keys)} files of experiment {id_experiment!r:.80}"] = (
                    f"{keys[0]} belongs to no run that has a record. Put one, or leave its kind out "
                    "(include_logs=False and so on)."
                )
        if experiment_id is None:
            for item in (item for step in plan_rest(self.source.storage) for item in step):
                self.failed[item.key] = "Saved artifacts and folders of your own can be copied to stores of files only."


def _is_same(there: object, ours: object) -> bool:
    """Tell whether two documents are equal; NaN is no other value than NaN."""
    return there == ours or repr(there) == repr(ours)


def _scoped(store: Any, record: RunRecord) -> Any:
    return _of_experiment(store, record.experiment_id)


def _of_experiment(store: Any, experiment_id: str) -> Any:
    is_collection = hasattr(store, "scoped") and getattr(store, "experiment_id", None) is None
    return store.scoped(experiment_id) if is_collection else store
