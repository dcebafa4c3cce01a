"""Writing what was stored into files: each appears whole or not at all, and nothing leaves the folder asked for."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from mltraq_ds.errors import InvalidNameError
from mltraq_ds.ids import validate_key

__all__ = ["extract_file", "extract_folder"]

_CHUNK_BYTES = 1024 * 1024


class StoredFile(Protocol):
    """What is extracted."""

    @property
    def is_executable(self) -> bool:
        """Whether it may be run."""

    @property
    def modified_ns(self) -> int:
        """Time of change (ns since 1970)."""

    def open(self) -> BinaryIO:
        """Return a stream over the bytes."""


def extract_file(file: StoredFile, target: Path, overwrite: bool) -> None:
    """Write a file beside `target`, then move it there in one step."""
    with _temporary(target.parent) as temporary:
        _write(file, temporary)
        if overwrite:
            os.replace(temporary, target)  # a link is replaced, not followed
        else:
            _move_to_new(temporary, target)


def extract_folder(
    files: Sequence[tuple[str, StoredFile]], folders: Sequence[str], target: Path, overwrite: bool
) -> None:
    """Write files below `target`: all at once if it is new, one by one over what is there with `overwrite`.

    Raises
    ------
    FileExistsError
        If `target` is there, is not an empty folder, and `overwrite` is False.  Nothing was written.
    InvalidNameError
        If a path leaves `target`, by itself or through a link that is there already.
    """
    for path in [*(path for path, _ in files), *folders]:
        validate_key(path, "path of a stored file")
    if overwrite and target.is_dir():
        for path in folders:
            _below(target, path).mkdir(parents=True, exist_ok=True)
        for path, file in files:
            place = _below(target, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            extract_file(file, place, overwrite=True)
        return
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or any(target.iterdir())):
        raise _exists(target)
    with _temporary(target.parent) as temporary:
        temporary.mkdir()
        for path in folders:
            (temporary / path).mkdir(parents=True, exist_ok=True)
        for path, file in files:
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            _write(file, temporary / path)
        if target.is_dir():
            target.rmdir()  # empty, as seen above; Windows does not rename onto a folder
        temporary.rename(target)


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """Give a free name in `folder`, so that moving from there is one step; what is left there is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".mltraq_ds-{uuid.uuid4().hex}"
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def _write(file: StoredFile, place: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    # The umask applies, as for any file that the user makes.
    with file.open() as source, open(os.open(place, flags, 0o777 if file.is_executable else 0o666), "wb") as sink:
        shutil.copyfileobj(source, sink, _CHUNK_BYTES)
        sink.flush()
        os.fsync(sink.fileno())  # else a power cut may leave the name without the bytes
    os.utime(place, ns=(file.modified_ns, file.modified_ns))


def _move_to_new(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise _exists(target) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise _exists(target) from None
        temporary.rename(target)


def _exists(target: Path) -> FileExistsError:
    return FileExistsError(
        errno.EEXIST,
        "Nothing was extracted because this exists; choose another place or pass overwrite=True",
        str(target),
    )


def _below(target: Path, path: str) -> Path:
    place = target
    for segment in path.split("/"):
        place = place / segment
        if place.is_symlink():
            raise InvalidNameError(
                f"{path!r} cannot be extracted to {str(target)!r} because {str(place)!r} is a link, which could lead "
                "elsewhere. Remove the link, or extract to another folder."
            )
    return place
