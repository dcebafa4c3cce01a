"""Rows: frames, nested containers and many small arrays, saved and loaded whole."""

from __future__ import annotations

import os
import pickle
from typing import Any

from bench.row import OURS, Contestant, Row, Target
from bench.rows.common import mltraq_session, session, warm_session

__all__ = ["ROWS"]


def make(size: dict[str, Any]) -> Any:
    """Return the value of a row, the same each time."""
    return {"frame": _frame, "nested": _nested, "arrays": _arrays}[size["kind"]](size["count"])


def _frame(count: int) -> Any:
    import numpy as np
    import pandas as pd

    numbers = np.arange(count)
    return pd.DataFrame(
        {
            "int": numbers,
            "float": numbers * 0.5,
            "single": (numbers * 0.25).astype(np.float32),
            "bool": numbers % 3 == 0,
            "time": np.datetime64("2026-01-01", "us") + numbers,
            "small": (numbers % 100).astype(np.int32),
            "kind": pd.Categorical.from_codes(numbers % 4, categories=["a", "b", "c", "d"]),
            "text": pd.Series(["alpha", "beta", "gamma", "delta", "epsilon"], dtype="str").take(numbers % 5).array,
        }
    )


def _nested(count: int) -> Any:
    return {f"group{i}": {f"item{j}": _leaf(i * 100 + j) for j in range(100)} for i in range(count // 100)}


def _leaf(number: int) -> Any:
    return (number * 0.5, number, f"text {number}", [number, number + 1], None)[number % 5]


def _arrays(count: int) -> Any:
    import numpy as np

    return {f"a{i}": np.arange(100, dtype=np.float64) + i for i in range(count)}


def assert_equal(found: Any, wanted: Any) -> None:
    """Compare two values of a row."""
    if hasattr(wanted, "columns"):
        import pandas as pd

        pd.testing.assert_frame_equal(found, wanted)
        return
    assert len(found) == len(wanted)
    for key, value in wanted.items():
        assert bool((found[key] == value).all()) if hasattr(value, "all") else found[key] == value


class _Value(Contestant):
    labels = ("save", "load")

    @property
    def file(self) -> str:
        return self.work.path("value.bin")

    def save(self) -> None:
        value = make(self.size)
        self.before()
        with self.work.timed("save"):
            self.write(value)

    def load(self) -> None:
        if self.size["kind"] != "nested":
            import pandas  # noqa: F401
        self.before_load()
        with self.work.timed("load"):
            found = self.read()
        assert_equal(found, make(self.size))

    def before(self) -> None:
        """Import what is needed, open what stays open."""

    def before_load(self) -> None:
        """Import what is needed, open what stays open."""
        self.before()

    def write(self, value: Any) -> None:
        raise NotImplementedError

    def read(self) -> Any:
        raise NotImplementedError


class Pickle(_Value):
    name = "pickle 5"
    is_durable = False

    def write(self, value: Any) -> None:
        with open(self.file, "wb") as file:
            pickle.dump(value, file, protocol=5)
            if self.is_durable:
                file.flush()
                os.fsync(file.fileno())

    def read(self) -> Any:
        with open(self.file, "rb") as file:
            return pickle.load(file)


class PickleDurable(Pickle):
    name = "pickle 5 + fsync"
    is_durable = True


class Joblib(_Value):
    name = "joblib"
    is_quick = False

    def write(self, value: Any) -> None:
        import joblib

        joblib.dump(value, self.file)

    def read(self) -> Any:
        import joblib

        return joblib.load(self.file)

    def before(self) -> None:
        import joblib  # noqa: F401


class Savez(_Value):
    name = "numpy"

    def write(self, value: Any) -> None:
        import numpy as np

        np.savez(self.file + ".npz", **value)

    def read(self) -> Any:
        import numpy as np

        with np.load(self.file + ".npz") as found:
            return {key: found[key] for key in found}


class Feather(_Value):
    name = "pyarrow feather"
    needs = ("pyarrow",)
    is_durable = False

    def write(self, value: Any) -> None:
        from pyarrow import feather

        feather.write_feather(value, self.file, compression="uncompressed")
        if self.is_durable:
            fd = os.open(self.file, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)

    def read(self) -> Any:
        from pyarrow import feather

        return feather.read_feather(self.file)

    def before(self) -> None:
        import pyarrow.feather  # noqa: F401


class FeatherDurable(Feather):
    name = "pyarrow feather + fsync"
    is_durable = True


class MLtraq(_Value):
    name = "mltraq"
    needs = ("mltraq",)

    def before(self) -> None:
        self.session = mltraq_session(self.work)

    def write(self, value: Any) -> None:
        from mltraq import DataStore

        experiment = self.session.create_experiment("value")
        with experiment.run() as run:
            run.fields.ds = DataStore(value=value)
        experiment.persist()

    def read(self) -> Any:
        return self.session.load_experiment("value").runs.first().fields.ds.value


class Ours(_Value):
    name = OURS
    is_durable = True

    def before(self) -> None:
        self.session = warm_session(self.work, is_durable=self.is_durable)

    def before_load(self) -> None:
        self.session = session(self.work)
        self.session.load_experiment("first")

    @property
    def is_spread(self) -> bool:
        """Whether each array has a key of its own in the DataStore."""
        return bool(self.size["kind"] == "arrays")

    def write(self, value: Any) -> None:
        from mltraq_ds import DataStore

        experiment = self.session.create_experiment("value")
        with experiment.run() as run:
            run.fields.ds = DataStore(value) if self.is_spread else DataStore(value=value)
        experiment.persist()

    def read(self) -> Any:
        datastore = self.session.load_experiment("value").runs.first().fields.ds
        return dict(datastore) if self.is_spread else datastore.value


class OursRelaxed(Ours):
    name = f"{OURS}, relaxed"
    is_quick = False
    is_durable = False


_ALL = (Pickle, PickleDurable, Joblib, MLtraq, Ours, OursRelaxed)
_MB = 1024 * 1024


def _targets(reference: str, durable: str, factor: float) -> tuple[Target, ...]:
    return (
        Target("save", reference, factor),
        Target("save", durable, factor),
        Target("load", reference, factor),
    )


ROWS = [
    Row(
        "frame",
        "DataFrame of 8 mixed columns (5 M rows; quick: 500,000)",
        phases=("save", "load"),
        contestants=(Feather, FeatherDurable, *_ALL),
        full={"kind": "frame", "count": 5_000_000, "touch_bytes": 400 * _MB},
        quick={"kind": "frame", "count": 500_000, "touch_bytes": 40 * _MB},
        targets=_targets(Feather.name, FeatherDurable.name, 1.1),
    ),
    Row(
        "nested",
        "nested dictionary of 100,000 small values",
        phases=("save", "load"),
        contestants=_ALL,
        full={"kind": "nested", "count": 100_000},
        quick={"kind": "nested", "count": 100_000},
        targets=_targets(Pickle.name, PickleDurable.name, 1.2),
    ),
    Row(
        "arrays100",
        "10,000 arrays of 100 floats",
        phases=("save", "load"),
        contestants=(Savez, *_ALL),
        full={"kind": "arrays", "count": 10_000},
        targets=_targets(Pickle.name, PickleDurable.name, 1.2),
    ),
]
