"""What FileStore has put stays where somebody else ends an experiment, or deletes a run, at the same moment."""

import pytest

from mltraq_ds.storage.local import LocalStorage
from mltraq_ds.store import file_layout, layout, retire
from mltraq_ds.store.files import FileStore
from mltraq_ds.testing.store_hooks import artifact, full_record

ID = "my_exp:1.0"


@pytest.fixture
def store(tmp_path):
    """Return a store with the record of one run."""
    store = FileStore(LocalStorage(tmp_path, durability="relaxed"), experiment_id=ID)
    store.put_run_record(full_record("r"))
    return store


class Between(LocalStorage):
    """Calls `act` once, after the first verb `verb`."""

    verb, act = "", None

    def _after(self, verb):
        act, self.act = (self.act, None) if verb == self.verb else (None, self.act)
        if act is not None:
            act()

    def put(self, key, *args, **kwargs):
        # docstring inherited
        super().put(key, *args, **kwargs)
        self._after("put bytes" if "/artifacts/" in key and "_manifest" not in key else "put")

    def delete_many(self, keys):
        # docstring inherited
        super().delete_many(keys)
        self._after("delete_many")


def other(tmp_path, verb, act):
    """Return the store as somebody else sees it, who is interrupted after a verb."""
    storage = Between(tmp_path, durability="relaxed")
    storage.verb, storage.act = verb, act
    return FileStore(storage, experiment_id=ID)


@pytest.mark.parametrize("how", ["end", "delete_run"])
def test_an_artifact_whose_bytes_were_taken(tmp_path, store, how):
    """If the bytes go between bytes and entry, both are put again: whoever is told that it is put can read it."""

    def end():
        if how == "delete_run":
            return store.delete_run("r")
        return retire.remove_files(store.storage, retire.end_experiment(store.storage, ID, "me"))

    put = other(tmp_path, "put bytes", end).put_artifact(b"weights", artifact("m", "r"))
    assert store.get_artifact(put.uri) == b"weights"
    assert [one.uri for one in store.list_artifacts("r")] == [put.uri]


def test_a_result_put_while_the_run_is_deleted(tmp_path, store):
    """What is put after the files of a deleted run were listed belongs to its next life, and stays."""
    store.put_result("r", "old", 1)

    def put():
        store.put_run_record(full_record("r"))
        store.put_result("r", "new", 2)

    other(tmp_path, "delete_many", put).delete_run("r")
    assert store.run_exists("r")
    assert store.list_results("r") == ["new"]
    store.delete_run("r")
    assert not any((tmp_path / place).exists() for place in file_layout.run_folders(layout.folder_of(ID), "r"))
