"""Conformance of what runs put beside their records: artifacts, derived metrics, logs, results, manifests."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest

from mltraq_ds.errors import (
    CorruptBlobError,
    CorruptRecordError,
    InvalidNameError,
    NotFoundError,
    StaleReferenceError,
    StorageError,
    UnsupportedTypeError,
    UsageError,
    ValueChangedError,
)
from mltraq_ds.testing.storage_hooks import pattern
from mltraq_ds.testing.store_hooks import EXPERIMENT, StoreHooks, artifact

__all__ = ["BesideConformance"]

NAMES = ("model.bin", "../../../../pwn", "/etc/x", "a/b", "a:b", "a_b", "A", "a", "", "é", "*", ".tmp-x", "_manifest")


class BesideConformance(StoreHooks):
    """What the verbs beside run records promise."""

    @pytest.mark.parametrize("size", [0, 1, 3_000_000])
    def test_artifact(self, size: int) -> None:
        """An artifact comes back byte for byte, from bytes or a file, with size, digest and a relative key."""
        data, path = pattern(size), self.folder / "source"
        path.write_bytes(data)
        for source, name in ((data, "bytes"), (path, "file"), (Path(path), "path")):
            found = self.make_store().put_artifact(source, artifact(name, metadata={"k": (1, math.inf)}))
            assert (found.size_bytes, found.content_hash) == (size, f"sha256:{hashlib.sha256(data).hexdigest()}")
            assert self.raw_files()[found.uri] == data
            assert self.make_store().get_artifact(found.uri) == data
            with self.make_store().open_artifact(found.uri) as stream:
                assert stream.read() == data
                stream.seek(size // 2)
                assert stream.read() == data[size // 2 :]
            assert found in self.make_store().list_artifacts("run-1")
        assert [one.name for one in self.make_store().list_artifacts("run-1")] == ["bytes", "file", "path"]

    def test_names_of_artifacts_are_data(self) -> None:
        """Any string names an artifact; none leaves its run, and no two meet."""
        for name in NAMES:
            self.make_store().put_artifact(name.encode(), artifact(name))
            self.make_store().put_artifact(b"other", artifact(name, "other"))
        found = {one.name: self.make_store().get_artifact(one.uri) for one in self.make_store().list_artifacts("run-1")}
        assert found == {name: name.encode() for name in NAMES}
        first = {key.partition("/")[0] for key in self.raw_files()}
        assert first == {"_store.json", next(iter(found and first - {"_store.json"}))}

    def test_places_that_are_no_artifacts(self) -> None:
        """A uri that leads out of the store, or to anything but an artifact, is refused."""
        uri = self.make_store().put_artifact(b"1", artifact("x")).uri
        folder = uri.partition("/")[0]
        for wrong in (
            "/etc/passwd",
            "../../etc/passwd",
            f"{folder}/../x",
            "file:///etc/passwd",
            f"{folder}/_meta.json",
        ):
            with pytest.raises((InvalidNameError, UsageError)):
                self.make_store().get_artifact(wrong)
            with pytest.raises((InvalidNameError, UsageError)):
                self.make_store().open_artifact(wrong)
        with pytest.raises(UsageError):
            self.make_store("another").get_artifact(uri)
        with pytest.raises(NotFoundError):
            self.make_store().get_artifact(uri.replace("run-1", "run-2"))

    def test_artifact_again(self) -> None:
        """Of two artifacts of a name the second is there; the key of the first says so, and its bytes are gone."""
        old = self.make_store().put_artifact(b"old", artifact("x"))
        new = self.make_store().put_artifact(b"new", artifact("x"))
        assert self.make_store().list_artifacts("run-1") == [new]
        assert self.make_store().get_artifact(new.uri) == b"new"
        with pytest.raises(StaleReferenceError):
            self.make_store().get_artifact(old.uri)
        assert old.uri not in self.raw_files()

    def test_refused_artifacts(self) -> None:
        """Without a run, from a folder or nothing, of another digest: refused, and nothing is left."""
        store = self.make_store()
        store.put_artifact(b"old", artifact("x"))
        before = self.raw_files()
        for data, descriptor, error in (
            (b"1", artifact("x", ""), UsageError),
            (self.folder, artifact("x"), UsageError),
            (3, artifact("x"), UsageError),
            (self.folder / "nothing", artifact("x"), StorageError),
            (b"1", artifact("x", metadata={"k": object()}), UnsupportedTypeError),
            (b"1", artifact("x", content_hash="sha256:" + "0" * 64), ValueChangedError),
        ):
            with pytest.raises(error):
                store.put_artifact(data, descriptor)
        assert self.raw_files() == before

    def test_damaged_artifact(self) -> None:
        """A flipped bit in an artifact or its entry is found by every reader."""
        uri = self.make_store().put_artifact(pattern(300_000), artifact("x")).uri
        self.damage(uri)
        with pytest.raises(CorruptBlobError, match="does not verify"):
            self.make_store().get_artifact(uri)
        with pytest.raises(CorruptBlobError), self.make_store().open_artifact(uri) as stream:
            stream.read()
        self.damage("_manifest/x.json")
        with pytest.raises(CorruptRecordError):
            self.make_store().get_artifact(uri)
        with pytest.raises(CorruptRecordError):
            self.make_store().list_artifacts("run-1")

    def test_derived(self) -> None:
        """Derived metrics come back as they were put last, with their types; a damaged file is raised."""
        values = {"x": math.inf, "n": 3, "path": [1, (2, "é")], "": {"$ref": 1, 2: None}}
        assert not self.make_store().derived_exists("r")
        self.make_store().put_derived("r", {"old": 1})
        self.make_store().put_derived("r", values)
        assert self.make_store().get_derived("r") == values
        assert self.make_store().derived_exists("r")
        for wrong in ({"x": object()}, [1]):
            with pytest.raises(UsageError):
                self.make_store().put_derived("r", wrong)
        assert self.make_store().get_derived("r") == values
        self.damage("derived/r")
        with pytest.raises(CorruptRecordError):
            self.make_store().get_derived("r")

    def test_logs(self) -> None:
        """Logs come back by run and name, whatever strings these are, and runs never get each other's."""
        texts = {
            (run, name): f"{run} {name} é\n\ud800" for run in ("a", "a_b", "a_", "*", "") for name in ("b_c", "c", "")
        }
        for (run, name), text in texts.items():
            self.make_store().put_log(run, name, text)
        assert {key: self.make_store().get_log(*key) for key in texts} == texts
        for run in ("a", "a_b", "a_", "*", ""):
            assert self.make_store().list_logs(run) == ["", "b_c", "c"]
        assert self.make_store().get_log("a", "nothing") is None
        self.make_store().put_log("a", "c", "text", label="stdout")
        assert self.make_store().get_log("a", "c") == "# stdout\ntext"
        with pytest.raises(UsageError, match="longer"):
            self.make_store().put_log("a", "x" * 300, "")

    def test_results(self) -> None:
        """Results come back with type, shape and metadata; long ones too, and arrays become lists."""
        np = pytest.importorskip("numpy")
        store = self.make_store()
        store.put_result(
            "r", "curve", [[0.5, math.inf]] * 20_000, dtype="float64", shape=(20_000, 2), metadata={"k": 1}
        )
        store.put_result("r", "a/b", np.arange(6.0).reshape(2, 3))
        found = self.make_store().get_result("r", "curve")
        assert found == {
            "data": [[0.5, math.inf]] * 20_000,
            "dtype": "float64",
            "shape": (20_000, 2),
            "metadata": {"k": 1},
        }
        found = self.make_store().get_result("r", "a/b")
        assert found == {"data": [[0, 1, 2], [3, 4, 5]], "dtype": "float64", "shape": (2, 3), "metadata": {}}
        assert self.make_store().list_results("r") == ["a/b", "curve"]
        assert (self.make_store().get_result("r", "x"), self.make_store().list_results("x")) == (None, [])
        with pytest.raises(UnsupportedTypeError, match="curve"):
            store.put_result("r", "curve", [object()])
        self.damage("results/r/curve")
        with pytest.raises(CorruptRecordError):
            self.make_store().get_result("r", "curve")

    def test_manifests(self) -> None:
        """The newest manifest is the one that is given; earlier ones stay."""
        for number in range(3):
            self.make_store().put_experiment_manifest(EXPERIMENT, {"number": number})
        assert self.make_store().get_experiment_manifest(EXPERIMENT) == {"number": 2}
        assert len([key for key in self.raw_files() if "/experiments/" in key]) == 3
        self.make_store().put_experiment_manifest(EXPERIMENT, {"number": 9}, timestamp="9999")
        self.make_store().put_experiment_manifest(EXPERIMENT, {"number": 3}, timestamp="1999")
        assert self.make_store().get_experiment_manifest(EXPERIMENT) == {"number": 9}
        found = self.make_store().list_experiment_manifests(EXPERIMENT)
        assert [one["number"] for one in found.values()] == [3, 0, 1, 2, 9]
        assert list(found) == sorted(found)
