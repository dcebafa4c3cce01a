"""Every error and warning of the library, grouped by what a handler would do.

::

    MltraqDSError
    ├── UsageError (ValueError)               change the call
    │   ├── InvalidNameError                  a place that could leave its place
    │   ├── UnknownOptionError (LookupError)  no such option; the nearest one is named
    │   ├── UnsupportedTypeError (TypeError)  no codec takes this value
    │   ├── TooDeepError                      nested too deeply, or in a circle
    │   └── MissingExtraError (ImportError)   install an extra
    ├── NotFoundError (LookupError)           nothing of that name
    │   ├── ArtifactNotFoundError             no such artifact or version; the nearest is named
    │   ├── ExperimentNotFoundError
    │   └── UnknownStoreError                 the index does not know this store: rebuild_index()
    ├── ConflictError                         look at the other one, then decide
    │   ├── ExperimentExistsError
    │   ├── ConcurrentPersistError            somebody else committed first: reload()
    │   ├── StaleReferenceError               loaded before somebody else committed: reload()
    │   ├── AmbiguousNameError                several experiments of one name: use the id
    │   └── ValueChangedError                 changed by another thread while it was written
    ├── DamageError                           restore from a copy; ``mltraq-ds check`` lists all
    │   ├── DanglingReferenceError (OSError)  reference without blob
    │   ├── CorruptBlobError (OSError)        bytes differ from what was written
    │   └── CorruptRecordError (OSError)      a record, generation or descriptor that does not verify
    ├── FormatError                           written by a newer version: upgrade
    ├── PickleRefusedError                    the reader has not opted in to pickle
    ├── TransferError                         an export did not copy everything: the same call goes on
    ├── StorageError (OSError)                the storage or database does not answer or refuses
    │   ├── ArtifactBackendError              who keeps an artifact does not answer or refuses
    │   ├── KeyExistsError (FileExistsError)
    │   ├── KeyMissingError (FileNotFoundError)
    │   ├── RemotesError                      no remote of a blob delivers its bytes
    │   ├── UnknownOutcomeError               the commit may or may not have happened: nothing was undone
    │   └── DatabaseUnavailableError
    ├── RunError                              a step of a run raised
    └── WorkerDiedError                       a worker process was killed: look at its memory, execute again

    MltraqDSWarning (UserWarning)
    ├── CacheFailedWarning                    the read cache cannot be used; the storage was read
    ├── IndexBehindWarning                    persisted, but SQL has not caught up yet
    ├── LeftoversWarning                      persisted, but what it replaced is not all removed yet
    ├── RemoteFailedWarning                   a place of a blob failed or lied; another is asked
    ├── RunFailedWarning                      steps of runs raised; the other runs went on
    └── SecretInOptionsWarning

``OSError``, ``ValueError``, ``TypeError`` and ``LookupError`` are bases where people already catch them.  ``KeyError``
is not: it prints its text quoted.  Every class takes one message, so that all of them pickle.
"""

from __future__ import annotations

__all__ = [
    "AmbiguousNameError",
    "ArtifactBackendError",
    "ArtifactNotFoundError",
    "CacheFailedWarning",
    "ConcurrentPersistError",
    "ConflictError",
    "CorruptBlobError",
    "CorruptRecordError",
    "DamageError",
    "DanglingReferenceError",
    "DatabaseUnavailableError",
    "ExperimentExistsError",
    "ExperimentNotFoundError",
    "FormatError",
    "IndexBehindWarning",
    "InvalidNameError",
    "KeyExistsError",
    "KeyMissingError",
    "LeftoversWarning",
    "MissingExtraError",
    "MltraqDSError",
    "MltraqDSWarning",
    "NotFoundError",
    "PickleRefusedError",
    "RemoteFailedWarning",
    "RemotesError",
    "RunError",
    "RunFailedWarning",
    "SecretInOptionsWarning",
    "StaleReferenceError",
    "StorageError",
    "TooDeepError",
    "TransferError",
    "UnknownOptionError",
    "UnknownOutcomeError",
    "UnknownStoreError",
    "UnsupportedTypeError",
    "UsageError",
    "ValueChangedError",
    "WorkerDiedError",
]


class MltraqDSError(Exception):
    """Base of every error raised on purpose by this library."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class UsageError(MltraqDSError, ValueError):
    """The call cannot work as written; nothing was changed."""


class InvalidNameError(UsageError):
    """A prefix, URL, key or path that could leave its place; nothing was changed."""


class UnknownOptionError(UsageError, LookupError):
    """No option has this name; nothing was changed."""


class UnsupportedTypeError(UsageError, TypeError):
    """No codec takes a value of this type; nothing was changed."""


class TooDeepError(UsageError):
    """A value is nested deeper than the stated limit, or contains itself; nothing was changed."""


class MissingExtraError(UsageError, ImportError):
    """A library is needed that is not installed; the text has the pip command."""


class NotFoundError(MltraqDSError, LookupError):
    """Nothing has this name or id."""


class ArtifactNotFoundError(NotFoundError):
    """No artifact has this name, or not this version."""


class ExperimentNotFoundError(NotFoundError):
    """No experiment has this name or id."""


class UnknownStoreError(NotFoundError):
    """The index has never seen this store, which is not empty; `rebuild_index` reads it in."""


class ConflictError(MltraqDSError):
    """Somebody else's work is in the way; theirs stands, nothing of it was changed."""


class ExperimentExistsError(ConflictError):
    """The name or the experiment exists already; nothing was changed."""


class ConcurrentPersistError(ConflictError):
    """Another writer committed first; its version stands, ours was removed again."""


class StaleReferenceError(ConflictError):
    """A lazy value belongs to a version that another writer has replaced; `reload` gives the new one."""


class AmbiguousNameError(ConflictError):
    """Several experiments have this name; load by id."""


class ValueChangedError(ConflictError):
    """A value changed while its bytes were written; nothing was committed."""


class DamageError(MltraqDSError):
    """Stored bytes are gone or wrong; nothing was changed."""


class DanglingReferenceError(DamageError, OSError):
    """The blob that a reference names is gone."""


class CorruptBlobError(DamageError, OSError):
    """The bytes of a blob are not those that were written."""


class CorruptRecordError(DamageError, OSError):
    """A record, generation or descriptor cannot be read or does not verify."""


class FormatError(MltraqDSError):
    """Written in a format version that this version of the library does not know."""


class PickleRefusedError(MltraqDSError):
    """A pickled value was met and the reader has not opted in."""


class TransferError(MltraqDSError):
    """An export did not copy everything; what was copied stays, whole, and the same call goes on."""


class StorageError(MltraqDSError, OSError):
    """A storage or database refuses or does not answer."""


class ArtifactBackendError(StorageError):
    """The storage backend of an artifact (MLflow …) does not answer or refuses."""


class KeyExistsError(StorageError, FileExistsError):
    """A key that had to be new exists; it was left as it is."""


class KeyMissingError(StorageError, FileNotFoundError):
    """No such key in this storage."""


class RemotesError(StorageError):
    """No remote of a blob delivers its bytes, or a transfer to remotes is not complete; run it again to finish."""


class UnknownOutcomeError(StorageError):
    """The answer to a commit was lost.  It may have happened, so nothing was undone; the next session finds out."""


class DatabaseUnavailableError(StorageError):
    """The database cannot be reached or cannot be used; nothing was changed."""


class RunError(MltraqDSError):
    r"""A step of a run raised.

    NUL characters and lone surrogates, which no database takes, are written as ``\x00`` and ``\udc80`` in its texts.

    Parameters
    ----------
    message : str
        Type and message of what was raised.
    type_name : str
        Its type alone.
    traceback : str
        Its traceback as text: the exception itself may not exist in the process that reads this.
    """

    def __init__(self, message: str = "", type_name: str = "", traceback: str = "") -> None:
        super().__init__(_writable(message))
        self.type_name = _writable(type_name)
        self.traceback = _writable(traceback)


def _writable(text: str) -> str:
    # What a child process printed may hold anything.  No record or database takes it, and one run would keep all the
    # others from being persisted.
    return text.replace("\0", r"\x00").encode(errors="backslashreplace").decode()


class WorkerDiedError(MltraqDSError):
    """A worker process ended without an answer; the runs that were done are in the experiment, with their results."""


class MltraqDSWarning(UserWarning):
    """Base of every warning given by this library."""


class CacheFailedWarning(MltraqDSWarning):
    """The read cache cannot be read or written; values were read from the storage instead."""


class IndexBehindWarning(MltraqDSWarning):
    """The files are complete, the index is not; the next session catches up."""


class LeftoversWarning(MltraqDSWarning):
    """What was replaced or deleted is not all removed; the next session or `sweep` finishes."""


class RemoteFailedWarning(MltraqDSWarning):
    """Remote or store did not answer, or its bytes were not those that were written; another place is asked."""


class RunFailedWarning(MltraqDSWarning):
    """Steps of some runs raised; each keeps its `RunError`, and the other runs went on."""


class SecretInOptionsWarning(MltraqDSWarning):
    """A secret was given in an option; it works and is never stored."""
