"""Every example in docstrings and pages runs, in an empty folder."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import mltraq_ds
from mltraq_ds import codecs

ROOT = Path(__file__).parents[2]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = ["mltraq_ds", *(info.name for info in pkgutil.walk_packages(mltraq_ds.__path__, "mltraq_ds."))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _own_codecs():
    """What a page registers ends with the page: the table is one for all tests of a process."""
    table, names = dict(codecs._codecs), list(codecs._registered)
    yield
    codecs._codecs.clear()
    codecs._codecs.update(table)
    codecs._registered[:] = names


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    """The examples in a module's docstrings print what they say."""
    assert doctest.testmod(importlib.import_module(name), optionflags=FLAGS).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages(page):
    """The blocks of a page marked ``pycon`` or ``python run`` run from top to bottom as one session.

    A block marked ``pycon`` prints what it says, and ends with an empty line; ``python run`` only has to run.
    """
    blocks = re.findall(
        r"^```(pycon|python run)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    names = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for number, (language, text) in enumerate(blocks):
        if language == "python run":
            exec(compile(text, f"{page}[{number}]", "exec"), names)
        else:
            test = doctest.DocTestParser().get_doctest(text, names, f"{page.name}[{number}]", str(page), 0)
            runner.run(test, clear_globs=False)
            names.update(test.globs)
    assert runner.summarize(verbose=False).failed == 0
