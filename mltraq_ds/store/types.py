"""Types of the file store: what is known of one run, and of the artifacts that it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

__all__ = ["ArtifactDescriptor", "Metric", "Provenance", "RunRecord", "Status"]

#: What a metric is.  NaN, infinity and numpy scalars are kept as they are.
Metric = float | int | str | bool


class Status(StrEnum):
    """How a run has ended, or not yet.

    Examples
    --------
    >>> Status("success") is Status.SUCCESS, Status.FAILED == "failed", str(Status.RUNNING)
    (True, True, 'running')
    """

    CREATED = "created"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a run comes from, as far as its producer says; nothing is collected by itself.

    Parameters
    ----------
    code_hash, python_version, library_version, executor_id, host : str or None
        In the producer's words.
    extra : dict
        Whatever else it says: JSON.
    """

    code_hash: str | None = None
    python_version: str | None = None
    library_version: str | None = None
    executor_id: str | None = None
    host: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ArtifactDescriptor:
    """What is known of one artifact of a run.

    Parameters
    ----------
    artifact_id : str
        Of the producer's choice; an artifact is found by its run and name.
    name : str
        Any string; a run has one artifact of a name.
    kind, format : str
        What it is and how it is written, in the producer's words: ``model``, ``pickle``.
    uri : str
        Store-relative key of its bytes, made by `put_artifact`.
    content_hash : str or None
        ``sha256:`` and the SHA-256 of its bytes, computed by `put_artifact`.  If given there, it is compared.
    size_bytes : int or None
        Size (bytes), computed likewise.
    metadata : dict
        Whatever else its producer says: JSON.
    run_id : str
        The run that it belongs to.
    """

    artifact_id: str
    name: str
    kind: str = ""
    format: str = ""
    uri: str = ""
    content_hash: str | None = None
    size_bytes: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is known of one run.  How it corresponds to a `Run`: see the page on run records in the reference.

    Parameters
    ----------
    run_id, experiment_id : str
        Any strings.
    status : Status
        How it has ended; a text of the same value is taken too.
    context_fingerprint, params_fingerprint, seed_fingerprint : str
        Of the producer's choice.
    started_at, finished_at : datetime or None
        When.
    duration_ms : int or None
        How long it took (ms).
    metrics : dict
        Scalars by name.
    provenance : Provenance
        Where it comes from.
    error : dict or None
        Of the step that raised, as text: ``type``, ``message``, ``traceback``.
    params_resolved : dict
        Small values by name.
    tags, warnings : list of str
        For people.
    notes : str or None
        For people.
    artifacts : list of ArtifactDescriptor
        What the record's producer lists; `Store.list_artifacts` tells what is there.
    """

    run_id: str
    experiment_id: str
    status: Status = Status.SUCCESS
    context_fingerprint: str = ""
    params_fingerprint: str = ""
    seed_fingerprint: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    metrics: dict[str, Metric] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)
    error: dict[str, str] | None = None
    params_resolved: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: str | None = None
    artifacts: list[ArtifactDescriptor] = field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", Status(self.status))

    @classmethod
    def success(cls, run_id: str, experiment_id: str, **rest: Any) -> RunRecord:
        """Return the record of a run that has succeeded; `rest` as for the class."""
        return cls(run_id, experiment_id, Status.SUCCESS, **rest)

    @classmethod
    def failed(cls, run_id: str, experiment_id: str, **rest: Any) -> RunRecord:
        """Return the record of a run that has failed."""
        return cls(run_id, experiment_id, Status.FAILED, **rest)

    @classmethod
    def running(cls, run_id: str, experiment_id: str, **rest: Any) -> RunRecord:
        """Return the record of a run that is at work."""
        return cls(run_id, experiment_id, Status.RUNNING, **rest)

    @classmethod
    def cancelled(cls, run_id: str, experiment_id: str, **rest: Any) -> RunRecord:
        """Return the record of a run that was cancelled."""
        return cls(run_id, experiment_id, Status.CANCELLED, **rest)
