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
from mltraq_ds.codecs.files import File, member_of, validate_file_name
from mltraq_ds.errors import UnsupportedTypeError
from mltraq_ds.ids import validate_key

__all__ = ["Directory", "DirectoryCodec"]


class Directory(Mapping[str, File]):
    """A folder as a value: a mapping of relative paths, joined by ``/``, to files.

    Parameters
    ----------
    path : str or path
        A folder of regular files and folders.  Links and special files in it are refused when it is persisted; it must
        not change until then.
    """

    __slots__ = ("_files", "_folders", "_name", "_path")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path: Path | None = Path(path).absolute()
        self._name = self._path.name
        self._files: dict[str, File] = {}
        self._folders: list[str] = []

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

    def _scan(self) -> tuple[dict[str, File], list[str]]:
        """Return files by relative path, and empty folders, both sorted."""
        if self._path is None:
            return self._files, self._folders
        files: dict[str, File] = {}
        folders: list[str] = []
        pending = [("", self._path)]
        while pending:
            prefix, folder = pending.pop()
            with os.scandir(folder) as found:
                entries = list(found)
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                path = f"{prefix}{entry.name}"
                if stat.S_ISDIR(mode):
                    pending.append((f"{path}/", Path(entry.path)))
                elif stat.S_ISREG(mode):
                    files[path] = File(entry.path)
                else:
                    kind = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
                    raise UnsupportedTypeError(
                        f"{entry.path!r} is {kind}; put a copy in its place, or store its files one by one"
                    )
            if not entries and prefix:
                folders.append(prefix[:-1])
        return dict(sorted(files.items())), sorted(folders)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self._name

    @property
    def size(self) -> int:
        """Sum of the sizes of its files (bytes)."""
        return sum(file.size for file in self._scan()[0].values())

    def paths(self, pattern: str | None = None) -> list[str]:
        """Return the relative paths of its files, sorted; with a pattern (`pathlib.PurePath.match`), those only."""
        return [path for path in self._scan()[0] if pattern is None or PurePosixPath(path).match(pattern)]

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
        files, folders = self._scan()
        target = Path(to)
        extract_folder(list(files.items()), folders, target, overwrite)
        return target

    def items(self) -> ItemsView[str, File]:  # docstring inherited
        return self._scan()[0].items()  # the folder is looked through once, not once per file

    def values(self) -> ValuesView[File]:  # docstring inherited
        return self._scan()[0].values()

    def __getitem__(self, path: str) -> File:
        return self._scan()[0][path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scan()[0])

    def __len__(self) -> int:
        return len(self._scan()[0])

    def __eq__(self, other: object) -> bool:
        """Compare paths and bytes, empty folders too, but not its own name."""
        if type(other) is not Directory:
            return NotImplemented
        return self._scan() == other._scan()

    __hash__ = None  # type: ignore[assignment]  # the bytes may change

    def __copy__(self) -> Directory:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Directory:
        return self  # it holds no bytes

    def __repr__(self) -> str:
        try:
            return f"Directory({self.name!r}, {len(self)} files)"
        except (OSError, UnsupportedTypeError):
            return f"Directory({str(self._path)!r}, not readable)"


class DirectoryCodec(Codec):
    """`Directory`.  Preserves what `FileCodec` preserves of each file, and empty folders."""

    name = "mltraq_ds.directory/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        return type(value) is Directory

    def encode(self, value: Any) -> Parts:  # docstring inherited
        files, folders = value._scan()
        rows, members = [], []
        for path, file in files.items():
            validate_key(path, "path of a file")
            description = file._described()
            rows.append([path, *description[1:]])
            members.append(member_of(file, description, path))
        for path in folders:
            validate_key(path, "path of a folder")
        meta = {"name": validate_file_name(value.name), "files": rows, "folders": folders}
        return Parts(meta, members, {"length": len(rows)})

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        return Directory._from_sources(meta, members)
