"""What the system says when it refuses, told with the key and the remedy."""

from __future__ import annotations

import errno
import os
from types import TracebackType

from mltraq_ds.errors import KeyExistsError, KeyMissingError, MltraqDSError, StorageError
from mltraq_ds.storage import answers

__all__ = ["Failing", "failure_of", "is_refusal", "with_errno"]

_REMEDIES = {
    errno.ENOSPC: "Free space (and inodes) there, or choose another 'datastore.url'.",
    errno.EDQUOT: "Free space within your quota there, or choose another 'datastore.url'.",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), or choose another 'datastore.url'.",
    errno.EROFS: "Make it writable (it is mounted read-only), or choose another 'datastore.url'.",
    errno.EACCES: "Give this user the permission to read and write there, or choose another 'datastore.url'.",
    errno.EPERM: "Give this user the permission to read and write there, or choose another 'datastore.url'.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n), or keep fewer values open.",
    errno.ENFILE: "Raise the limit on open files of this machine, or keep fewer values open.",
    errno.ENAMETOOLONG: "Use a shorter key, or a 'datastore.url' with a shorter path.",
    errno.EISDIR: "There is a folder of this name; use another key.",
    errno.EIO: "Look at the health of the disk (dmesg), and run 'mltraq-ds check'.",
}
_OTHERWISE = "Look at the storage, then try again."


def is_refusal(error: StorageError) -> bool:
    """Tell whether a storage does not permit something: read-only, or without the permission."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def with_errno(error: StorageError, number: int | None) -> StorageError:
    """Return `error` with its ``errno`` set so that it survives pickling.

    ``errno`` is a slot that ``OSError.__reduce__`` forgets when there is one argument; what stands in ``__dict__`` is
    set again attribute by attribute.
    """
    if number is not None:
        error.errno = number
        vars(error)["errno"] = number
    return error


def failure_of(verb: str, key: str, url: str, error: Exception, said: str = "") -> StorageError:
    """Return the error to raise from `error`, met while doing `verb` to `key`; `said` is its text without secrets."""
    number = getattr(error, "errno", None)
    what = f"{verb} {key!r} in {url}" if key else f"{verb} {url}"
    if answers.is_taken(error):
        return with_errno(
            KeyExistsError(f"{what} is refused because it exists; it was left as it is. Use a fresh key."), errno.EEXIST
        )
    is_folder = verb == "read" and isinstance(error, IsADirectoryError)  # a folder is no key
    if answers.is_absence(error) or isinstance(error, NotADirectoryError) or is_folder:
        reason = "its folder does not exist" if verb in ("put", "make_folder") else "there is no such key"
        if isinstance(error, NotADirectoryError):
            reason = "a part of it is a file, not a folder"
        return with_errno(
            KeyMissingError(
                f"{what} failed because {reason}. It may have been deleted meanwhile; 'mltraq-ds check' lists what is "
                "missing."
            ),
            errno.ENOENT,
        )
    refusal = answers.refusal_of(error)
    if refusal is not None:
        number = errno.EACCES if number is None and answers.is_refused(error) else number
        return with_errno(StorageError(f"{what} failed because {refusal[0]}. {refusal[1]}"), number)
    code = errno.errorcode.get(number or 0)
    # Clients put what the service has said into the place of the system's own words.
    code = None if said and code and os.strerror(number or 0) not in said else code
    is_ours = type(error).__module__.startswith("mltraq_ds.")  # stands for what a service has said, and no name of it
    kind = "" if is_ours else f"{type(error).__name__}: "
    reason = f"{os.strerror(number)} ({code})" if number and code else f"{kind}{said or error}"
    return with_errno(StorageError(f"{what} failed because of: {reason}. {_remedy_of(number, error)}"), number)


def _remedy_of(number: int | None, error: Exception) -> str:
    if number is None and isinstance(error, PermissionError | IsADirectoryError):
        # Object stores answer "403" without a number of the system.
        number = errno.EACCES if isinstance(error, PermissionError) else errno.EISDIR
    return _REMEDIES.get(number or 0, _OTHERWISE)


class Failing:
    """Context in which an ``OSError`` of the system is raised again as a `StorageError` that says what to do.

    Only system calls belong inside: errors raised by a caller's buffers pass unchanged.
    """

    __slots__ = ("key", "url", "verb")

    def __init__(self, verb: str, key: str, url: str) -> None:
        self.verb = verb
        self.key = key
        self.url = url

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, MltraqDSError):
            raise failure_of(self.verb, self.key, self.url, error) from error
