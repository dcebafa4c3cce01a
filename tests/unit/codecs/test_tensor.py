"""Tensors come back bit by bit; run in the tox environment `torch`."""

from __future__ import annotations

import sys
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch has a tox environment of its own: tox -e torch")

from mltraq_ds.codecs.tensor import _DTYPES, TorchTensorCodec  # noqa: E402
from mltraq_ds.errors import UnsupportedTypeError  # noqa: E402

CODEC = TorchTensorCodec()


@dataclass
class Memory:
    """A member in memory."""

    content: Any
    name: str = "x.npy"

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self) -> memoryview:
        return memoryview(self.content)

    def read_range(self, offset: int, size: int) -> memoryview:
        return memoryview(self.content)[offset : offset + size]

    def open(self) -> BinaryIO:
        return BytesIO(self.content)


def written(parts: Any) -> bytearray:
    """Return the bytes of the one member, iterated twice."""
    (member,) = parts.members
    content = bytearray().join(bytes(buffer) for buffer in member.buffers())
    assert len(content) == member.size
    assert content == bytearray().join(bytes(buffer) for buffer in member.buffers())
    return content


def there_and_back(value: Any) -> Any:
    """Encode, copy the bytes, decode."""
    assert CODEC.accepts(value)
    parts = CODEC.encode(value)
    return CODEC.decode(parts.meta, [Memory(written(parts))])


def bits(value: Any) -> bytes:
    """Return the bytes of a tensor by another way than the codec's."""
    flat = value.detach().resolve_conj().resolve_neg().contiguous().clone().flatten()
    return bytes(flat.untyped_storage())[: flat.numel() * flat.element_size()]


def random_tensor(name: str, shape: tuple[int, ...]) -> Any:
    """Return random bits as a tensor of that dtype; of booleans 0 and 1."""
    dtype = getattr(torch, name)
    size = int(np.prod(shape)) * torch.empty(1, dtype=dtype).element_size()
    raw = np.random.default_rng(7).integers(0, 2 if name == "bool" else 256, size, np.uint8)
    if not size:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(raw.tobytes()), dtype=torch.uint8).view(dtype).reshape(shape)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (5, 4), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("name", sorted(name for name in _DTYPES if hasattr(torch, name)))
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_every_dtype_and_shape_comes_back_bit_by_bit(name: str, shape: tuple[int, ...]) -> None:
    """Random bits of every dtype survive, NaNs with their payload included."""
    value = random_tensor(name, shape)
    back = there_and_back(value)
    assert type(back) is torch.Tensor
    assert (back.dtype, back.shape, back.requires_grad) == (value.dtype, value.shape, False)
    assert bits(back) == bits(value)


def test_every_dtype_of_this_torch_is_taken_or_refused_by_name() -> None:
    """No dtype is forgotten: what is not in the table is quantised, or made of bits that hold no numbers."""
    known = {str(dtype).removeprefix("torch.") for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
    left = {name for name in known - set(_DTYPES) if not name.startswith(("q", "bits"))}
    assert left <= {f"{sign}int{width}" for sign in ("", "u") for width in range(1, 8)}


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("kind", ["Tensor", "Parameter"])
def test_parameter_and_requires_grad_are_kept(kind: str, requires_grad: bool) -> None:
    """A parameter stays one, frozen or not."""
    value = torch.rand(3, 4)
    value = torch.nn.Parameter(value, requires_grad) if kind == "Parameter" else value.requires_grad_(requires_grad)
    back = there_and_back(value)
    assert (type(back), back.requires_grad, back.is_leaf) == (type(value), requires_grad, True)
    assert torch.equal(back, value)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.t(),
        lambda x: x[::2, ::3],
        lambda x: x[3],
        lambda x: x[:, 1],
        lambda x: x[1:1],
        lambda x: x.flip(0),
        lambda x: x[0, 0].expand(5, 6),
        lambda x: torch.complex(x, x).conj(),
        lambda x: torch.complex(x, x).conj().imag,
        lambda x: x.reshape(1, 4, 10, 15).to(memory_format=torch.channels_last),
        lambda x: (x * 2).requires_grad_() * 3,
    ],
)
def test_views_come_back_as_their_values(view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strides, lazy conjugation and negation do not matter, also where the copy is made in pieces."""
    monkeypatch.setattr("mltraq_ds.codecs.tensor.PIECE_BYTES", 50)
    value = view(torch.arange(600, dtype=torch.float64).reshape(20, 30))
    back = there_and_back(value)
    assert torch.equal(back, value)
    assert back.is_contiguous()


def test_nothing_is_copied_in_either_direction() -> None:
    """The buffers are the tensor's memory, and the tensor read is the member's memory, writable."""
    value = torch.rand(1000, 10)
    (member,) = CODEC.encode(value).members
    _, buffer = member.buffers()
    assert np.frombuffer(buffer, np.uint8).ctypes.data == value.data_ptr()
    assert not member.streamed
    assert CODEC.encode(value.t()).members[0].streamed

    parts = CODEC.encode(value)
    source = Memory(written(parts))
    back = CODEC.decode(parts.meta, [source])
    back[0, 0] = 42
    assert np.frombuffer(source.content[-40000:], "<f4")[0] == 42
    frozen = CODEC.decode(parts.meta, [Memory(bytes(source.content))])
    frozen[0, 0] = 1
    assert frozen[0, 1] == value[0, 1]


def test_numpy_reads_the_member_without_this_library() -> None:
    """The member is an npy file: no lock-in."""
    value = torch.rand(5, 6)
    np.testing.assert_array_equal(np.load(BytesIO(written(CODEC.encode(value)))), value.numpy())
    half = np.load(BytesIO(written(CODEC.encode(value.to(torch.bfloat16)))))
    np.testing.assert_array_equal(half, value.to(torch.bfloat16).view(torch.uint16).numpy())
    with zipfile.ZipFile(BytesIO(), "w") as archive:
        archive.writestr("w.npy", bytes(written(CODEC.encode(value))))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3).to_sparse_csr(),
        lambda: torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint8),
        lambda: torch.empty(3, device="meta"),
        lambda: torch.nested.nested_tensor([torch.rand(2), torch.rand(3)]),
        lambda: torch.nested.nested_tensor([torch.rand(2), torch.rand(3)], layout=torch.jagged),
    ],
)
def test_tensors_without_plain_values_are_refused(make: Any) -> None:
    """Sparse, quantised, nested tensors and those without values are errors that name the remedy."""
    value = make()
    if CODEC.accepts(value):
        with pytest.raises(UnsupportedTypeError, match="has no codec; "):
            CODEC.encode(value)


def test_subclasses_and_other_types_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subclass would come back as its base; without torch in memory nothing is a tensor."""

    class Mine(torch.Tensor):  # type: ignore[misc, name-defined]
        pass

    assert not CODEC.accepts(torch.rand(2).as_subclass(Mine))
    assert not CODEC.accepts(np.zeros(3))
    monkeypatch.delitem(sys.modules, "torch")
    assert not CODEC.accepts(torch.zeros(3))


def test_wrong_descriptions_and_members_are_value_errors() -> None:
    """Nothing is read beyond the member, nothing allocated that it does not justify."""
    parts = CODEC.encode(torch.rand(3, 4))
    content = written(parts)
    for change in (
        {"shape": [3, 5]},
        {"shape": [-3, -4]},
        {"shape": [4, 3]},
        {"shape": [2**40, 2**40]},
        {"shape": None},
        {"shape": [3, 2]},
        {"dtype": "int32"},
        {"dtype": "float64"},
        {"dtype": "nn"},
        {"dtype": ["float32"]},
    ):
        with pytest.raises(ValueError):
            CODEC.decode({**parts.meta, **change}, [Memory(content)])
    for meta in (None, {}, [], 3):
        with pytest.raises(ValueError):
            CODEC.decode(meta, [Memory(content)])
    for members in ([], [Memory(content)] * 2, [Memory(content[:-1])], [Memory(bytearray(48))], [Memory(bytearray(9))]):
        with pytest.raises(ValueError):
            CODEC.decode(parts.meta, members)
    with pytest.raises(ValueError, match="version 1.0"):
        CODEC.decode(parts.meta, [Memory(content[:6] + b"\2" + content[7:])])


def test_a_dtype_of_a_newer_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a dtype that this torch lacks says what to upgrade."""
    parts = CODEC.encode(torch.zeros(3))
    monkeypatch.setitem(_DTYPES, "float9", "<f4")
    with pytest.raises(UnsupportedTypeError, match="pip install --upgrade torch"):
        CODEC.decode({**parts.meta, "dtype": "float9"}, [Memory(written(parts))])


def test_state_dict_comes_back_through_the_whole_library() -> None:
    """The parameters of a model load into another model, by way of the tree and its members."""
    codecs = pytest.importorskip("mltraq_ds.codecs", exc_type=ImportError)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    encoded = codecs.encode(model.state_dict(), name="model")
    members = [
        Memory(bytearray().join(bytes(buffer) for buffer in member.buffers()), member.name)
        for member in encoded.members
    ]
    back = codecs.decode(encoded.tree, members)
    assert type(back) is OrderedDict
    assert list(back) == list(model.state_dict())
    other = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    other.load_state_dict(back)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
