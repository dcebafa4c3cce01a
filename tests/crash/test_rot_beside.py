"""Bytes decay where no experiment's generation leads to: saved artifacts, single records and what is put beside them,
pointers, intents.  What is read is right or a typed error, and `check` names the file.

What this does not hold for is written down in "Which files are what" of ``docs/explanation/durability.md``: a *log* has
no digest, and a lost file that nothing refers to is missed only by a database that knows it, as are records, derived
metrics and manifests, not results.
"""

from __future__ import annotations

import itertools
import os
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scene import Scene

from mltraq_ds import DataStore, get, lake, options, save
from mltraq_ds.errors import MltraqDSError, MltraqDSWarning
from mltraq_ds.store import ArtifactDescriptor, FileStoreConfig, RunRecord, descriptors, intents
from mltraq_ds.tracking.default import default_session

ROLES = {
    "pointer": 1,
    "version": 2,
    "artifact blob": 2,
    "artifact mark": 1,
    "record": 2,
    "derived": 2,
    "manifest": 1,
    "result": 2,
    "log": 2,
    "entry": 2,
    "run artifact": 2,
    "intent": 1,
}
#: Their loss is told by nobody: nothing refers to them, and no row is kept of them.
UNMISSED = ("log", "result", "intent")
RUNS = ("run-1", "run-2")


class Store:
    """One of each, or two where they can be swapped; what is read of each, and where."""

    def __init__(self, root: Path) -> None:
        self.scene = Scene(root)
        root.mkdir()
        with self.scene.session() as session:
            experiment = session.create_experiment("pointed")
            experiment.fields.ds = DataStore(weights=np.arange(200.0))
            experiment.persist()
            lake.upload(session, remotes=root / "remote")
        for blob in self.path.glob(f"{experiment.id_experiment}/{'[0-9a-f]' * 32}"):
            blob.unlink()
        self.options = {"database.url": self.scene.database_url, "datastore.url": str(self.path)}
        with options.ctx(self.options):
            for number in (1, 2):
                save(np.full(200, number), "w")
        self._put_records()
        living = intents.Intent(
            writer=str(uuid.uuid4()), action="persist", id_experiment="another", name="another", parent=0, number=1,
            machine="elsewhere", process="1",
        )  # fmt: skip
        (self.path / living.key).write_bytes(descriptors.to_bytes("intent", asdict(living)))
        with self.scene.session() as session:
            session.rebuild_index()
        keys = (path.relative_to(self.path).as_posix() for path in sorted(self.path.rglob("*")) if path.is_file())
        self.files = {key: (self.path / key).read_bytes() for key in keys if self.role(key)}
        self.intent = self.path / living.key
        for key in self.files:
            (self.path / key).chmod(0o644)
        self.readers = self._readers(experiment.id_experiment)

    @property
    def path(self) -> Path:
        return self.scene.store

    @property
    def records(self):
        return FileStoreConfig(root=str(self.path)).connect().scoped("exp")

    def _put_records(self) -> None:
        self.uris = {}
        for run in RUNS:
            self.records.put_run_record(RunRecord(run, "exp", "success", notes=f"note of {run}"))
            self.records.put_derived(run, {"of": run})
            self.records.put_log(run, "out", f"log of {run}")
            self.records.put_result(run, "scores", [run])
            described = ArtifactDescriptor("id", "model", "model", "bytes", run_id=run)
            self.uris[run] = self.records.put_artifact(f"bytes of {run}".encode(), described).uri
        self.records.put_experiment_manifest("exp", {"grid": [1, 2]})

    def _readers(self, id_pointed: str) -> dict[str, tuple[Callable[[], object], object, str]]:
        """Return for each thing how it is read, what is right, and where the files are that it comes from."""

        def pointed() -> object:
            with self.scene.session() as session:
                return session.load_experiment("pointed").fields.ds.weights.tolist()

        found = {
            "pointed": (pointed, np.arange(200.0).tolist(), id_pointed),
            "artifact": (lambda: get("w").get_value()[0], 2, "artifacts/w"),
            "version 1": (lambda: get("w", 1).get_value()[0], 1, "artifacts/w"),
            "manifest": (lambda: self.records.get_experiment_manifest("exp"), {"grid": [1, 2]}, "exp/experiments"),
            "records": (lambda: sorted(one.run_id for one in self.records.list_run_records()), list(RUNS), "exp/runs"),
        }
        for run in RUNS:
            found |= {
                f"record {run}": (lambda run=run: self.records.get_run_record(run).notes, f"note of {run}", "exp/runs"),
                f"derived {run}": (lambda run=run: self.records.get_derived(run), {"of": run}, "exp/derived"),
                f"result {run}": (
                    lambda run=run: self.records.get_result(run, "scores")["data"], [run], "exp/results"),
                f"bytes {run}": (
                    lambda run=run: self.records.get_artifact(self.uris[run]), f"bytes of {run}".encode(),
                    "exp/artifacts"),
            }  # fmt: skip
        return found

    @staticmethod
    def role(key: str) -> str:
        """Return what a file is; empty for those that `test_rot` is about."""
        parts = key.split("/")
        if parts[0] == "artifacts":
            return {"versions": "version", "_meta.json": "artifact mark"}.get(parts[2], "artifact blob")
        if parts[0] == "_pending":
            return "intent"
        if key.endswith(".remote"):
            return "pointer"
        if parts[0] != "exp" or len(parts) == 2:
            return ""
        names = {"runs": "record", "experiments": "manifest", "results": "result", "logs": "log", "derived": "derived"}
        return names.get(parts[1]) or ("entry" if "_manifest" in parts else "run artifact")

    def keys(self, role: str) -> list[str]:
        return [key for key in self.files if self.role(key) == role]

    @contextmanager
    def damaged(self, damage: dict[str, bytes | None]) -> Iterator[None]:
        for key, data in damage.items():
            (self.path / key).unlink() if data is None else (self.path / key).write_bytes(data)
        try:
            yield
        finally:
            for key in damage:
                (self.path / key).write_bytes(self.files[key])

    def check(self, damage: dict[str, bytes | None]) -> None:
        """Damage files; read everything as a new process would, then have `check` find it."""
        os.utime(self.intent)  # its writer is alive
        with self.damaged(damage), options.ctx(self.options), warnings.catch_warnings():
            warnings.simplefilter("ignore", MltraqDSWarning)
            for name, (read, right, place) in self.readers.items():
                told = outcome(read, right)
                if told is None:
                    continue
                assert any(key.startswith(place) for key in damage), (name, damage, told)
                may_be_gone = None in damage.values() and name not in ("pointed", "artifact", "version 1")
                assert isinstance(told, MltraqDSError) or may_be_gone, (name, damage, told)
            with self.scene.session() as session:
                report = session.check(deep=True)
            default_session().close()
        # A file that was put back has another time than its row; that is drift, and not what is asked for here.
        found = {one.key for one in report if one.kind != "index drift" or one.detail.endswith("in the files.")}
        found |= {one.key for one in report if "no such file" in one.detail}
        for key, data in damage.items():
            role = self.role(key)
            is_silent = role == "log" or (role in UNMISSED and data is None) or data == self.files[key].rstrip()
            assert is_silent or self._shown_at(key, data) & found, (key, data, report)

    def _shown_at(self, key: str, data: bytes | None) -> set[str]:
        """Return where damage may show: at the file, or at what only it led to."""
        others = {"pointer": {key.removesuffix(".remote")}}.get(self.role(key), set())
        if self.role(key) == "entry" and data is None:
            folder = key.partition("/_manifest")[0]
            others = {other for other in self.files if other.startswith(folder)}
        return {key, *others}


def outcome(read: Callable[[], object], right: object) -> object:
    """Read; return None if the value is right, else what came in its place."""
    try:
        value = read()
    except (MltraqDSError, AttributeError, TypeError) as error:  # None has no attributes, where a file is gone
        return error
    return None if value == right else f"wrong: {value!r}"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    options.set("tqdm.disable", True)
    store = Store(tmp_path_factory.mktemp("rot") / "scene")
    roles = [store.role(key) for key in store.files]
    assert {role: roles.count(role) for role in set(roles)} == ROLES
    yield store
    with store.scene.session() as session:
        session.rebuild_index()
        assert len(session.check(deep=True)) == 0  # the damage was undone: nothing else changed


@pytest.mark.parametrize("role", ROLES)
def test_every_file_is_lost_or_garbled(store, role):
    """Lost, emptied, cut, grown, zeroed, reversed or of another kind: what is read is right or a typed error."""
    for key in store.keys(role):
        data = store.files[key]
        half = data[: len(data) // 2]
        for garbled in (None, b"", half, data[:-1], data + b"\0", bytes(len(data)), data[::-1], b"{}"):
            if garbled != data:
                store.check({key: garbled})


def test_every_two_files_are_swapped(store):
    """Files of one kind in each other's place are found out: each says what it is of."""
    for role in ROLES:
        for one, two in itertools.combinations(store.keys(role), 2):
            store.check({one: store.files[two], two: store.files[one]})


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("step", [97, pytest.param(1, marks=pytest.mark.soak)])
def test_every_byte_is_flipped(store, role, step):
    """A flipped byte anywhere is a typed error where it matters, and found by check."""
    key = store.keys(role)[-1]
    for n, at in enumerate(range(len(key) % step, len(store.files[key]), step)):
        data = bytearray(store.files[key])
        data[at] ^= (0xFF, 0x01, 0x20)[n % 3]
        store.check({key: bytes(data)})


def test_what_is_not_promised_of_logs(store):
    """A log has no digest: a changed byte is read as it is, and check says nothing. The page on durability says so."""
    key = store.keys("log")[0]
    with store.damaged({key: store.files[key].replace(b"log of", b"fog of")}):
        assert store.records.get_log("run-1", "out") == "fog of run-1"
        with store.scene.session() as session:
            assert key not in {one.key for one in session.check(deep=True)}
