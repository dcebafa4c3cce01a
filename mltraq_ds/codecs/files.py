"""`File`: a file as a value, streamed in and out, never wholly in memory."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
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
# A file system notes times in ticks, of 2 s at most where fractions are lost, else of less than 20 ms.
_TICK_NS = 20_000_000
_COARSE_TICK_NS = 2_000_000_000
_SUFFIX = re.compile(r"[A-Za-z0-9]{1,16}")


class File:
    """A file as a value: its bytes are read when it is persisted, and read again only when asked for.

    Size, time of modification and inode are noted when it is made; if the file is another one when it is persisted or
    read, `ValueChangedError` is raised and nothing is stored.  After a persist, a key of a DataStore or a field that
    holds it has the stored bytes, whatever becomes of the file; one inside a list or a dict is still the file.
    Making it of a file that was written just now takes some milliseconds, until the clock of the file system has moved
    on: else one written again at once could not be told from it.

    Parameters
    ----------
    path : str or path
        A regular file, or a link to one.  It must not change until it is persisted.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    UnsupportedTypeError
        If it is not a regular file.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("model.pt").write_bytes(b"12345")
    >>> File("model.pt")
    File('model.pt', 5 bytes)
    >>> File("model.pt").read_bytes()
    b'12345'
    """

    __slots__ = ("_inode", "_meta", "_path", "_source")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Absolute at once: it means the same file when the working directory has changed.
        place = Path(path).absolute()
        try:
            found = os.stat(place)
        except FileNotFoundError:
            raise missing(place, "File") from None
        if not stat.S_ISREG(found.st_mode):
            raise UnsupportedTypeError(
                f"File({str(place)!r}) cannot be made because that is not a regular file. Store a folder as "
                "Directory(path)."
            )
        self._note(place, found)
        settle(found.st_mtime_ns)

    def _note(self, path: Path, found: os.stat_result) -> None:
        self._path: Path | None = path
        self._source: MemberSource | None = None
        self._inode = found.st_ino
        #: Name, size (bytes), modification time (ns since 1970), and whether it is executable.
        self._meta: list[Any] = _meta_of(path, found)

    @classmethod
    def _noted(cls, path: Path, found: os.stat_result) -> File:
        """Return the file at a path that was looked at just now; whoever looked waits for the clock (`settle`)."""
        file = cls.__new__(cls)
        file._note(path, found)
        return file

    @classmethod
    def _from_source(cls, meta: list[Any], source: MemberSource) -> File:
        name, size, modified_ns, is_executable = checked(meta, str, int, int, bool)
        validate_file_name(name)
        if size != source.size or not -(2**63) <= modified_ns < 2**63:
            raise ValueError(f"the file {name!r} has {source.size} bytes, not {size}")
        file = cls.__new__(cls)
        file._path, file._source, file._inode = None, source, 0
        file._meta = [name, size, modified_ns, is_executable]
        return file

    def _check(self) -> None:
        """Raise ValueChangedError if what is at its path is not what was there when it was made."""
        if self._path is None:
            return
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            raise changed(self._path, "File", "it is gone") from None
        if not stat.S_ISREG(found.st_mode):
            raise changed(self._path, "File", "it is not a regular file any more")
        if found.st_size != self.size:
            raise changed(self._path, "File", f"it has {found.st_size} bytes instead of {self.size}")
        if (found.st_ino, _meta_of(self._path, found)) != (self._inode, self._meta):
            raise changed(self._path, "File", "it was written again, replaced, or has other permissions")

    @property
    def name(self) -> str:
        """The last part of its path."""
        return str(self._meta[0])

    @property
    def size(self) -> int:
        """Size (bytes)."""
        return int(self._meta[1])

    @property
    def modified_ns(self) -> int:
        """When it was last modified (ns since 1970)."""
        return int(self._meta[2])

    @property
    def is_executable(self) -> bool:
        """Whether somebody may execute it; the only permission that is kept."""
        return bool(self._meta[3])

    def open(self) -> BinaryIO:
        """Return a seekable stream over its bytes; of a stored file they are verified first.

        Raises
        ------
        ValueChangedError
            If it is not stored yet and the file has changed since this was made.
        """
        self._check()
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
        return f"File({self.name!r}, {self.size} bytes)"


class FileCodec(Codec):
    """`File`.  Preserves name, bytes, modification time, and whether it is executable; no owner or other permission."""

    name = "mltraq_ds.file/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        return type(value) is File

    def encode(self, value: Any) -> Parts:  # docstring inherited
        value._check()
        meta = value._meta
        validate_file_name(meta[0])
        return Parts(meta, [member_of(value)], {"file": meta[0], "length": meta[1]})

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        return File._from_source(meta, *members)


def validate_file_name(name: str) -> str:
    """Return a name that is one segment on every system, or raise InvalidNameError."""
    if "/" in name:
        raise ValueError(f"{name!r} is not the name of a file")
    return validate_key(name, "name of a file")


def member_of(file: File, name: str = "") -> Member:
    """Return the member that streams a file."""
    suffix = file.name.rpartition(".")[2] if "." in file.name else ""
    suffix = suffix if _SUFFIX.fullmatch(suffix) else "bin"
    return Member(suffix, file.size, partial(_stream, file), name, streamed=True)


def missing(path: Path, kind: str) -> FileNotFoundError:
    """Return the error for a path where there is nothing."""
    return FileNotFoundError(errno.ENOENT, f"{kind}(path) cannot be made because nothing is at this path", str(path))


def changed(path: Path, kind: str, reason: str) -> ValueChangedError:
    """Return the error for a path that is not as it was."""
    return ValueChangedError(
        f"{str(path)!r} cannot be stored because it changed since {kind}(...) was made: {reason}. Make {kind}(...) "
        "anew to store its present state."
    )


def settle(modified_ns: int) -> None:
    """Wait until a file written from now on has a later time than this; no time at all unless it is just written."""
    tick_ns = _TICK_NS if modified_ns % 10**9 else _COARSE_TICK_NS
    wait_ns = min(modified_ns + tick_ns - time.time_ns(), tick_ns)
    if wait_ns > 0:
        time.sleep(wait_ns / 1e9)


def _meta_of(path: Path, found: os.stat_result) -> list[Any]:
    return [path.name, found.st_size, found.st_mtime_ns, bool(found.st_mode & _EXECUTABLE)]


def _stream(file: File) -> Iterator[bytes]:
    left = file.size
    with file.open() as stream:
        while left:
            chunk = stream.read(min(CHUNK_BYTES, left))
            if not chunk:
                break
            left -= len(chunk)
            yield chunk
        file._check()  # also what was written while it was read
        if left or stream.read(1):
            raise ValueChangedError(
                f"The file {file.name!r} cannot be stored because it does not have the {file.size} bytes that its size "
                "says. Persist again when nobody writes to it."
            )


def _chunks_of(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk
