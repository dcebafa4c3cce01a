"""A store of somebody's own, as the documentation makes it, passes the conformance suite when it is complete."""

from dataclasses import dataclass
from typing import ClassVar

import fsspec
import pytest

from mltraq_ds import load_results
from mltraq_ds.storage import open_storage
from mltraq_ds.store import FileStore, RunRecord, StoreConfig, config, create_store
from mltraq_ds.testing import StoreConformance


@pytest.fixture(autouse=True)
def _scheme():
    """Register the class as its module would, and forget it after the test."""

    @dataclass(frozen=True, kw_only=True)
    class MyCustomStoreConfig(StoreConfig):
        scheme: ClassVar[str] = "myscheme"
        endpoint: str
        bucket: str
        experiment_id: str | None = None

        def connect(self):
            return MyCustomStore(self)

        @classmethod
        def from_locator(cls, info, **kwargs):
            bucket = info.path.lstrip("/")
            return cls(endpoint=info.host, bucket=bucket, experiment_id=kwargs.get("experiment_id"))

    yield
    config._registered.pop("myscheme")


class MyCustomStore(FileStore):
    """A backend that keeps files, which is the shortest complete one."""

    def __init__(self, config):
        storage = open_storage(f"memory://{config.endpoint}/{config.bucket}")
        super().__init__(storage, experiment_id=config.experiment_id)
        self.config = config

    def scoped(self, experiment_id):
        FileStore(self.storage, experiment_id=self.experiment_id).scoped(experiment_id)  # refuses what is wrong
        return MyCustomStore(self.config.scoped(experiment_id))


class TestCustom(StoreConformance):
    """The page's example with a store that is complete, named by its locator."""

    def make_collection(self):
        return create_store(f"myscheme://stores{self.folder}")

    @property
    def root(self) -> str:
        return f"/stores{self.folder}"

    def raw_files(self):
        files = fsspec.filesystem("memory")
        return {path[len(self.root) + 1 :].lstrip("/"): files.cat(path) for path in files.find(self.root)}

    def raw_write(self, key, data):
        fsspec.filesystem("memory").pipe_file(f"{self.root}/{key}", data)

    def test_results(self):
        """Its runs are loaded by its locator, of one experiment or of all."""
        for experiment in ("a", "b"):
            self.make_collection().put_run_record(RunRecord.success("1", experiment))
        locator = f"myscheme://stores{self.folder}"
        assert len(load_results(locator)) == 2
        assert [run.experiment_id for run in load_results(locator, experiment_id="a")] == ["a"]
