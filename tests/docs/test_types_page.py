"""The examples on the page of types come back as they were."""

import collections  # noqa: F401 - the examples use these
import datetime  # noqa: F401
import decimal  # noqa: F401
import fractions  # noqa: F401
import pathlib
import re
import uuid  # noqa: F401
import zoneinfo  # noqa: F401

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mltraq_ds  # noqa: F401
from mltraq_ds import DataStore, create_session

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "reference" / "types.md").read_text(encoding="utf-8")
EXAMPLES = [
    code
    for table in re.findall(r"^\| type \| example \|.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    for code in re.findall(r"^\| [^|`]*`?.*? \| `(.+?)` \|", table, re.MULTILINE)
]


def _assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other)
    elif isinstance(one, (pl.DataFrame, pa.Table)):
        assert one.equals(other)
    elif isinstance(one, np.ndarray):
        assert one.dtype.str == other.dtype.str
        assert one.tolist() == other.tolist()
    elif isinstance(one, (set, frozenset)):
        assert one == other
    else:
        assert repr(one) == repr(other)


def test_there_are_examples():
    """Every row of the tables with examples has one."""
    assert len(EXAMPLES) == 14 + 3 + 7


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_comes_back(code, tmp_path):
    """The value is the same when loaded by another session, from a DataStore and from a field of its own."""
    session = create_session(f"sqlite:///{tmp_path}/index.db", tmp_path / "store")
    value = eval(code)
    experiment = session.create_experiment("types", direct=value, ds=DataStore(inside=value)).persist()
    again = create_session(f"sqlite:///{tmp_path}/other.db", tmp_path / "store")
    loaded = again.load_experiment(id_experiment=experiment.id_experiment)
    _assert_same(loaded.fields.direct, value)
    _assert_same(loaded.fields.ds.inside, value)
