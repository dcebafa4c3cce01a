"""What a state machine puts on experiments: descriptions, the values they stand for, and what was read compared."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mltraq_ds import DataStore


@dataclass(frozen=True)
class Array:
    """An array of `size` numbers, all of them `number`."""

    number: int
    size: int

    def make(self) -> np.ndarray:
        return np.full(self.size, self.number + 0.5)


class Store(dict[str, Any]):
    """A DataStore."""


def make(described: Any) -> Any:
    """Return the value that a description stands for."""
    if isinstance(described, Array):
        return described.make()
    if isinstance(described, Store):
        return DataStore(make_all(described))
    return [make(value) for value in described] if isinstance(described, list) else described


def check(found: Any, described: Any) -> None:
    """Compare a value, every bit of it, with its description."""
    if isinstance(described, Array):
        expected = described.make()
        assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
    elif isinstance(described, Store):
        assert isinstance(found, DataStore)
        assert list(found) == list(described)
        for key in described:
            check(found[key], described[key])
    elif isinstance(described, list):
        assert isinstance(found, list)
        assert len(found) == len(described)
        for one, other in zip(found, described, strict=True):
            check(one, other)
    else:
        assert (type(found), found) == (type(described), described)


#: What a run may get; each stands for another way through the code.
KINDS = {
    "scalar": lambda n: n,
    "small array": lambda n: Array(n, 5),
    "large array": lambda n: Array(n, 3000),
    "list of stores": lambda n: [Store(z=Array(n, 300)), Store(z=n)],
    "store": lambda n: Store(x=Array(n, 500), y=[n, None, "text"]),
    "store in store": lambda n: Store(x=Store(x=Array(n, 500), y=n)),
}
FIELDS = ("a", "b", "c")
#: More than so many DataStores share files.
MANY = 34


@dataclass
class Content:
    """All values of an experiment, as descriptions."""

    note: int = 0
    runs: list[dict[str, Any]] = field(default_factory=list)

    def copy(self) -> Content:
        return copy.deepcopy(self)

    def check(self, experiment: Any) -> None:
        """Read every value of an experiment and compare it."""
        assert experiment.fields.get("note", 0) == self.note
        assert len(experiment.runs) == len(self.runs)
        for run, described in zip(experiment.runs.values(), self.runs, strict=True):
            assert set(run.fields) == set(described)
            for name, value in described.items():
                check(run.fields[name], value)


def change(experiment: Any, content: Content, how: str, name: str, number: int) -> None:
    """Change an experiment, then the description of its content alike; what does not fit changes nothing."""
    if how == "note" or not content.runs:
        experiment.fields.note = content.note = number
        return
    position = number % len(content.runs)
    described, fields = content.runs[position], list(experiment.runs.values())[position].fields
    inner = described.get(name)
    if how == "add run":
        experiment.add_run()
        content.runs.append({})
    elif how == "remove" and name in described:
        del fields[name], described[name]
    elif how == "many":
        many = {f"m{key}": Store(w=Array(number, 20 + key)) for key in range(MANY)}
        fields.update(make_all(many))
        described.update(many)
    elif how == "one of many" and "m3" in described:
        fields["m3"]["w"] = make(Array(number, 7))
        described["m3"]["w"] = Array(number, 7)
    elif how == "key of store" and isinstance(inner, Store):
        fields[name]["x"] = make(Array(number, 400))
        inner["x"] = Array(number, 400)
    elif how == "no key of store" and isinstance(inner, Store) and "x" in inner:
        del fields[name]["x"], inner["x"]
    elif how in KINDS:
        fields[name] = make(KINDS[how](number))
        described[name] = KINDS[how](number)


def make_all(described: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a mapping of descriptions."""
    return {name: make(value) for name, value in described.items()}


CHANGES = (*KINDS, "note", "add run", "remove", "many", "one of many", "key of store", "no key of store")
