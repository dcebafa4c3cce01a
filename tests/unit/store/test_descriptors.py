"""Descriptors, keys and generations: damaged, foreign and newer files are refused; the highest number is current."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltraq_ds.errors import CorruptRecordError, FormatError, KeyMissingError, MltraqDSError
from mltraq_ds.reference import Reference
from mltraq_ds.storage import open_storage
from mltraq_ds.store import descriptors, generations, layout
from mltraq_ds.store.generations import Generation, Replaced

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def storage(tmp_path):
    return open_storage(tmp_path)


def generation(number=1, **changes):
    parts = {
        "id_experiment": "e",
        "name": "n",
        "number": number,
        "writer": f"w{number}",
        "parent": number - 1,
        "parent_writer": f"w{number - 1}" if number > 1 else "",
        "records": (Reference("e/runs/r.jsonl", 5, DIGEST),),
        "blobs": (Reference("e/b", 6, DIGEST),),
    }
    return Generation(**{**parts, **changes})


def put(storage, made):
    data = made.to_bytes()
    storage.put(layout.generation_key("e", made.number), [data], size=len(data), parents=True)


def test_descriptor_round_trip_and_form():
    """A descriptor is JSON with format, version and checksum; its body comes back."""
    data = descriptors.to_bytes("store", {"store_id": "x", "n": [1, "ü"]})
    document = json.loads(data)
    assert (document["format"], document["version"]) == ("mltraq_ds/store", 1)
    assert descriptors.from_bytes(data, "store", "k")["n"] == [1, "ü"]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_descriptor_is_refused(data):
    """Anything but a descriptor of the kind is damage, with the key in the text."""
    with pytest.raises(CorruptRecordError, match="the-key"):
        descriptors.from_bytes(data, "store", "the-key")
    with pytest.raises(CorruptRecordError, match="not a descriptor of kind 'intent'"):
        descriptors.from_bytes(descriptors.to_bytes("store", {}), "intent", "k")


def test_every_flipped_byte_of_a_descriptor_is_found():
    """No byte of a descriptor can change without being noticed, except to the same JSON."""
    data = descriptors.to_bytes("store", {"store_id": "abc"})
    for position in range(len(data)):
        for bit in (1, 32, 128):
            damaged = bytearray(data)
            damaged[position] ^= bit
            try:
                found = descriptors.from_bytes(bytes(damaged), "store", "k")
            except MltraqDSError:
                continue
            assert found["store_id"] == "abc"


def test_a_newer_version_asks_for_an_upgrade():
    """A file of a newer layout is not damage: the text says to upgrade."""
    document = json.loads(descriptors.to_bytes("store", {}))
    document["version"] = 2
    with pytest.raises(FormatError, match="pip install --upgrade"):
        descriptors.from_bytes(json.dumps(document).encode(), "store", "k")


def test_generation_round_trip(storage):
    """Every part of a generation comes back."""
    made = generation(
        2, deleted=True, retires=("e/b",), fences="w9", folds=("p",), replaces=(Replaced("old", 3, "w3"),)
    )
    put(storage, made)
    assert generations.read(storage, "e", 2) == made
    assert made.stands_on((1, "w1"))
    assert made.stands_on((2, "w2"))
    assert not generation(2).stands_on((1, "w1"))
    assert made.keys == {"e/runs/r.jsonl", "e/b"}


def test_the_highest_is_current(storage):
    """Of several generations the highest counts, with and without a hint from the index."""
    assert generations.current(storage, "e") is None
    for number in (1, 2, 10):
        put(storage, generation(number))
    (storage_file := storage).put("e/generations/x.json", [b"foreign"], size=7)
    storage_file.put("e/generations/011.json", [b"foreign"], size=7)
    assert generations.numbers(storage, "e") == [10, 2, 1]
    assert generations.current(storage, "e").number == 10
    assert generations.current(storage, "e", at_least=2).number == 2  # 3 is missing: only the listing knows of 10
    put(storage, generation(3))
    assert generations.current(storage, "e", at_least=2).number == 3
    assert generations.current(storage, "e", at_least=7).number == 10
    assert generations.current(storage, "other", at_least=7) is None


def test_a_damaged_highest_is_not_passed_over(storage, tmp_path):
    """An older version is never served in place of a damaged one; an empty file is a commit that was cut."""
    put(storage, generation(1))
    (tmp_path / "e/generations/2.json").write_bytes(b"")
    assert generations.current(storage, "e").number == 1
    with pytest.raises(generations.TornGeneration):
        generations.read(storage, "e", 2)
    (tmp_path / "e/generations/3.json").write_bytes(generation(3).to_bytes()[:-20])
    with pytest.raises(CorruptRecordError):
        generations.current(storage, "e")


def test_a_generation_from_elsewhere_is_refused(storage):
    """A generation that was copied from another number or experiment, or refers outside, is refused."""
    data = generation(1).to_bytes()
    storage.put("e/generations/2.json", [data], size=len(data), parents=True)
    with pytest.raises(CorruptRecordError, match="moved here"):
        generations.read(storage, "e", 2)
    storage.put("f/generations/1.json", [data], size=len(data), parents=True)
    with pytest.raises(CorruptRecordError, match="moved here"):
        generations.read(storage, "f", 1)
    outside = generation(3, blobs=(Reference("other/b", 1, DIGEST),))
    put(storage, outside)
    with pytest.raises(CorruptRecordError, match="another experiment"):
        generations.read(storage, "e", 3)


@given(
    st.dictionaries(
        st.sampled_from(["id_experiment", "records", "blobs", "replaces", "generation", "writer", "retires", "folds"]),
        st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers() | st.text(max_size=3), max_size=3),
        min_size=1,
    )
)
def test_a_generation_with_a_valid_checksum_is_not_trusted(changes):
    """A hostile generation with a right checksum gives an error of ours, or a generation."""
    body = {**json.loads(generation(1).to_bytes()), **changes}
    for name in ("format", "version", "checksum"):
        body.pop(name)
    storage = open_storage("memory://hostile-generation")
    data = descriptors.to_bytes("generation", body)
    storage.put("e/generations/1.json", [data], size=len(data), parents=True, replace=True)
    with contextlib.suppress(MltraqDSError):
        generations.read(storage, "e", 1)


def test_last_in_a_renamed_folder(storage, tmp_path):
    """A folder that was renamed away still tells which experiment it was, and whether it had ended."""
    assert generations.last_in(storage, "_pending/deleted-x") is None
    for number, made in ((1, generation(1)), (2, generation(2, deleted=True))):
        data = made.to_bytes()
        storage.put(f"_pending/deleted-x/generations/{number}.json", [data], size=len(data), parents=True)
    storage.put("_pending/deleted-x/generations/3.json", [b""], size=0)
    assert generations.last_in(storage, "_pending/deleted-x").deleted


def test_store_id_is_made_once(storage, tmp_path):
    """A store gets its id at the first write, keeps it, and a damaged one is reported."""
    assert layout.read_store_id(storage) is None
    first = layout.store_id(storage)
    assert layout.store_id(open_storage(tmp_path)) == first
    (tmp_path / "_store.json").unlink()
    data = descriptors.to_bytes("store", {})
    (tmp_path / "_store.json").write_bytes(data)
    with pytest.raises(CorruptRecordError, match="no store id"):
        layout.store_id(storage)


def test_the_loser_of_a_race_takes_the_winners_id(storage):
    """Of two makers of a store one wins, and both use its id."""

    class Late:
        def __init__(self, inner):
            self.inner = inner
            self.reads = 0

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def read(self, key, **options):
            self.reads += 1
            if self.reads == 1:
                raise KeyMissingError("not yet")
            return self.inner.read(key, **options)

        def put(self, *args, **kwargs):
            return self.inner.put(*args, **kwargs)

    winner = layout.store_id(storage)
    assert layout.store_id(Late(storage)) == winner
