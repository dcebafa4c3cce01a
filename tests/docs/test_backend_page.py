"""The suites that users are shown how to run do run, as they are on the page, and find what is wrong."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "test-a-backend.md"
TESTS = "test_list or test_race or test_delete_many or test_put_again or test_collection"
ONE_PAGE = """storage = open_storage(f"memory:/{self.root}")
        everything = storage.list
        storage.list = lambda prefix="": list(everything(prefix))[:1000]
        return storage
"""


def run(folder, text):
    blocks = re.findall(r"^```python run\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    (folder / "test_my_backend.py").write_text("\n\n".join(blocks))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", TESTS, "test_my_backend.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)


def test_the_page_as_a_file_of_tests(tmp_path):
    """Its blocks, saved under the name that it says, are tests of both suites, and pass."""
    result = run(tmp_path, PAGE.read_text(encoding="utf-8"))
    assert result.returncode == 0, result.stdout
    assert int(re.search(r"(\d+) passed", result.stdout).group(1)) >= 8


def test_a_wrong_backend_is_found_out(tmp_path):
    """A storage that lists the first thousand keys only does not pass."""
    text = PAGE.read_text(encoding="utf-8")
    result = run(tmp_path, text.replace('return open_storage(f"memory:/{self.root}")\n', ONE_PAGE, 1))
    assert result.returncode == 1, result.stdout
    assert re.findall("^FAILED .*::(\\w+)", result.stdout, re.MULTILINE) == ["test_list_more_than_a_page"]
