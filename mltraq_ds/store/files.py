"""FileStore: the files of experiments at any storage, through the door of run records."""

from __future__ import annotations

from mltraq_ds.storage.base import Storage

__all__ = ["FileStore"]


class FileStore:
    """Run records, artifacts, derived metrics, logs, results and manifests of one experiment or of a collection.

    Parameters
    ----------
    storage : Storage
        Of the collection's root.
    experiment_id : str or None
        The experiment that it is scoped to; None for the collection.
    root : str
        Path or URL of the root, as given, for people.
    """

    def __init__(self, storage: Storage, *, experiment_id: str | None = None, root: str = "") -> None:
        self.storage = storage
        self.experiment_id = experiment_id
        self.root = root or storage.url
