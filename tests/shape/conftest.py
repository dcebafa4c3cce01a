"""The modules of the library as text and syntax trees, for the tests of its shape."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root():
    """Return the folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def modules():
    """Return the syntax tree of every module, by dotted name; packages go by their own name."""
    trees = {}
    for path in sorted((ROOT / "mltraq_ds").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return trees
