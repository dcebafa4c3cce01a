"""FileStore: the files of experiments at any storage, through the door of run records."""

from __future__ import annotations

from mltraq_ds.store.file_artifacts import FileArtifacts
from mltraq_ds.store.file_notes import FileNotes
from mltraq_ds.store.file_records import FileRecords

__all__ = ["FileStore"]


class FileStore(FileRecords, FileArtifacts, FileNotes):
    """Run records, artifacts, derived metrics, logs, results and manifests of one experiment, or of a collection.

    The same files that `Session` and `Experiment.persist` write, through another door: what comes in by one is listed
    and loaded by the other.  It needs no SQL.  Any number of processes may write at once, without locks; every file
    appears whole or not at all, refers to others by store-relative keys, and is verified when it is read.

    Parameters
    ----------
    storage : Storage
        Of the collection's root: a folder, or anything that fsspec reaches.
    experiment_id : str or None
        The experiment that it is scoped to, any string; None for the collection.
    root : str
        Path or URL of the root, as given, for people.

    Examples
    --------
    >>> from mltraq_ds.storage import open_storage
    >>> from mltraq_ds.store.types import RunRecord
    >>> store = FileStore(open_storage("memory://collection")).scoped("my_exp:1.0")
    >>> store.put_run_record(RunRecord.success("run-1", "my_exp:1.0", metrics={"loss": 0.25}))
    >>> store.get_run_record("run-1").metrics
    {'loss': 0.25}
    >>> FileStore(store.storage).list_experiments()
    ['my_exp:1.0']
    """
