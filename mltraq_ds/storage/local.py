"""A folder on this machine: atomic, durable, memory-mapped."""

from __future__ import annotations

import builtins
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, TypeAlias

from mltraq_ds.errors import UsageError
from mltraq_ds.ids import validate_key
from mltraq_ds.storage.base import Buffer, Source, Stat, Storage, check_new_key, is_temporary
from mltraq_ds.storage.failures import Failing
from mltraq_ds.storage.folders import Root, check_is_file, remove_tree, scan, stat_of
from mltraq_ds.storage.mounts import MAPPABLE, PREALLOCATABLE, filesystem_type
from mltraq_ds.storage.places import path_from, url_from_path
from mltraq_ds.storage.sizes import check_is_regular, check_size
from mltraq_ds.storage.sources import FileSource, open_file
from mltraq_ds.storage.writing import write_file

__all__ = ["Durability", "LocalStorage"]

Durability: TypeAlias = Literal["full", "relaxed"]


class LocalStorage(Storage):
    """A folder.  Nothing is opened, made or checked before the first verb; any number of threads and forks.

    A key is written to a temporary file beside it (a name that starts with ``.tmp-``, never listed), preallocated,
    flushed, and then given its name by a hard link, which never replaces; `replace` renames instead.  A killed write
    leaves the temporary file, for sweep: `list_unfinished`.

    Parameters
    ----------
    url : str or path
        Path, made absolute now, or ``file:///`` URL.
    durability : {"full", "relaxed"}
        With "relaxed" nothing is flushed: a power cut may lose or tear what was written last; a kill does not.
    mmap : bool
        Map large reads where the file system is local.  Elsewhere, and with False, they are copied into memory.

    Examples
    --------
    >>> import tempfile
    >>> storage = LocalStorage(tempfile.mkdtemp())
    >>> storage.put("a/x", [b"12", b"3"], size=3, parents=True)
    >>> storage.read("a/x"), [stat.key for stat in storage.list()]
    (b'123', ['a/x'])
    """

    def __init__(self, url: str | os.PathLike[str], *, durability: Durability = "full", mmap: bool = True) -> None:
        if durability not in ("full", "relaxed"):
            raise UsageError(f"The durability {durability!r} is refused. Choose 'full' or 'relaxed'.")
        path = path_from(os.fspath(url))
        self.url = url_from_path(path)
        self._root = Root(path, self.url, is_durable=durability == "full")
        self._durability: Durability = durability
        self._mmap = mmap
        self._types: dict[int, str | None] = {}

    def __repr__(self) -> str:
        return f"LocalStorage({self.url!r}, durability={self._durability!r}, mmap={self._mmap})"

    def __getstate__(self) -> dict[str, object]:
        return {"url": self.url, "durability": self._durability, "mmap": self._mmap}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def creates_if_absent(self) -> bool:
        # docstring inherited
        return True

    @property
    def is_shareable(self) -> bool:
        # docstring inherited
        return True

    @property
    def is_local(self) -> bool:
        # docstring inherited
        return True

    def put(
        self,
        key: str,
        buffers: Iterable[Buffer],
        *,
        size: int,
        replace: bool = False,
        parents: bool = False,
        flush: bool = True,
        before_publish: Callable[[], None] | None = None,
    ) -> None:
        # docstring inherited
        path = self._root.join(check_new_key(key))
        failing = Failing("put", key, self.url)
        write_file(
            path,
            buffers,
            size,
            failing,
            replace=replace,
            is_durable=self._durability == "full",
            make_folder=self._root.make if parents else None,
            before_publish=before_publish,
            is_preallocatable=lambda device: self._type_of(device, path) in PREALLOCATABLE,
        )
        if flush:
            with failing:
                self._root.flush(os.path.dirname(path))

    def open(self, key: str, *, size: int | None = None) -> Source:
        # docstring inherited
        path = self._root.join(validate_key(key))
        failing = Failing("open", key, self.url)
        with failing:
            fd = open_file(path, self._root.refuse_escape)
        return FileSource(
            fd,
            Failing("read", key, self.url),
            size=size,
            is_local=lambda device: self._type_of(device, path) in MAPPABLE,
            mmap=self._mmap,
            home=self,
        )

    def read(self, key: str, *, max_size: int | None = None) -> bytes:
        # docstring inherited; without a source, which small files would wait for
        path = self._root.join(validate_key(key))
        with Failing("open", key, self.url):
            fd = open_file(path, self._root.refuse_escape)
        with Failing("read", key, self.url), open(fd, "rb", buffering=0) as file:
            status = os.fstat(fd)
            if max_size is not None:
                check_is_regular(key, status)
            check_is_file(status)
            check_size(key, status.st_size, max_size)
            return bytes(file.readall())

    def delete(self, key: str) -> None:
        """Remove one key; one that is gone already is no error.

        Nothing is flushed: a key that comes back after a power cut is an orphan, and the next sweep removes it.
        """
        path = self._root.join(validate_key(key))
        with Failing("delete", key, self.url), suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)

    @contextmanager
    def holding(self, key: str) -> Iterator[Callable[[str], None]]:
        # docstring inherited; an open folder stays the one it was, wherever it is renamed to
        if os.unlink not in os.supports_dir_fd:  # pragma: no cover - Windows
            yield self.delete
            return
        path, fd = self._root.folder(key), -1
        with Failing("open", key, self.url), suppress(FileNotFoundError, NotADirectoryError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

        def delete(inside: str) -> None:
            name = os.path.relpath(self._root.join(validate_key(inside)), path)
            if os.path.dirname(name):
                raise UsageError(f"delete {inside!r} was refused because it does not lie directly in {key!r}.")
            with Failing("delete", inside, self.url), suppress(FileNotFoundError):
                if fd >= 0:
                    os.unlink(name, dir_fd=fd)

        try:
            yield delete
        finally:
            if fd >= 0:
                os.close(fd)

    def exists(self, key: str) -> bool:
        # docstring inherited
        try:
            self.stat(key)
        except FileNotFoundError:
            return False
        return True

    def stat(self, key: str) -> Stat:
        # docstring inherited
        path = self._root.join(validate_key(key))
        with Failing("stat", key, self.url):
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                self._root.refuse_escape(path)
                status = os.stat(path)
            check_is_file(status)
        return stat_of(key, status)

    def list(self, prefix: str = "") -> Iterator[Stat]:
        """Yield all keys below folder `prefix`, in any order; folders that are links are not entered.

        Foreign files are listed by their name, also one that is no valid key.
        """
        return (found for found in self._root.walk(prefix) if not is_temporary(found.key))

    def list_unfinished(self, prefix: str = "") -> Iterator[Stat]:
        # docstring inherited
        return (found for found in self._root.walk(prefix) if is_temporary(found.key))

    def flush(self, keys: Iterable[str]) -> None:
        # docstring inherited
        for folder, key in {os.path.dirname(self._root.join(validate_key(key))): key for key in keys}.items():
            with Failing("flush", key, self.url):
                self._root.flush(folder)

    def folders(self, prefix: str = "") -> builtins.list[str]:
        # docstring inherited
        path = self._root.folder(prefix)
        with Failing("list", prefix, self.url):
            return sorted(entry.name for entry in scan(path) if entry.is_dir(follow_symlinks=False))

    def make_folder(self, key: str) -> None:
        """Make a folder that must be new (`KeyExistsError`), in a folder that exists (`KeyMissingError`)."""
        path = self._root.join(validate_key(key))
        with Failing("make_folder", key, self.url):
            self._root.make_new(path)

    def prune(self, key: str) -> None:
        # docstring inherited
        path = self._root.join(validate_key(key))
        self._root.forget(path)
        with Failing("prune", key, self.url):
            try:
                os.rmdir(path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
                    raise

    def move_folder(self, key: str, to: str) -> bool:
        """Rename a folder in one step, making the folders above `to`; False where that is not possible.

        Raises
        ------
        KeyMissingError, KeyExistsError
            If there is no folder `key`, or something named `to`.  Nothing was done.
        """
        source, target = self._root.join(validate_key(key)), self._root.join(validate_key(to))
        above = os.path.dirname(target)
        with Failing("move_folder", to, self.url):
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with Failing("move_folder", key, self.url):
            if not stat.S_ISDIR(os.lstat(source).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            self._root.make(above)
            try:
                os.rename(source, target)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    return False
                raise
            self._root.forget(source)
            self._root.flush(above)
            self._root.flush(os.path.dirname(source))
        return True

    def delete_folder(self, key: str) -> None:
        """Remove a folder with all it holds; one that is gone already is no error.

        Others may remove or add files meanwhile.  Killed in between, the rest is there and can be removed again.
        """
        path = self._root.join(validate_key(key))
        self._root.forget(path)
        with Failing("delete_folder", key, self.url):
            remove_tree(path)

    def now(self) -> float:
        """Return the time of this machine (s since 1970), which stamps its files.

        A folder on a network mount is stamped by its server; both clocks should be kept by NTP.
        """
        return time.time()

    def _type_of(self, device: int, path: str) -> str | None:
        if device not in self._types:
            self._types[device] = filesystem_type(device, os.path.realpath(path))
        return self._types[device]
