"""Rows: blobs uploaded to a remote in a folder, beside a plain parallel copy of the same files."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

from bench.row import OURS, Contestant, Row, Target
from bench.rows.common import session

__all__ = ["ROWS"]

_JOBS = 8


class Copy(Contestant):
    """Copies the blobs of a store that we have made, each flushed to the disk."""

    name = "parallel copy + fsync"
    labels = ("first", "second")

    def make(self) -> None:
        fill(self)

    def upload(self) -> None:
        root = self.work.path("store")
        blobs = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names if len(name) == 32]
        for label in self.labels:
            target = self.work.path(label)
            os.mkdir(target)
            with self.work.timed(label), ThreadPoolExecutor(_JOBS) as threads:
                self._copy_all(threads, blobs, target)
            assert len(os.listdir(target)) == len(blobs) > 0

    def _copy_all(self, threads: ThreadPoolExecutor, blobs: list[str], target: str) -> None:
        for _ in threads.map(lambda blob: self._copy(blob, target), blobs):
            pass

    def _copy(self, blob: str, target: str) -> None:
        with open(blob, "rb") as source, open(os.path.join(target, os.path.basename(blob)), "xb") as copy:
            shutil.copyfileobj(source, copy, 4 * 1024 * 1024)
            copy.flush()
            os.fsync(copy.fileno())


class Ours(Contestant):
    """Uploads them twice: named by their digest, verified, with pointers; the second time nothing is to be done."""

    name = OURS
    labels = ("first", "second")

    def make(self) -> None:
        fill(self)

    def upload(self) -> None:
        from mltraq_ds import lake, options

        options.set("tqdm.disable", True)
        store = session(self.work)
        with self.work.timed("first"):
            first = lake.upload(store, remotes=self.work.path("lake"), jobs=_JOBS)
        with self.work.timed("second"):
            second = lake.upload(store, remotes=self.work.path("lake"), jobs=_JOBS)
        assert first.actions() == {"uploaded": len(first)}
        assert second.actions() == {"found": len(first)}
        assert lake.verify(store).actions() == {"intact": len(first)}


def fill(contestant: Contestant) -> None:
    """Persist many runs with a small DataStore each."""
    import numpy as np

    from mltraq_ds import DataStore

    experiment = session(contestant.work).create_experiment("many")
    for number in range(contestant.size["count"]):
        with experiment.run() as run:
            run.fields.ds = DataStore(weights=np.full(700, float(number)))
    experiment.persist()


ROWS = [
    Row(
        "lake",
        "20,000 small DataStores uploaded to a remote in a folder",
        phases=("make", "upload"),
        contestants=(Copy, Ours),
        full={"count": 20_000, "touch_bytes": 128 * 2**20},
        labels=("first", "second"),
        targets=(
            Target("first", "parallel copy + fsync", 1.25),
            Target("second", OURS, 0.05, reference_label="first"),
        ),
    )
]
