"""The reader on the page of the format reads what the library writes."""

import pathlib
import re
import subprocess
import sys

import numpy as np

from mltraq_ds import codecs
from mltraq_ds.blob import pack, pack_many

ROOT = pathlib.Path(__file__).parents[3]
VALUES = {
    "weights": np.arange(1000.0).reshape(50, 20),
    "plain": {"a": [1, 2.5, None, "x"], 5: (1, 2)},
    "large": list(range(50_000)),
    "\ud800": "key of any kind",
    "list of arrays": [np.ones(500), np.zeros((2, 500), "<i2")],
}
CHECK = """
import sys
assert not [name for name in sys.modules if name.startswith("mltraq")]
values = read_blob(sys.argv[1], *sys.argv[2:])
assert list(values) == ["weights", "plain", "large", "\\ud800", "list of arrays"], list(values)
assert np.array_equal(values["weights"], np.arange(1000.0).reshape(50, 20))
assert values["plain"] == {"a": [1, 2.5, None, "x"], 5: (1, 2)}
assert values["large"] == list(range(50_000))
assert values["\\ud800"] == "key of any kind"
ones, zeros = values["list of arrays"]
assert ones.sum() == 500 and zeros.shape == (2, 500) and zeros.dtype == "<i2"
"""


def test_the_reader_on_the_page(tmp_path):
    """Thirty lines of plain Python, in a process without this library, read a blob and a fragment of a pack."""
    page = (ROOT / "docs" / "reference" / "blob-format.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (tmp_path / "reader.py").write_text(code + CHECK, encoding="utf-8")
    entries = {key: codecs.encode(value, name=key) for key, value in VALUES.items()}
    (tmp_path / "blob").write_bytes(b"".join(pack(entries)))
    (tmp_path / "pack").write_bytes(b"".join(pack_many({"run/1": entries, "run/2": {}})))
    for arguments in (["blob"], ["pack", "run/1"]):
        run = [sys.executable, "reader.py", *arguments]
        shown = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (shown.returncode, shown.stderr) == (0, "")
