"""ResultRun: one run of results, and whatever belongs to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from mltraq_ds.errors import NotFoundError
from mltraq_ds.store.run_mapping import BLOB_FORMAT
from mltraq_ds.store.types import ArtifactDescriptor, RunRecord, Status

__all__ = ["ResultRun"]


@dataclass(frozen=True, slots=True)
class ResultRun:
    """One run of `Results`: its record, and whatever belongs to it, read when it is asked for."""

    record: RunRecord
    store: Any

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.record.run_id

    @property
    def experiment_id(self) -> str:
        """The experiment that it belongs to."""
        return self.record.experiment_id

    @property
    def status(self) -> Status:
        """How it has ended."""
        return self.record.status

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Scalars that came out of it."""
        return self.record.metrics

    @property
    def params(self) -> Mapping[str, Any]:
        """Small values that went into it."""
        return self.record.params_resolved

    @property
    def tags(self) -> list[str]:
        """Its tags."""
        return self.record.tags

    @property
    def derived(self) -> dict[str, Any]:
        """What was derived of it; empty if nothing was."""
        return self.store.get_derived(self.run_id) or {}

    def artifacts(self) -> list[ArtifactDescriptor]:
        """Return what can be loaded by name: artifacts, and values in blobs."""
        values = [one for one in self.record.artifacts if one.format == BLOB_FORMAT]
        return [*self.store.list_artifacts(self.run_id), *values]

    def load(self, name: str) -> Any:
        """Return an artifact, a field, a param or a structured result; see `Results.load`."""
        for descriptor in self.store.list_artifacts(self.run_id):
            if descriptor.name == name:
                return _decoded(self.store.get_artifact(descriptor.uri), descriptor)
        if hasattr(self.store, "read_run"):
            content = self.store.read_run(self.run_id)
            for values in (content.fields, content.params):
                if name in values:
                    return values[name]
        result = self.store.get_result(self.run_id, name) if hasattr(self.store, "get_result") else None
        if result is not None:
            return result["data"]
        known = sorted({one.name for one in self.artifacts()} | set(self.metrics) | set(self.params))
        raise NotFoundError(f"Run {self.run_id!r:.80} has nothing named {name!r:.80}. It has {', '.join(known)}.")

    artifact = load

    def data(self, name: str) -> Any:
        """Return a structured result."""
        found = self.store.get_result(self.run_id, name)
        if found is None:
            raise NotFoundError(f"Run {self.run_id!r:.80} has no result {name!r:.80}. Use list_data().")
        return found["data"]

    def list_data(self) -> list[str]:
        """Return the names of structured results."""
        names: list[str] = self.store.list_results(self.run_id)
        return names


def _decoded(data: bytes, descriptor: ArtifactDescriptor) -> Any:
    """Return what the bytes of an artifact stand for, where its format says so and reading it runs no code."""
    if descriptor.format == "json":
        return json.loads(data)
    if descriptor.format in ("text", "txt"):
        return data.decode()
    if descriptor.format in ("npy", "numpy"):
        import numpy as np

        return np.load(BytesIO(data), allow_pickle=False)
    return data
