"""The conformance suite for stores of run records.

A store passes when a subclass that fills in the hooks does::

    class TestMine(StoreConformance):
        def make_collection(self): ...
        def raw_files(self): ...
        def raw_write(self, key, data): ...
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest

from mltraq_ds.errors import CorruptRecordError, NotFoundError, UnsupportedTypeError, UsageError
from mltraq_ds.store import protocol
from mltraq_ds.testing.storage_hooks import in_threads
from mltraq_ds.testing.store_beside import BesideConformance
from mltraq_ds.testing.store_hooks import EXPERIMENT, artifact, full_record

__all__ = ["StoreConformance"]

#: Different ids that careless stores put into one folder, or out of the collection.
IDS = (
    "my_exp:1.0", "my_exp_1.0", "a:b_c", "a_b:c", "../x:1", "/x", "org/x:1", "A", "a", "", ".", "*", "é", "con",
    "artifacts", "_pending", "x" * 300, "x" * 301, "a\x00b", "%2e%2e",
)  # fmt: skip


class StoreConformance(BesideConformance):
    """What a store of run records promises, in a new object each time."""

    def test_every_part_comes_back(self) -> None:
        """A record comes back as it was put, with every part."""
        record = full_record()
        self.make_store().put_run_record(record)
        assert self.make_store().get_run_record("run-1") == record
        assert self.make_store().run_exists("run-1")
        assert self.make_store().list_run_records() == [record]

    def test_least_record(self) -> None:
        """A record of nothing but ids and status comes back; NaN stays NaN."""
        record = full_record("least", metrics={"loss": math.nan}, error=None, notes=None, tags=[], started_at=None)
        self.make_store().put_run_record(record)
        found = self.make_store().get_run_record("least")
        assert math.isnan(found.metrics["loss"])
        assert (found.error, found.notes, found.tags, found.started_at) == (None, None, [], None)

    def test_put_again_replaces(self) -> None:
        """The record that was put last is the one that is there, whole."""
        store = self.make_store()
        store.put_run_record(full_record())
        store.put_run_record(full_record(status="success", metrics={"loss": 0.5}, tags=[]))
        found = self.make_store().list_run_records()
        assert [(one.status, one.metrics, one.tags) for one in found] == [("success", {"loss": 0.5}, [])]

    def test_nothing_is_made_by_reading(self) -> None:
        """Asking a place where nothing is makes nothing, and the answer is: nothing."""
        store = self.make_store()
        assert store.get_run_record("x") is None
        assert not store.run_exists("x")
        assert store.list_run_records() == []
        assert (store.get_derived("x"), store.get_log("x", "y"), store.list_artifacts("x")) == (None, None, [])
        assert store.get_experiment_manifest(EXPERIMENT) is None
        assert self.make_collection().list_experiments() == []
        assert self.raw_files() == {}

    def test_ids_are_data(self) -> None:
        """Different ids of experiments and runs never meet, whatever characters they are of."""
        for id_ in IDS:
            self.make_store(id_).put_run_record(full_record(id_, id_, notes=repr(id_)))
            self.make_store("runs").put_run_record(full_record(id_, "runs", notes=repr(id_)))
        assert self.make_collection().list_experiments() == sorted([*IDS, "runs"])
        for id_ in IDS:
            assert [(one.run_id, one.notes) for one in self.make_store(id_).list_run_records()] == [(id_, repr(id_))]
            assert self.make_store("runs").get_run_record(id_).notes == repr(id_)
        assert len({key.lower() for key in self.raw_files()}) == len(self.raw_files())

    def test_collection(self) -> None:
        """A collection lists the records of all experiments, or of one; each record goes to its own."""
        collection = self.make_collection()
        for experiment_id in ("one", "two"):
            for run_id in ("r1", "r2"):
                collection.put_run_record(full_record(run_id, experiment_id))
        found = [(one.experiment_id, one.run_id) for one in self.make_collection().list_run_records()]
        assert sorted(found) == [("one", "r1"), ("one", "r2"), ("two", "r1"), ("two", "r2")]
        assert {one.experiment_id for one in self.make_collection().list_run_records("two")} == {"two"}
        assert len(self.make_store("one").list_run_records()) == 2

    def test_scope(self) -> None:
        """A scope that is needed and missing, or there and not meant, is one clear sentence, and nothing is written."""
        store, collection = self.make_store(), self.make_collection()
        assert (store.is_scoped, collection.is_scoped) == (True, False)
        for wrong in (
            lambda: store.scoped("other"),
            store.list_experiments,
            lambda: store.put_run_record(full_record(experiment_id="other")),
            lambda: store.list_run_records("other"),
            lambda: store.get_experiment_manifest("other"),
            lambda: collection.put_log("r", "x", "y"),
            lambda: collection.get_run_record("r"),
            lambda: collection.scoped(3),
        ):
            with pytest.raises(UsageError):
                wrong()
        assert self.raw_files() == {}

    def test_what_cannot_be_kept(self) -> None:
        """A value without a form in JSON is refused with its name, and the earlier record stays."""
        store = self.make_store()
        store.put_run_record(full_record())
        before = self.raw_files()
        for changes, word in (
            ({"metrics": {"loss": [1]}}, "loss"),
            ({"metrics": {"loss": object()}}, "loss"),
            ({"params_resolved": {"model": object()}}, "params"),
            ({"error": {"type": 3}}, "error"),
            ({"started_at": "today"}, "time"),
        ):
            with pytest.raises((UnsupportedTypeError, UsageError), match=word):
                store.put_run_record(full_record(**changes))
        assert self.raw_files() == before

    def test_damaged_record(self) -> None:
        """A record of which a bit was flipped is raised by every reader, and the others are still to be had."""
        store = self.make_store()
        for run_id in ("good", "rotten"):
            store.put_run_record(full_record(run_id))
        assert len(self.damage("runs/rotten")) == 1
        for reader in (lambda: self.make_store().get_run_record("rotten"), self.make_store().list_run_records):
            with pytest.raises(CorruptRecordError, match="rotten"):
                reader()
        errors: list[Exception] = []
        found = self.make_store().list_run_records(on_corrupt=errors.append)
        assert [one.run_id for one in found] == ["good"]
        assert "rotten" in str(errors)

    def test_deleted_run(self) -> None:
        """A deleted run is gone with all that it put; the others stay, and an id is no pattern."""
        store = self.make_store()
        for run_id in ("r", "r_1", "rr"):
            store.put_run_record(full_record(run_id))
            store.put_log(run_id, "out", run_id)
            store.put_derived(run_id, {"x": 1})
            store.put_artifact(b"12", artifact("a", run_id))
        before = self.raw_files()
        for unknown in ("*", "", "../r", "nothing"):
            with pytest.raises(NotFoundError):
                store.delete_run(unknown)
        assert self.raw_files() == before
        store.delete_run("r")
        left = self.make_store()
        assert sorted(one.run_id for one in left.list_run_records()) == ["r_1", "rr"]
        assert (left.get_run_record("r"), left.get_log("r", "out"), left.get_derived("r")) == (None, None, None)
        assert left.list_artifacts("r") == []
        assert left.get_log("r_1", "out") == "r_1"
        assert len(left.list_artifacts("rr")) == 1

    def test_many_at_once(self) -> None:
        """Of records that many put at once none is lost, and of one run exactly one record is there, whole."""
        store = self.make_store()
        assert in_threads(self.racers, partial(self._put_some, store)) == [None] * self.racers
        found = {one.run_id: one for one in self.make_store().list_run_records()}
        assert found.keys() == {"shared", *(f"{n}-{i}" for n in range(self.racers) for i in range(5))}
        assert found["shared"] == full_record("shared", metrics={"of": found["shared"].metrics["of"]})

    def _put_some(self, store: Any, number: int) -> None:
        own = self.make_store() if number % 2 else store
        for i in range(5):
            own.put_run_record(full_record(f"{number}-{i}"))
            own.put_run_record(full_record("shared", metrics={"of": number}))

    def test_capabilities(self) -> None:
        """A store says what it can by the protocols that it fulfils."""
        store = self.make_store()
        for name in protocol.__all__:
            assert isinstance(store, getattr(protocol, name)), name
