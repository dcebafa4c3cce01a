"""Records: one run as JSON, one line each, and back.

The first line of a record file is the experiment's own record; each further line is a run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mltraq_ds.datastore import DataStore, Origin
from mltraq_ds.errors import CorruptRecordError, FormatError
from mltraq_ds.lazy import LazyBunch
from mltraq_ds.objects import VALUE_KEY, Objects
from mltraq_ds.reference import Reference
from mltraq_ds.store.content import ExperimentContent, RunContent, check_content
from mltraq_ds.store.planned import PlannedBlob, UnreadValue
from mltraq_ds.store.tagged import plain, restore
from mltraq_ds.store.texts import NativeMapping, compact

__all__ = [
    "MAPPINGS",
    "ExperimentContent",
    "RunContent",
    "check_content",
    "check_run_body",
    "parse",
    "parse_json",
    "parse_line",
    "plain_text",
    "run_content",
    "run_without_mappings",
    "to_lines",
    "values_of",
]

VERSION = 1
MAPPINGS = ("params", "config", "fields")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_TEXTS = ("id_experiment", "name", "id_run", "status")
_OPTIONAL_TEXTS = ("created", "started", "finished")


_ENCODE = json.JSONEncoder(default=PlannedBlob.to_json, separators=(",", ":"), allow_nan=False).encode
_ENCODE_PLAIN = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def to_json(value: Any) -> str:
    """Return JSON text; a `PlannedBlob` becomes its reference."""
    return value.text if isinstance(value, NativeMapping) else _ENCODE(value)


def plain_text(tagged: Mapping[str, Any]) -> str:
    """Return the JSON text for the index: no tags."""
    if isinstance(tagged, NativeMapping):
        return tagged.text
    if any(isinstance(value, (dict, list, PlannedBlob)) for value in tagged.values()):
        tagged = {
            name: value.to_plain() if isinstance(value, PlannedBlob) else plain(value) for name, value in tagged.items()
        }
    return _ENCODE_PLAIN(tagged)


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
    }
    yield _line(head, next(mappings))
    for run, mapping in zip(content.runs, mappings, strict=True):
        body = {
            "kind": "run",
            "id_run": run.id_run,
            "status": run.status,
            "exception": run.exception,
            "started": run.started,
            "finished": run.finished,
        }
        yield _line(body, {"about": run.about, **mapping} if run.about else mapping)


def _line(head: dict[str, Any], mappings: Mapping[str, Any]) -> bytes:
    # Joined from texts, since those of most mappings are there already.
    texts = "".join(f',"{name}":{to_json(mapping)}' for name, mapping in mappings.items())
    return f"{compact(head)[:-1]}{texts}}}\n".encode("ascii")


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
    is_record = name == "mltraq_ds/record" and re.fullmatch("[1-9][0-9]{0,8}", version) is not None
    if is_record and int(version) > VERSION:
        raise FormatError(
            f"{key} has record version {version}, this version of mltraq_ds knows up to {VERSION}. Upgrade with "
            "'pip install --upgrade mltraq_ds'."
        )
    bodies = [_load(line, key) for line in lines[1:]]
    if not is_record or not _has(head, "id_experiment", "name", "created", "fields"):
        raise _unreadable(key, "its first line is not the record of an experiment")
    for body in bodies:
        check_run_body(body, key)
    if len({body["id_run"] for body in bodies}) != len(bodies):
        raise _unreadable(key, "two runs have one id")
    return head, bodies


def parse_line(line: bytes, key: str) -> dict[str, Any]:
    """Return the record of a run, as JSON, from its line; raises as `parse_json`."""
    body = _load(line, key)
    check_run_body(body, key)
    return body


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
        fields=values_of(head["fields"], objects),
    )
    content.runs = [run_content(body, objects) for body in bodies]
    return content


def run_content(body: dict[str, Any], objects: Objects) -> RunContent:
    """Return what the record of a run says; values in blobs are not read."""
    run = run_without_mappings(body)
    run.params, run.config, run.fields = (values_of(body[name], objects) for name in MAPPINGS)
    return run


def run_without_mappings(body: dict[str, Any]) -> RunContent:
    """Return what the record of a run says besides its values."""
    return RunContent(
        id_run=body["id_run"],
        status=body["status"],
        exception=body["exception"],
        started=body["started"],
        finished=body["finished"],
        about=body.get("about", {}),
    )


def check_run_body(body: dict[str, Any], key: str) -> None:
    """Raise `CorruptRecordError` if a JSON object is not the record of a run."""
    is_run = _has(body, "id_run", "status", "exception", "started", "finished", *MAPPINGS)
    if not is_run or type(body.get("about", {})) is not dict:
        raise _unreadable(key, "a line is not the record of a run")


def _has(body: dict[str, Any], *names: str) -> bool:
    if not all(name in body for name in names):
        return False
    failure = body.get("exception")
    return (
        all(type(body[name]) is str for name in _TEXTS if name in names)
        and all(type(body[name]) in (str, type(None)) for name in _OPTIONAL_TEXTS if name in names)
        and all(type(body[name]) is dict for name in MAPPINGS if name in names)
        and (failure is None or (type(failure) is dict and set(map(type, failure.values())) <= {str}))
    )


def _unreadable(key: str, reason: str) -> CorruptRecordError:
    return CorruptRecordError(f"{key} cannot be read because {reason}. Restore it from a copy.")


def _load(line: bytes, key: str) -> dict[str, Any]:
    try:
        body = _DECODER.decode(line.decode())
    except (ValueError, RecursionError) as error:
        raise _unreadable(key, f"a line is not JSON ({error!s:.80})") from error
    if not isinstance(body, dict):
        raise _unreadable(key, "a line is not an object")
    return body


def values_of(tagged: Any, objects: Objects) -> LazyBunch:
    """Return the values of a mapping in a record; those in blobs are not read."""

    def resolve(reference: Reference, beside: dict[str, Any]) -> Any:
        nested = [Reference.from_list(parts) for parts in beside.get("nested", ())]
        if beside.get("kind") != "datastore":
            return UnreadValue(Origin(objects, reference, [VALUE_KEY], nested), str(beside.get("type", "value")))
        # Without names they are read from the blob: JSON does not hold every one of them.
        names = [str(name) for name in beside["names"]] if "names" in beside else None
        return DataStore.from_origin(Origin(objects, reference, names, nested))

    values = LazyBunch()
    for name, value in tagged.items():
        if isinstance(value, (dict, list)):
            value = restore(value, resolve, allow_pickle=objects.allow_pickle)
        values._place(name, value)
    return values
