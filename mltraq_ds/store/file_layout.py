"""Layout of what runs put beside their records: logs, artifacts, derived metrics, results and manifests.

Names and ids are data: escaped so that different ones never share a file, also where the file system ignores case.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from typing import Any

from mltraq_ds.errors import UsageError
from mltraq_ds.ids import escape_name, unescape_name

__all__ = [
    "ARTIFACTS",
    "artifact_key",
    "derived_key",
    "entries_folder",
    "entry_key",
    "entry_of",
    "home_of",
    "is_entry",
    "kind_of",
    "log_key",
    "log_name",
    "logs_prefix",
    "manifest_key",
    "manifests_prefix",
    "result_key",
    "results_folder",
    "run_folders",
]

ARTIFACTS = "artifacts"
_MAX_PART = 120  # two of them and what is between fit into one segment
_ARTIFACT = re.compile(r"artifacts/([^/]+)/[0-9a-f]{32}-([^/]+)")
_ENTRY = re.compile(r"artifacts/[^/]+/_manifest/[^/]+\.json")
_DOCUMENT = re.compile(r"(?:derived|experiments|results/[^/]+)/[^/]+\.json")


def _part(text: str) -> str:
    """Return the first of two parts of a segment: the ``_`` between them is its first one."""
    segment = escape_name(text).replace("_", "=5f")
    if len(segment) <= _MAX_PART:
        return segment
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{segment[: _MAX_PART - 66]}=={digest}"  # "==" comes from no other text


def logs_prefix(folder: str, run_id: str) -> str:
    """Return how the keys of all logs of a run begin."""
    return f"{folder}/logs/{_part(run_id)}_"


def log_key(folder: str, run_id: str, name: str) -> str:
    """Return the key of a log: ``logs/<run>_<name>.log``.

    Raises
    ------
    UsageError
        If the name is so long that it could not be read back from the name of the file.
    """
    segment = escape_name(name)
    if len(segment) > _MAX_PART:
        raise UsageError(
            f"The log {name!r:.80} cannot be kept because its name is longer than {_MAX_PART} characters, escaped, and "
            "it is part of the name of a file. Use a shorter name."
        )
    return f"{logs_prefix(folder, run_id)}{segment}.log"


def log_name(folder: str, run_id: str, key: str) -> str | None:
    """Return the name of a log if `key` is one of this run."""
    prefix = logs_prefix(folder, run_id)
    if not key.startswith(prefix) or not key.endswith(".log"):
        return None
    return unescape_name(key[len(prefix) : -len(".log")])


def derived_key(folder: str, run_id: str) -> str:
    """Return the key of the derived metrics of a run."""
    return f"{folder}/derived/{escape_name(run_id)}.json"


def results_folder(folder: str, run_id: str) -> str:
    """Return where the results of a run are."""
    return f"{folder}/results/{escape_name(run_id)}"


def result_key(folder: str, run_id: str, name: str) -> str:
    """Return the key of a result."""
    return f"{results_folder(folder, run_id)}/{escape_name(name)}.json"


def artifact_key(folder: str, run_id: str, name: str) -> str:
    """Return a fresh key for the bytes of an artifact; its last part shows the name to people."""
    return f"{folder}/{ARTIFACTS}/{escape_name(run_id)}/{uuid.uuid4().hex}-{escape_name(name)}"


def entries_folder(folder: str, run_id: str) -> str:
    """Return where the manifest of a run's artifacts is: one entry each, so that no two writers share a file."""
    return f"{folder}/{ARTIFACTS}/{escape_name(run_id)}/_manifest"


def entry_key(folder: str, run_id: str, name: str) -> str:
    """Return the key of the entry of an artifact."""
    return f"{entries_folder(folder, run_id)}/{escape_name(name)}.json"


def entry_of(folder: str, key: str) -> str | None:
    """Return the key of the entry that the bytes of an artifact belong to; None if `key` is no artifact."""
    found = _ARTIFACT.fullmatch(key[len(folder) + 1 :]) if key.startswith(f"{folder}/") else None
    return f"{folder}/{ARTIFACTS}/{found.group(1)}/_manifest/{found.group(2)}.json" if found else None


def is_entry(folder: str, key: str) -> bool:
    """Tell whether a key is that of the entry of an artifact."""
    return key.startswith(f"{folder}/") and _ENTRY.fullmatch(key[len(folder) + 1 :]) is not None


def kind_of(folder: str, key: str) -> str:
    """Return ``derived``, ``results`` or ``experiments`` if a key is that of such a document, else an empty text."""
    found = _DOCUMENT.fullmatch(key[len(folder) + 1 :]) if key.startswith(f"{folder}/") else None
    return found.group(0).partition("/")[0] if found else ""


def home_of(folder: str, kind: str, body: Mapping[str, Any]) -> str:
    """Return the key at which a document belongs, by what it says of itself; empty if it does not."""
    try:
        if kind == "derived":
            return derived_key(folder, body["run_id"])
        if kind == "result":
            return result_key(folder, body["run_id"], body["name"])
        return manifest_key(folder, body["experiment_id"], body["timestamp"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""


def manifests_prefix(folder: str, experiment_id: str) -> str:
    """Return how the keys of all manifests of an experiment begin."""
    return f"{folder}/experiments/{_part(experiment_id)}_"


def manifest_key(folder: str, experiment_id: str, timestamp: str) -> str:
    """Return the key of a manifest."""
    return f"{manifests_prefix(folder, experiment_id)}{escape_name(timestamp)}.json"


def run_folders(folder: str, run_id: str) -> tuple[str, ...]:
    """Return the folders that hold nothing but what belongs to one run."""
    return (f"{folder}/{ARTIFACTS}/{escape_name(run_id)}", results_folder(folder, run_id))
