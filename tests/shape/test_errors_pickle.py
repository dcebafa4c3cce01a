"""Errors cross processes: all of them pickle, also those defined elsewhere."""

import copy
import importlib
import pickle
import pkgutil

import pytest

import mltraq_ds
from mltraq_ds import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_pickles(name):
    """Each error and warning comes back with its type, text and arguments, however often it travels."""
    error = getattr(errors, name)("It failed on 'x' because of y. Do z.")
    for again in (
        pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error)))),
        copy.copy(error),
        copy.deepcopy(error),
    ):
        assert type(again) is type(error)
        assert again.args == error.args
        assert str(again) == str(error) == "It failed on 'x' because of y. Do z."


def test_attributes_travel():
    """What is attached to an error (the partial results of a run, say) travels with it."""
    error = errors.RunError("failed")
    error.details = {"id_run": "x"}
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error))
    assert again.details == {"id_run": "x"}
    assert again.__notes__ == ["a note"]


def test_errors_are_defined_in_one_place():
    """No other module defines an error or warning of its own; signals that never leave a module are not named so."""
    elsewhere = []
    for info in pkgutil.walk_packages(mltraq_ds.__path__, "mltraq_ds."):
        for name, value in vars(importlib.import_module(info.name)).items():
            if isinstance(value, type) and issubclass(value, Exception) and name.endswith(("Error", "Warning")):
                is_ours = value.__module__.startswith("mltraq_ds") and value.__module__ != "mltraq_ds.errors"
                elsewhere += [f"{info.name}.{name}"] if is_ours else []
    assert elsewhere == []
