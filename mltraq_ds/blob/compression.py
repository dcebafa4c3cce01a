"""Compression of single members: plain zstd frames, outside ZIP's own, so that any zstd tool reads them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import Any

from mltraq_ds.storage.base import Buffer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Spool", "compressed", "decompressed"]

_LEVEL = 3
#: 8 MiB, what RFC 8878 recommends every decoder to support: it bounds the memory of a reader.
_WINDOW_LOG = 23
_CHUNK = 1024 * 1024


class Spool:
    """Compressed members of one blob, one behind the other: in memory while small, else in one temporary file."""

    def __init__(self) -> None:
        self._file: Any = SpooledTemporaryFile(max_size=8 * _CHUNK)  # noqa: SIM115 — closed by `close`
        self._lock = threading.Lock()
        self._end = 0

    def add(self, chunks: Iterable[bytes], limit: int) -> tuple[int, int] | None:
        """Append one member; return its place and size, or None, and nothing kept, once it reaches `limit` bytes."""
        start = self._end
        self._file.seek(start)
        size = 0
        for chunk in chunks:
            size += len(chunk)
            if size >= limit:
                self._file.truncate(start)
                return None
            self._file.write(chunk)
        self._end = start + size
        return start, size

    def read(self, start: int, size: int) -> Iterator[bytes]:
        """Yield the bytes of one member."""
        for offset in range(start, start + size, _CHUNK):
            with self._lock:  # an upload may read the parts of a blob in several threads
                self._file.seek(offset)
                chunk = self._file.read(min(_CHUNK, start + size - offset))
            yield chunk

    def close(self) -> None:
        """Remove it."""
        self._file.close()

    def __del__(self) -> None:
        self.close()


def compressed(views: Iterable[memoryview]) -> Iterator[bytes]:
    """Yield one zstd frame of flat views."""
    compressor = zstd.ZstdCompressor(level=_LEVEL)
    for view in views:
        for start in range(0, len(view), _CHUNK):
            yield compressor.compress(view[start : start + _CHUNK])
    yield compressor.flush()


def decompressed(chunks: Iterable[Buffer], size: int) -> Iterator[bytes]:
    """Yield the content of one zstd frame, and never more than the declared `size` (bytes) and one chunk.

    Raises
    ------
    ValueError
        If it is not one whole frame of that size.
    """
    decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
    done = 0
    try:
        for chunk in chunks:
            piece = decompressor.decompress(chunk, max_length=_CHUNK)
            while piece:
                done += len(piece)
                if done > size:
                    raise ValueError(f"it has more than the {size} bytes declared")
                yield piece
                piece = b"" if decompressor.needs_input or decompressor.eof else decompressor.decompress(b"", _CHUNK)
    except (zstd.ZstdError, EOFError) as error:  # EOFError: there is something behind the frame
        raise ValueError(str(error)) from error
    if done < size or not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"it is not one zstd frame of {size} bytes")
