"""What was loaded goes to other processes and back: handles do not, and neither does a store by accident."""

import copy
import gc
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from mltraq_ds import DataStore, create_session
from mltraq_ds.codecs import Directory, File
from mltraq_ds.errors import MltraqDSError


@pytest.fixture
def session(tmp_path):
    return create_session(url=f"sqlite:///{tmp_path}/index.db", store=tmp_path / "store")


@pytest.fixture
def loaded(session, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"hello" * 100_000)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_bytes(b"a" * 70_000)
    experiment = session.create_experiment("e")
    with experiment.run() as run:
        run.fields.ds = DataStore(file=File(tmp_path / "model.bin"), folder=Directory(tmp_path / "folder"), x=1)
    experiment.persist()
    return experiment.reload().runs.first().fields.ds


def test_a_copy_of_a_loaded_file_has_no_descriptor_of_the_original(loaded):
    """A pickled File that goes away closes nothing of the original's, nor of whoever has the number by then."""
    file = loaded.file
    copied = pickle.loads(pickle.dumps(file))
    assert copied.read_bytes() == b"hello" * 100_000
    del copied
    gc.collect()
    pickle.loads(pickle.dumps(file))
    gc.collect()
    assert file.read_bytes() == b"hello" * 100_000
    assert copy.deepcopy(loaded).file.read_bytes() == b"hello" * 100_000


def test_a_loaded_file_is_read_by_another_process(loaded, tmp_path):
    """A File and a Directory that were loaded here are opened anew by the process that they are sent to."""
    (tmp_path / "values.pkl").write_bytes(pickle.dumps((loaded.file, loaded.folder, loaded)))
    script = (
        "import pickle, sys\n"
        "file, folder, ds = pickle.load(open(sys.argv[1], 'rb'))\n"
        "assert file.read_bytes() == b'hello' * 100_000\n"
        "assert folder['a.txt'].read_bytes() == b'a' * 70_000\n"
        "assert ds.file.open().read(5) == b'hello'\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "values.pkl")], check=True)


def test_a_loaded_file_of_a_store_in_memory_refuses_to_be_pickled():
    """Another process could not read it, so that is said at once and not when it is too late."""
    session = create_session(url="sqlite://", store="memory://pickled-file")
    io = session.io.serialize_write(np.arange(10), "own")
    assert io.read_deserialize().sum() == 45
    storage = session.storage
    key = io.key
    with pytest.raises(MltraqDSError, match="cannot be pickled"):
        pickle.dumps(storage.open(key))


def test_a_forked_child_leaves_the_files_of_its_parent_open(loaded):
    """The end of a child that has inherited open blobs does not disturb the parent."""
    file = loaded.file
    assert file.open().read(5) == b"hello"
    pid = os.fork()
    if pid == 0:
        code = 0 if file.read_bytes()[:5] == b"hello" and loaded.x == 1 else 1
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert file.read_bytes() == b"hello" * 100_000
