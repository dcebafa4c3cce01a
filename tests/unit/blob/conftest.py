"""Values as codecs would encode them, and sources that are nothing but bytes."""

import io

import msgpack
import numpy as np
import pytest

from mltraq_ds.blob import open_blob, pack
from mltraq_ds.codecs.base import Encoded, Member
from mltraq_ds.errors import CorruptBlobError
from mltraq_ds.storage.base import Source


class BytesSource(Source):
    """Bytes in memory; counts what is read, and gives private memory as every source does."""

    def __init__(self, content, key="exp/0a1b"):
        self.content = content
        self.key = key
        self.size = len(content)
        self.reads = []
        self.is_closed = False

    def read(self, offset, size):
        if offset < 0 or size < 0 or offset + size > self.size:
            raise CorruptBlobError(f"{self.key}: {offset}+{size} is outside of {self.size}")
        self.reads.append((offset, size))
        return memoryview(bytearray(self.content[offset : offset + size]))

    def close(self):
        self.is_closed = True


def array_member(array, name):
    """Return a member of a contiguous array, as `np.save` would write it."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    prefix = header.getvalue()
    return Member("npy", len(prefix) + array.nbytes, lambda: [prefix, memoryview(array)], name)


def array_entry(array, name="weights.npy"):
    """Return an entry with one array."""
    tree = msgpack.packb(msgpack.ExtType(3, msgpack.packb(["numpy.ndarray/1", None, [0]])))
    summary = {"type": "numpy.ndarray", "shape": list(array.shape), "dtype": str(array.dtype)}
    return Encoded(tree, (array_member(array, name),), (), summary)


def bytes_member(content, name, **more):
    """Return a member of raw bytes."""
    return Member(name.rpartition(".")[2], len(content), lambda: [content], name, **more)


def bytes_entry(content, name="raw.bin", **more):
    """Return an entry with one member of raw bytes."""
    return Encoded(b"\xc0", (bytes_member(content, name, **more),))


@pytest.fixture
def make():
    """The functions above, under one name."""

    class Make:
        source = BytesSource
        array = staticmethod(array_entry)
        raw = staticmethod(bytes_entry)
        member = staticmethod(bytes_member)

        @staticmethod
        def blob(entries, **options):
            """Pack, join and open in a new object."""
            packed = pack(entries, **options)
            content = b"".join(packed)
            assert len(content) == packed.size
            packed.check_unchanged()
            packed.close()
            return open_blob(BytesSource(content), digest=packed.digest)

    return Make
