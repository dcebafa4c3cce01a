"""The folders of a local storage: keys to paths that stay inside, walking, making, flushing and removing."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress

from mltraq_ds.errors import InvalidNameError
from mltraq_ds.ids import validate_key
from mltraq_ds.storage import writing
from mltraq_ds.storage.base import Stat
from mltraq_ds.storage.failures import Failing, failure_of
from mltraq_ds.storage.links import is_broken, is_listed

__all__ = ["Root", "check_is_file", "remove_tree", "scan", "stat_of"]

_MAX_TRIES = 10


class Root:
    """The folder that holds a storage; it may be a symbolic link itself."""

    def __init__(self, path: str, url: str, *, is_durable: bool) -> None:
        self.path = path
        self._url = url
        self._is_durable = is_durable
        # Folders below the root whose own name was flushed.  A hint: forgetting one costs an fsync.
        self._flushed: set[str] = set()

    def join(self, key: str) -> str:
        """Return the path of a valid key.

        Raises
        ------
        InvalidNameError
            If one of its folders is a link out of the root.  The last segment is looked at by the verbs that follow it.
        """
        path = self.path
        *folders, name = key.split("/")
        for segment in folders:
            path = os.path.join(path, segment)
            try:
                is_link = stat.S_ISLNK(os.lstat(path).st_mode)
            except OSError:
                break  # the verb meets it again, and says so
            if is_link:
                self.refuse_escape(path)
        return os.path.join(self.path, *folders, name)

    def folder(self, prefix: str) -> str:
        """Return the path of the folder `prefix`, of the root if empty."""
        return os.path.dirname(self.join(f"{validate_key(prefix, 'prefix')}/x")) if prefix else self.path

    def refuse_escape(self, path: str) -> None:
        """Raise `InvalidNameError` if a link leads out of the root and is none that the store lists.

        One that it lists and whose target is gone is `KeyMissingError`, and not followed either.
        """
        target, root = os.path.realpath(path), os.path.realpath(self.path)
        is_inside = target == root or target.startswith(root.rstrip(os.sep) + os.sep)
        if not is_inside and not is_listed(self.path, path):
            if is_broken(self.path, path):
                gone = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                raise failure_of("open", os.path.relpath(path, self.path), self._url, gone)
            raise InvalidNameError(
                f"The key {os.path.relpath(path, self.path)!r} is refused because it is a symbolic link that leaves "
                f"{self._url}. Replace it by what it points to."
            )

    def make(self, path: str) -> None:
        """Make a folder and those above it, also above the root, and flush the names of the new ones."""
        if os.path.isdir(path):
            return
        above = os.path.dirname(path)
        self.make(above)
        with suppress(FileExistsError):  # another writer was faster
            os.mkdir(path)
        if not self._is_durable:
            return
        if path.startswith(self.path.rstrip(os.sep) + os.sep):
            self.flush(above)  # somebody else may have made it, and not have come to flushing its own name
            self._flushed.add(path)
        else:
            writing.sync_folder(above)

    def make_new(self, path: str) -> None:
        """Make a folder that must be new and flush its name; it is empty, so there is nothing in it to flush."""
        os.mkdir(path)
        if self._is_durable:
            self.flush(os.path.dirname(path))
            self._flushed.add(path)

    def flush(self, folder: str) -> None:
        """Flush the names in a folder and, the first time, those of the folders above it up to the root.

        Whoever made those: another process may not have come to flushing them yet.
        """
        if not self._is_durable:
            return
        writing.sync_folder(folder)
        while folder != self.path and folder not in self._flushed:
            above = os.path.dirname(folder)
            writing.sync_folder(above)
            self._flushed.add(folder)
            folder = above

    def forget(self, folder: str) -> None:
        """Take note that a folder is going: one of its name may be made again."""
        inside = folder + os.sep
        for path in list(self._flushed):
            if path == folder or path.startswith(inside):
                self._flushed.discard(path)

    def walk(self, prefix: str) -> Iterator[Stat]:
        """Yield every file below a folder, unfinished ones too; folders that are links are not entered."""
        return self._walk(self.folder(prefix), f"{prefix}/" if prefix else "")

    def _walk(self, path: str, start: str) -> Iterator[Stat]:
        folders = [(path, start)]
        while folders:
            path, start = folders.pop()
            found: list[Stat] = []
            with Failing("list", start, self._url):
                for entry in scan(path):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, f"{start}{entry.name}/"))
                        continue
                    with suppress(FileNotFoundError):  # removed since the folder was read
                        found.append(stat_of(start + entry.name, self._status_of(entry)))
            yield from found

    def _status_of(self, entry: os.DirEntry[str]) -> os.stat_result:
        if entry.is_symlink():
            with suppress(OSError, InvalidNameError):  # a link that leads nowhere or outside is listed as itself
                self.refuse_escape(entry.path)
                status = os.stat(entry.path)
                if stat.S_ISREG(status.st_mode):
                    return status
        return os.stat(entry.path, follow_symlinks=False)


def scan(path: str) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder; none if there is no such folder."""
    try:
        entries = os.scandir(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        yield from entries


def check_is_file(status: os.stat_result) -> None:
    """Raise ``FileNotFoundError`` for a folder, which is no key, and ``OSError`` for a device or pipe."""
    if stat.S_ISDIR(status.st_mode):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"it is a device, pipe or socket (mode {status.st_mode:o})")


def stat_of(key: str, status: os.stat_result) -> Stat:
    """Return what a storage tells of a file."""
    return Stat(key, status.st_size, max(status.st_mtime, status.st_ctime))


def remove_tree(path: str) -> None:
    """Remove a folder with all it holds, although others add and remove files meanwhile."""
    for left in reversed(range(_MAX_TRIES)):
        try:
            if os.path.islink(path):
                os.unlink(path)
            else:
                _remove_tree_once(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not left:
                raise  # anything but a file added since the folder was read


def _remove_tree_once(path: str) -> None:
    # What somebody else has removed meanwhile needs no removing.
    if sys.version_info >= (3, 12):

        def on_error(function: object, path: str, error: BaseException) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        shutil.rmtree(path, onexc=on_error)
    else:

        def on_error(function: object, path: str, info: tuple[object, BaseException, object]) -> None:
            if not isinstance(info[1], FileNotFoundError):
                raise info[1]

        shutil.rmtree(path, onerror=on_error)
