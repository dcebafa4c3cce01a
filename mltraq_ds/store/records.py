"""Records: one run as JSON, one line each, and back.

The first line of a record file is the experiment's own record; each further line is a run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mltraq_ds.datastore import DataStore, Origin
from mltraq_ds.errors import CorruptRecordError, FormatError
from mltraq_ds.lazy import LazyBunch
from mltraq_ds.objects import VALUE_KEY, Objects
from mltraq_ds.reference import Reference
from mltraq_ds.store.planned import PlannedBlob, UnreadValue
from mltraq_ds.store.tagged import plain, restore

__all__ = [
    "MAPPINGS",
    "ExperimentContent",
    "RunContent",
    "parse",
    "parse_json",
    "plain_text",
    "run_without_mappings",
    "to_lines",
]

VERSION = 1
MAPPINGS = ("params", "config", "fields")


@dataclass(slots=True)
class RunContent:
    """What a record says of a run.

    Parameters
    ----------
    id_run : str
        Id of the run.
    params, config, fields : mapping
        Names and values; before writing with their values, after reading lazy.
    status : str
        ``created``, ``running``, ``success`` or ``failed``.
    exception : dict or None
        Of the step that raised, as text: ``type``, ``message`` (begins with the type) and ``traceback``.
    started, finished : str or None
        ISO 8601.
    """

    id_run: str
    params: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    status: str = "created"
    exception: dict[str, str] | None = None
    started: str | None = None
    finished: str | None = None


@dataclass(slots=True)
class ExperimentContent:
    """What the records of one generation say of an experiment."""

    id_experiment: str
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    runs: list[RunContent] = field(default_factory=list)
    created: str | None = None


def to_json(value: Any) -> str:
    """Return JSON text; a `PlannedBlob` becomes its reference."""
    return json.dumps(value, default=PlannedBlob.to_json, separators=(",", ":"), allow_nan=False)


def plain_text(tagged: Mapping[str, Any]) -> str:
    """Return the JSON text for the index: no tags."""
    if any(isinstance(value, (dict, list, PlannedBlob)) for value in tagged.values()):
        tagged = {
            name: value.to_plain() if isinstance(value, PlannedBlob) else plain(value) for name, value in tagged.items()
        }
    return json.dumps(tagged, separators=(",", ":"), allow_nan=False)


def to_lines(content: ExperimentContent, tagged: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield the lines of a record file.

    Parameters
    ----------
    content : ExperimentContent
        What the record says besides the mappings.
    tagged : iterable of dict
        The mappings as tagged JSON: first the experiment's (``fields``), then one for each run (``params``,
        ``config``, ``fields``).
    """
    mappings = iter(tagged)
    head = {
        "format": f"mltraq_ds/record/{VERSION}",
        "kind": "experiment",
        "id_experiment": content.id_experiment,
        "name": content.name,
        "created": content.created,
        **next(mappings),
    }
    yield to_json(head).encode() + b"\n"
    for run, mapping in zip(content.runs, mappings, strict=True):
        body = {
            "kind": "run",
            "id_run": run.id_run,
            "status": run.status,
            "exception": run.exception,
            "started": run.started,
            "finished": run.finished,
            **mapping,
        }
        yield to_json(body).encode() + b"\n"


def parse_json(data: bytes | memoryview, key: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the experiment's record and those of the runs, as JSON.

    Raises
    ------
    CorruptRecordError
        If it is not of that form.
    FormatError
        If a newer version of the library wrote it.
    """
    lines = bytes(data).splitlines()
    head = _load(lines[0] if lines else b"", key)
    name, _, version = str(head.get("format")).rpartition("/")
    if name == "mltraq_ds/record" and version.isdigit() and int(version) > VERSION:
        raise FormatError(
            f"{key} has record version {version}, this version of mltraq_ds knows up to {VERSION}. Upgrade with "
            "'pip install --upgrade mltraq_ds'."
        )
    bodies = [_load(line, key) for line in lines[1:]]
    if name != "mltraq_ds/record" or not _has(head, "id_experiment", "name", "created", "fields"):
        raise _unreadable(key, "its first line is not the record of an experiment")
    if not all(_has(body, "id_run", "status", "exception", "started", "finished", *MAPPINGS) for body in bodies):
        raise _unreadable(key, "a line is not the record of a run")
    return head, bodies


def parse(data: bytes | memoryview, key: str, objects: Objects) -> ExperimentContent:
    """Parse a record file; values in blobs are not read.

    Raises
    ------
    CorruptRecordError, FormatError
        As `parse_json`.
    """
    head, bodies = parse_json(data, key)
    content = ExperimentContent(
        id_experiment=head["id_experiment"],
        name=head["name"],
        created=head["created"],
        fields=_mapping(head["fields"], objects),
    )
    for body in bodies:
        run = run_without_mappings(body)
        run.params, run.config, run.fields = (_mapping(body[name], objects) for name in MAPPINGS)
        content.runs.append(run)
    return content


def run_without_mappings(body: dict[str, Any]) -> RunContent:
    """Return what the record of a run says besides its values."""
    return RunContent(
        id_run=body["id_run"],
        status=body["status"],
        exception=body["exception"],
        started=body["started"],
        finished=body["finished"],
    )


def _has(body: dict[str, Any], *names: str) -> bool:
    texts = [body.get(name) for name in ("id_experiment", "name", "id_run", "status") if name in names]
    mappings = [body.get(name) for name in MAPPINGS if name in names]
    return (
        all(name in body for name in names)
        and all(isinstance(text, str) for text in texts)
        and all(isinstance(mapping, dict) for mapping in mappings)
    )


def _unreadable(key: str, reason: str) -> CorruptRecordError:
    return CorruptRecordError(f"{key} cannot be read because {reason}. Restore it from a copy.")


def _load(line: bytes, key: str) -> dict[str, Any]:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _unreadable(key, f"a line is not JSON ({error!s:.80})") from error
    if not isinstance(body, dict):
        raise _unreadable(key, "a line is not an object")
    return body


def _mapping(tagged: Any, objects: Objects) -> LazyBunch:
    def resolve(reference: Reference, beside: dict[str, Any]) -> Any:
        nested = [Reference.from_list(parts) for parts in beside.get("nested", ())]
        if beside.get("kind") != "datastore":
            return UnreadValue(Origin(objects, reference, [VALUE_KEY], nested), str(beside.get("type", "value")))
        return DataStore.from_origin(
            Origin(objects, reference, [str(name) for name in beside.get("names", ())], nested)
        )

    values = LazyBunch()
    for name, value in tagged.items():
        values._place(name, restore(value, resolve) if isinstance(value, (dict, list)) else value)
    return values
