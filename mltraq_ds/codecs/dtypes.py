"""NumPy dtypes as plain values: everything that `numpy.dtype.str` and the header of a ``.npy`` file lose is kept."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from mltraq_ds.errors import FormatError, UnsupportedTypeError

__all__ = ["dtype_from_plain", "dtype_to_plain", "is_simple"]

# Nothing else is handed to numpy.dtype(), which knows names, comma lists and types of Python too.
_SIMPLE = re.compile(r"[<>|=]?(?:[biufcSUV][0-9]+|[mM]8(?:\[[0-9]*[A-Za-zμ]+\])?|[bBhHiIlLqQefdgFDG?])")
_MAX_NESTING = 32
#: numpy's own dtypes have numbers below (NPY_NTYPES_LEGACY), those of other libraries from 256 on.
_BUILTIN_NUMBERS = 24


def is_simple(dtype: np.dtype[Any]) -> bool:
    """Tell whether `dtype.str` says all: no fields, subarray, metadata or objects, and no dtype of another library."""
    return (
        dtype.kind in "biufcmMSUV"
        and dtype.names is None
        and dtype.subdtype is None
        and not dtype.metadata  # numpy 1 leaves an empty one when a dtype is unpickled
        # bfloat16 of ml_dtypes says of itself "<V2", and would come back as that.  Not `isbuiltin`: it is 0 for a dtype
        # that was unpickled.
        and dtype.num < _BUILTIN_NUMBERS
        and (dtype.kind != "V" or dtype.type is np.void)
    )


def dtype_to_plain(dtype: np.dtype[Any]) -> Any:
    """Return a plain value that `dtype_from_plain` turns into an equal dtype.

    Raises
    ------
    UnsupportedTypeError
        If the dtype holds Python objects, or belongs to another library.
    """
    if is_simple(dtype):
        return dtype.str
    if dtype.metadata:
        return {"dtype": dtype_to_plain(_without_metadata(dtype)), "metadata": dict(dtype.metadata)}
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": dtype_to_plain(base), "shape": list(shape)}
    if dtype.names is None or dtype.fields is None or dtype.hasobject:
        raise UnsupportedTypeError(f"its dtype {dtype!r} holds Python objects or belongs to another library")
    fields = [dtype.fields[name] for name in dtype.names]
    return {
        "names": list(dtype.names),
        "formats": [dtype_to_plain(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "titles": [field[2] if len(field) > 2 else None for field in fields],
        "itemsize": dtype.itemsize,
        "aligned": dtype.isalignedstruct,
        "record": dtype.type is np.record,
    }


def _without_metadata(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.subdtype is not None:
        return np.dtype(dtype.subdtype)
    if dtype.names is None or dtype.fields is None:
        return np.dtype(dtype.str)
    fields = [dtype.fields[name] for name in dtype.names]
    spec: dict[str, Any] = {
        "names": dtype.names,
        "formats": [field[0] for field in fields],
        "offsets": [field[1] for field in fields],
        "titles": [field[2] if len(field) > 2 else None for field in fields],
        "itemsize": dtype.itemsize,
    }
    make: Any = np.dtype
    plain: np.dtype[Any] = make(spec, align=dtype.isalignedstruct)
    return np.dtype((np.record, plain)) if dtype.type is np.record else plain


def dtype_from_plain(plain: Any, nesting: int = 0) -> np.dtype[Any]:
    """Return the dtype of a plain value; it was read and is not trusted.

    Raises
    ------
    ValueError
        If it is not one that `dtype_to_plain` makes.
    FormatError
        If this machine has no such dtype: ``longdouble`` differs between processors.
    """
    make: Any = np.dtype
    if nesting > _MAX_NESTING:
        raise ValueError("a dtype is nested too deeply")
    if isinstance(plain, str):
        return _simple(plain)
    if not isinstance(plain, dict):
        raise ValueError(f"not a dtype: {plain!r:.80}")
    if "metadata" in plain:
        return make(dtype_from_plain(plain["dtype"], nesting + 1), metadata=dict(plain["metadata"]))  # type: ignore[no-any-return]
    if "base" in plain:
        return np.dtype((dtype_from_plain(plain["base"], nesting + 1), tuple(plain["shape"])))
    spec = {name: plain[name] for name in ("names", "offsets", "titles", "itemsize")}
    spec["formats"] = [dtype_from_plain(item, nesting + 1) for item in plain["formats"]]
    structured: np.dtype[Any] = make(spec, align=plain["aligned"] is True)
    return np.dtype((np.record, structured)) if plain["record"] else structured


def _simple(text: str) -> np.dtype[Any]:
    if not _SIMPLE.fullmatch(text):
        raise ValueError(f"not a dtype: {text!r:.80}")
    try:
        dtype = np.dtype(text)
    except TypeError as error:
        if text.lstrip("<>|=") in ("f12", "f16", "c24", "c32"):
            raise FormatError(
                f"The dtype {text!r} cannot be read because this machine does not have it: the extended precision of "
                "numpy.longdouble depends on the processor. Read it where it was written and convert it to float64."
            ) from error
        raise
    if dtype.hasobject:
        raise ValueError(f"a dtype with objects: {text!r}")
    return dtype
