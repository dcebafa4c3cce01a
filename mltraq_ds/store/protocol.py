"""What a store is to those who use one: the verbs that every store has, and those that some have beside them.

A store of your own has the methods of `Store`; the rest is looked for with ``isinstance(store, SupportsLogPath)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from mltraq_ds.store.types import ArtifactDescriptor, RunRecord

__all__ = [
    "Store",
    "SupportsArtifactOpen",
    "SupportsExperimentManifests",
    "SupportsLogListing",
    "SupportsLogPath",
    "SupportsManifestListing",
    "SupportsRunStreaming",
    "SupportsStructuredResults",
    "SupportsWorkingDirectory",
]


@runtime_checkable
class Store(Protocol):
    """Run records, artifacts, derived metrics and logs."""

    def put_run_record(self, record: RunRecord) -> None:
        """Write the record of one run, in place of an earlier one."""

    def get_run_record(self, run_id: str) -> RunRecord | None:
        """Return the record of one run, None if there is none."""

    def list_run_records(self, experiment_id: str | None = None) -> list[RunRecord]:
        """Return the records of all runs, or of those of one experiment."""

    def run_exists(self, run_id: str) -> bool:
        """Tell whether there is a record of the run."""

    def put_artifact(self, data: bytes | Path, descriptor: ArtifactDescriptor) -> ArtifactDescriptor:
        """Write an artifact; returns its descriptor with `uri`, `content_hash` and `size_bytes`."""

    def get_artifact(self, uri: str) -> bytes:
        """Return the bytes of an artifact, verified."""

    def list_artifacts(self, run_id: str) -> list[ArtifactDescriptor]:
        """Return the descriptors of the artifacts of a run, by name."""

    def put_derived(self, run_id: str, derived: Mapping[str, Any]) -> None:
        """Write the derived metrics of a run, in place of earlier ones."""

    def get_derived(self, run_id: str) -> dict[str, Any] | None:
        """Return the derived metrics of a run, None if there are none."""

    def derived_exists(self, run_id: str) -> bool:
        """Tell whether there are derived metrics of the run."""

    def put_log(self, run_id: str, name: str, content: str, label: str | None = None) -> None:
        """Write a log of a run, in place of an earlier one of that name."""

    def get_log(self, run_id: str, name: str) -> str | None:
        """Return a log of a run, None if there is none."""


@runtime_checkable
class SupportsWorkingDirectory(Protocol):
    """A store whose files lie in a folder of this machine."""

    def get_working_directory(self) -> Path:
        """Return the folder of the experiment, or of the collection; it may not exist yet."""


@runtime_checkable
class SupportsExperimentManifests(Protocol):
    """A store that keeps what an experiment was started with."""

    def put_experiment_manifest(
        self, experiment_id: str, manifest: Mapping[str, Any], timestamp: str | None = None
    ) -> None:
        """Write a manifest; earlier ones stay."""

    def get_experiment_manifest(self, experiment_id: str) -> dict[str, Any] | None:
        """Return the newest manifest of an experiment, None if there is none."""


@runtime_checkable
class SupportsManifestListing(Protocol):
    """A store that can list manifests."""

    def list_experiment_manifests(self, experiment_id: str) -> dict[str, dict[str, Any]]:
        """Return all manifests of an experiment by their timestamps, the newest last."""


@runtime_checkable
class SupportsArtifactOpen(Protocol):
    """A store whose artifacts can be read in pieces."""

    def open_artifact(self, uri: str) -> BinaryIO:
        """Return a stream over an artifact."""


@runtime_checkable
class SupportsLogPath(Protocol):
    """A store whose logs are files of this machine."""

    def get_log_path(self, run_id: str, name: str) -> Path:
        """Return the path of a log; it may not exist yet."""


@runtime_checkable
class SupportsLogListing(Protocol):
    """A store that can list logs."""

    def list_logs(self, run_id: str) -> list[str]:
        """Return the names of the logs of a run, sorted."""


@runtime_checkable
class SupportsStructuredResults(Protocol):
    """A store that keeps structured results."""

    def put_result(
        self,
        run_id: str,
        name: str,
        data: Any,
        dtype: str | None = None,
        shape: tuple[int, ...] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a structured result of a run, in place of an earlier one of that name."""

    def get_result(self, run_id: str, name: str) -> dict[str, Any] | None:
        """Return ``data``, ``dtype``, ``shape`` and ``metadata`` of a result, None if there is none."""

    def list_results(self, run_id: str) -> list[str]:
        """Return the names of the results of a run, sorted."""


@runtime_checkable
class SupportsRunStreaming(Protocol):
    """A store that gives run records one by one."""

    def iter_run_records(self, experiment_id: str | None = None) -> Iterator[RunRecord]:
        """Yield the records of all runs, or of those of one experiment."""
