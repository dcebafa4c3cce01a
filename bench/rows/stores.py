"""Stores: many records put one by one, listed with a filter, read into an index; whole stores copied."""

from __future__ import annotations

import itertools
import os
import shutil
from typing import Any

from bench.row import OURS, Contestant, Row, Target

__all__ = ["ROWS"]


def _record(number: int) -> Any:
    from mltraq_ds.store import RunRecord

    status = "failed" if number % 10 == 0 else "success"
    metrics = {"loss": number / 2, "depth": number % 7}
    return RunRecord(f"run-{number:06d}", "exp:1", status, metrics=metrics, params_resolved={"lr": 0.1})


def _put(config: Any, start: int, stop: int) -> None:
    store = config.connect()
    for number in range(start, stop):
        store.put_run_record(_record(number))


class _Putting(Contestant):
    def config(self) -> Any:
        from mltraq_ds.store import FileStoreConfig

        return FileStoreConfig(root=self.work.path("store"))

    def put(self) -> None:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        each, config = self.size["records"] // 8, self.config()
        with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as pool:
            list(pool.map(abs, range(8)))  # the processes are there
            with self.work.timed("put"):
                waiting = [pool.submit(_put, config, at * each, (at + 1) * each) for at in range(8)]
                for one in waiting:
                    one.result()

    def read(self) -> None:
        store = self.config().connect()
        assert len({one.run_id for one in store.iter_run_records()}) == self.size["records"] // 8 * 8


class PutToFiles(_Putting):
    name = OURS


class PutToIndex(_Putting):
    name = "with an index"

    def config(self) -> Any:
        from mltraq_ds.store import SqliteStoreConfig

        url = f"sqlite:///{self.work.path('index.db')}"
        return SqliteStoreConfig(connection_string=url, file_root=self.work.path("store"))


class Listing(PutToIndex):
    """List and rebuild many single records."""

    name = OURS
    labels = ("index, first 1,000", "files, all", "rebuild")

    def prepare(self) -> None:
        from mltraq_ds.storage import LocalStorage
        from mltraq_ds.store import layout, run_mapping, single_records

        _put(self.config(), 0, 1)
        storage, folder = LocalStorage(self.work.path("store"), durability="relaxed"), layout.folder_of("exp:1")
        for number in range(self.size["records"]):
            record = _record(number)
            data = single_records.to_bytes("exp:1", run_mapping.record_to(record))
            storage.put(layout.run_record_key(folder, record.run_id), [data], size=len(data), replace=True)

    def use(self) -> None:
        from mltraq_ds.store.run_filter import RunFilter

        store, wanted = self.config().connect(), RunFilter("success")
        with self.work.timed("rebuild"):
            assert store.rebuild_index() == self.size["records"]
        list(itertools.islice(store.find_run_records(wanted, "exp:1"), 1000))
        with self.work.timed("index, first 1,000"):
            found = list(itertools.islice(store.find_run_records(wanted, "exp:1"), 1000))
        assert len({one.run_id for one in found if one.status == "success"}) == 1000
        with self.work.timed("files, all"):
            number = sum(1 for _ in filter(wanted, self.config().files.connect().iter_run_records("exp:1")))
        assert number == self.size["records"] * 9 // 10


class ListingPersisted(PutToIndex):
    """List many runs of one persist."""

    name = OURS
    labels = ("index, first 1,000",)

    def prepare(self) -> None:
        from mltraq_ds import Experiment, create_session

        config = self.config()
        with create_session(config.connection_string, config.file_root) as session:
            experiment = Experiment(session, "exp:1", "exp:1").add_runs(depth=list(range(self.size["records"])))
            for run in experiment.runs.values():
                run.status, run.fields.loss = "success", run.params.depth / 2
            experiment.persist()

    def use(self) -> None:
        from mltraq_ds.store.run_filter import RunFilter

        store, wanted = self.config().connect(), RunFilter("success")
        list(itertools.islice(store.find_run_records(wanted, "exp:1"), 1000))
        with self.work.timed("index, first 1,000"):
            found = list(itertools.islice(store.find_run_records(wanted, "exp:1"), 1000))
        assert len({one.run_id for one in found if one.metrics["loss"] == one.params_resolved["depth"] / 2}) == 1000


class _Copying(Contestant):
    labels = ("copy",)

    def prepare(self) -> None:
        import numpy as np

        from mltraq_ds import DataStore, create_session

        session = create_session(f"sqlite:///{self.work.path('index.db')}", self.work.path("store"))
        experiment = session.create_experiment("big")
        for number in range(self.size["arrays"]):
            with experiment.run() as run:
                values = np.random.default_rng(number).standard_normal(self.size["array_bytes"] // 8)
                run.fields.ds = DataStore(values=values)
        experiment.persist()

    def target(self) -> str:
        path = self.work.path("copy")
        shutil.rmtree(path, ignore_errors=True)
        return str(path)


class Export(_Copying):
    """Copy a store, verified."""

    name = OURS

    def use(self) -> None:
        from mltraq_ds.store import export_store

        target = self.target()
        with self.work.timed("copy"):
            counts = export_store(str(self.work.path("store")), target)
        assert counts["bytes"] > self.size["arrays"] * self.size["array_bytes"]


class Plain(_Copying):
    """Copy the files, with fsync and without looking at them."""

    name = "files and fsync"

    def use(self) -> None:
        source, target = str(self.work.path("store")), self.target()
        with self.work.timed("copy"):
            for folder, _, names in os.walk(source):
                os.makedirs(folder.replace(source, target), exist_ok=True)
                for name in names:
                    with (
                        open(f"{folder}/{name}", "rb") as one,
                        open(f"{folder}/{name}".replace(source, target), "wb") as other,
                    ):
                        shutil.copyfileobj(one, other, 8 << 20)
                        other.flush()
                        os.fsync(other.fileno())
        assert os.path.exists(f"{target}/_store.json")


ROWS = [
    Row(
        "puts",
        "10,000 run records put one by one by 8 processes",
        phases=("put", "read"),
        contestants=(PutToFiles, PutToIndex),
        labels=("put",),
        full={"records": 10_000},
    ),
    Row(
        "listing",
        "100,000 single run records: filter, read all, rebuild the index",
        phases=("use",),
        prepare=("prepare",),
        contestants=(Listing,),
        full={"records": 100_000},
        targets=(
            Target("index, first 1,000", seconds=0.05),
            Target("files, all", seconds=10.0),
            Target("rebuild", seconds=20.0),
        ),
    ),
    Row(
        "listing_persisted",
        "100,000 runs of one persist: filter by the index",
        phases=("use",),
        prepare=("prepare",),
        contestants=(ListingPersisted,),
        full={"records": 100_000},
        targets=(Target("index, first 1,000", seconds=0.05),),
    ),
    Row(
        "export",
        "copy a store of large blobs, verified (8 of 128 MiB)",
        phases=("use",),
        prepare=("prepare",),
        contestants=(Export, Plain),
        full={"arrays": 8, "array_bytes": 128 << 20},
        targets=(Target("copy", "files and fsync", 1.25),),
    ),
]
