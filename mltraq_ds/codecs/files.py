"""`File`: a file as a value, streamed in and out, never wholly in memory."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

from mltraq_ds.codecs.base import Codec, Member, MemberSource, Parts
from mltraq_ds.codecs.ext import checked
from mltraq_ds.codecs.extracting import extract_file
from mltraq_ds.errors import UnsupportedTypeError, ValueChangedError
from mltraq_ds.ids import validate_key

__all__ = ["File", "FileCodec"]

CHUNK_BYTES = 1024 * 1024
_EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
_SUFFIX = re.compile(r"[A-Za-z0-9]{1,16}")


class File:
    """A file as a value: its bytes are read when it is persisted, and read again only when asked for.

    Parameters
    ----------
    path : str or path
        A regular file, or a link to one.  It must not change until it is persisted.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("model.pt").write_bytes(b"12345")
    >>> File("model.pt")
    File('model.pt', 5 bytes)
    >>> File("model.pt").read_bytes()
    b'12345'
    """

    __slots__ = ("_meta", "_path", "_source")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Absolute at once: it means the same file when the working directory has changed.
        self._path: Path | None = Path(path).absolute()
        self._source: MemberSource | None = None
        self._meta: list[Any] = []

    @classmethod
    def _from_source(cls, meta: list[Any], source: MemberSource) -> File:
        name, size, modified_ns, is_executable = checked(meta, str, int, int, bool)
        validate_file_name(name)
        if size != source.size or not -(2**63) <= modified_ns < 2**63:
            raise ValueError(f"the file {name!r} has {source.size} bytes, not {size}")
        file = cls.__new__(cls)
        file._path, file._source, file._meta = None, source, [name, size, modified_ns, is_executable]
        return file

    def _described(self) -> list[Any]:
        """Return name, size (bytes), modification time (ns since 1970), and whether it is executable."""
        if self._path is None:
            return self._meta
        found = os.stat(self._path)
        if not stat.S_ISREG(found.st_mode):
            raise UnsupportedTypeError(f"{str(self._path)!r} is not a regular file; store a folder as Directory(path)")
        return [self._path.name, found.st_size, found.st_mtime_ns, bool(found.st_mode & _EXECUTABLE)]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self._path.name if self._path is not None else str(self._meta[0])

    @property
    def size(self) -> int:
        """Size (bytes)."""
        return int(self._described()[1])

    @property
    def modified_ns(self) -> int:
        """When it was last modified (ns since 1970)."""
        return int(self._described()[2])

    @property
    def is_executable(self) -> bool:
        """Whether somebody may execute it; the only permission that is kept."""
        return bool(self._described()[3])

    def open(self) -> BinaryIO:
        """Return a seekable stream over its bytes; of a stored file they are verified first."""
        return open(self._path, "rb") if self._path is not None else self._stored().open()

    def read_bytes(self) -> bytes:
        """Return all its bytes."""
        with self.open() as stream:
            return stream.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return its text."""
        return self.read_bytes().decode(encoding)

    def extract(self, to: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write it to a path, or under its name into a folder that exists; it appears whole or not at all.

        Raises
        ------
        FileExistsError
            If the path exists and `overwrite` is False.  Nothing was written.
        """
        target = Path(to)
        if target.is_dir():
            target = target / self.name
        extract_file(self, target, overwrite)
        return target

    def _stored(self) -> MemberSource:
        assert self._source is not None  # either a path or a source
        return self._source

    def __eq__(self, other: object) -> bool:
        """Compare name and bytes, in chunks."""
        if type(other) is not File:
            return NotImplemented
        if self.name != other.name or self.size != other.size:
            return False
        with self.open() as mine, other.open() as theirs:
            return all(a == b for a, b in zip_longest(_chunks_of(mine), _chunks_of(theirs)))

    __hash__ = None  # type: ignore[assignment]  # the bytes may change

    def __copy__(self) -> File:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> File:
        return self  # it holds no bytes

    def __repr__(self) -> str:
        try:
            return f"File({self.name!r}, {self.size} bytes)"
        except (OSError, UnsupportedTypeError):
            return f"File({str(self._path)!r}, not readable)"


class FileCodec(Codec):
    """`File`.  Preserves name, bytes, modification time, and whether it is executable; no owner or other permission."""

    name = "mltraq_ds.file/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        return type(value) is File

    def encode(self, value: Any) -> Parts:  # docstring inherited
        meta = value._described()
        validate_file_name(meta[0])
        return Parts(meta, [member_of(value, meta)], {"file": meta[0], "length": meta[1]})

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        return File._from_source(meta, *members)


def validate_file_name(name: str) -> str:
    """Return a name that is one segment on every system, or raise InvalidNameError."""
    if "/" in name:
        raise ValueError(f"{name!r} is not the name of a file")
    return validate_key(name, "name of a file")


def member_of(file: File, meta: list[Any], name: str = "") -> Member:
    """Return the member that streams a file; `meta` is what `File._described` said when it was looked at."""
    suffix = meta[0].rpartition(".")[2] if "." in meta[0] else ""
    place = f"file {meta[0]!r}"
    buffers = partial(_stream, file.open, meta[1], place)
    return Member(suffix if _SUFFIX.fullmatch(suffix) else "bin", meta[1], buffers, name, streamed=True)


def _stream(opened: Callable[[], BinaryIO], size: int, what: str) -> Iterator[bytes]:
    left = size
    with opened() as stream:
        while left:
            chunk = stream.read(min(CHUNK_BYTES, left))
            if not chunk:
                break
            left -= len(chunk)
            yield chunk
        if left or stream.read(1):
            raise ValueChangedError(
                f"The {what} cannot be stored because its size changed while it was written: it had {size} bytes. "
                "Persist again when nobody writes to it."
            )


def _chunks_of(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk
