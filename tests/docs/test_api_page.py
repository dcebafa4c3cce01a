"""Every public thing is on the page of the API, and says what it does."""

import inspect
import re
from pathlib import Path

import pytest

import mltraq_ds
from mltraq_ds import codecs, storage

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
NAMES = [name for name in mltraq_ds.__all__ if name not in ("__version__", "errors")]  # errors have a page of their own


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_on_the_page(name):
    """A public name has its entry."""
    assert re.search(rf"^\.\. auto\w+:: (mltraq_ds\.)?{name}$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", ["Codec", "Member", "MemberSource", "Parts", "register"])
def test_names_for_codecs_are_on_the_page(name):
    """What codecs of users need has its entry."""
    assert hasattr(codecs, name)
    assert f":: mltraq_ds.codecs.{name}\n" in PAGE


def test_names_for_storages_are_on_the_page():
    """What storages of users need has its entry."""
    assert all(
        hasattr(storage, name) and f":: mltraq_ds.storage.{name}\n" in PAGE for name in ("Storage", "open_storage")
    )


@pytest.mark.parametrize("name", [name for name in NAMES if inspect.isclass(getattr(mltraq_ds, name))])
def test_public_methods_are_documented(name):
    """Every public method and property of a public class has a docstring."""
    kind = getattr(mltraq_ds, name)
    members = {member: getattr(kind, member) for member in vars(kind) if not member.startswith("_")}
    callables = {
        member: found for member, found in members.items() if inspect.isroutine(found) or type(found) is property
    }
    assert [member for member, found in callables.items() if not inspect.getdoc(found)] == []
