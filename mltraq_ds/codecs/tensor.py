"""Codec of torch tensors: the values as an ``.npy`` member, dtype and flags beside it.

The member is readable by ``np.load``; dtypes that numpy lacks (bfloat16, float8) are in it as unsigned integers of the
same width.

Preserved: values bit by bit, dtype, shape, `requires_grad`, Tensor or Parameter.

Not preserved: strides (tensors come back contiguous), the device (the copy is on the CPU, the device is recorded),
`grad` and the graph, memory shared between tensors (tied weights come back as equal copies), attributes set on an
instance, such as ``_metadata`` of a `state_dict`, which only carries version numbers of modules.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any, ClassVar

import numpy as np

from mltraq_ds.codecs.base import Codec, Member, MemberSource, Parts
from mltraq_ds.errors import UnsupportedTypeError
from mltraq_ds.storage.base import Buffer

__all__ = ["TorchTensorCodec"]

#: Tensors that are strided or on another device are copied in pieces of about this size (bytes) while written.
PIECE_BYTES = 4 << 20

# Name of the torch dtype -> numpy dtype of the member.
_DTYPES = {
    "bfloat16": "<u2",
    "bool": "|b1",
    "complex128": "<c16",
    "complex32": "<u4",
    "complex64": "<c8",
    "float16": "<f2",
    "float32": "<f4",
    "float4_e2m1fn_x2": "|u1",
    "float64": "<f8",
    "float8_e4m3fn": "|u1",
    "float8_e4m3fnuz": "|u1",
    "float8_e5m2": "|u1",
    "float8_e5m2fnuz": "|u1",
    "float8_e8m0fnu": "|u1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "int8": "|i1",
    "uint16": "<u2",
    "uint32": "<u4",
    "uint64": "<u8",
    "uint8": "|u1",
}
#: An .npy header of ours is far shorter; numpy's own limit for headers that it parses.
_MAX_HEADER_BYTES = 10_000


class TorchTensorCodec(Codec):
    """Tensor and Parameter, dense, of every dtype that is not quantised."""

    name: ClassVar[str] = "torch.tensor/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        torch: Any = sys.modules.get("torch")
        kind = type(value)
        return torch is not None and kind in (getattr(torch, "Tensor", None), _parameter(torch))

    def encode(self, value: Any) -> Parts:
        """Return the values as one member; nothing is copied if the tensor is contiguous and on the CPU.

        Raises
        ------
        UnsupportedTypeError
            If the tensor is sparse, quantised, nested, or on the device "meta", which has no values.
        """
        torch: Any = sys.modules["torch"]
        dtype = str(value.dtype).removeprefix("torch.")
        if str(value.layout) != "torch.strided" or value.is_nested:
            raise UnsupportedTypeError(
                f"a tensor of layout {value.layout} has no codec; store to_dense(), or its indices() and values()"
            )
        if dtype not in _DTYPES or value.device.type == "meta":
            raise UnsupportedTypeError(
                f"a tensor of dtype {dtype} on device {value.device} has no codec; dequantize() it, or give it values"
            )
        shape = tuple(value.shape)
        meta = {
            "dtype": dtype,
            "shape": list(shape),
            "parameter": type(value) is _parameter(torch),
            "requires_grad": value.requires_grad,
            "device": str(value.device),
        }
        header = _header(_DTYPES[dtype], shape)
        values = value.detach()
        at_hand = values.device.type == "cpu" and values.is_contiguous() and not (values.is_conj() or values.is_neg())

        def buffers() -> Iterator[Buffer]:
            yield header
            for piece in [values] if at_hand else _pieces(values):
                yield from _view(torch, piece)

        size = len(header) + values.numel() * values.element_size()
        summary = {"shape": list(shape), "dtype": dtype, "device": str(value.device)}
        return Parts(meta, [Member("npy", size, buffers, streamed=not at_hand)], summary)

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:
        """Return a tensor on the CPU over the member's memory, not copied if that is writable.

        Raises
        ------
        ValueError
            If the member's size or header differs from dtype and shape.
        """
        torch: Any = importlib.import_module("torch")
        try:
            (source,) = members
            name = meta["dtype"]
            stored = np.dtype(_DTYPES[name])
            shape = [int(length) for length in meta["shape"]]
            is_parameter, requires_grad = bool(meta["parameter"]), bool(meta["requires_grad"])
        except (LookupError, TypeError) as error:
            raise ValueError(f"a tensor is described by {meta!r:.200}") from error
        dtype = getattr(torch, name, None)
        if dtype is None:
            raise UnsupportedTypeError(f"torch {torch.__version__} has no dtype {name}; pip install --upgrade torch")
        view = _values(source, stored, shape)
        if not len(view):
            tensor = torch.empty(shape, dtype=dtype)
        else:
            if view.readonly:
                view = memoryview(bytearray(view))
            tensor = torch.frombuffer(view, dtype=torch.uint8).view(dtype).reshape(shape)
        if is_parameter:
            return torch.nn.Parameter(tensor, requires_grad=requires_grad)
        return tensor.requires_grad_(requires_grad)


def _parameter(torch: Any) -> Any:
    return getattr(getattr(torch, "nn", None), "Parameter", None)


def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _values(source: MemberSource, stored: np.dtype[Any], shape: list[int]) -> memoryview:
    """Return the bytes of the values after checking the header and the size against the description."""
    size = math.prod(shape) * stored.itemsize
    if any(length < 0 for length in shape) or not 0 <= source.size - size <= _MAX_HEADER_BYTES:
        raise ValueError(f"{source.name} has {source.size} bytes, {size} of values are expected")
    view = source.read().cast("B")
    header = BytesIO(bytes(view[: len(view) - size]))
    if np.lib.format.read_magic(header) != (1, 0):
        raise ValueError(f"{source.name} is not in version 1.0 of the npy format")
    found = np.lib.format.read_array_header_1_0(header)
    if found != (tuple(shape), False, stored) or header.read(1):
        raise ValueError(f"{source.name} holds {found}, not dtype {stored} and shape {shape}")
    return view[len(view) - size :]


def _view(torch: Any, values: Any) -> Iterator[Buffer]:
    """Yield the bytes of a contiguous tensor on the CPU, without copying."""
    if values.numel():
        yield memoryview(values.reshape(-1).view(torch.uint8).numpy()).cast("B")


def _pieces(values: Any) -> Iterator[Any]:
    """Yield a tensor as contiguous copies on the CPU, split along its first axis."""
    if not values.dim() or not values.numel():
        yield values.cpu().resolve_conj().resolve_neg().contiguous()
        return
    rows = max(1, PIECE_BYTES * len(values) // (values.numel() * values.element_size()))
    for start in range(0, len(values), rows):
        yield values[start : start + rows].cpu().resolve_conj().resolve_neg().contiguous()
