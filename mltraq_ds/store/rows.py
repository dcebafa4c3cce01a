"""Rows: what the index is told of an experiment, made from the same tagged JSON as its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mltraq_ds.orm.rows import BlobRow, ExperimentRow, RunRow
from mltraq_ds.store import layout, records
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.records import ExperimentContent, RunContent
from mltraq_ds.store.texts import NativeMapping

__all__ = ["Rows", "index_rows", "run_columns", "stored_rows"]

Rows = tuple[ExperimentRow, list[RunRow], list[BlobRow]]


def index_rows(
    content: ExperimentContent,
    tagged: Sequence[Mapping[str, Any]],
    generation: Generation | None,
    earlier: Sequence[RunRow] = (),
) -> Rows:
    """Return the rows of an experiment.

    Parameters
    ----------
    content : ExperimentContent
        The experiment and its runs, without their mappings.
    tagged : sequence of dict
        The mappings as tagged JSON: first the experiment's, then one for each run.
    generation : Generation or None
        The committed version; None before the commit, to validate.
    earlier : sequence of RunRow
        What was validated.  Rows of runs that refer to no blob are the same after the commit, and are not made again.
    """
    blobs = [BlobRow(blob.key, blob.size, blob.digest) for blob in generation.blobs] if generation else []
    experiment = ExperimentRow(
        id_experiment=content.id_experiment,
        name=content.name,
        generation=generation.number if generation else 0,
        folder=layout.folder_of(content.id_experiment),
        created_at=_time(content.created) or datetime.now(UTC),
        persisted_at=_time(generation.created if generation else None) or datetime.now(UTC),
        n_runs=len(content.runs),
        n_blobs=len(blobs),
        n_bytes=sum(blob.size for blob in blobs),
        fields=records.plain_text(tagged[0]["fields"]),
    )
    known: Sequence[RunRow | None] = earlier or [None] * len(content.runs)
    runs = [
        row if row is not None and _is_final(mapping) else RunRow(**run_columns(run, mapping))
        for run, mapping, row in zip(content.runs, tagged[1:], known, strict=True)
    ]
    return experiment, runs, blobs


def _is_final(tagged: Mapping[str, Any]) -> bool:
    return all(type(tagged[name]) is NativeMapping for name in records.MAPPINGS)


def run_columns(run: RunContent, tagged: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a run; `tagged` has its mappings as tagged JSON."""
    return {
        "id_run": run.id_run,
        "status": run.status,
        "exception": str(run.exception.get("message")) if run.exception else None,
        "started_at": _time(run.started),
        "finished_at": _time(run.finished),
        **{name: records.plain_text(tagged[name]) for name in records.MAPPINGS},
    }


def stored_rows(files: Sequence[tuple[str, bytes]], generation: Generation) -> Rows:
    """Return the rows of an experiment from its record files, for recovery and `rebuild_index`."""
    head: dict[str, Any] = {}
    bodies: list[dict[str, Any]] = []
    for key, data in files:
        first, more = records.parse_json(data, key)
        head = head or first
        bodies += more
    content = ExperimentContent(
        id_experiment=head["id_experiment"],
        name=head["name"],
        created=head["created"],
        runs=[records.run_without_mappings(body) for body in bodies],
    )
    return index_rows(content, [head, *bodies], generation)


def _time(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if text else None
        # Without a zone nobody knows which instant is meant.
        return None if found is None or found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None  # for people only; nothing depends on it
