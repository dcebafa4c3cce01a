"""What FileStore puts is there whole or as it was before, whatever fails; and nothing is lost among many processes."""

import errno
import itertools
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltraq_ds.errors import StorageError
from mltraq_ds.storage.local import LocalStorage
from mltraq_ds.store import file_layout, generations, layout, maintenance, single_records
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.folder import make_folder, remove_mark, unmake_folder
from mltraq_ds.testing import Callback, Fail, FaultStorage, LoseResponse, Short
from mltraq_ds.testing.store_hooks import artifact, full_record

ID = "my_exp:1.0"
FAULTS = {"fails": Fail(errno.EIO), "loses-response": LoseResponse(errno.ETIMEDOUT), "short": Short(errno.ENOSPC)}
#: What an interrupted write may leave; sweep removes it.
GARBAGE = {"orphan", "unfinished write"}

ACTIONS = {
    "record": lambda store: store.put_run_record(full_record("r", metrics={"v": 2})),
    "artifact": lambda store: store.put_artifact(b"new", artifact("m", "r")),
    "log": lambda store: store.put_log("r", "out", "new"),
    "result": lambda store: store.put_result("r", "x", "new"),
    "delete": lambda store: store.delete_run("r"),
}


def seen(store):
    """Return everything that readers see of the run: old or new, never half."""
    record = store.get_run_record("r")
    artifacts = [store.get_artifact(one.uri) for one in store.list_artifacts("r")]
    result = store.get_result("r", "x")
    return record and record.metrics["v"], artifacts, store.get_log("r", "out"), result and result["data"]


def filled(folder):
    """Return a store with one run that has one of each."""
    store = FileStore(LocalStorage(folder, durability="relaxed"), experiment_id=ID)
    store.put_run_record(full_record("r", metrics={"v": 1}))
    store.put_artifact(b"old", artifact("m", "r"))
    store.put_log("r", "out", "old")
    store.put_result("r", "x", "old")
    return store


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("action", ACTIONS)
def test_every_operation_fails(tmp_path, action, fault):
    """If the n-th operation fails, readers see old or new, check finds garbage at most, and trying again helps."""
    after = filled(tmp_path / "after")
    before = seen(after)
    ACTIONS[action](after)
    for number in itertools.count(1):
        store = filled(tmp_path / str(number))
        storage = FaultStorage(store.storage, {number: FAULTS[fault]})
        with suppress(StorageError):
            ACTIONS[action](FileStore(storage, experiment_id=ID))
        if not storage.fired:
            break
        found, parts = seen(store), zip(before, seen(after), strict=True)
        assert all(one in pair for one, pair in zip(found, parts, strict=True)), storage.fired
        assert maintenance.check(store.storage, deep=True).kinds().keys() <= GARBAGE
        if found != seen(after) or action != "delete":
            ACTIONS[action](store)
        assert seen(store) == seen(after)
    assert number > 3


KILLS = """
import os, sys
from mltraq_ds.storage.local import LocalStorage
from mltraq_ds.store.files import FileStore
from mltraq_ds.testing import FaultStorage, Kill
from mltraq_ds.testing.store_hooks import artifact, full_record
for number in range(1, 100):
    pid = os.fork()
    if pid == 0:
        place = os.path.join(sys.argv[1], str(number))
        storage = FaultStorage(LocalStorage(place, durability="relaxed"), {number: Kill()})
        store = FileStore(storage, experiment_id="my_exp:1.0")
        store.put_run_record(full_record("r", metrics={"v": 2}))
        store.put_artifact(b"new", artifact("m", "r"))
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        print(number)
        break
"""


def test_killed_at_every_operation(tmp_path):
    """Killed at its n-th operation, a first writer leaves nothing or everything that it had put, and others go on."""
    done = subprocess.run([sys.executable, "-c", KILLS, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10
    for number in range(1, int(done.stdout)):
        store = FileStore(LocalStorage(tmp_path / str(number), durability="relaxed"), experiment_id=ID)
        record = store.get_run_record("r")
        assert record is None or record == full_record("r", metrics={"v": 2})
        assert [store.get_artifact(one.uri) for one in store.list_artifacts("r")] in ([], [b"new"])
        left = maintenance.check(store.storage, deep=True).kinds()
        assert left.keys() <= GARBAGE | {"unreadable descriptor"}
        store.put_run_record(full_record("r"))
        assert FileStore(store.storage).list_experiments() == [ID]


PUTS = """
import sys
from mltraq_ds.storage import open_storage
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.types import RunRecord
store = FileStore(open_storage(sys.argv[1])).scoped("many")
for i in range(int(sys.argv[3])):
    store.put_run_record(RunRecord.success(f"{sys.argv[2]}-{i}", "many", metrics={"i": i}))
    store.put_run_record(RunRecord.success("shared", "many", metrics={"of": sys.argv[2], "i": i}))
"""


def test_many_processes(tmp_path):
    """Eight processes that put a hundred records each, and as often one that all share, lose none."""
    command = [sys.executable, "-c", PUTS, str(tmp_path / "store")]
    children = [subprocess.Popen([*command, str(n), "100"], stderr=subprocess.PIPE, text=True) for n in range(8)]
    assert [child.communicate()[1] for child in children] == [""] * 8
    store = FileStore(LocalStorage(tmp_path / "store")).scoped("many")
    found = {one.run_id: one.metrics for one in store.list_run_records()}
    expected = {f"{n}-{i}": {"i": i} for n in range(8) for i in range(100)}
    assert found.pop("shared")["i"] == 99
    assert found == expected
    assert maintenance.check(store.storage).kinds() == {}


def test_the_mark_is_put_back(tmp_path):
    """Whoever unmakes a folder and whoever puts into it look for each other: what was put stays listed."""
    storage, folder = LocalStorage(tmp_path, durability="relaxed"), layout.folder_of(ID)
    make_folder(storage, ID, "x")
    racing = FaultStorage(storage, lambda call: Callback(put_one) if call.verb == "delete" else None)

    def put_one(call):
        racing.plan = {}
        FileStore(storage, experiment_id=ID).put_run_record(full_record("r"))

    unmake_folder(racing, ID, is_marked=True)
    assert FileStore(storage).list_experiments() == [ID]
    assert storage.exists(layout.meta_key(folder))
    storage.delete(layout.meta_key(folder))
    assert FileStore(storage).list_experiments() == [ID]
    assert maintenance.check(storage).kinds() == {"unreadable descriptor": 1}
    FileStore(storage, experiment_id=ID).put_run_record(full_record("r"))
    assert maintenance.check(storage).kinds() == {}
    remove_mark(storage, folder)
    assert storage.exists(layout.meta_key(folder))


def test_a_put_meets_a_delete(tmp_path):
    """A record that is put into an experiment while it is being deleted is put again into the one that begins anew."""
    storage = LocalStorage(tmp_path, durability="relaxed")
    store = FileStore(storage, experiment_id=ID)
    store.put_run_record(full_record("old"))
    store.put_log("old", "out", "old")
    folder = layout.folder_of(ID)

    def end(call):
        racing.plan = {}
        storage.make_folder(f"{folder}/generations")
        ended = generations.Generation(
            id_experiment=ID,
            name=ID,
            number=1,
            writer="w",
            deleted=True,
            folds=tuple(single_records.put_ids(storage, folder)),
        )
        data = ended.to_bytes()
        storage.put(layout.generation_key(folder, 1), [data], size=len(data))

    racing = FaultStorage(storage)
    racing.plan = lambda call: Callback(end) if call.verb == "put" and call.key.endswith("new.json") else None
    FileStore(racing, experiment_id=ID).put_run_record(full_record("new"))
    assert [one.run_id for one in store.list_run_records()] == ["new"]
    assert store.get_log("old", "out") is None


# Eight characters of four bytes are within the 120 escaped ones that a log may have.
TEXT = st.text(st.characters(codec=None), max_size=8) | st.sampled_from(["a", "A", "a_b", "a_", "_", "b_c", "..", ""])


@given(first=st.tuples(TEXT, TEXT), second=st.tuples(TEXT, TEXT))
def test_names_never_meet(first, second):
    """Different ids and names have different keys, also where the file system ignores case; a log's name comes back."""
    if first == second:
        return
    for key in (file_layout.log_key, file_layout.result_key, file_layout.entry_key):
        assert key("f", *first).lower() != key("f", *second).lower()
    if first[0] != second[0]:
        assert file_layout.derived_key("f", first[0]).lower() != file_layout.derived_key("f", second[0]).lower()
    assert file_layout.log_name("f", first[0], file_layout.log_key("f", *first)) == first[1]
    if first[0] != second[0]:
        assert file_layout.log_name("f", second[0], file_layout.log_key("f", *first)) is None
    uri = file_layout.artifact_key("f", *first)
    assert file_layout.entry_of("f", uri) == file_layout.entry_key("f", *first)
