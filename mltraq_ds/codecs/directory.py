"""`Directory`: a folder of files as a value."""

from __future__ import annotations

import os
import stat
from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mltraq_ds.codecs.base import Codec, MemberSource, Parts
from mltraq_ds.codecs.ext import checked, sequence_of
from mltraq_ds.codecs.extracting import extract_folder
from mltraq_ds.codecs.files import File, changed, member_of, missing, settle, validate_file_name
from mltraq_ds.errors import UnsupportedTypeError, ValueChangedError
from mltraq_ds.ids import validate_key

__all__ = ["AT_PATHS", "Directory", "DirectoryCodec", "is_at_path"]


class Directory(Mapping[str, File]):
    """A folder as a value: a mapping of relative paths, joined by ``/``, to files.

    Its files and folders are looked up when it is made, and of each file size, time of modification and inode are
    noted; if anything in it is another one when it is persisted or read, `ValueChangedError` is raised and nothing is
    stored.  After a persist, a key of a DataStore or a field that holds it has the stored files, as with `File`.

    Parameters
    ----------
    path : str or path
        A folder of regular files and folders.  It must not change until it is persisted.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    UnsupportedTypeError
        If it is no folder, or there are links or special files in it.
    """

    __slots__ = ("_files", "_folders", "_name", "_path")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        place = Path(path).absolute()
        try:
            self._files, self._folders = _scan(place)
        except FileNotFoundError as error:
            raise missing(Path(error.filename), "Directory") from None
        except NotADirectoryError:
            raise UnsupportedTypeError(
                f"Directory({str(place)!r}) cannot be made because that is not a folder. Store a file as File(path)."
            ) from None
        self._path: Path | None = place
        self._name = place.name
        settle(max((file.modified_ns for file in self._files.values()), default=0))

    @classmethod
    def _from_sources(cls, meta: Any, members: Sequence[MemberSource]) -> Directory:
        if not isinstance(meta, dict):
            raise ValueError("a folder without a description")
        rows = sequence_of(meta["files"], list)
        folders = [validate_key(path, "path of a stored folder") for path in sequence_of(meta["folders"], str)]
        files = {}
        for (path, *description), member in zip(rows, members, strict=True):
            validate_key(path, "path of a stored file")
            files[path] = File._from_source([path.rpartition("/")[2], *description], member)
        parents = {str(parent) for path in [*files, *folders] for parent in PurePosixPath(path).parents}
        if len(files) != len(rows) or files.keys() & (parents | set(folders)):
            raise ValueError("a path is there twice")
        directory = cls.__new__(cls)
        directory._path, directory._name = None, validate_file_name(*checked([meta["name"]], str))
        directory._files, directory._folders = files, folders
        return directory

    def _check(self) -> None:
        """Raise ValueChangedError if what is in the folder is not what was there when it was made."""
        if self._path is None:
            return
        try:
            files, folders = _scan(self._path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise changed(self._path, "Directory", f"{error.filename!r} is gone") from None
        except UnsupportedTypeError as error:
            raise changed(self._path, "Directory", str(error).rstrip(".")) from None
        differing = [*(files.keys() ^ self._files.keys()), *set(folders).symmetric_difference(self._folders)]
        if differing:
            raise changed(self._path, "Directory", f"{min(differing)!r} was added or removed")
        for path, file in self._files.items():
            try:
                file._check()
            except ValueChangedError:
                raise changed(self._path, "Directory", f"{path!r} is another one") from None

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self._name

    @property
    def size(self) -> int:
        """Sum of the sizes of its files (bytes)."""
        return sum(file.size for file in self._files.values())

    def paths(self, pattern: str | None = None) -> list[str]:
        """Return the relative paths of its files, sorted; with a pattern (`pathlib.PurePath.match`), those only."""
        return [path for path in self._files if pattern is None or PurePosixPath(path).match(pattern)]

    def open(self, path: str) -> BinaryIO:
        """Return a seekable stream over the bytes of one file."""
        return self[path].open()

    def extract(self, to: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write all files below a folder.

        A new folder appears whole or not at all.  With `overwrite`, files are written one by one into one that is there
        (each whole or not at all); files of other names stay, and no link in it is followed.

        Raises
        ------
        FileExistsError
            If the folder is not empty and `overwrite` is False.  Nothing was written.
        InvalidNameError
            If a link in the folder is in the way.
        """
        self._check()
        target = Path(to)
        extract_folder(list(self._files.items()), self._folders, target, overwrite)
        return target

    def items(self) -> ItemsView[str, File]:  # docstring inherited
        return self._files.items()

    def values(self) -> ValuesView[File]:  # docstring inherited
        return self._files.values()

    def __getitem__(self, path: str) -> File:
        return self._files[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __eq__(self, other: object) -> bool:
        """Compare paths and bytes, empty folders too, but not its own name."""
        if type(other) is not Directory:
            return NotImplemented
        return self._files == other._files and self._folders == other._folders

    __hash__ = None  # type: ignore[assignment]  # the bytes may change

    def __copy__(self) -> Directory:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Directory:
        return self  # it holds no bytes

    def __repr__(self) -> str:
        return f"Directory({self.name!r}, {len(self)} files)"


def _scan(root: Path) -> tuple[dict[str, File], list[str]]:
    """Return files by relative path, and empty folders, both sorted."""
    files: dict[str, File] = {}
    folders: list[str] = []
    pending = [("", root)]
    while pending:
        prefix, folder = pending.pop()
        names = os.listdir(folder)
        for name in names:
            place, path = folder / name, f"{prefix}{name}"
            found = os.lstat(place)  # not that of os.scandir, which has no inode on Windows
            if stat.S_ISDIR(found.st_mode):
                pending.append((f"{path}/", place))
            elif stat.S_ISREG(found.st_mode):
                files[path] = File._noted(place, found)
            else:
                kind = "a link" if stat.S_ISLNK(found.st_mode) else "neither a file nor a folder"
                raise UnsupportedTypeError(
                    f"Directory({str(root)!r}) cannot be stored because {str(place)!r} is {kind}. Put a copy in its "
                    "place, or store its files one by one."
                )
        if not names and prefix:
            folders.append(prefix[:-1])
    return dict(sorted(files.items())), sorted(folders)


#: The types of what may be at a path.
AT_PATHS = frozenset({File, Directory})


def is_at_path(value: object) -> bool:
    """Tell whether a value is a `File` or `Directory` that is at a path and not stored yet."""
    return type(value) in AT_PATHS and value._path is not None  # type: ignore[attr-defined]  # no subclass is stored


class DirectoryCodec(Codec):
    """`Directory`.  Preserves what `FileCodec` preserves of each file, and empty folders."""

    name = "mltraq_ds.directory/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        return type(value) is Directory

    def encode(self, value: Any) -> Parts:  # docstring inherited
        value._check()
        rows, members = [], []
        for path, file in value._files.items():
            validate_key(path, "path of a file")
            rows.append([path, *file._meta[1:]])
            members.append(member_of(file, path))
        for path in value._folders:
            validate_key(path, "path of a folder")
        meta = {"name": validate_file_name(value.name), "files": rows, "folders": value._folders}
        return Parts(meta, members, {"length": len(rows)})

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        return Directory._from_sources(meta, members)
