"""Run records and what lies beside them, written once and kept: every later version must read them.

Run as a script to write them: ``python tests/compat/test_run_records_1.py``.  A store that is there is never written
again.
"""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from mltraq_ds import DataStore, create_session
from mltraq_ds.errors import FormatError
from mltraq_ds.storage import open_storage
from mltraq_ds.store import maintenance
from mltraq_ds.store.files import FileStore
from mltraq_ds.testing.store_hooks import artifact, full_record

HERE = pathlib.Path(__file__).parent
FOLDER = HERE / "run-records-1"
ALONE, BOTH = "my_exp:1.0", "both/Doors"
PAGES = ["intents-and-descriptors", "generation-format", "record-format", "blob-format", "store-format"]
#: What the readers on the pages must find, in a process without this library.
CHECK = """
import sys
store = read_store(pathlib.Path(sys.argv[1]))
assert not [name for name in sys.modules if name.startswith("mltraq")]
_, (run,) = store["my_exp:1.0"]
assert run["id_run"] == "A/run:1" and run["status"] == "failed"
assert run["fields"]["loss"] == 0.1 and run["fields"]["far"] == float("-inf")
assert run["params"]["$odd"] == 1 and run["about"]["tags"] == ["baseline", "é"]
experiment, runs = store["both/Doors"]
runs = {run["id_run"]: run for run in runs}
assert experiment["fields"] == {"note": "golden"}
assert list(runs) == ["folded", "over", "alone"]
assert runs["folded"]["fields"] == {"v": 10}
assert runs["over"]["fields"] == {"listed": [1, 2], "ds": {"x": 1}, "v": 22}
assert runs["over"]["config"] == {"seed": 7} and runs["over"]["params"] == {"lr": 0.1}
"""


@pytest.fixture
def store(tmp_path):
    """Return the path of a copy."""
    return shutil.copytree(FOLDER, tmp_path / "store")


def test_what_was_put_alone_is_read(store):
    """A record, an artifact, a log, derived metrics, a result and a manifest come back as they were put."""
    files = FileStore(open_storage(store)).scoped(ALONE)
    assert files.list_run_records() == [full_record("A/run:1", ALONE)]
    (found,) = files.list_artifacts("A/run:1")
    assert (found.name, found.metadata, files.get_artifact(found.uri)) == ("model.bin", {"k": (1, 2)}, b"golden")
    assert files.get_log("A/run:1", "std_out") == "é\n"
    assert files.get_derived("A/run:1") == {"x": float("inf"), "": [(1,)]}
    assert files.get_result("A/run:1", "curve") == {
        "data": [[0.5]],
        "dtype": "float64",
        "shape": (1, 1),
        "metadata": {"unit": "s"},
    }
    assert files.get_experiment_manifest(ALONE) == {"number": 2}


def test_both_doors(store, tmp_path):
    """Records over a generation, folded and deleted ones are merged as they were, by both doors."""
    files = FileStore(open_storage(store))
    assert files.list_experiments() == [BOTH, ALONE]
    assert {one.run_id: one.metrics for one in files.list_run_records(BOTH)} == {
        "folded": {"v": 10},
        "over": {"v": 22},
        "alone": {"v": 30},
    }
    loaded = create_session(f"sqlite:///{tmp_path}/index.db", store).load_experiment(id_experiment=BOTH)
    assert dict(loaded.runs["over"].fields, ds=None) == {"listed": [1, 2], "v": 22, "ds": None}
    assert loaded.runs["over"].fields.ds.x == 1
    assert maintenance.check(files.storage, deep=True).kinds() == {}


def test_a_newer_record_is_refused(store):
    """A record of a later version says "upgrade", and is never taken for one that is known."""
    path = store / "my_exp=3a1.0/runs/=41=2frun=3a1.json"
    text = path.read_text()
    path.unlink()
    path.write_text(text.replace('"version": 1', '"version": 2'))
    with pytest.raises(FormatError, match="[Uu]pgrade"):
        FileStore(open_storage(store)).scoped(ALONE).list_run_records()


def test_the_readers_on_the_pages(store, tmp_path):
    """Plain Python from the pages of the formats reads the same runs."""
    docs = HERE.parents[1] / "docs" / "reference"
    blocks = (re.findall(r"```python\n(.*?)```", (docs / f"{page}.md").read_text(), re.DOTALL)[0] for page in PAGES)
    (tmp_path / "reader.py").write_text("\n\n".join([*blocks, CHECK]), encoding="utf-8")
    run = [sys.executable, "reader.py", str(store)]
    shown = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")


def write():
    """Write the store."""
    if FOLDER.exists():
        sys.exit(f"{FOLDER} is there and stays as it is.")
    collection = FileStore(open_storage(FOLDER))
    files = collection.scoped(ALONE)
    files.put_run_record(full_record("A/run:1", ALONE))
    files.put_run_record(full_record("deleted", ALONE))
    files.delete_run("deleted")
    files.put_artifact(b"golden", artifact("model.bin", "A/run:1", metadata={"k": (1, 2)}))
    files.put_log("A/run:1", "std_out", "é\n")
    files.put_derived("A/run:1", {"x": float("inf"), "": [(1,)]})
    files.put_result("A/run:1", "curve", [[0.5]], dtype="float64", shape=(1, 1), metadata={"unit": "s"})
    files.put_experiment_manifest(ALONE, {"number": 1}, timestamp="2024-02-28")
    files.put_experiment_manifest(ALONE, {"number": 2}, timestamp="2024-02-29")
    both = collection.scoped(BOTH)
    for run_id, value in (("folded", 1), ("over", 2), ("gone", 3)):
        both.put_run_record(full_record(run_id, BOTH, metrics={"v": value}, params_resolved={"lr": 0.1}))
    experiment = create_session("sqlite://", FOLDER).load_experiment(id_experiment=BOTH)
    experiment.fields.note = "golden"
    experiment.runs["folded"].fields.v = 10
    over = experiment.runs["over"]
    over.fields.listed, over.fields.ds, over.config.seed = [1, 2], DataStore(x=1), 7
    experiment.persist()
    both.put_run_record(full_record("over", BOTH, metrics={"v": 22}, params_resolved={"lr": 0.1}))
    both.put_run_record(full_record("alone", BOTH, metrics={"v": 30}))
    both.delete_run("gone")


if __name__ == "__main__":
    write()
