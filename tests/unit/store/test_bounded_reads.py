"""What nobody has written under the name of a record hides no other record, and is never read whole."""

import os

import pytest

from mltraq_ds.errors import CorruptRecordError
from mltraq_ds.pointed import read_pointer
from mltraq_ds.storage.local import LocalStorage
from mltraq_ds.store import layout, single_records
from mltraq_ds.store.files import FileStore
from mltraq_ds.testing.store_hooks import full_record

ID = "my_exp:1.0"


def a_bad_record(path, how):
    """Put something in the place of a record: a file of 200 GB (sparse), a pipe, or values that are of no form."""
    if how == "huge":
        with open(path, "wb") as file:
            file.truncate(200 << 30)
    elif how == "pipe":
        os.mkfifo(path)
    else:
        bad = {"reference": {"$ref": [1, 2]}, "time": {"$datetime": "never"}}[how]
        body = {"id_run": "evil", "status": "success", "exception": None, "started": None, "finished": None}
        body |= {"params": {"a": bad}, "config": {}, "fields": {}, "about": {}}
        path.write_bytes(single_records.to_bytes(ID, body))


@pytest.mark.parametrize("how", ["huge", "pipe", "reference", "time"])
def test_a_bad_record_hides_no_other(tmp_path, how):
    """The others are listed, the error is handed over, and without a taker it is raised as damage."""
    store = FileStore(LocalStorage(tmp_path, durability="relaxed"), experiment_id=ID)
    store.put_run_record(full_record("r"))
    a_bad_record(tmp_path / layout.run_record_key(layout.folder_of(ID), "evil"), how)
    errors = []
    assert [one.run_id for one in store.list_run_records(on_corrupt=errors.append)] == ["r"]
    assert [type(error) for error in errors] == [CorruptRecordError]
    with pytest.raises(CorruptRecordError):
        store.list_run_records()


def test_a_huge_pointer(tmp_path):
    """A pointer of 200 GB is refused before it is read."""
    with open(tmp_path / "x.remote", "wb") as file:
        file.truncate(200 << 30)
    with pytest.raises(CorruptRecordError, match="at most 1,048,576"):
        read_pointer(LocalStorage(tmp_path), "x")
