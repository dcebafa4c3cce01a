"""What memory a persist needs besides the values."""

import shutil
import subprocess
import sys
import textwrap

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("where", ["DataStore", "field"])
def test_memory_of_a_persist(tmp_path, where):
    """Persisting an array of 512 MiB needs at most 32 MiB besides it, and so do validation and the check afterwards."""
    code = """
    import sys
    import numpy as np
    from mltraq_ds import DataStore, create_session

    def peak():
        return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10

    def persist(name, array):
        experiment = session.create_experiment(name)
        with experiment.run() as run:
            run.fields.x = DataStore(a=array) if sys.argv[1] == "DataStore" else array
        experiment.persist()

    session = create_session()
    array = np.ones(SIZE, np.uint8)
    persist("warm", array[:100_000])
    before = peak()
    persist("big", array)
    print(peak() - before)
    """
    code = textwrap.dedent(code).replace("SIZE", str(512 * 2**20))
    run = [sys.executable, "-c", code, where]
    done = subprocess.run(run, cwd=tmp_path, check=False, capture_output=True, text=True)
    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    shutil.rmtree(tmp_path / "mltraq.datastore", ignore_errors=True)  # pytest keeps the folders of three sessions
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 32 * 2**20
    assert 512 * 2**20 < written < 520 * 2**20
