"""Mapping: a run record as the record of a run in JSON, and back.  The table is in the reference, "Run records"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from mltraq_ds.errors import CorruptRecordError, UnsupportedTypeError, UsageError
from mltraq_ds.reference import Reference
from mltraq_ds.store import file_layout
from mltraq_ds.store.tagged import NotInline, tag
from mltraq_ds.store.tagged_values import is_scalar, read_values, tag_values
from mltraq_ds.store.texts import is_json_text
from mltraq_ds.store.types import ArtifactDescriptor, Provenance, RunRecord, Status

__all__ = ["BLOB_FORMAT", "check_record", "check_text", "descriptor_to", "entry_from", "record_from", "record_to"]

#: Format of the descriptors that stand for params and fields in blobs.
BLOB_FORMAT = "mltraq_ds/blob"
_PLAIN = ("context_fingerprint", "params_fingerprint", "seed_fingerprint", "duration_ms", "notes", "tags", "warnings")
_KINDS: tuple[tuple[str, type, str], ...] = (
    ("metrics", Mapping, "a dictionary"),
    ("params_resolved", Mapping, "a dictionary"),
    ("provenance", Provenance, "a Provenance"),
    ("tags", list, "a list of texts"),
    ("warnings", list, "a list of texts"),
    ("artifacts", list, "a list of ArtifactDescriptor"),
)
_FAILURE = ("type", "message", "traceback")
_DAMAGE = (ValueError, TypeError, LookupError, AttributeError)


def check_text(text: object, what: str) -> str:
    """Return an id or a name if it can be kept.

    Raises
    ------
    UsageError
        If it is no string, or has no exact form in JSON.
    """
    if not isinstance(text, str):
        raise UsageError(f"The {what} is of type {type(text).__name__}, not str. Use str(...).")
    if not is_json_text(text):
        raise UsageError(
            f"The {what} {text!a:.80} cannot be kept because its surrogates form a pair. Use the character."
        )
    return text


def check_record(record: object) -> RunRecord:
    """Return a run record if its parts are of their kinds, so that what is put comes back.

    Raises
    ------
    UsageError
        If it is none, or a part of it is of another kind.
    """
    if not isinstance(record, RunRecord):
        raise UsageError(f"A run record is a RunRecord, not a {type(record).__name__}. Use RunRecord(run_id, …).")
    for name, kind, what in _KINDS:
        value = getattr(record, name)
        is_list = kind is list and isinstance(value, tuple)
        if not (isinstance(value, kind) or is_list):
            raise UsageError(
                f"{name} of run {record.run_id!r:.80} is {what}, not a {type(value).__name__}. Give one, or "
                "leave it out."
            )
    for name in ("tags", "warnings"):
        for text in getattr(record, name):
            check_text(text, f"text among the {name} of run {record.run_id!r:.80}")
    return record


def record_to(record: RunRecord) -> dict[str, Any]:
    """Return the record of a run as JSON.

    Raises
    ------
    UsageError, UnsupportedTypeError
        If a text, a param or a metric cannot be kept; says which.  Nothing was written.
    """
    where = f"run {check_text(record.run_id, 'id of the run')!r:.80}"
    check_text(record.experiment_id, f"id of the experiment of {where}")
    error = record.error
    if error is not None and set(map(type, (*error, *error.values()))) - {str}:
        raise UsageError(f"The error of {where} cannot be kept because it is not a dictionary of texts. Use str(...).")
    return {
        "id_run": record.run_id,
        "status": str(record.status),
        "exception": error,
        "started": _text_of(record.started_at),
        "finished": _text_of(record.finished_at),
        "params": {
            name: tag_values(value, f"{where}, params, {name!r:.80}")
            for name, value in _named(record.params_resolved, "param", where).items()
        },
        "config": {},
        "fields": {
            name: _metric(value, name, where) for name, value in _named(record.metrics, "metric", where).items()
        },
        "about": _about(record, where),
    }


def _named(values: Mapping[str, Any], what: str, where: str) -> dict[str, Any]:
    return {check_text(name, f"name of a {what} of {where}"): value for name, value in values.items()}


def _metric(value: Any, name: str, where: str) -> Any:
    try:
        tagged = tag(value)
    except NotInline:
        tagged = []
    if not is_scalar(tagged):
        raise UnsupportedTypeError(
            f"Metric {name!r} of {where} cannot be kept because a value of type {type(value).__name__} is no scalar. "
            "Use put_result() or put_artifact(), or persist it as a field of a run."
        )
    return tagged


def _about(record: RunRecord, where: str) -> dict[str, Any]:
    about: dict[str, Any] = {}
    for name in _PLAIN:
        value = getattr(record, name)
        if value not in ("", None, []):
            about[name] = tag_values(list(value) if isinstance(value, tuple) else value, f"{where}, {name}")
    provenance = {name: value for name, value in asdict(record.provenance).items() if value not in (None, {})}
    if provenance:
        about["provenance"] = tag_values(provenance, f"{where}, provenance")
    if record.error is not None and set(record.error) != set(_FAILURE):
        about["error"] = tag_values(record.error, f"{where}, error")  # a run has no other parts of it
    artifacts = [descriptor_to(one) for one in record.artifacts if one.format != BLOB_FORMAT]
    return {**about, "artifacts": artifacts} if artifacts else about


def record_from(body: Mapping[str, Any], experiment_id: str, key: str = "") -> RunRecord:
    """Return the run record that the record of a run stands for; `key` is where it was read, for messages.

    Raises
    ------
    CorruptRecordError
        If a value is not of its form.
    """
    about = body.get("about", {})
    try:
        return RunRecord(
            run_id=body["id_run"],
            experiment_id=experiment_id,
            status=Status(body["status"]),
            started_at=_time_of(body["started"]),
            finished_at=_time_of(body["finished"]),
            metrics={name: read_values(value) for name, value in body["fields"].items() if is_scalar(value)},
            provenance=Provenance(**read_values(about.get("provenance", {}))),
            error=_error_of(body["exception"], about),
            params_resolved={name: read_values(value) for name, value in body["params"].items() if not _is_blob(value)},
            artifacts=[*map(_descriptor_from, about.get("artifacts", ())), *_in_blobs(body)],
            **{name: read_values(about[name]) for name in _PLAIN if name in about},
        )
    except _DAMAGE as error:
        where = f"Run {body.get('id_run')!r:.80} of experiment {experiment_id!r:.80}{f' in {key}' if key else ''}"
        raise CorruptRecordError(f"{where} cannot be read: {error!s:.200} Restore it from a copy.") from error


def _error_of(failure: dict[str, str] | None, about: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the error as it was put, as long as the run has failed in no other way since."""
    if failure is not None and "error" in about:
        put: dict[str, str] = read_values(about["error"])
        if all(put.get(name, "") == failure.get(name, "") for name in _FAILURE):
            return put
    return failure


def _is_blob(tagged: Any) -> bool:
    return isinstance(tagged, dict) and next(iter(tagged), "") == "$ref"


def _in_blobs(body: Mapping[str, Any]) -> list[ArtifactDescriptor]:
    """Return a descriptor for each param and field in a blob, so that a reader of records sees that they are there."""
    found = []
    for part in ("params", "fields"):
        for name, tagged in body[part].items():
            if _is_blob(tagged):
                reference = Reference.from_list(tagged["$ref"])
                uri = f"{reference.key}#{reference.fragment}" if reference.fragment else reference.key
                about = {"part": part, "type": str(tagged.get("type", "DataStore")), "index_digest": reference.digest}
                kind = str(tagged.get("kind", "value"))
                found.append(
                    ArtifactDescriptor(name, name, kind, BLOB_FORMAT, uri, None, reference.size, about, body["id_run"])
                )
    return found


def descriptor_to(descriptor: ArtifactDescriptor) -> dict[str, Any]:
    """Return a descriptor as JSON."""
    where = f"artifact {descriptor.name!r:.80} of run {descriptor.run_id!r:.80}"
    body: dict[str, Any] = tag_values(asdict(descriptor), where)
    return body


def entry_from(body: Mapping[str, Any], key: str) -> ArtifactDescriptor:
    """Return the descriptor in an entry of a manifest; `key` is where it was read.

    Raises
    ------
    CorruptRecordError
        If it is not of its form, belongs to another place, or names one that is not its own.
    """
    folder = key.partition("/")[0]
    try:
        found = _descriptor_from(body["descriptor"])
        is_ours = (
            file_layout.entry_key(folder, found.run_id, found.name) == key
            and file_layout.entry_of(folder, found.uri) == key
            and isinstance(found.content_hash, str)
            and type(found.size_bytes) is int
        )
    except _DAMAGE as error:
        raise CorruptRecordError(f"{key} cannot be read: {error!s:.200} Restore it from a copy.") from error
    if not is_ours:
        raise CorruptRecordError(
            f"{key} is the entry of artifact {found.name!r:.80} of run {found.run_id!r:.80} at {found.uri!r:.200}, "
            "so it "
            "was moved here from elsewhere. Move it back."
        )
    return found


def _descriptor_from(body: Mapping[str, Any]) -> ArtifactDescriptor:
    known = {one.name for one in fields(ArtifactDescriptor)}
    return ArtifactDescriptor(**{name: read_values(value) for name, value in body.items() if name in known})


def _text_of(time: datetime | None) -> str | None:
    if time is not None and not isinstance(time, datetime):
        raise UsageError(f"The time {time!r:.80} of a run is of type {type(time).__name__}. Use a datetime, or None.")
    return time.isoformat() if time is not None else None


def _time_of(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
