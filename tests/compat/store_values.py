"""The values in the golden store: every tag of the record format, and what becomes a blob."""

import datetime
import decimal
import fractions
import pathlib
import uuid
import zoneinfo

import numpy as np
import pandas as pd

#: What stays in the record as JSON has it.
NATIVE = {
    "none": None,
    "true": True,
    "big": 2**70,
    "negative_zero": -0.0,
    "tiny": 5e-324,
    "text": "ü \u2028 \U0001f600",
    "list": [1, [2.5, "x"], {"a": None}],
    "dict": {"": 1, "b": {"c": []}},
}

#: Name of the tag -> value, one line for each form.
TAGGED = {
    "float_nan": float("nan"),
    "float_inf": float("inf"),
    "float_minus_inf": float("-inf"),
    "tuple": (1, (2, float("nan"))),
    "dict_keys": {1: "one", (2, 3): "two and three"},
    "dict_dollar": {"$ref": ["not", "a", "reference"]},
    "complex": complex(1.5, -0.0),
    "bytes": b"\x00\xff",
    "datetime": datetime.datetime(2024, 2, 29, 23, 59, 59, 999999),
    "datetime_offset": datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone(datetime.timedelta(hours=5.5))),
    "date": datetime.date(1, 1, 1),
    "time": datetime.time(12, 30, 0, 1),
    "timedelta": datetime.timedelta(days=-1, microseconds=1),
    "uuid": uuid.UUID(int=1),
    "decimal": decimal.Decimal("1.10"),
    "decimal_nan": decimal.Decimal("NaN"),
    "fraction": fractions.Fraction(-1, 3),
    "path": pathlib.PosixPath("/data/x.csv"),
    "pure_path": pathlib.PurePosixPath("x/y"),
    "numpy_bool": np.bool_(True),
    "numpy_int8": np.int8(-128),
    "numpy_uint64": np.uint64(2**64 - 1),
    "numpy_float16": np.float16(0.1),
    "numpy_float32": np.float32(0.97),
    "numpy_float64": np.float64("nan"),
    "value_zone": datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Rome")),
    "value_set": {1},
    "value_range": range(0, 10, 3),
    "value_datetime64": np.datetime64("2024-02-29T12", "h"),
    "value_timestamp": pd.Timestamp("2024-02-29 12:00", tz="UTC"),
}

ARRAY = (np.arange(600) / 7).astype(">f4").reshape(20, 30)
SMALL = np.arange(4.0)
FRAME = pd.DataFrame({"x": [1, 2], "y": ["a", None]}, index=pd.Index([10, 20], name="i"))


def same(one, other):
    """Tell whether two values are equal, of the same types, and alike in what equality does not see."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype.str == other.dtype.str and np.array_equal(one, other)
    if isinstance(one, pd.DataFrame):
        # Written by pandas 3, whose `str` older versions read as the nearest that they have (docs: types).
        is_old = int(pd.__version__.split(".")[0]) < 3
        pd.testing.assert_frame_equal(
            one, other, check_dtype=not is_old, check_column_type="equiv" if not is_old else False
        )
        return True
    return repr(one) == repr(other)
