"""The documentation says what is there: every option, every dependency, and the files that a repository needs."""

import importlib.util
import inspect
import re

from mltraq_ds import errors
from mltraq_ds.option_environment import variable_of
from mltraq_ds.option_table import OPTIONS


def test_repository_files(root):
    """The files that readers look for exist."""
    names = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "setup.cfg", "setup.py", "tox.ini", ".ci/run"]
    assert [name for name in names if not (root / name).is_file()] == []
    assert "Unreleased" in (root / "CHANGELOG.md").read_text() or re.search(
        r"## \d+\.\d+\.\d+", (root / "CHANGELOG.md").read_text()
    )


def test_every_option_is_documented(root):
    """The table of options in the reference has one row for each option, with its default and what it expects."""
    rows = [
        f"| `{option.name}` | `{option.default!r}` | {option.expects} | {option.doc} |" for option in OPTIONS.values()
    ]
    names = [
        f"| `{variable_of(option.name)}` | `{option.name}` | {f'`{option.alias}`' if option.alias else ''} |"
        for option in OPTIONS.values()
    ]
    page = (root / "docs/reference/options.md").read_text()
    assert re.findall(r"^\| `.*$", page, re.MULTILINE) == rows + names


def test_every_dependency_has_a_reason(root):
    """The decision record on dependencies has a row for each requirement of the package."""
    lines = (root / "setup.cfg").read_text().partition("install_requires =")[2].partition("\n\n")[0]
    names = re.findall(r"^    ([\w.-]+)", lines, re.MULTILINE)
    page = (root / "docs/decisions/001-dependencies.md").read_text()
    assert [name for name in names if f"| `{name}` |" not in page] == []
    assert len(names) > 10


def test_lowest_versions(root, tmp_path):
    """The constraints of `tox -e min` hold one exact version for each lower bound."""
    spec = importlib.util.spec_from_file_location("lowest", root / ".ci/lowest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(str(tmp_path / "lowest.txt"))
    lines = (tmp_path / "lowest.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\d.]+", line) for line in lines)
    assert "numpy==1.26.0" in lines
    assert not [line for line in lines if line.startswith("pytest")]


def test_public_functions_are_documented():
    """Every error says in its docstring when it is raised or what is left."""
    assert [name for name in errors.__all__ if not inspect.getdoc(getattr(errors, name))] == []
