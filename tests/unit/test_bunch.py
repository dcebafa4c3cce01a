"""Bunch: a dict in every way, and attributes that never lie."""

import copy
import enum
import json
import pickle
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mltraq_ds import Bunch
from mltraq_ds.errors import UsageError


class Sub(Bunch):
    """A subclass, as the DataStore is one."""

    def describe(self):
        """Be a method that would hide an attribute."""


def test_attribute_is_item():
    """What is set as an attribute is read as an item, and the other way round."""
    bunch = Bunch()
    bunch.a = 1
    bunch["b"] = 2
    assert (bunch["a"], bunch.b) == (1, 2)
    del bunch.a
    assert bunch == {"b": 2}
    assert vars(type(bunch)).get("__slots__") == ()


@given(st.dictionaries(st.text(), st.integers()))
@example({"__a__": 1, "____": 2, "items": 3, "": 4})
def test_any_string_is_a_key(items):
    """Any string is a key, and what was put in comes out, also through pickle and copies."""
    bunch = Bunch(items)
    assert bunch == items
    assert list(bunch) == list(items)
    attributes = [key for key in items if not hasattr(Bunch, key) and not re.fullmatch("__.+__", key, re.DOTALL)]
    assert [getattr(bunch, key) for key in attributes] == [items[key] for key in attributes]
    for other in (pickle.loads(pickle.dumps(bunch)), copy.copy(bunch), copy.deepcopy(bunch), bunch.copy()):
        assert type(other) is Bunch
        assert other == bunch
        assert other is not bunch


def test_missing():
    """A missing attribute is an AttributeError that names the nearest key, a missing key a plain KeyError."""
    bunch = Bunch(accuracy=1)
    with pytest.raises(AttributeError, match="no attribute or key 'acuracy'. Did you mean 'accuracy'"):
        _ = bunch.acuracy
    with pytest.raises(AttributeError, match="no attribute or key 'zzz'.$"):
        del bunch.zzz
    with pytest.raises(KeyError) as caught:
        bunch["zzz"]
    assert type(caught.value) is KeyError
    assert not hasattr(bunch, "zzz")
    assert getattr(bunch, "zzz", 3) == 3


@pytest.mark.parametrize("name", [name for name in dir(dict) if not name.startswith("__")])
def test_names_of_methods_are_refused_as_attributes(name):
    """An attribute that a method of dict would hide is refused, and as a key it works."""
    bunch = Bunch()
    with pytest.raises(AttributeError, match=rf'Use bunch\["{name}"\]'):
        setattr(bunch, name, 3)
    with pytest.raises(AttributeError, match=rf'Use bunch\["{name}"\]'):
        delattr(bunch, name)
    bunch[name] = 3
    assert bunch[name] == 3
    assert callable(getattr(bunch, name))


def test_names_of_a_subclass_are_refused():
    """A method of a subclass hides an attribute just as one of dict does."""
    with pytest.raises(AttributeError, match=r'a Sub because its own \'describe\'.*Use sub\["describe"\]'):
        Sub().describe = 3


def test_dunder_names():
    """Names that Python reserves are never attributes, so that no protocol picks up a value by accident."""
    bunch = Bunch({"__deepcopy__": 3, "__getstate_": 4})
    for name in ("__deepcopy__", "__len__", "__dict__", "__array__"):
        with pytest.raises(AttributeError):
            setattr(bunch, name, 1)
    assert not hasattr(bunch, "__deepcopy__")
    assert copy.deepcopy(bunch) == {"__deepcopy__": 3, "__getstate_": 4}


@pytest.mark.parametrize("key", [1, None, b"a", ("a",), 1.5])
@pytest.mark.parametrize(
    "use",
    [
        lambda bunch, key: bunch.__setitem__(key, 1),
        lambda bunch, key: bunch.setdefault(key, 1),
        lambda bunch, key: bunch.update({"b": 2, key: 1}),
        lambda bunch, key: bunch.update([("b", 2), (key, 1)]),
        lambda bunch, key: bunch | {key: 1},
        lambda bunch, key: {key: 1} | bunch,
        lambda bunch, key: bunch.__ior__({"b": 2, key: 1}),
        lambda bunch, key: Bunch({key: 1}),
        lambda bunch, key: Bunch.fromkeys([key]),
    ],
)
def test_other_keys_are_refused(use, key):
    """A key that is not a str is refused by every way in, as a TypeError that we raise, and nothing is changed."""
    bunch = Bunch(a=1)
    with pytest.raises(UsageError, match=f"because it is of type {type(key).__name__}, not str") as caught:
        use(bunch, key)
    assert isinstance(caught.value, TypeError)
    assert bunch == {"a": 1}


def test_keys_become_plain_strings():
    """A key of a subclass of str is kept as a str, as it will be read back."""

    class Color(enum.StrEnum):
        RED = "red"

    bunch = Bunch({np.str_("a"): 1, Color.RED: 2})
    assert [type(key) for key in bunch] == [str, str]
    assert bunch == {"a": 1, "red": 2}


@pytest.mark.parametrize("kind", [Bunch, Sub])
def test_results_are_of_the_same_type(kind):
    """Copies, unions and fromkeys give the type that they were called on, with the values of dict."""
    bunch = kind(a=1, b=2)
    for result, expected in [
        (bunch.copy(), {"a": 1, "b": 2}),
        (bunch | {"b": 3}, {"a": 1, "b": 3}),
        ({"b": 3, "c": 4} | bunch, {"b": 2, "c": 4, "a": 1}),
        (kind.fromkeys(["x"], 5), {"x": 5}),
        (copy.deepcopy(bunch), {"a": 1, "b": 2}),
    ]:
        assert type(result) is kind
        assert result == expected
        assert list(result) == list(expected)
    same = bunch
    same |= [("c", 3)]
    assert same is bunch
    assert bunch == {"a": 1, "b": 2, "c": 3}
    for wrong in (3, [("a", 1)]):
        with pytest.raises(TypeError):
            bunch | wrong
        with pytest.raises(TypeError):
            wrong | bunch


def test_constructor():
    """It takes what dict takes, and None for nothing."""
    assert Bunch(None) == Bunch() == {}
    assert Bunch([("a", 1)], b=2) == Bunch({"a": 1, "b": 2}) == Bunch(a=1, b=2)
    with pytest.raises(TypeError):
        Bunch(1, 2)
    with pytest.raises(TypeError):
        Bunch(3)


def test_setdefault_and_update():
    """They work as those of dict, an update with nothing included."""
    bunch = Bunch(a=1)
    assert (bunch.setdefault("a", 5), bunch.setdefault("b", 6), bunch.setdefault("c")) == (1, 6, None)
    bunch.update()
    bunch.update(a=9)
    assert bunch == {"a": 9, "b": 6, "c": None}


def test_repr_and_dir():
    """The text shows type and items, also when it contains itself; dir lists the keys that can be attributes."""
    bunch = Bunch({"a": 1, "b c": [Bunch()]})
    assert repr(bunch) == "Bunch({'a': 1, 'b c': [Bunch({})]})"
    assert {"a", "items"} <= set(dir(bunch))
    assert "b c" not in dir(bunch)
    bunch.self = bunch
    assert repr(bunch) == "Bunch({'a': 1, 'b c': [Bunch({})], 'self': Bunch({...})})"


def test_is_a_dict():
    """Everything that takes a dict takes a Bunch."""
    bunch = Bunch(a=1, b=[2])
    assert json.loads(json.dumps(bunch)) == bunch == {**bunch} == dict(bunch)
    match bunch:
        case {"a": value}:
            assert value == 1
    assert (lambda **kwargs: kwargs)(**bunch) == bunch


def test_a_subclass_may_refuse_more():
    """The two checks are hooks that a subclass overrides, and every way in goes through them."""

    class Lower(Bunch):
        def _check_key(self, key):
            if not super()._check_key(key).islower():
                raise UsageError("lower")
            return key

    for use in (lambda: Lower(A=1), lambda: setattr(Lower(), "A", 1), lambda: Lower() | {"A": 1}):
        with pytest.raises(UsageError, match="lower"):
            use()
    assert Lower(a=1).a == 1
