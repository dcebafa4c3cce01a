"""Reference: what is written is read back, and nothing else is accepted."""

import json
import pickle

import pytest

from mltraq_ds.errors import CorruptRecordError, InvalidNameError
from mltraq_ds.ids import key_from_url
from mltraq_ds.reference import Reference

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize("fragment", ["", "run/1#é"])
def test_round_trip(fragment):
    """A reference comes back equal through JSON, pickle and its URL."""
    reference = Reference("exp/ab", 3, DIGEST, fragment)
    assert Reference.from_list(json.loads(json.dumps(reference.to_list()))) == reference
    assert pickle.loads(pickle.dumps(reference)) == reference
    assert key_from_url(reference.url) == ("exp/ab", fragment)
    assert len(reference.to_list()) == (4 if fragment else 3)


@pytest.mark.parametrize(
    "parts",
    [
        None,
        "x",
        [],
        ["exp/ab", 3],
        ("exp/ab", 3, DIGEST),
        ["exp/ab", 3, DIGEST, "", ""],
        [3, 3, DIGEST],
        ["exp/ab", "3", DIGEST],
        ["exp/ab", True, DIGEST],
        ["exp/ab", 3.0, DIGEST],
        ["exp/ab", -1, DIGEST],
        ["exp/ab", 2**63, DIGEST],
        ["exp/ab", 3, None],
        ["exp/ab", 3, "sha256:00"],
        ["exp/ab", 3, DIGEST.upper()],
        ["exp/ab", 3, DIGEST + "\n"],
        ["exp/ab", 3, DIGEST, 4],
    ],
)
def test_other_forms_are_refused(parts):
    """Anything of another form is damage, and the message shows it."""
    with pytest.raises(CorruptRecordError, match="A reference cannot be read"):
        Reference.from_list(parts)


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../b", "a\\b", "C:x", "a/%2e%2e/b", "a\x00b", "a//b"])
def test_keys_that_leave_the_store_are_refused(key):
    """A key read from a file is checked as one that is made."""
    with pytest.raises(InvalidNameError):
        Reference.from_list([key, 3, DIGEST])
