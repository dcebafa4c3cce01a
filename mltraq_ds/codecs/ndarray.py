"""NumPy arrays as ``.npy`` members that `numpy.load` reads; nothing is copied, neither on the way in nor out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib import format as npy

from mltraq_ds.codecs.base import Codec, Member, MemberSource, Parts
from mltraq_ds.codecs.dtypes import dtype_from_plain, dtype_to_plain, is_simple
from mltraq_ds.errors import MissingExtraError
from mltraq_ds.storage.base import Buffer

__all__ = ["NdarrayCodec", "array_member", "is_fortran", "member_header"]

_ALIGNMENT = 64
_BLOCK_BYTES = 8 * 1024 * 1024
_INLINE_BYTES = 1024
_MAX_CACHED = 1024
_cache: dict[tuple[np.dtype[Any], tuple[int, ...], str], tuple[str, str, bytes]] = {}


def is_fortran(array: np.ndarray[Any, Any]) -> bool:
    """Tell whether the bytes of `array` lie in Fortran order and not in C order."""
    flags = array.flags
    return flags.f_contiguous and not flags.c_contiguous


def member_header(array: np.ndarray[Any, Any]) -> bytes:
    """Return what the member of an array begins with."""
    return _described(array.dtype, array.shape, "F" if is_fortran(array) else "C")[2]


def array_member(header: bytes, array: np.ndarray[Any, Any], name: str = "") -> Member:
    """Return the member of an array that lies in memory as a whole."""
    return Member("npy", len(header) + array.nbytes, lambda: _buffers(header, array), name)


class NdarrayCodec(Codec):
    """`numpy.ndarray`, and scalars of structured dtypes.

    Preserves dtype (byte order, fields, offsets, titles, metadata), shape, C or Fortran order, every bit of the items.
    Does not preserve strides (a non-contiguous array comes back in C order), views shared between arrays, or whether an
    array was writable.  Arrays of objects are kept item by item.
    """

    name = "numpy.ndarray/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        return type(value) in (np.ndarray, np.void, np.record)

    def encode(self, value: Any) -> Parts:  # docstring inherited
        array = np.asarray(value)
        dtype = array.dtype
        shape, order = [*array.shape], "F" if is_fortran(array) else "C"
        if dtype.char == "O" and dtype.metadata is None:
            meta: Any = {"shape": shape, "order": order, "items": _items(array)}
            return Parts(meta, (), {"shape": shape, "dtype": "object"})
        if dtype.char == "T":
            return Parts(_encode_strings(array, order), (), {"shape": shape, "dtype": str(dtype)})
        plain, dtype_name, header = _described(dtype, array.shape, order)
        meta = {"dtype": plain, "shape": shape, "order": order, "scalar": type(value) is not np.ndarray}
        summary = {"shape": shape, "dtype": dtype_name}
        if dtype.names is not None and dtype.itemsize:
            # As plain bytes: copying items with fields leaves what is between the fields to chance.
            array = array.view(np.dtype((np.void, dtype.itemsize)))
        if array.nbytes < _INLINE_BYTES:
            return Parts({**meta, "bytes": array.tobytes(order)}, (), summary)  # type: ignore[arg-type]
        if array.flags.c_contiguous or array.flags.f_contiguous:
            member = array_member(header, array)
        else:
            member = Member("npy", len(header) + array.nbytes, lambda: _blocks(header, array), streamed=True)
        return Parts(meta, (member,), summary)

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        shape = tuple(meta["shape"])
        if not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError(f"not a shape: {shape!r:.80}")
        if "items" in meta:
            return _decode_items(meta, shape)
        dtype, order = dtype_from_plain(meta["dtype"]), meta["order"]
        if order not in ("C", "F"):
            raise ValueError(f"unknown order {order!r:.80}")
        size = math.prod(shape) * dtype.itemsize
        content: bytearray | memoryview
        content = bytearray(memoryview(meta["bytes"])) if "bytes" in meta else _npy_content(members[0], size)
        if len(content) != size:
            raise ValueError(f"an array of {size} bytes has {len(content)}")
        array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, content, order=order)
        return array[()] if meta["scalar"] else array


def _described(dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> tuple[Any, str, bytes]:
    """Return what is the same for all arrays of a kind: plain dtype, its name, and the header of the member."""
    if not is_simple(dtype):  # equal ones may differ in metadata
        return dtype_to_plain(dtype), str(dtype), _npy_header(dtype, shape, order == "F")
    found = _cache.get((dtype, shape, order))
    if found is None:
        found = dtype.str, str(dtype), _npy_header(dtype, shape, order == "F")
        if len(_cache) >= _MAX_CACHED:
            _cache.clear()
        _cache[dtype, shape, order] = found
    return found


def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...], is_fortran_order: bool) -> bytes:
    """Return magic and header, padded so that the items start at a multiple of 64 bytes."""
    text = repr({"descr": _npy_descr(dtype), "fortran_order": is_fortran_order, "shape": shape})
    encoded, version = text.encode(), 1
    if len(encoded) > 65000:
        version = 2
    if not text.isascii():
        version = 3  # the only one in UTF-8
    width = 2 if version == 1 else 4
    before = npy.MAGIC_LEN + width
    padding = -(before + len(encoded) + 1) % _ALIGNMENT
    length = len(encoded) + padding + 1
    return b"".join([npy.magic(version, 0), length.to_bytes(width, "little"), encoded, b" " * padding, b"\n"])


def _npy_descr(dtype: np.dtype[Any]) -> Any:
    if dtype.names is None and dtype.subdtype is None:
        return dtype.str
    try:
        descr: Any = dtype.descr
        # What numpy.load would make of it must have the same size, whatever it loses besides (alignment, metadata).
        if npy.descr_to_dtype(descr).itemsize == dtype.itemsize:
            return descr
    except (ValueError, TypeError):
        pass  # fields that overlap or are out of order have no description: other tools see the plain bytes
    return f"|V{dtype.itemsize}"


def _npy_content(member: MemberSource, size: int) -> memoryview:
    """Return the items.  The header is for other tools: dtype and shape are known, so it is skipped, not parsed."""
    view = member.read()
    start = len(view) - size
    if start < npy.MAGIC_LEN or bytes(view[: len(npy.MAGIC_PREFIX)]) != npy.MAGIC_PREFIX:
        raise ValueError(f"a .npy member of {len(view)} bytes cannot hold {size} bytes of items")
    width = 2 if view[6] == 1 else 4
    before = npy.MAGIC_LEN + width
    if start != before + int.from_bytes(view[npy.MAGIC_LEN : before], "little"):
        raise ValueError("the header of a .npy member does not end where its items start")
    return view[start:]


def _buffers(header: bytes, array: np.ndarray[Any, Any]) -> tuple[Buffer, ...]:
    # Through uint8: datetime64, structured and other dtypes do not export a buffer.
    flat = (array if array.flags.c_contiguous else array.T).reshape(-1)
    view: Any = flat.view(np.uint8)
    return header, memoryview(view)


def _blocks(header: bytes, array: np.ndarray[Any, Any]) -> Iterator[Buffer]:
    yield header
    # In blocks, so that not more than two of them are in memory.
    items = max(_BLOCK_BYTES // array.itemsize, 1)
    blocks: Any = np.nditer(array, flags=["external_loop", "buffered", "zerosize_ok"], buffersize=items, order="C")
    for block in blocks:
        yield block.tobytes()


def _items(array: np.ndarray[Any, Any]) -> list[Any]:
    # Not tolist(): it turns an array inside an array into a list.
    return [*array.reshape(-1, order="F" if is_fortran(array) else "C")] if array.ndim else [array[()]]


def _encode_strings(array: np.ndarray[Any, Any], order: str) -> dict[str, Any]:
    dtype: Any = array.dtype
    meta: dict[str, Any] = {"shape": list(array.shape), "order": order, "coerce": dtype.coerce}
    items: list[Any] = _items(array)
    if hasattr(dtype, "na_object"):
        meta["na"] = dtype.na_object
        if not isinstance(dtype.na_object, str):
            items = [item if isinstance(item, str) else None for item in items]
    return {**meta, "items": items}


def _decode_items(meta: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    items = meta["items"]
    if type(items) is not list or len(items) != math.prod(shape):
        raise ValueError("the items of an array do not fill its shape")
    flat: np.ndarray[Any, Any]
    if "coerce" in meta:
        if not all(item is None or isinstance(item, str) for item in items):
            raise ValueError("an array of strings has other items")
        if not hasattr(np.dtypes, "StringDType"):
            raise MissingExtraError(
                "An array of strings cannot be read because it needs numpy 2. Run: pip install 'numpy>=2'."
            )
        na = {"na_object": meta["na"]} if "na" in meta else {}
        flat = np.empty(len(items), np.dtypes.StringDType(coerce=meta["coerce"], **na))
        items = [meta["na"] if item is None else item for item in items]
    else:
        flat = np.empty(len(items), object)
    for i, item in enumerate(items):
        flat[i] = item
    return flat.reshape(shape, order="F" if meta["order"] == "F" else "C")
