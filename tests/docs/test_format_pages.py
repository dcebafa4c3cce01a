"""The readers on the pages of the formats, put together, read a whole store without this library."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ["intents-and-descriptors", "generation-format", "record-format", "blob-format", "store-format"]
CHECK = """

import sys

import numpy as np

sys.path.insert(0, sys.argv[2])
from store_values import ARRAY, NATIVE, SMALL, TAGGED, same

store = read_store(pathlib.Path(sys.argv[1]))
assert not [name for name in sys.modules if name.startswith("mltraq")]
ends = {"b8": "values", "c9": "packed", "f2": "again"}
expected = {f"d65df69e-1175-44a5-be2f-2232765703{end}": name for end, name in ends.items()}
assert {id_: experiment["name"] for id_, (experiment, runs) in store.items()} == {**expected, "A:b/ü": "A/b: ü"}

experiment, (run, failed) = store["d65df69e-1175-44a5-be2f-2232765703b8"]
assert experiment["fields"] == {"note": "golden"}
assert run["params"] == {"lr": 0.1, "$ref": "a name, not a tag"}
fields = run["fields"]
for name, value in {**NATIVE, **TAGGED}.items():
    if name.startswith("value_"):
        assert fields[name] == str(value), name
    elif name.startswith("numpy_"):
        assert same(fields[name], value.item()), name
    elif name == "path":
        assert fields[name] == value
    else:
        assert same(fields[name], value), name
assert same(fields["array"], ARRAY)
assert list(fields["ds"]) == ["weights", "frame", "inner", "{any} key: ü"]
assert same(fields["ds"]["weights"], ARRAY)
assert failed["exception"]["message"] == "ValueError: no"

_, runs = store["d65df69e-1175-44a5-be2f-2232765703c9"]
for i, run in enumerate(runs):
    assert len(run["fields"]) == 17
    for j in range(17):
        assert run["fields"][f"small_{j}"]["at"] == [i, j]
assert store["A:b/ü"][0]["fields"] == {"kept": "by the fence"}
"""


def test_the_readers_on_the_pages(tmp_path):
    """Plain Python from the five pages, in a process without this library, reads the golden store."""
    code = ""
    for page in PAGES:
        text = (ROOT / "docs" / "reference" / f"{page}.md").read_text(encoding="utf-8")
        (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert "mltraq" not in block.replace("mltraq_ds/", "")
        code += block + "\n\n"
    (tmp_path / "reader.py").write_text(code + CHECK, encoding="utf-8")
    compat = ROOT / "tests" / "compat"
    run = [sys.executable, "reader.py", str(compat / "store-format-1"), str(compat)]
    shown = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
