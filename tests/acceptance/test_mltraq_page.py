"""The examples of the page on the data store, in fresh processes: what they print and leave is what the page shows."""

import os
import subprocess
import sys
import textwrap

import pytest

#: Prints as the page does. What design §4 puts beside the values is left out; every other file must be on the page.
PRINTING = """
from pathlib import Path
from mltraq_ds import options
options.set("reproducibility.sequential_uuids", True)
BESIDE = {"_store.json", "_pending", "_meta.json", "generations", "runs"}
def print_contents():
    print("--", "Contents of datastore directory:", "mltraq.datastore/", sep="\\n")
    for path in sorted(Path("mltraq.datastore").rglob("*")):
        if not BESIDE & set(path.relative_to("mltraq.datastore").parts):
            print(path.as_posix())
    print("--")
def print_value(name, value):
    # pandas 3 says pandas.Series
    kind = str(type(value)).replace("pandas.Series", "pandas.core.series.Series")
    print(name, kind, getattr(value, "values", value))
"""

DATASTORE = """
import numpy as np
import pandas as pd
from mltraq_ds import DataStore, create_experiment
print("DataStore example")
experiment = create_experiment("example")
with experiment.run() as run:
    run.fields.ds1 = DataStore()
    run.fields.ds1.a = np.zeros(10)
    run.fields.ds1.b = pd.Series([1, 2, 3])
    run.fields.ds2 = DataStore()
    run.fields.ds2.c = 123
experiment.persist()
print("ID experiment:", experiment.id_experiment)
print_contents()
fields = experiment.reload().runs.first().fields
print_value("a", fields.ds1.a)
print_value("b", fields.ds1.b)
print_value("c", fields.ds2.c)
"""
DATASTORE_PRINTS = """
DataStore example
ID experiment: d65df69e-1175-44a5-be2f-2232765703b8
--
Contents of datastore directory:
mltraq.datastore/
mltraq.datastore/d65df69e-1175-44a5-be2f-2232765703b8
mltraq.datastore/d65df69e-1175-44a5-be2f-2232765703b8/d65df69e117544a5be2f2232765703ba
mltraq.datastore/d65df69e-1175-44a5-be2f-2232765703b8/d65df69e117544a5be2f2232765703bb
--
a <class 'numpy.ndarray'> [0. 0. 0. 0. 0. 0. 0. 0. 0. 0.]
b <class 'pandas.core.series.Series'> [1 2 3]
c <class 'int'> 123
"""

DATASTORE_IO = """
import numpy as np
from mltraq_ds import DataStoreIO, create_experiment
print("DataStoreIO example")
experiment = create_experiment("example")
prefix = f"self_managed/{experiment.id_experiment}"
with experiment.run() as run:
    run.fields.url_a = DataStoreIO.serialize_write(np.zeros(10), relative_path_prefix=prefix).url
    run.fields.url_b = DataStoreIO.write(b"11111", relative_path_prefix=prefix).url
print("ID experiment:", experiment.id_experiment)
print_contents()
print("Field values:")
for name, url in run.fields.items():
    print(name, url)
print("--", "Loaded values:", sep="\\n")
print_value("a", DataStoreIO(run.fields.url_a).read_deserialize())
print_value("b", DataStoreIO(run.fields.url_b).read())
"""
DATASTORE_IO_PRINTS = """
DataStoreIO example
ID experiment: d65df69e-1175-44a5-be2f-2232765703b8
--
Contents of datastore directory:
mltraq.datastore/
mltraq.datastore/self_managed
mltraq.datastore/self_managed/d65df69e-1175-44a5-be2f-2232765703b8
mltraq.datastore/self_managed/d65df69e-1175-44a5-be2f-2232765703b8/d65df69e117544a5be2f2232765703ba
mltraq.datastore/self_managed/d65df69e-1175-44a5-be2f-2232765703b8/d65df69e117544a5be2f2232765703bb
--
Field values:
url_a file:///self_managed/d65df69e-1175-44a5-be2f-2232765703b8/d65df69e117544a5be2f2232765703ba
url_b file:///self_managed/d65df69e-1175-44a5-be2f-2232765703b8/d65df69e117544a5be2f2232765703bb
--
Loaded values:
a <class 'numpy.ndarray'> [0. 0. 0. 0. 0. 0. 0. 0. 0. 0.]
b <class 'bytes'> b'11111'
"""

# What a user writes, as the project was asked for; only the frame is filled in.
WHAT_A_USER_WRITES = """
import numpy as np, pandas as pd
from mltraq_ds import DataStore, DataStoreIO, create_experiment, create_session, options

experiment = create_experiment("digits")       # without a name one is derived from the id
with experiment.run() as run:
    run.params.lr = 0.1
    run.fields.accuracy = np.float32(0.97)     # a scalar: searchable in SQL, NaN too
    run.fields.ds = DataStore()
    run.fields.ds.weights = np.zeros((64, 10)) # large: goes to the blob
    run.fields.ds.confusion = pd.DataFrame(...)
    run.fields.url = DataStoreIO.write(b"11111", relative_path_prefix="self_managed/x").url
experiment.persist()                           # if_exists="fail" (default) | "replace" | "update"
experiment = experiment.reload()               # or create_session().load_experiment("digits")
experiment.runs.first().fields.ds.weights      # read now, and only this key
""".replace("pd.DataFrame(...)", 'pd.DataFrame({"0": [5, 1], "1": [0, 7]})')

READ_ELSEWHERE = """
import numpy as np, pandas as pd
from mltraq_ds import DataStoreIO, create_session
session = create_session()
fields = session.load_experiment("digits").runs.first().fields
assert type(fields.accuracy) is np.float32 and fields.accuracy == np.float32(0.97)
assert fields.ds.describe()["weights"]["shape"] == [64, 10]
assert fields.ds.weights.dtype == float and not fields.ds.weights.any()
pd.testing.assert_frame_equal(fields.ds.confusion, pd.DataFrame({"0": [5, 1], "1": [0, 7]}))
assert DataStoreIO(fields.url).read() == b"11111"
found = session.query("select json_extract(params, '$.lr') as lr, json_extract(fields, '$.accuracy') as accuracy"
                      " from mltraq_runs where json_extract(fields, '$.accuracy') > 0.9")
print(found.lr.tolist(), found.accuracy.round(3).tolist())
"""


@pytest.fixture
def play(tmp_path):
    """Run a program in a new process and an empty folder, which the next one shares; return what it prints."""

    def run(*parts):
        code = "".join(textwrap.dedent(part) for part in parts)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    return run


def test_datastore_example(play):
    """Two DataStores make two blobs of the names and values on the page."""
    assert play(PRINTING, DATASTORE) == DATASTORE_PRINTS.lstrip()


def test_datastore_io_example(play):
    """Two files are where the page has them, under the URLs on the page, and the experiment is not persisted."""
    assert play(PRINTING, DATASTORE_IO) == DATASTORE_IO_PRINTS.lstrip()


def test_what_a_user_writes(play):
    """The example runs as it stands, and another process finds everything in the files and in SQL."""
    assert play(WHAT_A_USER_WRITES) == ""
    assert play(READ_ELSEWHERE) == "[0.1] [0.97]\n"
