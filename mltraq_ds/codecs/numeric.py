"""NumPy scalars, and arrays so small that a member of their own would cost more than they do."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from msgpack import ExtType

from mltraq_ds.codecs import ext
from mltraq_ds.codecs.base import Encoded
from mltraq_ds.codecs.dtypes import dtype_from_plain, dtype_to_plain, is_simple
from mltraq_ds.codecs.ext import Packer, Packing, Unpacker, Unpacking
from mltraq_ds.codecs.ndarray import NdarrayCodec, array_member, is_fortran, member_header
from mltraq_ds.ids import escape_member

__all__ = ["NDARRAY", "PACKERS", "UNPACKERS", "decoded_alone", "encoded_alone", "remember_alone"]

NDARRAY = np.ndarray

#: Arrays below this size (bytes) stay in the tree.
INLINE_BYTES = 1024

_MAX_CACHED = 4096
_codec = NdarrayCodec()
_PADDED = (np.longdouble, np.clongdouble) if np.dtype("g").itemsize == 16 and np.finfo("g").nmant == 63 else ()

# Headers of small arrays, made and parsed once: 10,000 arrays of 100 floats have one.
_headers: dict[tuple[np.dtype[Any], tuple[int, ...]], bytes] = {}
_scalar_names: dict[type, bytes] = {}
_scalar_dtypes: dict[bytes, np.dtype[Any]] = {}
_parsed: dict[bytes, tuple[np.dtype[Any], tuple[int, ...], str, int]] = {}
# Of arrays that are whole values, what is the same for all of one dtype and shape: tree or, of a small one, what its
# tree begins with; the summary; the header of its member, empty for a small one.
_alone: dict[tuple[np.dtype[Any], tuple[int, ...]], tuple[bytes, dict[str, Any], bytes]] = {}


def encoded_alone(value: np.ndarray[Any, Any], name: str) -> Encoded | None:
    """Return what `encode_value` made of an array like this one, with its own items; None if there was none yet.

    Ten thousand arrays under keys of their own are ten thousand values: no packer is made for them.
    """
    dtype = value.dtype
    known = _alone.get((dtype, value.shape))
    if known is None or dtype.metadata is not None or not value.flags.c_contiguous:
        return None
    tree, summary, header = known
    if header:
        # As `naming.member_names` calls the only member of a value.
        return Encoded(tree, (array_member(header, value, f"{escape_member(name)}.npy"),), (), summary)
    return Encoded(b"".join((tree, value.data)), (), (), summary)  # one copy


def remember_alone(value: np.ndarray[Any, Any], encoded: Encoded) -> None:
    """Keep what arrays of one dtype and shape have in common."""
    dtype, size = value.dtype, value.nbytes
    if not size or not value.flags.c_contiguous:
        return
    if dtype.kind not in "biufc" or not is_simple(dtype):  # others have no buffer, or names of their own
        return
    if encoded.members:
        known = encoded.tree, encoded.summary, member_header(value)
    elif encoded.tree.endswith(value.tobytes()):
        known = encoded.tree[:-size], encoded.summary, b""
    else:
        return
    if len(_alone) >= _MAX_CACHED:
        _alone.clear()
    _alone[dtype, value.shape] = known


def _pack_ndarray(value: np.ndarray[Any, Any], packing: Packing) -> ExtType:
    dtype = value.dtype
    if value.nbytes >= INLINE_BYTES or dtype.metadata is not None:
        return packing.encode_with(_codec, value)
    if value.ndim > 1 and is_fortran(value):
        return _pack_small(value, "F", packing)
    header = _headers.get((dtype, value.shape))
    if header is None or dtype.kind == "V":  # dtypes of kind V may be equal and yet of another type
        return _pack_small(value, "C", packing)
    return ext.ext(ext.SMALL_NDARRAY, header + value.tobytes())


def _pack_small(value: np.ndarray[Any, Any], order: str, packing: Packing) -> ExtType:
    if not is_simple(value.dtype):
        return packing.encode_with(_codec, value)
    name = value.dtype.str.encode()
    header = struct.pack(f"<B{len(name)}scB{value.ndim}Q", len(name), name, order.encode(), value.ndim, *value.shape)
    if order == "C":
        if len(_headers) >= _MAX_CACHED:
            _headers.clear()
        _headers[value.dtype, value.shape] = header
    return ext.ext(ext.SMALL_NDARRAY, header + value.tobytes(order))  # type: ignore[arg-type]


def _unpack_small(packed: bytes, unpacking: Unpacking | None, offset: int = 0) -> np.ndarray[Any, Any]:
    at = offset + packed[offset] + 2
    start = at + 1 + 8 * packed[at]
    header = packed[offset:start]
    dtype, shape, order, size = _parsed.get(header) or _parse(header, at - offset)
    if len(packed) - start != size:
        raise ValueError(f"an array of {size} bytes has {len(packed) - start}")
    # The copy is aligned, writable and owns its bytes.
    if len(shape) == 1 and size:
        return np.frombuffer(packed, dtype, -1, start).copy()
    if not dtype.itemsize:  # a copy of dtype U0 has dtype U1
        return np.ndarray(shape, dtype, bytearray(), order=order)  # type: ignore[arg-type]
    return np.ndarray(shape, dtype, packed, start, order=order).copy(order)  # type: ignore[arg-type]


def decoded_alone(tree: bytes) -> np.ndarray[Any, Any] | None:
    """Return the array that is the whole of a tree; None if it is anything else."""
    if tree[0] == 0xC7 and tree[2] == ext.SMALL_NDARRAY and len(tree) == 3 + tree[1]:
        return _unpack_small(tree, None, 3)
    if tree[0] == 0xC8 and tree[3] == ext.SMALL_NDARRAY and len(tree) == 4 + (tree[1] << 8 | tree[2]):
        return _unpack_small(tree, None, 4)
    return None


def _parse(header: bytes, at: int) -> tuple[np.dtype[Any], tuple[int, ...], str, int]:
    dtype = dtype_from_plain(header[1 : at - 1].decode("ascii"))
    order = header[at - 1 : at].decode("ascii")
    if order not in ("C", "F"):
        raise ValueError(f"unknown order {order!r}")
    shape = struct.unpack_from(f"<{header[at]}Q", header, at + 1)
    size = dtype.itemsize
    for length in shape:
        size *= length
    if len(_parsed) >= _MAX_CACHED:
        _parsed.clear()
    _parsed[header] = dtype, shape, order, size
    return dtype, shape, order, size


def _pack_scalar(value: np.generic, packing: Packing) -> ExtType:
    kind = type(value)
    name = _scalar_names.get(kind) or _scalar_name(value)
    content = value.tobytes()
    return ext.ext(ext.NUMPY_SCALAR, name + (_without_padding(content) if kind in _PADDED else content))


def _scalar_name(value: np.generic) -> bytes:
    dtype = value.dtype
    # On 64-bit systems numpy.longlong is another type than numpy.int64, although their dtypes are equal.
    name = (dtype.str if np.dtype(dtype.str).type is type(value) else dtype.char).encode()
    name = bytes([len(name)]) + name
    if dtype.kind not in "mM":  # those have one dtype per unit
        _scalar_names[type(value)] = name
    return name


def _without_padding(content: bytes) -> bytes:
    # x87 floats have 10 bytes and 6 of padding, which hold anything: equal values must give equal blobs.
    return b"".join(content[i : i + 10] + bytes(6) for i in range(0, len(content), 16))


def _unpack_scalar(packed: bytes, unpacking: Unpacking) -> np.generic:
    start = packed[0] + 1
    name = packed[1:start]
    dtype = _scalar_dtypes.get(name)
    if dtype is None:
        dtype = dtype_from_plain(name.decode("utf-8"))
        if len(_scalar_dtypes) < _MAX_CACHED:
            _scalar_dtypes[name] = dtype
    if len(packed) - start != dtype.itemsize:
        raise ValueError(f"a scalar of {dtype.itemsize} bytes has {len(packed) - start}")
    scalar: np.generic = np.ndarray((), dtype, packed, start)[()]  # type: ignore[assignment]
    return scalar


def _pack_text(value: np.str_ | np.bytes_, packing: Packing) -> ExtType:
    # By the methods of str and bytes: those of numpy drop trailing NULs.
    if isinstance(value, np.str_):
        return ext.ext(ext.NUMPY_SCALAR, b"\x00U" + str.encode(value, "utf-8", "surrogatepass"))
    return ext.ext(ext.NUMPY_SCALAR, b"\x00S" + bytes(value))


def _pack_void(value: np.void, packing: Packing) -> ExtType:
    if dtype_to_plain(value.dtype) == value.dtype.str:
        return ext.ext(ext.NUMPY_SCALAR, b"\x00V" + value.tobytes())
    return packing.encode_with(_codec, value)


_TEXT: dict[bytes, Any] = {
    b"U": lambda content: np.str_(content.decode("utf-8", "surrogatepass")),
    b"S": np.bytes_,
    b"V": np.void,
}


def _unpack_any_scalar(packed: bytes, unpacking: Unpacking) -> Any:
    return _unpack_scalar(packed, unpacking) if packed[0] else _TEXT[packed[1:2]](packed[2:])


PACKERS: dict[type, Packer] = {
    np.ndarray: _pack_ndarray,
    np.str_: _pack_text,
    np.bytes_: _pack_text,
    np.void: _pack_void,
    **dict.fromkeys(
        {np.dtype(char).type for char in "?bBhHiIlLqQefdgFDGmM"},
        _pack_scalar,
    ),
}
UNPACKERS: dict[int, Unpacker] = {ext.NUMPY_SCALAR: _unpack_any_scalar, ext.SMALL_NDARRAY: _unpack_small}
