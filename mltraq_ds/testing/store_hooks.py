"""What a store of run records under test has to tell the conformance suite."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mltraq_ds.store.types import ArtifactDescriptor, Provenance, RunRecord

__all__ = ["EXPERIMENT", "StoreHooks", "artifact", "full_record"]

EXPERIMENT = "my_exp:1.0"


class StoreHooks:
    """Hooks to fill in.  The ``raw_`` ones go *around* the code under test: an error made twice would cancel out.

    Attributes
    ----------
    folder : Path
        A fresh folder for each test; its name is unique, for stores that are in no folder too.
    """

    #: Number of threads that put at once.
    racers: ClassVar[int] = 8

    folder: Path

    @pytest.fixture(autouse=True)
    def _fresh_place(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_collection(self) -> Any:
        """Return a new store for the collection of this test; called several times, for the same place."""
        raise NotImplementedError

    def make_store(self, experiment_id: str = EXPERIMENT) -> Any:
        """Return a new store that is scoped to an experiment."""
        return self.make_collection().scoped(experiment_id)

    def raw_files(self) -> dict[str, bytes]:
        """Return every file of the collection by its key, read by other means."""
        raise NotImplementedError

    def raw_write(self, key: str, data: bytes) -> None:
        """Write a file by other means, in place of what is there."""
        raise NotImplementedError

    def damage(self, part: str) -> list[str]:
        """Flip a bit in the middle of every file whose key contains `part`; return the keys."""
        found = [key for key in self.raw_files() if part in key]
        for key in found:
            data = bytearray(self.raw_files()[key])
            data[len(data) // 2] ^= 1
            self.raw_write(key, bytes(data))
        return found


def full_record(run_id: str = "run-1", experiment_id: str = EXPERIMENT, **changes: Any) -> RunRecord:
    """Return a record in which every part has a value."""
    parts: dict[str, Any] = {
        "status": "failed",
        "context_fingerprint": "c" * 8,
        "params_fingerprint": "p" * 8,
        "seed_fingerprint": "s" * 8,
        "started_at": datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC),
        "finished_at": datetime(2024, 2, 29, 12, 0, 1, tzinfo=UTC),
        "duration_ms": 1000,
        "metrics": {"loss": 0.1, "epochs": 3, "note": "é\u2028", "is_best": True, "far": float("-inf")},
        "provenance": Provenance(code_hash="abc", host="here", extra={"ids": (1, 2)}),
        "error": {"type": "ValueError", "message": "ValueError: x", "traceback": "Traceback …"},
        "params_resolved": {"lr": 0.1, "sizes": [1, 2], "nested": {"a": None}, "$odd": 1},
        "tags": ["baseline", "é"],
        "warnings": ["slow"],
        "notes": "two\nlines",
        "artifacts": [ArtifactDescriptor("i", "model", "model", "pickle", metadata={"k": 1}, run_id=run_id)],
    }
    return RunRecord(run_id, experiment_id, **{**parts, **changes})


def artifact(name: str, run_id: str = "run-1", **rest: Any) -> ArtifactDescriptor:
    """Return the descriptor of an artifact to be put."""
    return ArtifactDescriptor(f"id of {name}", name, "model", "bytes", run_id=run_id, **rest)
