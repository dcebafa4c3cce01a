"""Sameness: whether what would be written of an experiment is what its current version says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mltraq_ds.objects import Objects
from mltraq_ds.reference import Reference
from mltraq_ds.store import layout, reading, records
from mltraq_ds.store.content import ExperimentContent, RunContent
from mltraq_ds.store.plan import Plan, is_stored
from mltraq_ds.store.planned import PlannedBlob

__all__ = ["is_same"]


def is_same(objects: Objects, content: ExperimentContent) -> bool:
    """Tell whether an experiment is in the store as it is in memory: all runs and values, those in blobs byte for byte.

    Nothing is written.  DataStores inside others are not looked into; with them it is another one.

    Raises
    ------
    ExperimentNotFoundError
        If it is not there.
    UsageError and its kinds
        If a value has no codec.
    """
    there = reading.snapshot(objects.storage, content.id_experiment)
    if there.generation is None or len(there.bodies) != len(content.runs) or there.head["name"] != content.name:
        return False
    plan = Plan(objects, layout.folder_of(content.id_experiment), frozenset())

    def is_equal(values: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
        tagged = plan.add_mapping(values, f"experiment {content.name!r}")
        if list(tagged) != list(stored):
            return False
        return all(_is_equal(objects, value, stored[name]) for name, value in tagged.items())

    return is_equal(content.fields, there.head["fields"]) and all(
        _head(run) == _head(records.run_without_mappings(body))
        and all(is_equal(getattr(run, part), body[part]) for part in records.MAPPINGS)
        for run, body in zip(content.runs, there.bodies, strict=True)
    )


def _head(run: RunContent) -> tuple[object, ...]:
    about = json.dumps(run.about, sort_keys=True)
    return run.id_run, run.status, run.exception, run.started, run.finished, about


def _is_equal(objects: Objects, new: Any, stored: Any) -> bool:
    if isinstance(new, PlannedBlob):
        is_blob = isinstance(stored, dict) and "$ref" in stored and stored.get("kind") == new.kind
        return is_blob and is_stored(new, objects.entries(Reference.from_list(stored["$ref"])))
    # As texts, since 1 == True == 1.0.
    return records.to_json(new) == json.dumps(stored, separators=(",", ":"))
