"""DataStore: a dictionary that gives away no placeholder, and reads only what is asked for."""

import copy
import json
import pickle
from collections import ChainMap

import numpy as np
import orjson
import pandas as pd
import pytest

from mltraq_ds import DataStore
from mltraq_ds.codecs import encode
from mltraq_ds.datastore import Origin
from mltraq_ds.errors import CorruptBlobError, DanglingReferenceError, UsageError
from mltraq_ds.lazy import LazyBunch, Placeholder, summary_text
from mltraq_ds.objects import Objects
from mltraq_ds.place import Place, place_of
from mltraq_ds.reference import Reference
from mltraq_ds.storage import open_storage

VALUES = {"a": [1, 2], "b": "text", "weights": {"w": 0.5}}


class Counting(Objects):
    """Objects that count what is decoded."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.decoded = []

    def decode(self, entries, name, key, nested=None):
        self.decoded.append(name)
        return super().decode(entries, name, key, nested)


@pytest.fixture
def objects(tmp_path):
    return Counting(open_storage(tmp_path))


def stored(objects, values, key="e/blob"):
    entries = {name: encode(value, name=name) for name, value in values.items()}
    return objects.put_entries(entries, key, kind="datastore", nested=lambda value: None, parents=True)


@pytest.fixture
def lazy(objects):
    return DataStore.from_origin(Origin(objects, stored(objects, VALUES), list(VALUES)))


def updated(target, ds):
    target.update(ds)
    return target


def merged_in_place(target, ds):
    target |= ds
    return target


def match(ds):
    match ds:
        case {"a": a, "b": b, "weights": weights}:
            return {"a": a, "b": b, "weights": weights}


def rest(ds):
    match ds:
        case {"a": a, **others}:
            return {"a": a, **others}


def popped(ds):
    found = {}
    while ds:
        key, value = ds.popitem()
        found[key] = value
    return dict(reversed(found.items()))


EXITS = {
    "getitem": lambda ds: {key: ds[key] for key in ds},
    "attribute": lambda ds: {"a": ds.a, "b": ds.b, "weights": ds.weights},
    "get": lambda ds: {key: ds.get(key) for key in ds},
    "pop": lambda ds: {key: ds.pop(key) for key in list(ds)},
    "popitem": popped,
    "setdefault": lambda ds: {key: ds.setdefault(key, None) for key in ds},
    "items": lambda ds: {key: value for key, value in ds.items()},  # noqa: C416 - the iteration is the point
    "items reversed": lambda ds: dict(list(reversed(ds.items()))[::-1]),
    "values": lambda ds: dict(zip(ds.keys(), ds.values(), strict=True)),
    "values reversed": lambda ds: dict(zip(ds.keys(), list(reversed(ds.values()))[::-1], strict=True)),
    "iteration": lambda ds: {key: ds[key] for key in iter(ds)},
    "reversed": lambda ds: {key: ds[key] for key in list(reversed(ds))[::-1]},
    "dict()": dict,
    "unpacking": lambda ds: {**ds},
    "keywords": lambda ds: (lambda **keywords: keywords)(**ds),
    "or": lambda ds: dict(ds | {}),
    "reflected or": lambda ds: dict({} | ds),
    "in-place or": lambda ds: dict(merged_in_place(DataStore(), ds)),
    "in-place or of it": lambda ds: dict(merged_in_place(ds, {})),
    "in-place or of a dict": lambda ds: merged_in_place({}, ds),
    "dict or": lambda ds: dict(dict.__or__({}, ds)),
    "dict update": lambda ds: updated({}, ds),
    "dict update by pairs": lambda ds: updated({}, ds.items()),
    "copy()": lambda ds: dict(ds.copy()),
    "copy.copy": lambda ds: dict(copy.copy(ds)),
    "deepcopy": lambda ds: dict(copy.deepcopy(ds)),
    "update": lambda ds: dict(updated(DataStore(), ds)),
    "==": lambda ds: VALUES if ds == VALUES else {},
    "== of a dict": lambda ds: VALUES if VALUES == ds else {},  # noqa: SIM300 - the side is the point
    "!=": lambda ds: {} if ds != VALUES or ds == {**VALUES, "a": None} else VALUES,
    "len": lambda ds: {key: ds[key] for key in list(ds)[: len(ds)]},
    "in": lambda ds: {key: ds[key] for key in [*VALUES, "x"] if key in ds},
    "keys": lambda ds: {key: ds[key] for key in ds.keys()},  # noqa: SIM118 - they are one of the exits
    "match": match,
    "match of the rest": rest,
    "pickle": lambda ds: dict(pickle.loads(pickle.dumps(ds))),
    "json": lambda ds: json.loads(json.JSONEncoder(indent=1).encode(ds)),
    "json.dumps": lambda ds: json.loads(json.dumps(ds)),
    "format_map": lambda ds: {**VALUES, "b": "{b}".format_map(ds)},
    "percent": lambda ds: {**VALUES, "b": "%(b)s" % ds},  # noqa: UP031 - it is one of the exits
    "chain map": lambda ds: dict(ChainMap(ds)),
    "sorted items": lambda ds: dict(sorted(ds.items())),
    "constructor": lambda ds: dict(DataStore(ds)),
    "bunch": lambda ds: dict(LazyBunch(ds)),
}


@pytest.mark.parametrize("leave", EXITS.values(), ids=EXITS)
def test_no_exit_gives_away_a_placeholder(lazy, leave):
    """Whatever way values leave a lazy DataStore, they are the values, in order."""
    found = leave(lazy)
    assert found == VALUES
    assert list(found) == list(VALUES)
    assert not any(isinstance(value, Placeholder) for value in found.values())


@pytest.mark.parametrize("reader", [
    lambda values: orjson.loads(orjson.dumps(values)),
    lambda values: dict(dict.items(values)),
    lambda values: vars(with_attributes(values)),
    lambda values: {name: eval(name, {"__builtins__": {}}, values) for name in VALUES},
    lambda values: {name: vars(type("Kind", (), values))[name] for name in VALUES},
], ids=["orjson", "dict.items", "__dict__", "eval", "type"])  # fmt: skip
def test_dict_is_the_way_out_for_readers_in_c(lazy, reader):
    """What looks into the memory of a dict, past its methods, is given ``dict(ds)``, which holds the values."""
    assert reader(dict(lazy)) == VALUES


class Holder:
    """Something with attributes."""


def with_attributes(values):
    holder = Holder()
    holder.__dict__ = values
    return holder


def test_orjson_does_not_write_a_placeholder(lazy):
    """The library orjson, which walks a dict in C, refuses what has not been read instead of writing something else."""
    with pytest.raises(TypeError, match="Unread"):
        orjson.dumps(lazy)


def test_equality_reads_and_compares(lazy):
    """A lazy DataStore equals a dictionary of the same values, both ways, and no other one."""
    assert lazy == VALUES
    assert [copy.copy(lazy)] == [VALUES]
    same = lazy
    assert lazy == same
    assert lazy != {**VALUES, "a": None}
    assert lazy != {"a": 1}
    assert lazy != [1]


def test_len_in_repr_and_describe_read_nothing(lazy, objects):
    """Looking at a lazy DataStore decodes no value."""
    assert len(lazy) == 3
    assert "a" in lazy
    assert "x" not in lazy
    assert list(reversed(lazy)) == ["weights", "b", "a"]
    assert repr(lazy) == (
        "DataStore({'a': <list of 2, not read yet>, 'b': <str of 4, not read yet>, "
        "'weights': <dict of 1, not read yet>})"
    )
    assert lazy.describe()["a"]["length"] == 2
    assert lazy.describe()["a"]["codec"] == "plain/1"
    assert objects.decoded == []


def test_only_what_is_asked_for_is_read_and_only_once(lazy, objects):
    """A key is decoded at its first use; the same object comes back afterwards."""
    assert lazy.a is lazy["a"]
    assert objects.decoded == ["a"]
    lazy.a.append(3)
    assert lazy.a == [1, 2, 3]


def test_missing_keys_are_plain_errors(lazy, objects):
    """A missing key is a KeyError, a missing attribute an AttributeError, and defaults work."""
    with pytest.raises(KeyError):
        lazy["x"]
    with pytest.raises(AttributeError, match="no attribute or key 'weight'.*Did you mean 'weights'"):
        _ = lazy.weight
    with pytest.raises(KeyError):
        lazy.pop("x")
    assert lazy.get("x", 1) == 1
    assert lazy.pop("x", 2) == 2
    assert lazy.setdefault("x", 3) == 3
    with pytest.raises(KeyError, match="empty"):
        DataStore().popitem()
    assert objects.decoded == []


def test_load_reads_many_in_threads(lazy, objects):
    """`load` reads all values, or those named, and returns the DataStore."""
    assert lazy.load(["a"]) is lazy
    assert objects.decoded == ["a"]
    lazy.load(n_jobs=2)
    assert sorted(objects.decoded) == ["a", "b", "weights"]
    assert DataStore().load() == {}


def test_a_value_that_cannot_be_read_stays(lazy, objects):
    """When the blob is gone, reading fails with a typed error, and nothing is removed from the DataStore."""
    objects.storage.delete("e/blob")
    for leave in (lambda: lazy.pop("a"), lambda: lazy.a, lazy.popitem, lambda: dict(lazy)):
        with pytest.raises(DanglingReferenceError, match="e/blob"):
            leave()
    assert len(lazy) == 3


def test_a_key_that_the_blob_lacks_is_damage(objects):
    """A record that names keys which its blob does not have is reported with both names."""
    ds = DataStore.from_origin(Origin(objects, stored(objects, VALUES), ["a", "zz"]))
    with pytest.raises(CorruptBlobError, match=r"e/blob has no value named 'zz'"):
        _ = ds.zz
    with pytest.raises(CorruptBlobError, match=r"'zz'"):
        ds.describe()


def test_untouched_means_no_key_was_read_set_or_removed(objects):
    """`is_untouched` sees every kind of change, and its absence."""
    reference = stored(objects, VALUES)

    def fresh():
        return DataStore.from_origin(Origin(objects, reference, list(VALUES)))

    assert fresh().is_untouched()
    assert fresh().copy().is_untouched()
    assert pickle.loads(pickle.dumps(fresh())).is_untouched()
    assert not DataStore().is_untouched()
    for change in (lambda ds: ds.a, lambda ds: ds.pop("b"), lambda ds: ds.update(a=1), lambda ds: ds.update(x=1)):
        changed = fresh()
        change(changed)
        assert not changed.is_untouched()


def test_rebind_reads_the_rest_from_the_new_blob(objects):
    """After a persist, what has not been read comes from the new blob, and the old one may go."""
    ds = DataStore.from_origin(Origin(objects, stored(objects, VALUES), list(VALUES)))
    ds.rebind(Origin(objects, stored(objects, {**VALUES, "b": "new"}, "e/other")))
    objects.storage.delete("e/blob")
    assert ds.b == "new"
    assert ds.origin.reference.key == "e/other"


def test_pickles_as_handle_where_the_storage_is_shared(lazy, objects):
    """A pickled lazy DataStore of a folder reads nothing; one of memory:// takes its values along."""
    copied = pickle.loads(pickle.dumps(lazy))
    assert objects.decoded == []
    assert copied == VALUES
    private = Counting(open_storage("memory://pickles-as-handle"))
    ds = DataStore.from_origin(Origin(private, stored(private, VALUES), list(VALUES)))
    data = pickle.dumps(ds)
    private.storage.delete("e/blob")
    assert pickle.loads(data) == VALUES
    assert pickle.loads(data).origin is None


def test_url_round_trip_and_its_refusals(lazy, objects):
    """`to_url` names the blob relative to its store; one that was never persisted has none."""
    url = lazy.to_url()
    assert url == "file:///e/blob"
    assert DataStore.from_url(url, store=objects) == VALUES
    assert DataStore.from_url("s3:///e/blob", store=objects.storage) == VALUES
    with pytest.raises(UsageError, match="has not been persisted"):
        DataStore(a=1).to_url()


def test_describe_says_the_same_before_and_after(objects):
    """Values in memory are described as those in a blob are, under the same names, with codec and encoded size."""
    values = {
        "array": np.zeros((2, 3), "f4"), "large": np.zeros(10_000), "scalar": np.float32(1), "text": "abc",
        "none": None, "bytes": b"xyz", "list": [1, 2], "frame": pd.DataFrame({"a": [1, 2]}), "int": 3,
        "inner": DataStore(a=1),
    }  # fmt: skip
    ds = DataStore(values)
    described = ds.describe()
    inner = stored(objects, {"a": 1}, "e/inner")
    entries = {
        name: encode(value, name=name, is_nested=lambda v: isinstance(v, DataStore)) for name, value in values.items()
    }
    reference = objects.put_entries(entries, "e/described", kind="datastore", nested=lambda value: inner)
    loaded = DataStore.from_origin(Origin(objects, reference))
    assert loaded.describe() == described
    assert objects.decoded == []
    assert loaded.load().describe() == described
    for name, found in described.items():
        assert {"type", "codec", "bytes"} <= found.keys(), name
    assert described["text"] == {"type": "str", "codec": "plain/1", "bytes": 4, "length": 3}
    assert described["large"]["codec"] == "numpy.ndarray/1"
    assert described["large"]["bytes"] >= 80_000


def test_what_cannot_be_stored_is_described_too():
    """A value without a codec has None as its codec, and the others are described."""
    described = DataStore(bad=object(), good=1).describe()
    assert described["bad"] == {"type": "object", "codec": None}
    assert described["good"]["codec"] == "plain/1"


def test_names_and_nested_are_read_from_the_index_if_unknown(objects):
    """An origin that is given only a reference finds keys and inner DataStores in the blob itself."""
    inner = stored(objects, {"z": 1}, "e/inner")
    entries = {"in": encode(DataStore(z=1), name="in", is_nested=lambda v: isinstance(v, DataStore))}
    outer = objects.put_entries(entries, "e/outer", kind="datastore", nested=lambda value: inner)
    origin = Origin(objects, outer)
    assert list(origin.names) == ["in"]
    assert list(origin.closure()) == [inner]
    ds = DataStore.from_origin(origin)
    assert isinstance(ds["in"], DataStore)
    assert ds["in"].z == 1


def test_summary_text_is_short():
    """One line says type, shape and dtype as far as they are known."""
    assert summary_text({"type": "numpy.ndarray", "shape": [2, 3], "dtype": "int8"}) == "ndarray (2, 3) int8"
    assert summary_text({"type": "list", "length": 3}) == "list of 3"
    assert summary_text({}) == "value"


def test_place_of_takes_what_users_have(tmp_path, objects):
    """A store may be named by Objects, Storage, URL, path or Place; anything else is refused with a sentence."""
    place = Place(objects)
    assert place_of(place) is place
    assert place_of(objects).objects is objects
    assert place_of(objects.storage).objects.storage is objects.storage
    assert place_of(str(tmp_path)).objects.storage.url == objects.storage.url
    assert place_of(tmp_path).objects.storage.url == objects.storage.url
    with pytest.raises(UsageError, match="is not a store"):
        place_of(7)


def test_objects_survive_pickling_and_keep_their_settings(objects):
    """Objects travel to workers with their settings and without open blobs."""
    plain = Objects(objects.storage, verify="none", compression="zstd", allow_pickle=True)
    copied = pickle.loads(pickle.dumps(plain))
    assert (copied.verify, copied.compression, copied.allow_pickle) == ("none", "zstd", True)
    assert copied.with_pickle(None) is copied
    assert not copied.with_pickle(False).allow_pickle


def test_objects_put_and_get_one_value(objects):
    """A single value makes a blob of kind value; a wrong fragment or name is damage, not a value."""
    reference = objects.put([1, 2], "e/value", parents=True)
    assert objects.get(reference) == [1, 2]
    assert objects.kind(reference) == "value"
    with pytest.raises(CorruptBlobError, match="no fragment 'x'"):
        objects.entries(Reference(reference.key, reference.size, reference.digest, "x"))
    with pytest.raises(CorruptBlobError, match="no value named 'value'"):
        objects.get(stored(objects, VALUES))
    with pytest.raises(UsageError):
        objects.put(DataStore(a=1), "e/nested")


def test_compressed_values_come_back(tmp_path):
    """What was written compressed is read by objects with any setting."""
    writer = Objects(open_storage(tmp_path), compression="zstd")
    reference = writer.put(np.zeros(10_000), "e/z", parents=True)
    assert reference.size < 10_000
    assert np.array_equal(Objects(open_storage(tmp_path)).get(reference), np.zeros(10_000))
