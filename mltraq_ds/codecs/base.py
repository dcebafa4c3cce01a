"""What a codec is: two functions between a value and members.

A codec does no I/O: `encode` returns *how* to get the bytes (it may `stat` a file, never read it), and `decode` is
given sources to read from.  The name of the codec that wrote is kept in the blob, and only that name chooses the codec
that reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar, Protocol

from mltraq_ds.storage.base import Buffer

__all__ = ["Codec", "Encoded", "Member", "MemberSource", "Parts"]


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside a blob, not yet written.

    Parameters
    ----------
    suffix : str
        What other tools know the format by, without a dot: ``npy``, ``arrow``, ``msgpack``, ``bin``.
    size : int
        Size (bytes).
    buffers : callable
        Returns the buffers, from the start at every call; views of the value where possible, no copies.
    name : str
        Name inside the blob with suffix, set when the value's key is known.
    streamed : bool
        Whether `buffers` makes fresh bytes each time (chunks of a file, copies of a non-contiguous array): they are
        then read once for the CRC-32 and once to be written, and never held together in memory.  Without it they must
        be views of the value, which are kept and looked at again after the write.
    """

    suffix: str
    size: int
    buffers: Callable[[], Iterable[Buffer]]
    name: str = ""
    streamed: bool = False


class MemberSource(Protocol):
    """One member of a blob on disk, as a codec sees it when decoding."""

    @property
    def name(self) -> str:
        """Name inside the blob."""

    @property
    def size(self) -> int:
        """Size of the member after decompression (bytes)."""

    def read(self) -> memoryview:
        """Return all bytes, verified; a mapping is copied by nothing and is private and writable."""

    def read_range(self, offset: int, size: int) -> memoryview:
        """Return some bytes, for formats with their own directory (one column of many).  Not verified as a whole."""

    def open(self) -> BinaryIO:
        """Return a seekable stream over the bytes; verified before it is returned."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a codec makes of one value.

    Parameters
    ----------
    meta : object
        What is needed besides the members; any supported value (it is encoded in turn).
    members : sequence of Member
        Large parts, in an order that `decode` knows.
    summary : dict
        For `describe()`: ``shape``, ``length``, ``dtype``, ``columns`` … as far as they apply; JSON-native.
    """

    meta: Any = None
    members: Sequence[Member] = ()
    summary: dict[str, Any] = field(default_factory=dict)


class Codec(ABC):
    """Value to members and back.  Subclass it, then `mltraq_ds.codecs.register` it or name it in an entry point.

    Instances hold no state.  `encode` does no I/O.  `decode` must raise `ValueError` (or a subclass) on members that
    cannot be right, must not allocate more than the members' sizes justify, and must never import a name it read.
    """

    #: Name and version, kept in every blob: ``numpy.ndarray/1``.
    name: ClassVar[str]

    @abstractmethod
    def accepts(self, value: object) -> bool:
        """Tell whether this codec takes the value: exact types, since a subclass would come back as its base.

        Must not import a library that the user has not imported: look in `sys.modules`.
        """

    @abstractmethod
    def encode(self, value: Any) -> Parts:
        """Return the parts of the value, without copying large buffers.

        Raises
        ------
        UnsupportedTypeError
            If something inside the value has no codec.
        """

    @abstractmethod
    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:
        """Return a value equal to the one encoded."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One value as a tree (msgpack, blob format 1) and members.

    Parameters
    ----------
    tree : bytes
        The value with large parts replaced by positions in `members`, and DataStores by positions in `nested`.
    members : tuple of Member
        With their names.
    nested : tuple of object
        The DataStores met inside the value, as the hook returned them; they get blobs of their own, written first.
    summary : dict
        ``type``, ``codec``, ``bytes``, and ``shape``, ``length``, ``dtype`` as far as they apply.
    """

    tree: bytes
    members: tuple[Member, ...] = ()
    nested: tuple[Any, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)
