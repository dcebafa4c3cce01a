"""Ids, keys and escaping: names are data, places are checked."""

import os
import pathlib
import threading
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mltraq_ds import ids
from mltraq_ds.errors import InvalidNameError

ANY_TEXT = st.text(st.characters(), max_size=300) | st.text("aA._ =:/-é\ud800", max_size=8)

LEAVING = [
    "",
    "/etc/passwd",
    "..",
    ".",
    "../x",
    "a/..",
    "a/../b",
    "a/./b",
    "a//b",
    "a/",
    "a\\b",
    "a\x00b",
    "a\nb",
    "C:x",
    "c:/x",
    "%2e%2e/x",
    "a/%2E%2e/b",
    "a%2fb",
    "a%5cb",
    "%252e%252e/x",
    "a%00",
    " a",
    "a ",
    "a/b./c",
    "\ud800",
    "a" * 256,
    "/".join(["a" * 200] * 6),
]


@given(ANY_TEXT)
@example("")
@example("..")
@example("CON")
@example("artifacts")
@example("=")
@example("a" * 10_000)
def test_escaped_names_are_plain_segments(name):
    """Any string becomes one valid segment of lower-case ASCII that no file system takes for something else."""
    for segment in (ids.escape_name(name), ids.escape_member(name)):
        assert segment.isascii()
        assert 0 < len(segment) <= ids.MAX_SEGMENT_BYTES
        assert "/" not in segment
        assert segment[0] not in "._ "
        assert ids.validate_key(f"experiments/{segment}")
    assert ids.escape_name(name) == ids.escape_name(name).lower()
    assert ids.escape_name(name).split(".")[0] not in {"con", "nul", "aux", "prn", "com1", "lpt9"}
    assert ids.escape_name(name) != "artifacts"


@given(ANY_TEXT)
@example("a" * 300)
@example("A" * 67)
def test_escaping_can_be_undone(name):
    """A name is read back from its segment, or is known to have been too long."""
    segment = ids.escape_name(name)
    assert ids.unescape_name(segment) == (name if "==" not in segment else None)


@given(st.lists(ANY_TEXT, unique=True, max_size=6))
@example(["a:b", "a_b", "A", "a", "", "..", "a/b", "=", "==", "con", "=63on", "artifacts", "=61rtifacts"])
@example(["x" * 300, "x" * 300 + "y", "X" * 300])
def test_escaping_is_injective(names):
    """Different names never share a segment, also where case is ignored."""
    assert len({ids.escape_name(name).casefold() for name in names}) == len(names)
    assert len({ids.escape_member(name) for name in names}) == len(names)


@pytest.mark.parametrize("segment", ["=ff", "=zz"])
def test_unescape_of_foreign_segments(segment):
    """A segment that we did not make gives None or a text, never an error."""
    assert ids.unescape_name(segment) in (None, segment)


def test_escaped_names_on_disk(tmp_path):
    """Names that differ only in what file systems mix up are files of their own."""
    names = ["a", "A", "a:b", "a_b", "..", "a/b", "", "con", "é", "e\u0301", "a.", "a ", "~", "*"]
    for name in names:
        (tmp_path / ids.escape_name(name)).write_text(name, encoding="utf-8")
    assert {(tmp_path / ids.escape_name(name)).read_text(encoding="utf-8") for name in names} == set(names)
    assert len(os.listdir(tmp_path)) == len(names)


@pytest.mark.parametrize("key", LEAVING)
def test_places_that_leave_their_place(key):
    """A key that could leave the store, or that two systems would read differently, is refused with its text."""
    with pytest.raises(InvalidNameError, match="is refused because it"):
        ids.validate_key(key)
    with pytest.raises(InvalidNameError, match="The prefix"):
        ids.validate_key(key, "prefix")


def test_keys_are_strings():
    """A key of another type is refused, with its type."""
    with pytest.raises(InvalidNameError, match="of type PosixPath"):
        ids.validate_key(pathlib.PosixPath("a"))


@given(st.text(max_size=40))
def test_accepted_keys_stay_below_their_root(key):
    """Whatever is accepted names a path below the root."""
    try:
        ids.validate_key(key)
    except InvalidNameError:
        return
    root = "/root/of/store"
    assert os.path.normpath(f"{root}/{key}").startswith(root + "/")
    assert os.path.normpath(key) == key


@given(st.lists(st.text(max_size=12), min_size=1, max_size=3), st.text(max_size=12))
@example(["a b#1?x=%41&é"], "f#?%")
def test_urls_round_trip(segments, fragment):
    """Key and fragment are read back from the URL, whatever its scheme."""
    try:
        key = ids.join_key(segments)
        url = ids.url_from_key(key, fragment=fragment)
    except (InvalidNameError, UnicodeEncodeError):
        return
    if "?" in url or "%2E" in url:
        pytest.fail(f"not quoted: {url}")
    assert ids.key_from_url(url) == (key, fragment)
    assert ids.key_from_url("s3" + url.removeprefix("file")) == (key, fragment)


@pytest.mark.parametrize(
    "url",
    [
        "a/b",
        "file://host/a",
        "file:///../a",
        "file:///%2e%2e/a",
        "file:///a%2f..%2fb",
        "file:////etc/passwd",
        "file:///a?b",
        "file:///",
        "FILE:///a",
        ":///a",
        "file:///%252e%252e/a",
        "file:///a%00",
    ],
)
def test_urls_that_leave_the_store(url):
    """A URL with an authority, a query or a way out is refused."""
    with pytest.raises(InvalidNameError, match="is refused"):
        ids.key_from_url(url)


def test_sequence_starts_as_documented():
    """The first ids of the sequence are those that the documentation prints."""
    assert [str(ids.next_uuid()) for _ in range(3)] == [
        "d65df69e-1175-44a5-be2f-2232765703b8",
        "d65df69e-1175-44a5-be2f-2232765703b9",
        "d65df69e-1175-44a5-be2f-2232765703ba",
    ]


def test_sequence_wraps_and_is_thread_safe():
    """A seed at the end wraps, and threads never draw one id twice."""
    assert ids.next_uuid(seed=2**128 - 1) == uuid.UUID(int=0)
    drawn = []
    threads = [threading.Thread(target=lambda: drawn.extend(ids.next_uuid() for _ in range(500))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(drawn)) == 2000


def test_fresh_uuids():
    """Fresh ids are plain uuids of version 7, never repeated and sorted by time."""
    fresh = [ids.new_uuid() for _ in range(1000)]
    assert {type(u) for u in fresh} == {uuid.UUID}
    assert {u.version for u in fresh} == {7}
    assert sorted(fresh) == fresh
    assert len(set(fresh)) == 1000


def test_taken_ids_are_passed_over():
    """Where an id is taken, the next free one is drawn."""
    taken = {uuid.UUID(int=1), uuid.UUID(int=2)}
    assert ids.fresh_uuid(iter([uuid.UUID(int=i) for i in (1, 2, 3, 4)]).__next__, taken.__contains__).int == 3


def test_keys_that_are_not_kept(monkeypatch):
    """What is known of keys is known of short, plain ones only: others would stay in memory, or cannot be looked up."""

    class Unhashable(str):
        __slots__ = ()

        def __eq__(self, other):
            return str.__eq__(self, other)

    known = ids._known_reason_against
    known.cache_clear()
    assert ids.validate_key(Unhashable("a/b")) == "a/b"
    with pytest.raises(InvalidNameError, match="'..' as a segment"):
        ids.validate_key(Unhashable("a/../b"))
    with pytest.raises(InvalidNameError, match="longer"):
        ids.validate_key("a" * 10**6)
    assert known.cache_info().currsize == 0
    for _ in range(2):
        assert ids.validate_key("a/b") == "a/b"
        with pytest.raises(InvalidNameError):
            ids.validate_key("a/../b")
    assert known.cache_info().currsize == 2
