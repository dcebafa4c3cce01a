"""What one version of pandas wrote is read by another: values kept as files, written by pandas 2.3 and 3.1.

Run as a module to write such a file with the pandas at hand: ``python -m tests.unit.codecs.test_arrow_versions FILE``.
It is to be written anew only when a codec gets a new version number.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mltraq_ds import codecs
from tests.unit.codecs.arrow_values import Memory, arrays, indexes, written

FILES = sorted((Path(__file__).parent / "written").glob("*.zip"))
OLD = pd.__version__.startswith("2.2.")
#: Made by the version of pandas that has them only, or shown differently by others.
SKIPPED = ("arrow uuid", "sliced")


def values() -> dict[str, Any]:
    """Return a frame for each kind of column, and of index."""
    made: dict[str, Any] = {}
    for kind, make in arrays().items():
        if not any(word in kind for word in SKIPPED):
            array = make()
            made[f"column {kind}"] = pd.DataFrame(
                {"x": pd.Series(array, dtype=object if array.dtype == object else None)}
            )
    for kind, make in indexes().items():
        made[f"index {kind}"] = pd.DataFrame(np.eye(6), index=make(), columns=make())
    return made


def shown(frame: pd.DataFrame) -> dict[str, Any]:
    """Describe a frame in words that do not depend on the version: elements, dtypes, names, frequency."""
    indexes = [frame.index, frame.columns]
    return {
        "columns": [[repr(item) for item in frame.iloc[:, i]] for i in range(frame.shape[1])],
        "dtypes": [str(dtype) for dtype in frame.dtypes],
        "indexes": [[repr(item) for item in index] for index in indexes],
        "types": [type(index).__name__ for index in indexes],
        "index dtypes": [str(index.dtype) for index in indexes],
        "names": [[repr(name) for name in index.names] for index in indexes],
        "frequencies": [getattr(getattr(index, "freq", None), "freqstr", None) for index in indexes],
    }


def write(path: Path) -> None:
    """Write every value, and what it looks like, with the pandas at hand."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in values().items():
            encoded = codecs.encode(value, name="value")
            archive.writestr(f"{name}/tree", encoded.tree)
            archive.writestr(f"{name}/shown", json.dumps(shown(value)))
            archive.writestr(f"{name}/count", str(len(encoded.members)))
            for position, member in enumerate(encoded.members):
                archive.writestr(f"{name}/{position}", bytes(written(member)))


def test_there_are_files_of_two_versions() -> None:
    """The test below would pass without any file."""
    assert [path.stem for path in FILES] == ["pandas-2.3", "pandas-3.1"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_another_pandas_wrote_is_read(path: Path) -> None:
    """Elements, dtypes, index types, names and frequencies are those that the writing version showed."""
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix("/tree") for name in archive.namelist() if name.endswith("/tree")]
        assert len(names) > 100
        for name in names:
            count = int(archive.read(f"{name}/count"))
            members = [Memory(bytearray(archive.read(f"{name}/{i}")), f"{i}.arrow") for i in range(count)]
            try:
                expected = json.loads(archive.read(f"{name}/shown"))
                found = shown(codecs.decode(archive.read(f"{name}/tree"), members))
            except Exception as error:
                # Which of the values it was is what one needs to know.
                raise AssertionError(f"{name}: {error!r}") from error
            # Before 2.3 there was no dtype "str", and scalars of numpy 1 show no type.
            assert OLD or found == expected, name


if __name__ == "__main__":
    write(Path(sys.argv[1]))
